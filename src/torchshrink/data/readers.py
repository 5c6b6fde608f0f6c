"""One reader per kind of source: bundled sets, CSV, Parquet, npz, OpenML, and the user's own function."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torchshrink.data.columns import listed
from torchshrink.data.dataset import Dataset, Task
from torchshrink.data.frames import from_frame, from_parts
from torchshrink.data.numerals import Custom
from torchshrink.data.text_format import SEPARATORS, Format
from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.support.text import suggestion
from torchshrink.support.user_code import call_function

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")


def read_bundled(name: str, *, task: Task | None, format: Format) -> Dataset:
    """A data set that comes with scikit-learn, in its raw units."""
    import pandas as pd
    from sklearn import datasets

    makers: dict[str, Callable[[], Any]] = {
        "digits": datasets.load_digits,
        "breast_cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "iris": datasets.load_iris,
        # As delivered, its columns are scaled over all rows, those of the validation included.
        "diabetes": lambda: datasets.load_diabetes(scaled=False),
    }
    bunch = makers[name]()
    table = pd.DataFrame(bunch.data, columns=[str(column) for column in bunch.feature_names])
    dataset = from_parts(name, table, bunch.target, target="target", task=task, custom=Custom(format, typed=True))
    classes = tuple(str(label) for label in bunch.get("target_names", dataset.classes)) if dataset.classes else ()
    return dataclasses.replace(dataset, classes=classes, kinds="", notes=())


def read_csv(path: Path, *, target: str | None, task: Task | None, format: Format) -> Dataset:
    """A CSV file: UTF-8, the first line the column names; blanks around values and names are left out."""
    import pandas as pd

    text = _text_of(path)
    try:
        sep = format.sep or _separator(text)
        header, rows = _rows(path, text, sep)
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV: {brief(error)}") from error
    if len(header) == 1 and target not in header:
        advice = "leave --sep out to have it found" if format.sep else "say what stands between its values: --sep ';'"
        raise InputError(f"{path} has one column, {header[0]!r}, where it is split at {sep!r}: {advice}")
    frame = pd.DataFrame({label: [row[k] for row in rows] for k, label in enumerate(header)}, dtype=object)
    return from_frame(_file_name(path), frame, target, task=task, custom=Custom(format, sep=sep))


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else error.reason
        raise InputError(f"{path} is not UTF-8 text ({kind}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read as CSV: {brief(error)}") from error
    if "\0" in text:
        raise InputError(f"{path} has NUL bytes, which text has not: save it as UTF-8 text")
    return text


def _records(text: str, sep: str) -> Iterator[list[str]]:
    """The lines' values without the blanks around them; lines without any value are no rows."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True, skipinitialspace=not sep.isspace())
    for row in lines:
        if row:
            yield [value.strip() for value in row]


def _separator(text: str) -> str:
    """What separates the values: the comma, unless only another one makes as many columns in each of the first rows."""
    for sep in SEPARATORS:
        try:
            widths = {len(row) for row in itertools.islice(_records(text, sep), 100)}
        except csv.Error:
            continue
        if len(widths) == 1 and widths != {1}:
            return sep
    return SEPARATORS[0]


def _rows(path: Path, text: str, sep: str) -> tuple[list[str], list[list[str | None]]]:
    """The header and the rows, once every row is known to be as long; None where a value is empty."""
    records = _records(text, sep)
    header = next(records, [])
    if not header:
        raise InputError(f"{path} is empty: a line of column names and then rows expected")
    unnamed = [place for place, label in enumerate(header, start=1) if not label]
    if unnamed:
        raise InputError(f"{path}: column {unnamed[0]} has no name (a saved row number?): name it or remove it")
    twice = [label for label, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(f"{path}: more than one column is called {twice[0]!r}: rename them")
    rows: list[list[str | None]] = []
    for number, row in enumerate(records, start=2):
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {_line_of(text, sep, number)}: {len(row)} values given, {len(header)} expected"
            )
        rows.append([value or None for value in row])
    return header, rows


