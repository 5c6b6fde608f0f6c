"""Does penalising help at all? Answered with the choosing repeated, over rows and over folds.

The best of many strengths, judged on the rows that chose it, looks better than it is, for two reasons that each need
their own remedy. Both work on out-of-fold losses: each row is judged by a model that did not train on it, and
differences are taken row by row, so they are paired.

- *Few rows.* A bootstrap repeats the choosing (BBC-CV: Tsamardinos, Greasidou and Borboudakis, 2018, "Bootstrapping the
  out-of-sample predictions for efficient and accurate cross-validation"): rows are drawn with replacement within each
  fold, the strength of least mean loss on the drawn rows is chosen, and what it gains is measured on the rows not
  drawn. The interval is where the middle ``level`` of the resamples lie.
- *Few trainings.* All rows of a fold share one training at each strength, and the luck of that training does not
  average out over them, however many there are. So for each fold the strength is chosen on the other folds (nested
  cross-validation), and a t interval is taken over the folds' gains, with the variance corrected for training sets
  that overlap (Nadeau and Bengio, 2003, "Inference for the generalization error").

The interval reported covers both, and a benefit is claimed only where it lies wholly below 0. In simulations where no
strength can help (`benchmarks/verdict.py --simulate`: 200 to 20,000 rows, 3 to 10 folds, calm and noisy trainings) that
happened in at most 3 % of cases at level 95 %; the bootstrap alone claimed a benefit in up to 63 % of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000

_AT_ONCE = 4_000_000  # drawn row numbers held in memory at a time: 32 MB

Losses = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """Whether one choice beats another on unseen rows, with the choosing repeated.

    Args:
        helps: whether the interval is wholly below 0.
        difference: the bootstrap's mean change of the loss on rows that did not take part in the choosing, in its unit:
            below 0 is better. None where there is nothing to compare.
        interval: from the lower of the two intervals' lower ends to the higher of their upper ends; None likewise.
        by_rows: the bootstrap's interval.
        by_folds: the nested folds' t interval.
        level: of each interval.
        rows: how many rows were judged.
        words: all this as a sentence.
    """

    helps: bool
    difference: float | None
    interval: Interval | None
    by_rows: Interval | None
    by_folds: Interval | None
    level: float
    rows: int
    words: str

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        return {
            "helps": self.helps,
            "difference": self.difference,
            "interval": _listed(self.interval),
            "by_rows": _listed(self.by_rows),
            "by_folds": _listed(self.by_folds),
            "level": self.level,
            "rows": self.rows,
            "words": self.words,
        }


def verdict_from_dict(saved: dict[str, Any]) -> Verdict:
    """What `Verdict.to_dict` was called on."""
    intervals = {key: None if saved[key] is None else tuple(saved[key]) for key in ("interval", "by_rows", "by_folds")}
    return Verdict(**(saved | intervals))


def judge(
    first: Losses,
    second: Losses,
    fold: NDArray[np.int64],
    *,
    seed: int,
    words: tuple[str, str],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Whether choosing among ``first`` beats choosing among ``second``.

    Args:
        first: each row's out-of-fold loss at each candidate, (n, A). Columns with anything not finite are left out.
        second: likewise, (n, B); one column is a baseline that needs no choosing.
        fold: which fold held each row out (n,).
        seed: decides the bootstrap's draws.
        words: how the sentence starts if the first helps, and if it does not.
        level: of the intervals.
        resamples: of the bootstrap.
    """
    first, second = (losses[:, np.isfinite(losses).all(0)] for losses in (first, second))
    if not (first.shape[1] and second.shape[1]):
        why = f"{words[1]}: one side has no training that did not diverge, so there is nothing to compare"
        return Verdict(False, None, None, None, None, level, len(fold), why)
    gained = bootstrap(first, second, fold, seed=seed, resamples=resamples)
    low, high = (float(end) for end in np.quantile(gained, [(1 - level) / 2, (1 + level) / 2]))
    by_folds = over_folds(first, second, fold, level=level)
    interval = (min(low, by_folds[0]), max(high, by_folds[1]))
    helps = interval[1] < 0
    difference = float(gained.mean())
    sentence = f"{words[1]}: however the rows are drawn, the same is chosen with it and without"
    if not interval[0] == interval[1] == 0:
        sentence = (
            f"{words[0] if helps else words[1]}: the loss on unseen rows changes by {difference:+.3g} "
            f"({100 * level:g} % interval {interval[0]:+.3g} to {interval[1]:+.3g}, the choosing counted in)"
        )
    return Verdict(helps, difference, interval, (low, high), by_folds, level, len(fold), sentence)


def bootstrap(first: Losses, second: Losses, fold: NDArray[np.int64], *, seed: int, resamples: int) -> Losses:
    """What choosing among ``first`` gains over choosing among ``second``, once per resample (resamples,).

    In each resample the column of least mean is chosen on the rows drawn, in ``first`` and in ``second`` apart, and
    the mean difference of the two columns is taken over the rows not drawn. Rows are drawn within folds, so that
    every model keeps its weight.
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
        left_out = (counts == 0).astype(np.float64)
        sums = left_out @ both
        each = np.arange(number)
        a = drawn[:, :split].argmin(1)
        b = drawn[:, split:].argmin(1) + split
        # A resample of a handful of rows may leave none out: it gains nothing.
        gained.append((sums[each, a] - sums[each, b]) / np.maximum(left_out.sum(1), 1))
    return np.concatenate(gained)


def over_folds(first: Losses, second: Losses, fold: NDArray[np.int64], *, level: float) -> Interval:
    """The t interval of the folds' gains, each with the columns chosen on the other folds.

    Folds share training rows, so their gains are correlated: the variance of their mean is taken as s²·(1/K + 1/(K−1)),
    the second term being the ratio of held-out to training rows in K folds.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # slow to load

    gains, sizes = [], []
    for number in np.unique(fold):
        held_out = fold == number
        a, b = (losses[~held_out].sum(0).argmin() for losses in (first, second))
        gains.append((first[held_out, a] - second[held_out, b]).mean())
        sizes.append(held_out.sum())
    mean, error = mean_and_error(np.array(gains), np.array(sizes, dtype=np.float64))
    count = len(gains)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error * math.sqrt(1 + count / (count - 1))
    return mean - half, mean + half


def mean_and_error(values: Losses, sizes: Losses) -> tuple[float, float]:
    """The mean of the folds' values (K,), weighted by their sizes, and its standard error as glmnet takes it.

    se = √(Σ ω_k (e_k − ē)² / (K − 1)), with the weights ω normalised.
    """
    weights = sizes / sizes.sum()
    mean = float(weights @ values)
    return mean, float(np.sqrt(weights @ (values - mean) ** 2 / (len(values) - 1)))


def _drawn(generator: np.random.Generator, number: int, sizes: NDArray[np.int64]) -> Losses:
    """How often each row is drawn, (number, n), when each fold's rows are drawn from that fold with replacement."""
    parts = []
    for size in sizes:
        picks = generator.integers(size, size=(number, size))
        picks += np.arange(number)[:, None] * size
        parts.append(np.bincount(picks.ravel(), minlength=number * size).reshape(number, size))
    return np.concatenate(parts, axis=1).astype(np.float64)


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
