"""Penalties that act coordinate by coordinate: L1, L2 and their sum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import (
    Kinks,
    Strength,
    checked_strength,
    register_sum,
    show,
    working,
)
from torchshrink.penalties.fixed import (
    Fixed,
    Weights,
    also,
    checked_weights,
    dot,
    joined,
    of_each,
    scaled,
    short_repr,
)
from torchshrink.penalties.proximal import soft_threshold
from torchshrink.penalties.weighted import Weighted, infinite_unless_zero, largest_magnitude


@final
@dataclass(frozen=True)
class L1(Weighted):
    """λ·Σ a_i|w_i|, with all a_i = 1 unless given: drives weights to exact zero (with method ``prox``).

    Subgradient λa·sign(w), and [−λa, λa] at 0. Prox with step s: soft-thresholding by s·λ·a. Exact for one step per
    coordinate.

    Args:
        strength: λ ≥ 0, in units of loss per weight.
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights; 0 exempts a coordinate. The adaptive lasso,
            glmnet's ``penalty.factor``, which is not rescaled here.

    Raises:
        InputError: the strength or a factor is negative, infinite or not a number; or factors do not fit.

    Example:
        >>> import torch
        >>> L1(0.1).value(torch.tensor([3.0, -4.0]))
        tensor(0.7000)
        >>> L1(1.0, weights=[1, 0]).prox(torch.tensor([3.0, -4.0]), 0.5)
        tensor([ 2.5000, -4.0000])

    Source:
        Tibshirani (1996), Regression shrinkage and selection via the lasso; Zou (2006), The adaptive lasso and its
        oracle properties.
    """

    strength: Strength
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = False
    convex: ClassVar[bool] = True
    norm: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def as_elastic_net(self) -> tuple[Strength, Strength]:
        """(λa, 0)."""
        return of_each(self.strength, self.weights), 0.0

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ a|w|."""
        return dot(self._strength(w), working(w).abs())

    def grad(self, w: Tensor) -> Tensor:
        """λa·sign(w)."""
        x = working(w)
        return (self._strength(w) * torch.where(x.isnan(), x, x.sign())).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """sign(w)·(|w| − step·λa)₊."""
        return soft_threshold(working(w), step * self._strength(w)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + λa·sign(w)|, or (|g| − λa)₊ where w = 0."""
        return _distance(working(w), working(grad), self._strength(w), 0.0).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|/a."""
        return largest_magnitude(grad, self.weights)

    def with_strength(self, strength: Strength) -> Self:
        """L1 at another strength."""
        return type(self)(strength, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"L1({show(self.strength)}{also(weights=self.weights)})"

    def _strength(self, w: Tensor) -> Strength:
        return scaled(self.strength, self.weights, w)


@final
@dataclass(frozen=True)
class L2(Weighted):
    """λ·Σ a_i·w_i², without a ½: the tutorial's and Keras's convention; ``weight_decay = 2·λ`` is the same penalty.

    Gradient 2λaw. Prox with step s: w/(1 + 2sλa). Exact for one step per coordinate. All a_i are 1 unless given.

    Args:
        strength: λ ≥ 0, in units of loss per squared weight.
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights; 0 exempts a coordinate.

    Raises:
        InputError: the strength or a factor is negative, infinite or not a number; or factors do not fit.

    Example:
        >>> import torch
        >>> L2(0.1).value(torch.tensor([3.0, -4.0]))
        tensor(2.5000)

    Source:
        Hoerl and Kennard (1970), Ridge regression.
    """

    strength: Strength
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def as_elastic_net(self) -> tuple[Strength, Strength]:
        """(0, λa)."""
        return 0.0, of_each(self.strength, self.weights)

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ aw²."""
        return dot(self._strength(w), working(w).square())

    def grad(self, w: Tensor) -> Tensor:
        """2λaw."""
        return (2 * self._strength(w) * working(w)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """w/(1 + 2·step·λa)."""
        return (working(w) / (1 + 2 * step * self._strength(w))).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + 2λaw|."""
        return (working(grad) + 2 * self._strength(w) * working(w)).abs().to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Infinite: no finite ridge strength makes w = 0 stationary, unless the gradient there is 0."""
        return infinite_unless_zero(grad, self.weights)

    def with_strength(self, strength: Strength) -> Self:
        """L2 at another strength."""
        return type(self)(strength, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"L2({show(self.strength)}{also(weights=self.weights)})"

    def _strength(self, w: Tensor) -> Strength:
        return scaled(self.strength, self.weights, w)


@final
@dataclass(frozen=True)
class ElasticNet(Weighted):
    """Σ a_i·(l1·|w_i| + l2·w_i²): the lasso's zeros with the ridge's stability among correlated weights.

    Prox with step s: S(w, s·a·l1)/(1 + 2·s·a·l2). Exact for one step per coordinate. Its strength is l1 + l2, and
    `with_strength` keeps their proportion. All a_i are 1 unless given.

    Args:
        l1: ≥ 0, of the sum of absolute weights.
        l2: ≥ 0, of the sum of squares (no ½).
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights, of both parts; 0 exempts a coordinate.

    Raises:
        InputError: a strength or a factor is negative, infinite or not a number; or factors do not fit.

    Example:
        >>> ElasticNet(l1=0.75, l2=0.25).with_strength(4.0)
        ElasticNet(l1=3.0, l2=1.0)

    Source:
        Zou and Hastie (2005), Regularization and variable selection via the elastic net.
    """

    l1: Strength
    l2: Strength
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = False
    convex: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "l1", checked_strength(self.l1, "l1"))
        object.__setattr__(self, "l2", checked_strength(self.l2, "l2"))
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def strength(self) -> Strength:
        """l1 + l2."""
        return self.l1 + self.l2

    @property
    def as_elastic_net(self) -> tuple[Strength, Strength]:
        """(l1·a, l2·a)."""
        return of_each(self.l1, self.weights), of_each(self.l2, self.weights)

    def value(self, w: Tensor) -> Tensor:
        """l1·Σ a|w| + l2·Σ aw²."""
        x = working(w)
        l1, l2 = self._strengths(w)
        return dot(l1, x.abs()) + dot(l2, x.square())

    def grad(self, w: Tensor) -> Tensor:
        """a·(l1·sign(w) + 2·l2·w)."""
        x = working(w)
        l1, l2 = self._strengths(w)
        return (l1 * x.sign() + 2 * l2 * x).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """S(w, step·a·l1)/(1 + 2·step·a·l2)."""
        l1, l2 = self._strengths(w)
        return (soft_threshold(working(w), step * l1) / (1 + 2 * step * l2)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + a·(l1·sign(w) + 2·l2·w)|, or (|g| − a·l1)₊ where w = 0."""
        return _distance(working(w), working(grad), *self._strengths(w)).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|/a·(l1 + l2)/l1: at w = 0 only the l1 part holds."""
        largest = largest_magnitude(grad, self.weights)
        l1, total = (torch.as_tensor(s, dtype=largest.dtype, device=largest.device) for s in (self.l1, self.strength))
        scaled = torch.where(l1 > 0, largest * (total / torch.where(l1 > 0, l1, 1.0)), torch.inf)
        return torch.where(largest == 0, largest, torch.where(largest.isnan(), largest, scaled))

    def with_strength(self, strength: Strength) -> Self:
        """l1 and l2 scaled so that they sum to ``strength``."""
        checked = checked_strength(strength)
        if not _positive(self.strength):
            if not _positive(checked):
                return self
            raise InputError(f"{self}.with_strength({show(checked)}): l1 = l2 = 0 have no proportion to keep")
        l1, l2 = checked * (self.l1 / self.strength), checked * (self.l2 / self.strength)
        return type(self)(l1, l2, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"ElasticNet(l1={show(self.l1)}, l2={show(self.l2)}{also(weights=self.weights)})"

    def _strengths(self, w: Tensor) -> tuple[Strength, Strength]:
        return scaled(self.l1, self.weights, w), scaled(self.l2, self.weights, w)


def _positive(strength: Strength) -> bool:
    """Whether a strength is known to be positive; a tensor's value is not looked at and counts as positive."""
    return isinstance(strength, Tensor) or strength > 0


def _distance(w: Tensor, grad: Tensor, l1: Strength, l2: Strength) -> Tensor:
    """Per coordinate: distance of −grad to the subdifferential of l1·|w| + l2·w²."""
    inside = (grad.abs() - l1).clamp(min=0)  # w = 0: distance of −grad to [−l1, l1]
    return torch.where(w == 0, inside, (grad + l1 * w.sign() + 2 * l2 * w).abs())


def _shared(a: L1 | L2 | ElasticNet, b: L1 | L2 | ElasticNet) -> Fixed | None:
    return joined(a.weights, b.weights, f"{a} + {b}")


register_sum(L1, L1, lambda a, b: L1(a.strength + b.strength, weights=_shared(a, b)))
register_sum(L2, L2, lambda a, b: L2(a.strength + b.strength, weights=_shared(a, b)))
register_sum(L1, L2, lambda a, b: ElasticNet(a.strength, b.strength, weights=_shared(a, b)))
register_sum(ElasticNet, L1, lambda a, b: ElasticNet(a.l1 + b.strength, a.l2, weights=_shared(a, b)))
register_sum(ElasticNet, L2, lambda a, b: ElasticNet(a.l1, a.l2 + b.strength, weights=_shared(a, b)))
register_sum(ElasticNet, ElasticNet, lambda a, b: ElasticNet(a.l1 + b.l1, a.l2 + b.l2, weights=_shared(a, b)))
