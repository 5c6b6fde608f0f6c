"""Wording that messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TextIO


def near(word: str, words: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The one of ``words`` that ``word`` was probably meant to be, whatever its case; None where none is near.

    >>> near("Elasticnet", ["l1", "elastic_net"])
    'elastic_net'
    """
    known = {each.lower(): each for each in words}
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=cutoff)
    return known[found[0]] if found else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """``; did you mean '…'?`` where one of ``words`` is near ``word``, else nothing.

    >>> suggestion("elasticnet", ["l1", "elastic_net"])
    "; did you mean 'elastic_net'?"
    """
    found = near(word, words)
    return f"; did you mean {found!r}?" if found else ""


def shortened(text: str, most: int = 40) -> str:
    """``text``, or as much of its beginning as leaves room for the mark that some is missing.

    >>> shortened("a long name", 8)
    'a long …'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def listed(words: Iterable[object]) -> str:
    """The words as Python writes them, with commas.

    >>> listed(["cold", "warm"])
    "'cold', 'warm'"
    """
    return ", ".join(map(repr, words))


def write_escaped(stream: TextIO, text: str) -> None:
    r"""Write ``text``, with an escape such as ``\u03bb`` for each character that the stream's encoding lacks."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
