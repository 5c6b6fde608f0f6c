"""What a path leaves behind: frozen values that can be saved, drawn, and refitted."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.paths.final_test import FinalTest, final_test_from_dict
from torchshrink.paths.grid import Grid, grid_from_dict
from torchshrink.paths.refit import Source
from torchshrink.paths.saved_path import check_saved
from torchshrink.paths.statistics.points import PathPoint, least, of_size, one_standard_error, point_from_dict
from torchshrink.paths.statistics.verdict import Verdict, verdict_from_dict
from torchshrink.regularizer.certificate import Certificate
from torchshrink.report.view import Part, View
from torchshrink.support.storage import (
    PathLike,
    folder_path,
    read_sealed,
    read_tensors,
    seal_of,
    write_json,
    write_tensors,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULT = "path.json"
LOSSES = "losses.safetensors"
_FORMAT = "torchshrink-path-2"
_WHAT = "path"  # what the JSON is sealed as
PENALISED = "penalised weights"  # in the settings


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

    def __repr__(self) -> str:
        return f"<PathResult of {self.penalty}: {len(self.points)} strengths, best {self.best!r}>"

    @property
    def best(self) -> PathPoint:
        """The point of least mean validation loss: the default choice."""
        return least(self.points)

    @property
    def one_se(self) -> PathPoint:
        """The strongest point within one standard error of `best`: a smaller support, and often a worse prediction."""
        return one_standard_error(self.points)

    def at(self, *, nonzero: float) -> PathPoint:
        """The point for a wanted size: ``result.refit(result.at(nonzero=0.1))``.

        Of the points whose trainings left at most so many penalised weights nonzero, in the mean over the folds, it is
        the one with the most; of equals the one with the least validation loss. A refit there, on all the data, may
        have a few more or fewer.

        Args:
            nonzero: how many, a whole number ≥ 0 (int), or which share of the penalised weights, above 0 and up to 1
                (float).

        Raises:
            InputError: no point is that sparse, the number is none, or this result was saved before shares were known.
        """
        given: object = nonzero
        if isinstance(given, float) and 0 < given <= 1:
            known = self.settings.get(PENALISED)
            if not isinstance(known, int):
                raise InputError(f"nonzero={given:g}: this result does not say of how many weights; give a number")
            wanted = given * known
        elif isinstance(given, SupportsIndex) and not isinstance(given, bool) and operator.index(given) >= 0:
            wanted = operator.index(given)
        else:
            raise InputError(
                f"nonzero={given!r}: expected how many weights, a whole number ≥ 0, or a share (float) above 0 and "
                "up to 1"
            )
        return of_size(self.points, wanted, given=f"nonzero={nonzero:g}")

    def refit(
        self, strength: float | PathPoint | None = None, *, polish: bool = False, relaxed: bool = False
    ) -> tuple[nn.Module, Certificate]:
        """Train on all the data in the same way, and measure how far from stationarity that ends.

        After a warm path that is the path itself, on all the data: from strength 0 up through its strengths to the one
        wanted, `epochs` at each, so that what is trained is what was cross-validated.

        Args:
            strength: at which, or the point of which; by default the best.
            polish: whether to end with `torchshrink.polish`; if it does not converge, the certificate's notes say so.
                With ``relaxed`` the support is polished too before it is held.
            relaxed: whether to train on, for as many epochs, without the penalty: what it made zero stays zero, and
                what it left is no longer shrunk (glmnet's ``relax`` at gamma 0). The certificate is then that of the
                loss alone on this support.

        Returns:
            The model, in evaluation mode, and its certificate (all the data, evaluation mode, float64), with a duality
            gap for linear and logistic models.

        Raises:
            InputError: this result was loaded, and a file holds neither data nor code.
            DivergenceError: the training diverged.
        """
        if self.source is None:
            raise InputError("this path was loaded from a file, which holds neither data nor code: call ts.path again")
        if isinstance(strength, PathPoint):
            strength = strength.strength
        at = self.best.strength if strength is None else strength
        return self.source.refit(at, polished=polish, relaxed=relaxed)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows' losses, as JSON takes it."""
        return {
            "format": _FORMAT,
            "penalty": self.penalty,
            "settings": dict(self.settings),
            "grid": self.grid.to_dict(),
            "null_loss": self.null_loss,
            "best": self.best.strength,
            "one_se": self.one_se.strength,
            "verdict": self.verdict.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "points": [point.to_dict() for point in self.points],
        }

    def save(self, folder: PathLike) -> None:
        """Write ``path.json`` and ``losses.safetensors`` to a folder, over such files of before."""
        _save(folder, self.to_dict(), {"fold": self.fold, "losses": self.losses})

    def view(self) -> View:
        """What a person looks at, for `torchshrink.report`."""
        return View((self._part(),), [*([] if self.test is None else [self.test.words]), self.verdict.words])

    def _part(self) -> Part:
        return Part(
            self.penalty,
            self.points,
            self.best,
            self.one_se,
            self.null_loss,
            verdict=self.verdict.words,
            grid=self.grid.words,
            settings=self.settings,
        )

    def plot(self) -> Figure:
        """Losses and nonzero weights against strength, as a matplotlib figure."""
        from torchshrink.report.picture import draw

        return draw(self.view())

    def report(self, path: PathLike) -> None:
        """Write a report: ``.html``, one file with everything in it, or ``.png``, the picture alone."""
        from torchshrink.report.page import write_report

        write_report(self.view(), path)


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
        return f"<PathComparison of {', '.join(self.results)}: best {self.best!r}>"

    @property
    def best(self) -> PathResult:
        """The path with the least mean validation loss; of equals, the first given."""
        return min(self.results.values(), key=lambda result: result.best.validation_loss)

    def refit(
        self, strength: float | PathPoint | None = None, *, polish: bool = False, relaxed: bool = False
    ) -> tuple[nn.Module, Certificate]:
        """`PathResult.refit` of the best penalty."""
        return self.best.refit(strength, polish=polish, relaxed=relaxed)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows' losses, as JSON takes it."""
        return {
            "format": _FORMAT,
            "best": self.best.penalty,
            "verdict": self.verdict.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "against": {name: verdict.to_dict() for name, verdict in self.against.items()},
            "results": {name: result.to_dict() for name, result in self.results.items()},
        }

    def save(self, folder: PathLike) -> None:
        """Write ``path.json`` and ``losses.safetensors`` to a folder, over such files of before."""
        tensors = {f"losses.{name}": result.losses for name, result in self.results.items()}
        _save(folder, self.to_dict(), {"fold": self.best.fold, **tensors})

    def view(self) -> View:
        """What a person looks at, for `torchshrink.report`."""
        said = [*([] if self.test is None else [self.test.words]), self.verdict.words]
        said += [verdict.words for verdict in self.against.values()]
        return View(tuple(result._part() for result in self.results.values()), said)

    def plot(self) -> Figure:
        """Losses and nonzero weights against strength, one column per penalty, as a matplotlib figure."""
        from torchshrink.report.picture import draw

        return draw(self.view())

    def report(self, path: PathLike) -> None:
        """Write a report: ``.html``, one file with everything in it, or ``.png``, the picture alone."""
        from torchshrink.report.page import write_report

        write_report(self.view(), path)


def load_path(folder: PathLike) -> PathResult | PathComparison:
    """What `PathResult.save` or `PathComparison.save` wrote; all but ``refit``, which needs the data and the code.

    Raises:
        InputError: a file is missing, truncated, changed, another program's, or the two are not of one path; or a value
            is of another type than is written there, or out of its range.
    """
    place = folder_path(folder)
    saved, seal = read_sealed(place / RESULT, what=_WHAT)
    tensors, _ = read_tensors(place / LOSSES, what=_losses_of(seal))
    if saved.get("format") != _FORMAT:
        raise InputError(f"{place / RESULT} is not a path of this version: format {_FORMAT!r} expected")
    try:
        check_saved(saved, tensors)
    except InputError as error:
        raise InputError(f"{place / RESULT}: {error}: run it again") from error
    if "results" not in saved:
        return _loaded(saved, tensors["losses"], tensors["fold"])
    results = {
        name: _loaded(each, tensors[f"losses.{name}"], tensors["fold"]) for name, each in saved["results"].items()
    }
    against = {name: verdict_from_dict(each) for name, each in saved["against"].items()}
    test = final_test_from_dict(saved["test"])
    return PathComparison(results, verdict_from_dict(saved["verdict"]), against, test)


def _loaded(saved: Mapping[str, Any], losses: Tensor, fold: Tensor) -> PathResult:
    return PathResult(
        penalty=saved["penalty"],
        points=tuple(point_from_dict(point) for point in saved["points"]),
        verdict=verdict_from_dict(saved["verdict"]),
        grid=grid_from_dict(saved["grid"]),
        null_loss=saved["null_loss"],
        settings=saved["settings"],
        losses=losses,
        fold=fold,
        test=final_test_from_dict(saved["test"]),
    )


def _save(folder: PathLike, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    place = folder_path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror}") from error
    whole = json.loads(json.dumps(plain, allow_nan=False))
    # The JSON last, and the losses bound to it: where both are, they are of one path.
    own = {name: tensor.to(torch.device("cpu")) for name, tensor in tensors.items()}
    write_tensors(place / LOSSES, own, what=_losses_of(seal_of(whole, what=_WHAT)))
    write_json(place / RESULT, whole, what=_WHAT)


def _losses_of(seal: str) -> str:
    """What the losses are sealed as."""
    return f"losses of path {seal}"
