"""Does penalising help at all? A bootstrap that repeats the choosing answers.

The best of many strengths, judged on the rows that chose it, looks better than it is. So the choosing is repeated
(BBC-CV: Tsamardinos, Greasidou and Borboudakis, 2018, "Bootstrapping the out-of-sample predictions for efficient and
accurate cross-validation"): rows are drawn with replacement, within each fold; the strength of least mean loss on the
drawn rows is chosen; and what it gains is measured on the rows that were not drawn. The losses are out of fold: each
row is judged by a model that did not train on it, and differences are taken row by row, so they are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000

_AT_ONCE = 4_000_000  # drawn row numbers held in memory at a time: 32 MB

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """Whether one choice beats another, with the choosing repeated in every resample.

    Args:
        helps: whether the interval is wholly below 0.
        difference: the mean over the resamples of what was gained on rows outside them, in the loss's unit: below 0
            is better. None where there is nothing to compare.
        interval: where the middle ``level`` of the resamples lie; None likewise.
        level: the share of resamples inside the interval.
        rows: how many rows were judged.
        resamples: how often rows were drawn.
        words: all this as a sentence.
    """

    helps: bool
    difference: float | None
    interval: tuple[float, float] | None
    level: float
    rows: int
    resamples: int
    words: str

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        return {
            "helps": self.helps,
            "difference": self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "level": self.level,
            "rows": self.rows,
            "resamples": self.resamples,
            "words": self.words,
        }


def verdict_from_dict(saved: dict[str, Any]) -> Verdict:
    """What `Verdict.to_dict` was called on."""
    interval = saved["interval"]
    return Verdict(**{**saved, "interval": None if interval is None else (interval[0], interval[1])})


def differences(
    first: Losses, second: Losses, fold: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> Losses:
    """What choosing among ``first`` gains over choosing among ``second``, once per resample: below 0 is better.

    In each resample the column of least mean is chosen on the rows drawn, in ``first`` and in ``second`` apart, and
    the mean difference of the two columns is taken over the rows not drawn.

    Args:
        first: each row's loss at each candidate, (n, A), finite.
        second: likewise, (n, B); one column is a baseline that needs no choosing.
        fold: each row's fold (n,); rows are drawn within folds, so that every model keeps its weight.
        seed: decides the draws.
        resamples: how many.

    Returns:
        (resamples,)
    """
    order = np.argsort(fold, kind="stable")
    sizes = np.unique(fold, return_counts=True)[1]
    both = np.concatenate([first, second], axis=1)[order]  # (n, A + B)
    rows, split = len(both), first.shape[1]
    generator = np.random.default_rng(seed)
    gained = []
    at_once = max(1, _AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        number = min(at_once, resamples - start)
        counts = _drawn(generator, number, sizes)  # (R, n)
        drawn = counts @ both  # sums over the drawn rows: only compared among themselves
        kept_out = (counts == 0).astype(np.float64)
        sums = kept_out @ both
        each = np.arange(number)
        a = drawn[:, :split].argmin(1)
        b = drawn[:, split:].argmin(1) + split
        # A resample of a handful of rows may leave none out: it gains nothing.
        gained.append((sums[each, a] - sums[each, b]) / np.maximum(kept_out.sum(1), 1))
    return np.concatenate(gained)


def judge(
    losses: Losses,
    baseline: Losses,
    fold: NDArray[np.int64],
    *,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> tuple[bool, float, tuple[float, float]]:
    """Whether choosing among ``losses`` (n, A) beats it among ``baseline`` (n, B), by how much, and the interval."""
    gained = differences(losses, baseline, fold, seed=seed, resamples=resamples)
    low, high = np.quantile(gained, [(1 - level) / 2, (1 + level) / 2])
    return bool(high < 0), float(gained.mean()), (float(low), float(high))


def _drawn(generator: np.random.Generator, number: int, sizes: NDArray[np.int64]) -> Losses:
    """How often each row is drawn, (number, n), when each fold's rows are drawn from that fold with replacement."""
    parts = []
    for size in sizes:
        picks = generator.integers(size, size=(number, size))
        picks += np.arange(number)[:, None] * size
        parts.append(np.bincount(picks.ravel(), minlength=number * size).reshape(number, size))
    return np.concatenate(parts, axis=1).astype(np.float64)
