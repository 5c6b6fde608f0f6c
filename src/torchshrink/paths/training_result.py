"""One training of a path: which one it is, and what comes out of it. Every engine takes and gives these."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Tensor

from torchshrink.paths.weight_summary import WeightSummary


@dataclass(frozen=True)
class TrainingKey:
    """One training: which family (by its number), at which strength, on which fold (by its number)."""

    family: int
    strength: float
    fold: int


@dataclass(frozen=True)
class Candidate:
    """What may be chosen: a family's strength by its place in the grid.

    A ``control`` is strength 0 instead: of a cold path itself, of a warm one after as many restarts as ``step``.
    """

    family: int
    step: int
    control: bool = False


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What one training leaves behind, all without the penalty, in evaluation mode, and in the given target's unit.

    Args:
        train_loss: the mean over the fold's training rows.
        row_losses: of each row held out (m,), float64, on the CPU.
        accuracy: on the rows held out; None where the targets are numbers.
        nonzero: how many penalised coordinates are not exactly zero.
        diverged: in which epoch the loss became infinite or NaN, counted from 1; None where all is well. The
            other fields are without meaning where it did.
        above: how far F is above its minimum at most, as a share of F; None where that is not known, infinite where
            there is no minimum.
        stationary: how far an optimum of what is not convex is from stationarity, as a certificate's ``relative``; None
            of all others.
        weights: what is kept of its weights for a reader; None of what an older journal has.
        pattern: where the penalty has groups, which weights are zero, as `zero_pattern` has it.
    """

    train_loss: float
    row_losses: Tensor
    accuracy: float | None
    nonzero: int
    diverged: int | None = None
    pattern: bytes | None = None
    above: float | None = None
    stationary: float | None = None
    weights: WeightSummary | None = None

    @functools.cached_property
    def validation_loss(self) -> float:
        """The mean over the rows held out."""
        return self.row_losses.mean().item()