def _line_of(text: str, sep: str, record: int) -> int:
    """In which line a record ends: values may have line ends in them."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=sep)
    for row in lines:
        record -= bool(row)
        if not record:
            break
    return lines.line_num


def read_parquet(path: Path, *, target: str | None, task: Task | None, format: Format) -> Dataset:
    """A Parquet file."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except Exception as error:  # a foreign file provokes anything
        raise InputError(f"{path} cannot be read as Parquet: {brief(error)}") from error
    return from_frame(_file_name(path), frame, target, task=task, custom=Custom(format, typed=True))


def read_npz(path: Path, *, target: str | None, task: Task | None, format: Format) -> Dataset:
    """An npz file with the arrays ``X`` and ``y``, or whatever the target is called."""
    y_name = "y" if target is None else target
    try:
        # Opened here: numpy leaves the files open that it cannot read.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise InputError(f"{path} holds one array, an npz file with the arrays X and y expected")
            for name, advice in (("X", "save the features as X"), (y_name, "give --target NAME")):
                if name not in archive.files:
                    near = suggestion(name, archive.files)
                    has = listed(archive.files) or "none"
                    raise InputError(f"{path}: no array {name!r}{near or f': {advice}'} (it has {has})")
            X, y = archive["X"], archive[y_name]
    except InputError:
        raise
    except Exception as error:  # a foreign file provokes anything
        raise InputError(f"{path} cannot be read as npz: {brief(error)}") from error
    return from_parts(_file_name(path), X, y, target=y_name, task=task, custom=Custom(format, typed=True))


def read_openml(name: str, *, target: str | None, task: Task | None, format: Format) -> Dataset:
    """The active version of a data set of OpenML, fetched (and kept) by scikit-learn."""
    from sklearn import datasets

    source = f"openml:{name}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A network error occurred")  # said below, in one line
            bunch = datasets.fetch_openml(
                name, as_frame=True, parser="auto", target_column="default-target" if target is None else target
            )
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{source} cannot be fetched: {brief(error)}: check its name, --target, the network"
        ) from error
    names = list(bunch.target_names or [])
    if len(names) != 1:
        columns = [str(column) for column in bunch.frame.columns]
        raise InputError(f"{source} has {len(names)} targets: give --target COLUMN, one of {listed(columns)}")
    custom = Custom(format, typed=True)
    return from_frame(_safe(name), bunch.frame, str(names[0]), task=task, custom=custom)


def read_function(spec: str, *, target: str | None, task: Task | None, format: Format) -> Dataset:
    """What the user's function returns: a `Dataset`, a table (with ``target``), or the pair (X, y)."""
    import pandas as pd

    result = call_function(spec)
    name = _safe(spec)
    custom = Custom(format, typed=True)
    if isinstance(result, pd.DataFrame):
        return from_frame(name, result, target, task=task, custom=custom)
    if target is not None:
        raise InputError(
            f"{spec} returned an object of type {type(result).__name__}, which has its own target: leave --target out"
        )
    if isinstance(result, Dataset):
        if task is not None and task != result.task:
            raise InputError(f"{spec} returned a Dataset for {result.task}, {task} asked for")
        if format.given():
            raise InputError(f"{spec} returned a Dataset, whose columns are read already: leave {_options(format)} out")
        return result
    if isinstance(result, tuple | list) and len(result) == 2:
        return from_parts(name, result[0], result[1], task=task, custom=custom)
    raise InputError(
        f"{spec} returned an object of type {type(result).__name__}: (X, y), a DataFrame or a Dataset expected"
    )


def _options(format: Format) -> str:
    return " and ".join(f"--{name}" for name in format.given())


def _file_name(path: Path) -> str:
    return _safe(path.stem)


def _safe(name: str) -> str:
    """A name that can be a folder's."""
    return re.sub(r"[^\w.-]+", "-", name)
