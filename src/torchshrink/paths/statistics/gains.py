"""What each held-out fold says of a choice that the other folds make: what the verdict is taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_FOLDS = 10  # judged apart: of more, several are judged together, since the logarithm of a few rows' mean misleads
PARTS = 10  # of the rows of a single split, each judged at the strength that the others choose

Losses = NDArray[np.float64]
Numbers = NDArray[np.int64]
Sides = tuple[Sequence[int], Sequence[int]]
"""The candidates of the one side, and of the other: numbers of columns."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The rows that a fold held out (m,), what each candidate lost on them (m, C), and how many rows it trained on.

    NaN where a training was lost; in later repeats also where a candidate was not trained.
    """

    rows: Numbers
    losses: Losses
    trained: int


@dataclass(frozen=True)
class Gain:
    """The mean losses on one fold's held-out rows with the choice and without."""

    repeat: int
    after: float
    before: float


def sound(table: Sequence[HeldOut], columns: Sequence[int]) -> list[int]:
    """The candidates that were trained to their end in every fold."""
    return [c for c in columns if all(np.isfinite(fold.losses[:, c]).all() for fold in table)]


def blocks(folds: Sequence[Numbers]) -> list[list[int]]:
    """Which folds are judged together, by the rows that each holds out: more than `MOST_FOLDS` in as many blocks.

    Where a row is held out twice, folds are judged apart, however many they are.
    """
    apart = sum(map(len, folds)) == len(np.unique(np.concatenate(list(folds))))
    count = min(len(folds), MOST_FOLDS) if apart else len(folds)
    return [part.tolist() for part in np.array_split(np.arange(len(folds)), count)]


def choices(
    table: Sequence[HeldOut], held_out: Sequence[Sequence[Numbers]], sides: Sides
) -> list[list[tuple[int, int]]] | None:
    """What each fold is judged at: the candidates of least mean loss over the rows outside its block.

    Args:
        table: the first repeat, with every candidate.
        held_out: of each repeat, the rows that each fold holds out.
        sides: the candidates, at least one on each side, all sound; of equals, the first is taken.

    Returns:
        Of each repeat and fold the candidates chosen, one of each side; None where a block leaves no row to choose by.
    """
    rows = np.concatenate([fold.rows for fold in table])
    losses = np.concatenate([fold.losses for fold in table])
    found = []
    for folds in held_out:
        made: list[tuple[int, int]] = []
        for block in blocks(folds):
            outside = ~np.isin(rows, np.concatenate([folds[k] for k in block]))
            if not outside.any():
                return None
            sums = losses[outside].sum(0)
            made += [(_least(sums, sides[0]), _least(sums, sides[1]))] * len(block)
        found.append(made)
    return found


def gains(repeats: Sequence[Sequence[HeldOut]], chosen: Sequence[Sequence[tuple[int, int]]]) -> list[Gain]:
    """The gain of each block of folds, at what `choices` chose for it."""
    found = []
    for number, (folds, pairs) in enumerate(zip(repeats, chosen, strict=True)):
        for block in blocks([fold.rows for fold in folds]):
            after, before = (
                float(np.concatenate([folds[k].losses[:, pairs[k][side]] for k in block]).mean()) for side in (0, 1)
            )
            found.append(Gain(number, after, before))
    return found


def by_parts(table: Sequence[HeldOut], sides: Sides, *, seed: int) -> Losses:
    """Of each row held out, its loss at what the rows of the other `PARTS` choose on both sides, (m, 2).

    For a single split, which leaves no other rows to choose by. A row that is held out several times has its mean loss.
    """
    rows, place = np.unique(np.concatenate([fold.rows for fold in table]), return_inverse=True)
    every = np.concatenate([fold.losses for fold in table])
    losses = np.zeros((len(rows), every.shape[1]))
    np.add.at(losses, place, every)
    losses /= np.bincount(place)[:, None]
    count = min(PARTS, len(rows))
    part = np.random.default_rng(seed).permutation(len(rows)) % count
    found = np.empty((len(rows), 2))
    for number in range(count):
        inside = part == number
        sums = losses[~inside].sum(0)
        for side, columns in enumerate(sides):
            found[inside, side] = losses[inside, _least(sums, columns)]
    return found


def held_out_ratio(table: Sequence[HeldOut]) -> float:
    """Rows that are judged together to rows trained on, on average: 1/(K − 1) for up to `MOST_FOLDS` folds."""
    rows = sum(len(fold.rows) for fold in table) / len(blocks([fold.rows for fold in table]))
    return rows / (sum(fold.trained for fold in table) / len(table))


def _least(sums: Losses, columns: Sequence[int]) -> int:
    return columns[int(sums[list(columns)].argmin())]
