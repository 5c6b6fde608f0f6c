"""torchshrink: regularization for PyTorch whose strength means what it says.

The names below are loaded when they are first used, so that ``torchshrink --help`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazy, for it needs no torch and its module has its name: once both are loaded, the name is the function.
from torchshrink.conversions.convert import Conversion, convert
from torchshrink.errors import NoEquivalentError

if TYPE_CHECKING:
    from torchshrink.certifying import DualityGap, certify, duality_gap
    from torchshrink.errors import (
        AttachmentError,
        DataWarning,
        DivergenceError,
        DivergenceWarning,
        GeometryError,
        InputError,
        LanesWarning,
        NoDualError,
        ObjectiveWarning,
        ReadError,
        SelectionError,
        SelectionWarning,
        TasksWarning,
        TorchshrinkError,
        WorkerLostError,
    )
    from torchshrink.models import load_model
    from torchshrink.paths import PathComparison, PathResult, clear_journal, load_path, path
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
    from torchshrink.regularizer import Regularizer
    from torchshrink.regularizer.certificate import Certificate
    from torchshrink.regularizer.selection import ALL, WEIGHTS

__version__ = "0.1.0"

_HOME = {
    "torchshrink.regularizer.certificate": ("Certificate",),
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
    "torchshrink.paths": (
        "Engine",
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
    "torchshrink.certifying": ("DualityGap", "NoDualError", "certify", "duality_gap"),
    "torchshrink.regularizer": ("Regularizer",),
    "torchshrink.regularizer.selection": ("ALL", "WEIGHTS"),
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
    "Engine",
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
