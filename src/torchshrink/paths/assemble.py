"""From what came out of the trainings to results with their verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchshrink.errors import DivergenceError
from torchshrink.paths.engines.warm_path import Ways
from torchshrink.paths.folds import Fold
from torchshrink.paths.grid import Grid
from torchshrink.paths.outcome import Outcome
from torchshrink.paths.refit import Source
from torchshrink.paths.result import PathComparison, PathResult
from torchshrink.paths.statistics.points import make_point
from torchshrink.paths.statistics.verdict import Verdict, judge

_HELPS = "penalising helps", "no benefit of penalising is shown"


def make_result(
    source: Source,
    folds: Sequence[Fold],
    grid: Grid,
    ways: Ways,
    *,
    null_loss: float | None,
) -> PathResult:
    """One penalty's result.

    Args:
        source: what it was made from.
        folds: the same for every strength.
        grid: the strengths.
        ways: what came out of the trainings.
        null_loss: the validation loss of the best constant output.

    Raises:
        DivergenceError: every strength diverged.
    """
    recipe, family, table = source.recipe, source.family, ways.up
    points = tuple(make_point(strength, row, folds) for strength, row in zip(grid.strengths, table, strict=True))
    if all(point.diverged for point in points):
        raise DivergenceError(math.nan, min(o.diverged for row in table for o in row if o.diverged is not None) - 1)
    fold = torch.full((len(recipe.X),), -1)
    for k, part in enumerate(folds):
        fold[part.validation] = k
    losses = _row_losses(table, folds, rows=len(recipe.X))
    each, where = _held_out(losses, fold)
    none, _ = _held_out(_row_losses(ways.unpenalised, folds, rows=len(recipe.X)), fold)
    return PathResult(
        penalty=family.name,
        points=points,
        verdict=_noted(judge(each, none, where, seed=recipe.settings.seed, words=_HELPS), source, [ways]),
        grid=grid,
        null_loss=null_loss,
        settings=recipe.describe() | {"folds": len(folds), "at strength 1": family.describe(1.0)},
        losses=losses,
        fold=fold,
        source=source,
    )


def compare(results: Sequence[PathResult], folds: Sequence[Fold], ways: Sequence[Ways], *, seed: int) -> PathComparison:
    """Several penalties' results over the same folds, and which is better; ``ways`` is what each was made from."""
    tables = {result.penalty: _held_out(result.losses, result.fold)[0] for result in results}
    fold = _held_out(results[0].losses, results[0].fold)[1]
    every = np.concatenate(list(tables.values()), axis=1)
    zeros = [_row_losses(each.unpenalised, folds, rows=len(results[0].fold)) for each in ways]
    none = np.concatenate([_held_out(losses, results[0].fold)[0] for losses in zeros], axis=1)
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
        verdict=_noted(judge(every, none, fold, seed=seed, words=_HELPS), results[0].source, ways),
        against=against,
    )


def _noted(verdict: Verdict, source: Source | None, ways: Sequence[Ways]) -> Verdict:
    """After a warm path, with what strength 0 was given for a fair comparison."""
    if source is None or source.order == "cold":
        return verdict
    epochs = source.recipe.settings.epochs * max(len(each.unpenalised) for each in ways)
    note = f"; warm starts: strength 0 had up to {epochs} epochs for this, as many as the best of the path in all"
    return dataclasses.replace(verdict, words=verdict.words + note)


def _row_losses(table: Sequence[Sequence[Outcome]], folds: Sequence[Fold], *, rows: int) -> Tensor:
    """Each row's out-of-fold losses (n, rows of the table); NaN where no fold held it out."""
    losses = torch.full((rows, len(table)), torch.nan, dtype=torch.float64)
    for k, part in enumerate(folds):
        losses[part.validation] = torch.stack([row[k].row_losses for row in table], dim=1)
    return losses


def _held_out(losses: Tensor, fold: Tensor) -> tuple[Any, Any]:
    """The rows that some fold held out, as arrays."""
    rows = fold >= 0
    return losses[rows].numpy(), fold[rows].numpy()
