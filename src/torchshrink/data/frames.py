"""Tables and arrays to a `Dataset`: which columns are numbers and which categories, and what the target is.

A column is a number if its dtype is one or a boolean (0/1), or its values all are, text that is meant as numbers
included (`numerals`); else, if it is text, a category whose codes number its distinct values in sorted order. Nothing
is guessed beyond that: dates, lists and other objects are refused, and so is text that names rows (almost no two values
alike) or is free (more than MAX_LEVELS values). Of what is no number, only an empty cell is missing: ``NA`` may be
Namibia.

The target is classes if it is text, a category or a boolean, or if it has whole numbers only and no more than
MAX_NUMBER_CLASSES distinct ones; else numbers. ``task`` overrides this.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchshrink.data.columns import (
    ReadColumn,
    as_text,
    counts_of,
    guesses_in_words,
    kinds_in_words,
    levels_of,
    listed,
    read_columns,
    shown_decimals,
    typed_numbers,
)
from torchshrink.data.dataset import TASKS, Dataset, Task
from torchshrink.data.dense import check_dense
from torchshrink.data.numerals import FEW, Custom, missing_numbers, parse, read_numbers, said_missing
from torchshrink.errors import InputError
from torchshrink.support.text import suggestion

if TYPE_CHECKING:
    import pandas as pd

MAX_NUMBER_CLASSES = 20  # distinct whole numbers that are still taken for classes
MOST = float(np.finfo(np.float32).max)  # what a model's own numbers can hold

Array = NDArray[Any]
TYPED = Custom(typed=True)


def from_frame(
    name: str, frame: pd.DataFrame, target: str | None, *, task: Task | None = None, custom: Custom = TYPED
) -> Dataset:
    """A table, one of whose columns is the target, as a `Dataset`.

    Args:
        name: what to call it.
        frame: the table; its index is left aside.
        target: the name of the target's column.
        task: whether the target is classes or numbers; by the rule above where None.
        custom: how text writes numbers, and which columns to leave out.

    Raises:
        InputError: the table is not usable as it is: the message names the column, and says what to do.
    """
    labels = [str(label) for label in frame.columns]
    _check_names(name, labels)
    if target is None:
        raise InputError(f"{name}: which column is the target? Give --target COLUMN, one of {listed(labels)}")
    if target not in labels:
        raise InputError(f"{name}: no column {target!r}{suggestion(target, labels) or f': it has {listed(labels)}'}")
    if target in custom.format.drop:
        raise InputError(f"{name}: {target!r} is the target and to be dropped: give one of the two")
    place = labels.index(target)
    features = frame.iloc[:, [column for column in range(len(labels)) if column != place]]
    return from_parts(name, features, frame.iloc[:, place], target=target, task=task, custom=custom)


def from_parts(
    name: str, X: Any, y: Any, *, target: str = "y", task: Task | None = None, custom: Custom = TYPED
) -> Dataset:
    """Features and target as a `Dataset`.

    Args:
        name: what to call it.
        X: (n, d): a table, or an array or tensor of numbers or booleans.
        y: (n,) or (n, 1): a table's column, an array or a tensor; numbers, booleans or text.
        target: what to call ``y``.
        task: as `from_frame`.
        custom: as `from_frame`.

    Raises:
        InputError: as `from_frame`.
    """
    import pandas as pd

    if task not in (None, *TASKS):
        raise InputError(f"task={task!r}: expected {' or '.join(map(repr, TASKS))}")
    table = isinstance(X, pd.DataFrame)
    if not table:
        X = pd.DataFrame(_numbers_2d(name, X))
        X.columns = [f"x{place}" for place in range(X.shape[1])]
    X = _without(name, X, custom)
    labels = [str(label) for label in X.columns]
    _check_names(name, labels)
    if not labels:
        raise InputError(f"{name}: there is no column besides the target {target!r}: no features to learn from")
    series = y if isinstance(y, pd.Series) else pd.Series(_vector(name, y, target))
    if len(series) != len(X):
        raise InputError(f"{name}: X has {len(X)} rows and {target!r} has {len(series)}: they must be as long")
    if len(X) == 0:
        raise InputError(f"{name}: there are no rows")
    custom = shown_decimals([*(X.iloc[:, place] for place in range(X.shape[1])), series], custom)
    read = read_columns(name, X, labels, custom)
    labels_y, classes = _encode_target(name, series, target, task, custom)
    kinds = kinds_in_words(read, custom.format.drop) if table else ""
    notes = guesses_in_words(read, None if custom.typed else custom.sep, custom.format.na)
    codes = np.stack([each.codes for each in read], axis=1)
    _check_range(name, read)
    dataset = Dataset(
        name,
        torch.from_numpy(codes),
        torch.from_numpy(labels_y),
        tuple(each.column for each in read),
        target,
        classes,
        kinds,
        notes,
    )
    _check_informative(dataset)
    return dataset


def _without(name: str, X: pd.DataFrame, custom: Custom) -> pd.DataFrame:
    labels = [str(label) for label in X.columns]
    for column in custom.format.drop:
        if column not in labels:
            raise InputError(
                f"{name}: no column {column!r} to drop{suggestion(column, labels) or f': it has {listed(labels)}'}"
            )
    return X.iloc[:, [place for place, label in enumerate(labels) if label not in custom.format.drop]]


def _check_names(name: str, labels: list[str]) -> None:
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        raise InputError(f"{name}: more than one column is called {listed(twice)}: rename them")


def _check_range(name: str, read: list[ReadColumn]) -> None:
    for each in read:
        beyond = int((np.abs(each.codes) > MOST).sum())
        if beyond:
            raise InputError(
                f"{name}: column {each.column.name!r} is infinite, or too large for float32, in "
                f"{beyond} of {len(each.codes)} rows: correct them, or leave them empty to have them imputed"
            )


def _check_informative(dataset: Dataset) -> None:
    present = ~torch.isnan(dataset.X)
    least = torch.where(present, dataset.X, torch.inf).amin(0)
    most = torch.where(present, dataset.X, -torch.inf).amax(0)
    if not bool((least < most).any()):
        raise InputError(f"{dataset.name}: every feature is constant or missing in all rows: nothing to learn from")


# --- arrays -----------------------------------------------------------------------------------------------------------


def _numbers_2d(name: str, X: Any) -> Array:
    values = _array(name, X, "X")
    if values.ndim != 2:
        raise InputError(f"{name}: X has shape {values.shape}, (rows, columns) expected: reshape it to two dimensions")
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name}: X has dtype {values.dtype}, numbers or booleans expected")
    return np.array(values, dtype=np.float64)  # a copy


def _vector(name: str, y: Any, target: str) -> Array:
    values = _array(name, y, repr(target))
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{name}: {target!r} has shape {values.shape}, (rows,) expected: one target per row")
    if values.dtype.kind not in "biufOUTc":
        raise InputError(f"{name}: {target!r} has dtype {values.dtype}, numbers, booleans or text expected")
    return values


def _array(name: str, values: Any, what: str) -> Array:
    if isinstance(values, torch.Tensor):
        return _plain(name, values.detach(), what)
    if isinstance(values, np.ma.MaskedArray):  # whose mask would be lost without a word
        plain: Any = values
        numeric = values.dtype.kind in "biuf"
        values = plain.astype(np.float64).filled(np.nan) if numeric else plain.astype(object).filled(None)
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths; tensors that are no arrays
        raise InputError(f"{name}: {what} is no array: its rows have different lengths, or are none") from error


def _plain(name: str, values: torch.Tensor, what: str) -> Array:
    check_dense(f"{name}: {what}", values)
    try:
        wide = values.double() if values.is_floating_point() else values
        plain: Array = wide.cpu().resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"{name}: {what} is a tensor of {values.dtype}, which is no array of numbers") from error
    return plain


# --- target -----------------------------------------------------------------------------------------------------------


def _encode_target(
    name: str, values: pd.Series[Any], target: str, task: Task | None, custom: Custom
) -> tuple[Array, tuple[str, ...]]:
    """The target as int64 codes and the classes' names, or as float64 numbers and ()."""
    import pandas as pd

    where = f"{name}: target {target!r}"
    plain = typed_numbers(where, values)
    boolean = pd.api.types.is_bool_dtype(values.dtype)
    if plain is None or (boolean and task != "regression"):
        text = as_text(where, values)
        empty = sum(not (each or "").strip() or said_missing(each.strip(), custom.format) for each in text)
        if empty:
            raise InputError(f"{where} is missing in {empty} of {len(values)} rows: drop these rows")
        categorical = isinstance(values.dtype, pd.CategoricalDtype)
        plain = _text_numbers(where, text, task, custom) if not (boolean or (categorical and task is None)) else None
        if plain is None:
            return _classes(where, text, task)
    plain = np.where(np.isin(plain, list(missing_numbers(custom.format.na))), np.nan, plain)
    missing = int(np.isnan(plain).sum())
    if missing:
        raise InputError(f"{where} is missing in {missing} of {len(values)} rows: drop these rows")
    if not np.isfinite(plain).all():
        raise InputError(
            f"{where} is infinite in {int((~np.isfinite(plain)).sum())} of {len(plain)} rows: drop these rows"
        )
    distinct = np.unique(plain)
    few = len(distinct) <= MAX_NUMBER_CLASSES and bool((distinct == np.round(distinct)).all())
    if task == "classification" or (task is None and few):
        return _classes(where, pd.Series([_label(value) for value in plain], dtype=object), task)
    if len(distinct) == 1:
        raise InputError(f"{where} is {_label(distinct[0])} in all {len(plain)} rows: nothing to learn")
    if np.abs(plain).max() > MOST:
        raise InputError(f"{where} has values beyond float32's ±3.4e38: change its unit")
    return np.array(plain, dtype=np.float64), ()


