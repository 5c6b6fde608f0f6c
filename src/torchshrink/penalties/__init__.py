"""The penalties. `BUILTIN` drives the contract tests, the command line's choices and the documentation's table."""

from torchshrink.penalties.base import Penalty, register_sum
from torchshrink.penalties.elementwise import L1, L2, ElasticNet
from torchshrink.penalties.groups import GroupLasso, SparseGroupLasso

BUILTIN: dict[str, type[Penalty]] = {
    "l1": L1,
    "l2": L2,
    "elastic_net": ElasticNet,
    "group_lasso": GroupLasso,
    "sparse_group_lasso": SparseGroupLasso,
}

__all__ = ["BUILTIN", "L1", "L2", "ElasticNet", "GroupLasso", "Penalty", "SparseGroupLasso", "register_sum"]
