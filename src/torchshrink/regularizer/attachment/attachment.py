"""How terms act inside an optimizer's step.

Four methods, each exact or saying that it is not:

- ``gradient``: before the step, grad += ∂Ω(w). Any optimizer then ends at a stationary point of F where Ω is smooth.
- ``prox``: after the step, w ← prox(w, s), with the optimizer's step size s (`torchshrink.step_sizes`), and no
  further than twice its reach. Ends at a stationary point of F, with exact zeros. A penalty that is not
  convex is split: its convex part C acts by its prox, for which no step is too long, and before the step
  grad += ∂(Ω − C)(w).
- ``latent``: the optimizer moves latent weights, and the model holds their prox (see `latent`). Ends at a stationary
  point of F, with exact zeros, whatever the optimizer.
- ``decoupled``: AdamW's way, with the learning rate alone: a smooth term moves the weights by −lr·∂Ω(w) before the
  step, any other by its prox with step lr after it. Its fixed point is in general not a stationary point of F.

What is around a step (clipping, loss scaling, accumulation, schedules, copies) is told in docs/training.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import AttachmentError, ObjectiveWarning
from torchshrink.regularizer.attachment.blocks import batches, blocks, is_cut
from torchshrink.regularizer.attachment.bundling import (
    Bundle,
    Members,
    Method,
    Resolved,
    bundled,
    check_settings,
    dense_gradient,
)
from torchshrink.regularizer.attachment.caveats import caveats, of_other_regularizers, of_other_terms
from torchshrink.regularizer.attachment.compiled import CompiledStep
from torchshrink.regularizer.attachment.hooks import Installation, is_nested, may_nest, owners_of_hooks
from torchshrink.regularizer.attachment.latent import LatentWeights
from torchshrink.regularizer.attachment.offsets import Offsets
from torchshrink.regularizer.attachment.wrapping import Between, stepping
from torchshrink.regularizer.terms import Schedule, Term
from torchshrink.step_sizes import PREVIOUS, State, StepSizeRule, climbs, step_size_of
from torchshrink.support.precision import without_autocast
from torchshrink.support.private_torch import steps_under_way


class Attachment:
    """Terms at work inside one optimizer, from construction until `detach`.

    Args:
        given: an optimizer that holds every term's parameter; or wraps the one that does and whose step moves them.
        terms: what acts.
        method: how; resolved for each term.
        schedule: the scale, and the step count that this attachment advances.
        offsets: where what belongs to latent weights is kept.
        rho: of latent weights, at scale 1; None: by rule.
        compile: whether update and penalty are one compiled program, where they can be.

    Raises:
        AttachmentError: the optimizer lacks a parameter, a penalty cannot act by this method, or it holds others of
            which none moves all its parameters.
        StepSizeError: ``prox`` with an optimizer whose step size is not known.
        InputError: it is no optimizer.
    """

    def __init__(
        self,
        given: Optimizer,
        terms: Sequence[Term],
        *,
        method: Method,
        schedule: Schedule,
        offsets: Offsets,
        rho: float | None = None,
        compile: bool = False,
    ) -> None:
        self.optimizer = optimizer = stepping(given)
        self.stepped = False  # whether the optimizer has taken a step since
        self.schedule = schedule
        self._bundles = bundled(optimizer, terms, method)
        self.methods: dict[str, Resolved] = {name: bundle.method for bundle in self._bundles for name in bundle.names}
        self._before = [bundle for bundle in self._bundles if bundle.acts_before or bundle.has_rest]
        latent = [bundle for bundle in self._bundles if bundle.method == "latent"]
        self._after = [bundle for bundle in self._bundles if not bundle.acts_before and bundle not in latent]
        self._latent: LatentWeights | None = None
        if latent:
            self._latent = LatentWeights(optimizer, latent, schedule=schedule, offsets=offsets, rho=rho)
        self._compiled: CompiledStep | None = None
        if compile:
            self._compiled = CompiledStep(optimizer, self._bundles, schedule=schedule, latent=self._latent)
        self._remembering = [bundle for bundle in self._after if bundle.rule and bundle.rule.remember]
        self._previous: dict[nn.Parameter, Mapping[str, Any]] = {}
        self._nesting = may_nest(type(optimizer))
        self._members = Members(optimizer)
        self._loaded = False
        self._restorations = schedule.restorations
        self._between: Between | None = None
        if optimizer is not given:
            penalised = [p for bundle in self._bundles for p in bundle.parameters]
            self._between = Between(given, optimizer, penalised)
        self._earlier = _attached(optimizer)
        self._caveats = caveats(optimizer, self._bundles, self._others(self._earlier))
        for note in self._caveats:
            warnings.warn(note, ObjectiveWarning, stacklevel=3)
        self._installation = Installation(
            optimizer,
            before=self._before_step,
            after=self._after_step,
            loaded=self._after_load,
            around=None if self._latent is None else self._latent.shown,
        )
        for each in _attached(optimizer):
            each.keep_innermost()
        if self._between is not None:
            self._between.install()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is known to keep this training from a stationary point of F.

        Raises:
            AttachmentError: the terms no longer act: hooks or parameters have been taken out of the optimizer.
        """
        self.settle()
        if not self._installation.intact:
            raise AttachmentError(
                f"the hooks have been removed from this {type(self.optimizer).__name__}, so that the penalty no longer "
                "acts; detach() and attach() again."
            )
        check_settings(self.optimizer, self._bundles)
        now = _attached(self.optimizer)
        earlier = self._others([other for other in self._earlier if other in now])
        others = self._others([other for other in now if other is not self])
        between = () if self._between is None else self._between.notes
        edited = () if self._latent is None else self._latent.notes
        return (*caveats(self.optimizer, self._bundles, earlier), *of_other_regularizers(others), *between, *edited)

    @property
    def other_terms(self) -> tuple[str, ...]:
        """Those of `notes` that say that the optimizer minimises more than F."""
        others = [other for other in _attached(self.optimizer) if other is not self]
        return of_other_terms(self.optimizer, self._bundles, self._others(others))

    def settle(self) -> None:
        """Give the model its weights back where a step has ended in an exception (`LatentWeights.settle`)."""
        if self._latent is not None:
            self._latent.settle()
        if self._compiled is not None and not steps_under_way(self.optimizer):
            self._compiled.show()

    def keep_innermost(self) -> None:
        """Let nobody else's hooks see latent weights: they are put in last before the step, and out first after it."""
        if self._latent is not None or self._compiled is not None:
            self._installation.make_last_before()
            self._installation.make_first_after()

    def detach(self) -> None:
        """Remove the hooks. The optimizer is as it was."""
        self.settle()
        others = [other for other in _attached(self.optimizer) if other is not self]
        self._installation.remove(others=bool(others))
        if self._between is not None:
            self._between.remove()

    @staticmethod
    def _others(attachments: Sequence[Attachment]) -> list[Bundle]:
        return [bundle for other in attachments for bundle in other._bundles]

    # --- around the step ---

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if self._nesting and is_nested(optimizer):
            return None
        if self._latent is not None:
            with torch.no_grad(), without_autocast():
                self._latent.begin_step()
        if self._compiled is not None:
            self._compiled.show()  # the last step may have ended in an exception
        if self._latent is not None or self._compiled is not None:
            self._installation.make_first_after()
        self.schedule.begin(self)
        if self._members.changed():
            check_settings(optimizer, self._bundles)
            self._members = Members(optimizer)
        if self._between is not None:
            self._between.before_step(alone=len(_attached(optimizer)) == 1)
        if self._remembering:
            self._remember()
        if not self._before and self._latent is None and self._compiled is None:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._act_on_gradients()
            return None
        if self._loss_scale() != 1.0:
            raise AttachmentError("GradScaler cannot unscale what a closure computes in the step; take one of the two.")
        if self._latent is not None:
            with torch.no_grad():
                self._latent.enter_closure()
        # The closure computes the gradients inside the step, after this hook: act after it, then.
        penalised = self._penalised(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": penalised}
        return (args[0], penalised, *args[2:]), kwargs

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._nesting and is_nested(optimizer):
            return
        self.stepped = True
        if self._latent is not None:
            with torch.no_grad(), without_autocast():
                self._latent.end_step()
        if self._latent is not None or self._compiled is not None:
            self._installation.make_last_before()  # of the next step: others may have come since
        if self._loaded:
            self._check_resumed()
        taken = self._step_taken()
        if taken is False:
            return
        if self._compiled is not None:
            self._compiled.show_for_prox()
        if self._after:
            with torch.no_grad(), without_autocast():
                for bundle in self._after:
                    live = bundle.live()
                    if live:
                        self._take_prox(bundle, live, taken)
        if self._compiled is not None:
            self._compiled.show()
        self.schedule.advance(taken, self)
        if self._between is not None:
            self._between.after_step()

    def _after_load(self, optimizer: Optimizer) -> None:
        """The optimizer's state and settings have been replaced, by those of another run perhaps."""
        self._loaded = True
        check_settings(optimizer, self._bundles)
        for note in caveats(optimizer, self._bundles, self._others(self._earlier)):
            if note not in self._caveats:
                warnings.warn(note, ObjectiveWarning, stacklevel=4)

    def _check_resumed(self) -> None:
        self._loaded = False
        restored = self.schedule.restorations > self._restorations
        self._restorations = self.schedule.restorations
        if self._latent is not None and not restored:
            warnings.warn(
                "the optimizer was given a saved state, but not the regularizer, whose latent weights belong to it: "
                "they are those of now, and the run is not the saved one; restore it too, with load_state_dict",
                ObjectiveWarning,
                stacklevel=4,
            )
        scheduled = callable(self.schedule.scale) or any(bundle.penalty.scheduled for bundle in self._bundles)
        if scheduled and not restored:
            warnings.warn(
                f"the optimizer was given a saved state, but the regularizer's schedule goes on from its own step "
                f"{self.schedule.steps}; restore it too, with load_state_dict, or set its steps",
                ObjectiveWarning,
                stacklevel=4,
            )

    # --- inside the step ---

    def _leave(self) -> None:
        """Give the model its weights back, where it holds latent ones."""
        if self._latent is not None:
            with torch.no_grad(), without_autocast():
                self._latent.leave()

    @torch.no_grad()
    def _remember(self) -> None:
        """Keep what step sizes need and the step overwrites, for all: a closure may yet make gradients."""
        for bundle in self._remembering:
            if bundle.rule is not None and bundle.rule.remember is not None:
                for p in bundle.parameters:
                    self._previous[p] = bundle.rule.remember(p, self.optimizer.state.get(p, {}))

    def _penalised(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """``closure`` followed by the gradient terms; what it returns is the objective that these belong to."""
        calls = 0

        def penalised() -> Any:
            nonlocal calls
            calls += 1
            if calls > 1 and any(bundle.method == "decoupled" for bundle in self._before):
                raise AttachmentError(
                    f"{type(self.optimizer).__name__} evaluates its closure more than once per step, and method "
                    "'decoupled' would move the weights each time; use method='gradient'."
                )
            self._leave()
            with torch.enable_grad():
                loss = closure()
            objective = loss if loss is None else self._plus_penalty(loss)
            self._act_on_gradients()
            return objective

        return penalised

    @torch.no_grad()
    def _plus_penalty(self, loss: Any) -> Any:
        for bundle in self._bundles:
            if bundle.method in ("gradient", "latent"):
                sign = -1 if climbs(self.optimizer, self.optimizer.param_groups[bundle.group]) else 1
                with without_autocast():
                    value = distributed.total(self.schedule.scaled(bundle.penalty), bundle.parameters)
                loss = loss + sign * value.to(loss.device if isinstance(loss, Tensor) else "cpu")
        return loss

    def _act_on_gradients(self) -> None:
        taken = self._step_taken()
        if taken is False:
            return
        with torch.no_grad(), without_autocast():
            if self._compiled is not None and taken is None and self._acts_last():
                self._compiled.run(self._loss_scale())
            for bundle in self._before:
                live = bundle.live()
                if not live:
                    continue
                group = self.optimizer.param_groups[bundle.group]
                penalty = self.schedule.scaled(bundle.penalty)
                if bundle.method != "decoupled":
                    sign = -1.0 if climbs(self.optimizer, group) else 1.0
                    grads = [dense_gradient(p) for p in live]
                    distributed.add_gradients_(penalty, live, grads, sign * self._loss_scale())
                    if bundle.has_rest and penalty.convex_part is not None:
                        distributed.add_gradients_(penalty.convex_part, live, grads, -sign * self._loss_scale())
                else:
                    moves = distributed.gradients(penalty, live, -_masked(group["lr"], taken, live[0]))
                    for p, move in zip(live, moves, strict=True):
                        p.add_(move)
            if self._latent is not None:
                self._latent.enter_step(self._loss_scale())

    def _acts_last(self) -> bool:
        """Whether what the optimizer would do next can be done here: nobody else looks at gradients in between."""
        return self._installation.is_last_before and len(_attached(self.optimizer)) == 1

    def _take_prox(self, bundle: Bundle, live: list[nn.Parameter], taken: Tensor | None) -> None:
        group = self.optimizer.param_groups[bundle.group]
        penalty = self.schedule.scaled(bundle.penalty)
        convex = penalty.convex_part if bundle.has_rest else None
        penalty = convex or penalty
        if bundle.rule is None:
            distributed.prox_(penalty, live, [_masked(group["lr"], taken, p) for p in live])
            return
        rule = step_size_of(self.optimizer, group)  # looked up again: settings may have changed to what has none
        large: list[nn.Parameter] = []
        together: list[nn.Parameter] = []
        for p in live:
            (large if rule.elementwise and is_cut(penalty, p) else together).append(p)
        for batch in batches(together):
            steps = self._steps(bundle, rule, [(p, self._state(p)) for p in batch], taken)
            distributed.prox_(penalty, batch, *steps)
        for p in large:
            for part, w, state in blocks(penalty, p, self._state(p)):
                distributed.prox_(part, [w], *self._steps(bundle, rule, [(w, state)], taken))

    def _steps(
        self, bundle: Bundle, rule: StepSizeRule, at: Sequence[tuple[Tensor, State]], taken: Tensor | None
    ) -> tuple[list[float | Tensor], list[float | Tensor] | None]:
        """The optimizer's effective step size for each of these weights, and how far a prox may move a coordinate."""
        group, states = self.optimizer.param_groups[bundle.group], [state for _, state in at]
        # A projection that is cut short may end outside the set, so a constraint has no limit.
        limits = None if bundle.penalty.constraint else rule.limits(group, states)
        steps = rule.step_sizes(group, states)
        if taken is not None:
            steps = [_masked(step, taken, w) for step, (w, _) in zip(steps, at, strict=True)]
        return steps, limits

    def _state(self, parameter: nn.Parameter) -> State:
        """The optimizer's state, with what `_remember` kept."""
        state: State = self.optimizer.state[parameter]
        return {**state, PREVIOUS: self._previous[parameter]} if self._previous else state

    # --- loss scaling ---
    # GradScaler leaves it to a fused optimizer to divide the gradients and to skip the step, inside the step, and says
    # so in two attributes. What is on the CPU is read, which costs nothing; what is elsewhere is not waited for.

    def _loss_scale(self) -> float | Tensor:
        """What the gradients are multiplied by: 1, or the loss scale that the optimizer is still to divide by."""
        scale = vars(self.optimizer).get("grad_scale")
        if scale is None:
            return 1.0
        # As a number it takes the same kernels as a step without loss scaling, and so rounds to the same bits.
        return scale.item() if isinstance(scale, Tensor) and scale.device.type == "cpu" else scale

    def _step_taken(self) -> Tensor | Literal[False] | None:
        """None: this step takes place; False: it is skipped for an overflow; a tensor: only the device knows."""
        found_inf: Tensor | None = vars(self.optimizer).get("found_inf")
        if found_inf is None:
            return None
        if found_inf.device.type != "cpu":
            return found_inf == 0
        return False if found_inf.item() else None


def _masked(step: float | Tensor, taken: Tensor | None, like: Tensor) -> float | Tensor:
    """``step``, or 0 where the step is skipped."""
    if taken is None:
        return step
    taken = taken.to(like.device)
    return torch.where(taken, step, 0.0) if isinstance(step, Tensor) else taken.to(like.dtype) * step


def _attached(optimizer: Optimizer) -> list[Attachment]:
    return [owner for owner in owners_of_hooks(optimizer) if isinstance(owner, Attachment)]
