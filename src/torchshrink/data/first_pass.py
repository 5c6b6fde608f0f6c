"""The first pass over a Dataset: its targets, a digest of its rows, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as MapDataset

from torchshrink.data.dataset_rows import Filling, Item, Reader, Taken, checked, close, loader, unlike
from torchshrink.data.lazy import LazyRows
from torchshrink.errors import DataWarning, InputError
from torchshrink.support.progress_bar import Bar

PER_REQUEST = 64  # rows, of the first pass
_DIGEST = 16  # bytes per row


@dataclass(frozen=True, eq=False)
class Look:
    """What some items show: arrays and bytes, since many tensors that another process made are many open files."""

    y: NDArray[Any]
    x_kind: tuple[str, tuple[int, ...]]
    missing: NDArray[Any]
    digests: bytes


def look(numbers: Sequence[int], items: Iterable[Item]) -> Look:
    """Look at some items.

    Raises:
        InputError: their shapes or dtypes differ, or one is not finite.
    """
    rows, targets = Filling("x", numbers), Filling("y", numbers)
    for x, target in items:
        rows.add(x)
        targets.add(target)
    X, y = rows.made.cpu(), targets.made.cpu()
    y = y.float() if y.dtype == torch.bfloat16 else y  # which NumPy does not have
    flat = X.contiguous().flatten(1) if X.ndim > 1 else X.unsqueeze(1)
    missing = torch.zeros(len(X), dtype=torch.bool)
    if X.is_floating_point():
        missing = flat.isnan().any(1)
        infinite = flat.isinf().any(1)
        if bool(infinite.any()):
            raise InputError(f"data[{numbers[int(infinite.int().argmax())]}]: x has infinite values: clip them")
    plain = (y.contiguous().flatten(1) if y.ndim > 1 else y.unsqueeze(1)).view(torch.uint8).numpy()
    pairs = zip(flat.view(torch.uint8).numpy(), plain, strict=True)
    digests = b"".join(hashlib.sha256(row.tobytes() + target.tobytes()).digest()[:_DIGEST] for row, target in pairs)
    return Look(y.numpy(), (str(X.dtype), tuple(X.shape[1:])), missing.numpy(), digests)


def opened(data: object, *, workers: int = 0, progress: bool = False) -> tuple[Any, Any] | tuple[LazyRows, Tensor]:
    """A map-style Dataset as its rows, still to be read, and its targets; a pair (X, y) as it is.

    Every item is read once, by the workers if there are any: the targets are kept, and of the rows a digest.

    Args:
        data: the pair, or the Dataset.
        workers: how many processes read ahead.
        progress: whether to count rows on stderr.

    Raises:
        InputError: it is neither, an item is no pair (x, y) of numbers, their shapes or dtypes differ, or there are
            workers and nothing for them to do.

    Warns:
        DataWarning: an item is another one when it is read again.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InputError(f"workers={workers!r}: expected a whole number ≥ 0")
    if type(data) is TensorDataset:
        if len(data.tensors) != 2:
            raise InputError(f"data: a TensorDataset of {len(data.tensors)} tensors given, one of (X, y) expected")
        data = data.tensors
    if isinstance(data, tuple | list) and len(data) == 2:
        if workers:
            raise InputError(f"workers={workers}: the data are in memory, so there is nothing to read: leave it out")
        return data[0], data[1]
    if isinstance(data, DataLoader):
        raise InputError(
            "data: a DataLoader given, its dataset expected: loader.dataset, with workers= and batch_size="
        )
    if isinstance(data, IterableDataset) or not isinstance(data, MapDataset):
        raise InputError(
            f"data: {type(data).__name__} given, a pair (X, y) or a map-style torch.utils.data.Dataset expected, "
            "whose rows can be asked for by number"
        )
    try:
        count = len(data)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError) as error:
        raise InputError(f"data: {type(data).__name__} has no length: give it a __len__") from error
    if count < 2:
        raise InputError(f"data has {count} rows: at least 2 expected")
    return _surveyed(data, count, workers, progress)


def _surveyed(data: MapDataset[Any], count: int, workers: int, progress: bool) -> tuple[LazyRows, Tensor]:
    source = Taken(data, look)
    first: Look = source.of([0])
    name, shape = first.x_kind
    requests = [range(at, min(at + PER_REQUEST, count)) for at in range(0, count, PER_REQUEST)]
    # Filled in place: of many small arrays, one after each request, the heap would keep a request's room each.
    y = np.empty((count, *first.y.shape[1:]), first.y.dtype)
    missing = np.empty(count, dtype=bool)
    digests = bytearray(count * _DIGEST)
    reading = loader(source, requests, workers)
    bar = Bar("data", "row", total=count, shown=progress)
    try:
        for numbers, found in zip(requests, reading, strict=True):
            each: Look = checked(found, InputError)
            for what, kind, of_first in (("x", each.x_kind, first.x_kind), ("y", _y_kind(each), _y_kind(first))):
                if kind != of_first:
                    raise unlike(what, numbers[0], _words(kind), 0, _words(of_first))
            at, end = numbers[0], numbers[-1] + 1
            y[at:end], missing[at:end], digests[at * _DIGEST : end * _DIGEST] = each.y, each.missing, each.digests
            bar.update(len(numbers))
    finally:
        close(reading)
        bar.close()
    _check_again(source, count, digests)
    rows = LazyRows(
        Reader(data, workers),
        torch.arange(count),
        shape,
        (getattr(torch, name.removeprefix("torch.")),),
        torch.device("cpu"),
        torch.from_numpy(missing),
        f"{hashlib.sha256(f'{name}{shape}'.encode() + digests).hexdigest()[:16]}, read by row",
    )
    return rows, torch.from_numpy(y)


def _y_kind(seen: Look) -> tuple[str, tuple[int, ...]]:
    return str(seen.y.dtype), seen.y.shape[1:]


def _words(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0].removeprefix('torch.')} of shape {kind[1]}"


def _check_again(source: Taken, count: int, digests: bytearray) -> None:
    """Warn if a few items are not what they were."""
    for number in sorted({0, count // 2, count - 1}):
        again: Look = source.of([number])
        if again.digests != digests[number * _DIGEST : (number + 1) * _DIGEST]:
            warnings.warn(
                f"data[{number}] is another one when it is read again, as random augmentation makes it: trainings, "
                "evaluations and certificates then see different rows, and results do not repeat; let a row's number "
                "seed what is drawn for it",
                DataWarning,
                stacklevel=7,
            )
            return
