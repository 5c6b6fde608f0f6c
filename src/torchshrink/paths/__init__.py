"""The same training over many strengths and folds: which strength to take, and whether penalising helps at all."""

import sys
from types import ModuleType
from typing import Any

from torchshrink.path.choose import FoldValue, PathPoint
from torchshrink.path.family import PenaltySpec
from torchshrink.path.grid import Grid
from torchshrink.path.journal import clear_journal
from torchshrink.path.lanes import LanesWarning
from torchshrink.path.result import PathComparison, PathResult, load_path
from torchshrink.path.run import path
from torchshrink.path.tasks import TasksWarning, WorkerLostError
from torchshrink.path.verdict import Verdict

__all__ = [
    "FoldValue",
    "Grid",
    "LanesWarning",
    "PathComparison",
    "PathPoint",
    "PathResult",
    "PenaltySpec",
    "TasksWarning",
    "Verdict",
    "WorkerLostError",
    "clear_journal",
    "load_path",
    "path",
]


class _CallablePackage(ModuleType):
    """``ts.path`` is the function, and also this package, whichever import came last: so the package calls it."""

    def __call__(self, *args: Any, **kwargs: Any) -> PathResult | PathComparison:
        found: PathResult | PathComparison = path(*args, **kwargs)
        return found


sys.modules[__name__].__class__ = _CallablePackage
