"""Does penalising help? The rule, as functions of held-out losses.

Each fold's rows are judged by models that did not train on them. In each fold the strength is chosen by the losses of
all other held-out rows (those of the first repeat, which trains every strength), so that no row is judged at a strength
that it chose itself. With A and B the fold's mean losses at the strength chosen and at strength 0, its gain is

    g = log(A / B)        or A − B, where some row's loss is below 0 or a mean is 0

Logarithms, because an unpenalised model's raw loss swings between folds, and a t interval over raw differences is then
about that swing. From the gains of K folds in R repeats (other folds, other initial weights), with mean ḡ, standard
deviation s over all J = K·R of them, and standard deviation S of the R repeats' means:

    R ≥ 2:   ḡ ± t_{J−1} · √max(s²/K, S²/R)
    R = 1:   ḡ ± t_{J−1} · s · √(1/J + held-out rows / training rows)

Every repeat holds out the same n rows, so the luck of the rows does not average out over repeats. With τ the luck of a
training, Var ḡ = v/n + τ²/(KR) ≤ s²/K; the difference makes up for choosing the strength. S²/R covers luck that all
folds of a repeat share. With one repeat the variance is corrected for training sets that overlap (Nadeau and Bengio,
2003, "Inference for the generalization error"); so it is with folds that the caller gives, which may hold out rows more
than once. `benchmarks/verdict.py` has the rule's false alarms, power and coverage; docs/measured_verdict.md the table.

The interval is about the whole procedure, the choice of the strength included, on as many rows as a fold trains on.
Where there is one split only, or two models and an untouched test set, only rows vary, and the interval speaks of the
trained models:

    log(Ā / B̄) ± t_{m−1} · sd(A_i / Ā − B_i / B̄) / √m        over m rows i

With one split each tenth of the rows is judged at what the other nine choose; as nine tenths are shared by any two such
choices, the variance is 1 + 10/9 times as large (without this factor, where there is no effect one is claimed in 7 % of
the cases, in each direction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchshrink.paths.statistics.gains import PARTS, Gain, Losses, Numbers
from torchshrink.paths.statistics.wording import ONE_REPEAT, Claim, sentence
from torchshrink.support.tables import html_of_pairs

LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """Whether one choice beats another on unseen rows, with the choosing repeated.

    Args:
        helps: whether the interval is wholly below 0.
        harms: whether it is wholly above.
        relative: whether ``change`` and ``interval`` are shares (−0.85: the loss falls by 85 %), or in the loss's unit.
        change: of the loss on unseen rows; below 0 is better. None where there is nothing to compare.
        interval: of the change, its lower and its upper end; None likewise.
        before: the mean held-out loss without the choice: at strength 0, or of the other penalty; None likewise.
        after: the mean held-out loss with it; None likewise.
        better: in how many of the held-out folds (or rows) it is lower with the choice.
        compared: how many there are.
        over: what the interval is over: ``"folds"``, or ``"rows"``: of one split, with the trained models as they are.
        level: of the interval.
        words: all this as a sentence.
    """

    helps: bool
    harms: bool
    relative: bool
    change: float | None
    interval: Interval | None
    before: float | None
    after: float | None
    better: int
    compared: int
    over: str
    level: float
    words: str

    def __repr__(self) -> str:
        found = "helps" if self.helps else "harms" if self.harms else "nothing shown"
        if self.change is None:
            return f"<Verdict: {found}; nothing to compare>"
        return (
            f"<Verdict: {found}; loss on unseen rows {in_figures(self)}, better in {self.better} of {self.compared} "
            f"{self.over}>"
        )

    def __str__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        pairs = [("verdict", self.words)]
        if self.change is not None:
            pairs += [("change", in_figures(self)), ("better in", f"{self.better} of {self.compared} {self.over}")]
        return html_of_pairs(pairs)

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}


def verdict_from_dict(saved: dict[str, Any]) -> Verdict:
    """What `Verdict.to_dict` was called on."""
    return Verdict(**(saved | {"interval": None if saved["interval"] is None else tuple(saved["interval"])}))


def in_figures(verdict: Verdict) -> str:
    """The losses without the choice and with it, their change and its interval."""
    if verdict.change is None or verdict.before is None or verdict.after is None:
        return "unknown"
    unit, scale = (" %", 100.0) if verdict.relative else ("", 1.0)
    ends = ""
    if verdict.interval is not None:
        low, high = (f"{scale * end:+.3g}" for end in verdict.interval)
        ends = f", {100 * verdict.level:g} % interval {low} to {high}{unit}"
    return f"{verdict.before:.3g} → {verdict.after:.3g} ({scale * verdict.change:+.3g}{unit}{ends})"


def judge(
    gains: Sequence[Gain],
    *,
    ratio: float,
    words: tuple[str, str, str],
    differences: bool = False,
    level: float = LEVEL,
) -> Verdict:
    """The verdict of several folds.

    Args:
        gains: of all folds of all repeats, equally many of each; a lost training's loss is not finite.
        ratio: held-out rows to training rows, of a fold; needed where there is one repeat.
        words: how the sentence starts if the choice helps, if nothing is shown, and if it harms.
        differences: whether to take differences, as some row's loss is below 0.
        level: of the interval.
    """
    if not gains or any(not math.isfinite(each.after) for each in gains):
        lost = "a training diverged" if gains else "one side has no training that did not diverge"
        return nothing(f"{words[1]}: {lost}, so there is nothing to compare", level=level)
    left = [each for each in gains if math.isfinite(each.before)]
    after, before = np.array([[each.after, each.before] for each in left]).reshape(-1, 2).T
    repeats = np.array([each.repeat for each in left])
    if len(left) < 2:
        return nothing(f"{words[1]}: all trainings to compare with diverged", level=level)
    relative = not differences and bool((after > 0).all() and (before > 0).all())
    values = np.log(after / before) if relative else after - before
    mean, half = float(values.mean()), half_width(values, repeats, ratio=ratio, level=level)
    note = f"; {len(gains) - len(left)} folds in which the other side diverged are left out" * (len(left) < len(gains))
    if half > 0 and (repeats == repeats[0]).all():
        note += ONE_REPEAT
    return _verdict((mean, half), after, before, relative=relative, over="folds", words=words, level=level, note=note)


def half_width(values: Losses, repeats: Numbers, *, ratio: float, level: float = LEVEL) -> float:
    """Half of the t interval of the mean of ``values`` (J,), the gain of a fold each, of the ``repeats`` (J,)."""
    count = len(values)
    own = float(values.var(ddof=1))
    means = np.array([values[repeats == each].mean() for each in np.unique(repeats)])
    if len(means) == 1:
        variance = own * (1 / count + ratio)
    else:
        variance = max(own * len(means) / count, float(means.var(ddof=1)) / len(means))
    return _t(count - 1, level) * math.sqrt(variance)


def judge_rows(
    after: Losses,
    before: Losses,
    *,
    words: tuple[str, str, str],
    note: str = "",
    differences: bool = False,
    chosen: bool = False,
) -> Verdict:
    """The verdict over rows alone: of trained models, each row's loss with the choice (m,) and without (m,).

    Where the rows have ``chosen`` by `by_parts`, the variance is corrected for that as for training sets that overlap.
    """
    level = LEVEL
    if len(after) < 2 or not (np.isfinite(after).all() and np.isfinite(before).all()):
        lost = "one row is no evidence" if len(after) < 2 else "a training diverged, so there is nothing to compare"
        return nothing(f"{words[1]}: {lost}{note}", level=level, over="rows")
    a, b, count = float(after.mean()), float(before.mean()), len(after)
    relative = not differences and a > 0 and b > 0 and bool((after >= 0).all() and (before >= 0).all())
    each = after / a - before / b if relative else after - before
    half = _t(count - 1, level) * float(each.std(ddof=1)) / math.sqrt(count)
    if chosen:
        half *= math.sqrt(1 + PARTS / (PARTS - 1))
    mean = math.log(a / b) if relative else a - b
    return _verdict((mean, half), after, before, relative=relative, over="rows", words=words, level=level, note=note)


def nothing(words: str, *, level: float = LEVEL, over: str = "folds") -> Verdict:
    """The verdict where nothing can be compared; ``words`` say why."""
    return Verdict(False, False, True, None, None, None, None, 0, 0, over, level, words)


def paired_shares(after: NDArray[np.bool_], before: NDArray[np.bool_], *, level: float = LEVEL) -> Interval:
    """The interval of the change of a share over the same rows (Agresti and Min, 2005).

    Half a row is added to each of the four counts: both right, both wrong, only one, only the other. So the interval
    has a width even where both are always right together.
    """
    count, gained, lost = len(after), int((after & ~before).sum()), int((before & ~after).sum())
    mean = (gained - lost) / (count + 2)
    half = _normal(level) * math.sqrt((gained + lost + 1) / (count + 2) - mean**2) / math.sqrt(count + 2)
    return max(-1.0, mean - half), min(1.0, mean + half)


def mean_and_error(values: Losses, sizes: Losses) -> tuple[float, float]:
    """The mean of the folds' values (K,), weighted by their sizes, and its standard error as glmnet takes it.

    se = √(Σ ω_k (e_k − ē)² / (K − 1)), with the weights ω normalised; NaN of a single fold.
    """
    weights = sizes / sizes.sum()
    mean = float(weights @ values)
    if len(values) == 1:
        return mean, math.nan
    return mean, float(np.sqrt(weights @ (values - mean) ** 2 / (len(values) - 1)))


def _verdict(
    found: tuple[float, float],
    after: Losses,
    before: Losses,
    *,
    relative: bool,
    over: str,
    words: tuple[str, str, str],
    level: float,
    note: str,
) -> Verdict:
    mean, half = found
    ends = (mean - half, mean + half)
    change, interval = mean, ends
    if relative:
        change, interval = _share(mean), (_share(ends[0]), _share(ends[1]))
    better = int((after < before).sum())
    claim = Claim(
        change, interval, float(before.mean()), float(after.mean()), better, len(after), over, relative, half, level
    )
    # Values that are all the same leave nothing to take a t interval of, and are no evidence, unless nothing changes.
    certain = half > 0 or mean == 0
    return Verdict(
        helps=certain and ends[1] < 0,
        harms=certain and ends[0] > 0,
        relative=relative,
        change=change,
        interval=interval if certain else None,
        before=claim.before,
        after=claim.after,
        better=better,
        compared=len(after),
        over=over,
        level=level,
        words=sentence(claim, words) + note,
    )


def _share(log_ratio: float) -> float:
    return math.expm1(min(log_ratio, 700.0))


def _t(freedom: int, level: float) -> float:
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # slow to load

    return float(stdtrit(freedom, (1 + level) / 2))


def _normal(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
