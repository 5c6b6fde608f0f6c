"""torchshrink: regularization for PyTorch whose strength means what it says.

The names below are loaded when they are first used, so that ``torchshrink --help`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazy, for it needs no torch and its module has its name: once both are loaded, the name is the function.
from torchshrink.convert import Conversion, NoEquivalentError, convert

if TYPE_CHECKING:
    from torchshrink.certificate import Certificate
    from torchshrink.errors import (
        AttachmentError,
        DataWarning,
        GeometryError,
        InputError,
        ObjectiveWarning,
        ReadError,
        SelectionError,
        SelectionWarning,
        TorchshrinkError,
    )
    from torchshrink.models import load_model
    from torchshrink.path import (
        LanesWarning,
        PathComparison,
        PathResult,
        TasksWarning,
        WorkerLostError,
        clear_journal,
        load_path,
        path,
    )
    from torchshrink.penalties import (
        L1,
        L2,
        L2SP,
        MCP,
        SCAD,
        ElasticNet,
        GroupLasso,
        L1Ball,
        MaxNorm,
        NuclearNorm,
        Orthogonal,
        Penalty,
        SparseGroupLasso,
    )
    from torchshrink.polishing import Polished, polish
    from torchshrink.proof import DualityGap, NoDualError, certify, duality_gap
    from torchshrink.regularizer import Regularizer
    from torchshrink.selection import ALL, WEIGHTS
    from torchshrink.training import DivergenceError, DivergenceWarning

__version__ = "0.1.0"

_HOME = {
    "torchshrink.certificate": ("Certificate",),
    "torchshrink.errors": (
        "AttachmentError",
        "DataWarning",
        "GeometryError",
        "InputError",
        "ObjectiveWarning",
        "ReadError",
        "SelectionError",
        "SelectionWarning",
        "TorchshrinkError",
    ),
    "torchshrink.models": ("load_model",),
    "torchshrink.path": (
        "LanesWarning",
        "PathComparison",
        "PathResult",
        "TasksWarning",
        "WorkerLostError",
        "clear_journal",
        "load_path",
        "path",
    ),
    "torchshrink.penalties": (
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
    ),
    "torchshrink.polishing": ("Polished", "polish"),
    "torchshrink.proof": ("DualityGap", "NoDualError", "certify", "duality_gap"),
    "torchshrink.regularizer": ("Regularizer",),
    "torchshrink.selection": ("ALL", "WEIGHTS"),
    "torchshrink.training": ("DivergenceError", "DivergenceWarning"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ALL",
    "L1",
    "L2",
    "L2SP",
    "MCP",
    "SCAD",
    "WEIGHTS",
    "AttachmentError",
    "Certificate",
    "Conversion",
    "DataWarning",
    "DivergenceError",
    "DivergenceWarning",
    "DualityGap",
    "ElasticNet",
    "GeometryError",
    "GroupLasso",
    "InputError",
    "L1Ball",
    "LanesWarning",
    "MaxNorm",
    "NoDualError",
    "NoEquivalentError",
    "NuclearNorm",
    "ObjectiveWarning",
    "Orthogonal",
    "PathComparison",
    "PathResult",
    "Penalty",
    "Polished",
    "ReadError",
    "Regularizer",
    "SelectionError",
    "SelectionWarning",
    "SparseGroupLasso",
    "TasksWarning",
    "TorchshrinkError",
    "WorkerLostError",
    "certify",
    "clear_journal",
    "convert",
    "duality_gap",
    "load_model",
    "load_path",
    "path",
    "polish",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'torchshrink' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
