"""Constraints: sets that the weights must lie in. Their prox is the projection onto the set.

As a function Ω a constraint is 0 inside and infinite outside. What follows from that:

- It has no strength (its ``strength`` is 0): a positive multiple of it is itself. A regularizer's ``scale`` leaves it
  as it is, and no grid of strengths goes over it; tune a radius through a callable that makes the constraint.
- It acts through the prox only. A loss cannot hold a weight inside a set, and neither can a gradient.
- Where the weights are outside, nothing is a stationary point: `distance` is infinite there. Outside means beyond the
  rounding of a projection: 16ε relative, with half precision ε of its own.

Here are the bounds on norms; `bounds` has those on each weight, `hard_sparsity` those on the count of nonzeros.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Penalty, ProxSteps, Strength, show, working
from torchshrink.penalties.groups import checked_dims
from torchshrink.penalties.proximal import (
    group_norm,
    group_size,
    metric_project_ball,
    metric_project_sphere,
    per_group,
    project_ball,
    project_l1_ball,
    project_sphere,
    reduced_dims,
)
from torchshrink.penalties.weighted import infinite_unless_zero


class Constraint(Penalty):
    """What all constraints have in common. Abstract.

    - ``tuned``: how to tune what the constraint is made of, as a part of a message; empty where there is nothing.
    """

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    constraint: ClassVar[bool] = True
    tuned: ClassVar[str] = ""

    @property
    def strength(self) -> Strength:
        """0: a constraint has none."""
        return 0.0

    def grad(self, w: Tensor) -> Tensor:
        """0, which is in every normal cone."""
        return torch.zeros_like(w)

    def with_strength(self, strength: Strength) -> Self:
        """The constraint itself at strength 0.

        Raises:
            InputError: any other strength.
        """
        if not isinstance(strength, Tensor) and strength == 0:
            return self
        given = show(strength) if isinstance(strength, Tensor | int | float) else repr(strength)
        raise InputError(f"{self}.with_strength({given}): a constraint has no strength{self.tuned}")


@final
@dataclass(frozen=True)
class MaxNorm(Constraint):
    """The constraint ‖w_g‖ ≤ c for each group: no unit's weights grow beyond a radius.

    Groups are numbered by ``dim`` as in `GroupLasso`: with ``dim=0`` a Linear layer's rows (each unit's incoming
    weights) and a convolution's filters. Normal cone: {0} inside, {t·w_g, t ≥ 0} on the sphere.
    Projection: z·min(1, c/‖z‖) for one step; in the metric of one step per coordinate z_i/(1 + μs_i), with μ from a
    scalar equation per group, solved to the last digits.

    Args:
        radius: c > 0.
        dim: the dimension, or dimensions, that number the groups.

    Raises:
        InputError: the radius is not a finite number > 0; or ``dim`` is not one the tensor has.

    Example:
        >>> MaxNorm(1.0).prox(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    Source:
        Srebro and Shraibman (2005), Rank, trace-norm and max-norm; Srivastava et al. (2014), Dropout.
    """

    radius: Strength
    dim: int | tuple[int, ...] = 0

    convex: ClassVar[bool] = True
    tuned: ClassVar[str] = "; to tune the radius give a callable, such as lambda s: MaxNorm(1 / s)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _checked_radius(self.radius))
        checked_dims(self.dim)

    @property
    def group_dims(self) -> tuple[int, ...]:
        """The dimensions that number the groups."""
        return checked_dims(self.dim)

    def value(self, w: Tensor) -> Tensor:
        """0 if every group is inside, else infinite."""
        x = working(w)
        return indicator(x, group_norm(x, self.group_dims) <= self.radius * (1 + slack(w)))

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The projection, in the metric of the steps. A step of 0 moves nothing."""
        x = working(w)
        if isinstance(step, Tensor) and step.ndim > 0:
            return metric_project_ball(x, self.radius, step.to(x.dtype), self.group_dims).to(w.dtype)
        moves = torch.as_tensor(step, device=w.device) > 0
        return torch.where(moves, project_ball(x, self.radius, self.group_dims), x).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group: ‖g‖ inside; ‖g + (−<g, w>/‖w‖)₊·w/‖w‖‖ on the sphere; infinite outside."""
        x, g, dims = working(w), working(grad), self.group_dims
        norm = group_norm(x, dims)
        direction = x / torch.where(norm == 0, 1.0, norm)
        reduced = reduced_dims(x.ndim, dims)
        along = g * direction
        outward = (-along.sum(dim=reduced, keepdim=True) if reduced else -along).clamp(min=0)
        on_sphere = group_norm(g + outward * direction, dims)
        return per_group(_choose(norm, self.radius, slack(w), group_norm(g, dims), on_sphere), dims).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if the gradient is 0, else infinite: w = 0 is inside, where a constraint does nothing."""
        return infinite_unless_zero(grad)

    def __str__(self) -> str:
        return f"MaxNorm(radius={show(self.radius)}, dim={self.dim})"


@final
@dataclass(frozen=True)
class UnitNorm(Constraint):
    """The constraint ‖w_g‖ = 1 for each group: directions without a length. Not convex.

    Groups are numbered by ``dim`` as in `GroupLasso`. The normal space at w_g is its line, {t·w_g, t in ℝ}: stationary
    is where the gradient has no part along the sphere, which holds at every minimum on it, and at maxima too.
    Projection: z/‖z‖ for one step; in the metric of one step per coordinate the nearest point is z_i/(1 + μs_i), with
    the one μ ≥ −1/max s at which ‖u‖ = 1, solved to the last digits. A group of zeros is equally far from
    many points: it gets equal positive entries where its step is largest, for one step 1/√p_g everywhere.

    Args:
        dim: the dimension, or dimensions, that number the groups.

    Raises:
        InputError: ``dim`` is not one the tensor has.

    Example:
        >>> UnitNorm().prox(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), 1.0)
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])

    Source:
        Absil, Mahony and Sepulchre (2008), Optimization algorithms on matrix manifolds.
    """

    dim: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        checked_dims(self.dim)

    @property
    def group_dims(self) -> tuple[int, ...]:
        """The dimensions that number the groups."""
        return checked_dims(self.dim)

    def value(self, w: Tensor) -> Tensor:
        """0 if every group has norm 1, else infinite. A group without coordinates counts as inside."""
        x = working(w)
        return indicator(x, self._outside(w, group_norm(x, self.group_dims)).logical_not())

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The projection, in the metric of the steps. A step of 0 moves nothing."""
        x = working(w)
        if isinstance(step, Tensor) and step.ndim > 0:
            return metric_project_sphere(x, step.to(x.dtype).expand(x.shape), self.group_dims).to(w.dtype)
        moves = torch.as_tensor(step, device=w.device) > 0
        return torch.where(moves, project_sphere(x, self.group_dims), x).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group: ‖g − <g, w>·w/‖w‖²‖; infinite where the norm is not 1."""
        x, g, dims = working(w), working(grad), self.group_dims
        norm = group_norm(x, dims)
        direction = x / torch.where(norm == 0, 1.0, norm)
        reduced = reduced_dims(x.ndim, dims)
        along = g * direction
        tangential = g - (along.sum(dim=reduced, keepdim=True) if reduced else along) * direction
        found = torch.where(norm.isnan(), torch.nan, group_norm(tangential, dims))
        return per_group(torch.where(self._outside(w, norm), torch.inf, found), dims).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Infinite: w = 0 is outside."""
        g = working(grad)
        outside = self._outside(grad, torch.zeros_like(group_norm(g, self.group_dims))).any()
        return torch.where(g.isnan().any(), torch.nan, torch.where(outside, torch.inf, 0.0).to(g.dtype))

    def __str__(self) -> str:
        return f"UnitNorm(dim={self.dim})"

    def _outside(self, w: Tensor, norm: Tensor) -> Tensor:
        held = group_size(w.shape, self.group_dims) > 0
        return (norm - 1).abs() > slack(w) if held else torch.zeros_like(norm, dtype=torch.bool)


@final
@dataclass(frozen=True)
class L1Ball(Constraint):
    """The constraint Σ|w| ≤ r over the whole tensor: the lasso in its budget form, with exact zeros.

    Normal cone: {0} inside, {t·v: t ≥ 0, v ∈ ∂‖w‖₁} on the boundary. Projection: soft-thresholding by the μ·s_i with
    Σ (|z_i| − μs_i)₊ = r, found by sorting. Exact for one step per coordinate. The whole tensor is one group.

    Args:
        radius: r > 0, the budget.

    Raises:
        InputError: the radius is not a finite number > 0.

    Example:
        >>> L1Ball(2.0).prox(torch.tensor([3.0, 1.0, 0.5]), 1.0)
        tensor([2., 0., 0.])

    Source:
        Duchi, Shalev-Shwartz, Singer and Chandra (2008), Efficient projections onto the l1-ball.
    """

    radius: Strength

    convex: ClassVar[bool] = True
    tuned: ClassVar[str] = "; to tune the radius give a callable, such as lambda s: L1Ball(1 / s)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _checked_radius(self.radius))

    @property
    def group_dims(self) -> tuple[int, ...]:
        """One group, the whole tensor."""
        return ()

    def value(self, w: Tensor) -> Tensor:
        """0 inside, else infinite."""
        x = working(w)
        return indicator(x, x.abs().sum() <= self.radius * (1 + slack(w)))

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The projection, in the metric of the steps. A step of 0 moves nothing."""
        x = working(w)
        if isinstance(step, Tensor) and step.ndim > 0:
            return project_l1_ball(x, self.radius, step.to(x.dtype)).to(w.dtype)
        moves = torch.as_tensor(step, device=w.device) > 0
        return torch.where(moves, project_l1_ball(x, self.radius), x).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """One value: ‖g‖ inside; the distance of −g to the cone {t·∂‖w‖₁, t ≥ 0} on the boundary; infinite outside.

        For one t the distance is Σ over the support of (g + t·sign w)² + Σ elsewhere of (|g| − t)₊², convex in t. Its
        least is at t = (Σ_support −g·sign w + Σ_A |g|)/(n_support + |A|), the largest over the prefixes A of the
        others' |g| sorted downwards, as in the projection.
        """
        if w.numel() == 0:
            return w.new_zeros(())
        x, g = working(w).reshape(-1), working(grad).reshape(-1)
        support = x != 0
        pull = torch.where(support, -g * x.sign(), 0.0).sum()
        others = torch.where(support, 0.0, g.abs()).sort(descending=True).values.cumsum(0)
        count = support.sum()
        extra = torch.arange(1, len(x) + 1, dtype=g.dtype, device=g.device)
        # With no A at all, and with each prefix; the support's zeros at the end only lower the quotient.
        t = torch.maximum(pull / count.clamp(min=1), ((pull + others) / (count + extra)).amax()).clamp(min=0)
        residual = torch.where(support, g + t * x.sign(), (g.abs() - t).clamp(min=0))
        inside, boundary = torch.linalg.vector_norm(g), torch.linalg.vector_norm(residual)
        return _choose(x.abs().sum(), self.radius, slack(w), inside, boundary).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if the gradient is 0, else infinite: w = 0 is inside, where a constraint does nothing."""
        return infinite_unless_zero(grad)

    def __str__(self) -> str:
        return f"L1Ball(radius={show(self.radius)})"


def _checked_radius(value: Strength) -> Strength:
    """``value`` as a radius: a finite number > 0, or a tensor of one value (whose value is not looked at)."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"radius: a tensor of shape {tuple(value.shape)} given, one value expected")
        return value.reshape(())
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | numbers.Real)
        or not (math.isfinite(value) and value > 0)
    ):
        raise InputError(f"radius={value!r}: expected a finite number > 0")
    return float(value)


