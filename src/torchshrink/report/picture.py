"""The one picture of a path: losses against strength, with the nonzero weights along the top.

Drawn through matplotlib's object interface on the Agg canvas: no display, no pyplot, no global state.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

from torchshrink.errors import InputError
from torchshrink.report.axes import loss_span, sound
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
_COLOURS, _SHAPES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"), "osD^vP"  # of penalties
_DASHES = ("-", "--", "-.", ":")  # where there are more
_LOSS = "mean loss, without the penalty"
_COUNTS = 8  # along the top, at most
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def plot(view: View, axes: Axes | None = None) -> Axes:
    """The losses of one path, or the validation losses of several, in axes that are given or of a figure of their own.

    Raises:
        InputError: what is given is no axes.
    """
    if axes is None:
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            FigureCanvasAgg(figure)
            return _filled(figure.subplots(), view)
    if not isinstance(axes, Axes):
        raise InputError(f"ax: {type(axes).__name__} given, one matplotlib Axes expected, such as plt.subplots()[1]")
    return _filled(axes, view)


def draw(view: View) -> Figure:
    """A figure with the axes of each penalty, side by side, their losses on one scale."""
    results = view.parts
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.8 + 5.2 * len(results), 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for own, each in zip(axes, results, strict=True):
            _one(own, each)
            own.set_xlabel("strength")
        axes[0].set_ylabel(_LOSS)
        _limits(axes[0], results)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6 if len(results) > 1 else 3)
    return figure


def _filled(axes: Axes, view: View) -> Axes:
    if len(view.parts) == 1:
        _one(axes, view.parts[0])
    else:
        _together(axes, view.parts)
    axes.set_xlabel("strength")
    axes.set_ylabel(_LOSS)
    _limits(axes, view.parts)
    axes.legend(fontsize="small")
    return axes


def png(view: View, *, dpi: int = 150) -> bytes:
    """The picture as PNG; the same result gives the same bytes."""
    buffer = io.BytesIO()
    figure = draw(view)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A penalty's name may have letters that the font lacks: there stands a box, and the page has the name.
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _one(axes: Axes, result: Part) -> None:
    """One path: losses with the validation's ± 1 SE band, and the nonzero weights along the top.

    Strength 0 has its own tick at the left of the logarithmic axis. Points that diverged are left out.
    """
    points = sound(result)
    place = _Axis([point.strength for point in result.points])
    x = [place(point.strength) for point in points]
    train, validation = ([getattr(p, name) for p in points] for name in ("train_loss", "validation_loss"))
    _band(axes, x, points, VALIDATION, label="± 1 standard error")
    axes.plot(x, train, color=TRAIN, linestyle="--", marker="o", markersize=3, label="training")
    axes.plot(x, validation, color=VALIDATION, marker="o", markersize=3.5, label="validation")
    if result.null_loss is not None:
        axes.axhline(result.null_loss, color=NULL, linestyle=":", linewidth=1.2, label="best constant output")
    marks = ((result.best, BEST, "-", "*", 130, "best"), (result.one_se, ONE_SE, "-.", "D", 38, "one SE"))
    for point, colour, dashes, shape, size, name in marks:
        at = place(point.strength)
        axes.axvline(at, color=colour, linestyle=dashes, linewidth=1, alpha=0.55)
        axes.scatter([at], [point.validation_loss], s=size, marker=shape, color=colour, zorder=5, label=name)
    place.dress(axes)
    place.count(axes, points)
    axes.set_title(
        f"{_name(result)}: best {_short(result.best.strength)}, one SE {_short(result.one_se.strength)}",
        fontsize=10.5,
        parse_math=False,  # a "$" in it is one
    )


def _together(axes: Axes, results: Sequence[Part]) -> None:
    """The validation losses of several paths, each with its band and its best point."""
    place = _Axis([point.strength for each in results for point in each.points])
    for number, result in enumerate(results):
        colour, shape, points = _COLOURS[number % len(_COLOURS)], _SHAPES[number % len(_SHAPES)], sound(result)
        x = [place(point.strength) for point in points]
        _band(axes, x, points, colour)
        losses = [point.validation_loss for point in points]
        name = _name(result).replace("$", r"\$").lstrip("_")  # neither mathematics nor what a legend passes over
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        axes.plot(x, losses, color=colour, marker=shape, markersize=3.5, linestyle=dashes, label=name)
        axes.scatter(
            [place(result.best.strength)], [result.best.validation_loss], s=130, marker="*", color=colour, zorder=5
        )
    null = next((each.null_loss for each in results if each.null_loss is not None), None)
    if null is not None:
        axes.axhline(null, color=NULL, linestyle=":", linewidth=1.2, label="best constant output")
    place.dress(axes)
    axes.set_title("validation loss; the best of each is starred", fontsize=10.5)


def _band(axes: Axes, x: Sequence[float], points: Sequence[Point], colour: str, label: str | None = None) -> None:
    low, high = ([p.validation_loss + sign * p.validation_se for p in points] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, label=label)


def _name(result: Part) -> str:
    return result.penalty.encode(errors="backslashreplace").decode()  # half a surrogate pair is no text


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

    def count(self, axes: Axes, points: Sequence[Point]) -> None:
        """How many weights are nonzero, along the top: at both ends, and between as often as there is room."""
        left, right = (math.log10(limit) for limit in axes.get_xlim())
        shown: list[Point] = []
        last = points[-1:]
        for point in [*last, *points[:-1]]:
            place = math.log10(self(point.strength))
            if all(abs(place - math.log10(self(p.strength))) >= (right - left) / (_COUNTS + 1) for p in shown):
                shown.append(point)
        top = axes.secondary_xaxis("top")
        top.set_xticks([self(p.strength) for p in shown], [f"{p.nonzero:,.0f}" for p in shown])
        top.xaxis.set_minor_locator(NullLocator())
        top.set_xlabel("nonzero weights", fontsize="small")
        top.tick_params(labelsize="small", length=2)


def _limits(axis: Axes, results: Sequence[Part]) -> None:
    """From just under the lowest loss to just above the null model's or what the least strengths reach.

    Logarithmic where the validation loss spans more than a factor of 3, or its valley would be flat.
    """
    low, high, logarithmic = loss_span(
        results, [point.validation_loss for each in results for point in (each.best, each.points[0])]
    )
    if logarithmic:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.3, high * 1.15)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: _short(loss)))
        axis.yaxis.set_minor_locator(NullLocator())
        return
    margin = 0.05 * (high - low or 1.0)
    axis.set_ylim(low - margin, high + margin)


def _short(strength: float) -> str:
    return f"{strength:.3g}"
