"""A path as one HTML file that needs no other and asks no network: see `page`."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import Any

from torchshrink.errors import InputError
from torchshrink.report import tables, words
from torchshrink.report.facts import facts
from torchshrink.report.figure import start_of
from torchshrink.report.inert import code, script_json, text
from torchshrink.report.pictures import Pictures
from torchshrink.report.reading import HOW
from torchshrink.report.view import View
from torchshrink.support.storage import PathLike, folder_path, write_bytes, write_text

_ENDINGS = (".html", ".htm", ".png")
_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
    "aria": False,  # the place of each picture says what it shows
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink-2)",
        "titleColor": "var(--ink-2)",
        "titleFontWeight": "normal",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelOverlap": True,
    },
    "axisY": {"domain": False, "ticks": False, "tickCount": 5},
    "axisYQuantitative": {"minExtent": 46},
}


def write_report(view: View, *paths: PathLike) -> None:
    """Write ``.html`` (one file that needs no other) or ``.png`` (the picture alone), each whole or not at all.

    Args:
        view: what is shown.
        paths: one file or several, which share the picture: it is drawn once.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    from torchshrink.report.picture import png

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


def page(view: View, picture: bytes = b"") -> str:
    """The report as HTML.

    Vega-Lite draws its pictures as SVG, in the reader's browser. Its script stands in the page; a content security
    policy lets that script and the page's own run, by their digests, and forbids every request. Where no script runs,
    as in a mail's preview, all words and tables are there, and ``picture`` (a PNG) in the pictures' place.
    """
    pictures = Pictures.of(view)
    drawn = {
        "config": _CONFIG,
        "start": list(start_of(view)),
        "best": [list(part.points).index(part.best) for part in view.parts],
        "said": [
            [words.point_words(part, k, len(view.parts) > 1) for k in range(len(part.points))] for part in view.parts
        ],
        "figures": [[each.id, each.spec] for each in pictures.every],
    }
    scripts = [_file("vega.js"), _file("page.js")]
    policy = " ".join(f"'sha256-{_digest(each)}'" for each in scripts)
    title = text(f"{words.title(view)} {words.kicker(view)}")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            f"style-src 'unsafe-inline'; script-src {policy}; base-uri 'none'; form-action 'none'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{_file('style.css')}</style></head>",
            "<body>",
            *_head(view),
            "<main>",
            _noscript(picture),
            *pictures.html(view),
            *_tables(view),
            "</main>",
            *_foot(view),
            f'<script type="application/json" id="drawn">{script_json(drawn)}</script>',
            *(f"<script>{each}</script>" for each in scripts),
            "</body>\n</html>\n",
        ]
    )


def _head(view: View) -> Iterator[str]:
    yield "<header>"
    yield f'<p class="kicker">{text(words.kicker(view))}</p>'
    yield f"<h1>{text(words.title(view))}</h1>"
    yield f'<p class="summary">{text(words.summary(view))}</p>'
    yield '<dl class="facts">'
    for fact in facts(view):
        answer = f"<pre><code>{code(fact.answer)}</code></pre>" if fact.code else text(fact.answer)
        yield f"<div><dt>{text(fact.question)}</dt><dd>{answer}</dd></div>"
    yield "</dl>"
    yield '<details class="how"><summary>How to read this</summary>'
    yield from (f"<p>{each}</p>" for each in HOW)
    yield "</details></header>"


def _noscript(picture: bytes) -> str:
    shown = base64.b64encode(picture).decode()
    image = (
        f'<img alt="losses and nonzero weights against strength" src="data:image/png;base64,{shown}">'
        if picture
        else ""
    )
    return (
        f'<noscript><div class="noscript">{image}<p>The pictures below are drawn by a script in this file, '
        "which does not run here: open the file in a browser. All numbers are in the tables.</p></div></noscript>"
    )


def _tables(view: View) -> Iterator[str]:
    yield "<section><h2>Every number</h2>"
    for part in view.parts:
        yield from tables.strengths(part)
    yield "</section>"
    audited = [part for part in view.parts if tables.has_audit(part)]
    if audited:
        yield "<section><h2>What was penalised</h2>"
        for part in audited:
            yield tables.audit(part)
        yield "</section>"
    yield "<section><h2>How it was made</h2>"
    yield tables.settings(view.parts)
    proofs = {
        words.penalty_name(part): str(part.settings["proof"]) for part in view.parts if part.settings.get("proof")
    }
    if proofs:
        yield tables.pairs("What is proved of the folds' optima", proofs)
    yield "</section>"


def _foot(view: View) -> Iterator[str]:
    about = view.about
    said = [f"{key} {value}" for key, value in about.versions.items()]
    seed = view.parts[view.best].settings.get("seed")
    said += [f"seed {seed}"] if seed is not None else []
    said += [about.date] if about.date else []
    yield f"<footer><p>{text(' · '.join(said))}</p>"
    yield "<p>Drawn with Vega-Lite. This file asks for nothing from any network.</p></footer>"


@functools.cache
def _file(name: str) -> str:
    return (resources.files("torchshrink.report") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
