"""What `GroupLasso` and `SparseGroupLasso` have in common: what numbers their groups, and the groups' factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Strength, working
from torchshrink.penalties.fixed import also, check_finite, checked_weights
from torchshrink.penalties.grouping import Groups
from torchshrink.penalties.parts import Labels, checked_labels, checked_size, parts_of
from torchshrink.penalties.proximal import soft_threshold

if TYPE_CHECKING:
    from torchshrink.penalties.groups import GroupLasso, SparseGroupLasso

    Grouped: TypeAlias = GroupLasso | SparseGroupLasso


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


def labels_of(penalty: Grouped) -> Labels | None:
    """Its labels."""
    return checked_labels(penalty.labels)


def labels_on(penalty: Grouped, device: torch.device) -> Labels | None:
    """Its labels on a device."""
    labels = labels_of(penalty)
    return None if labels is None else labels.moved(device)


def groups_of(penalty: Grouped, shape: torch.Size) -> Groups:
    """The groups of a tensor of this shape."""
    dims = checked_dims(penalty.dim)
    if penalty.labels is None and penalty.size is None:
        return Groups(shape, dims, {})
    return Groups(shape, dims, parts_of(dims, labels_of(penalty), penalty.size))


def uncut_dims(penalty: Grouped) -> tuple[int, ...]:
    """Along which a cut divides no group and separates none from its factor."""
    dims = checked_dims(penalty.dim)
    weights = checked_weights(penalty.weights)
    if weights is not None and weights.tensor.ndim:
        return ()
    parts = parts_of(dims, labels_of(penalty), penalty.size)
    return tuple(dim for dim in dims if dim not in parts)


def group_weights(penalty: Grouped, groups: Groups, x: Tensor) -> Tensor | None:
    """The groups' factors, kept, or one for all; None where there are none."""
    return None if penalty.weights is None else groups.weights(penalty.weights, x)


def fits(penalty: Grouped, w: Tensor) -> bool:
    """Whether it has factors; raises where groups or factors do not fit the tensor."""
    found = group_weights(penalty, penalty.groups(w.shape), working(w.detach()))
    if found is None or penalty.weights is None:
        return False
    check_finite(penalty.weights, found)
    return True


def exempt_groups(penalty: Grouped, w: Tensor) -> Tensor | None:
    """The coordinates whose groups have the factor 0."""
    groups = penalty.groups(w.shape)
    weights = group_weights(penalty, groups, working(w))
    if weights is None:
        return None
    return (groups.everywhere(weights) == 0).expand(w.shape)  # type: ignore[union-attr]


def layout_text(penalty: Grouped) -> str:
    """What stands behind ``dim`` in its text."""
    return also(size=penalty.size, labels=penalty.labels, weights=penalty.weights)


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
