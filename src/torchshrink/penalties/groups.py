"""Penalties that zero whole groups of weights: rows, columns, filters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import (
    Kinks,
    Penalty,
    ProxSteps,
    Strength,
    checked_strength,
    register_sum,
    show,
    working,
)
from torchshrink.penalties.elementwise import L1
from torchshrink.penalties.proximal import (
    block_soft_threshold,
    group_norm,
    group_size,
    metric_block_soft_threshold,
    per_group,
    reduced_dims,
    soft_threshold,
)


def checked_dims(dim: int | tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that number the groups, as a tuple of integers."""
    dims = dim if isinstance(dim, tuple) else (dim,)
    if not all(isinstance(d, int) and not isinstance(d, bool) for d in dims) or len(set(dims)) < len(dims):
        raise InputError(f"dim={dim!r}: expected an integer, or a tuple of different integers")
    return dims


@final
@dataclass(frozen=True)
class GroupLasso(Penalty):
    """λ·Σ_g √p_g·‖w_g‖: whole groups become zero together. p_g is the size of group g.

    The groups are the slices along ``dim``: with ``dim=0`` a Linear layer's rows (its outputs), a convolution's
    filters; with ``dim=1`` the columns (the inputs). A ConvTranspose has them the other way round: its filters, the
    outputs, are along ``dim=1`` (with groups=1; with more, each slice is an output of every group).
    Several dimensions, ``dim=(0, 1)``, make a group of each pair of indices, and ``dim=()`` one of the whole tensor.

    Subgradient λ√p_g·w/‖w‖, and a ball of radius λ√p_g at 0. Prox: (1 − sλ√p_g/‖w‖)₊·w for one step s; for one step
    per coordinate a scalar equation per group, solved to the last digits.

    Args:
        strength: λ ≥ 0.
        dim: the dimension, or dimensions, that number the groups.

    Raises:
        InputError: the strength is negative, infinite or not a number; or ``dim`` is not one the tensor has.

    Example:
        >>> import torch
        >>> w = torch.tensor([[3.0, 4.0], [0.1, 0.1]])
        >>> GroupLasso(1.0).prox(w, 1.0)
        tensor([[2.1515, 2.8686],
                [0.0000, 0.0000]])

    Source:
        Yuan and Lin (2006), Model selection and estimation in regression with grouped variables.
    """

    strength: Strength
    dim: int | tuple[int, ...] = 0

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    convex: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "groups"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        checked_dims(self.dim)

    @property
    def group_dims(self) -> tuple[int, ...]:
        """The dimensions that number the groups."""
        return checked_dims(self.dim)

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ_g √p_g·‖w_g‖."""
        x = working(w)
        return self.strength * math.sqrt(group_size(x.shape, self.group_dims)) * group_norm(x, self.group_dims).sum()

    def grad(self, w: Tensor) -> Tensor:
        """λ√p_g·w/‖w_g‖, and 0 in a zero group."""
        x = working(w)
        radius = self.strength * math.sqrt(group_size(x.shape, self.group_dims))
        return (radius * _direction(x, self.group_dims)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Block soft-thresholding, in the metric of the steps."""
        x = working(w)
        threshold = step * (self.strength * math.sqrt(group_size(x.shape, self.group_dims)))
        return _block_prox(x, threshold, self.group_dims).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group: ‖g + λ√p_g·w/‖w‖‖, or (‖g‖ − λ√p_g)₊ where the group is zero."""
        x, g = working(w), working(grad)
        return _distance(x, g, 0.0, self.strength, self.group_dims).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """max_g ‖g_g‖/√p_g."""
        g = working(grad)
        if g.numel() == 0:
            return g.new_zeros(())
        return group_norm(g, self.group_dims).amax() / math.sqrt(group_size(g.shape, self.group_dims))

    def with_strength(self, strength: Strength) -> Self:
        """The same groups at another strength."""
        return type(self)(strength, self.dim)

    def __str__(self) -> str:
        return f"GroupLasso({show(self.strength)}, dim={self.dim})"


@final
@dataclass(frozen=True)
class SparseGroupLasso(Penalty):
    """l1·Σ|w| + group·Σ_g √p_g·‖w_g‖: zero groups, and zeros inside the groups that stay.

    Prox with step s, number or one per coordinate: soft-threshold each coordinate by s·l1, then the prox of the group
    part. Its strength is l1 + group, and `with_strength` keeps their proportion.

    Args:
        l1: ≥ 0, of the sum of absolute weights.
        group: ≥ 0, of the groups' norms, each times the root of its size.
        dim: the dimension, or dimensions, that number the groups, as for `GroupLasso`.

    Raises:
        InputError: a strength is negative, infinite or not a number; or ``dim`` is not one the tensor has.

    Source:
        Simon, Friedman, Hastie and Tibshirani (2013), A sparse-group lasso.
    """

    l1: Strength
    group: Strength
    dim: int | tuple[int, ...] = 0

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    convex: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"  # a group is 0 where its coordinates are

    def __post_init__(self) -> None:
        object.__setattr__(self, "l1", checked_strength(self.l1, "l1"))
        object.__setattr__(self, "group", checked_strength(self.group, "group"))
        checked_dims(self.dim)

    @property
    def strength(self) -> Strength:
        """l1 + group."""
        return self.l1 + self.group

    @property
    def group_dims(self) -> tuple[int, ...]:
        """The dimensions that number the groups."""
        return checked_dims(self.dim)

    def value(self, w: Tensor) -> Tensor:
        """l1·Σ|w| + group·Σ_g √p_g·‖w_g‖."""
        x = working(w)
        root = math.sqrt(group_size(x.shape, self.group_dims))
        return self.l1 * x.abs().sum() + self.group * root * group_norm(x, self.group_dims).sum()

    def grad(self, w: Tensor) -> Tensor:
        """l1·sign(w) + group·√p_g·w/‖w_g‖, and 0 where w = 0."""
        x = working(w)
        radius = self.group * math.sqrt(group_size(x.shape, self.group_dims))
        return (self.l1 * x.sign() + radius * _direction(x, self.group_dims)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Soft-thresholding, then block soft-thresholding in the metric of the steps."""
        x = soft_threshold(working(w), step * self.l1)
        threshold = step * (self.group * math.sqrt(group_size(x.shape, self.group_dims)))
        return _block_prox(x, threshold, self.group_dims).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group; where the group is zero, (‖S(g, l1)‖ − group·√p_g)₊."""
        x, g = working(w), working(grad)
        return _distance(x, g, self.l1, self.group, self.group_dims).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """The largest over the groups of the root t of ‖S(g, t·a)‖ = t·b·√p_g, with a and b the shares of l1 and group.

        With |g| sorted downwards and its k largest above t·a, the equation is a quadratic in t. The condition is
        monotone in t, so testing it where each |g_i| enters tells k.
        """
        g = working(grad)
        if g.numel() == 0:
            return g.new_zeros(())
        total = torch.as_tensor(self.strength, dtype=g.dtype, device=g.device)
        a, b = self.l1 / total, self.group / total
        reduced = reduced_dims(g.ndim, self.group_dims)
        kept = [dim for dim in range(g.ndim) if dim not in reduced]
        size = group_size(g.shape, self.group_dims)
        rows = g.permute((*kept, *reduced)).reshape(-1, size)  # (groups, p)
        largest = rows.abs().amax()
        unit = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))  # squares stay finite
        magnitude = (rows.abs() / unit).sort(dim=1, descending=True).values
        count = torch.arange(1, size + 1, dtype=g.dtype, device=g.device)
        first, second = magnitude.cumsum(dim=1), magnitude.square().cumsum(dim=1)
        # At t = |g_k|/a: Σ_{i≤k} (|g_i| − |g_k|)² ≥ (|g_k|/a)²·b²·p says that the root lies at or above this t.
        excess = second - 2 * first * magnitude + count * magnitude.square()
        above = excess * a**2 >= magnitude.square() * (b**2 * size)
        active = (~above).sum(dim=1, keepdim=True).clamp(min=1) - 1  # the last k that is active, from 0
        s1, s2, k = first.gather(1, active), second.gather(1, active), count[active]
        root = (a**2 * s1.square() - (k * a**2 - b**2 * size) * s2).clamp(min=0).sqrt()
        return unit * torch.where(s2 == 0, torch.zeros_like(s2), s2 / (a * s1 + root)).amax()

    def with_strength(self, strength: Strength) -> Self:
        """l1 and group scaled so that they sum to ``strength``."""
        checked = checked_strength(strength)
        if not isinstance(self.strength, Tensor) and self.strength == 0:
            if not isinstance(checked, Tensor) and checked == 0:
                return self
            raise InputError(f"{self}.with_strength({show(checked)}): l1 = group = 0 have no proportion to keep")
        return type(self)(checked * (self.l1 / self.strength), checked * (self.group / self.strength), self.dim)

    def __str__(self) -> str:
        return f"SparseGroupLasso(l1={show(self.l1)}, group={show(self.group)}, dim={self.dim})"


def _direction(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """w/‖w_g‖, and 0 in a zero group."""
    norm = group_norm(w, dims)
    return w / torch.where(norm == 0, torch.ones_like(norm), norm)


def _block_prox(x: Tensor, threshold: float | Tensor, dims: tuple[int, ...]) -> Tensor:
    if isinstance(threshold, Tensor) and threshold.ndim > 0:
        return metric_block_soft_threshold(x, threshold.to(x.dtype), dims)
    return block_soft_threshold(x, threshold, dims)


def _distance(w: Tensor, grad: Tensor, l1: Strength, group: Strength, dims: tuple[int, ...]) -> Tensor:
    """Per group: distance of −grad to the subdifferential of l1·‖w‖₁ + group·√p_g·‖w_g‖."""
    radius = group * math.sqrt(group_size(w.shape, dims))
    norm = group_norm(w, dims)
    # A zero group: distance of −grad to {l1-cube + ball of this radius}.
    at_zero = (group_norm(soft_threshold(grad, l1), dims) - radius).clamp(min=0)
    # Elsewhere the group part has a gradient, and only coordinates at 0 have an interval, [−l1, l1].
    pull = grad + radius * w / torch.where(norm == 0, torch.ones_like(norm), norm)
    residual = torch.where(w == 0, soft_threshold(grad, l1), pull + l1 * w.sign())
    return per_group(torch.where(norm == 0, at_zero, group_norm(residual, dims)), dims)


register_sum(GroupLasso, L1, lambda a, b: SparseGroupLasso(b.strength, a.strength, a.dim))
register_sum(SparseGroupLasso, L1, lambda a, b: SparseGroupLasso(a.l1 + b.strength, a.group, a.dim))


def _same_groups(a: GroupLasso | SparseGroupLasso, b: GroupLasso | SparseGroupLasso) -> None:
    if a.group_dims != b.group_dims:
        raise TypeError(f"{a} + {b}: overlapping groups have no closed prox; give both the same dim")


def _add_group(a: GroupLasso, b: GroupLasso) -> GroupLasso:
    _same_groups(a, b)
    return GroupLasso(a.strength + b.strength, a.dim)


def _add_sparse_group(a: SparseGroupLasso, b: GroupLasso) -> SparseGroupLasso:
    _same_groups(a, b)
    return SparseGroupLasso(a.l1, a.group + b.strength, a.dim)


def _add_sparse_groups(a: SparseGroupLasso, b: SparseGroupLasso) -> SparseGroupLasso:
    _same_groups(a, b)
    return SparseGroupLasso(a.l1 + b.l1, a.group + b.group, a.dim)


register_sum(GroupLasso, GroupLasso, _add_group)
register_sum(SparseGroupLasso, GroupLasso, _add_sparse_group)
register_sum(SparseGroupLasso, SparseGroupLasso, _add_sparse_groups)
