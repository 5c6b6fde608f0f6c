"""What `GroupLasso` and `SparseGroupLasso` have in common: what numbers their groups, and the groups' factors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Penalty, ProxSteps, Strength, working
from torchshrink.penalties.fixed import Weights, also, check_finite, checked_weights, mapped
from torchshrink.penalties.grouping import Groups
from torchshrink.penalties.parts import Labels, checked_labels, checked_size, parts_of
from torchshrink.penalties.proximal import soft_threshold

LabelsLike = Labels | Tensor | Sequence[int]
"""A whole number for each index along ``dim``; a `Labels` once they are a penalty's."""


class Grouped(Penalty):
    """A penalty of groups that ``dim``, ``size`` and ``labels`` number, with a factor for each. Abstract.

    A dataclass with these fields, which its ``__post_init__`` hands to `check_layout`.
    """

    dim: int | tuple[int, ...]
    weights: Weights | None
    labels: LabelsLike | None
    size: int | tuple[int, ...] | None

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    convex: ClassVar[bool] = True
    norm: ClassVar[bool] = True

    @property
    def group_dims(self) -> tuple[int, ...]:
        """Of the dimensions that number the groups, those in which an index is one; none with a factor for each group.

        A shard would need to know which groups are its own.
        """
        dims, weights = checked_dims(self.dim), checked_weights(self.weights)
        if weights is not None and weights.tensor.ndim:
            return ()
        parts = parts_of(dims, checked_labels(self.labels), self.size)
        return tuple(dim for dim in dims if dim not in parts)

    def groups(self, shape: torch.Size) -> Groups:
        """The groups of a tensor of this shape."""
        dims = checked_dims(self.dim)
        if self.labels is None and self.size is None:
            return Groups(shape, dims, {})
        return Groups(shape, dims, parts_of(dims, checked_labels(self.labels), self.size))

    def exempt(self, w: Tensor) -> Tensor | None:
        """The groups with a_g = 0."""
        groups = self.groups(w.shape)
        weights = self.factors(groups, working(w))
        if weights is None:
            return None
        return (groups.everywhere(weights) == 0).expand(w.shape)  # type: ignore[union-attr]

    def bind(self, w: Tensor) -> Self:
        """With labels and factors where ``w`` is."""
        found = self.factors(self.groups(w.shape), working(w.detach()))
        if found is not None and self.weights is not None:
            check_finite(self.weights, found)
        labels = checked_labels(self.labels)
        changed: dict[str, Any] = {} if labels is None else {"labels": labels.moved(w.device)}
        if self.weights is not None:
            changed["weights"] = mapped(self.weights, lambda t: t.to(w.device))
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]

    def factors(self, groups: Groups, x: Tensor) -> Tensor | None:
        """The groups' factors, kept, or one for all; None where there are none."""
        return None if self.weights is None else groups.weights(self.weights, x)

    @property
    def layout_text(self) -> str:
        """What stands behind ``dim`` in its text."""
        return also(size=self.size, labels=self.labels, weights=self.weights)


def checked_dims(dim: int | tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that number the groups, as a tuple of integers."""
    dims = dim if isinstance(dim, tuple) else (dim,)
    if not all(isinstance(d, int) and not isinstance(d, bool) for d in dims) or len(set(dims)) < len(dims):
        raise InputError(f"dim={dim!r}: expected an integer, or a tuple of different integers")
    return dims


def check_layout(penalty: Grouped) -> None:
    """Check what numbers the groups, and bring it to the types of a value."""
    dims = checked_dims(penalty.dim)
    labels, size = checked_labels(penalty.labels), checked_size(penalty.size, dims)
    parts_of(dims, labels, size)
    for name, value in (("labels", labels), ("size", size), ("weights", checked_weights(penalty.weights))):
        object.__setattr__(penalty, name, value)


def times(strength: Strength, weights: Tensor | None) -> Strength:
    """A strength times factors, where there are any."""
    return strength if weights is None else strength * weights


def direction(w: Tensor, groups: Groups) -> Tensor:
    """w/‖w_g‖, and 0 in a zero group."""
    norm = groups.norm(w)
    return w / groups.spread(torch.where(norm == 0, torch.ones_like(norm), norm))


def distance_of_groups(w: Tensor, grad: Tensor, l1: Strength, radius: Strength, groups: Groups) -> Tensor:
    """Per group: distance of −grad to the subdifferential of Σ l1·|w| + r_g·‖w_g‖; r_g kept, or one for all."""
    norm = groups.norm(w)
    # A zero group: distance of −grad to {l1-cube + ball of this radius}.
    at_zero = (groups.norm(soft_threshold(grad, l1)) - radius).clamp(min=0)
    # Elsewhere the group part has a gradient, and only coordinates at 0 have an interval, [−l1, l1].
    pull = grad + groups.everywhere(radius) * w / groups.spread(torch.where(norm == 0, torch.ones_like(norm), norm))
    residual = torch.where(w == 0, soft_threshold(grad, l1), pull + l1 * w.sign())
    return groups.flat(torch.where(norm == 0, at_zero, groups.norm(residual)))
