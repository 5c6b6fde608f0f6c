"""Names from anywhere (columns, classes, files, penalties) as text that cannot do anything where it is shown."""

from __future__ import annotations

import html
import json
import unicodedata
from typing import Any

from torchshrink.support.tables import ACTING, printable

MOST = 60  # characters of a name in a picture
_UNSEEN = {*ACTING, "Co", "Cn"}  # what a font may have no picture of, too
_FROM_THE_RIGHT = {"R", "AL", "AN"}
_ISOLATE, _END = "\u2068", "\u2069"


def visible(text: object) -> str:
    r"""The text with what is not seen, such as line ends and marks that turn the direction of writing, written out.

    >>> visible("two\nlines \u202egnp.exe")
    'two\\nlines \\u202egnp.exe'
    """
    return printable(str(text), _UNSEEN)


def name(text: object, most: int = MOST) -> str:
    """A name for a picture or a sentence: visible, not too long, and by itself where it is written from the right."""
    seen = visible(text) or "(no name)"
    cut = seen if len(seen) <= most else seen[: most - 1] + "…"
    if any(unicodedata.bidirectional(letter) in _FROM_THE_RIGHT for letter in cut):
        return f"{_ISOLATE}{cut}{_END}"
    return cut


def text(content: object) -> str:
    """For HTML, between tags or in an attribute; isolates of `name` are kept, and a number stays with its %."""
    seen = "".join(letter if letter in (_ISOLATE, _END) else visible(letter) for letter in str(content))
    return html.escape(seen.replace(" %", "\u00a0%"))


def code(content: object) -> str:
    """For HTML, where it is to be copied: as `text`, with nothing done to its spaces."""
    return html.escape(visible(content))


def script_json(value: Any) -> str:
    """JSON that cannot end the script element which it stands in, nor a line."""
    plain = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
