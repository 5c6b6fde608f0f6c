"""Builds results and their verdicts from finished trainings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor

from torchshrink.errors import DivergenceError
from torchshrink.paths.comparison import PathComparison
from torchshrink.paths.engines.warm_path import WarmTables
from torchshrink.paths.folds import Fold, Splits
from torchshrink.paths.grid import Grid
from torchshrink.paths.null_model import NullLoss
from torchshrink.paths.path_weights import path_weights
from torchshrink.paths.refit import Source
from torchshrink.paths.result import AUDIT, MODEL, PARAMETERS, PENALISED, VERSIONS, PathResult
from torchshrink.paths.sizes import Trained, Unknown
from torchshrink.paths.statistics.points import best_of, make_point
from torchshrink.paths.statistics.verdict import Verdict
from torchshrink.paths.statistics.wording import nothing_learnt, worse_than_constant
from torchshrink.paths.training_result import TrainingResult
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.paths.verdict_evidence import Evidence

_HELPS = "penalising helps", "no benefit of penalising is shown", "penalising harms"


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Which rows do what.

    Args:
        splits: the folds of all repeats, in the numbering of the rows that take part.
        numbers: the caller's numbers of those rows (m,).
        rows: how many the caller has (n); the others are test rows.
    """

    splits: Splits
    numbers: Tensor
    rows: int


def make_result(
    source: Source, grid: Grid, ways: WarmTables, *, layout: Layout, verdict: Verdict, null: NullLoss
) -> PathResult:
    """One penalty's result.

    Args:
        source: what it was made from.
        grid: the strengths.
        ways: what came out of the first repeat's trainings.
        layout: of the rows.
        verdict: whether penalising helps.
        null: the losses of the best constant output.

    Raises:
        DivergenceError: every strength diverged.
    """
    spec, family, table, folds = source.spec, source.family, ways.up, layout.splits.first
    points = tuple(make_point(strength, row, folds) for strength, row in zip(grid.strengths, table, strict=True))
    if all(point.diverged for point in points):
        raise DivergenceError(math.nan, min(o.diverged for row in table for o in row if o.diverged is not None) - 1)
    fold = torch.full((layout.rows,), -1)
    for k, part in enumerate(folds):
        fold[layout.numbers[part.validation]] = k
    result = PathResult(
        penalty=family.name,
        points=points,
        verdict=verdict,
        grid=grid,
        null_loss=null.validation,
        settings=spec.describe()
        | {
            "folds": len(folds),
            "repeats": len(layout.splits.repeats),
            "at strength 1": family.describe(1.0),
            PENALISED: spec.penalised[family.name],
            PARAMETERS: spec.parameters,
            MODEL: spec.model,
            AUDIT: [list(row) for row in spec.audits.get(family.name, ())],
            VERSIONS: {"torchshrink": version("torchshrink"), "torch": torch.__version__},
            **_proof(spec, table),
        },
        losses=_row_losses(table, layout),
        fold=fold,
        source=source,
        counts=_counts(spec, family.name, table),
        weights=path_weights(spec.looked, spec.X.shape[1:], spec.epochs, table),
    )
    return dataclasses.replace(result, verdict=_noted(verdict, [result], [ways], null))


def _proof(spec: TrainingSpec, table: Sequence[Sequence[TrainingResult]]) -> dict[str, str]:
    """What is proved of a table of optima, for its settings."""
    if not spec.solved:
        return {}
    where, words = "in all folds, at strengths above 0,", []
    above = [each.above for row in table for each in row if each.above is not None and math.isfinite(each.above)]
    if above:
        words.append(f"{where} F is at most {max(above):.1e} of itself above its minimum")
    distances = [each.stationary for row in table for each in row if each.stationary is not None]
    if distances:
        words.append(
            f"{where} stationary: no slope is farther than {max(distances):.1e} of the penalty's pull from what it "
            "allows; F is not convex, and no minimum is proved"
        )
    return {"proof": "; ".join(words)} if words else {}


def _counts(spec: TrainingSpec, family: str, table: Sequence[Sequence[TrainingResult]]) -> Trained | Unknown:
    if family not in spec.grouped:
        return Unknown(f"{family} has no groups, whose zeros would make the model smaller: no sizes are counted")
    if any(each.pattern is None and each.diverged is None for row in table for each in row):
        return Unknown("some trainings were read from a journal that does not say which weights are zero")
    return Trained(spec, [[each.pattern for each in row] for row in table])


def penalising(evidence: Evidence, families: Sequence[int]) -> Verdict:
    """Whether these families' penalties help, the choosing among them and their strengths counted in."""
    return evidence.verdict(evidence.penalising(families), _HELPS)


def compare(
    results: Sequence[PathResult], evidence: Evidence, ways: Sequence[WarmTables], null: NullLoss
) -> PathComparison:
    """Several penalties' results over the same folds, and which is better; ``ways`` is what each was made from."""
    best = best_of(results).penalty
    against = {
        result.penalty: evidence.verdict(
            evidence.against(number),
            (
                f"{best} is better than {result.penalty}",
                f"{best} is not shown to be better than {result.penalty}",
                f"choosing among all penalties is worse than {result.penalty}",
            ),
        )
        for number, result in enumerate(results)
        if result.penalty != best
    }
    return PathComparison(
        results={result.penalty: result for result in results},
        verdict=_noted(penalising(evidence, range(len(results))), results, ways, null),
        against=against,
    )


def control_of(ways: WarmTables, folds: Sequence[Fold]) -> int:
    """How many trainings at strength 0 are best for a model without penalty: one, but after a warm path."""
    losses = [make_point(0.0, row, folds).validation_loss for row in ways.unpenalised]
    return losses.index(min(losses)) + 1


def _noted(verdict: Verdict, results: Sequence[PathResult], ways: Sequence[WarmTables], null: NullLoss) -> Verdict:
    """First, whether anything was learnt; after a warm path, last, what strength 0 was given for a fair comparison."""
    best = best_of(results)
    # Of the training rows first: on others, any output near the mean beats the mean of the training rows by luck.
    trained = min(point.train_loss for result in results for point in result.points)
    learnt = nothing_learnt(trained, null.train, rows="least training")
    learnt = learnt or nothing_learnt(best.best.validation_loss, null.validation, rows="least validation")
    worse = worse_than_constant(verdict.before, null.validation)
    words = f"{learnt}; against strength 0: {verdict.words}" if learnt else verdict.words + worse
    source = best.source
    if source is not None and source.order == "warm":
        epochs = source.spec.epochs * max(len(each.unpenalised) for each in ways)
        words += f"; warm starts: strength 0 had up to {epochs} epochs for this, as any fold's choice had at most"
    endless = sum(each.above == math.inf for each in ways[0].up[0])
    if endless:
        words += (
            f"; without penalty {endless} of {len(ways[0].up[0])} folds have no optimum: their rows can be separated, "
            "so larger weights are always better, and were taken where slopes are 1e-4 of those at 0"
        )
    return dataclasses.replace(verdict, words=words)


def _row_losses(table: Sequence[Sequence[TrainingResult]], layout: Layout) -> Tensor:
    """Each row's out-of-fold losses (n, rows of the table), the mean where several folds held it out; NaN for none."""
    sums = torch.zeros((layout.rows, len(table)), dtype=torch.float64)
    counts = torch.zeros(layout.rows, dtype=torch.int64)
    for k, part in enumerate(layout.splits.first):
        rows = layout.numbers[part.validation]
        sums[rows] += torch.stack([row[k].row_losses for row in table], dim=1)
        counts[rows] += 1
    return sums / counts.unsqueeze(1)  # 0 / 0 is NaN
