"""What a picture of a report is, and what all of them share: the slider, and how wide they are.

Each is a Vega-Lite specification with two signals, which the page's slider sets: ``part``, the number of the penalty,
and ``at``, the number of its strength. Colours are variables of the page's style. Names stand in data alone, and never
in an expression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torchshrink.report.axes import Spec, StrengthAxis
from torchshrink.report.view import Part, View, Weights
from torchshrink.report.words import chosen


@dataclass(frozen=True)
class Table:
    """The numbers of a picture."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A picture, and what stands beside it.

    Args:
        id: its place in the page.
        title: what it shows.
        says: how to read it, in a sentence or two.
        alt: what a person who does not see it is told.
        spec: for Vega-Lite.
        legend: pairs of a line's style and what it is.
        table: its numbers.
        widest: in pixels; 0: as wide as there is room.
    """

    id: str
    title: str
    says: str
    alt: str
    spec: Spec
    legend: Sequence[tuple[str, str]] = ()
    table: Table | None = None
    widest: int = 0


def colour(number: int) -> str:
    """Of a penalty."""
    return f"var(--c{number % 7})"


def spec_of(layers: Sequence[Spec], *, height: int, start: tuple[int, int], padding: Spec | None = None) -> Spec:
    """A picture as wide as its place, with the two signals at their first values."""
    part, at = start
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": padding or {"left": 2, "right": 6, "top": 4, "bottom": 2},
        "params": [{"name": "part", "value": part}, {"name": "at", "value": at}],
        "layer": list(layers),
    }


def at_slider(rest: str = "") -> Spec:
    """Keeps what is at the slider."""
    return {"filter": f"datum.part == part && datum.k == at{rest}"}


def start_of(view: View) -> tuple[int, int]:
    """Where the slider stands first: at what was chosen."""
    part, point = chosen(view)
    return view.best, list(part.points).index(point)


def slider_rule(view: View, axis: StrengthAxis) -> Spec:
    """A rule where the slider stands."""
    places = [
        {"part": n, "k": k, "x": axis.place(point.strength)}
        for n, part in enumerate(view.parts)
        for k, point in enumerate(part.points)
    ]
    return {
        "data": {"values": places},
        "transform": [at_slider()],
        "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1, "opacity": 0.5},
        "encoding": {"x": axis.x},
    }


def rounded(value: float, digits: int = 5) -> float | None:
    """A number for a picture's data: few digits, and nothing for what is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def stations(part: Part) -> list[int]:
    """Strength 0, the best and one_se, each once."""
    marked = [k for k, point in enumerate(part.points) if k == 0 or point is part.best or point is part.one_se]
    return sorted(set(marked))


def part_weights(part: Part) -> Weights:
    """What is kept of a part's weights, where that has been asked."""
    assert part.weights is not None
    return part.weights
