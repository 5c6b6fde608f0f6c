"""The pictures of a report in their places, with titles, legends, alternatives in words, and the slider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torchshrink.report import tables, words
from torchshrink.report.axes import StrengthAxis
from torchshrink.report.figure import Figure, start_of
from torchshrink.report.inert import text
from torchshrink.report.input_figures import inputs_figure, now_figure
from torchshrink.report.layer_figures import layers_figure, size_figures
from torchshrink.report.loss_figures import gap_figure, loss_figure
from torchshrink.report.training_figures import curve_figure, fold_figure
from torchshrink.report.view import View


@dataclass(frozen=True)
class Pictures:
    """All that can be drawn of a view.

    Args:
        wide: one under another.
        beside: two in a row, where there is room.
        layers: what is left of each layer.
        sizes: how large its weights are, a small picture each.
    """

    wide: Sequence[Figure]
    beside: Sequence[Figure]
    layers: Sequence[Figure]
    sizes: Sequence[Figure]

    @classmethod
    def of(cls, view: View) -> Pictures:
        """Those for which there are numbers."""
        axis = StrengthAxis.of(view.parts)
        kept = all(part.weights is not None for part in view.parts)
        inputs = inputs_figure(view, axis) if kept else None
        now = now_figure(view) if kept else None
        wide = [loss_figure(view, axis), gap_figure(view, axis), inputs]
        return cls(
            [each for each in wide if each is not None],
            [each for each in (now, fold_figure(view), curve_figure(view)) if each is not None],
            [layers_figure(view)] if kept else [],
            list(size_figures(view)) if kept else [],
        )

    @property
    def every(self) -> list[Figure]:
        """In their order."""
        return [*self.wide, *self.beside, *self.layers, *self.sizes]

    def html(self, view: View) -> Iterator[str]:
        """The places that the script draws in."""
        yield '<section aria-label="Pictures"><h2>What each strength does</h2>'
        yield from _slider(view)
        for each in self.wide:
            yield from _figure(each)
        yield '<div class="two">'
        for each in self.beside:
            yield from _figure(each)
        yield "</div>"
        if self.layers:
            yield "<h2>Layer by layer</h2>"
            for each in self.layers:
                yield from _figure(each)
            yield from self._sizes(view)
        yield "</section>"

    def _sizes(self, view: View) -> Iterator[str]:
        weights = view.parts[view.best].weights
        left_out = len(weights.layers) - len(self.sizes) if weights is not None else 0
        more = f" The {len(self.sizes)} largest layers are drawn; {left_out} more are left out." if left_out else ""
        yield '<h3 class="apart">How large the weights are</h3>'
        yield (
            '<p class="says">Where the slider stands, over the folds: the share of each layer\'s weights '
            "that is exactly 0 (the bar at the left), and of each size, on a logarithmic axis. Heights are drawn by "
            f"their square root.{more}</p>"
        )
        yield '<div class="small">'
        for each in self.sizes:
            yield from _figure(each)
        yield "</div>"


def _slider(view: View) -> Iterator[str]:
    part, at = start_of(view)
    yield '<div class="bar noprint-input">'
    if len(view.parts) > 1:
        yield "<fieldset><legend>Penalty</legend>"
        for n, each in enumerate(view.parts):
            checked = " checked" if n == part else ""
            yield (
                f'<label><input type="radio" name="part" value="{n}"{checked}> {text(words.penalty_name(each))}</label>'
            )
        yield "</fieldset>"
    last = len(view.parts[part].points) - 1
    yield '<label for="strength">Strength: move it, and all pictures follow</label>'
    yield f'<input type="range" id="strength" min="0" max="{last}" step="1" value="{at}">'
    yield (
        '<output id="said" for="strength" '
        f'aria-live="polite">{text(words.point_words(view.parts[part], at, len(view.parts) > 1))}</output>'
    )
    yield "</div>"


def _figure(figure: Figure) -> Iterator[str]:
    widest = f";max-width:{figure.widest}px" if figure.widest else ""
    yield f"<figure><h3>{text(figure.title)}</h3>"
    if figure.says:
        yield f'<p class="says">{text(figure.says)}</p>'
    if figure.legend:
        yield (
            "<ul "
            f'class="legend">{"".join(f"<li>{_swatch(style)}{text(each)}</li>" for style, each in figure.legend)}</ul>'
        )
    yield (
        f'<div class="chart" id="{figure.id}" role="img" aria-label="{text(figure.alt)}" '
        f'style="min-height:{figure.spec["height"]}px{widest}"></div>'
    )
    if figure.table:
        yield f"<details><summary>The numbers of this picture</summary>{tables.plain(figure.table)}</details>"
    yield "</figure>"


def _swatch(style: str) -> str:
    kind, _, colour = style.partition(":")
    shapes = {
        "line": f'<path d="M0 6h24" stroke="{colour}" stroke-width="2.5"/>',
        "dash": f'<path d="M0 6h24" stroke="{colour}" stroke-width="2" stroke-dasharray="5 4"/>',
        "dots": f'<path d="M0 6h24" stroke="{colour}" stroke-width="2" stroke-dasharray="1.5 4"/>',
        "circle": f'<circle cx="12" cy="6" r="5" fill="{colour}"/>',
        "diamond": f'<path d="M12 0l5 6-5 6-5-6z" fill="{colour}"/>',
    }
    return f'<svg width="24" height="12" aria-hidden="true">{shapes[kind]}</svg>'
