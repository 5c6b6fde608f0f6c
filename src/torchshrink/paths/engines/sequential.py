"""The plain engine: one training after another. Obviously right, and what every other engine is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from torchshrink.data.lazy import subset
from torchshrink.errors import DivergenceError
from torchshrink.paths.folds import Fold
from torchshrink.paths.model_weights import Weights
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.paths.weight_summary import summaries
from torchshrink.paths.zero_pattern import tensors_of, zero_pattern
from torchshrink.training import evaluate


def train_each(
    spec: TrainingSpec, folds: Sequence[Fold], families: Sequence[PenaltyFamily], keys: Iterable[TrainingKey]
) -> Iterator[tuple[TrainingKey, TrainingResult]]:
    """Train each, and yield what came out of it."""
    for key in keys:
        yield key, train_one(spec, folds[key.fold], families[key.family], key)[0]


def train_one(
    spec: TrainingSpec, fold: Fold, family: PenaltyFamily, key: TrainingKey, *, start: Weights | None = None
) -> tuple[TrainingResult, nn.Module | None]:
    """One training's result and model, from the initial weights or from ``start``; no model where it diverged."""
    train, held_out = fold.train.to(spec.device), fold.validation.to(spec.device)
    X, y = subset(spec.X, train), spec.y[train]
    nothing = torch.full((len(held_out),), torch.nan, dtype=torch.float64)
    losses: list[float] = []
    try:
        model, regularizer = spec.train(family.make(key.strength), X, y, part=key.fold, start=start, losses=losses)
    except DivergenceError as error:
        return TrainingResult(torch.nan, nothing, None, 0, diverged=error.epoch + 1), None
    on_train = evaluate(model, X, y, loss=spec.loss)
    on_held_out = evaluate(model, subset(spec.X, held_out), spec.y[held_out], loss=spec.loss)
    if not (on_train.row_losses.isfinite().all() and on_held_out.row_losses.isfinite().all()):
        return TrainingResult(torch.nan, nothing, None, 0, diverged=spec.epochs), None
    sparsity = regularizer.sparsity()
    nonzero = sparsity.total - sparsity.zeros
    scale = spec.target_scale.of_loss
    result = TrainingResult(
        scale * on_train.loss,
        scale * on_held_out.row_losses,
        on_held_out.accuracy,
        nonzero=nonzero,
        pattern=zero_pattern(tensors_of(model)) if family.name in spec.grouped else None,
        weights=summaries(
            spec.looked,
            {name: tensor.unsqueeze(0) for name, tensor in tensors_of(model).items()},
            [[scale * loss for loss in losses]],
        )[0],
    )
    return result, model
