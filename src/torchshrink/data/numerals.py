"""Text that is meant as numbers: which columns are, what the numbers are, and what stands for a missing one.

A column of text is numbers if each of its values is one, is empty, or is a usual mark for a missing value (``?``,
``NA``, ``N/A``, ``-``, ``#DIV/0!`` …). Numbers may have a sign (``−`` too), grouped digits (``1,234``, ``1.234,5``,
``1 234``, ``1'234``), a currency, a percent sign (``12 %`` is 12), parentheses, which mean minus, a dash for no cents
(``12.-``), or what makes text of them in spreadsheets (``'5``, ``=5``).

The decimal point is whichever of ``.`` and ``,`` all values of the column allow. Where both do and the values differ
(``1,234``), the other columns of the file decide, then its separator; where these do not, the column is refused, and
``--decimal`` decides.

A column that is numbers but for a few other texts is refused, and so is one of numbers with something beside them
(`measures`): neither guess at them would be right. Text with fewer numbers is a category, and so are codes: whole
numbers of one length, some of which begin with 0 (``02134``).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torchshrink.data.measures import BLANKS, CURRENCY, has_dash, measures_among
from torchshrink.data.text_format import UNSAID, Format
from torchshrink.errors import InputError

_MARKS = (
    "?|??|-|--|---|–|—|−|.|..|...|…|*|na|n/a|n.a.|n.a|n/d|nd|n.d.|nan|-nan|+nan|null|none|nil|void|missing|miss.|"
    "unknown|unk|undefined|<na>|(na)|(none)|(null)|n\\a|\\n|#n/a|#na|#div/0!|#value!|#ref!|#name?|#num!|#null!|#error!|"
    "#calc!|#nv|#nan|1.#ind|-1.#ind|1.#qnan|-1.#qnan|tbd|t.b.d.|nat|not available|not applicable|no data|"
    "#n/a n/a|not a number"
)
MISSING = frozenset(_MARKS.split("|"))
"""Texts, in lower case, that stand for a missing value in a column of numbers."""

FEW = 20  # distinct whole numbers that may still be codes among other texts
_MOSTLY = 0.8  # share of whole numbers from which the other texts are taken for stray ones
_FRACTIONS = 0.5  # the same where some numbers have decimals, which codes have not
_EXACT = 15  # digits that a float64 always holds

_MINUS = str.maketrans(dict.fromkeys("−–‒﹣－", "-"))
_WRITTEN = re.compile(
    rf"(?P<open>\()?(?P<sign>[+-])?[{BLANKS}]*(?P<before>{CURRENCY})?[{BLANKS}]*(?P<sign2>[+-])?"
    rf"(?P<body>[.,]?\d(?:[^A-Za-z%]*\d)?[.,]?)(?:(?<=[.,])[-—]{{1,2}}|/-)?(?P<exponent>[eE][+-]?\d+)?"
    rf"[{BLANKS}]*(?P<after>{CURRENCY})?(?P<percent>%)?(?P<close>\))?"
)
_PLAIN = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")  # a number in either way
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( .*)?"
    r"|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp]\.?[Mm]\.?)?|\d{4}-W\d{2}(-\d)?|\d{4}-\d{2}|\d{4}[ -]?Q[1-4]"
    r"|(\d{1,2}[ .-]*)?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .,-]+(\d{1,2},? +)?(\d{4}|\d{2})( .*)?",
    re.IGNORECASE,
)
_CELL = re.compile(r"""'(.+?)'?|=\s*"(.+)"|=\s*(.+)|"(.+)\"""")  # text in a spreadsheet


@dataclass(frozen=True)
class Numbers:
    """What a column's texts are as numbers.

    Args:
        values: per text; NaN for what stands for a missing value.
        marks: how often each of the texts that stand for one occurs.
        decimal: the decimal point, where the texts had to be asked for it.
    """

    values: Mapping[str, float]
    marks: Mapping[str, int]
    decimal: str = "."


