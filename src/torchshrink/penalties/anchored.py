"""Penalties that pull towards given weights instead of zero, for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Penalty, ProxSteps, Strength, checked_strength, show, working
from torchshrink.penalties.fixed import (
    Weights,
    also,
    bound_weights,
    check_broadcast,
    checked_weights,
    dot,
    exempt_of,
    mapped,
    scaled,
    short_repr,
    weights_like,
)


@final
@dataclass(frozen=True, eq=False)
class L2SP(Penalty):
    """λ·Σ a_i·(w_i − w_i⁰)², without a ½: fine-tuning that does not forget its starting point w⁰.

    ``L2SP(strength)`` does not know its starting point yet. A `Regularizer` binds it: w⁰ is then a copy of the weights
    at that moment, kept in the regularizer's state, so that a resumed run still pulls towards the first weights.
    Elsewhere give the anchor, or call ``bind(w)``.

    Gradient 2λa(w − w⁰). Prox with step s: (z + 2sλaw⁰)/(1 + 2sλa). Exact for one step per coordinate. All a_i are 1
    unless given; with the Fisher information for them it is elastic weight consolidation, whose λ has a ½ more.

    Two are equal if their strengths and factors are, and they pull to the very same anchor.

    Args:
        strength: λ ≥ 0, in units of loss per squared weight.
        anchor: w⁰, a tensor that broadcasts to the weights or a number; None leaves it to binding. Calculations follow
            the weights' device and dtype; bind after moving the model, or w⁰ is copied over at every step.
        weights: a ≥ 0, a number or a tensor that broadcasts to the weights; 0 exempts a coordinate.

    Raises:
        InputError: the strength or a factor is negative, infinite or not a number; the anchor or the factors do not
            broadcast to the weights; or there is no anchor.

    Example:
        >>> pull = L2SP(0.5).bind(torch.tensor([1.0, 2.0]))
        >>> pull.grad(torch.tensor([1.0, 5.0]))
        tensor([0., 3.])

    Source:
        Li, Grandvalet and Davoine (2018), Explicit inductive bias for transfer learning with convolutional networks;
        Kirkpatrick et al. (2017), Overcoming catastrophic forgetting in neural networks, for the weights.
    """

    strength: Strength
    anchor: Tensor | float | None = field(default=None, repr=False)
    weights: Weights | None = field(default=None, kw_only=True)

    smooth: ClassVar[bool] = True
    prox_steps: ClassVar[ProxSteps] = "coordinate"
    elementwise: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "weights", checked_weights(self.weights))
        if isinstance(self.anchor, bool) or not isinstance(self.anchor, Tensor | int | float | None):
            raise InputError(f"anchor={self.anchor!r}: expected a tensor, a number, or None")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, L2SP):
            return NotImplemented
        same = self.anchor is other.anchor
        if not isinstance(self.anchor, Tensor) and not isinstance(other.anchor, Tensor):
            same = self.anchor == other.anchor
        return same and self.weights == other.weights and bool(self.strength == other.strength)

    def __hash__(self) -> int:
        anchor = id(self.anchor) if isinstance(self.anchor, Tensor) else self.anchor
        return hash((L2SP, self.strength, anchor, self.weights))

    def exempt(self, w: Tensor) -> Tensor | None:
        """Where a_i = 0."""
        return exempt_of(self.weights, w)

    def bind(self, w: Tensor) -> Self:
        """The same penalty towards a copy of ``w``; with an anchor already given, towards a copy of that one.

        Raises:
            InputError: the anchor given, or the factors, do not broadcast to the shape of ``w``.
        """
        anchor = w.detach() if self.anchor is None else self._anchor(w.detach()).to(w.dtype).expand(w.shape)
        weights = None if self.weights is None else bound_weights(self.weights, w)
        return type(self)(self.strength, anchor.clone(), weights=weights)

    def state(self) -> Mapping[str, Tensor]:
        """The anchor, where it is a tensor."""
        return {"anchor": self.anchor} if isinstance(self.anchor, Tensor) else {}

    def with_state(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Towards the changed anchor, where it is a tensor, with the changed factors."""
        anchor = change(self.anchor) if isinstance(self.anchor, Tensor) else self.anchor
        weights = None if self.weights is None else mapped(self.weights, change)
        return type(self)(self.strength, anchor, weights=weights)

    def value(self, w: Tensor) -> Tensor:
        """λ·Σ a(w − w⁰)²."""
        return dot(self._strength(w), self._from_anchor(w).square())

    def grad(self, w: Tensor) -> Tensor:
        """2λa(w − w⁰)."""
        return (2 * self._strength(w) * self._from_anchor(w)).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """(w + 2·step·λa·w⁰)/(1 + 2·step·λa), as the point between w (step 0) and w⁰ that it is."""
        x = working(w)
        pull = torch.as_tensor(2 * step * self._strength(w), dtype=x.dtype, device=x.device)
        return torch.lerp(x, self._anchor(w).expand_as(x), 1 / (1 + 1 / pull)).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + 2λa(w − w⁰)|."""
        return (working(grad) + 2 * self._strength(w) * self._from_anchor(w)).abs().to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Infinite: from no strength on does w = 0 stay stationary, unless both the gradient and w⁰ are 0."""
        g = working(grad)
        at_rest = (g == 0) & (self._anchor(grad) == 0)
        if self.weights is not None:  # what is exempt does not count
            held = weights_like(self.weights, g) > 0
            at_rest, g = at_rest | ~held, torch.where(held, g, 0.0)
        found = torch.where(at_rest.all(), 0.0, torch.inf)
        return torch.where(g.isnan().any(), torch.nan, found).to(g.dtype)

    def with_strength(self, strength: Strength) -> Self:
        """Towards the same anchor at another strength."""
        return type(self)(strength, self.anchor, weights=self.weights)

    __repr__ = short_repr

    def __str__(self) -> str:
        return f"L2SP({show(self.strength)}{also(weights=self.weights)})"

    def _strength(self, w: Tensor) -> Strength:
        return scaled(self.strength, self.weights, w)

    def _from_anchor(self, w: Tensor) -> Tensor:
        return working(w) - self._anchor(w)

    def _anchor(self, w: Tensor) -> Tensor:
        """w⁰ in the dtype to compute in, where ``w`` is."""
        if self.anchor is None:
            raise InputError(
                f"{self}: not bound to weights yet; a Regularizer binds it, or give anchor=, or use .bind(w)"
            )
        dtype = working(w).dtype
        if not isinstance(self.anchor, Tensor):
            return torch.full((), self.anchor, dtype=dtype, device=w.device)
        check_broadcast(f"{self}: an anchor", self.anchor, tuple(w.shape))
        return self.anchor.to(device=w.device, dtype=dtype)
