"""Latent weights of stacked parameters: one more stack, of what the latent weights have beyond the model's.

As in `torchshrink.regularizer.attachment.latent`, which is the specification, with one ρ for each lane. What cannot
happen in a path is left out: ρ that follows a schedule, weights frozen on the way, an optimizer that maximises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink.paths.engines.stack_models import narrow
from torchshrink.paths.engines.stack_penalties import LanePenalty
from torchshrink.regularizer.attachment import (
    Fit,
    Measured,
    coupled_decay,
    default_rho,
    followed_rho,
    held_rho,
    is_looked_at,
    looked_back,
    rho_limit,
    start_for_rho,
)


@dataclass
class LaneOffset:
    """What is kept beside one stacked parameter, as `Offset` beside a single one: u (F, S, …), and (F, S) in float64.

    Attributes:
        u: latent weights minus the model's.
        rho: ρ as u has it now.
        fit: what ρ is to be in the next step, but for `rho_limit`.
        begun: the lanes in which a gradient has told a ρ; None: all.
    """

    u: Tensor
    rho: Tensor
    fit: Fit
    begun: Tensor | None

    def narrowed(self, places: Tensor) -> LaneOffset:
        """The same for some of each fold's lanes."""
        begun = None if self.begun is None else narrow(self.begun, places)
        fit = Fit(*(narrow(each, places) for each in self.fit))
        return LaneOffset(narrow(self.u, places), narrow(self.rho, places), fit, begun)


@dataclass(frozen=True)
class LaneLook:
    """A step whose displacement is measured: the norms (F, S) of ∇L + ρu and ρu, and the latent weights before it."""

    gradient: Tensor
    pull: Tensor
    before: Tensor


