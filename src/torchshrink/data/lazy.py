"""Rows that stay where they are until they are asked for, in the place of a tensor that holds them all."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.data.dataset_rows import Reader
from torchshrink.support.compiling import uncompiled

AT_ONCE = 2**24  # bytes that an evaluation's batch may take where the rows are not in memory; a training's is its own


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Rows of a Dataset (n, …), read when they are asked for: what a path needs of a tensor, and no more.

    Args:
        reader: reads them.
        numbers: which of the dataset's rows these are (n,), int64, on the CPU.
        row_shape: of one row.
        dtypes: what the rows are brought to, one after another, from the dataset's own to the one wanted.
        device: where they are wanted.
        missing: which of all the dataset's rows have a NaN (all,), on the CPU.
        digest: of all the dataset's rows.
    """

    reader: Reader
    numbers: Tensor
    row_shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    device: torch.device
    missing: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> torch.Size:
        """(n, …)."""
        return torch.Size((len(self), *self.row_shape))

    @property
    def ndim(self) -> int:
        """How many dimensions, that of the rows included."""
        return 1 + len(self.row_shape)

    @property
    def dtype(self) -> torch.dtype:
        """That of the tensors which these rows become."""
        return self.dtypes[-1]

    def is_floating_point(self) -> bool:
        """Whether they are numbers, and not codes."""
        return self.dtype.is_floating_point

    @property
    def at_once(self) -> int:
        """How many rows `AT_ONCE` bytes are, at least one."""
        return max(1, AT_ONCE // max(1, math.prod(self.row_shape) * self.dtype.itemsize))

    def to(self, device: torch.device, dtype: torch.dtype) -> LazyRows:
        """The same rows, which become tensors elsewhere or of another dtype."""
        dtypes = self.dtypes if dtype == self.dtype else (*self.dtypes, dtype)
        return dataclasses.replace(self, device=device, dtypes=dtypes)

    def double(self) -> LazyRows:
        """The same rows in float64, narrowed before where they were to be narrow."""
        return self.to(self.device, torch.float64)

    def subset(self, rows: Tensor) -> LazyRows:
        """The rows with these numbers (k,), still to be read."""
        return dataclasses.replace(self, numbers=self.numbers[rows.cpu()])

    @uncompiled
    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The rows (*, …) with these numbers (*), read."""
        return self._brought(self.reader.read(self.numbers[rows.cpu() if isinstance(rows, Tensor) else rows]))

    def batches(self, requests: Sequence[Tensor]) -> Iterator[Tensor]:
        """The rows of each request, while those of the following ones are being read."""
        return map(self._brought, self.reader.batches([self.numbers[rows.cpu()] for rows in requests]))

    def parts(self) -> Iterator[Tensor]:
        """All rows, some at a time, in their order."""
        for (part,) in split(self, most=len(self)):
            yield part

    def _brought(self, found: Tensor) -> Tensor:
        for dtype in self.dtypes[1:]:
            found = found.to(dtype)
        return found.to(self.device)


Rows = Tensor | LazyRows
"""All rows (n, …): in memory, or read when they are asked for."""


def subset(X: Rows, rows: Tensor) -> Rows:
    """The rows with these numbers: of a tensor a copy, else still to be read."""
    return X.subset(rows) if isinstance(X, LazyRows) else X[rows]


def batches_of(X: Rows, requests: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers (*) and rows (*, …) of each request; of rows not in memory, the following ones are read meanwhile."""
    found = X.batches(requests) if isinstance(X, LazyRows) else (X[rows] for rows in requests)
    return zip(requests, found, strict=True)


def at_once(X: Rows, most: int) -> int:
    """How many rows to evaluate at once: ``most``, or fewer where they have to be read and are large."""
    return min(most, X.at_once) if isinstance(X, LazyRows) else most


def split(X: Rows, *others: Tensor, most: int) -> Iterator[tuple[Tensor, ...]]:
    """Some rows at a time, in their order, with what belongs to them in tensors of the same length."""
    size = at_once(X, most)
    beside = [torch.split(other, size) for other in others]
    if isinstance(X, Tensor):
        yield from zip(torch.split(X, size), *beside, strict=True)
        return
    yield from zip(X.batches(torch.split(torch.arange(len(X)), size)), *beside, strict=True)


def with_gaps(X: Rows) -> Tensor:
    """The numbers of the rows with a NaN, on the CPU."""
    if isinstance(X, LazyRows):
        return X.missing[X.numbers].nonzero().flatten()
    return X.reshape(len(X), -1).isnan().any(1).nonzero().flatten().cpu()


def readers_alive(X: Rows) -> contextlib.AbstractContextManager[None]:
    """Inside, the processes that read rows ahead live on from one pass to the next; after it there are none."""
    return X.reader.alive() if isinstance(X, LazyRows) else contextlib.nullcontext()
