"""Which strengths of a stack cannot win any more, judged a few times while they train. Off by default.

At a look, after 1/6, 1/3, 1/2 and 2/3 of the epochs, each strength's losses on the rows held out are taken, without the
penalty. Early losses mislead: strong and weak penalties learn at different speeds, and curves cross. So a strength s is
not dropped for being behind. It is dropped where it has been behind for two looks and would end behind if it kept the
speed at which it learns while the leader learned nothing more.

For a row i that was held out let ℓ(s, i, t) be the loss at look t, b the leader, which has the least mean at this look
among the strengths in the race, e_t the epochs done and E those in all, and a = (E − e_t) / (e_t − e_{t−1}):

    δ′(i) = ℓ(s, i, t−1) − ℓ(b, i, t−1)                         the deficit at the look before, against the same leader
    δ(i)  = ℓ(s, i, t) − ℓ(b, i, t)                             the deficit now
    φ(i)  = δ(i) + a · (c_s(i)·[c̄_s < 0] − c_b(i)·[c̄_b > 0])    the least deficit to expect at the end,

with the change c_s(i) = ℓ(s, i, t) − ℓ(s, i, t−1) and its mean c̄_s over the rows: s goes on gaining as it did, the
leader gains nothing, and only the leader goes on getting worse. All three are paired, row by row. s leaves where the
mean of each of the three is above 0, both over rows and over folds:

    mean > t(1 − LEVEL / ((S − 1)·J); n − K) · se_rows,
    mean > t(1 − LEVEL / J; K − 1) · se_folds · √(1 + K·n₂/n₁),

for S strengths, n rows, K folds that train on n₁ rows and hold out n₂, and J looks, the first not counted.

- Over rows, se_rows from the variances within the folds. The strength that would end best may meet any of the S − 1
  others as the leader, at any of J looks (Bonferroni). All tests must reject, so they need no correction among
  themselves (Berger, 1982, "Multiparameter hypothesis testing and acceptance sampling").
- Over folds, by glmnet's formula, since all rows of a fold share one training and its luck; the root is for folds that
  share training rows (Nadeau and Bengio, 2003, "Inference for the generalization error"). Few folds have few degrees of
  freedom, so this is corrected for the looks and not for the strengths. One fold says nothing of luck: nothing leaves.
- Strength 0, which the verdict needs, and two strengths on each side of the leader never leave. A strength that
  diverged in some fold neither leads nor leaves.

So where no strength learns faster later than it did between two looks (as on convex learning curves) and no leader
worsens faster, the noise of the rows makes the best strength leave in at most a share LEVEL of stacks. A curve that has
a plateau and then falls is promised nothing.

Measured by `benchmarks/racing.py`, 540 runs, 60 seeds of each of nine settings (digits, diabetes and breast cancer with
300 rows, a tenth of the class labels drawn anew, L1 and L2, 24 strengths × 5 folds): the strength that ended best was
dropped in none of them (so in at most 0.6 %, at level 95 %), 17 % of the strengths were dropped, and 10 % of the work
was saved (3.5 to 17 % by setting). To drop at a single look whoever is significantly behind saves more and loses more,
always on digits: after a sixth of the epochs it lost the best strength in 31 % of the runs and saved 29 % (540 runs);
after a third 13 % and 20 %; after a half 3 % and 13 % (160 runs, 20 seeds of eight of the settings). Where 24 strengths
are equal but for the noise of rows and the luck of trainings (``--simulate``), some strength was dropped in 0 to 15 %
of the races, and the one that ended best in none of 3600.

Sources: races stop what is significantly behind (Maron and Moore, 1994, "Hoeffding races"; Birattari et al., 2002, "A
racing algorithm for configuring metaheuristics"; over cross-validation Krueger, Panknin and Braun, 2015, "Fast
cross-validation via sequential testing"). Successive halving (Jamieson and Talwalkar, 2016) drops by early rank, which
fails where curves cross; looking ahead along a curve is from Domhan, Springenberg and Hutter, 2015, "Speeding up
automatic hyperparameter optimization". That the speed seen bounds the speed to come is this rule's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from torchshrink.path.folds import Fold
from torchshrink.path.verdict import Losses, mean_and_error

SHARES = (1 / 6, 1 / 3, 1 / 2, 2 / 3)
"""After which shares of the epochs to look."""

LEVEL = 0.05
"""In how large a share of stacks, at most, the noise of the rows may drop the strength that would end best."""

NEIGHBOURS = 2
"""Strengths on each side of the leader that never leave."""


@final
class Race:
    """One stack's race. It keeps the last look's losses, and nothing else.

    Args:
        strengths: ascending.
        folds: the stack's, by their numbers.
        epochs: E.
        level: see `LEVEL`.
    """

    def __init__(
        self, strengths: Sequence[float], folds: Mapping[int, Fold], epochs: int, *, level: float = LEVEL
    ) -> None:
        self.looks = looks_of(epochs)
        self._strengths, self._epochs = np.array(strengths, dtype=np.float64), epochs
        self._fold = np.repeat(np.arange(len(folds)), [len(fold.validation) for fold in folds.values()])
        ratio = float(np.mean([len(fold.validation) / len(fold.train) for fold in folds.values()]))
        self._inflation = math.sqrt(1 + len(folds) * ratio)
        self._level = level / max(1, len(self.looks) - 1)
        self._before: tuple[int, Losses] | None = None

    def look(self, epoch: int, losses: Losses) -> NDArray[np.bool_]:
        """Which strengths leave now (S,).

        Args:
            epoch: how many are done; one of ``looks``, in their order.
            losses: each held-out row's loss (S, n), fold after fold; not finite for what is not in the race.
        """
        leaves = np.zeros(len(losses), dtype=bool)
        last, self._before = self._before, (epoch, losses)
        if last is None or self._fold[-1] == 0:  # nothing to compare with, or one fold, whose luck is its own
            return leaves
        racing = np.flatnonzero(np.isfinite(losses).all(1) & np.isfinite(last[1]).all(1))
        if len(racing) < 2:
            return leaves
        ahead = (self._epochs - epoch) / (epoch - last[0])
        leader, behind = self._behind(last[1][racing], losses[racing], ahead)
        leaves[racing] = behind
        place = int(racing[leader])
        leaves[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1] = False
        leaves[self._strengths == 0] = False
        return leaves

    def _behind(self, before: Losses, now: Losses, ahead: float) -> tuple[int, NDArray[np.bool_]]:
        """The leader, and who has been and would stay behind it."""
        leader = int(now.mean(1).argmin())
        change = now - before
        own = change * (change.mean(1, keepdims=True) < 0)
        leaders = change[leader] * (change[leader].mean() > 0)
        deficit = now - now[leader]
        tests = (before - before[leader], deficit, deficit + ahead * (own - leaders))
        return leader, np.logical_and.reduce([self._above_zero(each) for each in tests])

    def _above_zero(self, values: Losses) -> NDArray[np.bool_]:
        """Whether the mean of paired values (S, n) is significantly above 0, over rows and over folds (S,)."""
        from scipy.special import stdtrit  # type: ignore[import-untyped]  # slow to load

        parts = [values[:, self._fold == k] for k in range(self._fold[-1] + 1)]
        sizes = np.array([part.shape[1] for part in parts], dtype=np.float64)
        means = np.stack([part.mean(1) for part in parts], axis=1)  # (S, K)
        mean, by_folds = np.array([mean_and_error(each, sizes) for each in means]).T
        variances = np.stack([part.var(1) * n / max(1, n - 1) for part, n in zip(parts, sizes, strict=True)], axis=1)
        by_rows = np.sqrt(variances @ sizes) / sizes.sum()
        folds, rows = len(sizes), sizes.sum()
        over_rows = mean > stdtrit(max(1, rows - folds), 1 - self._level / (len(self._strengths) - 1)) * by_rows
        over_folds = mean > stdtrit(folds - 1, 1 - self._level) * by_folds * self._inflation
        return np.asarray(over_rows & over_folds)


def looks_of(epochs: int) -> tuple[int, ...]:
    """After which epochs to look; none where there are too few epochs for two looks before the last.

    >>> looks_of(50), looks_of(3), looks_of(2)
    ((8, 17, 25, 33), (1, 2), ())
    """
    looks = sorted({max(1, math.floor(share * epochs + 0.5)) for share in SHARES})
    looks = [look for look in looks if look < epochs]
    return tuple(looks) if len(looks) > 1 else ()
