"""One column of a table: a number or a category, and its values as one or the other."""

from __future__ import annotations

import decimal
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchshrink.data.dataset import Column
from torchshrink.data.numerals import FEW, Custom, decimals_of, missing_numbers, parse, read_numbers, said_missing
from torchshrink.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_LEVELS = 1000  # of a category: more is free text, and one column of weights each

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReadColumn:
    """A column as it was read.

    Args:
        column: its name and categories.
        codes: (n,) float64: numbers, or the categories' codes; NaN where missing.
        marks: how often each text occurs that was taken for a missing value.
        decimal: the decimal point of its numbers.
    """

    column: Column
    codes: Array
    marks: Mapping[str, int] = field(default_factory=dict)
    decimal: str = "."


def read_columns(name: str, frame: pd.DataFrame, labels: Sequence[str], custom: Custom) -> list[ReadColumn]:
    """All columns of a table.

    Raises:
        InputError: one is neither numbers nor categories; the message names it.
    """
    read: list[ReadColumn | None] = []
    texts: dict[int, tuple[pd.Series[Any], Counter[str]]] = {}
    for place, label in enumerate(labels):
        where, values = f"{name}: column {label!r}", frame.iloc[:, place]
        plain = typed_numbers(where, values)
        if plain is None:
            text = as_text(where, values)
            texts[place] = text, counts_of(text)
            read.append(None)
        else:
            read.append(_typed(label, plain, custom))
    for place, (text, counts) in texts.items():
        categorical = str(frame.dtypes.iloc[place]) == "category"
        read[place] = _text(f"{name}: column {labels[place]!r}", labels[place], text, counts, (custom, categorical))
    return [each for each in read if each is not None]


def shown_decimals(columns: Iterable[pd.Series[Any]], custom: Custom) -> Custom:
    """What some columns show of how the file writes numbers, for the others to be read by."""
    texts = [values for values in columns if values.dtype.kind == "O"]
    counted = (Counter(each.strip() for each in values if isinstance(each, str)) for values in texts)
    return custom.knowing(point for counts in counted for point in decimals_of(counts, custom.format))


def _typed(label: str, plain: Array, custom: Custom) -> ReadColumn:
    marks = {}
    for value, text in missing_numbers(custom.format.na).items():
        if (hits := plain == value).any():
            marks[text] = int(hits.sum())
            plain = np.where(hits, np.nan, plain)
    return ReadColumn(Column(label), plain, marks)


def _text(where: str, label: str, text: pd.Series[Any], counts: Counter[str], how: tuple[Custom, bool]) -> ReadColumn:
    custom, categorical = how
    found = None if categorical else read_numbers(where, counts, custom)
    if found is not None:
        known = {None: np.nan, "": np.nan} | dict(found.values)
        codes = [known[value if value is None else value.strip()] for value in text]
        return ReadColumn(Column(label), np.array(codes, dtype=np.float64), found.marks, found.decimal)
    marks = {mark: count for mark, count in counts.items() if said_missing(mark, custom.format)}
    if marks:
        text = text.where(~text.str.strip().isin(list(marks)), None)
    levels = levels_of(text)
    _check_levels(where, levels, int(text.notna().sum()))
    code_of: dict[str | None, float] = {level: float(code) for code, level in enumerate(levels)} | {None: np.nan}
    return ReadColumn(Column(label, tuple(levels)), np.array([code_of[value] for value in text], np.float64), marks)


def typed_numbers(where: str, values: pd.Series[Any]) -> Array | None:
    """A column as float64 with NaN where it is missing; None where it is text or a category."""
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return None
    if pd.api.types.is_complex_dtype(dtype):
        raise InputError(f"{where} has complex numbers, which are not supported: split it, or remove it (--drop)")
    if isinstance(dtype, pd.SparseDtype):
        values = values.astype(dtype.subtype)
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        return values.to_numpy(np.float64, na_value=np.nan)
    if dtype.kind != "O":  # dates and durations
        raise InputError(
            f"{where} is of type {dtype}, numbers or text expected: turn it into one, or remove it (--drop)"
        )
    missing = values.isna()
    if all(isinstance(value, numbers.Real | decimal.Decimal | np.bool_) for value in values[~missing]):
        return np.array([np.nan if gap else _float(value) for value, gap in zip(values, missing, strict=True)])
    return None


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return np.inf if value > 0 else -np.inf


