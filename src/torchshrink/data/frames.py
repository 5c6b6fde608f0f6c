"""Tables and arrays to a `Dataset`: which columns are numbers and which categories, and what the target is.

A column is a number if its dtype is one or a boolean (0/1), or its values all are; else, if it is text, a category
whose codes number its distinct values in sorted order. Nothing is guessed beyond that: dates, lists and other objects
are refused, and so is text that names rows (almost no two values alike) or is free (more than MAX_LEVELS values).

The target is classes if it is text, a category or a boolean, or if it has whole numbers only and no more than
MAX_NUMBER_CLASSES distinct ones; else numbers. ``task`` overrides this.
"""

from __future__ import annotations

import decimal
import numbers
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchshrink.data.dataset import TASKS, Column, Dataset, Task
from torchshrink.errors import InputError
from torchshrink.support.user_code import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

MAX_LEVELS = 1000  # of a category: more is free text, and one column of weights each
MAX_NUMBER_CLASSES = 20  # distinct whole numbers that are still taken for classes
_FEW = 20  # rows up to which text may differ in every row

Array = NDArray[Any]


def from_frame(name: str, frame: pd.DataFrame, target: str | None, *, task: Task | None = None) -> Dataset:
    """A table, one of whose columns is the target, as a `Dataset`.

    Args:
        name: what to call it.
        frame: the table; its index is left aside.
        target: the name of the target's column.
        task: whether the target is classes or numbers; by the rule above where None.

    Raises:
        InputError: the table is not usable as it is: the message names the column, and says what to do.
    """
    labels = [str(label) for label in frame.columns]
    _check_names(name, labels)
    if target is None:
        raise InputError(f"{name}: which column is the target? Give --target COLUMN, one of {listed(labels)}")
    if target not in labels:
        raise InputError(f"{name}: no column {target!r}{did_you_mean(target, labels) or f': it has {listed(labels)}'}")
    place = labels.index(target)
    features = frame.iloc[:, [column for column in range(len(labels)) if column != place]]
    return from_parts(name, features, frame.iloc[:, place], target=target, task=task)


def from_parts(name: str, X: Any, y: Any, *, target: str = "y", task: Task | None = None) -> Dataset:
    """Features and target as a `Dataset`.

    Args:
        name: what to call it.
        X: (n, d): a table, or an array or tensor of numbers or booleans.
        y: (n,) or (n, 1): a table's column, an array or a tensor; numbers, booleans or text.
        target: what to call ``y``.
        task: as `from_frame`.

    Raises:
        InputError: as `from_frame`.
    """
    import pandas as pd

    if task not in (None, *TASKS):
        raise InputError(f"task={task!r}: expected {' or '.join(map(repr, TASKS))}")
    if isinstance(X, pd.DataFrame):
        labels = [str(label) for label in X.columns]
        _check_names(name, labels)
        columns, codes = _encode_frame(name, X, labels)
    else:
        codes = _numbers_2d(name, X)
        columns = tuple(Column(f"x{place}") for place in range(codes.shape[1]))
    if codes.shape[1] == 0:
        raise InputError(f"{name}: there is no column besides the target {target!r}: no features to learn from")
    series = y if isinstance(y, pd.Series) else pd.Series(_vector(name, y, target))
    if len(series) != len(codes):
        raise InputError(f"{name}: X has {len(codes)} rows and {target!r} has {len(series)}: they must be as long")
    if len(codes) == 0:
        raise InputError(f"{name}: there are no rows")
    labels_y, classes = _encode_target(name, series, target, task)
    dataset = Dataset(name, torch.from_numpy(codes), torch.from_numpy(labels_y), columns, target, classes)
    _check_informative(dataset)
    return dataset


def _check_names(name: str, labels: list[str]) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    if twice:
        raise InputError(f"{name}: more than one column is called {listed(twice)}: rename them")


def _check_informative(dataset: Dataset) -> None:
    present = ~torch.isnan(dataset.X)
    least = torch.where(present, dataset.X, torch.inf).amin(0)
    most = torch.where(present, dataset.X, -torch.inf).amax(0)
    if not bool((least < most).any()):
        raise InputError(f"{dataset.name}: every feature is constant or missing in all rows: nothing to learn from")


# --- features ---------------------------------------------------------------------------------------------------------


def _encode_frame(name: str, frame: pd.DataFrame, labels: list[str]) -> tuple[tuple[Column, ...], Array]:
    codes = np.empty(frame.shape, dtype=np.float32)
    columns = []
    for place, label in enumerate(labels):
        where = f"{name}: column {label!r}"
        values = frame.iloc[:, place]
        plain = _as_numbers(where, values)
        if plain is None:
            text = _as_text(where, values)
            levels = _levels(text)
            _check_levels(where, levels, len(text.dropna()))
            columns.append(Column(label, tuple(levels)))
            plain = text.map({level: code for code, level in enumerate(levels)}).to_numpy(np.float64, na_value=np.nan)
        else:
            columns.append(Column(label))
        codes[:, place] = _narrow(plain)
    return tuple(columns), codes


def _as_numbers(where: str, values: pd.Series[Any]) -> Array | None:
    """A column as float64 with NaN where it is missing; None where it is text or a category."""
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return None
    if pd.api.types.is_complex_dtype(dtype):
        raise InputError(f"{where} has complex numbers, which are not supported: split it, or remove it")
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        return values.to_numpy(np.float64, na_value=np.nan)
    if dtype.kind != "O":  # dates and durations
        raise InputError(f"{where} is of type {dtype}, numbers or text expected: turn it into one, or remove it")
    present = values.dropna()
    if all(isinstance(value, numbers.Real | decimal.Decimal | np.bool_) for value in present):
        return np.array(
            [np.nan if missing else float(value) for value, missing in zip(values, values.isna(), strict=True)]
        )
    return None