def slack(w: Tensor) -> Tensor:
    """How far beyond the boundary, relatively, the rounding of a projection may lead: that of the narrowest dtype.

    Certificates look in float64 at weights that were projected in float32, or less: numbers that a narrower dtype holds
    exactly are as inexact as that.
    """
    found = torch.full((), _rounding(w.dtype), dtype=working(w).dtype, device=w.device)
    for narrower in (torch.float32, torch.float16, torch.bfloat16):
        if torch.finfo(narrower).eps > torch.finfo(w.dtype).eps:
            held = (w.to(narrower).to(w.dtype) == w).all()
            found = torch.where(held, _rounding(narrower), found)
    return found


def _rounding(dtype: torch.dtype) -> float:
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    return max(16 * torch.finfo(computed).eps, torch.finfo(dtype).eps)


def indicator(x: Tensor, inside: Tensor) -> Tensor:
    """0 or infinite, with derivative 0; NaN where a weight is not finite."""
    found = torch.where(inside.all(), 0 * x.clamp(-1, 1).sum().abs(), torch.inf)  # 0·∞ would not be a number
    return torch.where(x.detach().isfinite().all(), found, torch.nan)


def _choose(norm: Tensor, radius: Strength, slack: Tensor, inside: Tensor, boundary: Tensor) -> Tensor:
    """The distance to the normal cone, by where the norm lies."""
    feasible = torch.where(norm < radius * (1 - slack), inside, boundary)
    feasible = torch.where(norm.isnan(), torch.nan, feasible)
    return torch.where(norm > radius * (1 + slack), torch.inf, feasible)
