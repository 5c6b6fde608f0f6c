"""Latent weights: what an optimizer moves under method ``latent``, while the model holds their prox.

For each penalised tensor z an offset u is kept beside it, in float32 at least. The latent weights are w = z + u, and
between the steps z = prox_{Ω/ρ}(w), with exact zeros:

- before a step grad ← ∇L(z) + ρu, and the tensor ← w;
- the optimizer steps, whatever it does;
- after it w ← the tensor, the tensor ← prox_{Ω/ρ}(w), u ← w − z.

Where it comes to rest, ∇L(z) + ρu = 0, and ρu = ρ(w − z) is in ∂Ω(z) by the prox: z is stationary for F = L + Ω.
Nothing is asked of the optimizer but that it rests only where its gradient is 0. With SGD and ρ = 1/lr it is the prox
step.

Keeping u and not w means that whoever moves z between the steps moves the latent weights along.

Source: the normal map (Robinson 1992; Milzarek and Ouyang 2023), whose proximal point is the model here.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import InputError, ObjectiveWarning, StepSizeError
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import working
from torchshrink.regularizer.attachment.bundling import Bundle, dense_gradient
from torchshrink.regularizer.terms import Schedule
from torchshrink.step_sizes import climbs, step_size_of, weight_decays
from torchshrink.support.private_torch import version_of

KAPPA = 10.0
"""ρ = κ·‖∂Ω(z)‖/‖z‖ at the start: under L1 all weights below a tenth of their root mean square are 0 at most.

Too small a ρ lets a weight cross a wide range in which the model sees 0; too large a one makes every step a short one.
"""

SMALLEST, ORDINARY = 0.01, 0.3
"""What stands in for ‖z‖ when ρ is chosen, times √numel/√(inputs): ORDINARY, about what a layer starts with, where all
weights start at 0; and at least SMALLEST elsewhere."""

SAME = 1e-4  # in relation: how far the prox of the latent weights may be from the model's before that is an edit


@dataclass
class Offset:
    """What is kept beside one tensor.

    Attributes:
        u: latent weights minus the model's, shaped like the tensor.
        unit: ρ at scale 1.
        rho: ρ as u has it now.
        scale: the regularizer's scale as u has it now.
        version: of the tensor when u was made; None where that was in another process.
    """

    u: Tensor
    unit: float
    rho: float
    scale: float
    version: int | None = None


def start_for_rho(z: Tensor) -> Tensor:
    """Where to look at ∂Ω to choose ρ: at the weights as they start; away from 0, where all of them are 0."""
    return torch.where(_norm(z) > 0, z, ORDINARY * _unit(z))


def default_rho(z: Tensor, pull: Tensor, grad: Tensor) -> Tensor:
    """ρ = κ·‖∂Ω(z)‖/‖z‖, a scalar, in proportion to the penalty and inversely to the weights.

    Args:
        z: the weights at the start.
        pull: ∂Ω at `start_for_rho`.
        grad: the loss's gradient, which stands in for ∂Ω where that is 0, as it is of a constraint inside its set.
    """
    norm, unit = _norm(z), _unit(z) * math.sqrt(z.numel())
    size = torch.where(norm > 0, norm.clamp(min=SMALLEST * unit), ORDINARY * unit)
    against = _norm(pull)
    rho = KAPPA * torch.where(against > 0, against, _norm(grad)) / size
    return torch.where((rho > 0) & rho.isfinite(), rho, 1.0)


def _unit(z: Tensor) -> float:
    """1/√(inputs) of a layer with these weights."""
    inputs = z.numel() / z.shape[0] if z.ndim > 1 and z.numel() else z.numel()
    return 1 / math.sqrt(max(inputs, 1.0))


def _norm(tensor: Tensor) -> Tensor:
    return distributed.whole(torch.linalg.vector_norm(tensor))


def bounded_rho(rho: Tensor, optimizer: Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    """ρ, at most 1/s where one step size s is known for the whole tensor, as after SGD: there it is the prox."""
    with contextlib.suppress(StepSizeError, KeyError):  # a state may not have begun
        rule = step_size_of(optimizer, group)
        if not rule.coordinatewise and rule.remember is None:
            step = float(rule.step_size(group, state))
            return rho.clamp(max=1 / step) if step > 0 else rho
    return rho


def coupled_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> float:
    """What an optimizer adds to the gradient of a weight, in units of the weight."""
    return sum(decay.rate for decay in weight_decays(optimizer, group) if decay.kind == "coupled")


@final
class Offsets:
    """The offsets of a regularizer's terms, by name: made in the first step, and what there is of them to save."""

    def __init__(self) -> None:
        self.of: dict[str, Offset] = {}

    def state(self) -> dict[str, dict[str, Any]]:
        """Copies, to save."""
        return {
            name: {"offset": each.u.clone(), "unit": each.unit, "rho": each.rho, "scale": each.scale}
            for name, each in self.of.items()
        }

    def load(self, state: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, nn.Parameter]) -> None:
        """Take over what `state` returned.

        Raises:
            InputError: it is of other tensors; nothing is changed then.
        """
        loaded = {}
        for name, saved in state.items():
            p = parameters.get(name)
            if p is None or set(saved) != {"offset", "unit", "rho", "scale"} or saved["offset"].shape != p.shape:
                raise InputError(
                    f"load_state_dict: latent weights of {name!r} in the state, which fit no penalised parameter here; "
                    "use the same model and rules"
                )
            u = working(torch.empty_like(p, requires_grad=False))
            u.copy_(distributed.shard_like(saved["offset"], p))
            loaded[name] = Offset(u, saved["unit"], saved["rho"], saved["scale"])
        self.of = loaded


