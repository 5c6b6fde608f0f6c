"""The plain engine: one training after another. Obviously right, and what every other engine is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import subset
from torchshrink.errors import DivergenceError
from torchshrink.paths.family import Family
from torchshrink.paths.folds import Fold
from torchshrink.paths.recipe import Recipe
from torchshrink.paths.weights import Weights
from torchshrink.training import evaluate


@dataclass(frozen=True)
class Unit:
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
class Outcome:
    """What one training leaves behind, all without the penalty and in evaluation mode.

    Args:
        train_loss: the mean over the fold's training rows.
        row_losses: of each row held out (m,), float64, on the CPU.
        accuracy: on the rows held out; None where the targets are numbers.
        nonzero: how many penalised coordinates are not exactly zero.
        diverged: in which epoch the loss became infinite or NaN, counted from 1; None where all is well. The
            other fields are without meaning where it did.
    """

    train_loss: float
    row_losses: Tensor
    accuracy: float | None
    nonzero: int
    diverged: int | None = None

    @property
    def validation_loss(self) -> float:
        """The mean over the rows held out."""
        return self.row_losses.mean().item()


def train_units(
    recipe: Recipe, folds: Sequence[Fold], families: Sequence[Family], units: Iterable[Unit]
) -> Iterator[tuple[Unit, Outcome]]:
    """Train each unit and yield what came out of it. Every engine has this signature, and may choose the order."""
    for unit in units:
        yield unit, train_unit(recipe, folds[unit.fold], families[unit.family], unit)[0]


def train_unit(
    recipe: Recipe, fold: Fold, family: Family, unit: Unit, *, start: Weights | None = None
) -> tuple[Outcome, nn.Module | None]:
    """One unit's outcome and model, from the initial weights or from ``start``; no model where it diverged."""
    train, held_out = fold.train.to(recipe.device), fold.validation.to(recipe.device)
    X, y = subset(recipe.X, train), recipe.y[train]
    nothing = torch.full((len(held_out),), torch.nan, dtype=torch.float64)
    try:
        model, regularizer = recipe.train(family.make(unit.strength), X, y, part=unit.fold, start=start)
    except DivergenceError as error:
        return Outcome(torch.nan, nothing, None, 0, diverged=error.epoch + 1), None
    on_train = evaluate(model, X, y, loss=recipe.loss)
    on_held_out = evaluate(model, subset(recipe.X, held_out), recipe.y[held_out], loss=recipe.loss)
    if not (on_train.row_losses.isfinite().all() and on_held_out.row_losses.isfinite().all()):
        return Outcome(torch.nan, nothing, None, 0, diverged=recipe.settings.epochs), None
    sparsity = regularizer.sparsity()
    nonzero = sparsity.total - sparsity.zeros
    return Outcome(on_train.loss, on_held_out.row_losses, on_held_out.accuracy, nonzero=nonzero), model
