"""Several penalties' paths beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from torch import nn

from torchshrink.paths import table
from torchshrink.paths.final_test import FinalTest
from torchshrink.paths.path_files import FORMAT, write_path
from torchshrink.paths.result import Choice, PathResult
from torchshrink.paths.statistics.points import PathPoint, best_of
from torchshrink.paths.statistics.verdict import Verdict
from torchshrink.paths.views import view_of_comparison
from torchshrink.regularizer.certificate import Certificate
from torchshrink.report.view import NOT_SAID, About, View
from torchshrink.support.storage import PathLike
from torchshrink.support.tables import printable
from torchshrink.support.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from torchshrink.shrinking import Shrunk


@dataclass(frozen=True, eq=False)
class PathComparison:
    """Several penalties' paths over the same folds, initial weights and batches.

    Args:
        results: each penalty's path, by its name.
        verdict: whether penalising helps at all, the choosing of penalty and strength counted in.
        against: for each other penalty, whether the best one beats it: whether to choose among all penalties, strength
            and all, is better than to choose a strength for this one. After warm paths, these may have been trained for
            different numbers of epochs.
        test: of the best penalty, as in `PathResult`.
    """

    results: Mapping[str, PathResult]
    verdict: Verdict
    against: Mapping[str, Verdict]
    test: FinalTest | None = None

    def __repr__(self) -> str:
        return f"<PathComparison of {shortened(printable(', '.join(self.results)))}: best {self.best!r}>"

    def __str__(self) -> str:
        return table.text(list(self.results.values()), self._said())

    def _repr_html_(self) -> str:
        return table.html(list(self.results.values()), self._said())

    def _said(self) -> table.Pairs:
        pairs = [*([] if self.test is None else [("test", self.test.words)]), ("verdict", self.verdict.words)]
        return [*pairs, *(("", verdict.words) for verdict in self.against.values())]

    @property
    def best(self) -> PathResult:
        """The path with the least mean validation loss; of equals, the first given."""
        return best_of(self.results.values())

    @overload
    def refit(
        self,
        strength: float | Choice | PathPoint | None = None,
        *,
        polish: bool = False,
        relaxed: bool = False,
        shrink: Literal[False] = False,
    ) -> tuple[nn.Module, Certificate]: ...

    @overload
    def refit(
        self,
        strength: float | Choice | PathPoint | None = None,
        *,
        polish: bool = False,
        relaxed: bool = False,
        shrink: Literal[True],
    ) -> tuple[Shrunk, Certificate]: ...

    def refit(
        self,
        strength: float | Choice | PathPoint | None = None,
        *,
        polish: bool = False,
        relaxed: bool = False,
        shrink: bool = False,
    ) -> tuple[nn.Module | Shrunk, Certificate]:
        """`PathResult.refit` of the best penalty."""
        if shrink:
            return self.best.refit(strength, polish=polish, relaxed=relaxed, shrink=True)
        return self.best.refit(strength, polish=polish, relaxed=relaxed)

    def coefficients(
        self,
        strengths: Sequence[float | Choice | PathPoint] | None = None,
        *,
        names: Sequence[str] | None = None,
        progress: bool = True,
    ) -> DataFrame:
        """`PathResult.coefficients` of the best penalty."""
        return self.best.coefficients(strengths, names=names, progress=progress)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows' losses, as JSON takes it."""
        return {
            "format": FORMAT,
            "best": self.best.penalty,
            "verdict": self.verdict.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "against": {name: verdict.to_dict() for name, verdict in self.against.items()},
            "results": {name: result.to_dict() for name, result in self.results.items()},
        }

    def save(self, folder: PathLike) -> None:
        """Write ``path.json`` and ``losses.safetensors`` to a folder, over such files of before."""
        tensors = {f"losses.{name}": result.losses for name, result in self.results.items()}
        for name, result in self.results.items():
            tensors |= result.weight_tensors(f"weights.{name}.")
        write_path(folder, self.to_dict(), {"fold": self.best.fold, **tensors})

    def view(self, about: About = NOT_SAID) -> View:
        """What a person looks at, for `torchshrink.report`; ``about``: what is known of the run beside."""
        return view_of_comparison(self, about)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The penalties' validation losses against strength, in one picture; each one's own is `PathResult.plot`.

        Args:
            ax: as there.
        """
        from torchshrink.report.picture import plot

        return plot(self.view(), ax)

    def report(self, path: PathLike, about: About = NOT_SAID) -> None:
        """Write a report: ``.html``, one file with everything in it, or ``.png``, the picture alone.

        Args:
            path: the file.
            about: what the result does not know, such as ``About(data="sales.csv", columns=["price", "size"])``.
        """
        from torchshrink.report.page import write_report

        write_report(self.view(about), path)
