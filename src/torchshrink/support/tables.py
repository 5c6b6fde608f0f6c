"""Tables of a few columns, as plain text and as HTML that carries nothing but text.

Both are made from one `Table`. The HTML is for notebooks: it has no colours, so that a dark one stays readable, and no
scripts, and whatever is in a name is shown and not interpreted.
"""

from __future__ import annotations

import html
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

_GAP = 2  # blanks between columns
_LEFT, _RIGHT = ' style="text-align:left"', ' style="text-align:right"'


@dataclass(frozen=True)
class Column:
    """What stands over a column, and how it is set.

    Args:
        head: its name.
        left: whether it is text, set to the left; numbers are set to the right.
        rank: where a table is too wide, the columns of the highest rank are left out first; those of 0 stay.
    """

    head: str
    left: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Args:
        columns: of every row.
        rows: their cells, as many in each as there are columns.
        marked: the numbers of the rows that matter most.
        ruled: whether a line stands below the heads, in text.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    marked: Collection[int] = ()
    ruled: bool = False

    def lines(self, width: int | None = None) -> list[str]:
        r"""As text: the heads, then each row; no line is longer than ``width``, if columns can be left out for that.

        >>> columns = Column("strength"), Column("gap", rank=1), Column("", left=True)
        >>> table = Table(columns, [("0", "+0.1", ""), ("0.25", "+0.02", "best")])
        >>> print(*table.lines(), sep="\n")
        strength    gap
               0   +0.1
            0.25  +0.02  best
        >>> print(*table.lines(width=16), sep="\n")
        strength
               0
            0.25  best
        """
        heads = [column.head for column in self.columns]
        grid = [[printable(cell) for cell in row] for row in (heads, *self.rows)]
        sizes = [max(map(_cells, column)) for column in zip(*grid, strict=True)]
        kept = list(range(len(sizes)))
        while width is not None and sum(sizes[k] + _GAP for k in kept) - _GAP > width:
            rank = max((self.columns[k].rank for k in kept), default=0)
            if not rank:
                break
            kept = [k for k in kept if self.columns[k].rank < rank]
        shown = ["".ljust(_GAP).join(self._set(row[k], k, sizes[k]) for k in kept).rstrip() for row in grid]
        if self.ruled:
            shown.insert(1, "─" * (sum(sizes[k] + _GAP for k in kept) - _GAP))
        return shown

    def _set(self, cell: str, column: int, size: int) -> str:
        blanks = " " * (size - _cells(cell))
        return cell + blanks if self.columns[column].left else blanks + cell

    def html(self, caption: str = "") -> str:
        """As an HTML table, its marked rows in bold."""
        said = f"<caption>{_escaped(caption)}</caption>" if caption else ""
        heads = "".join(
            f'<th scope="col"{_LEFT if column.left else _RIGHT}>{_escaped(column.head)}</th>' for column in self.columns
        )
        body = "".join(f"<tr>{self._row(number, row)}</tr>" for number, row in enumerate(self.rows))
        return f"<table>{said}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"

    def _row(self, number: int, row: Sequence[str]) -> str:
        cells = []
        for place, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
            kind, text = ('th scope="row"' if place == 0 else "td"), _escaped(cell)
            strong = f"<strong>{text}</strong>" if number in self.marked and text else text
            cells.append(f"<{kind}{_LEFT if column.left else _RIGHT}>{strong}</{kind.partition(' ')[0]}>")
        return "".join(cells)


def paired(pairs: Iterable[tuple[str, str]], width: int | None = None, *, indent: int = 13) -> list[str]:
    r"""Names and what is said of them, as lines of text; wrapped where they are longer than ``width``.

    Words with hyphens, such as options, and words that are too long, such as paths, are not broken.

    >>> print(*paired([("choice", "L1(0.1), the strength of least loss")], 34), sep="\n")
    choice       L1(0.1), the strength
                 of least loss
    """
    lines = []
    for name, words in pairs:
        line = f"{name:<{indent}}" if indent else ""
        line += printable(words)
        if width is None:
            lines.append(line)
            continue
        held = line.replace(" %", "\u00a0%")  # a number and its unit stay together
        wrapped = textwrap.wrap(
            held, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
        )
        lines += [each.replace("\u00a0%", " %") for each in wrapped]
    return lines


def html_of_pairs(pairs: Iterable[tuple[str, str]], caption: str = "") -> str:
    """Names and what is said of them, as an HTML table of two columns.

    >>> html_of_pairs([("loss", "0.25 < 0.5")])
    '<table><tbody><tr><th scope="row" style="text-align:left">loss</th>\
<td style="text-align:left">0.25 &lt; 0.5</td></tr></tbody></table>'
    """
    said = f"<caption>{_escaped(caption)}</caption>" if caption else ""
    rows = "".join(
        f'<tr><th scope="row"{_LEFT}>{_escaped(name)}</th><td{_LEFT}>{_escaped(text)}</td></tr>' for name, text in pairs
    )
    return f"<table>{said}<tbody>{rows}</tbody></table>"


def html_of_details(summary: str, content: str) -> str:
    """HTML that unfolds below a line of text."""
    return f"<details><summary>{_escaped(summary)}</summary>{content}</details>"


ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that act instead of being shown."""


def printable(text: str, unseen: Collection[str] = ACTING) -> str:
    r"""``text`` on one line, with an escape for each character that would act instead of being shown.

    Those are line ends and other controls (a terminal obeys some of them), marks of writing direction, which would turn
    what follows, and halves of a surrogate pair, which no encoding takes.

    Args:
        text: any.
        unseen: the categories that are written out.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in unseen else c for c in text)


def _cells(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def _escaped(text: str) -> str:
    return html.escape(printable(text))
