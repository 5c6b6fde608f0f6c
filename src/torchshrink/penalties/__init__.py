"""The penalties. `BUILTIN` drives the contract tests, the command line's choices and the documentation's table."""

from torchshrink.penalties.anchored import L2SP
from torchshrink.penalties.base import Penalty, register_sum
from torchshrink.penalties.constraints import L1Ball, MaxNorm
from torchshrink.penalties.elementwise import L1, L2, ElasticNet
from torchshrink.penalties.groups import GroupLasso, SparseGroupLasso
from torchshrink.penalties.nonconvex import MCP, SCAD
from torchshrink.penalties.spectral import NuclearNorm, Orthogonal

BUILTIN: dict[str, type[Penalty]] = {
    "l1": L1,
    "l2": L2,
    "elastic_net": ElasticNet,
    "group_lasso": GroupLasso,
    "sparse_group_lasso": SparseGroupLasso,
    "mcp": MCP,
    "scad": SCAD,
    "l2sp": L2SP,
    "nuclear_norm": NuclearNorm,
    "orthogonal": Orthogonal,
    "max_norm": MaxNorm,
    "l1_ball": L1Ball,
}

__all__ = [
    "BUILTIN",
    "L1",
    "L2",
    "L2SP",
    "MCP",
    "SCAD",
    "ElasticNet",
    "GroupLasso",
    "L1Ball",
    "MaxNorm",
    "NuclearNorm",
    "Orthogonal",
    "Penalty",
    "SparseGroupLasso",
    "register_sum",
]
