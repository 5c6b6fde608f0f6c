"""The pictures of inputs: which one leaves when, and what is still used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from torchshrink.report.axes import Spec, StrengthAxis
from torchshrink.report.figure import (
    Figure,
    Table,
    part_weights,
    rounded,
    slider_rule,
    spec_of,
    start_of,
    stations,
)
from torchshrink.report.image_figure import image_figure, image_shape
from torchshrink.report.numbers import short, whole
from torchshrink.report.view import Part, View, Weights
from torchshrink.report.words import input_names, leaving, penalty_name

MOST_LINES = 24  # inputs in a picture
MOST_LABELS = 7
FAR = 3.0  # times what all other strengths have: then strength 0 does not decide the height of the picture


def _array(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.asarray(rows, dtype=float)


def _largest(part: Part) -> list[int]:
    """The inputs to draw, the last to leave first; of equals, the largest."""
    weights = part_weights(part)
    size = np.nan_to_num(np.abs(_array(weights.inputs)))
    used = np.asarray(weights.used) > 0
    stays = np.where(used.any(0), used.shape[0] - 1 - used[::-1].argmax(0), -1)
    best = next(k for k, point in enumerate(part.points) if point is part.best)
    order = sorted(range(size.shape[1]), key=lambda at: (-stays[at], -size[best, at], -size[0, at]))
    return order[:MOST_LINES]


def _left_out(part: Part, shown: int, what: str) -> str:
    total = part_weights(part).total
    return (
        f" The {shown} that stay longest are drawn; {total - shown:,} more {what} are left out."
        if total > shown
        else ""
    )


def _what(weights: Weights) -> tuple[str, str]:
    """What stands on the axis, and what it is of."""
    if weights.kind == "coefficients":
        return "coefficient", "inputs"
    if weights.kind == "units":
        return "norm of a unit's weights", "units"
    return "norm of an input's weights", "inputs"


def inputs_figure(view: View, axis: StrengthAxis) -> Figure | None:
    """The path of weights."""
    if part_weights(view.parts[view.best]).total < 2:
        return None
    values: list[Spec] = []
    labels: list[Spec] = []
    for n, part in enumerate(view.parts):
        weights, names = part_weights(part), input_names(view, part)
        x = [axis.place(point.strength) for point in part.points]
        chosen = _largest(part)
        start = min(_begins(view), len(x) - 1)
        first = sorted(chosen, key=lambda at: -abs(weights.inputs[start][at]))[:MOST_LABELS]
        for rank, at in enumerate(chosen):
            hue = first.index(at) if at in first else -1
            line = [rounded(row[at]) for row in weights.inputs]
            values.append(
                {"part": n, "name": names[at], "hue": hue, "rank": rank, "x": x, "v": line, "k": list(range(len(x)))}
            )
        labels += _labels(n, [(names[at], weights.inputs[start][at]) for at in first], x[start], _reach(view))
    what, of = _what(part_weights(view.parts[view.best]))
    x_now = axis.x
    reach = _reach(view)
    y = {"field": "v", "type": "quantitative", "title": None, "scale": {"domain": reach, "nice": False}}
    flat = {"flatten": ["x", "v", "k"]}
    mine = {"filter": "datum.part == part"}
    tint = {
        "field": "hue",
        "type": "nominal",
        "legend": None,
        "scale": {
            "domain": list(range(-1, MOST_LABELS)),
            "range": ["var(--faint)", *[f"var(--c{n % 7})" for n in range(MOST_LABELS)]],
        },
    }
    data = {"values": values}
    layers = [
        axis.zero_band,
        {
            "data": {"values": [{"v": 0}]},
            "mark": {"type": "rule", "color": "var(--ink-2)", "strokeWidth": 1},
            "encoding": {"y": y},
        },
        {
            "data": data,
            "transform": [mine, flat, {"filter": "isValid(datum.v)"}],
            "mark": {"type": "line", "strokeWidth": 1.75, "clip": True},
            "encoding": {"x": x_now, "y": y, "detail": {"field": "name"}, "color": tint, "tooltip": {"field": "name"}},
        },
        slider_rule(view, axis),
        {
            "data": data,
            "transform": [mine, flat, {"filter": "datum.k == at && isValid(datum.v)"}],
            "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1, "clip": True},
            "encoding": {
                "x": x_now,
                "y": y,
                "color": tint,
                "tooltip": [{"field": "name"}, {"field": "v", "format": ".3~g"}],
            },
        },
        {
            "data": {"values": labels},
            "transform": [mine],
            "mark": {
                "type": "text",
                "align": "left",
                "dx": 6,
                "fontSize": 11,
                "limit": 110,
                "fontWeight": 600,
                "stroke": "var(--paper)",
                "strokeWidth": 3,
                "strokeOpacity": 0.85,
            },
            "encoding": {"x": x_now, "y": y, "text": {"field": "name"}},
        },
        {
            "data": {"values": labels},
            "transform": [mine],
            "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, "limit": 110, "fontWeight": 600},
            "encoding": {"x": x_now, "y": y, "text": {"field": "name"}, "color": tint},
        },
    ]
    part = view.parts[view.best]
    gone = leaving(view, part)
    order = ", ".join(f"{each} at {short(strength)}" for each, strength in gone[:12])
    more = f", and {len(gone) - 12:,} more" if len(gone) > 12 else ""
    never = sum(1 for _ in input_names(view, part)) - len(gone)
    says = (
        f"The folds' mean at each strength{_unit(view)}; a line at 0 is not used any more.{_outside(view)}"
        + _left_out(part, len(_largest(part)), of)
    )
    if gone:
        says += f" With {penalty_name(part)} they leave in this order (no fold uses them from there on): {order}{more}."
    else:
        says += f" {penalty_name(part)} makes none of them exactly 0."
    alt = f"{what.capitalize()} of {len(_largest(part))} {of} against strength. " + (
        f"The first to leave are {', '.join(each for each, _ in gone[:5])}; {never} never leave."
        if gone
        else "None becomes exactly zero."
    )
    rows = [
        [
            input_names(view, part)[at],
            *(short(part_weights(part).inputs[k][at]) for k in stations(part)),
            _leaves(gone, input_names(view, part)[at]),
        ]
        for at in _largest(part)
    ]
    heads = [of[:-1], *(f"at {short(part.points[k].strength)}" for k in stations(part)), "gone from"]
    return Figure(
        "fig-inputs",
        f"Path of weights: {what} by strength",
        says,
        alt,
        spec_of(layers, height=330, start=start_of(view)),
        (),
        Table(f"{what.capitalize()}, {penalty_name(part)}", heads, rows),
    )


def _unit(view: View) -> str:
    """In what the first layer's weights are measured, where that can be said."""
    kind = part_weights(view.parts[view.best]).kind
    standardised = "standardised" in str(view.parts[view.best].settings.get("loss", ""))
    return ", per standard deviation of input and target" if kind == "coefficients" and standardised else ""


