"""What a verdict of real trainings should have said: all that it compares, on fresh rows that nobody else sees.

`ts.path` gives losses and no models. So each stack of lanes is judged twice here: on the rows that it holds out, which
is what the path sees, and on fresh rows, which it does not. From the second comes the true change of the procedure: the
mean over folds and repeats of log(fresh loss at what the fold chose / fresh loss of what it is compared with).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from torchshrink.paths import run
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.engines.vmap_support import evaluate_lanes
from torchshrink.paths.engines.warm_path import WarmTables
from torchshrink.paths.folds import Splits
from torchshrink.paths.statistics.gains import gains, held_out_ratio
from torchshrink.paths.statistics.verdict import Verdict, judge
from torchshrink.paths.training_result import Candidate, TrainingResult
from torchshrink.paths.verdict_evidence import Evidence
from verdict_old import old_interval

Sides = tuple[Sequence[int], Sequence[int]]
WORDS = ("it helps", "nothing is shown", "it harms")


class Witness:
    """Inside `watching`, it keeps what each training loses on fresh rows, and what the verdicts are taken over."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self._X, self._y = torch.from_numpy(X), torch.from_numpy(y)
        self._fresh: dict[TrainingResult, float] = {}  # by identity
        self._compared: list[list[list[TrainingResult | None]]] = []  # per repeat, fold and candidate

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Only stacks of lanes are watched, so the path is to be told ``engine="lanes"``."""
        results, witness = Stack.results, self

        def judged_twice(stack: Stack, diverged: torch.Tensor) -> Iterator[tuple[int, float, TrainingResult]]:
            fresh = witness._losses(stack)
            for number, strength, result in results(stack, diverged):
                column = stack.strengths.index(strength)
                if column in stack.columns:  # a strength that diverged in every fold has left, and is never chosen
                    witness._fresh[result] = fresh[number][stack.columns.index(column)]
                yield number, strength, result

        class Watched(Evidence):  # type: ignore[misc]  # final, but for who watches it
            def __init__(self, splits: Splits, ways: Sequence[WarmTables], *, seed: int) -> None:
                super().__init__(splits, ways, seed=seed)
                witness.evidence, witness.folds = self, len(splits.first)
                rows = [
                    (ways[c.family].unpenalised if c.control else ways[c.family].up)[c.step] for c in self.candidates
                ]
                witness._compared = [[[row[k] for row in rows] for k in range(len(splits.first))]]

            def add(self, results: Mapping[tuple[int, Candidate], TrainingResult]) -> None:
                super().add(results)
                for repeat in range(1, len(self._splits.repeats)):
                    witness._compared.append(
                        [
                            [results.get((repeat * witness.folds + k, c)) for c in self.candidates]
                            for k in range(witness.folds)
                        ]
                    )

        with patch.object(Stack, "results", judged_twice), patch.object(run, "Evidence", Watched):
            yield

    @torch.no_grad()
    def _losses(self, stack: Stack) -> dict[int, list[float]]:
        """Of each fold, by its number, the mean loss on the fresh rows of each lane."""
        stack._skeleton.eval()
        unit = stack.spec.target_scale
        y = unit.inward(self._y) if self._y.is_floating_point() else self._y
        # In the stack's precision: lanes are tried in float64 before they are taken.
        spec = replace(stack.spec, X=self._X.to(stack.spec.X.dtype), y=y.to(stack.spec.y.dtype))
        found = {}
        for f, number in enumerate(stack.folds):
            own = [{name: t[f] for name, t in part.items()} for part in (stack.parameters, stack.own, stack._shared)]
            rows = torch.arange(len(y))
            losses, _ = evaluate_lanes(stack._skeleton, own[0], own[1], own[2], spec=spec, rows=rows)
            found[number] = (unit.of_loss * losses.mean(1)).tolist()
        return found

    # --- what may be asked afterwards ---

    def penalising(self) -> Sides:
        """All strengths of all penalties against none."""
        return self.evidence.penalising(self.evidence._families)

    def true(self, sides: Sides) -> float:
        """The mean log ratio of the fresh losses of the models compared."""
        chosen = self.evidence._choose(sides)
        assert chosen is not None
        return float(
            np.mean(
                [
                    np.log(self._fresh_of(row[a]) / self._fresh_of(row[b]))
                    for pairs, rows in zip(chosen, self._compared, strict=True)
                    for (a, b), row in zip(pairs, rows, strict=True)
                ]
            )
        )

    def _fresh_of(self, result: TrainingResult | None) -> float:
        assert result is not None
        return self._fresh[result]

    def with_one_repeat(self, sides: Sides) -> Verdict:
        """The verdict that ``repeats=1`` would have given."""
        chosen, first = self.evidence._choose(sides), self.evidence._tables[0]
        assert chosen is not None
        return judge(gains([first], chosen[:1]), ratio=held_out_ratio(first), words=WORDS)

    def old_rule(self, sides: Sides, *, seed: int) -> bool:
        """Whether the rule that was before claims a benefit."""
        first = self.evidence._tables[0]
        fold = np.concatenate([np.full(len(each.rows), k) for k, each in enumerate(first)])
        losses: Any = np.concatenate([each.losses for each in first])
        return bool(old_interval(losses, fold, ours=list(sides[0]), theirs=list(sides[1]), seed=seed)[1] < 0)
