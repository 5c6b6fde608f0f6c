"""A path as a table and a few sentences: what ``print`` shows, a notebook, and the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torchshrink.paths.statistics.points import PathPoint, best_of
from torchshrink.support.tables import Column, Table, html_of_details, html_of_pairs, paired

if TYPE_CHECKING:
    from torchshrink.paths.result import PathResult

MOST_ROWS = 12  # strengths that a table picks by their place alone
WIDTH = 80  # of what is printed

Pairs = list[tuple[str, str]]


def path_table(result: PathResult, chosen: float | None = None) -> Table:
    """One row per strength, 0 first, with marks at those that matter.

    Of many strengths it shows the marked ones, the strongest, and some evenly spaced ones between them.

    Args:
        result: of one penalty.
        chosen: the strength that a model was refitted at.
    """
    points = result.points
    marked = {place: marks for place, point in enumerate(points) if (marks := _marks(result, point, chosen))}
    even = {round(k * (len(points) - 1) / (MOST_ROWS - 1)) for k in range(MOST_ROWS)}
    shown = sorted({place for place in even | marked.keys() if place < len(points)})
    rows = [[*_cells(result, place, [result]), ", ".join(marked.get(place, ()))] for place in shown]
    strong = [row for row, place in enumerate(shown) if marked.get(place, [_UNPENALISED]) != [_UNPENALISED]]
    return Table([Column("strength"), *_columns([result]), Column("", left=True)], rows, strong)


def comparison_table(parts: Sequence[PathResult]) -> Table:
    """One row per penalty, at its best strength; the best of them is marked."""
    best, rows = best_of(parts), []
    for part in parts:
        cells = _cells(part, part.points.index(part.best), parts)
        rows.append([part.penalty, *cells, "best" if part is best else ""])
    heads = [Column("penalty", left=True), Column("strength"), *_columns(parts), Column("", left=True)]
    return Table(heads, rows, [number for number, row in enumerate(rows) if row[-1]])


def sections(
    parts: Sequence[PathResult], chosen: tuple[PathResult, float] | None = None
) -> Iterator[tuple[str, Table]]:
    """The tables of a result, each with what stands above it.

    Args:
        parts: the paths of single penalties.
        chosen: the one that a model was refitted from, and the strength.
    """
    for part in parts:
        table = path_table(part, chosen[1] if chosen is not None and chosen[0] is part else None)
        some = f"; {len(table.rows)} of {len(part.points)} shown" if len(table.rows) < len(part.points) else ""
        yield f"{part.penalty}: {part.grid.words}{some}", table
    if len(parts) > 1:
        yield "each penalty at its best strength", comparison_table(parts)


def text(parts: Sequence[PathResult], said: Pairs) -> str:
    """What ``print`` shows: the tables, the choice, and what is ``said`` besides, each with its label."""
    lines = []
    for title, table in sections(parts):
        lines += [*paired([("", title)], WIDTH, indent=0), *table.lines(WIDTH), ""]
    return "\n".join([*lines, *paired([*_choice(best_of(parts)), *said], WIDTH)])


def html(parts: Sequence[PathResult], said: Pairs) -> str:
    """What a notebook shows. The single tables of a comparison unfold."""
    tables = [table.html(title) for title, table in sections(parts)]
    if len(tables) > 1:
        *single, together = tables
        tables = [together, *(html_of_details(part.penalty, each) for part, each in zip(parts, single, strict=True))]
    return f"<div>{''.join(tables)}{html_of_pairs([*_choice(best_of(parts)), *said])}</div>"


_UNPENALISED = "no penalty"


def _marks(result: PathResult, point: PathPoint, chosen: float | None) -> list[str]:
    """Why a row matters; at strength 0 that it is what the others are compared with, if there is no other reason."""
    places = (("best", result.best.strength), ("one_se", result.one_se.strength), ("chosen", chosen))
    marks = [name for name, strength in places if strength == point.strength]
    return marks or ([_UNPENALISED] if point.strength == 0 else [])


def _choice(result: PathResult) -> Pairs:
    """What is chosen by least loss, and by one standard error."""
    pairs = [("best", _at(result, result.best))]
    same = result.one_se.strength == result.best.strength
    return pairs if same else [*pairs, ("one_se", _at(result, result.one_se))]


def _at(result: PathResult, point: PathPoint) -> str:
    whole = result.settings.get("penalised weights")
    of = f" of {whole:,}" if isinstance(whole, int) else ""
    loss = f"loss on unseen rows {point.validation_loss:.4g} ± {point.validation_se:.2g}"
    return f"{result.penalty} at {point.strength:.4g}: {loss}, {_whole(point.nonzero)}{of} weights nonzero"


def _sized(parts: Sequence[PathResult]) -> bool:
    """Whether of one of them it is known how many parameters are left after shrinking."""
    return any(part.sizes is not None for part in parts)


def _classes(parts: Sequence[PathResult]) -> bool:
    return any(point.accuracy is not None for part in parts for point in part.points)


def _columns(parts: Sequence[PathResult]) -> list[Column]:
    """What stands between strength and marks; the gap, which the two losses say, is the first to go."""
    return [
        Column("train", rank=3),
        Column("validation"),
        Column("± se", rank=2),
        Column("gap", rank=4),
        *([Column("accuracy", rank=1)] if _classes(parts) else []),
        Column("nonzero"),
        *([Column("parameters", rank=1)] if _sized(parts) else []),
    ]


def _cells(result: PathResult, place: int, parts: Sequence[PathResult]) -> list[str]:
    """A point's row, with the columns that ``parts`` need."""
    point = result.points[place]
    cells = [f"{point.strength:.3g}", "", "diverged", "", ""]
    if not point.diverged:
        cells[1:] = [f"{point.train_loss:.4g}", f"{point.validation_loss:.4g}"]
        cells += [f"{point.validation_se:.2g}", f"{point.gap:+.2g}"]
    if _classes(parts):
        cells.append("" if point.accuracy is None else f"{100 * point.accuracy:.2f} %")
    cells.append(_whole(point.nonzero))
    if _sized(parts):
        cells.append("" if result.sizes is None else _whole(result.sizes[place]))
    return cells


def _whole(size: float) -> str:
    return f"{size:,.0f}" if math.isfinite(size) else ""
