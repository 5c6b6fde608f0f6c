"""Where strengths and losses stand: the axes that all pictures of a report share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchshrink.report.view import Part, Point

Spec = dict[str, Any]
DECADE = (
    "format(pow(10, datum.value), datum.value != floor(datum.value) ? '.2~g' : "
    "datum.value > 6 || datum.value < -5 ? '.0e' : datum.value < 0 ? '~f' : ',.0f')"
)
"""The strength at a place of the axis, as Vega writes it."""


@dataclass(frozen=True)
class StrengthAxis:
    """Decades of strength, the same in every picture, with a place of its own for strength 0 at the left.

    Args:
        zero: where strength 0 stands, in decades.
        low, high: the first and the last decade's place that is shown.
    """

    zero: float
    low: float
    high: float

    @classmethod
    def of(cls, parts: Sequence[Part]) -> StrengthAxis:
        """For all strengths of all parts."""
        positive = [point.strength for part in parts for point in part.points if point.strength > 0]
        least, most = (math.log10(min(positive)), math.log10(max(positive))) if positive else (0.0, 0.0)
        step = max(0.09 * (most - least), 0.25)
        return cls(least - step, least - 1.5 * step, most + 0.4 * step)

    def place(self, strength: float) -> float:
        """In decades."""
        return round(math.log10(strength), 5) if strength > 0 else round(self.zero, 5)

    @property
    def x(self) -> Spec:
        """The encoding of the field ``x``."""
        first, last = math.ceil(self.zero + 0.01), math.floor(self.high)
        step = max(1, math.ceil((last - first + 1) / 7))
        decades: list[float] = [*range(first, last + 1, step)]
        if len(decades) < 2:  # less than a decade: the ends
            decades = [round(self.zero + (self.high - self.zero) * part, 3) for part in (0.35, 0.9)]
        label = f"datum.value < {self.zero + 0.001:.5f} ? '0' : {DECADE}"
        return {
            "field": "x",
            "type": "quantitative",
            "title": "strength",
            "scale": {"domain": [self.low, self.high], "nice": False, "zero": False},
            "axis": {"values": [self.zero, *decades], "labelExpr": label, "grid": False, "labelFlush": False},
        }

    @property
    def zero_band(self) -> Spec:
        """A layer that sets strength 0 apart."""
        edge = self.zero + (self.zero - self.low)
        return {
            "data": {"values": [{"x": self.low, "end": edge}]},
            "mark": {"type": "rect", "color": "var(--band)"},
            "encoding": {"x": self.x, "x2": {"field": "end"}},
        }


def loss_domain(parts: Sequence[Part]) -> tuple[list[float], bool]:
    """The losses that are shown, and whether on a logarithmic axis: where they span more than a factor of 3.

    From under the lowest to over what the least strengths and the best constant output reach: a training that ended far
    above must not flatten all the rest.
    """
    usual = [each.validation_loss for part in parts for each in (part.best, part.points[0]) if not each.diverged]
    low, high, logarithmic = loss_span(parts, usual)
    if logarithmic:
        return [low / 1.15, high * 1.1], True
    margin = 0.05 * (high - low or abs(high) or 1.0)
    return [low - margin, high + margin], False


def loss_span(parts: Sequence[Part], usual: Sequence[float]) -> tuple[float, float, bool]:
    """The same without a margin.

    Args:
        parts: at least one, each with a point that is sound.
        usual: losses above which little is shown, where that of the best constant output is known.
    """
    points = [point for part in parts for point in sound(part)]
    lowest = min(point.validation_loss for point in points)
    low = min(min(point.train_loss, point.validation_loss - point.validation_se) for point in points)
    high = max(point.validation_loss + point.validation_se for point in points)
    null = next((part.null_loss for part in parts if part.null_loss is not None), None)
    if null is not None:
        shown = max(null, *usual)
        high = min(high, 1.5 * shown) if 0 < shown < math.inf else high
        high = max(high, null)
    if lowest > 0 and high / lowest > 3:
        return max(low, lowest / 30), high, True
    return low, high, False


def sound(part: Part) -> list[Point]:
    """The points that did not diverge."""
    return [point for point in part.points if not point.diverged]


def y_axis(field: str, domain: Sequence[float], logarithmic: bool) -> Spec:
    """The encoding of a field that shows this domain and no more."""
    kind = {"type": "log"} if logarithmic else {"zero": False}
    ticks = {"axis": {"values": _ticks(*domain), "format": ".2~r"}} if logarithmic else {}
    scale = {"domain": list(domain), "nice": False} | kind
    return {"field": field, "type": "quantitative", "title": None, "scale": scale} | ticks


def free_axis(field: str, values: Sequence[float]) -> Spec:
    """The same for a domain that holds these values: logarithmic where they span more than a factor of 5."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low > 0 and high / low > 5:
        return y_axis(field, (low / 1.1, high * 1.1), True)
    margin = 0.06 * (high - low or abs(high) or 1.0)
    return y_axis(field, (low - margin, high + margin), False)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: 1, 2 and 5 in each decade, or decades alone where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
