"""The rule that the verdict had before, for comparison: the hull of two intervals of raw differences.

One is a bootstrap over rows that repeats the choosing (BBC-CV: Tsamardinos, Greasidou and Borboudakis, 2018), one a t
interval over the folds' differences, each at the strength that the other folds choose.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

RESAMPLES = 200


def old_interval(losses: np.ndarray, fold: np.ndarray, *, ours: list[int], theirs: list[int], seed: int) -> tuple:
    """The interval of the change of the loss, from each row's losses (n, C) and the fold that held it out (n,)."""
    by_rows = np.quantile(_bootstrap(losses, fold, ours, theirs, seed), [0.025, 0.975])
    by_folds = _over_folds(losses, fold, ours, theirs)
    return min(by_rows[0], by_folds[0]), max(by_rows[1], by_folds[1])


def _bootstrap(losses: np.ndarray, fold: np.ndarray, ours: list[int], theirs: list[int], seed: int) -> np.ndarray:
    order = np.argsort(fold, kind="stable")
    sizes = np.unique(fold, return_counts=True)[1]
    both, split = losses[order][:, [*ours, *theirs]], len(ours)
    generator, counts = np.random.default_rng(seed), []
    for size in sizes:
        picks = generator.integers(size, size=(RESAMPLES, size)) + np.arange(RESAMPLES)[:, None] * size
        counts.append(np.bincount(picks.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size))
    drawn_rows = np.concatenate(counts, axis=1).astype(np.float64)
    left_out = (drawn_rows == 0).astype(np.float64)
    drawn, sums, each = drawn_rows @ both, left_out @ both, np.arange(RESAMPLES)
    a, b = drawn[:, :split].argmin(1), drawn[:, split:].argmin(1) + split
    return (sums[each, a] - sums[each, b]) / np.maximum(left_out.sum(1), 1)


def _over_folds(losses: np.ndarray, fold: np.ndarray, ours: list[int], theirs: list[int]) -> tuple:
    gains = []
    for number in np.unique(fold):
        held_out = fold == number
        sums = losses[~held_out].sum(0)
        a, b = ours[sums[ours].argmin()], theirs[sums[theirs].argmin()]
        gains.append((losses[held_out, a] - losses[held_out, b]).mean())
    count = len(gains)
    half = stdtrit(count - 1, 0.975) * np.std(gains, ddof=1) * np.sqrt(1 / count + 1 / (count - 1))
    return np.mean(gains) - half, np.mean(gains) + half
