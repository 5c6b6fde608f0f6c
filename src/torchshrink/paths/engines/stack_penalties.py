"""What the penalties do to stacked parameters (F, S, …): one penalty per parameter, whose strength is the lane's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import vmap

from torchshrink.errors import CannotStackError
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_spec import TrainingSpec, without_repeated_warnings
from torchshrink.penalties import L1, L2, Penalty
from torchshrink.penalties.multitensor import limited, prox_
from torchshrink.regularizer.attachment import resolve_method
from torchshrink.regularizer.attachment.blocks import blocks, is_cut
from torchshrink.regularizer.selection import select
from torchshrink.step_sizes import StepSizeRule, climbs, step_size_of
from torchshrink.step_sizes.registry import Group, State
from torchshrink.support.private_torch import has_step_hooks

Prox = Callable[[Penalty, Tensor, Tensor | None, StepSizeRule, Group, State], None]
"""As `prox_of_lanes`."""

COORDINATES_AT_ONCE = 2**17  # a few tensors of so many float32 numbers stay in a core's second cache
ONE_BY_ONE = 2**14  # coordinates of a lane from which on several at once gain nothing: each stops iterating when it may


@dataclass(frozen=True, eq=False)
class LanePenalty:
    """What one penalty does to one stacked parameter.

    Args:
        penalty: at some strength above 0, or as it is where ``strengths`` is None.
        strengths: (S,), one per lane of a fold; None: the same in every lane.
        method: ``gradient``, ``prox``, ``latent``, or ``loss``, which is a gradient that is there even where the loss
            has none.
        folds: F.
    """

    penalty: Penalty
    strengths: Tensor | None
    method: str
    folds: int

    @property
    def by_prox(self) -> bool:
        """Whether it acts after the optimizer's step, by a prox, too."""
        return self.method == "prox"

    @property
    def latent(self) -> bool:
        """Whether it acts by latent weights (`LatentLanes`)."""
        return self.method == "latent"

    @functools.cached_property
    def per_lane(self) -> Tensor | None:
        """(F·S,), fold after fold."""
        return None if self.strengths is None else self.strengths.repeat(self.folds)

    def first(self, count: int) -> LanePenalty:
        """The same for the first ``count`` lanes of each fold."""
        return self if self.strengths is None else replace(self, strengths=self.strengths[:count])

    def add_gradient(self, p: Tensor) -> None:
        """p.grad += ∂Ω(p), lane by lane; with a prox, that of the rest beside the convex part, if there is any."""
        convex = self.penalty.convex_part
        split = self.by_prox or self.latent
        if split and (convex is None or convex is self.penalty):
            return
        if p.grad is None:
            if self.method != "loss":
                return
            p.grad = torch.zeros_like(p)
        plain = isinstance(self.penalty, L2) and self.penalty.weights is None and not split
        if plain and self.strengths is not None:
            p.grad.addcmul_(p, 2 * self.strengths.view(1, -1, *(1,) * (p.ndim - 2)))
        else:
            lanes = p.detach().flatten(0, 1)
            gradient = _gradient_of_rest if split else _gradient
            p.grad += _lanewise(gradient, self.penalty, self.per_lane, lanes).view_as(p)

    def prox_(self, p: Tensor, rule: StepSizeRule, group: Group, state: State, *, compiled: Prox | None) -> None:
        """P ← prox(p, s), lane by lane, with the step sizes s of the optimizer's ``group`` and of its ``state`` for p.

        A few lanes at a time, so that what is in between stays in the cache: for wide layers several times faster. Or
        all in one pass by ``compiled``, which is `prox_of_lanes` through ``torch.compile``.
        """
        lanes = p.detach().flatten(0, 1)  # (F·S, …)
        flat = {key: v.flatten(0, 1) for key, v in state.items() if isinstance(v, Tensor) and v.shape == p.shape}
        if not compiled and lanes[0].numel() >= ONE_BY_ONE:
            acting = self._acting_in_lanes or [_acting(self.penalty)] * len(lanes)
            for i, lane in enumerate(lanes):
                own = {**state, **{key: v[i] for key, v in flat.items()}}
                _prox_of_one(acting[i], lane, rule, group, own)
            return
        if compiled:  # counts of steps stay tensors there, and float32 would round their powers
            flat |= {key: v.double() for key, v in state.items() if isinstance(v, Tensor) and v.ndim == 0}
        at_once = len(lanes) if compiled else max(1, COORDINATES_AT_ONCE // max(1, lanes[0].numel()))
        for first in range(0, len(lanes), at_once):
            some = slice(first, first + at_once)
            states = {**state, **{key: v[some] if v.ndim else v for key, v in flat.items()}}
            mine = None if self.per_lane is None else self.per_lane[some]
            (compiled or prox_of_lanes)(self.penalty, lanes[some], mine, rule, group, states)

    @functools.cached_property
    def _acting_in_lanes(self) -> Sequence[Penalty] | None:
        """Whose prox is taken in each lane; None: the same in all."""
        return None if self.per_lane is None else [_acting(self.penalty.with_strength(each)) for each in self.per_lane]

    def prox_of_steps_(self, p: Tensor, steps: Tensor) -> None:
        """P ← prox(p, step), lane by lane, with one step (F, S) for each lane."""
        lanes, steps = p.detach().flatten(0, 1), steps.flatten()
        at_once = max(1, COORDINATES_AT_ONCE // max(1, lanes[0].numel()))
        for first in range(0, len(lanes), at_once):
            some = slice(first, first + at_once)
            mine = None if self.per_lane is None else self.per_lane[some]
            moved = _lanewise(
                lambda penalty, w, s: _acting(penalty).prox(w, s), self.penalty, mine, lanes[some], steps[some]
            )
            lanes[some] = moved

    def each_lane(self, method: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
        """What a function of the penalty that acts, and of tensors, is in each lane: (F·S, …)."""
        flat = [stack.flatten(0, 1) for stack in stacks]
        return _lanewise(lambda penalty, *each: method(_acting(penalty), *each), self.penalty, self.per_lane, *flat)

    def keep(self, places: Tensor) -> LanePenalty:
        """The same for these lanes of each fold alone."""
        return self if self.strengths is None else replace(self, strengths=self.strengths[places])


def _gradient(penalty: Penalty, w: Tensor) -> Tensor:
    return penalty.grad(w)


def _gradient_of_rest(penalty: Penalty, w: Tensor) -> Tensor:
    convex = penalty.convex_part
    return torch.zeros_like(w) if convex is None else penalty.grad(w) - convex.grad(w)


def prox_of_lanes(
    penalty: Penalty, lanes: Tensor, strengths: Tensor | None, rule: StepSizeRule, group: Group, state: State
) -> None:
    """Replace lanes (N, …) by their proxes, each with its own strength (N,); None: with the penalty's own.

    As in an attachment: of the convex part, where there is one, and no further than the optimizer reaches.
    """
    limits = None if penalty.constraint else rule.limits(group, [state])
    limit = None if limits is None else limits[0]
    step = rule.step_size(group, state)
    if isinstance(penalty, L1) and penalty.weights is None and strengths is not None:
        strengths = strengths.view(-1, *(1,) * (lanes.ndim - 1))
        own = isinstance(step, Tensor) and step.shape == lanes.shape  # ours to overwrite
        threshold = step.mul_(strengths) if own else strengths * step  # type: ignore[union-attr]
        if limit is not None:
            threshold = threshold.clamp_(max=limit)
        lanes.sub_(torch.clamp(lanes, -threshold, threshold))  # as `proximal.soft_threshold`
        return
    if isinstance(step, Tensor) and step.ndim > 0:
        moved = _lanewise(lambda penalty, w, s: _acting(penalty).prox(w, s), penalty, strengths, lanes, step)
    else:
        moved = _lanewise(lambda penalty, w: _acting(penalty).prox(w, step), penalty, strengths, lanes)
    lanes.copy_(moved if limit is None else limited(moved, lanes, limit))


def _prox_of_one(penalty: Penalty, w: Tensor, rule: StepSizeRule, group: Group, state: State) -> None:
    """W ← prox(w, s) of a model as in an attachment, in blocks that stay in the cache."""
    cut = rule.elementwise and is_cut(penalty, w)
    for part, block, own in blocks(penalty, w, state) if cut else ((penalty, w, state),):
        limits = None if penalty.constraint else rule.limits(group, [own])
        prox_(part, [block], rule.step_sizes(group, [own]), limits)


def _acting(penalty: Penalty) -> Penalty:
    """Whose prox is taken: that of the convex part, where one is known."""
    return penalty.convex_part or penalty


def _lanewise(method: Callable[..., Tensor], penalty: Penalty, strengths: Tensor | None, *tensors: Tensor) -> Tensor:
    if strengths is None:
        return vmap(lambda *each: method(penalty, *each))(*tensors)

    def lane(strength: Tensor, *each: Tensor) -> Tensor:
        return method(penalty.with_strength(strength), *each)

    return vmap(lane)(strengths, *tensors)


def lane_penalties(
    spec: TrainingSpec,
    model: nn.Module,
    family: PenaltyFamily,
    strengths: Sequence[float],
    optimizer: torch.optim.Optimizer,
    *,
    folds: int,
) -> dict[str, LanePenalty]:
    """What acts on each parameter, by name.

    Raises:
        CannotStackError: the penalties of the strengths differ in more than their strength, or act in a way that has
            no lanes.
    """
    with without_repeated_warnings():
        per_strength = [
            {c.name: c.penalty for c in select(model, family.make(s), spec.settings.on) if c.penalty is not None}
            for s in strengths
        ]
    names = list(per_strength[0])
    if any(list(found) != names for found in per_strength):
        raise CannotStackError("the rules penalise other parameters at other strengths")
    parameters = dict(model.named_parameters())
    return {
        name: _one(spec, name, parameters[name], [found[name] for found in per_strength], optimizer, folds)
        for name in names
    }


def _one(
    spec: TrainingSpec,
    name: str,
    p: nn.Parameter,
    penalties: Sequence[Penalty],
    optimizer: torch.optim.Optimizer,
    folds: int,
) -> LanePenalty:
    strengths = None
    reference = penalties[0]
    if any(penalty != reference for penalty in penalties):
        reference = max(penalties, key=lambda penalty: float(penalty.strength))
        values = [float(penalty.strength) for penalty in penalties]
        if not all(_same(reference.with_strength(v), each) for v, each in zip(values, penalties, strict=True)):
            raise CannotStackError(f"{name}: the penalties of different strengths differ in more than strength")
        strengths = torch.tensor(values, dtype=p.dtype, device=spec.device)
    if reference.scheduled:
        raise CannotStackError(f"{name}: {reference} follows a schedule of its own, and lanes count no steps")
    reference = reference.bind(p)  # of no model in particular
    if reference.state():
        raise CannotStackError(f"{name}: {type(reference).__name__} remembers the initial weights of each model")
    how = spec.settings.method
    method = "loss" if how == "loss" else resolve_method(reference, how, optimizer, optimizer.param_groups[0])
    if method == "decoupled":
        raise CannotStackError("method 'decoupled' has no lanes")
    if method == "latent" and reference.convex_part is None and not reference.constraint:
        raise CannotStackError(f"{name}: {reference} is not known to be convex, and each model finds a ρ for it")
    if method == "prox" and step_size_of(optimizer).remember is not None:
        raise CannotStackError(f"{type(optimizer).__name__}'s step size needs a look before each step")
    return LanePenalty(reference, strengths, method, folds)


def _same(a: Penalty, b: Penalty) -> bool:
    """Equal but for rounding in the strengths."""
    if type(a) is not type(b):
        return False
    mine, theirs = vars(a), vars(b)
    return all(_close(mine[key], theirs[key]) for key in mine)


def _close(x: object, y: object) -> bool:
    if isinstance(x, float) and isinstance(y, float):
        return math.isclose(x, y, rel_tol=1e-12, abs_tol=0.0)
    return x == y


def stacked_optimizer(
    spec: TrainingSpec, model: nn.Module, stacked: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer that the spec makes for one model, with the same groups and settings over the stacks.

    Raises:
        CannotStackError: it does more in a step than each coordinate's own update.
    """
    single = spec.make_optimizer(model.parameters())
    kind = type(single)
    if kind not in ELEMENTWISE:
        raise CannotStackError(f"{kind.__name__} is not known to treat each coordinate by itself")
    if has_step_hooks(single) or "step" in vars(single):
        raise CannotStackError(f"something hooks into the step of this {kind.__name__}")
    name_of = {id(p): name for name, p in model.named_parameters()}
    groups = []
    for group in single.param_groups:
        if any(id(p) not in name_of for p in group["params"]):
            raise CannotStackError(f"{kind.__name__} holds parameters that are not the model's")
        if climbs(single, group) or group.get("differentiable", False):
            raise CannotStackError(f"{kind.__name__} has maximize or differentiable on")
        mine = [stacked[name_of[id(p)]] for p in group["params"] if name_of[id(p)] in stacked]
        settings = {key: value for key, value in group.items() if key != "params"}
        if (
            kind in FUSED
            and settings["fused"] is settings["foreach"] is None
            and all(p.dtype in (torch.float32, torch.float64) for p in mine)
        ):
            settings["fused"] = True  # nothing was asked for: the same update, in one pass over the memory
        groups.append(settings | {"params": mine})
    return kind(groups)  # each of torch's own has defaults


ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.ASGD,
)
"""Optimizers whose step treats every coordinate by itself, so that they act lane by lane on stacked parameters."""

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
"""Of these, the ones that have a step in one pass, on a CPU too."""