def _text_numbers(where: str, text: pd.Series[Any], task: Task | None, custom: Custom) -> Array | None:
    """A target of text as numbers; None where it is classes."""
    counts = counts_of(text)
    if task == "classification":
        # As they are written, unless they are plain numbers, which name the same class in several ways: 1 and 1.0.
        values = {each: parse(each, ".") for each in counts}
        if any(value is None for value in values.values()):
            return None
        return np.array([values[each.strip()] for each in text], dtype=np.float64)
    try:
        found = read_numbers(where, counts, custom)
    except InputError as error:
        advice = "; say --task classification if these are classes" if task is None else ""
        raise InputError(f"{error}{advice}") from None
    booleans = {each.casefold() for each in counts} <= {"true", "false"}
    if task == "regression" and found is None:
        odd = sorted(each for each in counts if parse(each, ".", custom.format) is None)
        raise InputError(f"{where} is not numeric ({listed(odd)}): numbers expected, or classes as the task")
    if found is None or (booleans and task is None):
        return None
    if found.marks:
        raise InputError(
            f"{where} is numbers, and missing in {sum(found.marks.values())} of {len(text)} rows "
            f"({listed(sorted(found.marks))}): drop these rows, or say --task classification if these are classes"
        )
    return np.array([found.values[each.strip()] for each in text], dtype=np.float64)


def _classes(where: str, labels: pd.Series[Any], task: Task | None) -> tuple[Array, tuple[str, ...]]:
    classes = levels_of(labels)
    if len(classes) == 1:
        raise InputError(f"{where} is {classes[0]!r} in all {len(labels)} rows, at least two classes expected")
    if len(classes) > max(FEW, len(labels) / 2):
        advice = "give --task regression if it is a number" if task is None else "at least two rows of each are needed"
        raise InputError(f"{where} has {len(classes)} classes in {len(labels)} rows: {advice}")
    codes = labels.map({label: code for code, label in enumerate(classes)})
    return np.array(codes, dtype=np.int64), tuple(classes)


def _label(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