@dataclass(frozen=True)
class Custom:
    """How the file at hand writes numbers, as far as it is known.

    Args:
        format: what the caller says.
        decimals: the decimal points that some column of the file must have.
        sep: what separates the file's values, if anything does.
        typed: whether the file has types, so that whole numbers saved as text are meant as text.
    """

    format: Format = UNSAID
    decimals: frozenset[str] = frozenset()
    sep: str | None = ","
    typed: bool = False

    def knowing(self, decimals: Iterable[str]) -> Custom:
        """The same, with decimal points that some column must have."""
        return replace(self, decimals=frozenset(decimals))


def is_mark(text: str, format: Format) -> bool:
    """Whether ``text`` stands for a missing value in a column of numbers."""
    return said_missing(text, format) or text.casefold() in MISSING


def said_missing(text: str, format: Format) -> bool:
    """Whether the caller says that ``text`` means a missing value: by this text, or by the same number (-999.0)."""
    if not format.na or text in format.na:
        return bool(format.na)
    if text.isdecimal() and text[0] == "0":  # codes: 007 is not 7
        return False
    readings = {parse(text, point, format) for point in ".,"} - {None}
    return len(readings) == 1 and readings <= missing_numbers(format.na).keys()


def missing_numbers(na: Iterable[str]) -> dict[float, str]:
    """Those of the texts that are numbers, by what number they are, with a decimal point if that can be."""
    numbers = {}
    for text in na:
        point = parse(text, ".")
        number = point if point is not None else parse(text, ",")
        if number is not None:
            numbers[number] = text
    return numbers


def decimals_of(counts: Mapping[str, int], format: Format) -> frozenset[str]:
    """Which decimal points some of these texts must have: those that the other point would not allow."""
    found = set()
    for text in counts:
        # Without a comma a text can ask for the point only, and most texts of a file are such.
        if ("." in found or "." not in text) and "," not in text and text.count(".") < 2:
            continue
        if said_missing(text, format):
            continue
        point, comma = parse(text, ".", format), parse(text, ",", format)
        if (point is None) != (comma is None):
            found.add("," if point is None else ".")
    return frozenset(found)


def read_numbers(where: str, counts: Counter[str], custom: Custom) -> Numbers | None:
    """The texts of a column as numbers, or None where they are categories.

    Args:
        where: names the column in messages.
        counts: how often each text that is not empty occurs, blanks around it removed.
        custom: how the file writes numbers.

    Raises:
        InputError: dates, numbers beside a few texts that are none, numbers that can be read in two ways, or numbers
            with more digits than a float64 holds.
    """
    format = custom.format
    marks = {text: count for text, count in counts.items() if is_mark(text, format)}
    rest = {text: count for text, count in counts.items() if text not in marks}
    if not rest:
        return None
    words = {text.casefold() for text in rest}
    if words <= {"true", "false"}:
        return _made(dict.fromkeys(marks, math.nan) | {text: float(text.casefold() == "true") for text in rest}, marks)
    if all(_DATE.fullmatch(text) for text in rest):
        raise InputError(
            f"{where} is dates or times ({_shown(rest)}), numbers or categories expected: make numbers of them, such "
            "as days or a year, or leave the column out (--drop)"
        )
    decimal = _decimal(where, rest, custom)
    values = {text: parse(text, decimal, format) for text in rest}
    odd = {text: count for text, count in rest.items() if values[text] is None}
    known = {text: value for text, value in values.items() if value is not None}
    if odd:
        _check_dashes(where, odd)
        if known and _mostly_numbers(known, rest):
            raise InputError(
                f"{where} is numbers but for {_shown(odd)} in {sum(odd.values())} of {sum(rest.values())} values: "
                f"--na takes a text as missing (--na {next(iter(odd))!r}), or correct them, or --drop the column"
            )
        _check_measures(where, rest, odd)
        return None
    if _codes(rest) or (custom.typed and len(rest) <= FEW and all(_bare(text).isdecimal() for text in rest)):
        return None
    _check_units(where, rest)
    _check_digits(where, known)
    said = missing_numbers(format.na)
    marks |= {text: rest[text] for text, value in known.items() if value in said}
    known = {text: value for text, value in known.items() if text not in marks}
    return _made(dict.fromkeys(marks, math.nan) | known, marks, decimal)


