"""Which coordinates of a tensor belong together: slices along dimensions, or several of their indices at once.

The dimensions that ``dims`` lists number the groups. In each of them every index is a group of its own, or a block of
consecutive indices is (`Blocks`), or all that have the same label (`Labels`). All other dimensions are inside a group.

A tensor with one entry per group comes in two forms: *kept*, with as many dimensions as the weights, 1 in those inside
a group, and *flat*, without these.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.fixed import Fixed, Weights, check_broadcast, checked_tensor, fixed, fixed_weights
from torchshrink.penalties.proximal import (
    block_soft_threshold,
    group_norm,
    metric_block_soft_threshold,
    power_of_two,
    reduced_dims,
    secular_soft_threshold,
)

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


@final
@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of tensors of one shape.

    Args:
        shape: of the tensors.
        dims: those that number groups, as they were given.
        parts: for those of them in which several indices belong together, how.

    Raises:
        InputError: the shape has no such dimension, or its indices cannot be grouped so.

    Example:
        >>> import torch
        >>> rows = Groups(torch.Size([4, 3]), (0,), {0: Blocks(2)})
        >>> rows.flat(rows.total(torch.ones(4, 3)))
        tensor([6., 6.])
    """

    shape: torch.Size
    dims: tuple[int, ...]
    parts: Mapping[int, Part]

    def __post_init__(self) -> None:
        ndim = len(self.shape)
        reduced_dims(ndim, self.dims)
        if self.parts and not ndim:
            raise InputError("labels and size: a tensor without dimensions has no indices to group")
        object.__setattr__(self, "parts", {dim % ndim: part for dim, part in sorted(self.parts.items())})
        for dim, part in self.parts.items():
            part.check(self.shape[dim], dim)

    @property
    def inside(self) -> tuple[int, ...]:
        """The dimensions that are wholly inside a group."""
        return reduced_dims(len(self.shape), self.dims)

    @property
    def count(self) -> tuple[int, ...]:
        """How many groups there are along each dimension that numbers them: the shape of what is flat."""
        inside = self.inside
        return tuple(
            self.parts[dim].count(n) if dim in self.parts else n
            for dim, n in enumerate(self.shape)
            if dim not in inside
        )

    def flat(self, kept: Tensor) -> Tensor:
        """One entry per group, from the kept form."""
        return kept.squeeze(self.inside) if self.inside else kept

    def kept(self, flat: Tensor) -> Tensor:
        """The kept form of what broadcasts to one entry per group; one number as it is."""
        if flat.ndim == 0:
            return flat
        kept = flat.expand(self.count)
        for dim in self.inside:
            kept = kept.unsqueeze(dim)
        return kept

    def weights(self, weights: Weights, like: Tensor) -> Tensor:
        """The groups' factors, kept.

        Raises:
            InputError: they do not broadcast to the groups.
        """
        given = fixed_weights(weights).tensor
        check_broadcast("weights", given, self.count, "the groups, ")
        return self.kept(given.to(device=like.device, dtype=like.dtype))

    def roots(self, like: Tensor) -> float | Tensor:
        """√p_g, p_g the size of a group: a number, or kept."""
        found: float | Tensor = math.prod(self.shape[dim] for dim in self.inside)
        for dim, part in self.parts.items():
            members = part.members(like)
            if isinstance(members, Tensor):
                members = members.view([-1 if each == dim else 1 for each in range(len(self.shape))])
            found = found * members
        return found.sqrt() if isinstance(found, Tensor) else math.sqrt(found)

    def total(self, x: Tensor) -> Tensor:
        """The sum over each group, kept."""
        out = x.sum(self.inside, keepdim=True) if self.inside else x
        for dim, part in self.parts.items():
            out = part.total(out, dim)
        return out

    def largest(self, x: Tensor) -> Tensor:
        """The largest of each group, kept; no group may be empty."""
        out = x.amax(self.inside, keepdim=True) if self.inside else x
        for dim, part in self.parts.items():
            out = part.largest(out, dim)
        return out

    def spread(self, kept: Tensor) -> Tensor:
        """Each group's number at each of its coordinates, as far as that takes more than broadcasting."""
        for dim, part in self.parts.items():
            kept = part.spread(kept, dim)
        return kept

    def everywhere(self, number: float | Tensor) -> float | Tensor:
        """`spread` of what may be one number for all groups."""
        return self.spread(number) if isinstance(number, Tensor) and number.ndim else number

    def norm(self, x: Tensor) -> Tensor:
        """The Euclidean norm of each group, kept; its gradient at a zero group is 0."""
        if not self.parts:
            return group_norm(x, self.dims)
        if x.numel() == 0:
            return self.total(x)
        scale = power_of_two(self.largest(x.detach().abs()))
        squares = self.total((x / self.spread(scale)).square())
        nothing = squares == 0
        return torch.where(nothing, 0.0, torch.where(nothing, 1.0, squares).sqrt()) * scale

    def block_prox(self, x: Tensor, step: float | Tensor, radius: float | Tensor) -> Tensor:
        """argmin_u Σ (u_i−x_i)²/(2 s_i) + r_g·‖u_g‖ for each group.

        Args:
            x: of the groups' shape.
            step: s ≥ 0, a number or one per coordinate.
            radius: r ≥ 0, a number or kept.
        """
        if isinstance(step, Tensor) and step.ndim > 0:
            threshold = (step * self.everywhere(radius)).to(x.dtype)
            if not self.parts:
                return metric_block_soft_threshold(x, threshold, self.dims)
            if x.numel() == 0:
                return x.clone()
            return secular_soft_threshold(
                x, threshold.expand(x.shape), total=self.total, largest=self.largest, norm=self.norm, spread=self.spread
            )
        if not self.parts:
            return block_soft_threshold(x, step * radius, self.dims)
        norm = self.norm(x)
        shrinkage = step * radius / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        return x * self.spread(1 - shrinkage.clamp(max=1.0))

    def rows(self, x: Tensor) -> tuple[Tensor, float | Tensor]:
        """Each group's coordinates as a row, filled up with 0 where it has fewer than others; and how many it has.

        Returns:
            (groups, p), and p or (groups, 1).
        """
        members: float | Tensor = math.prod(self.shape[dim] for dim in self.inside)
        numbering = [dim for dim in range(x.ndim) if dim not in self.inside]
        for dim in reversed(numbering):  # from the last, as each adds a dimension after its own
            part = self.parts.get(dim)
            if part is not None:
                x, many = part.table(x, dim), part.members(x)
                members = members * (many.unsqueeze(1) if isinstance(many, Tensor) else many)
        cut = [dim + sum(each in self.parts for each in range(dim)) for dim in range(len(self.shape))]
        first = [cut[dim] for dim in numbering]
        rest = [dim for dim in range(x.ndim) if dim not in first]
        rows = x.permute((*first, *rest))
        return rows.reshape(math.prod(self.count), -1), members

    def place(self, index: tuple[int, ...]) -> str:
        """Where a group is, as an index in Python."""
        numbers = iter(index)
        inside = self.inside
        slots = []
        for dim in range(len(self.shape)):
            if dim in inside:
                slots.append(":")
            else:
                number = next(numbers)
                slots.append(self.parts[dim].place(number) if dim in self.parts else str(number))
        return f"[{', '.join(slots)}]"
