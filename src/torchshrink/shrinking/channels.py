"""Units: indices of dimensions that live and go together, and the values of those that are constant.

A *unit* is an index that several dimensions share: a row of a weight, its bias, the normalisation's vectors, the
activation's channel, the column of the weight that reads it. A union-find keeps them. An index is *constant* where the
slice of a tensor at it is one number, whatever the input, the row and the position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Axis = NDArray[np.int64]
Values = NDArray[np.float64]


class Units:
    """A union-find of indices; what is pinned stays, for the first reason given."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pinned: dict[int, str] = {}

    def fresh(self, size: int) -> Axis:
        """The units of a new dimension. One index alone stays: without it the dimension would be empty."""
        start = len(self._parent)
        self._parent.extend(range(start, start + size))
        axis = np.arange(start, start + size)
        if size == 1:
            self.pin(axis, "a dimension of one index")
        return axis

    def _root(self, unit: int) -> int:
        parent = self._parent
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    def roots(self, axis: Axis) -> Axis:
        """The representative of each unit."""
        return np.fromiter((self._root(int(unit)) for unit in axis), np.int64, len(axis))

    def unite(self, first: Axis, second: Axis) -> None:
        """Index by index, the two are one unit."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self._root(one), self._root(other)
            if a == b:
                continue
            a, b = min(a, b), max(a, b)
            self._parent[b] = a
            reason = self._pinned.pop(b, None)
            if reason is not None:
                self._pinned.setdefault(a, reason)

    def pin(self, axis: Axis, reason: str) -> int:
        """Keep these units; returns how many of them were not yet kept."""
        new = {root for root in self.roots(axis).tolist() if root not in self._pinned}
        self._pinned.update(dict.fromkeys(new, reason))
        return len(new)

    def pinned(self, axis: Axis) -> NDArray[np.bool_]:
        """Which of these units are kept."""
        return np.fromiter((root in self._pinned for root in self.roots(axis).tolist()), bool, len(axis))

    def reason(self, unit: int) -> str | None:
        """Why a unit is pinned."""
        return self._pinned.get(self._root(unit))

    def pin_all(self, reason: str) -> int:
        """Keep everything."""
        return self.pin(np.arange(len(self._parent)), reason)

    @property
    def count(self) -> int:
        """How many indices there are."""
        return len(self._parent)


@dataclass(frozen=True, eq=False)
class Fact:
    """What is known of a tensor of the graph.

    Args:
        axes: the units of each dimension; None where its size depends on the input.
        values: for each dimension and index the constant that the slice there is, NaN where it is none.
        static: the tensor itself, where it depends on no input.
    """

    axes: tuple[Axis | None, ...]
    values: tuple[Values | None, ...]
    static: Tensor | None = None

    @property
    def whole(self) -> float:
        """The constant that the whole tensor is, or NaN."""
        if self.static is not None:
            return one_value(self.static)
        for values in self.values:
            if values is not None and len(values) and not np.isnan(values).any() and (values == values[0]).all():
                return float(values[0])
        return float("nan")


def one_value(tensor: Tensor) -> float:
    """The number that all entries are, or NaN."""
    if tensor.numel() == 0 or tensor.is_complex():
        return float("nan")
    flat = tensor.detach().double().reshape(-1)
    return float(flat[0]) if bool((flat == flat[0]).all()) else float("nan")


def values_of(tensor: Tensor) -> tuple[Values | None, ...]:
    """The constants of a known tensor's slices, dimension by dimension."""
    found: list[Values | None] = []
    if tensor.is_complex():
        return tuple(np.full(size, np.nan) for size in tensor.shape)
    data = tensor.detach().double()
    for dim, size in enumerate(tensor.shape):
        if tensor.numel() == 0:
            found.append(np.full(size, np.nan))
            continue
        rows = data.movedim(dim, 0).reshape(size, -1)
        same = (rows == rows[:, :1]).all(1)
        found.append(torch.where(same, rows[:, 0], torch.nan).numpy())
    return tuple(found)


def unknown(size: int) -> Values:
    """No constant at any index."""
    return np.full(size, np.nan)


def same_or_unknown_rows(table: Values) -> Values:
    """The number that all entries of a row are, or NaN."""
    if table.shape[1] == 0:
        return unknown(len(table))
    return np.where((table == table[:, :1]).all(1), table[:, 0], np.nan)