def _leaves(gone: Sequence[tuple[str, float]], which: str) -> str:
    return next((short(strength) for each, strength in gone if each == which), "stays")


def _extent(view: View, *, begin: int) -> tuple[float, float]:
    """The least and the largest of what is kept from the strength of this number on, and 0."""
    every = [np.nan_to_num(_array(part_weights(part).inputs)[begin:]).ravel() for part in view.parts]
    whole_range = np.concatenate([*every, np.zeros(1)])
    return float(whole_range.min()), float(whole_range.max())


def _begins(view: View) -> int:
    """The strength from which on the picture shows everything: 1 where at strength 0 weights are far larger."""
    (low, high), (least, most) = _extent(view, begin=0), _extent(view, begin=1)
    return int(0 < FAR * (most - least) < high - low)


def _reach(view: View) -> list[float]:
    low, high = _extent(view, begin=_begins(view))
    margin = 0.04 * (high - low or 1.0)
    return [low - (margin if low < 0 else margin / 2), high + margin]


def _outside(view: View) -> str:
    """That lines leave the picture at strength 0, if they do."""
    low, high = _extent(view, begin=0)
    return f" At strength 0 they go up to {short(max(high, -low))}, outside of this picture." if _begins(view) else ""


def _labels(number: int, ends: Sequence[tuple[str, float]], x: float, reach: Sequence[float]) -> list[Spec]:
    """Where the names stand: at their lines' beginnings, but no nearer to one another than their letters are high."""
    least = 14 / 300 * (reach[1] - reach[0])
    found: list[Spec] = []
    last = -math.inf
    for hue, (each, value) in sorted(enumerate(ends), key=lambda pair: pair[1][1]):
        last = max(value, last + least)
        found.append({"part": number, "name": each, "x": x, "v": last, "hue": hue})
    over = found[-1]["v"] - reach[1] if found else 0.0
    return [each | {"v": rounded(each["v"] - max(over, 0.0))} for each in found]


