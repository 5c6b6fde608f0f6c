"""The one picture of a path: losses and nonzero weights against strength.

Drawn through matplotlib's object interface on the Agg canvas: no display, no pyplot, no global state.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

from torchshrink.report.view import Part, Point, View
from torchshrink.support.optional import needed

with needed("a picture of a path"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

# Okabe and Ito's colours, which people with any colour vision tell apart; the lines differ in dashes as well.
TRAIN, VALIDATION, BEST, ONE_SE, NULL = "#0072B2", "#D55E00", "#000000", "#009E73", "#767676"
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def draw(view: View) -> Figure:
    """Losses with the validation's ± 1 SE band, and the nonzero weights below; one column per penalty.

    Strength 0 has its own tick at the left of the logarithmic axis. Points that diverged are left out.
    """
    results = view.parts
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.8 + 5.2 * len(results), 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, len(results), sharey="row", squeeze=False, height_ratios=(2, 1))
        for column, each in enumerate(results):
            upper, lower = axes[0, column], axes[1, column]
            _column(upper, lower, each)
            upper.tick_params(labelbottom=False)
            if column == 0:
                upper.set_ylabel("mean loss, without the penalty")
                lower.set_ylabel("nonzero weights")
            lower.set_xlabel("strength")
        _limits(axes[0, 0], results)
        lower_top = max(point.nonzero for each in results for point in _sound(each))
        axes[1, 0].set_ylim(0, 1.08 * max(lower_top, 1))
        axes[1, 0].yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6 if len(results) > 1 else 3)
    return figure


def png(view: View, *, dpi: int = 150) -> bytes:
    """The picture as PNG; the same result gives the same bytes."""
    buffer = io.BytesIO()
    figure = draw(view)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A penalty's name may have letters that the font lacks: there stands a box, and the page has the name.
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _sound(result: Part) -> list[Point]:
    return [point for point in result.points if not point.diverged]


def _column(upper: Axes, lower: Axes, result: Part) -> None:
    points = _sound(result)
    place = _Axis([point.strength for point in result.points])
    x = [place(point.strength) for point in points]
    train, validation = ([getattr(p, name) for p in points] for name in ("train_loss", "validation_loss"))
    band = [[p.validation_loss + sign * p.validation_se for p in points] for sign in (-1, 1)]
    upper.fill_between(x, band[0], band[1], color=VALIDATION, alpha=0.2, linewidth=0, label="± 1 standard error")
    upper.plot(x, train, color=TRAIN, linestyle="--", marker="o", markersize=3, label="training")
    upper.plot(x, validation, color=VALIDATION, marker="o", markersize=3.5, label="validation")
    if result.null_loss is not None:
        upper.axhline(result.null_loss, color=NULL, linestyle=":", linewidth=1.2, label="best constant output")
    lower.plot(x, [p.nonzero for p in points], color="#333333", marker="o", markersize=3, drawstyle="default")
    marks = ((result.best, BEST, "-", "*", 130, "best"), (result.one_se, ONE_SE, "-.", "D", 38, "one SE"))
    for point, colour, dashes, shape, size, name in marks:
        at = place(point.strength)
        for axis, y in ((upper, point.validation_loss), (lower, point.nonzero)):
            axis.axvline(at, color=colour, linestyle=dashes, linewidth=1, alpha=0.55)
            label = name if axis is upper else None
            axis.scatter([at], [y], s=size, marker=shape, color=colour, zorder=5, label=label)
    for axis in (upper, lower):
        place.dress(axis)
    name = result.penalty.encode(errors="backslashreplace").decode()  # half a surrogate pair is no text
    upper.set_title(
        f"{name}: best {_short(result.best.strength)}, one SE {_short(result.one_se.strength)}",
        fontsize=10.5,
        parse_math=False,  # a "$" in it is one
    )


class _Axis:
    """Where strengths stand: on a logarithmic axis, with 0 one step to the left of the least other."""

    def __init__(self, strengths: Sequence[float]) -> None:
        self._positive = [strength for strength in strengths if strength > 0]
        self._least, self._most = (min(self._positive), max(self._positive)) if self._positive else (1.0, 1.0)
        decades = math.log10(self._most / self._least)
        self._step = max(0.1 * decades, 0.3)  # in decades

    def __call__(self, strength: float) -> float:
        return strength if strength > 0 else self._least / 10**self._step

    def dress(self, axis: Axes) -> None:
        """Scale, limits and ticks."""
        zero = self(0.0)
        axis.set_xscale("log")
        axis.set_xlim(zero / 10 ** (0.4 * self._step), self._most * 10 ** (0.4 * self._step))
        axis.axvspan(zero / 10 ** (0.4 * self._step), zero * 10 ** (0.5 * self._step), color="#f3f3f3", zorder=0)
        if not self._positive:
            axis.set_xticks([zero], ["0"])
            axis.xaxis.set_minor_locator(NullLocator())
            return
        ticks = [t for t in LogLocator().tick_values(self._least, self._most) if self._least <= t <= self._most * 1.001]
        if len(ticks) < 2:  # less than a decade: name the strengths' ends
            ticks = sorted({self._least, self._most})
        axis.set_xticks([zero, *ticks], ["0", *map(_short, ticks)])
        decades = range(math.floor(math.log10(self._least)), math.ceil(math.log10(self._most)) + 1)
        minor = (digit * 10.0**decade for decade in decades for digit in range(2, 10))
        axis.xaxis.set_minor_locator(FixedLocator([each for each in minor if self._least <= each <= self._most]))
        axis.xaxis.set_minor_formatter(NullFormatter())


def _limits(axis: Axes, results: Sequence[Part]) -> None:
    """From just under the lowest loss to just above the null model's or what the least strengths reach.

    Logarithmic where the validation loss spans more than a factor of 3, or its valley would be flat.
    """
    points = [point for each in results for point in _sound(each)]
    lowest = min(point.validation_loss for point in points)
    low = min(min(p.train_loss, p.validation_loss - p.validation_se) for p in points)
    high = max(p.validation_loss + p.validation_se for p in points)
    null = next((each.null_loss for each in results if each.null_loss is not None), None)
    if null is not None:
        # A training that ended far above the best constant must not flatten all the rest.
        shown = max(null, *(point.validation_loss for each in results for point in (each.best, each.points[0])))
        high = min(high, 1.5 * shown) if 0 < shown < math.inf else high
        high = max(high, null)
    if lowest > 0 and high / lowest > 3:
        axis.set_yscale("log")
        axis.set_ylim(max(low, lowest / 30) / 1.3, high * 1.15)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: _short(loss)))
        axis.yaxis.set_minor_locator(NullLocator())
        return
    margin = 0.05 * (high - low or 1.0)
    axis.set_ylim(low - margin, high + margin)


def _short(strength: float) -> str:
    return f"{strength:.3g}"
