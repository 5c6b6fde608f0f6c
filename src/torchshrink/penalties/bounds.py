"""Bounds on each weight: NonNegative and Box. The projection moves each coordinate by itself, whatever the steps."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, working
from torchshrink.penalties.constraints import Constraint, indicator, slack


@final
@dataclass(frozen=True)
class NonNegative(Constraint):
    """The constraint w ≥ 0, coordinate by coordinate: weights that only add, with exact zeros.

    Normal cone: 0 where w > 0, (−∞, 0] where w = 0. Projection: max(z, 0), in the metric of any steps. On this set `L1`
    is λ·Σw, which is smooth: to have both add ``strength * weight.sum()`` to the loss.

    Example:
        >>> NonNegative().prox(torch.tensor([1.5, -0.5, 0.0]), 1.0)
        tensor([1.5000, 0.0000, 0.0000])

    Source:
        Lawson and Hanson (1974), Solving least squares problems.
    """

    elementwise: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"

    def value(self, w: Tensor) -> Tensor:
        """0 if no coordinate is negative, else infinite."""
        x = working(w)
        return indicator(x, x >= 0)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """max(w, 0). A step of 0 moves nothing."""
        return _moved(w, w.clamp(min=0), step)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g| where w > 0, (−g)₊ where w = 0; infinite outside."""
        g = working(grad)
        return _by_place(w, g, w == 0, torch.zeros_like(w, dtype=torch.bool), w < 0).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if no coordinate's gradient is negative, else infinite: w = 0 is on the boundary."""
        g = working(grad)
        found = torch.where((g >= 0).all(), 0.0, torch.inf).to(g.dtype)
        return torch.where(g.isnan().any(), torch.nan, found)

    def __str__(self) -> str:
        return "NonNegative()"


@final
@dataclass(frozen=True)
class Box(Constraint):
    """The constraint low ≤ w ≤ high, coordinate by coordinate.

    Normal cone: 0 between the bounds, (−∞, 0] at the lower, [0, ∞) at the upper one. Projection: clamping, in the
    metric of any steps.

    Args:
        low: the lower bound; −∞ for none.
        high: the upper bound, above it; ∞ for none.

    Raises:
        InputError: they are no numbers, or not in this order.

    Example:
        >>> Box(-1.0, 1.0).prox(torch.tensor([1.5, -0.5]), 1.0)
        tensor([ 1.0000, -0.5000])
    """

    low: float
    high: float

    elementwise: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    tuned: ClassVar[str] = "; to tune the bounds give a callable, such as lambda s: Box(-1 / s, 1 / s)"

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            number = isinstance(value, int | float | numbers.Real) and not isinstance(value, bool)
            if not number or math.isnan(value):
                raise InputError(f"{name}={value!r}: expected a number, or -inf or inf for no bound")
            object.__setattr__(self, name, float(value))
        if not self.low < self.high or math.inf in (self.low, -self.high):
            raise InputError(f"low={self.low:g}, high={self.high:g}: expected a lower bound below the upper one")

    def value(self, w: Tensor) -> Tensor:
        """0 if every coordinate is between the bounds, else infinite."""
        x = working(w)
        return indicator(x, ~self._place(w)[2])

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Min(max(w, low), high). A step of 0 moves nothing."""
        return _moved(w, working(w).clamp(self.low, self.high).to(w.dtype), step)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g| between the bounds, (−g)₊ at the lower, g₊ at the upper one; infinite outside."""
        return _by_place(w, working(grad), *self._place(w)).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if w = 0 is inside, and the gradient 0 or pointing out of the box where 0 is a bound; else infinite."""
        g = working(grad)
        far = self.distance(torch.zeros_like(g), g)
        found = torch.where((far == 0).all(), 0.0, torch.inf).to(g.dtype)
        return torch.where(g.isnan().any(), torch.nan, found)

    def __str__(self) -> str:
        return f"Box(low={self.low:g}, high={self.high:g})"

    def _place(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether each coordinate is at the lower bound, at the upper one, outside."""
        x, rounding = working(w), slack(w)
        below, above = (self.low - x), (x - self.high)
        near_low, near_high = (
            rounding * abs(bound) if math.isfinite(bound) else 0.0 for bound in (self.low, self.high)
        )
        return below.abs() <= near_low, above.abs() <= near_high, (below > near_low) | (above > near_high)


def _moved(w: Tensor, inside: Tensor, step: float | Tensor) -> Tensor:
    """``inside`` where the step is not 0. An infinite weight stays one: it has diverged, and is no bound."""
    moves = torch.as_tensor(step, device=w.device) > 0
    return torch.where(moves & w.isfinite(), inside, w)


def _by_place(w: Tensor, g: Tensor, at_low: Tensor, at_high: Tensor, outside: Tensor) -> Tensor:
    """Per coordinate: the distance of −g to the normal cone, by where the coordinate lies."""
    up, down = torch.where(at_high, 0.0, (-g).clamp(min=0)), torch.where(at_low, 0.0, g.clamp(min=0))
    found = torch.where(outside, torch.inf, torch.maximum(up, down))
    return torch.where(w.isfinite(), found, torch.nan)
