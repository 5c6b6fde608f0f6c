"""The pictures of layers: what is left in each, and how large its weights are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from torchshrink.report.axes import DECADE, Spec
from torchshrink.report.figure import Figure, Table, at_slider, part_weights, spec_of, start_of, stations
from torchshrink.report.inert import name
from torchshrink.report.numbers import short, whole
from torchshrink.report.view import View, Weights
from torchshrink.report.words import penalty_name

MOST_LAYERS = 6  # histograms
MOST_BARS = 16  # layers


def layers_figure(view: View) -> Figure:
    """What share of each layer's weights is left at the slider."""
    values: list[Spec] = []
    drawn = _shown_layers(part_weights(view.parts[view.best]), MOST_BARS)
    for n, part in enumerate(view.parts):
        weights = part_weights(part)
        for at in drawn:
            layer, _ = weights.layers[at]
            left = [round(_share_left(row[at]), 4) for row in weights.counts]
            said = [_layer_words(weights, k, at) for k in range(len(left))]
            values.append({"part": n, "name": name(layer, 40), "left": left, "said": said, "k": list(range(len(left)))})
    keep = [{"filter": "datum.part == part"}, {"flatten": ["left", "said", "k"]}, {"filter": "datum.k == at"}]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 130, "domain": False, "ticks": False, "grid": False, "labelFontSize": 12},
        "scale": {"paddingInner": 0.62, "paddingOuter": 0.45},
    }
    x = {
        "field": "left",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "tickCount": 3},
    }
    layers = [
        {
            "data": {"values": values},
            "transform": keep,
            "mark": {"type": "bar", "color": "var(--band)"},
            "encoding": {"y": y, "x": {"datum": 0, "type": "quantitative"}, "x2": {"datum": 1}},
        },
        {
            "data": {"values": values},
            "transform": keep,
            "mark": {"type": "bar", "color": "var(--c2)", "cornerRadiusEnd": 2},
            "encoding": {"y": y, "x": x},
        },
        {
            "data": {"values": values},
            "transform": keep,
            "mark": {
                "type": "text",
                "align": "left",
                "baseline": "bottom",
                "dy": -9,
                "fontSize": 11,
                "color": "var(--ink-2)",
            },
            "encoding": {"y": y, "x": {"value": 0}, "text": {"field": "said"}},
        },
    ]
    part, at = view.parts[view.best], start_of(view)[1]
    weights = part_weights(part)
    rows = [
        [name(weights.layers[layer][0], 40), *(_layer_words(weights, k, layer) for k in stations(part))]
        for layer in drawn
    ]
    more = (
        f" {len(weights.layers) - len(drawn)} smaller layers are left out." if len(weights.layers) > len(drawn) else ""
    )
    return Figure(
        "fig-layers",
        "What is left, layer by layer",
        f"The share of each layer's weights that is not exactly 0 where the slider stands, over the folds.{more}",
        "; ".join(f"{name(weights.layers[layer][0], 40)}: {_layer_words(weights, at, layer)}" for layer in drawn[:8])
        + ".",
        spec_of(
            layers,
            height=40 * len(drawn) + 10,
            start=start_of(view),
            padding={"left": 2, "right": 10, "top": 12, "bottom": 2},
        ),
        (),
        Table(
            f"Nonzero weights by layer, {penalty_name(part)}",
            ["layer", *(f"at {short(part.points[k].strength)}" for k in stations(part))],
            rows,
        ),
    )


def size_figures(view: View) -> Iterator[Figure]:
    """How large the weights of each layer are where the slider stands."""
    drawn = _shown_layers(part_weights(view.parts[view.best]), MOST_LAYERS)
    start = start_of(view)
    for at in drawn:
        layer, shape = part_weights(view.parts[view.best]).layers[at]
        every = [np.asarray([row[at] for row in part_weights(part).counts]) for part in view.parts]
        seen = np.flatnonzero(sum(each[:, 1:].sum(0) for each in every))
        first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, 1)
        weights = part_weights(view.parts[view.best])
        low, per = weights.lowest, weights.per_decade
        zero = low + (first - 3) / per
        edges = [round(low + (b + first) / per, 4) for b in range(last - first + 1)]
        values: list[Spec] = []
        most = 0.0
        for n, table in enumerate(every):
            for k, row in enumerate(table):
                total = max(int(row.sum()), 1)
                shares = [round(float(each) / total, 4) for each in (row[0], *row[1 + first : 2 + last])]
                most = max(most, *shares[1:]) if len(shares) > 1 else most
                values.append({"part": n, "k": k, "share": shares, "x": [zero, *edges]})
        end = last + 1 - first
        keep = [at_slider(), {"flatten": ["x", "share"]}, {"calculate": f"datum.x + {0.9 / per}", "as": "end"}]
        label = f"datum.value < {zero + 0.6 / per} ? '0' : {DECADE}"
        decades = list(range(math.ceil(edges[0]), math.ceil(edges[-1] + 1 / per) + 1))
        step = max(1, math.ceil(len(decades) / 6))
        x = {
            "field": "x",
            "type": "quantitative",
            "title": "size of a weight",
            "scale": {"domain": [zero - 0.5 / per, low + (first + end + 0.5) / per], "nice": False, "zero": False},
            "axis": {"values": [zero + 0.45 / per, *decades[::step]], "labelExpr": label, "grid": False},
        }
        y = {
            "field": "share",
            "type": "quantitative",
            "title": None,
            "axis": {"format": ".0%", "tickCount": 3},
            "scale": {"domain": [0, 1], "type": "sqrt"},
        }
        layers = [
            {
                "data": {"values": values},
                "transform": [*keep, {"calculate": f"datum.x < {zero + 0.1}", "as": "zero"}],
                "mark": {"type": "bar"},
                "encoding": {
                    "x": x,
                    "x2": {"field": "end"},
                    "y": y,
                    "y2": {"datum": 0},
                    "color": {"condition": {"test": "datum.zero", "value": "var(--c1)"}, "value": "var(--c2)"},
                },
            }
        ]
        counts = weights.counts[start[1]][at]
        yield Figure(
            f"fig-sizes-{at}",
            f"{name(layer, 40)}, {' × '.join(map(str, shape))}",
            "",
            f"Sizes of the weights of {name(layer, 40)}: {short(100 * (1 - _share_left(counts)), 3)} % are "
            "exactly 0 at the strength chosen.",
            spec_of(layers, height=150, start=start),
        )


def _shown_layers(weights: Weights, most: int) -> list[int]:
    size = [math.prod(shape) for _, shape in weights.layers]
    largest = sorted(range(len(size)), key=lambda at: -size[at])[:most]
    return sorted(largest)


def _share_left(counts: Sequence[int]) -> float:
    total = sum(counts)
    return 1 - counts[0] / total if total else 0.0


def _layer_words(weights: Weights, k: int, at: int) -> str:
    _, shape = weights.layers[at]
    total = math.prod(shape)
    said = f"{whole(total * _share_left(weights.counts[k][at]))} of {total:,} weights"
    if len(shape) > 1 and shape[0] > 1:
        said += f", {whole(weights.units[k][at])} of {shape[0]:,} units"
    return said
