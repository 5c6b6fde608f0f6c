"""The plain engine: one training after another. Obviously right, and what every other engine is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from torchshrink.data.lazy import subset
from torchshrink.errors import DivergenceError
from torchshrink.paths.family import Family
from torchshrink.paths.folds import Fold
from torchshrink.paths.outcome import Outcome, Unit
from torchshrink.paths.recipe import Recipe
from torchshrink.paths.weights import Weights
from torchshrink.training import evaluate


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
    scale = recipe.target_scale.of_loss
    outcome = Outcome(scale * on_train.loss, scale * on_held_out.row_losses, on_held_out.accuracy, nonzero=nonzero)
    return outcome, model
