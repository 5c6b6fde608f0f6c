"""One reader per kind of source: bundled sets, CSV, Parquet, npz, OpenML, and the user's own function."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torchshrink.data.dataset import Column, Dataset, Task
from torchshrink.data.frames import from_frame, from_parts, listed
from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.support.user_code import call_function, did_you_mean

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")


def read_bundled(name: str, *, task: Task | None) -> Dataset:
    """A data set that comes with scikit-learn, in its raw units."""
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
    dataset = from_parts(name, bunch.data, bunch.target, target="target", task=task)
    columns = tuple(Column(str(column)) for column in bunch.feature_names)
    classes = tuple(str(label) for label in bunch.get("target_names", dataset.classes)) if dataset.classes else ()
    return Dataset(name, dataset.X, dataset.y, columns, "target", classes)


def read_csv(path: Path, *, target: str | None, task: Task | None) -> Dataset:
    """A CSV file: UTF-8, comma-separated, the first line the column names."""
    import pandas as pd

    try:
        header = _check_csv(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, index_col=False)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (OSError, ValueError, csv.Error, pd.errors.ParserWarning) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as CSV: {brief(error)}") from error
    if target is None and len(header) == 1:
        raise InputError(f"{path} has one column, {header[0]!r}: are its values separated by commas?")
    return from_frame(_file_name(path), frame, target, task=task)


def _check_csv(path: Path) -> list[str]:
    """The header, once every row is known to be as long: pandas would fill short rows and rename equal columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next((row for row in rows if row), [])
        if not header:
            raise InputError(f"{path} is empty: a line of column names and then rows expected")
        unnamed = [place for place, label in enumerate(header, start=1) if not label.strip()]
        if unnamed:
            raise InputError(f"{path}: column {unnamed[0]} has no name (a saved row number?): name it or remove it")
        twice = [label for place, label in enumerate(header) if label in header[:place]]
        if twice:
            raise InputError(f"{path}: more than one column is called {twice[0]!r}: rename them")
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(f"{path}, line {rows.line_num}: {len(row)} values given, {len(header)} expected")
    return header


def read_parquet(path: Path, *, target: str | None, task: Task | None) -> Dataset:
    """A Parquet file."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except Exception as error:  # a foreign file provokes anything
        raise InputError(f"{path} cannot be read as Parquet: {brief(error)}") from error
    return from_frame(_file_name(path), frame, target, task=task)


def read_npz(path: Path, *, target: str | None, task: Task | None) -> Dataset:
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
                    near = did_you_mean(name, archive.files)
                    has = listed(archive.files) or "none"
                    raise InputError(f"{path}: no array {name!r}{near or f': {advice}'} (it has {has})")
            X, y = archive["X"], archive[y_name]
    except InputError:
        raise
    except Exception as error:  # a foreign file provokes anything
        raise InputError(f"{path} cannot be read as npz: {brief(error)}") from error
    return from_parts(_file_name(path), X, y, target=y_name, task=task)


def read_openml(name: str, *, target: str | None, task: Task | None) -> Dataset:
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
    return from_frame(_safe(name), bunch.frame, str(names[0]), task=task)


def read_function(spec: str, *, target: str | None, task: Task | None) -> Dataset:
    """What the user's function returns: a `Dataset`, a table (with ``target``), or the pair (X, y)."""
    import pandas as pd

    result = call_function(spec)
    name = _safe(spec)
    if isinstance(result, pd.DataFrame):
        return from_frame(name, result, target, task=task)
    if target is not None:
        raise InputError(
            f"{spec} returned an object of type {type(result).__name__}, which has its own target: leave --target out"
        )
    if isinstance(result, Dataset):
        if task is not None and task != result.task:
            raise InputError(f"{spec} returned a Dataset with a target of {result.task}, {task} asked for")
        return result
    if isinstance(result, tuple | list) and len(result) == 2:
        return from_parts(name, result[0], result[1], task=task)
    raise InputError(
        f"{spec} returned an object of type {type(result).__name__}: (X, y), a DataFrame or a Dataset expected"
    )


def _file_name(path: Path) -> str:
    return _safe(path.stem)


def _safe(name: str) -> str:
    """A name that can be a folder's."""
    return re.sub(r"[^\w.-]+", "-", name)
