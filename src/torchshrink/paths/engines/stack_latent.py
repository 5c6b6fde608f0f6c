"""Latent weights of stacked parameters: one more stack, of what the latent weights have beyond the model's.

As in `torchshrink.regularizer.attachment.latent`, which is the specification, with one ρ for each lane. What cannot
happen in a path is left out: ρ that follows a schedule, weights frozen on the way, an optimizer that maximises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink.paths.engines.stack_models import narrow
from torchshrink.paths.engines.stack_penalties import LanePenalty
from torchshrink.regularizer.attachment import bounded_rho, coupled_decay, default_rho, start_for_rho


@final
class LatentLanes:
    """The offsets u (F, S, …) of the parameters whose penalties act by latent weights, made in the first step.

    Args:
        penalties: by parameter.
        optimizer: of the stacks.
    """

    def __init__(self, penalties: Mapping[nn.Parameter, LanePenalty], optimizer: Optimizer) -> None:
        self._penalties, self._optimizer = dict(penalties), optimizer
        self._group = {p: group for group in optimizer.param_groups for p in group["params"]}
        self._offset: dict[nn.Parameter, Tensor] = {}
        self._rho: dict[nn.Parameter, Tensor] = {}  # (F, S)
        self._shown: list[nn.Parameter] = []

    def __bool__(self) -> bool:
        return bool(self._penalties)

    def show(self) -> None:
        """Add the pulls to the gradients, and put latent weights in the place of the parameters."""
        self._shown = [p for p in self._penalties if p.grad is not None]
        for p in self._shown:
            if p not in self._offset:
                self._begin(p)
            u = self._offset[p]
            pull = _over(self._rho[p], p) - coupled_decay(self._optimizer, self._group[p])
            assert p.grad is not None
            p.grad.addcmul_(u, pull)
            p.add_(u)

    def hide(self) -> None:
        """Take the latent weights out, as the optimizer has left them, and put their prox there."""
        for p in self._shown:
            u = self._offset[p].copy_(p)
            self._penalties[p].prox_of_steps_(p, 1 / self._rho[p])
            u.sub_(p)

    def narrowed(
        self, now: Mapping[nn.Parameter, nn.Parameter], penalties: Mapping[nn.Parameter, LanePenalty], places: Tensor
    ) -> LatentLanes:
        """The same for some of each fold's lanes, of the parameters that stand in for the old ones."""
        kept = LatentLanes(penalties, self._optimizer)
        kept._offset = {now[p]: narrow(u, places) for p, u in self._offset.items()}
        kept._rho = {now[p]: narrow(rho, places) for p, rho in self._rho.items()}
        return kept

    def _begin(self, p: nn.Parameter) -> None:
        penalty, z, grad = self._penalties[p], p.detach(), p.grad
        assert grad is not None
        rho = penalty.each_lane(
            lambda penalty, z, grad: default_rho(penalty, z, penalty.grad(start_for_rho(z)), grad), z, grad
        ).view(p.shape[:2])
        rho = torch.where((rho > 0) & rho.isfinite(), rho, 1.0)  # at strength 0 any will do
        rho = bounded_rho(rho, self._optimizer, self._group[p], {})
        self._rho[p] = rho
        self._offset[p] = penalty.each_lane(lambda penalty, z: penalty.grad(z), z).view_as(p) / _over(rho, p)


def _over(lanes: Tensor, p: Tensor) -> Tensor:
    """(F, S) in the shape to multiply a stack by."""
    return lanes.view(*lanes.shape, *(1,) * (p.ndim - 2))
