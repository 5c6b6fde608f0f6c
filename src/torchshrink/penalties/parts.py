"""How several indices of one dimension become one group: blocks of consecutive ones, or those of one label."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.fixed import Fixed, checked_tensor, fixed

_LISTED = 8  # indices in a place's text


class Part(abc.ABC):
    """How the indices of one dimension are grouped. Abstract: `Blocks` or `Labels`."""

    @abc.abstractmethod
    def check(self, n: int, dim: int) -> None:
        """Raise unless a dimension of ``n`` indices can be grouped so."""

    @abc.abstractmethod
    def count(self, n: int) -> int:
        """How many groups."""

    @abc.abstractmethod
    def members(self, like: Tensor) -> float | Tensor:
        """How many indices each has: a number, or (count,)."""

    @abc.abstractmethod
    def total(self, x: Tensor, dim: int) -> Tensor:
        """The sums within groups: ``x`` with ``count`` in place of ``n``."""

    @abc.abstractmethod
    def largest(self, x: Tensor, dim: int) -> Tensor:
        """The largest within groups, likewise."""

    @abc.abstractmethod
    def spread(self, kept: Tensor, dim: int) -> Tensor:
        """Each group's number at each of its indices: ``n`` in place of ``count``."""

    @abc.abstractmethod
    def table(self, x: Tensor, dim: int) -> Tensor:
        """Two dimensions, count × members, in place of ``dim``, filled up with 0."""

    @abc.abstractmethod
    def place(self, number: int) -> str:
        """The indices of a group, as Python writes them."""


