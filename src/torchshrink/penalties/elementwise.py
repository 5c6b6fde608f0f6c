"""Penalties that act coordinate by coordinate: L1, L2 and their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Penalty, ProxSteps, Strength, checked_strength, register_sum, show, working
from torchshrink.penalties.proximal import soft_threshold


def infinite_unless_zero(grad: Tensor) -> Tensor:
    """The critical strength of a penalty that never holds a weight at zero: 0 if the gradient is 0, else infinite."""
    g = working(grad)
    return torch.where((g == 0).all(), 0.0, torch.inf).to(g.dtype)


def largest_magnitude(grad: Tensor) -> Tensor:
    """Max |g_i|, 0 for an empty tensor."""
    g = working(grad)
    return g.abs().amax() if g.numel() else g.new_zeros(())


@final
@dataclass(frozen=True)
class L1(Penalty):
    """λ·Σ|w|: drives weights to exact zero (with method ``prox``).

    Subgradient λ·sign(w), and [−λ, λ] at 0. Prox with step s: soft-thresholding by s·λ. Exact for one step per
    coordinate.

    Args:
        strength: λ ≥ 0, in units of loss per weight.

    Raises:
        InputError: the strength is negative, infinite or not a number.

    Example:
        >>> import torch
        >>> L1(0.1).value(torch.tensor([3.0, -4.0]))
        tensor(0.7000)

    Source:
        Tibshirani (1996), Regression shrinkage and selection via the lasso.
    """

    strength: Strength

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ|w|."""
        return self.strength * working(w).abs().sum()

    def grad(self, w: Tensor) -> Tensor:
        """λ·sign(w)."""
        return (self.strength * working(w).sign()).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """sign(w)·(|w| − step·λ)₊."""
        return soft_threshold(working(w), step * self.strength).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + λ·sign(w)|, or (|g| − λ)₊ where w = 0."""
        return _distance(working(w), working(grad), self.strength, 0.0).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|."""
        return largest_magnitude(grad)

    def with_strength(self, strength: Strength) -> Self:
        """L1 at another strength."""
        return type(self)(strength)

    def __str__(self) -> str:
        return f"L1({show(self.strength)})"


@final
@dataclass(frozen=True)
class L2(Penalty):
    """λ·Σw², without a ½: the tutorial's and Keras's convention, so ``weight_decay = 2·λ`` is the same penalty.

    Gradient 2λw. Prox with step s: w/(1 + 2sλ). Exact for one step per coordinate.

    Args:
        strength: λ ≥ 0, in units of loss per squared weight.

    Raises:
        InputError: the strength is negative, infinite or not a number.

    Example:
        >>> import torch
        >>> L2(0.1).value(torch.tensor([3.0, -4.0]))
        tensor(2.5000)

    Source:
        Hoerl and Kennard (1970), Ridge regression.
    """

    strength: Strength

    smooth: ClassVar[bool] = True
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))

    def value(self, w: Tensor) -> Tensor:
        """λ·Σw²."""
        return self.strength * working(w).square().sum()

    def grad(self, w: Tensor) -> Tensor:
        """2λw."""
        return (2 * self.strength * working(w)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """w/(1 + 2·step·λ)."""
        return (working(w) / (1 + 2 * step * self.strength)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + 2λw|."""
        return (working(grad) + 2 * self.strength * working(w)).abs().to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Infinite: no finite ridge strength makes w = 0 stationary, unless the gradient there is 0."""
        return infinite_unless_zero(grad)

    def with_strength(self, strength: Strength) -> Self:
        """L2 at another strength."""
        return type(self)(strength)

    def __str__(self) -> str:
        return f"L2({show(self.strength)})"


@final
@dataclass(frozen=True)
class ElasticNet(Penalty):
    """l1·Σ|w| + l2·Σw²: the lasso's zeros with the ridge's stability among correlated weights.

    Prox with step s: S(w, s·l1)/(1 + 2·s·l2). Exact for one step per coordinate. Its strength is l1 + l2, and
    `with_strength` keeps their proportion.

    Args:
        l1: ≥ 0, of the sum of absolute weights.
        l2: ≥ 0, of the sum of squares (no ½).

    Raises:
        InputError: one of the two is negative, infinite or not a number.

    Example:
        >>> ElasticNet(l1=0.75, l2=0.25).with_strength(4.0)
        ElasticNet(l1=3.0, l2=1.0)

    Source:
        Zou and Hastie (2005), Regularization and variable selection via the elastic net.
    """

    l1: Strength
    l2: Strength

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "l1", checked_strength(self.l1, "l1"))
        object.__setattr__(self, "l2", checked_strength(self.l2, "l2"))

    @property
    def strength(self) -> Strength:
        """l1 + l2."""
        return self.l1 + self.l2

    def value(self, w: Tensor) -> Tensor:
        """l1·Σ|w| + l2·Σw²."""
        x = working(w)
        return self.l1 * x.abs().sum() + self.l2 * x.square().sum()

    def grad(self, w: Tensor) -> Tensor:
        """l1·sign(w) + 2·l2·w."""
        x = working(w)
        return (self.l1 * x.sign() + 2 * self.l2 * x).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """S(w, step·l1)/(1 + 2·step·l2)."""
        return (soft_threshold(working(w), step * self.l1) / (1 + 2 * step * self.l2)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + l1·sign(w) + 2·l2·w|, or (|g| − l1)₊ where w = 0."""
        return _distance(working(w), working(grad), self.l1, self.l2).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Max |g|·(l1 + l2)/l1: at w = 0 only the l1 part holds."""
        largest = largest_magnitude(grad)
        scaled = largest / torch.as_tensor(self.l1 / self.strength if _positive(self.strength) else 0.0)
        return torch.where(largest == 0, torch.zeros_like(largest), scaled.to(largest.dtype))

    def with_strength(self, strength: Strength) -> Self:
        """l1 and l2 scaled so that they sum to ``strength``."""
        checked = checked_strength(strength)
        if not _positive(self.strength):
            if not _positive(checked):
                return self
            raise InputError(f"{self}.with_strength({show(checked)}): l1 = l2 = 0 have no proportion to keep")
        return type(self)(checked * (self.l1 / self.strength), checked * (self.l2 / self.strength))

    def __str__(self) -> str:
        return f"ElasticNet(l1={show(self.l1)}, l2={show(self.l2)})"


def _positive(strength: Strength) -> bool:
    """Whether a strength is known to be positive; a tensor's value is not looked at and counts as positive."""
    return isinstance(strength, Tensor) or strength > 0


def _distance(w: Tensor, grad: Tensor, l1: Strength, l2: Strength) -> Tensor:
    """Per coordinate: distance of −grad to the subdifferential of l1·|w| + l2·w²."""
    inside = (grad.abs() - l1).clamp(min=0)  # w = 0: distance of −grad to [−l1, l1]
    return torch.where(w == 0, inside, (grad + l1 * w.sign() + 2 * l2 * w).abs())


register_sum(L1, L1, lambda a, b: L1(a.strength + b.strength))
register_sum(L2, L2, lambda a, b: L2(a.strength + b.strength))
register_sum(L1, L2, lambda a, b: ElasticNet(a.strength, b.strength))
register_sum(ElasticNet, L1, lambda a, b: ElasticNet(a.l1 + b.strength, a.l2))
register_sum(ElasticNet, L2, lambda a, b: ElasticNet(a.l1, a.l2 + b.strength))
register_sum(ElasticNet, ElasticNet, lambda a, b: ElasticNet(a.l1 + b.l1, a.l2 + b.l2))
