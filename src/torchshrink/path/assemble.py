"""From what came out of the trainings to results with their verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchshrink.path.choose import make_point
from torchshrink.path.folds import Fold
from torchshrink.path.grid import Grid
from torchshrink.path.hysteresis import compare_ways
from torchshrink.path.refit import Source
from torchshrink.path.result import PathComparison, PathResult
from torchshrink.path.sequential import Outcome
from torchshrink.path.verdict import Verdict, judge
from torchshrink.training import DivergenceError

_HELPS = "penalising helps", "no benefit of penalising is shown"
# Of a warm path, whose strengths differ in more than the penalty.
_BEATS = "a strength above 0 does better than strength 0", "no strength above 0 is shown to do better than strength 0"


def make_result(
    source: Source,
    folds: Sequence[Fold],
    grid: Grid,
    table: Sequence[Sequence[Outcome]],
    *,
    null_loss: float | None,
    back: Sequence[Sequence[Outcome]] | None = None,
) -> PathResult:
    """One penalty's result.

    Args:
        source: what it was made from.
        folds: the same for every strength.
        grid: the strengths.
        table: per strength, per fold.
        null_loss: the validation loss of the best constant output.
        back: the table of a warm path's way back.

    Raises:
        DivergenceError: every strength diverged.
    """
    recipe, family = source.recipe, source.family
    points = tuple(make_point(strength, row, folds) for strength, row in zip(grid.strengths, table, strict=True))
    if all(point.diverged for point in points):
        raise DivergenceError(math.nan, min(o.diverged for row in table for o in row if o.diverged is not None) - 1)
    fold = torch.full((len(recipe.X),), -1)
    losses = torch.full((len(recipe.X), len(points)), torch.nan, dtype=torch.float64)
    for k, part in enumerate(folds):
        fold[part.validation] = k
        losses[part.validation] = torch.stack([row[k].row_losses for row in table], dim=1)
    each, where = _held_out(losses, fold)
    return PathResult(
        penalty=family.name,
        points=points,
        verdict=_noted(judge(each, each[:, :1], where, seed=recipe.seed, words=_words(source)), source),
        grid=grid,
        null_loss=null_loss,
        settings=recipe.settings | {"order": source.order, "folds": len(folds), "at strength 1": family.describe(1.0)},
        losses=losses,
        fold=fold,
        hysteresis=None if back is None else compare_ways(points, table, back, folds),
        source=source,
    )


def compare(results: Sequence[PathResult], *, seed: int) -> PathComparison:
    """Several penalties' results over the same folds, and which is better."""
    source = results[0].source
    tables = {result.penalty: _held_out(result.losses, result.fold)[0] for result in results}
    fold = _held_out(results[0].losses, results[0].fold)[1]
    every = np.concatenate(list(tables.values()), axis=1)
    none = np.concatenate([table[:, :1] for table in tables.values()], axis=1)
    best = min(results, key=lambda result: result.best.validation_loss).penalty
    against = {
        name: judge(
            tables[best],
            table,
            fold,
            seed=seed,
            words=(f"{best} is better than {name}", f"{best} is not shown to be better than {name}"),
        )
        for name, table in tables.items()
        if name != best
    }
    return PathComparison(
        results={result.penalty: result for result in results},
        verdict=_noted(judge(every, none, fold, seed=seed, words=_words(source)), source),
        against=against,
    )


def _words(source: Source | None) -> tuple[str, str]:
    return _HELPS if source is None or source.order == "cold" else _BEATS


def _noted(verdict: Verdict, source: Source | None) -> Verdict:
    """After a warm path, with what its comparison cannot tell apart."""
    if source is None or source.order == "cold":
        return verdict
    epochs = source.recipe.epochs
    note = (
        f"; warm starts: strength 0 had {epochs} epochs and the strongest {epochs * len(source.climbed)} in all, so "
        "longer training is a part of this comparison, which a cold path leaves out"
    )
    return dataclasses.replace(verdict, words=verdict.words + note)


def _held_out(losses: Tensor, fold: Tensor) -> tuple[Any, Any]:
    """The rows that some fold held out, as arrays."""
    rows = fold >= 0
    return losses[rows].numpy(), fold[rows].numpy()
