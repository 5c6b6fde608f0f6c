"""What a path leaves behind: frozen values that can be saved, drawn, and refitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.paths import table
from torchshrink.paths.final_test import FinalTest
from torchshrink.paths.grid import Grid
from torchshrink.paths.path_files import FORMAT, write_path
from torchshrink.paths.path_weights import PathWeights
from torchshrink.paths.refit import Source, checked_strength
from torchshrink.paths.sizes import Known, Trained, Unknown
from torchshrink.paths.statistics.points import (
    PathPoint,
    least,
    of_size,
    one_standard_error,
    wanted_size,
)
from torchshrink.paths.statistics.verdict import Verdict
from torchshrink.paths.views import view_of_result
from torchshrink.regularizer.certificate import Certificate
from torchshrink.report.view import NOT_SAID, About, View
from torchshrink.support.storage import (
    PathLike,
)
from torchshrink.support.tables import printable
from torchshrink.support.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from torchshrink.shrinking import Shrunk

Choice = Literal["best", "one_se"]
_CHOICES = get_args(Choice)
PENALISED, PARAMETERS = "penalised weights", "parameters"  # in the settings, like the next three
MODEL, AUDIT, VERSIONS = "model", "audit", "versions"


@dataclass(frozen=True, eq=False)
class PathResult:
    """One penalty's path.

    Args:
        penalty: its name.
        points: per strength, ascending, 0 first.
        verdict: whether penalising helps, the choosing of the strength counted in. After a warm path,
            compared with strength 0 trained on for as long as the strongest that any fold chooses was, in all.
        grid: where the strengths come from.
        null_loss: the validation loss of the best constant output, fitted on each fold's training rows; None where the
            loss has none.
        settings: how each model was trained, as JSON takes it.
        losses: each row's out-of-fold loss at each strength, (n, points), float64; NaN where no fold held the row
            out, or the training diverged.
        fold: which fold held each row out (n,), int64, the last where several did; -1 for none.
        test: the tuned model against the unpenalised one on test rows that chose nothing; None where there are none.
        source: what it was made from; None of what was loaded.
        counts: where `sizes` come from.
        weights: what the folds' trainings left of their weights, by strength; None where that is not kept.
    """

    penalty: str
    points: tuple[PathPoint, ...]
    verdict: Verdict
    grid: Grid
    null_loss: float | None
    settings: Mapping[str, Any]
    losses: Tensor
    fold: Tensor
    test: FinalTest | None = None
    source: Source | None = field(default=None, repr=False)
    counts: Trained | Known | Unknown = field(default=Unknown("no sizes are kept"), repr=False)
    weights: PathWeights | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"<PathResult of {shortened(printable(self.penalty))}: {len(self.points)} strengths, best {self.best!r}>"

    def __str__(self) -> str:
        return table.text([self], self._said())

    def _repr_html_(self) -> str:
        return table.html([self], self._said())

    def _said(self) -> table.Pairs:
        return [*([] if self.test is None else [("test", self.test.words)]), ("verdict", self.verdict.words)]

    @property
    def best(self) -> PathPoint:
        """The point of least mean validation loss: the default choice."""
        return least(self.points)

    @property
    def one_se(self) -> PathPoint:
        """The strongest point within one standard error of `best`: a smaller support, and often a worse prediction."""
        return one_standard_error(self.points)

    @cached_property
    def sizes(self) -> tuple[float, ...] | None:
        """How many parameters are left after shrinking at each point, in the mean over the folds' trainings.

        Of penalties with groups, whose zeros make layers smaller; else None, as where the model cannot be traced.
        Counted when it is first asked for, from one trace of the model: as `torchshrink.shrink` plans it; what
        ``refit(shrink=True)`` gives is proved besides, and of another training, on all the data.
        """
        try:
            return self.counts.sizes()
        except InputError:
            return None

    def at(self, *, nonzero: float | None = None, parameters: float | None = None) -> PathPoint:
        """The point for a wanted size: ``result.refit(result.at(nonzero=0.1))``.

        Of the points that are at most so large, in the mean over the folds' trainings, it is the largest; of equals the
        one with the least validation loss. A refit there, on all the data, may have a little more or less.

        Args:
            nonzero: how many of the penalised weights are not zero: a whole number ≥ 0 (int), or which share of them,
                above 0 and up to 1 (float).
            parameters: how many parameters are left after shrinking, or which share of the model's, likewise; of
                penalties with groups.

        Raises:
            InputError: no point is that small, the number is none, not one of the two is given, or such sizes are not
                known.
        """
        if nonzero is not None and parameters is not None:
            raise InputError(f"nonzero={nonzero!r} with parameters={parameters!r}: expected one of the two")
        if parameters is None:
            whole = self.settings.get(PENALISED)
            wanted = wanted_size("nonzero", nonzero, whole, what="weights")
            sizes: Sequence[float] = [point.nonzero for point in self.points]
            what = "nonzero" if not isinstance(whole, int) else f"of {whole:,} weights nonzero"
            return of_size(self.points, sizes, wanted, given=f"nonzero={nonzero:g}", what=what)
        wanted = wanted_size("parameters", parameters, self.settings.get(PARAMETERS), what="parameters")
        sizes = self.sizes or self.counts.sizes()  # which says why there are none
        return of_size(self.points, sizes, wanted, given=f"parameters={parameters:g}", what="parameters")

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
        """Train on all the data in the same way, and measure how far from stationarity that ends.

        After a warm path that is the path itself, on all the data: from strength 0 up through its strengths to the one
        wanted, `epochs` at each, so that what is trained is what was cross-validated.

        Args:
            strength: at which, or the point of which; or ``"best"``, the default, or ``"one_se"``.
            polish: whether to end with `torchshrink.polish`; if it does not converge, the certificate's notes say so.
                With ``relaxed`` the support is polished too before it is held.
            relaxed: whether to train on, for as many epochs, without the penalty: what it made zero stays zero, and
                what it left is no longer shrunk (glmnet's ``relax`` at gamma 0). The certificate is then that of the
                loss alone on this support.
            shrink: whether to give what `torchshrink.shrink` makes of the model, a smaller one with the same outputs,
                in its place. The certificate is that of the model as it was trained.

        Returns:
            The model, in evaluation mode, and its certificate (all the data, evaluation mode, float64), with a duality
            gap for linear and logistic models. With ``shrink`` a `Shrunk`, whose ``model`` is the smaller one.

        Raises:
            InputError: this result was loaded, and a file holds neither data nor code.
            DivergenceError: the training diverged.
        """
        source = self._source()
        at = self._strength(strength)
        model, certificate = source.refit(at, polished=polish, relaxed=relaxed)
        return (source.shrunk(model) if shrink else model), certificate

    def _source(self) -> Source:
        if self.source is None:
            raise InputError(
                "this path was loaded from a file, which holds neither data nor code: call ts.path again (with the "
                "folder= of before it takes the trainings over); on the command line --resume with another --choose, "
                "--relaxed or --polish refits alone"
            )
        return self.source

    def _strength(self, given: float | str | PathPoint | None) -> float:
        """The strength that is meant, by a name or a point."""
        if isinstance(given, str) and given not in _CHOICES:
            raise InputError(f"strength={given!r}: expected a number ≥ 0, a point, {' or '.join(map(repr, _CHOICES))}")
        if given is None or isinstance(given, str):
            given = self.one_se if given == "one_se" else self.best
        return given.strength if isinstance(given, PathPoint) else given

    def coefficients(
        self,
        strengths: Sequence[float | Choice | PathPoint] | None = None,
        *,
        names: Sequence[str] | None = None,
        progress: bool = True,
    ) -> DataFrame:
        """What the model reads of each input, at each strength: a table to look at, or to ``.T.plot()``.

        Each column is of a model trained on all the data as `refit` does it, so that at the path's strengths there are
        as many trainings as columns; linear models that are solved take a fraction of a second each.

        * Of a model whose only layer with weights is linear, such as linear and logistic regression: its coefficients.
          They are in the units of what it is given: where the model begins with `torchshrink.models.Preprocess`, per
          unit of the raw number (and for a category per level, ``name=code``), and where it ends with
          `torchshrink.models.Rescale`, in the target's own unit. Several outputs have a row each for every input: the
          index is then a MultiIndex ``(output, input)``. Intercepts are not listed.
        * Of other networks: ‖W[:, j]‖, the norm of all weights of the first linear layer that read input j, in units of
          what that layer reads; 0 where nothing reads it. Of a convolution, by channel. The first layer is the first
          in the order in which the modules were made.

        Args:
            strengths: at which, as `refit` takes them; by default those of the path.
            names: of the inputs; by default the columns of the DataFrame that the path was given, else ``x0``, ``x1``
                …, or ``x[row, column]`` where a row has several dimensions.
            progress: whether to count trainings on stderr.

        Returns:
            Rows are inputs, columns are strengths; NaN where a training diverged.

        Raises:
            InputError: this result was loaded, and a file holds neither data nor code; a strength is none; the model
                has no such layer; or there are more or fewer names than inputs.

        Example:
            >>> import torch, torchshrink as ts
            >>> X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
            >>> build = lambda: torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
            >>> result = ts.path(build, (X, 2 * X[:, 0] - X[:, 2]), ts.L1, strengths=[0.5, 2.0], progress=False)
            >>> table = result.coefficients(names=["a", "b", "c"], progress=False)
            >>> table.loc["a"].round(1).tolist(), table.loc["b"].round(1).tolist()
            ([2.0, 1.7, 0.8], [0.0, 0.0, 0.0])
        """
        from torchshrink.paths.coefficients import coefficients

        wanted = self.points if strengths is None else strengths
        at = [checked_strength(self._strength(each)) for each in wanted]
        source = self._source()
        table = coefficients(source, sorted(set(at)), names, progress=progress)
        return table[at]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows' losses, as JSON takes it."""
        return {
            "format": FORMAT,
            "penalty": self.penalty,
            "settings": dict(self.settings),
            "grid": self.grid.to_dict(),
            "null_loss": self.null_loss,
            "best": self.best.strength,
            "one_se": self.one_se.strength,
            "verdict": self.verdict.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "points": [point.to_dict() for point in self.points],
            "sizes": self.sizes and [size if math.isfinite(size) else None for size in self.sizes],
            "weights": None if self.weights is None else self.weights.to_dict(),
        }

    def save(self, folder: PathLike) -> None:
        """Write ``path.json`` and ``losses.safetensors`` to a folder, over such files of before."""
        tensors = {"fold": self.fold, "losses": self.losses} | self.weight_tensors("weights.")
        write_path(folder, self.to_dict(), tensors)

    def weight_tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is kept of the weights, by the names under which it is saved."""
        return {} if self.weights is None else {prefix + name: t for name, t in self.weights.tensors().items()}

    def view(self, about: About = NOT_SAID) -> View:
        """What a person looks at, for `torchshrink.report`; ``about``: what is known of the run beside."""
        return view_of_result(self, about)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Losses against strength, with the nonzero weights along the top, as glmnet's users know it.

        Nothing is shown and no global state is changed. ``result.plot().figure`` shows the picture in a notebook, and
        ``result.plot().figure.savefig("path.png")`` saves it.

        Args:
            ax: the matplotlib axes to draw in; by default those of a new figure.

        Returns:
            The axes.

        Raises:
            InputError: ``ax`` is no axes.
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
