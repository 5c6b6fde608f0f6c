"""Penalties that zero small weights like L1 and leave large ones alone: MCP and SCAD.

Both are λ|w| near 0 and constant far from it, so they are not convex: `prox` is the global minimiser for every step,
also for the long ones at which a coordinate's problem has two local minima. There it is discontinuous, and below that
it stretches: alternated with the steps of an optimizer it need not come to rest. So an attached regularizer takes them
apart, the prox of λ|w| after the step, and the slope of the rest added to the gradient before it (`convex_part`).
The subdifferential that `distance` measures is the limiting one: [−λ, λ] at 0, the derivative elsewhere.

With ``weights`` each coordinate has its own λ_i = λ·a_i, and one γ for all, as in ncvreg's ``penalty.factor``: so a
factor sets the slope at 0 and the width γλ_i alike, and is no factor of the function.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, Strength, checked_strength, show, working
from torchshrink.penalties.elementwise import L1
from torchshrink.penalties.fixed import (
    Weights,
    also,
    checked_weights,
    scaled,
    short_repr,
)
from torchshrink.penalties.weighted import Weighted, largest_magnitude

LARGEST_GAMMA = 1e12  # beyond, products with it leave float32


@final
@dataclass(frozen=True)
class MCP(Weighted):
    """The minimax concave penalty: Σ λ|w| − w²/(2γ) where |w| ≤ γλ, and γλ²/2 beyond: L1 whose pull fades to nothing.

    Subgradient (λ − |w|/γ)₊·sign(w), and [−λ, λ] at 0. Prox with step s < γ: 0 if |z| ≤ sλ; S(z, sλ)/(1 − s/γ) if
    |z| ≤ γλ; else z. With s ≥ γ: 0 if |z| ≤ λ√(γs), else z. Exact for one step per coordinate; of two equally good
    points it is 0.

    The strength λ is also the slope at 0 and sets the width γλ, so Ω is not proportional to it.

    Args:
        strength: λ ≥ 0, in units of loss per weight.
        gamma: γ > 0, finite: how far the pull reaches, in units of λ. Large γ is close to L1.
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights, which multiply λ; 0 exempts a coordinate.

    Raises:
        InputError: the strength or a factor is negative, infinite or not a number; factors do not fit; or γ
            is not a finite number > 0.

    Example:
        >>> MCP(1.0, gamma=2.0).prox(torch.tensor([0.5, 1.5, 4.0]), 1.0)
        tensor([0., 1., 4.])

    Source:
        Zhang (2010), Nearly unbiased variable selection under minimax concave penalty.
    """

    strength: Strength
    gamma: float = 3.0
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = False
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "gamma", _checked_shape("gamma", self.gamma, above=0))
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def convex_part(self) -> L1:
        """λ·Σ|w|; the rest, 0 at 0, has the slope −min(|w|/γ, λ)·sign(w), which is continuous."""
        return L1(self.strength, weights=self.weights)

    def value(self, w: Tensor) -> Tensor:
        """Σ λm − m²/(2γ), with m = min(|w|, γλ)."""
        x, strength = working(w), self._strength(w)
        m = x.abs().clamp(max=_end(self.gamma, strength, x))
        return (strength * m - m.square() / (2 * self.gamma)).sum()

    def grad(self, w: Tensor) -> Tensor:
        """(λ − |w|/γ)₊·sign(w)."""
        x = working(w)
        return (self._slope(x.abs(), self._strength(w)) * x.sign()).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Firm thresholding for steps below γ, hard thresholding from there on."""
        x, strength = working(w), self._strength(w)
        s = _step_like(step, x)
        size, gap = x.abs(), self.gamma - s
        convex = gap > 0
        firm = (size - s * strength).clamp(min=0) * (self.gamma / torch.where(convex, gap, 1.0))
        # firm ≤ size mathematically; where 1 − s/γ is near 0 rounding could blow it up.
        short = torch.where(size <= _end(self.gamma, strength, x), x.sign() * torch.minimum(firm, size), x)
        long = torch.where(size <= strength * (self.gamma * s).sqrt(), 0.0, x)
        return torch.where(convex, short, long).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + (λ − |w|/γ)₊·sign(w)|, or (|g| − λ)₊ where w = 0."""
        return _distance(w, grad, self._strength(w), self.grad(working(w))).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|/a."""
        return largest_magnitude(grad, self.weights)

    def with_strength(self, strength: Strength) -> Self:
        """MCP with the same γ at another λ."""
        return type(self)(strength, self.gamma, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"MCP({show(self.strength)}, gamma={self.gamma:g}{also(weights=self.weights)})"

    def _strength(self, w: Tensor) -> Strength:
        return scaled(self.strength, self.weights, w)

    def _slope(self, size: Tensor, strength: Strength) -> Tensor:
        return (strength - size / self.gamma).clamp(min=0)


@final
@dataclass(frozen=True)
class SCAD(Weighted):
    """Smoothly clipped absolute deviation: λ|w| up to λ, then a parabola, and constant λ²(γ+1)/2 from γλ on.

    Per coordinate λ|w| where |w| ≤ λ, (2γλ|w| − w² − λ²)/(2(γ−1)) where |w| ≤ γλ, else λ²(γ+1)/2.
    Subgradient, times sign(w): λ, (γλ − |w|)/(γ−1), 0; and [−λ, λ] at 0. Prox with step s < γ−1: S(z, sλ) if
    |z| ≤ λ(1+s); ((γ−1)z − sign(z)·s·γ·λ)/(γ−1−s) if |z| ≤ γλ; else z. With γ−1 ≤ s ≤ γ+1: S(z, sλ) if
    |z| ≤ λ(γ+1+s)/2, else z. With s > γ+1: 0 if |z| ≤ λ√(s(γ+1)), else z. Exact for one step per coordinate; of two
    equally good points it is the smaller.

    The strength λ is also the slope at 0 and sets the width γλ, so Ω is not proportional to it.

    Args:
        strength: λ ≥ 0, in units of loss per weight.
        gamma: > 2, finite: where the pull ends, in units of λ; Fan and Li's a. Large γ is close to L1.
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights, which multiply λ; 0 exempts a coordinate.

    Raises:
        InputError: the strength or a factor is negative, infinite or not a number; factors do not fit; or gamma
            is not a finite number > 2.

    Example:
        >>> SCAD(1.0, gamma=3.0).prox(torch.tensor([0.5, 1.5, 2.5, 4.0]), 1.0)
        tensor([0.0000, 0.5000, 2.0000, 4.0000])

    Source:
        Fan and Li (2001), Variable selection via nonconcave penalized likelihood and its oracle properties.
    """

    strength: Strength
    gamma: float = 3.7
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = False
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "gamma", _checked_shape("gamma", self.gamma, above=2))
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def convex_part(self) -> L1:
        """λ·Σ|w|; the rest, 0 at 0, has the slope −min((|w| − λ)₊/(γ−1), λ)·sign(w), which is continuous."""
        return L1(self.strength, weights=self.weights)

    def value(self, w: Tensor) -> Tensor:
        """Σ λ·min(|w|, γλ), less the parabola (min(|w|, γλ) − λ)₊²/(2(γ−1))."""
        x, strength = working(w), self._strength(w)
        m = x.abs().clamp(max=_end(self.gamma, strength, x))
        return (strength * m - (m - strength).clamp(min=0).square() / (2 * (self.gamma - 1))).sum()

    def grad(self, w: Tensor) -> Tensor:
        """sign(w) times λ, (γλ − |w|)/(γ−1) or 0."""
        x = working(w)
        return (self._slope(x.abs(), self._strength(w)) * x.sign()).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The global minimiser, in the three cases of the step."""
        x, strength = working(w), self._strength(w)
        s = _step_like(step, x)
        size, end = x.abs(), _end(self.gamma, strength, x)
        soft = (size - s * strength).clamp(min=0)
        gap = self.gamma - 1 - s
        convex = gap > 0
        # ((γ−1)|z| − s·γ·λ)/gap, written so that it is γλ at |z| = γλ however small the gap.
        middle = (size - (s / torch.where(convex, gap, 1.0)) * (end - size)).clamp(min=strength)
        small = size <= strength * (1 + s)
        short = x.sign() * torch.where(small, soft, torch.where(size <= end, middle, size))
        # Two local minima: soft (0 from s = γ+1 on) and z. Up to this |z| soft is the better.
        limit = torch.where(s <= self.gamma + 1, (self.gamma + 1 + s) / 2, (s * (self.gamma + 1)).sqrt()) * strength
        long = torch.where(size <= limit, x.sign() * soft, x)
        return torch.where(convex, short, long).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + Ω'(w)|, or (|g| − λ)₊ where w = 0."""
        return _distance(w, grad, self._strength(w), self.grad(working(w))).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|/a."""
        return largest_magnitude(grad, self.weights)

    def with_strength(self, strength: Strength) -> Self:
        """SCAD with the same γ at another λ."""
        return type(self)(strength, self.gamma, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"SCAD({show(self.strength)}, gamma={self.gamma:g}{also(weights=self.weights)})"

    def _strength(self, w: Tensor) -> Strength:
        return scaled(self.strength, self.weights, w)

    def _slope(self, size: Tensor, strength: Strength) -> Tensor:
        fading = ((self.gamma * strength - size) / (self.gamma - 1)).clamp(min=0)
        return torch.where(size <= strength, strength, fading)


def _checked_shape(name: str, value: float, *, above: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | numbers.Real)
        or not (math.isfinite(value) and value > above)
    ):
        raise InputError(f"{name}={value!r}: expected a finite number > {above}")
    if value > LARGEST_GAMMA:
        raise InputError(f"{name}={value!r}: expected at most {LARGEST_GAMMA:g}, where the penalty is L1 already")
    return float(value)


def _end(gamma: float, strength: Strength, like: Tensor) -> float | Tensor:
    """γλ, where the penalty becomes constant, or the largest number that ``like``'s dtype has."""
    end = gamma * strength
    return end if isinstance(end, Tensor) else min(end, torch.finfo(like.dtype).max)


def _step_like(step: float | Tensor, x: Tensor) -> Tensor:
    """The step as a tensor in the dtype of ``x``, so that both its cases can be told apart by `torch.where`."""
    return step.to(x.dtype) if isinstance(step, Tensor) else torch.full((), step, dtype=x.dtype, device=x.device)


def _distance(w: Tensor, grad: Tensor, strength: Strength, derivative: Tensor) -> Tensor:
    """Per coordinate: distance of −grad to [−λ, λ] where w = 0, to the derivative elsewhere."""
    g = working(grad)
    return torch.where(w == 0, (g.abs() - strength).clamp(min=0), (g + derivative).abs())