@final
class LatentWeights:
    """The terms of one attachment that act by latent weights.

    Args:
        optimizer: moves them.
        bundles: those of method ``latent``.
        schedule: the scale.
        offsets: what the regularizer keeps.
        rho: ρ at scale 1 for every tensor; None: `default_rho` of each.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        bundles: Sequence[Bundle],
        *,
        schedule: Schedule,
        offsets: Offsets,
        rho: float | None,
    ) -> None:
        self._optimizer, self._bundles, self._schedule = optimizer, bundles, schedule
        self._offsets, self._rho = offsets, rho
        self._shown: list[tuple[Bundle, nn.Parameter, Offset]] = []  # the tensors that hold latent weights now
        self.notes: tuple[str, ...] = ()

    # --- around a step ---

    def add_pull(self, loss_scale: float | Tensor) -> None:
        """Grad += ρu for each tensor that has a gradient; times the loss scale that the optimizer will divide by.

        Coupled decay d adds d·w in the optimizer, where F has d·z: so d·u is taken off.
        """
        for bundle in self._acting():
            group = self._optimizer.param_groups[bundle.group]
            coupled = coupled_decay(self._optimizer, group)
            sign = -1.0 if climbs(self._optimizer, group) else 1.0
            for name, p in bundle.live_by_name():
                offset = self._offset(bundle, name, p, loss_scale)
                pull = sign * (offset.rho - coupled) * loss_scale
                if isinstance(pull, Tensor):
                    dense_gradient(p).add_(offset.u * pull)
                else:
                    dense_gradient(p).add_(offset.u, alpha=pull)

    def show(self, *, without_gradient: bool = False) -> None:
        """Put latent weights in the place of the tensors that the optimizer is about to move.

        Args:
            without_gradient: of those, too, that have no gradient: a closure may yet make one.
        """
        for bundle in self._acting():
            for name, p in bundle.by_name() if without_gradient else bundle.live_by_name():
                offset = self._offsets.of.get(name)
                if offset is not None:
                    self._shown.append((bundle, p, offset))
                    if offset.u.dtype == p.dtype:
                        p.add_(offset.u)
                    else:
                        p.copy_(offset.u.add_(p))  # u holds w meanwhile, which p has rounded

    def hide(self) -> None:
        """Take the latent weights out again, as the optimizer has left them, and put their prox there."""
        shown, self._shown = self._shown, []
        for bundle, p, offset in shown:
            u = offset.u
            if u.dtype == p.dtype:
                u.copy_(p)
            else:
                u.add_(p.to(u.dtype).sub_(u.to(p.dtype)))  # the optimizer's displacement of what p has rounded
                p.copy_(u)
            distributed.prox_(self._convex(bundle), [p], [1 / offset.rho])
            u.sub_(p)
            offset.version = version_of(p)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the tensors hold their latent weights, for an optimizer that moves them between its steps."""
        with torch.no_grad():
            self.show(without_gradient=True)
            try:
                yield
            finally:
                self.hide()

    # --- one tensor ---

    def _acting(self) -> Iterator[Bundle]:
        """The bundles that pull at all. At strength 0 the model's weights are the latent ones."""
        for bundle in self._bundles:
            strength = self._schedule.scaled(bundle.penalty).strength
            if bundle.penalty.constraint or isinstance(strength, Tensor) or strength > 0:
                yield bundle
            else:
                for name in bundle.names:
                    self._offsets.of.pop(name, None)

    def _convex(self, bundle: Bundle) -> Penalty:
        """Whose prox is taken: that of the convex part, where the rest acts through the gradient."""
        penalty = self._schedule.scaled(bundle.penalty)
        return penalty.convex_part or penalty

    def _offset(self, bundle: Bundle, name: str, p: nn.Parameter, loss_scale: float | Tensor) -> Offset:
        """What is kept beside a tensor, as the tensor is now and at the ρ of this step."""
        offset, scale = self._offsets.of.get(name), self._schedule.factor()
        if bundle.penalty.constraint:
            scale = 1.0
        if offset is None:
            offset = self._begin(bundle, p, dense_gradient(p) / loss_scale, scale)
            self._offsets.of[name] = offset
            return offset
        offset.u = offset.u.to(p.device, torch.promote_types(p.dtype, torch.float32))
        self._look(bundle, name, p, offset)
        rho = self._bounded(offset.unit * scale, bundle, p)
        if (rho, scale) != (offset.rho, offset.scale):
            # What ρu is per unit of strength stays: the pull on a weight that is not 0 is then that of the new one.
            offset.u.mul_((scale / offset.scale) * (offset.rho / rho))
            offset.rho, offset.scale = rho, scale
        return offset

    def _begin(self, bundle: Bundle, p: nn.Parameter, grad: Tensor, scale: float) -> Offset:
        """u = ∂Ω(z)/ρ, of which z is the prox: nothing that the model computes changes."""
        penalty = self._convex(bundle)
        z = working(p.detach())
        if self._rho is not None:
            unit = self._rho
        else:
            pull = distributed.gradients(penalty, [start_for_rho(z)], 1.0)[0]
            unit = float(default_rho(z, pull, grad)) / scale
        rho = self._bounded(unit * scale, bundle, p)
        return Offset(distributed.gradients(penalty, [z], 1 / rho)[0], unit, rho, scale)

    def _bounded(self, rho: float, bundle: Bundle, p: nn.Parameter) -> float:
        group, state = self._optimizer.param_groups[bundle.group], self._optimizer.state.get(p, {})
        return float(bounded_rho(torch.tensor(rho, dtype=torch.float64), self._optimizer, group, state))

    def _look(self, bundle: Bundle, name: str, p: nn.Parameter, offset: Offset) -> None:
        """Notice where a tensor is no longer what the last step left.

        Warns:
            ObjectiveWarning: once.
        """
        if offset.version is None or self.notes or offset.version == version_of(p):
            return
        before = working(p.detach())
        after = before + offset.u
        distributed.prox_(self._convex(bundle), [after], [1 / offset.rho])
        if float(_norm(after - before)) > SAME * float(_norm(before)):  # not merely exchanged, and put back
            note = (
                f"{name} was changed between the steps, by load_state_dict, clamping or averaging perhaps: its latent "
                "weights move along with it. To go on from a checkpoint restore the regularizer's state too; to begin "
                "anew, detach() and attach()"
            )
            self.notes = (note,)
            warnings.warn(note, ObjectiveWarning, stacklevel=6)
