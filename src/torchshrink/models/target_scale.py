"""The unit in which a target of numbers is trained on, where the model has its own way back from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.models.preprocessing import Rescale


@dataclass(frozen=True)
class TargetScale:
    """A target y = mean + scale·z, of which z is trained on: y's own unit decides neither steps nor strengths.

    F is then mean((f − z)²) + penalty. A mean of squares in z's unit times ``of_loss`` is one in y's.

    >>> unit = TargetScale(10.0, 2.0)
    >>> unit.inward(torch.tensor([8.0, 14.0])), unit.of_loss
    (tensor([-1.,  2.], dtype=torch.float64), 4.0)
    """

    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, model: nn.Module, y: Tensor) -> TargetScale:
        """Mean and standard deviation of y (n,), if ``model`` ends in a `Rescale`, which can go back; else none."""
        if len(rescales(model)) != 1 or y.ndim != 1 or not y.is_floating_point():
            return cls()
        wide = y.double()
        top = float(wide.abs().max())
        if top == 0:
            return cls()
        wide = wide / top  # squares of huge or tiny numbers are beyond float64
        mean, scale = top * float(wide.mean()), top * float(wide.std(correction=0))
        return cls(mean, scale) if scale > torch.finfo(torch.float64).tiny else cls()

    @property
    def of_loss(self) -> float:
        """By how much a mean of squares in y's unit is larger."""
        return self.scale**2

    def inward(self, y: Tensor) -> Tensor:
        """Z in float64, where this is a unit at all."""
        return y if self == TargetScale() else (y.double() - self.mean) / self.scale

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Let a model of z give y: its `Rescale` takes the way back too."""
        if self == TargetScale():
            return
        (rescale,) = rescales(model)
        rescale.mean.mul_(self.scale).add_(self.mean)
        rescale.scale.mul_(self.scale)


def rescales(model: nn.Module) -> list[Rescale]:
    """The modules of ``model`` that return from a target's standardised unit."""
    return [module for module in model.modules() if isinstance(module, Rescale)]
