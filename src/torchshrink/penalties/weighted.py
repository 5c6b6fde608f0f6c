"""What penalties of each coordinate with factors ``weights=`` have in common; and their critical strengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor

from torchshrink.penalties.base import Penalty, ProxSteps, working
from torchshrink.penalties.fixed import Weights, bound_weights, exempt_of, mapped, per_weight, weights_like


class Weighted(Penalty):
    """A sum over coordinates, whose strength is λ·a_i with a factor a_i for each, 1 unless given. Abstract.

    A dataclass with a field ``weights``.
    """

    weights: Weights | None

    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True

    def exempt(self, w: Tensor) -> Tensor | None:
        """Where a_i = 0."""
        return exempt_of(self.weights, w)

    def bind(self, w: Tensor) -> Self:
        """With the factors where ``w`` is, one for each of its coordinates."""
        return self if self.weights is None else self._with(bound_weights(self.weights, w))

    def with_state(self, change: Callable[[Tensor], Tensor]) -> Self:
        """With the changed factors."""
        return self if self.weights is None else self._with(mapped(self.weights, change))

    def _with(self, weights: Weights) -> Self:
        return dataclasses.replace(self, weights=weights)  # type: ignore[type-var]


def infinite_unless_zero(grad: Tensor, weights: Weights | None = None) -> Tensor:
    """The critical strength of a penalty that never holds a weight at zero: 0 if the gradient is 0, else infinite.

    The gradient of exempt coordinates, whose factor in ``weights`` is 0, does not count.
    """
    g = working(grad)
    if weights is not None:
        g = torch.where(weights_like(weights, g) > 0, g, 0.0)
    found = torch.where((g == 0).all(), 0.0, torch.inf).to(g.dtype)
    return torch.where(g.isnan().any(), torch.nan, found).to(g.dtype)


def largest_magnitude(grad: Tensor, weights: Weights | None = None) -> Tensor:
    """Max |g_i|/a_i over the coordinates whose factor a_i in ``weights`` is above 0; 0 for an empty tensor."""
    g = working(grad)
    size = g.abs() if weights is None else per_weight(g.abs(), weights_like(weights, g))
    return size.amax() if g.numel() else g.new_zeros(())