def _made(values: dict[str, float], marks: dict[str, int], decimal: str = ".") -> Numbers:
    return Numbers(values, marks, decimal)


def parse(text: str, decimal: str, format: Format = UNSAID) -> float | None:
    """What number ``text`` is with this decimal point, if it is one; infinite where it is too large.

    >>> parse("1,234.5", "."), parse("1.234,5", ","), parse("($1 200)", "."), parse("12 %", "."), parse("3 kg", ".")
    (1234.5, 1234.5, -1200.0, 12.0, None)
    """
    if decimal == "." and _PLAIN.fullmatch(text):  # most texts are, and the rest of this takes long
        return float(text)
    text = _bare(text.strip()).translate(_MINUS)
    if re.fullmatch(r"[+-]?inf(inity)?", text, re.IGNORECASE):
        return float(text)
    found = _WRITTEN.fullmatch(text)
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    signs = [sign for sign in (found["sign"], found["sign2"], found["open"]) if sign]
    body = _digits(found["body"], decimal, format.thousands)
    if body is None or len(signs) > 1 or (found["before"] and found["after"]):
        return None
    value = float(body + (found["exponent"] or ""))
    return -value if signs and signs[0] != "+" else value


def _bare(text: str) -> str:
    """What a cell shows that a spreadsheet was told to take as text, or as a formula; other texts as they are."""
    found = _CELL.fullmatch(text)
    return found[found.lastindex or 0] if found else text


def _digits(body: str, decimal: str, thousands: str | None) -> str | None:
    """The digits of an unsigned number as Python writes them, or None where they are not grouped as numbers are."""
    point = re.escape(decimal)
    if re.fullmatch(rf"\d+({point}\d*)?|{point}\d+", body):
        return body.replace(decimal, ".")
    marks = thousands if thousands is not None else ("," if decimal == "." else ".") + BLANKS + "'’"
    group = re.escape(marks)
    grouped = re.fullmatch(
        rf"([1-9]\d{{0,2}}([{group}])\d{{3}}(\2\d{{3}})*|[1-9]\d?([{group}])(\d{{2}}\4)+\d{{3}})({point}\d*)?", body
    )
    if grouped is None:
        return None
    return re.sub(rf"[{group}]", "", grouped[1]) + (grouped[6] or "").replace(decimal, ".")


def _decimal(where: str, rest: Mapping[str, int], custom: Custom) -> str:
    """The column's decimal point."""
    format = custom.format
    if format.decimal is not None:
        return format.decimal
    if format.thousands in (".", ","):
        return "," if format.thousands == "." else "."
    marked = [text for text in rest if "," in text or "." in text]
    groups = bool(marked) and all(_GROUP.fullmatch(text) for text in marked)
    if not (groups or custom.decimals == {","}) and all(_PLAIN.fullmatch(text) for text in rest):
        return "."  # what follows takes long
    both = [(parse(text, ".", format), parse(text, ",", format), text) for text in marked]
    point = [text for p, c, text in both if p is not None and c is None]
    comma = [text for p, c, text in both if c is not None and p is None]
    if point and comma:
        if 2 * min(len(point), len(comma)) >= 0.1 * len(rest):
            raise InputError(
                f"{where} has numbers with a decimal point ({_shown(point)}) and with a decimal comma "
                f"({_shown(comma)}): write them in one way, or say --decimal"
            )
        return "." if len(point) > len(comma) else ","
    if point or comma:
        return "." if point else ","
    unclear = [text for p, c, text in both if p is not None and p != c]
    if not unclear:
        return "."
    if len(custom.decimals) == 1:
        return next(iter(custom.decimals))
    if custom.sep in (",", None):
        return "."
    p, c, text = next(each for each in both if each[2] == unclear[0])
    raise InputError(f"{where}: {text!r} can be {p:g} or {c:g}: say --decimal . or --decimal ,")