def as_text(where: str, values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of text, or of text and numbers, as strings; missing values are None."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    for value in values.dropna():
        if not isinstance(value, str | numbers.Real | decimal.Decimal | np.bool_):
            kind = type(value).__name__
            raise InputError(
                f"{where} has values of type {kind}, numbers or text expected: turn it into one, or remove it (--drop)"
            )
    plain = [None if gap else _str(value) for value, gap in zip(values, values.isna(), strict=True)]
    return pd.Series(plain, dtype=object)


def _str(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # a whole number with more digits than Python writes
        return str(_float(value))


def counts_of(text: pd.Series[Any]) -> Counter[str]:
    """How often each text occurs, blanks around it removed; empty ones left out."""
    counts = Counter(value.strip() for value in text if value is not None)
    counts.pop("", None)
    return counts


def levels_of(text: pd.Series[Any]) -> list[str]:
    """The distinct values, in the order of numbers if all are, else of text."""
    levels: list[str] = sorted(text.dropna().unique().tolist())
    parsed = {level: parse(level, ".") for level in levels}
    if all(value is not None for value in parsed.values()):
        levels.sort(key=lambda level: parsed[level] or 0.0)
    return levels


def _check_levels(where: str, levels: list[str], present: int) -> None:
    if len(levels) <= FEW:
        return
    if len(levels) <= MAX_LEVELS and len(levels) <= 0.9 * present:
        return
    if all(parse(level, ".") is not None for level in levels):
        raise InputError(
            f"{where} is text with {len(levels)} different values, all numbers, which begin with 0 as codes do: "
            "save them as numbers, or --drop it"
        )
    raise InputError(
        f"{where} is text with {len(levels)} different values in {present} rows, which "
        f"{'names the rows' if len(levels) > 0.9 * present else f'is too many for a category (at most {MAX_LEVELS})'}: "
        "remove it (--drop), or group its values"
    )


def kinds_in_words(read: Sequence[ReadColumn], dropped: Sequence[str]) -> str:
    """Which columns are numbers, categories (with how many levels), and dropped."""
    plain = [each.column.name for each in read if not each.column.categories]
    levels = [f"{each.column.name!r} {len(each.column.categories)}" for each in read if each.column.categories]
    kinds = [
        *([f"{len(plain)} number{'s' if len(plain) > 1 else ''} ({listed(plain, 5)})"] if plain else []),
        *([f"{len(levels)} {'category' if len(levels) == 1 else 'categories'} ({_some(levels, 5)})"] if levels else []),
        *([f"dropped {listed(list(dropped), 5)}"] if dropped else []),
    ]
    return "; ".join(kinds)


def guesses_in_words(read: Sequence[ReadColumn], sep: str | None, na: Iterable[str] = ()) -> tuple[str, ...]:
    """What was found out about the text: what was taken as missing, what was not, the separator, the decimal point."""
    lines = []
    gaps = [
        f"{each.column.name!r} {sum(each.marks.values())} of {len(each.codes)} "
        f"({listed(sorted(each.marks, key=each.marks.__getitem__, reverse=True), 5)})"
        for each in read
        if each.marks
    ]
    if gaps:
        lines.append(f"taken as missing: {_some(gaps, 10)}")
    marks = {mark for each in read for mark in each.marks}
    numbers = {parse(mark, point) for mark in marks for point in ".,"}
    unseen = [text for text in na if text not in marks and not (missing_numbers([text]).keys() & numbers)]
    if unseen:
        lines.append(f"--na {listed(unseen, 5)}: in no column, so nothing was taken as missing for it")
    comma = [each.column.name for each in read if each.decimal == ","]
    found = [
        *([f"{_name_of(sep)} separates the values"] if sep not in (None, ",") else []),
        *([f"decimal commas in {listed(comma, 5)}"] if comma else []),
    ]
    if found:
        lines.append("; ".join(found))
    counters = [each.column.name for each in read if _counts_rows(each)]
    if counters:
        lines.append(
            f"{listed(counters, 5)} just count{'s' if len(counters) == 1 else ''} the rows: --drop leaves it out"
        )
    return tuple(lines)


def _counts_rows(read: ReadColumn) -> bool:
    codes = read.codes
    return not read.column.categories and len(codes) > FEW and bool((np.diff(codes) == 1).all())


def _name_of(sep: str | None) -> str:
    return "a tab" if sep == "\t" else repr(sep)


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first of ``names``, as part of a message."""
    return _some([repr(name) for name in names], most)


def _some(words: Iterable[str], most: int) -> str:
    words = list(words)
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
