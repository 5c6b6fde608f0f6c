"""What the first layer reads of a picture whose pixels are its inputs: a heat map."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from torchshrink.report.axes import Spec
from torchshrink.report.figure import (
    Figure,
    at_slider,
    part_weights,
    spec_of,
    start_of,
)
from torchshrink.report.numbers import whole
from torchshrink.report.view import View

SIDE = 32  # of a heat map, in cells
_PIXEL = re.compile(r"pixel_(\d+)_(\d+)")


def image_shape(view: View) -> tuple[int, int] | None:
    """The height and width of the picture that a row is, if the first layer reads its pixels one by one."""
    weights = view.parts[view.best].weights
    assert weights is not None
    if weights.kind == "units" or len(weights.places) < weights.total:
        return None
    if len(weights.row) in (2, 3) and weights.total == math.prod(weights.row) and min(weights.row[-2:]) > 1:
        return weights.row[-2], weights.row[-1]
    found = [_PIXEL.fullmatch(each) for each in view.about.columns]
    if len(found) == weights.total and all(found):
        places = [(int(each[1]), int(each[2])) for each in found if each]
        height, width = places[-1][0] + 1, places[-1][1] + 1
        if places == [(i, j) for i in range(height) for j in range(width)]:
            return height, width
    return None


def image_figure(view: View, shape: tuple[int, int]) -> Figure:
    """A heat map of the norms of what reads each pixel."""
    height, width = shape
    pool = max(1, math.ceil(max(shape) / SIDE))
    top = max(float(np.nanmax(np.abs(np.asarray(part_weights(part).inputs, float)))) for part in view.parts) or 1.0
    values: list[Spec] = []
    for n, part in enumerate(view.parts):
        for k, row in enumerate(part_weights(part).inputs):
            cells = np.nan_to_num(np.abs(np.asarray(row, float))).reshape(-1, height, width).max(0)
            cells = _pooled(cells, pool)
            values.append(
                {
                    "part": n,
                    "k": k,
                    "cell": list(range(cells.size)),
                    "v": np.rint(100 * cells / top).astype(int).ravel().tolist(),
                }
            )
    down, across = _pooled(np.zeros(shape), pool).shape
    keep = [
        at_slider(),
        {"flatten": ["cell", "v"]},
        {"calculate": f"datum.cell % {across}", "as": "j"},
        {"calculate": f"floor(datum.cell / {across})", "as": "i"},
    ]

    def band(field: str, sort: str = "ascending") -> Spec:
        return {"field": field, "type": "ordinal", "axis": None, "sort": sort, "scale": {"padding": 0.04}}

    layers = [
        {
            "data": {"values": values},
            "transform": keep,
            "mark": {"type": "rect", "color": "var(--c0)", "stroke": "var(--grid)", "strokeWidth": 0.5},
            "encoding": {
                "x": band("j"),
                "y": band("i"),
                "fillOpacity": {
                    "field": "v",
                    "type": "quantitative",
                    "legend": None,
                    "scale": {"domain": [0, 100], "range": [0, 1]},
                },
            },
        }
    ]
    part, at = view.parts[view.best], start_of(view)[1]
    kept = part_weights(part).reading[at]
    high = min(320, 320 * down // max(across, 1)) if down <= across else 320
    return Figure(
        "fig-now",
        "Pixels still used",
        "How much the first layer reads of each pixel where the slider stands: the norm of its weights, "
        "from white (an exact 0 in every fold) "
        "to the largest at any strength.",
        f"{whole(kept)} of {part_weights(part).total:,} pixels have a weight at the strength chosen.",
        spec_of(layers, height=high, start=start_of(view)),
        widest=round(high * across / down),
    )


def _pooled(cells: NDArray[np.float64], pool: int) -> NDArray[np.float64]:
    if pool == 1:
        return cells
    down, across = -(-cells.shape[0] // pool), -(-cells.shape[1] // pool)
    wide = np.zeros((down * pool, across * pool))
    wide[: cells.shape[0], : cells.shape[1]] = cells
    pooled: NDArray[np.float64] = wide.reshape(down, pool, across, pool).max((1, 3))
    return pooled
