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
from torchshrink.errors import InputError
from torchshrink.support.user_code import did_you_mean

__all__ = ["BUNDLED", "Column", "Dataset", "from_frame", "from_parts", "load", "require_rows_per_class", "split"]

_FILES = {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz}


def load(spec: str, *, target: str | None = None, task: Task | None = None) -> Dataset:
    """The data set that ``spec`` names, raw.

    Args:
        spec: a bundled set (``digits``, ``breast_cancer``, ``wine``, ``iris``, ``diabetes``), a ``.csv``,
            ``.parquet`` or ``.npz`` file, ``openml:NAME``, or ``module:function``, called without arguments, that
            returns (X, y), a DataFrame or a `Dataset`.
        target: the target's column, or array in an npz file (``y`` where left out).
        task: ``"classes"`` or ``"numbers"``; where None, classes if the target is text, boolean, a category, or
            whole numbers of which at most 20 are distinct.

    Raises:
        InputError: it cannot be found, read or learnt from as it is.

    >>> wine = load("wine")
    >>> wine.X.shape, wine.task, wine.columns[0].name
    (torch.Size([178, 13]), 'classes', 'alcohol')
    """
    path = Path(spec)
    reader = _FILES.get(path.suffix.lower())
    if spec.startswith("openml:") and spec != "openml:":
        return read_openml(spec.removeprefix("openml:"), target=target, task=task)
    if reader is not None:
        if not path.is_file():
            raise InputError(f"{spec}: {'a folder, a file expected' if path.is_dir() else 'no such file'}")
        return reader(path, target=target, task=task)
    if spec in BUNDLED:
        if target is not None:
            raise InputError(f"{spec} has its own target: leave --target out")
        return read_bundled(spec, task=task)
    if spec and path.exists():
        raise InputError(
            f"{spec} is no kind of data that is read here: a file that ends in {', '.join(_FILES)} expected"
        )
    if ":" in spec:
        return read_function(spec, target=target, task=task)
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"{spec}: no such file")
    raise InputError(
        f"no data set {spec!r}{did_you_mean(spec, BUNDLED) or '.'} There are {', '.join(BUNDLED)}; "
        "or give a .csv, .parquet or .npz file, openml:NAME, or module:function"
    )
