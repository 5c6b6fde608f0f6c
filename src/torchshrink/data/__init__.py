"""Data in, from wherever it is kept: `load` gives a `Dataset` of raw rows, `split` says which of them validate."""

from __future__ import annotations

from pathlib import Path

from torchshrink.data.dataset import Column, Dataset, Task
from torchshrink.data.frames import from_frame, from_parts
from torchshrink.data.readers import (
    BUNDLED,
    read_bundled,
    read_csv,
    read_function,
    read_npz,
    read_openml,
    read_parquet,
)
from torchshrink.data.splitting import require_rows_per_class, split
from torchshrink.data.text_format import Format
from torchshrink.errors import InputError
from torchshrink.support.text import suggestion

__all__ = [
    "BUNDLED",
    "Column",
    "Dataset",
    "Format",
    "from_frame",
    "from_parts",
    "load",
    "require_rows_per_class",
    "split",
]

_FILES = {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz}


def load(spec: str, *, target: str | None = None, task: Task | None = None, format: Format | None = None) -> Dataset:
    """The data set that ``spec`` names, raw.

    Args:
        spec: a bundled set (``digits``, ``breast_cancer``, ``wine``, ``iris``, ``diabetes``), a ``.csv``,
            ``.parquet`` or ``.npz`` file, ``openml:NAME``, or ``module:function``, called without arguments, that
            returns (X, y), a DataFrame or a `Dataset`.
        target: the target's column, or array in an npz file (``y`` where left out).
        task: ``"classification"`` or ``"regression"``; where None, classification if the target is text,
            boolean, a category, or whole numbers of which at most 20 are distinct.
        format: how a table's text is to be read, and which columns to leave out; found out where None.

    Raises:
        InputError: it cannot be found, read or learnt from as it is.

    >>> wine = load("wine")
    >>> wine.X.shape, wine.task, wine.columns[0].name
    (torch.Size([178, 13]), 'classification', 'alcohol')
    """
    format = format or Format()
    path = Path(spec)
    csv = path.suffix.lower() == ".csv" and not spec.startswith("openml:")
    table = csv or path.suffix.lower() == ".parquet" or (spec not in BUNDLED and ":" in spec)
    for option, fits in (("sep", csv), ("decimal", table), ("thousands", table)):
        if option in format.given() and not fits:
            raise InputError(f"--{option}: {spec} has no text to be read so; leave it out")
    reader = _FILES.get(path.suffix.lower())
    if spec.startswith("openml:") and spec != "openml:":
        return read_openml(spec.removeprefix("openml:"), target=target, task=task, format=format)
    if reader is not None:
        if not (_exists(path) and path.is_file()):
            raise InputError(f"{spec}: {'a folder, a file expected' if path.is_dir() else 'no such file'}")
        return reader(path, target=target, task=task, format=format)
    if spec in BUNDLED:
        if target is not None:
            raise InputError(f"{spec} has its own target: leave --target out")
        return read_bundled(spec, task=task, format=format)
    if spec and _exists(path):
        raise InputError(
            f"{spec} is no kind of data that is read here: a file that ends in {', '.join(_FILES)} expected"
        )
    if ":" in spec:
        return read_function(spec, target=target, task=task, format=format)
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"{spec}: no such file")
    raise InputError(
        f"no data set {spec!r}{suggestion(spec, BUNDLED) or '.'} There are {', '.join(BUNDLED)}; "
        "or give a .csv, .parquet or .npz file, openml:NAME, or module:function"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