@final
@dataclass(frozen=True)
class Blocks(Part):
    """``size`` consecutive indices are a group."""

    size: int

    def check(self, n: int, dim: int) -> None:
        """Raise where the size does not divide ``n``."""
        if n % self.size:
            raise InputError(f"size={self.size}: does not divide the {n} indices along dim {dim}")

    def count(self, n: int) -> int:
        """N / size."""
        return n // self.size

    def members(self, like: Tensor) -> float:
        """The size."""
        return self.size

    def total(self, x: Tensor, dim: int) -> Tensor:
        """By a reshape."""
        return self.table(x, dim).sum(dim + 1)

    def largest(self, x: Tensor, dim: int) -> Tensor:
        """By a reshape."""
        return self.table(x, dim).amax(dim + 1)

    def spread(self, kept: Tensor, dim: int) -> Tensor:
        """By an expansion."""
        wide = list(kept.shape)
        wide.insert(dim + 1, self.size)
        return kept.unsqueeze(dim + 1).expand(wide).flatten(dim, dim + 1)

    def place(self, number: int) -> str:
        """``16:32``."""
        return f"{number * self.size}:{(number + 1) * self.size}"

    def table(self, x: Tensor, dim: int) -> Tensor:
        """By a reshape."""
        return x.reshape(*x.shape[:dim], x.shape[dim] // self.size, self.size, *x.shape[dim + 1 :])


@final
@dataclass(frozen=True, repr=False)
class Labels(Part):
    """Indices of the same label are a group; the groups are numbered in ascending order of their labels.

    Args:
        of: (n,) the number of each index's group.
        groups: how many there are.
    """

    of: Fixed
    groups: int

    def __repr__(self) -> str:
        return repr(self.of)

    def check(self, n: int, dim: int) -> None:
        """Raise unless there is one for each index."""
        if len(self.of.tensor) != n:
            raise InputError(
                f"labels: {len(self.of.tensor)} given, one for each of the {n} indices along dim {dim} expected"
            )

    def count(self, n: int) -> int:
        """However many labels there are."""
        return self.groups

    def members(self, like: Tensor) -> Tensor:
        """How often each label occurs."""
        ones = torch.ones(len(self.of.tensor), dtype=like.dtype, device=like.device)
        return self.total(ones, 0)

    def total(self, x: Tensor, dim: int) -> Tensor:
        """By indices."""
        return self._none(x, dim).index_add(dim, self._index(x), x)

    def largest(self, x: Tensor, dim: int) -> Tensor:
        """By indices."""
        along = [1] * x.ndim
        along[dim] = -1
        index = self._index(x).view(along).expand(x.shape)
        return self._none(x, dim).scatter_reduce(dim, index, x, "amax", include_self=False)

    def spread(self, kept: Tensor, dim: int) -> Tensor:
        """By indices."""
        return kept.index_select(dim, self._index(kept))

    def table(self, x: Tensor, dim: int) -> Tensor:
        """By indices."""
        index = self._index(x)
        order = index.argsort(stable=True)
        sizes = index.bincount(minlength=self.groups)
        most = torch.arange(int(sizes.max()), device=x.device)
        at = (sizes.cumsum(0) - sizes).unsqueeze(1) + most  # (groups, most), beyond the group's own where it has fewer
        own = most < sizes.unsqueeze(1)
        table = x.index_select(dim, order[at.clamp(max=len(order) - 1)].flatten()).unflatten(dim, at.shape)
        return torch.where(own.view(*own.shape, *(1,) * (x.ndim - dim - 1)), table, 0.0)

    def place(self, number: int) -> str:
        """``[0, 4, 8]``."""
        at = (self.of.tensor == number).nonzero().flatten().tolist()
        more = ", …" if len(at) > _LISTED else ""
        return f"[{', '.join(map(str, at[:_LISTED]))}{more}]"

    def moved(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(self.of.map(lambda index: index.to(device)), self.groups)

    def _index(self, like: Tensor) -> Tensor:
        return self.of.tensor.to(like.device)

    def _none(self, x: Tensor, dim: int) -> Tensor:
        shape = list(x.shape)
        shape[dim] = self.groups
        return x.new_zeros(shape)


def checked_labels(value: Any) -> Labels | None:
    """``value`` as labels, or None.

    Raises:
        InputError: it is no list of whole numbers.
    """
    if value is None or isinstance(value, Labels):
        return value
    expected = "a whole number for each index along dim, equal within a group"
    given = checked_tensor("labels", value, expected)
    if (
        given.ndim != 1
        or given.is_floating_point()
        or given.is_complex()
        or given.dtype == torch.bool
        or not len(given)
    ):
        raise InputError(f"labels: {given.dtype} of shape {tuple(given.shape)} given, {expected}, expected")
    names, numbers = given.unique(return_inverse=True)
    return Labels(fixed(numbers), len(names))


def checked_size(value: Any, dims: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """``value`` as the size of blocks, one for all of ``dims`` or one for each.

    Raises:
        InputError: it is no whole number ≥ 1, nor as many of them as there are dimensions.
    """
    if value is None:
        return None
    sizes = value if isinstance(value, tuple) else (value,)
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)
    if not whole or not dims or (isinstance(value, tuple) and len(sizes) != len(dims)):
        one = "a whole number ≥ 1" if len(dims) == 1 else f"a whole number ≥ 1, or {len(dims)} of them"
        raise InputError(f"size={value!r}: expected {one}, for dim={dims if len(dims) != 1 else dims[0]}")
    return value  # type: ignore[no-any-return]


def parts_of(dims: tuple[int, ...], labels: Labels | None, size: int | tuple[int, ...] | None) -> dict[int, Part]:
    """How the indices are grouped in those of ``dims`` in which an index is not a group of its own.

    Raises:
        InputError: both are given, or labels for more than one dimension.
    """
    if labels is not None and (size is not None or len(dims) != 1):
        what = "labels and size: give one of the two" if size is not None else f"labels: one dim expected, {dims} given"
        raise InputError(what)
    if labels is not None:
        return {dims[0]: labels}
    sizes = size if isinstance(size, tuple) else (size or 1,) * len(dims)
    return {dim: Blocks(each) for dim, each in zip(dims, sizes, strict=True) if each > 1}