def _mostly_numbers(known: Mapping[str, float], rest: Mapping[str, int]) -> bool:
    """Whether the texts that are no numbers are stray ones, rather than the numbers codes among other texts."""
    cells = sum(rest.values())
    share = sum(rest[text] for text in known) / cells
    if any(not value.is_integer() for value in known.values() if math.isfinite(value)):
        return share >= _FRACTIONS and len(known) >= 3
    return share >= _MOSTLY and _many(len(known), cells)


def _many(distinct: int, cells: int) -> bool:
    """Whether these are more distinct numbers than codes are, or than so few cells have where they are codes."""
    return distinct > FEW or (distinct >= 3 and distinct > cells / 2)


def _check_measures(where: str, rest: Mapping[str, int], odd: Mapping[str, int]) -> None:
    """Refuse numbers with something beside them: units and signs, or one and the same word."""
    measures = measures_among(odd, _MOSTLY)
    if not measures or not _many(len(rest) - len(odd) + len(measures), sum(rest.values())):
        return
    after = {re.sub(r".*\d\s*", "", text) for text in measures}
    each = "each" if len(measures) == len(rest) else "some"
    what = f"{after.pop()!r} after {each}" if len(after) == 1 and after != {""} else f"something beside {each}"
    raise InputError(
        f"{where} is numbers with {what} ({_shown(measures)}): write the numbers alone, in one unit, or --drop it"
    )


def _check_dashes(where: str, odd: Mapping[str, int]) -> None:
    dashes = [text for text in odd if has_dash(text)]
    signed = [*dashes, *(text for text in odd if parse(text.removesuffix("+"), ".") is not None)]
    if dashes and sum(odd[text] for text in signed) >= _MOSTLY * sum(odd.values()):
        raise InputError(
            f"{where} has a dash after numbers ({_shown(dashes)}), which may be a minus or a mark: write the minus "
            "first (-12), or marks as words, or --drop it"
        )


def _codes(rest: Iterable[str]) -> bool:
    """Whether whole numbers are codes: all of one length, and some begin with 0."""
    texts = [_bare(text) for text in rest]
    lengths = {len(text) for text in texts}
    return (
        len(lengths) == 1 and lengths != {1} and all(t.isdecimal() for t in texts) and any(t[0] == "0" for t in texts)
    )


def _check_units(where: str, rest: Mapping[str, int]) -> None:
    if all(_PLAIN.fullmatch(text) for text in rest):
        return
    percent = {text for text in rest if "%" in text}
    plain = {text for text in rest if text not in percent and parse(text, ".") != 0}
    if percent and plain:
        raise InputError(
            f"{where} has percentages ({_shown(percent)}) and other numbers ({_shown(plain)}): write all in one unit"
        )
    currencies = {found[0].rstrip(".").casefold() for text in rest if (found := re.search(CURRENCY, text))}
    if len(currencies) > 1:
        raise InputError(f"{where} has more than one currency ({_shown(currencies)}): write all in one unit")


def _check_digits(where: str, known: Mapping[str, float]) -> None:
    long = {text: value for text, value in known.items() if len(text) > _EXACT}
    if not all(math.isfinite(value) for value in long.values()):
        return  # said of the column, with how often
    if len({text.translate(_MINUS) for text in long if _bare(text).isdecimal()}) > len(set(long.values())):
        raise InputError(
            f"{where} has whole numbers of more digits than are kept apart (float64 holds {_EXACT}), as identifiers "
            f"have ({_shown(long)}): --drop it, or write it as a category"
        )


def _shown(texts: Iterable[str], most: int = 5) -> str:
    texts = list(texts)
    shown = ", ".join(repr(text if len(text) <= 40 else f"{text[:39]}…") for text in texts[:most])
    return f"{shown} and {len(texts) - most} more" if len(texts) > most else shown
