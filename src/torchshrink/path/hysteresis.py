"""Whether a warm path depends on its direction: the way up, dense to sparse, against the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from torchshrink.path.choose import PathPoint, make_point
from torchshrink.path.folds import Fold
from torchshrink.path.sequential import Outcome
from torchshrink.path.verdict import mean_and_error

NOTICEABLE = 1.0
"""Standard errors of the mean validation loss, from which on the direction counts: what `one_se` counts as equal."""


@dataclass(frozen=True)
class BothWays:
    """One strength on the way up and on the way back: means over the folds. Infinite where a fold diverged.

    Args:
        strength: λ.
        up_validation_loss: on the rows held out, without the penalty.
        down_validation_loss: likewise, on the way back.
        up_objective: F = loss + penalty on the training rows, in evaluation mode.
        down_objective: likewise.
        up_nonzero: penalised coordinates that are not exactly zero.
        down_nonzero: likewise.
        standard_errors: how far the validation losses lie apart, in standard errors of the way up's.
    """

    strength: float
    up_validation_loss: float
    down_validation_loss: float
    up_objective: float
    down_objective: float
    up_nonzero: float
    down_nonzero: float
    standard_errors: float


@dataclass(frozen=True)
class Hysteresis:
    """The comparison of both ways.

    The two differ where a training ends in another minimum than the one it would reach from elsewhere, and also where
    it was stopped before it arrived: the way back has had more epochs. More epochs tell these apart.

    Args:
        points: per strength, ascending; at the strongest the path turns, so both ways are one there.
        largest: of all ``standard_errors``; infinite where one way diverged and the other did not.
        at: the strength with the largest.
        depends: whether the largest is at least `NOTICEABLE`.
        words: all this as a sentence.
    """

    points: tuple[BothWays, ...]
    largest: float
    at: float
    depends: bool
    words: str

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes: null for what is infinite."""
        points = [_finite(asdict(point)) for point in self.points]
        return _finite({"largest": self.largest, "at": self.at, "depends": self.depends, "words": self.words}) | {
            "points": points
        }


def hysteresis_from_dict(saved: Mapping[str, Any] | None) -> Hysteresis | None:
    """What `Hysteresis.to_dict` was called on; None of None."""
    if saved is None:
        return None
    points = tuple(BothWays(**_infinite(point)) for point in saved["points"])
    return Hysteresis(**(_infinite(saved) | {"points": points}))


def compare_ways(
    points: Sequence[PathPoint],
    up: Sequence[Sequence[Outcome]],
    down: Sequence[Sequence[Outcome]],
    folds: Sequence[Fold],
) -> Hysteresis:
    """Both ways compared.

    Args:
        points: of the way up, ascending.
        up: per strength, per fold.
        down: likewise, of the way back.
        folds: all of them.
    """
    both = []
    for point, there, back in zip(points, up, down, strict=True):
        other = make_point(point.strength, back, folds)
        both.append(
            BothWays(
                strength=point.strength,
                up_validation_loss=point.validation_loss,
                down_validation_loss=other.validation_loss,
                up_objective=_objective(there, folds),
                down_objective=_objective(back, folds),
                up_nonzero=point.nonzero,
                down_nonzero=other.nonzero,
                standard_errors=_apart(point, other),
            )
        )
    worst = max(both, key=lambda each: each.standard_errors)
    depends = worst.standard_errors >= NOTICEABLE
    return Hysteresis(tuple(both), worst.standard_errors, worst.strength, depends, _words(worst, both, depends))


def _words(worst: BothWays, both: Sequence[BothWays], depends: bool) -> str:
    at = f"at {worst.strength:.3g}"
    if math.inf in (worst.up_validation_loss, worst.down_validation_loss):
        return f"the path depends on its direction: {at} the training diverged one way and not the other"
    most = max(both, key=_zeros_apart)
    zeros = f"at {most.strength:.3g}: {most.up_nonzero:,.0f} up, {most.down_nonzero:,.0f} back"
    zeros = (
        f"nonzero weights differ most {zeros}" if _zeros_apart(most) else "the counts of nonzero weights are the same"
    )
    if not depends:
        return (
            "the path does not depend on its direction, as far as validation shows: up and back, the mean validation "
            f"losses are at most {worst.standard_errors:.2g} standard errors apart; {zeros}"
        )
    if worst.down_objective > worst.up_objective:
        why = "more, though trained longer: the way back is caught elsewhere"
    else:
        why = "less: the way up is caught elsewhere, or was too short, which more epochs tell"
    return (
        f"the path depends on its direction: {at} the mean validation loss is {worst.up_validation_loss:.4g} on the "
        f"way up and {worst.down_validation_loss:.4g} on the way back, {worst.standard_errors:.3g} standard errors "
        f"apart, and the training objective {worst.up_objective:.4g} and {worst.down_objective:.4g}, {why}; {zeros}"
    )


def _zeros_apart(point: BothWays) -> float:
    difference = abs(point.up_nonzero - point.down_nonzero)
    return difference if math.isfinite(difference) else 0.0


def _apart(up: PathPoint, down: PathPoint) -> float:
    if up.diverged or down.diverged:
        return 0.0 if up.diverged and down.diverged else math.inf
    difference = abs(up.validation_loss - down.validation_loss)
    if difference == 0:
        return 0.0
    return difference / up.validation_se if up.validation_se > 0 else math.inf


def _objective(outcomes: Sequence[Outcome], folds: Sequence[Fold]) -> float:
    if any(outcome.diverged is not None for outcome in outcomes):
        return math.inf
    values = np.array([outcome.train_loss + (outcome.penalty or 0.0) for outcome in outcomes])
    return mean_and_error(values, np.array([len(fold.train) for fold in folds], dtype=np.float64))[0]


def _finite(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def _infinite(saved: Mapping[str, Any]) -> dict[str, Any]:
    return {k: math.inf if v is None else v for k, v in saved.items()}