def _as_text(where: str, values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of text, or of text and numbers, as strings; missing values stay missing."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    for value in values.dropna():
        if not isinstance(value, str | numbers.Real | decimal.Decimal | np.bool_):
            kind = type(value).__name__
            raise InputError(
                f"{where} has values of type {kind}, numbers or text expected: turn it into one, or remove it"
            )
    return values.astype(object).where(values.notna(), None).map(str, na_action="ignore")


def _check_levels(where: str, levels: list[str], present: int) -> None:
    if len(levels) <= _FEW or (len(levels) <= MAX_LEVELS and len(levels) <= 0.9 * present):
        return
    odd = [level for level in levels if _number(level) is None]
    if not odd:
        raise InputError(f"{where} is text with {len(levels)} different values, all numbers: save them as numbers")
    if len(odd) <= 0.1 * len(levels):
        raise InputError(
            f"{where} has {len(levels)} different values, all numbers but for {listed(odd)}: leave those empty"
        )
    raise InputError(
        f"{where} is text with {len(levels)} different values in {present} rows, which "
        f"{'names the rows' if len(levels) > 0.9 * present else f'is too many for a category (at most {MAX_LEVELS})'}: "
        "remove it, or group its values"
    )


def _numbers_2d(name: str, X: Any) -> Array:
    values = _array(name, X, "X")
    if values.ndim != 2:
        raise InputError(f"{name}: X has shape {values.shape}, (rows, columns) expected: reshape it to two dimensions")
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name}: X has dtype {values.dtype}, numbers or booleans expected")
    return _narrow(values)


def _vector(name: str, y: Any, target: str) -> Array:
    values = _array(name, y, repr(target))
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{name}: {target!r} has shape {values.shape}, (rows,) expected: one target per row")
    return values


def _array(name: str, values: Any, what: str) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        plain: Array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return plain
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}: {what} is no array: its rows have different lengths") from error


def _narrow(values: Array) -> Array:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return np.array(values, dtype=np.float32)


# --- target -----------------------------------------------------------------------------------------------------------


def _encode_target(name: str, values: pd.Series[Any], target: str, task: Task | None) -> tuple[Array, tuple[str, ...]]:
    """The target as int64 codes and the classes' names, or as float32 numbers and ()."""
    import pandas as pd

    where = f"{name}: target {target!r}"
    missing = int(values.isna().sum())
    if missing:
        raise InputError(f"{where} is missing in {missing} of {len(values)} rows: drop these rows")
    plain = _as_numbers(where, values)
    boolean = pd.api.types.is_bool_dtype(values.dtype)
    if task == "numbers":
        plain = _text_numbers(where, _as_text(where, values)) if plain is None else plain
    elif plain is None or boolean:
        return _classes(where, _as_text(where, values), task)
    if not np.isfinite(plain).all():
        raise InputError(
            f"{where} is infinite in {int((~np.isfinite(plain)).sum())} of {len(plain)} rows: drop these rows"
        )
    distinct = np.unique(plain)
    few = len(distinct) <= MAX_NUMBER_CLASSES and bool((distinct == np.round(distinct)).all())
    if task == "classes" or (task is None and few):
        return _classes(where, pd.Series([_label(value) for value in plain], dtype=object), task)
    if len(distinct) == 1:
        raise InputError(f"{where} is {_label(distinct[0])} in all {len(plain)} rows: nothing to learn")
    narrow = _narrow(plain)
    if not np.isfinite(narrow).all():
        raise InputError(f"{where} has values beyond float32's ±3.4e38: change its unit")
    return narrow, ()


def _classes(where: str, labels: pd.Series[Any], task: Task | None) -> tuple[Array, tuple[str, ...]]:
    classes = _levels(labels)
    if len(classes) == 1:
        raise InputError(f"{where} is {classes[0]!r} in all {len(labels)} rows, at least two classes expected")
    if len(classes) > max(_FEW, len(labels) / 2):
        advice = "give --task numbers if it is a number" if task is None else "at least two rows of each are needed"
        raise InputError(f"{where} has {len(classes)} classes in {len(labels)} rows: {advice}")
    codes = labels.map({label: code for code, label in enumerate(classes)})
    return np.array(codes, dtype=np.int64), tuple(classes)


def _text_numbers(where: str, text: pd.Series[Any]) -> Array:
    parsed = [_number(value) for value in text]
    odd = sorted({value for value, number in zip(text, parsed, strict=True) if number is None})
    if odd:
        raise InputError(f"{where} is not numeric ({listed(odd)}): numbers expected, or classes as the task")
    return np.array(parsed, dtype=np.float64)


def _levels(text: pd.Series[Any]) -> list[str]:
    """The distinct values, in the order of numbers if all are, else of text."""
    levels: list[str] = sorted(text.dropna().unique().tolist())
    parsed = {level: _number(level) for level in levels}
    if all(value is not None for value in parsed.values()):
        levels.sort(key=lambda level: parsed[level] or 0.0)
    return levels


def _number(text: str) -> float | None:
    """What finite number ``text`` is, if it is one."""
    if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text):
        return None
    return float(text)


def _label(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def listed(names: list[str], most: int = 10) -> str:
    """The first of ``names``, as part of a message."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
