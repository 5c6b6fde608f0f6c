"""The penalties. `BUILTIN` drives the contract tests, the command line's choices and the documentation's table."""

import torch

from torchshrink.penalties.anchored import L2SP
from torchshrink.penalties.base import Penalty, register_sum
from torchshrink.penalties.bounds import Box, NonNegative
from torchshrink.penalties.concave_groups import GroupMCP, GroupSCAD
from torchshrink.penalties.constraints import L1Ball, MaxNorm, UnitNorm
from torchshrink.penalties.elementwise import L1, L2, ElasticNet
from torchshrink.penalties.fixed import Fixed
from torchshrink.penalties.groups import GroupLasso, SparseGroupLasso
from torchshrink.penalties.hard_sparsity import NM, Gradual, L0Ball
from torchshrink.penalties.log_sum import LogSum
from torchshrink.penalties.nonconvex import MCP, SCAD
from torchshrink.penalties.parts import Blocks, Labels
from torchshrink.penalties.spectral import NuclearNorm, Orthogonal
from torchshrink.penalties.support import Support

BUILTIN: dict[str, type[Penalty]] = {
    "l1": L1,
    "l2": L2,
    "elastic_net": ElasticNet,
    "group_lasso": GroupLasso,
    "sparse_group_lasso": SparseGroupLasso,
    "mcp": MCP,
    "scad": SCAD,
    "log_sum": LogSum,
    "group_mcp": GroupMCP,
    "group_scad": GroupSCAD,
    "l2sp": L2SP,
    "nuclear_norm": NuclearNorm,
    "orthogonal": Orthogonal,
    "max_norm": MaxNorm,
    "unit_norm": UnitNorm,
    "l1_ball": L1Ball,
    "non_negative": NonNegative,
    "box": Box,
    "l0_ball": L0Ball,
    "nm": NM,
}

# They are numbers with a name: a checkpoint that holds some, as hyperparameters do, loads with weights_only=True.
torch.serialization.add_safe_globals([*BUILTIN.values(), Support, Gradual, Fixed, Labels, Blocks])

__all__ = [
    "BUILTIN",
    "L1",
    "L2",
    "L2SP",
    "MCP",
    "NM",
    "SCAD",
    "Box",
    "ElasticNet",
    "Gradual",
    "GroupLasso",
    "GroupMCP",
    "GroupSCAD",
    "L0Ball",
    "L1Ball",
    "LogSum",
    "MaxNorm",
    "NonNegative",
    "NuclearNorm",
    "Orthogonal",
    "Penalty",
    "SparseGroupLasso",
    "Support",
    "UnitNorm",
    "register_sum",
]
