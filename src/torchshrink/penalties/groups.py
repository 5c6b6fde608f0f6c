"""Penalties that zero whole groups of weights: rows, columns, filters, heads, all columns of one feature."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, Strength, checked_strength, register_sum, show, working
from torchshrink.penalties.elementwise import L1
from torchshrink.penalties.fixed import Fixed, Weights, joined, per_weight, short_repr
from torchshrink.penalties.grouping import Groups
from torchshrink.penalties.layouts import Grouped, LabelsLike, check_layout, direction, distance_of_groups, times
from torchshrink.penalties.layouts import checked_dims as checked_dims
from torchshrink.penalties.proximal import soft_threshold


@final
@dataclass(frozen=True)
class GroupLasso(Grouped):
    """λ·Σ_g a_g·√p_g·‖w_g‖: whole groups become zero together. p_g is the size of group g; a_g is 1 unless given.

    The groups are the slices along ``dim``: with ``dim=0`` a Linear layer's rows (its outputs), a convolution's
    filters; with ``dim=1`` the columns (the inputs). A ConvTranspose has them the other way round: its filters, the
    outputs, are along ``dim=1`` (with groups=1; with more, each slice is an output of every group).
    Several dimensions, ``dim=(0, 1)``, make a group of each pair of indices, and ``dim=()`` one of the whole tensor.

    With ``size`` or ``labels`` several indices along ``dim`` are one group.

    With r_g = λ·a_g·√p_g: subgradient r_g·w/‖w‖, and a ball of radius r_g at 0. Prox: (1 − s·r_g/‖w‖)₊·w for one step
    s; for one step per coordinate a scalar equation per group, solved to the last digits.

    Args:
        strength: λ ≥ 0.
        dim: the dimension, or dimensions, that number the groups.
        size: so many consecutive indices along ``dim`` are one group, such as the rows of an attention head; a number,
            or one for each of several dimensions.
        labels: for each index along ``dim``, a whole number: all indices with the same one are one group, such as the
            one-hot columns of a feature. Each group has its own p_g.
        weights: a ≥ 0, a number or a tensor that broadcasts to the groups (one entry for each of them; with labels in
            their ascending order), as group lasso's √p_g is one; 0 exempts a group.

    Raises:
        InputError: a strength or a factor is negative, infinite or not a number; or ``dim``, ``size``, ``labels`` or
            ``weights`` do not fit the tensor.

    Example:
        >>> import torch
        >>> w = torch.tensor([[3.0, 4.0], [0.1, 0.1]])
        >>> GroupLasso(1.0).prox(w, 1.0)
        tensor([[2.1515, 2.8686],
                [0.0000, 0.0000]])

        The first two inputs are levels of one feature, the third is another:

        >>> GroupLasso(1.0, dim=1, labels=(0, 0, 1)).value(torch.tensor([[3.0, 4.0, 2.0]])) == 2**0.5 * 5 + 2
        tensor(True)

    Source:
        Yuan and Lin (2006), Model selection and estimation in regression with grouped variables.
    """

    strength: Strength
    dim: int | tuple[int, ...] = 0
    weights: Weights | None = field(default=None, kw_only=True)
    labels: LabelsLike | None = field(default=None, kw_only=True)
    size: int | tuple[int, ...] | None = field(default=None, kw_only=True)

    kinks: ClassVar[Kinks] = "groups"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        check_layout(self)

    def value(self, w: Tensor) -> Tensor:
        """Σ_g r_g·‖w_g‖."""
        x, groups = working(w), self.groups(w.shape)
        return (self._radius(groups, x) * groups.norm(x)).sum()

    def grad(self, w: Tensor) -> Tensor:
        """r_g·w/‖w_g‖, and 0 in a zero group."""
        x, groups = working(w), self.groups(w.shape)
        return (groups.everywhere(self._radius(groups, x)) * direction(x, groups)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Block soft-thresholding, in the metric of the steps."""
        x, groups = working(w), self.groups(w.shape)
        return groups.block_prox(x, step, self._radius(groups, x)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group: ‖g + r_g·w/‖w‖‖, or (‖g‖ − r_g)₊ where the group is zero."""
        x, g, groups = working(w), working(grad), self.groups(w.shape)
        return distance_of_groups(x, g, 0.0, self._radius(groups, x), groups).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """max_g ‖g_g‖/(a_g·√p_g)."""
        g, groups = working(grad), self.groups(grad.shape)
        if g.numel() == 0:
            return g.new_zeros(())
        return per_weight(groups.norm(g) / groups.roots(g), self.factors(groups, g)).amax()

    def with_strength(self, strength: Strength) -> Self:
        """The same groups at another strength."""
        return replace(self, strength=strength)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"GroupLasso({show(self.strength)}, dim={self.dim}{self.layout_text})"

    def _radius(self, groups: Groups, x: Tensor) -> Strength:
        return times(self.strength * groups.roots(x), self.factors(groups, x))


@final
@dataclass(frozen=True)
class SparseGroupLasso(Grouped):
    """Σ_g a_g·(l1·‖w_g‖₁ + group·√p_g·‖w_g‖): zero groups, and zeros inside those that stay. a_g is 1 unless given.

    Prox with step s, number or one per coordinate: soft-threshold each coordinate by s·a_g·l1, then the prox of the
    group part. Its strength is l1 + group, and `with_strength` keeps their proportion.

    Args:
        l1: ≥ 0, of the sum of absolute weights.
        group: ≥ 0, of the groups' norms, each times the root of its size.
        dim: the dimension, or dimensions, that number the groups, as for `GroupLasso`.
        size: so many consecutive indices along ``dim`` are one group, such as the rows of an attention head; a number,
            or one for each of several dimensions.
        labels: for each index along ``dim``, a whole number: all indices with the same one are one group, such as the
            one-hot columns of a feature. Each group has its own p_g.
        weights: a ≥ 0, a number or a tensor that broadcasts to the groups (one entry for each of them; with labels in
            their ascending order), of both parts alike; 0 exempts a group.

    Raises:
        InputError: a strength or a factor is negative, infinite or not a number; or ``dim``, ``size``, ``labels`` or
            ``weights`` do not fit the tensor.

    Source:
        Simon, Friedman, Hastie and Tibshirani (2013), A sparse-group lasso.
    """

    l1: Strength
    group: Strength
    dim: int | tuple[int, ...] = 0
    weights: Weights | None = field(default=None, kw_only=True)
    labels: LabelsLike | None = field(default=None, kw_only=True)
    size: int | tuple[int, ...] | None = field(default=None, kw_only=True)

    kinks: ClassVar[Kinks] = "coordinates"  # a group is 0 where its coordinates are

    def __post_init__(self) -> None:
        object.__setattr__(self, "l1", checked_strength(self.l1, "l1"))
        object.__setattr__(self, "group", checked_strength(self.group, "group"))
        check_layout(self)

    @property
    def strength(self) -> Strength:
        """l1 + group."""
        return self.l1 + self.group

    def value(self, w: Tensor) -> Tensor:
        """Σ_g a_g·(l1·‖w_g‖₁ + group·√p_g·‖w_g‖)."""
        x, groups = working(w), self.groups(w.shape)
        l1, radius = self._strengths(groups, x)
        return (l1 * x.abs()).sum() + (radius * groups.norm(x)).sum()

    def grad(self, w: Tensor) -> Tensor:
        """a_g·(l1·sign(w) + group·√p_g·w/‖w_g‖), and 0 where w = 0."""
        x, groups = working(w), self.groups(w.shape)
        l1, radius = self._strengths(groups, x)
        return (l1 * x.sign() + groups.everywhere(radius) * direction(x, groups)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Soft-thresholding, then block soft-thresholding in the metric of the steps."""
        x, groups = working(w), self.groups(w.shape)
        l1, radius = self._strengths(groups, x)
        return groups.block_prox(soft_threshold(x, step * l1), step, radius).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group; where the group is zero, (‖S(g, a_g·l1)‖ − a_g·group·√p_g)₊."""
        x, g, groups = working(w), working(grad), self.groups(w.shape)
        return distance_of_groups(x, g, *self._strengths(groups, x), groups).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """The largest over the groups of t/a_g, t the root of ‖S(g, t·a)‖ = t·b·√p_g, a and b the shares of the parts.

        With |g| sorted downwards and its k largest above t·a, the equation is a quadratic in t. The condition is
        monotone in t, so testing it where each |g_i| enters tells k.
        """
        g, groups = working(grad), self.groups(grad.shape)
        if g.numel() == 0:
            return g.new_zeros(())
        total = torch.as_tensor(self.strength, dtype=g.dtype, device=g.device)
        a, b = self.l1 / total, self.group / total
        rows, members = groups.rows(g)  # (groups, p), (groups, 1) or a number
        largest = rows.abs().amax()
        unit = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))  # squares stay finite
        magnitude = (rows.abs() / unit).sort(dim=1, descending=True).values
        count = torch.arange(1, rows.shape[1] + 1, dtype=g.dtype, device=g.device)
        first, second = magnitude.cumsum(dim=1), magnitude.square().cumsum(dim=1)
        # At t = |g_k|/a: Σ_{i≤k} (|g_i| − |g_k|)² ≥ (|g_k|/a)²·b²·p says that the root lies at or above this t.
        excess = second - 2 * first * magnitude + count * magnitude.square()
        above = excess * a**2 >= magnitude.square() * (b**2 * members)
        active = (~above).sum(dim=1, keepdim=True).clamp(min=1) - 1  # the last k that is active, from 0
        s1, s2, k = first.gather(1, active), second.gather(1, active), count[active]
        root = (a**2 * s1.square() - (k * a**2 - b**2 * members) * s2).clamp(min=0).sqrt()
        roots = unit * torch.where(s2 == 0, torch.zeros_like(s2), s2 / (a * s1 + root))  # (groups, 1)
        weights = self.factors(groups, g)
        if weights is not None and weights.ndim:
            weights = groups.flat(weights).reshape(-1, 1)
        return per_weight(roots, weights).amax()

    def with_strength(self, strength: Strength) -> Self:
        """l1 and group scaled so that they sum to ``strength``."""
        checked = checked_strength(strength)
        if not isinstance(self.strength, Tensor) and self.strength == 0:
            if not isinstance(checked, Tensor) and checked == 0:
                return self
            raise InputError(f"{self}.with_strength({show(checked)}): l1 = group = 0 have no proportion to keep")
        l1, group = checked * (self.l1 / self.strength), checked * (self.group / self.strength)
        return replace(self, l1=l1, group=group)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"SparseGroupLasso(l1={show(self.l1)}, group={show(self.group)}, dim={self.dim}{self.layout_text})"

    def _strengths(self, groups: Groups, x: Tensor) -> tuple[Strength, Strength]:
        """Of Σ|w|, one for each coordinate or for all; and the groups' radii, kept or one for all."""
        weights = self.factors(groups, x)
        radius = times(self.group * groups.roots(x), weights)
        return groups.everywhere(times(self.l1, weights)), radius


def _with_l1(a: GroupLasso | SparseGroupLasso, b: L1, l1: Strength, group: Strength) -> SparseGroupLasso:
    if a.weights is not None or b.weights is not None:
        raise TypeError(f"{a} + {b}: one's weights are of groups, the other's of coordinates; give SparseGroupLasso(…)")
    return SparseGroupLasso(l1, group, a.dim, labels=a.labels, size=a.size)


register_sum(GroupLasso, L1, lambda a, b: _with_l1(a, b, b.strength, a.strength))
register_sum(SparseGroupLasso, L1, lambda a, b: _with_l1(a, b, a.l1 + b.strength, a.group))


def _shared(a: GroupLasso | SparseGroupLasso, b: GroupLasso | SparseGroupLasso) -> dict[str, Any]:
    """What numbers the groups of both, and their factors."""
    if checked_dims(a.dim) != checked_dims(b.dim) or a.labels != b.labels or a.size != b.size:
        raise TypeError(f"{a} + {b}: overlapping groups have no closed prox; give both the same dim, size and labels")
    weights: Fixed | None = joined(a.weights, b.weights, f"{a} + {b}")
    return {"dim": a.dim, "labels": a.labels, "size": a.size, "weights": weights}


def _add_group(a: GroupLasso, b: GroupLasso) -> GroupLasso:
    return GroupLasso(a.strength + b.strength, **_shared(a, b))


def _add_sparse_group(a: SparseGroupLasso, b: GroupLasso) -> SparseGroupLasso:
    return SparseGroupLasso(a.l1, a.group + b.strength, **_shared(a, b))


def _add_sparse_groups(a: SparseGroupLasso, b: SparseGroupLasso) -> SparseGroupLasso:
    return SparseGroupLasso(a.l1 + b.l1, a.group + b.group, **_shared(a, b))


register_sum(GroupLasso, GroupLasso, _add_group)
register_sum(SparseGroupLasso, GroupLasso, _add_sparse_group)
register_sum(SparseGroupLasso, SparseGroupLasso, _add_sparse_groups)
