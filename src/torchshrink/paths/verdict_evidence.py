"""The losses that a call's verdicts are computed from: tables of the first repeat, and what later ones add to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from torchshrink.paths.engines.warm_path import WarmTables
from torchshrink.paths.folds import Splits
from torchshrink.paths.statistics.gains import (
    HeldOut,
    Losses,
    Sides,
    by_parts,
    choices,
    gains,
    held_out_ratio,
    sound,
)
from torchshrink.paths.statistics.verdict import Verdict, judge, judge_rows
from torchshrink.paths.training_result import Candidate, TrainingResult

Words = tuple[str, str, str]
"""How a verdict starts if the choice helps, if nothing is shown, and if it harms."""


@final
class Evidence:
    """Held-out losses of all candidates, and who is compared with whom.

    Args:
        splits: the folds of all repeats.
        ways: what came out of the first repeat, of each family.
        seed: decides how the rows of a single split are parted.
    """

    def __init__(self, splits: Splits, ways: Sequence[WarmTables], *, seed: int) -> None:
        self._splits, self._seed = splits, seed
        self.candidates = [
            Candidate(family, step, control)
            for control in (False, True)
            for family, each in enumerate(ways)
            for step in range(len(each.unpenalised if control else each.up))
        ]
        rows = [ways[c.family].unpenalised[c.step] if c.control else ways[c.family].up[c.step] for c in self.candidates]
        self._tables = [
            [
                HeldOut(fold.validation.numpy(), fold.counts[1] * _columns([row[k] for row in rows]), len(fold.train))
                for k, fold in enumerate(splits.first)
            ]
        ]
        self._held_out = [[fold.validation.numpy() for fold in folds] for folds in splits.repeats]
        self._differences = any(bool((fold.losses < 0).any()) for fold in self._tables[0])
        self._families = range(len(ways))
        compared = [self.penalising([family]) for family in self._families]  # what others choose is among it
        self._chosen = {sides: self._choose(sides) for sides in map(_hashable, compared)}

    def penalising(self, families: Sequence[int]) -> Sides:
        """All strengths of these families against strength 0."""
        return self._columns(families, control=False), self._columns(families, control=True)

    def against(self, other: int) -> Sides:
        """All families' strengths against one family's.

        All, and not the best's only: which one is best was seen in these very rows, so that is chosen anew, too.
        """
        return self._columns(self._families, control=False), self._columns([other], control=False)

    def wanted(self) -> dict[int, list[Candidate]]:
        """Of each fold of a later repeat, by its number, the candidates that it is judged at."""
        found: dict[int, list[Candidate]] = {}
        count = len(self._splits.first)
        for chosen in self._chosen.values():
            for repeat, pairs in enumerate((chosen or [[]])[1:], start=1):
                for k, pair in enumerate(pairs):
                    found.setdefault(repeat * count + k, []).extend(self.candidates[column] for column in pair)
        # In the order of the candidates, each once: what is trained together does not depend on who is compared first.
        return {number: [c for c in self.candidates if c in some] for number, some in sorted(found.items())}

    def add(self, results: Mapping[tuple[int, Candidate], TrainingResult]) -> None:
        """What came out of the later repeats, by the fold's number and the candidate."""
        count = len(self._splits.first)
        for repeat, folds in enumerate(self._splits.later, start=1):
            table = []
            for k, fold in enumerate(folds):
                losses = np.full((len(fold.validation), len(self.candidates)), np.nan)
                for column, candidate in enumerate(self.candidates):
                    result = results.get((repeat * count + k, candidate))
                    if result is not None:
                        losses[:, column] = fold.counts[1] * result.row_losses.numpy()
                table.append(HeldOut(fold.validation.numpy(), losses, len(fold.train)))
            self._tables.append(table)

    def verdict(self, sides: Sides, words: Words) -> Verdict:
        """Whether the choice on the one side beats the other's."""
        first = self._tables[0]
        left = (sound(first, sides[0]), sound(first, sides[1]))
        if not (left[0] and left[1]):
            return judge([], ratio=0.0, words=words)
        key = _hashable(sides)
        chosen = self._chosen[key] if key in self._chosen else self._choose(sides)
        if chosen is not None:
            found = gains(self._tables, chosen)
            return judge(found, ratio=held_out_ratio(first), words=words, differences=self._differences)
        each = by_parts(first, left, seed=self._seed)
        note = "; one fixed split: the interval is over its rows alone, and speaks of these trainings and no others"
        return judge_rows(each[:, 0], each[:, 1], words=words, note=note, differences=self._differences, chosen=True)

    def _choose(self, sides: Sides) -> list[list[tuple[int, int]]] | None:
        """What each fold of each repeat is judged at; None where one leaves no other rows to choose by."""
        left = (sound(self._tables[0], sides[0]), sound(self._tables[0], sides[1]))
        return choices(self._tables[0], self._held_out, left) if left[0] and left[1] else None

    def _columns(self, families: Sequence[int], *, control: bool) -> list[int]:
        return [k for k, c in enumerate(self.candidates) if c.control == control and c.family in families]


def _columns(results: Sequence[TrainingResult]) -> Losses:
    return np.stack([result.row_losses.numpy() for result in results], axis=1)


def _hashable(sides: Sides) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(sides[0]), tuple(sides[1])
