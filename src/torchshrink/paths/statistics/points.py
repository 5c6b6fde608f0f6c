"""The points of a path, and which of them to take."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, SupportsIndex, TypeVar

import numpy as np

from torchshrink.errors import InputError
from torchshrink.paths.folds import Fold
from torchshrink.paths.statistics.verdict import mean_and_error
from torchshrink.paths.training_result import TrainingResult


@dataclass(frozen=True)
class FoldValue:
    """One fold at one strength. The losses are without the penalty; infinite where the training diverged."""

    train_loss: float
    validation_loss: float
    accuracy: float | None
    nonzero: int
    diverged: bool


@dataclass(frozen=True)
class PathPoint:
    """One strength: means over the folds, each fold weighted by its rows, and these by what they count in the loss.

    Args:
        strength: λ.
        train_loss: on the training rows, without the penalty, in evaluation mode. Infinite, like the next three, where
            a fold diverged.
        validation_loss: on the rows held out, likewise.
        validation_se: the validation loss's standard error over the folds, by glmnet's formula; of one split over rows.
        gap: validation loss minus training loss.
        accuracy: on the rows held out; None where the targets are numbers, or as above.
        nonzero: penalised coordinates that are not exactly zero.
        folds: the same per fold.
    """

    strength: float
    train_loss: float
    validation_loss: float
    validation_se: float
    gap: float
    accuracy: float | None
    nonzero: float
    folds: tuple[FoldValue, ...]

    @property
    def diverged(self) -> bool:
        """Whether any fold's training diverged: the point then takes no part in the choice."""
        return any(fold.diverged for fold in self.folds)

    def __repr__(self) -> str:
        loss = f"{self.validation_loss:.4g} ± {self.validation_se:.2g}"
        return f"<PathPoint {self.strength:.4g}: validation loss {loss}, {self.nonzero:.6g} nonzero>"

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes: null for what is infinite."""
        plain = asdict(self)
        plain["folds"] = [_finite(fold) for fold in plain["folds"]]
        return _finite(plain)


def point_from_dict(saved: dict[str, Any]) -> PathPoint:
    """What `PathPoint.to_dict` was called on."""
    folds = tuple(FoldValue(**_infinite(fold)) for fold in saved["folds"])
    return PathPoint(**(_infinite(saved) | {"folds": folds}))


def make_point(strength: float, results: Sequence[TrainingResult], folds: Sequence[Fold]) -> PathPoint:
    """The point of one strength, from its trainings in the folds' order."""
    values = tuple(
        FoldValue(result.train_loss, result.validation_loss, result.accuracy, result.nonzero, False)
        if result.diverged is None
        else FoldValue(math.inf, math.inf, None, result.nonzero, True)
        for result in results
    )
    sound = [value for value, result in zip(values, results, strict=True) if result.diverged is None]
    nonzero = sum(value.nonzero for value in sound) / len(sound) if sound else math.inf
    if len(sound) < len(values):
        return PathPoint(strength, math.inf, math.inf, math.inf, math.inf, None, nonzero, values)
    held_out = np.array([len(fold.validation) * fold.counts[1] for fold in folds])
    trained = np.array([len(fold.train) * fold.counts[0] for fold in folds])
    validation, error = mean_and_error(np.array([value.validation_loss for value in values]), held_out)
    if len(values) == 1:  # of one split the error is over rows
        rows = results[0].row_losses
        error = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0
    train, _ = mean_and_error(np.array([value.train_loss for value in values]), trained)
    shares = [value.accuracy for value in values if value.accuracy is not None]
    accuracy = mean_and_error(np.array(shares), held_out)[0] if len(shares) == len(values) else None
    return PathPoint(strength, train, validation, error, validation - train, accuracy, nonzero, values)


class Chosen(Protocol):
    """What has a best point, as a path does."""

    @property
    def best(self) -> PathPoint: ...  # noqa: D102


Path = TypeVar("Path", bound=Chosen)


def best_of(paths: Iterable[Path]) -> Path:
    """The path whose best point has the least mean validation loss; of equals, the first."""
    return min(paths, key=lambda path: path.best.validation_loss)


def least(points: Sequence[PathPoint]) -> PathPoint:
    """The point of least mean validation loss; of equals, the strongest."""
    lowest = min(point.validation_loss for point in points)
    return max((point for point in points if point.validation_loss == lowest), key=lambda point: point.strength)


def one_standard_error(points: Sequence[PathPoint]) -> PathPoint:
    """The strongest point whose mean validation loss is within one standard error of the least."""
    best = least(points)
    limit = best.validation_loss + best.validation_se
    return max((point for point in points if point.validation_loss <= limit), key=lambda point: point.strength)


def wanted_size(name: str, given: object, whole: object, *, what: str) -> float:
    """How many, from a count or a share of ``whole``; ``what`` is counted.

    Raises:
        InputError: it is neither, or a share of what is not known.
    """
    if isinstance(given, float) and 0 < given <= 1:
        if not isinstance(whole, int):
            raise InputError(f"{name}={given:g}: this result does not say of how many {what}; give a number")
        return given * whole
    if isinstance(given, SupportsIndex) and not isinstance(given, bool) and operator.index(given) >= 0:
        return operator.index(given)
    raise InputError(
        f"{name}={given!r}: expected how many {what}, a whole number ≥ 0, or a share (float) above 0 and up to 1"
    )


def of_size(points: Sequence[PathPoint], sizes: Sequence[float], wanted: float, *, given: str, what: str) -> PathPoint:
    """The point of the greatest size, ``wanted`` at most; of equals, that of least validation loss.

    Args:
        points: of the path.
        sizes: of each.
        wanted: at most this.
        given: what the caller asked for, for the message.
        what: what is counted, likewise.

    Raises:
        InputError: no point is that small; the message names the smallest.
    """
    sound = [(size, point) for size, point in zip(sizes, points, strict=True) if not point.diverged]
    fitting = [(size, point) for size, point in sound if size <= wanted * (1 + 1e-12)]
    if not fitting:
        size, sparsest = min(sound, key=lambda pair: pair[0])
        raise InputError(
            f"{given}: no strength of this path leaves so few; the sparsest point, strength {sparsest.strength:.4g}, "
            f"has {size:.6g} {what}: give more, or a path with stronger strengths"
        )
    return max(fitting, key=lambda pair: (pair[0], -pair[1].validation_loss, pair[1].strength))[1]


def _finite(plain: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def _infinite(saved: dict[str, Any]) -> dict[str, Any]:
    return {k: math.inf if v is None and k != "accuracy" else v for k, v in saved.items()}
