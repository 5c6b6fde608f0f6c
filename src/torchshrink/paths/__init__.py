"""The same training over many strengths and folds: which strength to take, and whether penalising helps at all."""

from torchshrink.paths.comparison import PathComparison
from torchshrink.paths.final_test import FinalTest
from torchshrink.paths.grid import Grid
from torchshrink.paths.journal import clear_journal
from torchshrink.paths.loading import load_path
from torchshrink.paths.penalty_family import PenaltySpec
from torchshrink.paths.result import PathResult
from torchshrink.paths.run import path
from torchshrink.paths.settings import Engine, PathSettings
from torchshrink.paths.statistics.points import FoldValue, PathPoint
from torchshrink.paths.statistics.verdict import Verdict
from torchshrink.report.view import About

__all__ = [
    "About",
    "Engine",
    "FinalTest",
    "FoldValue",
    "Grid",
    "PathComparison",
    "PathPoint",
    "PathResult",
    "PathSettings",
    "PenaltySpec",
    "Verdict",
    "clear_journal",
    "load_path",
    "path",
]
