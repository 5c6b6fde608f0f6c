"""torchshrink: regularization for PyTorch whose strength means what it says.

What is public is listed once, below, and loaded when it is first used, so that ``import torchshrink`` and
``torchshrink --help`` do not wait for torch. ``scripts/stub.py`` makes ``__init__.pyi`` of it, for type checkers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "torchshrink.penalties": (
        *("L1", "L2", "ElasticNet", "GroupLasso", "SparseGroupLasso", "MCP", "SCAD", "LogSum", "GroupMCP", "GroupSCAD"),
        *("L2SP", "NuclearNorm", "Orthogonal", "MaxNorm", "UnitNorm", "L1Ball", "NonNegative", "Box", "L0Ball", "NM"),
        *("Gradual", "Penalty"),
    ),
    "torchshrink.regularizer": ("ALL", "WEIGHTS", "Activations", "Regularizer"),
    "torchshrink.certifying": ("certify", "duality_gap"),
    "torchshrink.polishing": ("polish",),
    "torchshrink.shrinking": ("load_shrunk", "shrink", "shrink_rule"),
    "torchshrink.paths": ("Engine", "load_path", "path"),
    "torchshrink.models": ("load_model",),
    "torchshrink.conversions": ("convert",),
}
_ROOMS = ("errors", "models", "step_sizes", "testing")  # modules that are public as a whole
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULE_OF, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"torchshrink.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'torchshrink' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
