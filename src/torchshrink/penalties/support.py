"""Support: zeros that are given, and stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, working
from torchshrink.penalties.constraints import Constraint, indicator
from torchshrink.penalties.hard_sparsity import tangential
from torchshrink.penalties.weighted import infinite_unless_zero


@final
@dataclass(frozen=True, eq=False)
class Support(Constraint):
    """The constraint that what is zero stays zero: w_i = 0 wherever ``mask`` is False; a subspace, and so convex.

    ``Support()`` does not know its zeros yet. A `Regularizer` binds it: the mask is then w ≠ 0 at that moment, kept in
    its state. A relaxed refit is a training under it. Normal space: all that is 0 on the mask. Projection: z on the
    mask, 0 elsewhere, in the metric of any steps.

    Args:
        mask: what may be nonzero, a tensor of truth values shaped like the weights; None leaves it to binding.

    Raises:
        InputError: it is no such tensor, or not shaped like the weights.

    Example:
        >>> Support().bind(torch.tensor([1.0, 0.0])).prox(torch.tensor([3.0, 2.0]), 1.0)
        tensor([3., 0.])
    """

    mask: Tensor | None = field(default=None, repr=False)

    elementwise: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        if self.mask is not None and not (isinstance(self.mask, Tensor) and self.mask.dtype == torch.bool):
            given = f"a tensor of {self.mask.dtype}" if isinstance(self.mask, Tensor) else repr(self.mask)
            raise InputError(f"mask: {given} given, a tensor of truth values expected, such as weight != 0")

    def bind(self, w: Tensor) -> Self:
        """With the zeros of ``w``, or those given."""
        return type(self)((w.detach() != 0) if self.mask is None else self._mask(w).clone())

    def state(self) -> Mapping[str, Tensor]:
        """The mask."""
        return {} if self.mask is None else {"mask": self.mask}

    def with_state(self, change: Callable[[Tensor], Tensor]) -> Self:
        """With the changed mask."""
        return self if self.mask is None else type(self)(change(self.mask))

    def value(self, w: Tensor) -> Tensor:
        """0 if nothing is nonzero outside the mask, else infinite."""
        return indicator(working(w), self._mask(w) | (w == 0))

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """W on the mask, 0 elsewhere. A step of 0 moves nothing."""
        return torch.where(self._mask(w) | ~w.isfinite() | ~(torch.as_tensor(step, device=w.device) > 0), w, 0.0)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g| on the mask, 0 elsewhere; infinite where w is nonzero there."""
        mask = self._mask(w)
        return tangential(w, grad, mask, ~mask & (w != 0))

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if the gradient is 0 on the mask, else infinite."""
        return infinite_unless_zero(torch.where(self._mask(grad) | grad.isnan(), grad, 0.0))

    def __str__(self) -> str:
        return "Support()"

    def _mask(self, w: Tensor) -> Tensor:
        if self.mask is None:
            raise InputError("Support(): not bound to weights yet; a Regularizer binds it, or give mask=, or .bind(w)")
        if self.mask.shape != w.shape:
            shape = tuple(self.mask.shape)
            raise InputError(
                f"Support(): a mask of shape {shape} given, one like the weights, {tuple(w.shape)}, expected"
            )
        return self.mask.to(w.device)
