"""The pictures of losses against strength: training, held-out, their gap, and how many weights are left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torchshrink.report.axes import Spec, StrengthAxis, loss_domain, y_axis
from torchshrink.report.figure import Figure, at_slider, colour, rounded, slider_rule, spec_of, start_of
from torchshrink.report.numbers import short, whole
from torchshrink.report.view import View
from torchshrink.report.words import penalty_name

MOST_COUNTS = 7  # along the top


def loss_figure(view: View, axis: StrengthAxis) -> Figure:
    """Training and validation loss of all penalties, with bands, marks at best and one_se, and counts along the top."""
    domain, logarithmic = loss_domain(view.parts)
    several = len(view.parts) > 1
    values = [each for part in _rows(view, axis) for each in part]
    y = y_axis("loss", domain, logarithmic)
    tint = {"field": "part", "type": "nominal", "legend": None, "scale": _tints(view)}
    data = {"values": values}
    x = axis.x

    def line(name: str, **mark: Any) -> Spec:
        return {
            "data": data,
            "mark": {"type": "line", "clip": True, **mark},
            "encoding": {"x": x, "y": y | {"field": name}, "color": tint, "detail": {"field": "part"}},
        }

    marks = [each for each in values if each["best"] or each["one_se"]]
    layers = [
        axis.zero_band,
        *_null(view, y, x),
        {
            "data": data,
            "mark": {"type": "area", "opacity": 0.16, "clip": True},
            "encoding": {
                "x": x,
                "y": y | {"field": "low"},
                "y2": {"field": "high"},
                "color": tint,
                "detail": {"field": "part"},
            },
        },
        line("train", strokeDash=[5, 4], strokeWidth=1.5),
        line("loss", strokeWidth=2.25),
        {
            "data": {"values": marks},
            "mark": {"type": "point", "filled": True, "opacity": 1, "stroke": "var(--paper)", "strokeWidth": 1.5},
            "encoding": {
                "x": x,
                "y": y,
                "color": tint,
                "shape": {
                    "field": "shape",
                    "type": "nominal",
                    "legend": None,
                    "scale": {"domain": ["best", "one_se"], "range": ["circle", "diamond"]},
                },
                "size": {"value": 130},
                "tooltip": {"field": "said"},
            },
        },
        slider_rule(view, axis),
        _ring(data, x, y),
        *_counts(view, values, x),
    ]
    legend = []
    if several:
        legend += [(f"line:{colour(n)}", penalty_name(part)) for n, part in enumerate(view.parts)]
    ink = "var(--ink)" if several else colour(0)
    legend += [
        (f"line:{ink}", "held-out rows, ± 1 standard error"),
        (f"dash:{ink}", "training rows"),
        (f"circle:{ink}", "best"),
        (f"diamond:{ink}", "strongest within one standard error"),
    ]
    if view.parts[0].null_loss is not None:
        legend.append(("dots:var(--ink-2)", "best constant output"))
    part = view.parts[view.best]
    alt = (
        f"Loss against strength. For {penalty_name(part)} the loss on held-out rows is "
        f"{short(part.points[0].validation_loss)} "
        f"without penalty and least, {short(part.best.validation_loss)}, at strength {short(part.best.strength)}. "
        "All numbers are in the table of strengths."
    )
    return Figure(
        "fig-loss",
        "Loss against strength",
        "Mean loss without the penalty. Where the solid line falls below its height at strength 0, the "
        "penalty helps on "
        "rows that a model has not seen. The numbers along the top are the weights that are left.",
        alt,
        spec_of(
            layers,
            height=320,
            start=start_of(view),
            padding={"left": 2, "right": 6, "top": 8 + 15 * len(view.parts), "bottom": 2},
        ),
        legend,
    )


def gap_figure(view: View, axis: StrengthAxis) -> Figure:
    """Validation minus training loss."""
    values = [each for part in _rows(view, axis) for each in part]
    data, x = {"values": values}, axis.x
    domain, _ = loss_domain(view.parts)
    gaps = [each["gap"] for each in values]
    reach = domain[1] - domain[0]
    low, high = max(min([0.0, *gaps]), -reach), min(max([0.0, *gaps]), max(3 * reach, 1e-12))
    margin = 0.06 * (high - low or 1.0)
    y = y_axis("gap", [low - margin, high + margin], False)
    tint = {"field": "part", "type": "nominal", "legend": None, "scale": _tints(view)}
    layers = [
        axis.zero_band,
        {
            "data": {"values": [{"y": 0}]},
            "mark": {"type": "rule", "color": "var(--ink-2)", "strokeWidth": 1},
            "encoding": {"y": {"field": "y", "type": "quantitative"}},
        },
        {
            "data": data,
            "mark": {"type": "line", "strokeWidth": 2, "clip": True},
            "encoding": {"x": x, "y": y, "color": tint, "detail": {"field": "part"}},
        },
        slider_rule(view, axis),
        _ring(data, x, y),
    ]
    part = view.parts[view.best]
    legend = (
        [(f"line:{colour(n)}", penalty_name(each)) for n, each in enumerate(view.parts)] if len(view.parts) > 1 else []
    )
    return Figure(
        "fig-gap",
        "Gap: how much worse on unseen rows",
        "Loss on held-out rows minus loss on training rows: what is learnt by heart.",
        f"The gap between held-out and training loss against strength: {short(part.points[0].gap)} without penalty, "
        f"{short(part.best.gap)} at the best strength of {penalty_name(part)}.",
        spec_of(layers, height=170, start=start_of(view)),
        legend,
    )


def _rows(view: View, axis: StrengthAxis) -> Iterator[list[Spec]]:
    for n, part in enumerate(view.parts):
        yield [
            {
                "part": n,
                "k": k,
                "x": axis.place(point.strength),
                "train": rounded(point.train_loss),
                "loss": rounded(point.validation_loss),
                "low": rounded(point.validation_loss - point.validation_se),
                "high": rounded(point.validation_loss + point.validation_se),
                "gap": rounded(point.gap),
                "nonzero": whole(point.nonzero),
                "best": point is part.best,
                "one_se": point is part.one_se and point is not part.best,
                "shape": "best" if point is part.best else "one_se",
                "said": f"{penalty_name(part)} {short(point.strength)}: {short(point.validation_loss, 4)}",
            }
            for k, point in enumerate(part.points)
            if not point.diverged
        ]


def _tints(view: View) -> Spec:
    numbers = list(range(len(view.parts)))
    return {"domain": numbers, "range": [colour(number) for number in numbers]}


def _null(view: View, y: Spec, x: Spec) -> Iterator[Spec]:
    null = next((part.null_loss for part in view.parts if part.null_loss is not None), None)
    if null is not None:
        yield {
            "data": {"values": [{"null": rounded(null)}]},
            "mark": {"type": "rule", "color": "var(--ink-2)", "strokeDash": [1, 4], "strokeWidth": 1.5, "clip": True},
            "encoding": {"y": y | {"field": "null"}},
        }


def _ring(data: Spec, x: Spec, y: Spec) -> Spec:
    """A ring on the curve where the slider stands."""
    return {
        "data": data,
        "transform": [at_slider()],
        "mark": {
            "type": "point",
            "size": 220,
            "strokeWidth": 1.75,
            "stroke": "var(--ink)",
            "fill": None,
            "clip": True,
        },
        "encoding": {"x": x, "y": y},
    }


def _counts(view: View, values: Sequence[Spec], x: Spec) -> Iterator[Spec]:
    """How many weights are left, along the top: a line of numbers for each penalty."""
    for n in range(len(view.parts)):
        mine = [each for each in values if each["part"] == n]
        shown: list[Spec] = []
        last = -math.inf
        width = max((each["x"] for each in values), default=0.0) - min((each["x"] for each in values), default=0.0)
        for each in mine:
            if each["x"] - last >= width / MOST_COUNTS or last == -math.inf:
                shown.append({"x": each["x"], "n": each["nonzero"], "few": len(shown) % 2})
                last = each["x"]
        yield {
            "data": {"values": shown},
            "mark": {
                "type": "text",
                "color": colour(n) if len(view.parts) > 1 else "var(--ink-2)",
                "fontSize": 11,
                "baseline": "bottom",
            },
            "encoding": {
                "x": x,
                "y": {"value": -5 - 15 * (len(view.parts) - 1 - n)},
                "text": {"field": "n"},
                "opacity": {"condition": {"test": "width < 420 && datum.few == 1", "value": 0}, "value": 1},
            },
        }
