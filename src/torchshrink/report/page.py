"""A path as one HTML file with everything in it: verdict, picture, table, settings."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable

from torchshrink.errors import InputError
from torchshrink.report.picture import png
from torchshrink.report.view import Part, Point, View
from torchshrink.support.storage import PathLike, folder_path, write_bytes, write_text

_ENDINGS = (".html", ".htm", ".png")
_CSS = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse;margin:.5rem 0 1.5rem}
th,td{padding:.2rem .8rem;text-align:right;font-variant-numeric:tabular-nums}th{border-bottom:1px solid #999}
tr.best{font-weight:600;background:#fdf1e7}tr.one_se{background:#e5f5f0}.verdict{font-size:1.1rem}
dt{float:left;clear:left;width:10rem;color:#666}dd{margin-left:11rem}
"""


def write_report(view: View, *paths: PathLike) -> None:
    """Write ``.html`` (one file that needs no other) or ``.png`` (the picture alone), each whole or not at all.

    Args:
        view: what is shown.
        paths: one file or several, which share the picture: it is drawn once.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    files = [folder_path(path, "path") for path in paths]
    for path in files:
        if path.suffix.lower() not in _ENDINGS:
            raise InputError(f"{path}: a name that ends in .html or .png expected")
    picture = png(view)
    for path in files:
        if path.suffix.lower() == ".png":
            write_bytes(path, picture)
        else:
            write_text(path, page(view, picture))


def page(view: View, picture: bytes) -> str:
    """The report as HTML, with the picture (a PNG) in it."""
    shown = base64.b64encode(picture).decode()
    title = f"Regularization path: {', '.join(part.penalty for part in view.parts)}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="verdict">{html.escape(_sentence(words))}</p>' for words in view.said),
        f'<img alt="losses and nonzero weights against strength" src="data:image/png;base64,{shown}">',
    ]
    for part in view.parts:
        body += _section(part, several=len(view.parts) > 1)
    body += ["<h2>How it was trained</h2>", _settings(view.parts[0])]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _section(part: Part, *, several: bool) -> Iterable[str]:
    yield f"<h2>{html.escape(part.penalty)}</h2>"
    if several:
        yield f"<p>{html.escape(_sentence(part.verdict))}</p>"
    yield f"<p>{html.escape(_sentence(part.grid))}</p>"
    classes = any(point.accuracy is not None for point in part.points)
    heads = [
        "strength",
        "train loss",
        "validation loss",
        "± SE",
        "gap",
        *(["accuracy"] if classes else []),
        "nonzero",
        *(["parameters after shrinking"] if part.sizes else []),
        "",
    ]
    yield "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for place, point in enumerate(part.points):
        marks = [name for name, chosen in (("best", part.best), ("one_se", part.one_se)) if point is chosen]
        size = [_whole(part.sizes[place])] if part.sizes else []
        cells = "".join(f"<td>{cell}</td>" for cell in [*_cells(point, classes=classes), *size, ", ".join(marks)])
        yield f'<tr class="{marks[0] if marks else ""}">{cells}</tr>'
    yield "</table>"


def _cells(point: Point, *, classes: bool) -> list[str]:
    if point.diverged:
        return [f"{point.strength:.3g}", "diverged", *[""] * (5 if classes else 4)]
    return [
        f"{point.strength:.3g}",
        f"{point.train_loss:.4g}",
        f"{point.validation_loss:.4g}",
        f"{point.validation_se:.2g}",
        f"{point.gap:.3g}",
        *([f"{100 * point.accuracy:.1f} %" if point.accuracy is not None else ""] if classes else []),
        f"{point.nonzero:,.0f}",
    ]


def _whole(size: float) -> str:
    return f"{size:,.0f}" if math.isfinite(size) else ""


def _settings(part: Part) -> str:
    rows = (f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in part.settings.items())
    return f"<dl>{''.join(rows)}</dl>"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