@final
class LatentLanes:
    """The offsets u (F, S, …) of the parameters whose penalties act by latent weights, made in the first step.

    Args:
        penalties: by parameter.
        optimizer: of the stacks.
        steps: that have been taken.
    """

    def __init__(self, penalties: Mapping[nn.Parameter, LanePenalty], optimizer: Optimizer, *, steps: int = 0) -> None:
        self._penalties, self._optimizer, self._steps = dict(penalties), optimizer, steps
        self._group = {p: group for group in optimizer.param_groups for p in group["params"]}
        self._offset: dict[nn.Parameter, LaneOffset] = {}
        self._shown: dict[nn.Parameter, LaneLook | None] = {}

    def __bool__(self) -> bool:
        return bool(self._penalties)

    def show(self) -> None:
        """Add the pulls to the gradients, and put latent weights in the place of the parameters."""
        looks = is_looked_at(self._steps)
        self._shown = {}
        for p in self._penalties:
            if p.grad is None:
                continue
            offset = self._offset_of(p, p.grad, looks=looks)
            pull = _over(offset.rho, p) - coupled_decay(self._optimizer, self._group[p])
            p.grad.addcmul_(offset.u, pull)
            p.add_(offset.u)
            norms = (_norms(p.grad), offset.rho * _norms(offset.u)) if looks else None
            self._shown[p] = None if norms is None else LaneLook(*norms, p.detach().clone())

    def hide(self) -> None:
        """Take the latent weights out, as the optimizer has left them, and put their prox there."""
        for p, look in self._shown.items():
            offset = self._offset[p]
            u = offset.u.copy_(p)
            moved = None if look is None else _norms(look.before.sub_(u))
            self._penalties[p].prox_of_steps_(p, 1 / offset.rho.to(p.dtype))
            if offset.begun is not None:
                p.copy_(torch.where(_over(offset.begun, p), p, u))
            u.sub_(p)
            if look is not None and moved is not None:
                measured = Measured(look.gradient, look.pull, moved, 1)
                offset.fit = looked_back(offset.fit, measured, self._natural(p), steps=self._steps)
        self._steps += 1

    def narrowed(
        self, now: Mapping[nn.Parameter, nn.Parameter], penalties: Mapping[nn.Parameter, LanePenalty], places: Tensor
    ) -> LatentLanes:
        """The same for some of each fold's lanes, of the parameters that stand in for the old ones."""
        kept = LatentLanes(penalties, self._optimizer, steps=self._steps)
        kept._offset = {now[p]: offset.narrowed(places) for p, offset in self._offset.items()}
        return kept

    # --- ρ, as `LatentWeights` has it ---

    def _offset_of(self, p: nn.Parameter, grad: Tensor, *, looks: bool) -> LaneOffset:
        """What is kept beside a parameter, at the ρ of this step."""
        offset = self._offset.get(p)
        if offset is None:
            offset = self._offset[p] = self._begin(p, grad)
            return offset
        penalty, fit = self._penalties[p], offset.fit
        if penalty.penalty.constraint and looks:
            unit = penalty.each_lane(followed_rho, fit.unit, p.detach(), grad, offset.u).view_as(fit.unit)
            offset.fit = fit = fit._replace(unit=unit, held=held_rho(fit.held, unit, fit.most))
        if looks or is_looked_at(self._steps - 1):
            rho = self._bounded(p, fit.held)
            offset.u.mul_(_over(offset.rho / rho, p))
            offset.rho = rho
        if offset.begun is not None:
            self._begin_others(p, grad, offset, offset.begun)
        return offset

    def _begin(self, p: nn.Parameter, grad: Tensor) -> LaneOffset:
        penalty, z = self._penalties[p], p.detach()
        unit = penalty.each_lane(
            lambda penalty, z, grad: default_rho(penalty, z, penalty.grad(start_for_rho(z)), grad), z, grad
        )
        unit = unit.view(p.shape[:2]).double()
        begun = (unit > 0) & unit.isfinite()
        unit = torch.where(begun, unit, 1.0)
        rho = self._bounded(p, unit)
        u = penalty.each_lane(lambda penalty, z: penalty.grad(z), z).view_as(p).div_(_over(rho, p))
        if bool(begun.all()):
            return LaneOffset(u, rho, Fit(unit, unit, torch.full_like(unit, torch.inf)), None)
        u.mul_(_over(begun, p))
        return LaneOffset(u, rho, Fit(unit, unit, torch.full_like(unit, torch.inf)), begun)

    def _begin_others(self, p: nn.Parameter, grad: Tensor, offset: LaneOffset, begun: Tensor) -> None:
        """Begin in the lanes in which the gradient of a constraint was 0 until now."""
        fresh = self._begin(p, grad)
        offset.u = torch.where(_over(begun, p), offset.u, fresh.u)
        offset.rho = torch.where(begun, offset.rho, fresh.rho)
        offset.fit = Fit(*(torch.where(begun, old, new) for old, new in zip(offset.fit, fresh.fit, strict=True)))
        offset.begun = None if fresh.begun is None or bool((begun | fresh.begun).all()) else begun | fresh.begun

    def _bounded(self, p: nn.Parameter, rho: Tensor) -> Tensor:
        # One for all lanes: it rests on no state.
        return rho.clamp(max=rho_limit(self._optimizer, self._group[p], {}))

    def _natural(self, p: nn.Parameter) -> Tensor:
        """`default_rho` for the weights of now, where ρ follows these; NaN elsewhere."""
        penalty, z = self._penalties[p], p.detach()
        if penalty.penalty.constraint:
            return z.new_full(p.shape[:2], torch.nan)
        natural = penalty.each_lane(lambda penalty, z: default_rho(penalty, z, penalty.grad(z), None), z)
        return torch.where(_norms(z) > 0, natural.view(p.shape[:2]).double(), torch.nan)


def _norms(stack: Tensor) -> Tensor:
    """Each lane's, (F, S), in float64."""
    norms: Tensor = torch.linalg.vector_norm(stack.detach().flatten(2), dim=2)
    return norms.double()


def _over(lanes: Tensor, p: Tensor) -> Tensor:
    """(F, S) in the shape, and the precision, to multiply a stack by."""
    lanes = lanes if lanes.dtype == torch.bool else lanes.to(p.dtype)
    return lanes.view(*lanes.shape, *(1,) * (p.ndim - 2))
