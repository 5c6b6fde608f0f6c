"""The tables of a report, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchshrink.report.figure import Table
from torchshrink.report.inert import name, text
from torchshrink.report.numbers import exactly, short, whole
from torchshrink.report.view import Part, Point
from torchshrink.report.words import penalty_name

MOST_ROWS = 12  # of the table that is open
_APART = ("audit", "versions", "model", "proof")  # settings that are shown elsewhere
_WORDS = {
    "on": "penalised",
    "at strength 1": "the penalty at strength 1",
    "optimizer": "optimizer",
    "test": "share of test rows",
    "order": "order of strengths",
    "method": "how the penalty acts",
}


def strengths(part: Part) -> Iterator[str]:
    """The rows that matter, and all of them, which unfold."""
    places = _that_matter(part)
    yield _strengths(part, places, f"{penalty_name(part)}: {part.grid}")
    if len(places) < len(part.points):
        yield f"<details><summary>All {len(part.points)} strengths of {text(penalty_name(part))}</summary>"
        yield _strengths(part, range(len(part.points)), f"{penalty_name(part)}, every strength")
        yield "</details>"


def plain(table: Table) -> str:
    """A picture's numbers."""
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in table.heads)
    rows = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    return f"<table><caption>{text(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def settings(parts: Sequence[Part]) -> str:
    """How each model was trained: a column for each penalty, where they differ."""
    keys = [key for key in dict.fromkeys(key for part in parts for key in part.settings) if key not in _APART]
    rows = []
    for key in keys:
        values = [_shown(part.settings.get(key)) for part in parts]
        same = len(set(values)) == 1
        cells = (
            f'<td colspan="{len(parts)}">{text(values[0])}</td>'
            if same
            else "".join(f"<td>{text(each)}</td>" for each in values)
        )
        rows.append(f'<tr><th scope="row">{text(_WORDS.get(key, key))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{text(penalty_name(part))}</th>' for part in parts)
    return (
        '<table class="words"><caption>What each model was trained with</caption><thead><tr><th '
        f'scope="col">setting</th>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def audit(part: Part) -> str:
    """What was penalised, and what not, and why."""
    rows = "".join(
        f'<tr><th scope="row">{text(name(who, 80))}</th><td>{text(shape)}</td>'
        f"<td>{text(name(penalty, 120)) if penalty else 'exempt: ' + text(name(reason, 120))}</td></tr>"
        for who, shape, penalty, reason in _audited(part.settings)
    )
    return (
        f'<table class="words"><caption>{text(penalty_name(part))}, at strength 1</caption><thead><tr><th '
        'scope="col">parameter</th>'
        f'<th scope="col">shape</th><th scope="col">penalty</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def has_audit(part: Part) -> bool:
    """Whether it is kept."""
    return bool(_audited(part.settings))


def pairs(caption: str, rows: Mapping[str, str]) -> str:
    """Names and values."""
    body = "".join(f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>' for key, value in rows.items())
    return (
        f'<table class="words"><caption>{text(caption)}</caption><thead><tr><th scope="col">what</th><th '
        'scope="col">which</th>'
        f"</tr></thead><tbody>{body}</tbody></table>"
    )


def _audited(kept: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = kept.get("audit")
    sound = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 4 for row in rows)
    return [tuple(map(str, row)) for row in rows] if sound and isinstance(rows, list) else []  # type: ignore[misc]


def _that_matter(part: Part) -> list[int]:
    """Strength 0, the best, one_se, the strongest, and some between, at even distances."""
    last = len(part.points) - 1
    if last < MOST_ROWS:
        return list(range(last + 1))
    marked = {k for k, point in enumerate(part.points) if point is part.best or point is part.one_se}
    even = {round(at * last / (MOST_ROWS - 3)) for at in range(MOST_ROWS - 2)}
    return sorted({0, last} | marked | even)


def _strengths(part: Part, places: Sequence[int], caption: str) -> str:
    classes = any(point.accuracy is not None for point in part.points)
    heads = [
        ("strength", ""),
        ("training loss", ""),
        ("held-out loss ± standard error", ""),
        ("gap", "wide"),
        *([("accuracy", "")] if classes else []),
        ("weights left", ""),
        *([("parameters after shrinking", "wide")] if part.sizes else []),
    ]
    head = "".join(f'<th scope="col"{_class(kind)}>{each}</th>' for each, kind in heads)
    rows = []
    for place in places:
        point = part.points[place]
        marks = [mark for mark, each in (("best", part.best), ("one_se", part.one_se)) if each is point]
        badge = "".join(f'<span class="badge">{"within one SE" if mark == "one_se" else mark}</span>' for mark in marks)
        cells = [*_cells(point, classes=classes), *([(_size(part.sizes[place]), "wide")] if part.sizes else [])]
        body = "".join(f"<td{_class(kind)}>{cell}</td>" for cell, kind in cells)
        rows.append(
            f'<tr{_class(marks[0] if marks else "")}><th scope="row">{short(point.strength)}{badge}</th>{body}</tr>'
        )
    return (
        f'<table class="strengths"><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(point: Point, *, classes: bool) -> list[tuple[str, str]]:
    if point.diverged:
        return [("diverged", ""), ("", ""), ("", "wide"), *([("", "")] if classes else []), ("", "")]
    return [
        (exactly(point.train_loss), ""),
        (f"{exactly(point.validation_loss)} <span>± {short(point.validation_se, 2)}</span>", ""),
        (short(point.gap), "wide"),
        *([(f"{100 * point.accuracy:.1f}\u00a0%" if point.accuracy is not None else "", "")] if classes else []),
        (whole(point.nonzero), ""),
    ]


def _size(size: float) -> str:
    return whole(size) if math.isfinite(size) else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return short(value)
    return name(value, 300)