def _bars(view: View) -> Figure | None:
    """What each input has at the slider, as bars."""
    if part_weights(view.parts[view.best]).total < 2:
        return None
    values: list[Spec] = []
    height = 0
    for n, part in enumerate(view.parts):
        weights, names, chosen = part_weights(part), input_names(view, part), _largest(part)
        height = max(height, len(chosen))
        for at in chosen:
            line = [rounded(row[at]) for row in weights.inputs]
            values.append(
                {
                    "part": n,
                    "name": names[at],
                    "v": line,
                    "used": [row[at] for row in weights.used],
                    "k": list(range(len(line))),
                }
            )
    what, of = _what(part_weights(view.parts[view.best]))
    reach = _reach(view)
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 130, "domain": False, "ticks": False, "labelFontSize": 12, "grid": False},
        "scale": {"paddingInner": 0.35},
    }
    x = {
        "field": "v",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": reach, "nice": False, "clamp": True},
        "axis": {"tickCount": 5},
    }
    keep = [
        {"filter": "datum.part == part"},
        {"flatten": ["v", "used", "k"]},
        {"filter": "datum.k == at"},
        {"calculate": "isValid(datum.v) ? datum.v : 0", "as": "v"},
    ]
    layers = [
        {
            "data": {"values": values},
            "transform": keep,
            "mark": {"type": "bar", "cornerRadiusEnd": 2},
            "encoding": {
                "y": y,
                "x": x,
                "color": {"condition": {"test": "datum.v < 0", "value": "var(--c1)"}, "value": "var(--c0)"},
                "tooltip": [{"field": "name"}, {"field": "v", "format": ".3~g"}],
            },
        },
        {
            "data": {"values": values},
            "transform": [*keep, {"filter": "datum.used == 0"}],
            "mark": {
                "type": "point",
                "shape": "stroke",
                "angle": 90,
                "size": 90,
                "strokeWidth": 2,
                "color": "var(--ink-2)",
            },
            "encoding": {"y": y, "x": x},
        },
    ]
    part = view.parts[view.best]
    says = (
        f"The {what} of each of the {of} where the slider stands; a grey tick is an exact 0 in every fold."
        + _left_out(part, min(MOST_LINES, part_weights(part).total), of)
    )
    kept = part_weights(part).reading[start_of(view)[1]]
    return Figure(
        "fig-now",
        f"{of.capitalize()} still used",
        says,
        f"{whole(kept)} of {part_weights(part).total:,} {of} have a weight at the strength chosen. Their numbers "
        "are in the table of the path of weights.",
        spec_of(layers, height=max(60, 21 * height), start=start_of(view)),
    )


def now_figure(view: View) -> Figure | None:
    """What each input has at the slider: a heat map of pixels, else bars."""
    shape = image_shape(view)
    return _bars(view) if shape is None else image_figure(view, shape)
