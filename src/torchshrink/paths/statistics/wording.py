"""What a verdict says, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """The numbers of a verdict, as in `Verdict`; ``half`` of the interval, before any exponential."""

    change: float
    interval: tuple[float, float]
    before: float
    after: float
    better: int
    compared: int
    over: str
    relative: bool
    half: float
    level: float


ONE_REPEAT = "; luck that all these folds share cannot be seen"
"""A clause where S²/R is not to be had: that luck then passes for what the choice does."""


def sentence(claim: Claim, words: tuple[str, str, str]) -> str:
    """The verdict, from how it starts if the choice helps, if nothing is shown, and if it harms.

    It promises nothing of more rows: what a penalty gains shrinks faster with their number than the interval does.
    """
    helps, unsure, harms = words
    low, high = claim.interval
    count = f"better in {claim.better} of {claim.compared} {'held-out folds' if claim.over == 'folds' else 'rows'}"
    if claim.change == 0 and claim.half == 0:
        return f"{unsure}: both choose alike wherever they are compared, so the loss on unseen rows does not change"
    if claim.half == 0:
        return f"{unsure}: all differences are the same, {claim.change:+.3g}, which leaves no interval to judge by"
    if low > 0 or high < 0:
        gained = high < 0
        ends = sorted((abs(low), abs(high)))
        size, interval = _size(abs(claim.change), claim), f"{_span(ends[0], ends[1], claim)}"
        return (
            f"{helps if gained else harms}: the loss on unseen rows {'falls' if gained else 'rises'} by {size} "
            f"({100 * claim.level:g} % interval {interval}; {_means(claim, gained=gained)}), {count}"
        )
    least = -math.expm1(-claim.half) if claim.relative else claim.half
    interval = f"{100 * claim.level:g} % interval; {_plain(claim.before)} → {_plain(claim.after)}"
    return (
        f"{unsure}: the loss on unseen rows changes by between {_signed(low, claim)} and {_signed(high, claim)} "
        f"({interval}), {count}; a gain below about {_size(least, claim, rough=True)} cannot be told from none with "
        "these rows"
    )


def nothing_learnt(loss: float, null: float | None, *, rows: str) -> str:
    """A sentence where the loss on the ``rows`` is no better than that of the best constant output; "" elsewhere."""
    if null is None or loss < null - 1e-3 * abs(null):
        return ""
    return f"nothing was learnt: the {rows} loss is {loss:.4g}, that of the best constant output {null:.4g}"


def worse_than_constant(before: float | None, null: float | None) -> str:
    """A clause where without the choice the loss is above that of the best constant output; "" elsewhere."""
    if before is None or null is None or before <= null + 1e-3 * abs(null):
        return ""
    return f"; without it the model is worse than the best constant output, whose loss is {_plain(null)}"


def percent(share: float, *, rough: bool = False) -> str:
    """A share as a percentage, without the sign for it: two digits below 10, and never 100 for what is less.

    >>> percent(0.8461), percent(0.0123), percent(0.99996)
    ('85', '1.2', '99.996')
    """
    value = 100 * share
    if value >= 1000:
        return f"{value:.2g}" if value >= 1e5 else f"{value:.0f}"
    if value < 9.5:
        return f"{value:.1g}" if rough else f"{value:.2g}"
    digits = 0
    while 99 < value < 100 and float(f"{value:.{digits}f}") == 100:
        digits += 1
    return f"{value:.{digits}f}"


def _means(claim: Claim, *, gained: bool) -> str:
    said = f"{_plain(claim.before)} → {_plain(claim.after)}"
    if (claim.after < claim.before) == gained:
        return said
    return f"the plain mean over them, which a few decide, goes the other way: {said}"


def _plain(value: float) -> str:
    """Three digits, without an exponent where a reader needs none: 3,110 and not 3.11e+03."""
    said = f"{value:.3g}"
    return f"{float(said):,.0f}" if 1000 <= abs(value) < 1e9 else said


def _size(change: float, claim: Claim, *, rough: bool = False) -> str:
    return f"{percent(change, rough=rough)} %" if claim.relative else f"{change:.{1 if rough else 3}g}"


def _span(low: float, high: float, claim: Claim) -> str:
    return f"{percent(low)} to {percent(high)} %" if claim.relative else f"{low:.3g} to {high:.3g}"


def _signed(change: float, claim: Claim) -> str:
    sign = "−" if change < 0 else "+"
    return f"{sign}{_size(abs(change), claim)}"
