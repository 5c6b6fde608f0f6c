"""LogSum: the concave penalty that reweighted L1 minimises step by step."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, Penalty, ProxSteps, Strength, checked_strength, show, working
from torchshrink.penalties.elementwise import L1
from torchshrink.penalties.weighted import largest_magnitude


@final
@dataclass(frozen=True)
class LogSum(Penalty):
    """λ·Σ log(1 + |w|/ε): near L1 of strength λ/ε at 0, and ever flatter far from it. Not convex.

    Subgradient λ/(ε + |w|)·sign(w), and [−λ/ε, λ/ε] at 0. Prox with step s: with D = (|z| + ε)² − 4sλ the larger root
    u = (|z| − ε + √D)/2 of the stationarity condition, times sign(z), where D ≥ 0, u > 0 and the objective there is
    less than at 0; else 0. Exact for one step per coordinate; of two equally good points it is 0.

    Proportional to λ, unlike `MCP`. Attached, the prox is that of L1(λ/ε), its convex part, and the slope of the rest,
    −λ|w|/(ε(ε + |w|))·sign(w), goes into the gradient.

    Args:
        strength: λ ≥ 0, in units of loss per weight.
        epsilon: ε > 0, in units of the weights: below it the penalty is as L1, far above it all but flat. Somewhat less
            than the weights that are to stay.

    Raises:
        InputError: the strength is negative, infinite or not a number; or ε is not a finite number > 0.

    Example:
        >>> LogSum(1.0, epsilon=0.5).prox(torch.tensor([0.5, 1.4, 4.0]), 1.0)
        tensor([0.0000, 0.0000, 3.7656])

    Source:
        Candès, Wakin and Boyd (2008), Enhancing sparsity by reweighted l1 minimization.
    """

    strength: Strength
    epsilon: float = 0.1

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        value = self.epsilon
        number = isinstance(value, int | float | numbers.Real) and not isinstance(value, bool)
        if not number or not (math.isfinite(value) and value > 0):
            raise InputError(f"epsilon={value!r}: expected a finite number > 0, in units of the weights")
        object.__setattr__(self, "epsilon", float(value))

    @property
    def convex_part(self) -> L1:
        """λ/ε·Σ|w|; the rest has the slope λ/(ε + |w|) − λ/ε times sign(w), which is continuous."""
        return L1(self.strength / self.epsilon)

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ log(1 + |w|/ε)."""
        return self.strength * (working(w).abs() / self.epsilon).log1p().sum()

    def grad(self, w: Tensor) -> Tensor:
        """λ/(ε + |w|)·sign(w)."""
        x = working(w)
        return (self.strength / (self.epsilon + x.abs()) * torch.where(x.isnan(), x, x.sign())).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The larger root, or 0 where that is no worse."""
        x = working(w)
        s = step.to(x.dtype) if isinstance(step, Tensor) else torch.full((), step, dtype=x.dtype, device=x.device)
        size, pull = x.abs(), s * self.strength
        square = (size + self.epsilon).square() - 4 * pull
        root = square.clamp(min=0).sqrt()
        # Where |z| < ε the first form cancels; the product of both roots is sλ − |z|ε.
        far = (size - self.epsilon + root) / 2
        near = 2 * (size * self.epsilon - pull) / (self.epsilon - size + root).clamp(min=torch.finfo(x.dtype).tiny)
        u = torch.minimum(torch.where(size > self.epsilon, far, near).clamp(min=0), size)
        gain = u * (size - u / 2) - pull * (u / self.epsilon).log1p()  # over 0
        kept = torch.where((square >= 0) & (gain > 0), u, 0.0)
        moved = torch.where(kept > 0, x.sign() * kept, 0.0)
        return torch.where(x.isfinite(), moved, x).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + λ/(ε + |w|)·sign(w)|, or (|g| − λ/ε)₊ where w = 0."""
        x, g = working(w), working(grad)
        at_zero = (g.abs() - self.strength / self.epsilon).clamp(min=0)
        return torch.where(x == 0, at_zero, (g + self.grad(x)).abs()).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """ε·max |g|."""
        return largest_magnitude(grad) * self.epsilon

    def with_strength(self, strength: Strength) -> Self:
        """LogSum with the same ε at another λ."""
        return type(self)(strength, self.epsilon)

    def __str__(self) -> str:
        return f"LogSum({show(self.strength)}, epsilon={self.epsilon:g})"
