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
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import AttachmentError, ObjectiveWarning, StepSizeError
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import working
from torchshrink.regularizer.attachment.blocks import is_cut
from torchshrink.regularizer.attachment.bundling import Bundle, dense_gradient
from torchshrink.regularizer.attachment.offsets import Look, Offset, Offsets
from torchshrink.regularizer.attachment.rho import (
    Fit,
    Measured,
    coupled_decay,
    default_rho,
    first_rho_in_blocks,
    followed_rho,
    held_rho,
    is_looked_at,
    is_stuck,
    looked_back,
    norm_of,
    rho_limit,
    start_for_rho,
)
from torchshrink.regularizer.terms import Schedule
from torchshrink.step_sizes import climbs
from torchshrink.support.compiling import uncompiled
from torchshrink.support.precision import without_autocast
from torchshrink.support.private_torch import steps_under_way, version_of

SAME = 1e-4  # in relation: how far the prox of the latent weights may be from the model's before that is an edit
DOUBLINGS = 60  # of ρ, until the weights are a prox at all under a penalty whose convexity is not known


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
        self._looked: list[
            tuple[Bundle, str, nn.Parameter, Offset]
        ] = []  # those whose displacement this step is measured
        self._edited: dict[str, str] = {}
        self._stuck: dict[str, str] = {}
        self._rates: dict[int, tuple[Tensor, int, float]] = {}  # by group: the tensor, its version, the rate

    @property
    def notes(self) -> tuple[str, ...]:
        """Which tensors were changed between the steps, and which no search moves, in words."""
        return (*self._edited.values(), *self._stuck.values())

    # --- around a step ---

    # Not compiled: ρ follows the rate, and a compiled step would be compiled anew for each.
    @uncompiled
    def enter_step(self, loss_scale: float | Tensor) -> None:
        """Grad += ρu for each tensor that has a gradient, and latent weights in its place.

        Times the loss scale that the optimizer will divide by. Coupled decay d adds d·w in the optimizer, where F has
        d·z: so d·u is taken off.
        """
        self._forget_idle()
        looks = self._rho is None and is_looked_at(self._schedule.steps)
        for bundle in self._acting():
            group = self._optimizer.param_groups[bundle.group]
            coupled = coupled_decay(self._optimizer, group)
            sign = -1.0 if climbs(self._optimizer, group) else 1.0
            for name, p in bundle.live_by_name():
                offset = self._offset(bundle, name, p, loss_scale)
                if offset is None:
                    continue
                pull = sign * (offset.rho - coupled) * loss_scale
                if isinstance(pull, Tensor):
                    dense_gradient(p).add_(offset.u * pull)
                else:
                    dense_gradient(p).add_(offset.u, alpha=pull)
                if looks and offset.look is None:  # in its first evaluation, where a step has several
                    offset.look = Look(norm_of(dense_gradient(p)) / loss_scale, offset.rho * norm_of(offset.u))
                    self._looked.append((bundle, name, p, offset))
                if offset.look is not None:
                    offset.look.evaluations += 1
                self._show(bundle, p, offset)  # at once, while u is in the cache

    def lent(self, loss_scale: float) -> dict[int, Offset]:
        """By the tensors' ids, what is kept beside those with a gradient, at this step's ρ: for a compiled step.

        That does in one pass what `enter_step` and `leave` do, for tensors whose gradients it then hides from these.
        Nothing in a step that is looked at: its displacement is measured here.
        """
        if self._rho is None and is_looked_at(self._schedule.steps):
            return {}
        self._forget_idle()
        live = [(bundle, name, p) for bundle in self._acting() for name, p in bundle.live_by_name()]
        found = {id(p): self._offset(bundle, name, p, loss_scale) for bundle, name, p in live}
        return {key: offset for key, offset in found.items() if offset is not None}

    @uncompiled
    def enter_closure(self) -> None:
        """Latent weights in the place of all tensors that have some, before a closure makes the gradients."""
        self._forget_idle()
        self._show_all()

    @uncompiled
    def leave(self) -> None:
        """Take the latent weights out again, as the optimizer has left them, and put their prox there."""
        while self._shown:
            bundle, p, offset = self._shown[-1]
            penalty = self._penalty_of(bundle, offset)
            if offset.latent is None:
                distributed.split_(penalty, p, 1 / offset.rho, offset.u)
            else:  # what the optimizer moved the rounded values by
                offset.u = offset.latent.add_(p.to(offset.u.dtype).sub_(offset.latent.to(p.dtype)))
                offset.latent = None
                p.copy_(offset.u)
                distributed.prox_(penalty, [p], [1 / offset.rho])
                offset.u.sub_(p)
            offset.version = version_of(p)
            self._shown.pop()

    def begin_step(self) -> None:
        """Before a step: the last one may have ended in an exception."""
        self.leave()
        for *_, offset in self._looked:
            offset.look = None
        self._looked.clear()

    @uncompiled
    def end_step(self) -> None:
        """`leave`; and where this step was looked at, see whether ρ suits it."""
        self.leave()
        looked = [(*each, each[3].look) for each in self._looked if each[3].look is not None]
        self._looked.clear()
        if looked:
            self._look_back(looked)

    def _look_back(self, looked: Sequence[tuple[Bundle, str, nn.Parameter, Offset, Look]]) -> None:
        """Another ρ, from the next step on, where the optimizer or the weights ask for it."""
        device = looked[0][2].device
        seen = torch.stack([self._seen(bundle, p, offset.u, look).to(device) for bundle, _, p, offset, look in looked])
        # In one transfer, and then on the CPU: what follows are few numbers.
        gradient, pull, moved, natural, size = seen.cpu().unbind(1)
        measured = Measured(gradient, pull, moved, torch.tensor([look.evaluations for *_, look in looked]))
        held = [(each.unit_rho, each.held, each.most, each.rho, each.scale) for *_, each, _ in looked]
        unit, as_held, most, rho, scale = torch.tensor(held, dtype=torch.float64).unbind(1)
        digits = torch.tensor([torch.finfo(p.dtype).eps for _, _, p, *_ in looked], dtype=torch.float64)
        stuck = is_stuck(measured, digits * (size + pull / rho)).tolist()
        fits = looked_back(Fit(unit, as_held, most), measured, natural, steps=self._schedule.steps, scale=scale)
        for (_, name, _, offset, look), still, *fit in zip(
            looked, stuck, *(each.tolist() for each in fits), strict=True
        ):
            self._stuck.pop(name, None)
            if still:
                self._stuck[name] = (
                    f"{name}: {type(self._optimizer).__name__} took {look.evaluations} gradients in a step and "
                    "moved nothing, where they are not 0: a line search finds no descent where rho is below the "
                    "loss's curvature; attach with rho=, about the largest one, or take no line search"
                )
            offset.look = None
            offset.unit_rho, offset.held, offset.most = fit

    def _seen(self, bundle: Bundle, p: nn.Parameter, u: Tensor, look: Look) -> Tensor:
        """‖∇L + ρu‖, ‖ρu‖, ‖Δw‖ of the step just taken, ρ for the weights of now, ‖z‖: (5,), in float64."""
        z = working(p.detach())
        moved = z.new_full((), math.nan) if look.before is None else norm_of(look.before.sub_(p).sub_(u))
        size = norm_of(z)
        # A constraint's ρ follows its gradients (`followed_rho`); one of unknown convexity has what makes z a prox.
        if bundle.penalty.convex_part is None or bundle.penalty.constraint:
            natural = moved.new_full((), math.nan)
        else:
            natural = torch.where(size > 0, self._unit_rho(bundle, z, None), math.nan)
        return torch.stack([each.double() for each in (look.gradient, look.pull, moved, natural, size)])

    def settle(self) -> None:
        """Give the model its weights back where a step ended in an exception, before anybody looks at them.

        Raises:
            AttachmentError: this is called inside a step, in which the model holds latent weights.
        """
        if not self._shown:
            return
        if steps_under_way(self._optimizer):
            raise AttachmentError(
                f"inside the step of {type(self._optimizer).__name__} the model holds latent weights, of which neither "
                "sparsity, value, certificate nor state is that of the model: ask between the steps"
            )
        with torch.no_grad(), without_autocast():
            self.leave()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the tensors hold their latent weights, for an optimizer that moves them between its steps."""
        with torch.no_grad(), without_autocast():
            self._show_all()
            try:
                yield
            finally:
                self.leave()

    def _show_all(self) -> None:
        """Latent weights in the place of every tensor that has some, whether or not it has a gradient."""
        for bundle in self._acting():
            for name, p in bundle.by_name():
                offset = self._offsets.of.get(name)
                if offset is not None:
                    offset.fit(p)
                    self._show(bundle, p, offset)

    def _show(self, bundle: Bundle, p: nn.Parameter, offset: Offset) -> None:
        if offset.u.dtype == p.dtype:
            p.add_(offset.u)
        else:
            offset.latent = offset.u + p
            p.copy_(offset.latent)
        if offset.look is not None and offset.look.before is None:
            offset.look.before = (p if offset.latent is None else offset.latent).detach().clone()
        self._shown.append((bundle, p, offset))

    # --- which ---

    def _acting(self) -> Iterator[Bundle]:
        """The bundles that pull at all."""
        return (bundle for bundle in self._bundles if not self._idle(bundle))

    def _idle(self, bundle: Bundle) -> bool:
        if bundle.penalty.constraint:
            return False
        strength = self._schedule.scaled(bundle.penalty).strength
        return self._schedule.factor() == 0 or (not isinstance(strength, Tensor) and strength == 0)

    def _forget_idle(self) -> None:
        """At strength 0 the model's weights are the latent ones."""
        for bundle in self._bundles:
            if self._idle(bundle):
                for name in bundle.names:
                    self._offsets.of.pop(name, None)

    def _convex(self, bundle: Bundle) -> Penalty:
        """Whose prox is taken: that of the convex part, where the rest acts through the gradient."""
        penalty = self._schedule.scaled(bundle.penalty)
        return penalty.convex_part or penalty

    def _penalty_of(self, bundle: Bundle, offset: Offset) -> Penalty:
        """Whose prox the tensor is: of the strength, or the set, that was in force when its offset was made."""
        if offset.penalty is None:  # it comes from another process
            penalty = bundle.penalty
            if penalty.scheduled:
                penalty = penalty.at_step(max(self._schedule.steps - 1, 0))
            elif not penalty.constraint and offset.scale != 1.0:
                penalty = penalty.with_strength(penalty.strength * offset.scale)
            offset.penalty = penalty.convex_part or penalty
        return offset.penalty

    # --- one tensor ---

    def _offset(self, bundle: Bundle, name: str, p: nn.Parameter, loss_scale: float | Tensor) -> Offset | None:
        """What is kept beside a tensor, as the tensor is now and at the ρ of this step; None: it has not begun."""
        offset = self._offsets.of.get(name)
        scale = 1.0 if bundle.penalty.constraint else self._schedule.factor()  # a constraint has no strength to scale
        if offset is None:
            grad = dense_gradient(p)
            offset = self._begin(bundle, p, grad if loss_scale == 1.0 else grad / loss_scale, scale)
            if offset is not None:
                self._offsets.of[name] = offset
            return offset
        offset.fit(p)
        self._notice_edit(bundle, name, p, offset)
        if self._rho is not None:
            offset.unit_rho = offset.held = self._rho
        elif bundle.penalty.constraint and is_looked_at(self._schedule.steps):  # the first gradient may be a small one
            z, grad, fit = p.detach().double(), dense_gradient(p).double() / loss_scale, _fit_of(offset)
            unit = followed_rho(bundle.penalty, fit.unit.to(p.device), z, grad, offset.u.double()).cpu()
            offset.unit_rho, offset.held = float(unit), float(held_rho(fit.held, unit, fit.most))
        if scale > offset.scale:  # a stronger pull lets a ρ be larger by as much; the steps will tell
            offset.most *= scale / offset.scale
        rho = self._bounded(offset.held * scale, bundle, p)
        if (rho, scale) != (offset.rho, offset.scale):
            # What ρu is per unit of strength stays: the pull on a weight that is not 0 is then that of the new one.
            offset.u.mul_((scale / offset.scale) * (offset.rho / rho))
            offset.rho, offset.scale = rho, scale
        offset.penalty = self._convex(bundle)
        return offset

    def _begin(self, bundle: Bundle, p: nn.Parameter, grad: Tensor, scale: float) -> Offset | None:
        """u = ∂Ω(z)/ρ, of which z is the prox: nothing that the model computes changes.

        Raises:
            StepSizeError: the ρ that was given leaves no digits of u, or none of z.
        """
        penalty, z = self._convex(bundle), working(p.detach())
        unit = self._rho if self._rho is not None else float(self._unit_rho(bundle, p.detach(), grad))
        if not 0 < unit * scale < math.inf:
            return None  # a constraint, or an anchor, without a gradient yet
        rho = self._bounded(unit * scale, bundle, p)
        u = distributed.gradients(penalty, [z], 1 / rho)[0]
        if penalty.convex_part is None and not penalty.constraint:
            for _ in range(DOUBLINGS):
                if self._is_prox(penalty, z, u, rho, p.dtype):
                    break
                unit, rho, u = 2 * unit, 2 * rho, u / 2
        if self._rho is not None:
            _check_digits(self._rho, z, u)
        return Offset(u, unit, unit, rho, scale, penalty=penalty)

    def _unit_rho(self, bundle: Bundle, p: Tensor, grad: Tensor | None) -> Tensor:
        """ρ at scale 1; 0, infinite or NaN where nothing tells. The first in float64: strengths may be tiny."""
        penalty = bundle.penalty.at_step(self._schedule.steps) if bundle.penalty.scheduled else bundle.penalty
        acting = penalty.convex_part or penalty
        if grad is None:
            return default_rho(penalty, p, distributed.gradients(acting, [p], 1.0)[0], None)
        if is_cut(acting, p):
            return first_rho_in_blocks(penalty, acting, p, grad)
        z = p.double()
        return default_rho(penalty, z, distributed.gradients(acting, [start_for_rho(z)], 1.0)[0], grad.double())

    def _bounded(self, rho: float, bundle: Bundle, p: nn.Parameter) -> float:
        group, state = self._optimizer.param_groups[bundle.group], self._optimizer.state.get(p, {})
        lr = group.get("lr")
        if isinstance(lr, Tensor) and lr.device.type != "cpu":  # reading it waits for the device
            read = self._rates.get(bundle.group)
            if read is None or read[0] is not lr or read[1] != version_of(lr):
                read = self._rates[bundle.group] = (lr, version_of(lr), lr.item())
            group = {**group, "lr": read[2]}
        return min(rho, rho_limit(self._optimizer, group, state))

    def _is_prox(self, penalty: Penalty, z: Tensor, u: Tensor, rho: float, dtype: torch.dtype) -> bool:
        """Whether z is the prox of z + u but for rounding."""
        after = z + u
        distributed.prox_(penalty, [after], [1 / rho])
        same = max(SAME, 4 * torch.finfo(dtype).eps)
        return bool(norm_of(after - z) <= same * norm_of(z))

    def _notice_edit(self, bundle: Bundle, name: str, p: nn.Parameter, offset: Offset) -> None:
        """Notice where a tensor is no longer what the last step left, and was not merely exchanged and put back.

        Warns:
            ObjectiveWarning: once for each tensor.
        """
        if name in self._edited or offset.version == version_of(p):
            return
        penalty = self._penalty_of(bundle, offset)
        if not self._is_prox(penalty, working(p.detach()), offset.u, offset.rho, p.dtype):
            self._edited[name] = (
                f"{name} was changed between the steps, by load_state_dict, clamping or averaging perhaps: its latent "
                "weights move along with it. To go on from a checkpoint restore the regularizer's state too; to begin "
                "anew, detach() and attach()"
            )
            warnings.warn(self._edited[name], ObjectiveWarning, stacklevel=6)


def _fit_of(offset: Offset) -> Fit:
    return Fit(*torch.tensor([offset.unit_rho, offset.held, offset.most], dtype=torch.float64))


def _check_digits(rho: float, z: Tensor, u: Tensor) -> None:
    """Raise where u is lost beside z, or z beside u."""
    size, offset, eps = float(norm_of(z)), float(norm_of(u)), torch.finfo(z.dtype).eps
    if size > 0 and offset > 0 and not eps < offset / size < 1 / eps:
        raise StepSizeError(
            f"rho={rho:g}: the latent weights would be off the model's by {offset / size:.1g} of them, which "
            f"{str(z.dtype).removeprefix('torch.')} cannot hold; give a {'smaller' if offset < size else 'larger'} "
            "rho, or none"
        )
