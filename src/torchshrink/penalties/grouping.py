"""Which coordinates of a tensor belong together: slices along dimensions, or several of their indices at once.

The dimensions that ``dims`` lists number the groups. In each of them every index is a group of its own, or a block of
consecutive indices is (`parts.Blocks`), or all that have the same label (`parts.Labels`). All other dimensions are
inside a group.

A tensor with one entry per group comes in two forms: *kept*, with as many dimensions as the weights, 1 in those inside
a group, and *flat*, without these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.fixed import Weights, check_broadcast, fixed_weights
from torchshrink.penalties.parts import Part
from torchshrink.penalties.proximal import (
    block_soft_threshold,
    group_norm,
    metric_block_soft_threshold,
    power_of_two,
    reduced_dims,
    secular_soft_threshold,
)


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
        >>> from torchshrink.penalties.parts import Blocks
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
        object.__setattr__(self, "parts", {dim % ndim: part for dim, part in self.parts.items()})
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
        found: float | Tensor = math.prod([self.shape[dim] for dim in self.inside])
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
                x, threshold.expand(x.shape), total=self.total, largest=self.largest, spread=self.spread
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
        members: float | Tensor = math.prod([self.shape[dim] for dim in self.inside])
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
