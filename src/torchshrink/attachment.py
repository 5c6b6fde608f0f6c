"""How terms act inside an optimizer's step. The only module that touches an optimizer's hooks.

Three methods, each exact or saying that it is not:

- ``gradient``: before the step, grad += ∂Ω(w). Any optimizer then ends at a stationary point of F where Ω is smooth.
- ``prox``: after the step, w ← prox(w, s), with the optimizer's effective step size s (`torchshrink.geometry`). Ends at
  a stationary point of F, with exact zeros.
- ``decoupled``: AdamW's way, with the learning rate alone: a smooth term moves the weights by −lr·∂Ω(w) before the
  step, any other by its prox with step lr after it. Its fixed point is in general not a stationary point of F.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from torchshrink import distributed
from torchshrink.errors import AttachmentError, GeometryError, InputError, ObjectiveWarning
from torchshrink.geometry import PREVIOUS, State, geometry_of, weight_decays
from torchshrink.penalties import Penalty
from torchshrink.terms import Schedule, Term

Method = Literal["auto", "gradient", "prox", "decoupled"]
Resolved = Literal["gradient", "prox", "decoupled"]

DECOUPLED_NOTE = (
    "method 'decoupled' does not end at a stationary point of mean loss + penalty: "
    "what its strength solves depends on the optimizer"
)


def resolve_method(penalty: Penalty, method: Method) -> Resolved:
    """What ``auto`` means for a penalty: ``gradient`` where it is smooth, ``prox`` where it is not."""
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: expected one of {', '.join(map(repr, get_args(Method)))}")
    if method == "auto":
        return "gradient" if penalty.smooth else "prox"
    return method


def is_plain_descent(optimizer: Optimizer) -> bool:
    """Whether each step is −lr·gradient and nothing else, so that the decoupled way coincides with the exact one."""
    return type(optimizer) is SGD and all(
        group["momentum"] == 0 and group["weight_decay"] == 0 for group in optimizer.param_groups
    )


@dataclass(frozen=True)
class _Bundle:
    """The parameters of one parameter group that one penalty acts on in one way."""

    group: int  # an index: load_state_dict replaces the groups themselves
    method: Resolved
    penalty: Penalty
    parameters: list[nn.Parameter]


class Attachment:
    """Terms at work inside one optimizer, from construction until `detach`.

    Args:
        optimizer: holds every term's parameter.
        terms: what acts.
        method: how; resolved for each term.
        schedule: the scale, and the step count that this attachment advances.

    Raises:
        AttachmentError: the optimizer lacks a parameter, or a penalty cannot act by this method.
        GeometryError: ``prox`` with an optimizer whose step size is not known.
    """

    def __init__(self, optimizer: Optimizer, terms: Sequence[Term], *, method: Method, schedule: Schedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.methods = {term.name: resolve_method(term.penalty, method) for term in terms}
        self._bundles = _bundle(optimizer, terms, self.methods)
        for bundle in self._bundles:
            _check_possible(optimizer, bundle)
        self._warn()
        self._previous: dict[nn.Parameter, Mapping[str, Any]] = {}
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is known to keep this training from a stationary point of F."""
        decoupled = "decoupled" in self.methods.values() and not is_plain_descent(self.optimizer)
        return ((DECOUPLED_NOTE,) if decoupled else ()) + tuple(_decay_notes(self.optimizer, self._bundles))

    def detach(self) -> None:
        """Remove the hooks. The optimizer is as it was."""
        for handle in self._handles:
            handle.remove()

    def _warn(self) -> None:
        for note in self.notes:
            warnings.warn(note, ObjectiveWarning, stacklevel=4)

    # --- inside the step ---

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        self._remember()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._act_on_gradients()
            return None
        # The closure computes the gradients inside the step, after this hook: act after it, then.
        penalised = self._penalised(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": penalised}
        return (args[0], penalised, *args[2:]), kwargs

    @torch.no_grad()
    def _remember(self) -> None:
        """Keep what step sizes need and the step overwrites, for all: a closure may yet make gradients."""
        for bundle in self._bundles:
            if bundle.method != "prox":
                continue
            remember = geometry_of(self.optimizer, self.optimizer.param_groups[bundle.group]).remember
            if remember is not None:
                for p in bundle.parameters:
                    self._previous[p] = remember(p, self.optimizer.state.get(p, {}))

    def _penalised(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """``closure`` followed by the gradient terms; what it returns is the objective that these belong to."""

        def penalised() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._act_on_gradients()
            with torch.no_grad():
                for bundle in self._bundles:
                    if bundle.method == "gradient":
                        sign = -1 if self.optimizer.param_groups[bundle.group].get("maximize", False) else 1
                        value = distributed.total(self.schedule.scaled(bundle.penalty), bundle.parameters)
                        loss = loss + sign * value.to(loss.device if isinstance(loss, Tensor) else "cpu")
            return loss

        return penalised

    @torch.no_grad()
    def _act_on_gradients(self) -> None:
        # With a fused optimizer GradScaler leaves the gradients scaled and the optimizer divides inside its step.
        grad_scale = getattr(self.optimizer, "grad_scale", None)
        for bundle in self._bundles:
            group = self.optimizer.param_groups[bundle.group]
            if bundle.method == "gradient":
                sign = -1.0 if group.get("maximize", False) else 1.0
                factor = sign if grad_scale is None else sign * grad_scale
                live = _with_gradients(bundle.parameters)
                if live:
                    grads = [_dense_gradient(p) for p in live]
                    distributed.add_gradients_(self.schedule.scaled(bundle.penalty), live, grads, factor)
            elif bundle.method == "decoupled" and bundle.penalty.smooth:
                live = _with_gradients(bundle.parameters)
                if live:
                    rate = -group["lr"] * self._not_skipped()
                    moves = distributed.gradients(self.schedule.scaled(bundle.penalty), live, rate)
                    for p, move in zip(live, moves, strict=True):
                        p.add_(move)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for bundle in self._bundles:
            penalty = self.schedule.scaled(bundle.penalty)
            if bundle.method == "gradient" or (bundle.method == "decoupled" and bundle.penalty.smooth):
                continue
            live = _with_gradients(bundle.parameters)
            if live:
                distributed.prox_(penalty, live, self._steps(bundle, live))
        if getattr(optimizer, "found_inf", None) is None or self._not_skipped() > 0:
            self.schedule.steps += 1

    def _steps(self, bundle: _Bundle, live: list[nn.Parameter]) -> list[float | Tensor]:
        """The step size of each parameter: the optimizer's effective one, or lr for ``decoupled``."""
        group = self.optimizer.param_groups[bundle.group]
        kept = self._not_skipped()  # multiplying by it makes a skipped step's prox the identity
        if bundle.method == "decoupled":
            return [group["lr"] * kept] * len(live)
        step_size = geometry_of(self.optimizer, group).step_size
        steps = [step_size(group, self._state(p)) for p in live]
        return [step * kept for step in steps] if isinstance(kept, Tensor) else steps

    def _state(self, parameter: nn.Parameter) -> State:
        """The optimizer's state, with what `_remember` kept."""
        state: State = self.optimizer.state[parameter]
        return {**state, PREVIOUS: self._previous[parameter]} if parameter in self._previous else state

    def _not_skipped(self) -> float | Tensor:
        """1, or 0 where a fused optimizer skips this step because GradScaler found an overflow."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        return 1.0 if found_inf is None else 1.0 - found_inf


def _bundle(optimizer: Optimizer, terms: Sequence[Term], methods: dict[str, Resolved]) -> list[_Bundle]:
    group_of = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    missing = [term.name for term in terms if id(term.parameter) not in group_of]
    if missing:
        raise AttachmentError(
            f"{', '.join(missing)}: penalised, but not among the parameters of this {type(optimizer).__name__}; "
            "give the optimizer these parameters, or exempt them with a rule None."
        )
    together: dict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
    for term in terms:
        p = term.parameter
        together[group_of[id(p)], methods[term.name], term.penalty, p.dtype, p.device].append(p)
    return [_Bundle(group, method, penalty, found) for (group, method, penalty, _, _), found in together.items()]


def _check_possible(optimizer: Optimizer, bundle: _Bundle) -> None:
    if bundle.penalty.constraint and bundle.method == "gradient":
        raise AttachmentError(f"{bundle.penalty} is a constraint, which no gradient can impose; use method='prox'.")
    if bundle.method != "prox":
        return
    geometry = geometry_of(optimizer, optimizer.param_groups[bundle.group])
    name = type(bundle.penalty).__name__
    if bundle.penalty.prox_steps == "none":
        raise AttachmentError(f"{name} has no closed prox; use method='gradient'.")
    if geometry.coordinatewise and bundle.penalty.prox_steps == "scalar":
        raise GeometryError(
            f"{name}'s prox is exact for one step size only, and {type(optimizer).__name__} has one per coordinate; "
            "use SGD, or method='gradient'."
        )


def _with_gradients(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that this step moves. Like the optimizer, a term leaves alone what has no gradient."""
    return [p for p in parameters if p.grad is not None]


def _dense_gradient(parameter: nn.Parameter) -> Tensor:
    distributed.align_gradient_(parameter)
    grad = parameter.grad
    if grad is None or grad.layout is not torch.strided:
        raise AttachmentError(
            f"a penalised parameter of shape {tuple(parameter.shape)} has a sparse gradient, to which a dense penalty "
            "cannot be added; use sparse=False, or exempt it with a rule None."
        )
    return grad


def _decay_notes(optimizer: Optimizer, found: Sequence[_Bundle]) -> list[str]:
    """What weight decay that is already on in the optimizer does together with the penalty."""
    notes: dict[str, None] = {}
    for bundle in found:
        group = optimizer.param_groups[bundle.group]
        for decay in weight_decays(optimizer, group):
            if decay.kind == "coupled":
                what = f"the objective has L2({decay.rate / 2:g}) in addition; set {decay.setting}=0, or count it in"
            elif decay.kind == "decoupled":
                what = (
                    "decoupled: the two together have no stationary point of any mean loss + penalty; "
                    f"set {decay.setting}=0"
                )
            else:
                what = (
                    "whether it is a term of the objective is not known for this class; "
                    f"set {decay.setting}=0, or say so with torchshrink.geometry.register_geometry"
                )
            setting = f"{type(optimizer).__name__}({decay.setting}={decay.rate:g})"
            notes[f"{setting} also acts on parameters under {bundle.penalty}: {what}"] = None
    return list(notes)
