"""`Regularizer`: penalties bound to a model's parameters. What users hold in their hands."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from torchshrink import distributed
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning, SelectionWarning
from torchshrink.penalties import Penalty
from torchshrink.regularizer.activations import of_activations
from torchshrink.regularizer.attachment import Attachment, Method, Offsets, shared_out
from torchshrink.regularizer.balance import imbalance
from torchshrink.regularizer.binding import Binding, check_differentiable
from torchshrink.regularizer.certificate import Certificate, measure
from torchshrink.regularizer.saved import restore, saved_state
from torchshrink.regularizer.selection import WEIGHTS, Choice, On, Pattern, select
from torchshrink.regularizer.sparsity import ParameterSparsity, Sparsity, hold_zeros
from torchshrink.regularizer.summary import Summary, render
from torchshrink.regularizer.terms import Bundle, Scale, Schedule, Term, bundles, fused_value, holder_of


class Regularizer:
    """The sum of penalties over a model's parameters, to be added to the mean loss: F = L + Σ Ω.

    Args:
        model: whose parameters are penalised.
        rules: one penalty for all that ``on`` selects, or a mapping from patterns (parameter names with wildcards, or
            module classes) to penalties, of which the first that matches a parameter wins; None exempts.
        on: ``ts.WEIGHTS`` (the default) leaves out biases, normalisation weights and 1-d raw parameters;
            ``ts.ALL`` takes every trainable parameter. Their names, ``"weights"`` and ``"all"``, will do; and for one
            penalty a pattern, or several, is short for a rule for each.

    Raises:
        SelectionError: a pattern matches nothing, or what it matches cannot be penalised.
        InputError: an argument is of the wrong kind.

    Example:
        The tutorial's form, where the penalty is a part of the loss:

        >>> import torch, torchshrink as ts
        >>> model = torch.nn.Linear(3, 1)
        >>> reg = ts.Regularizer(model, ts.L2(1e-3), on=ts.ALL)
        >>> loss = model(torch.ones(2, 3)).square().mean() + reg.value()

        Or inside the optimizer's step, where L1 gives exact zeros and the loop stays as it is:

        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> reg = ts.Regularizer(model, ts.L1(1e-3)).attach(optimizer)
        >>> loss = model(torch.ones(2, 3)).square().mean()
        >>> loss.backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Penalty | Mapping[Pattern, Penalty | None],
        on: On = WEIGHTS,
    ) -> None:
        self._model = model
        bare = distributed.unwrapped(model)
        self._choices = select(bare, rules, on)
        sharded = distributed.sharded_parameters(bare)
        self._terms = tuple(
            Term(
                c.name,
                c.parameter,
                _bound(c.penalty, c.name, c.parameter),
                c.rule,
                holder_of(bare, c.name),
                sharded.get(id(c.parameter)),
            )
            for c in self._choices
            if c.penalty is not None
        )
        self._binding = Binding(bare, self._choices, self._terms)
        self._schedule = Schedule()
        self._offsets = Offsets()
        self._constraint = next((term for term in self._terms if term.penalty.constraint), None)
        self._scheduled = any(term.penalty.scheduled for term in self._terms)
        self._bundled: tuple[list[Any], list[Bundle]] | None = None
        self._attachments: tuple[Attachment, ...] = ()
        self._acted: dict[str, str] = {}  # by which methods, until it was detached
        self._certifying = False
        self._backpropagations = 0
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        count = sum(term.parameter.numel() for term in self._terms)
        terms = f"{len(self._terms)} term{'' if len(self._terms) == 1 else 's'}"
        return f"Regularizer({terms} over {count:,} weights of {type(self._model).__name__})"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy keeps. It is bound to the copied model, and attached to nothing: hooks are not copied."""
        if self._attachments:
            warnings.warn(
                "the copy of an attached Regularizer is not attached; attach it to the copied optimizer",
                ObjectiveWarning,
                stacklevel=3,
            )
        return {**vars(self), "_attachments": (), "_bundled": None}

    # --- reading ---

    @property
    def model(self) -> nn.Module:
        """The model that the terms are bound to."""
        return self._model

    @property
    def terms(self) -> tuple[Term, ...]:
        """The penalised parameters, each with its penalty at scale 1."""
        return self._terms

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What was decided for each parameter of the model, and why."""
        return self._choices

    @property
    def methods(self) -> dict[str, str]:
        """How each penalised parameter's penalty acts in the attached optimizer; empty where none is attached."""
        return {name: method for each in self._attachments for name, method in each.methods.items()}

    @property
    def scale(self) -> Scale:
        """Multiplies every strength: a number ≥ 0, or a callable of the step count (a schedule)."""
        return self._schedule.scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        self._schedule.scale = scale

    @property
    def steps(self) -> int:
        """Steps of the attached optimizer so far. Without one, yours to set in each step of a schedule."""
        return self._schedule.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._schedule.steps = steps

    def in_force(self) -> dict[Tensor, Penalty]:
        """Each penalised parameter's penalty at the scale of this step."""
        return {term.parameter: self._schedule.scaled(term.penalty) for term in self._terms}

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Name and tensor of each parameter that is not frozen now, penalised or not, those added later included."""
        known = [(choice.name, choice.parameter) for choice in self._choices]
        return [(name, p) for name, p in known + self._binding.added() if p.requires_grad]

    def other_terms(self) -> tuple[str, ...]:
        """What the attached optimizer minimises beside F: other regularizers' penalties, coupled weight decay."""
        return tuple(dict.fromkeys(note for each in self._attachments for note in each.other_terms))

    def missed(self) -> tuple[str, ...]:
        """The trainable parameters that binding did not see, in words: added to the model since, or unfrozen."""
        return self._binding.drift()

    def value(self) -> Tensor:
        """Σ Ω(w) over all terms, a scalar, differentiable: ``loss = criterion(model(x), y) + reg.value()``.

        One node of the autograd graph for all terms; its backward is the closed form and saves nothing but the
        weights themselves.

        Raises:
            AttachmentError: a bound parameter has been replaced in the model; or a term is a constraint, which a loss
                cannot impose; or this is called inside `certify`, which adds the penalty itself.

        Warns:
            ObjectiveWarning: (in ``backward``, once) these terms act in an optimizer too, so that they count twice; or
                ``scale`` is a schedule, and nobody counts its steps.
        """
        if self._certifying:
            raise AttachmentError("certify adds the penalty itself: its closure must return the mean loss alone")
        self._binding.check()
        self._settle()
        if self._constraint is not None:
            raise AttachmentError(
                f"{self._constraint.name}: {self._constraint.penalty} is a constraint, which adding it to the loss "
                "cannot impose; attach it to the optimizer, in a Regularizer of its own where others belong in the "
                "loss."
            )
        if not self._terms:
            return torch.zeros(())
        return fused_value(self._bundles(), self._differentiated)

    def _bundles(self) -> list[Bundle]:
        """The terms in force, bundled; again only where the scale, a schedule, a dtype or a device has changed."""
        key: list[Any] = [self._schedule.factor(), self._schedule.steps if self._scheduled else 0]
        for term in self._terms:
            key += (term.parameter.dtype, term.parameter.device)
        if self._bundled is None or self._bundled[0] != key:
            scaled = self._schedule.scaled
            self._bundled = key, bundles((scaled(term.penalty), term.parameter) for term in self._terms)
        return self._bundled[1]

    def _differentiated(self) -> None:
        """A gradient is taken through `value`: look for what would make the terms in the loss other than they seem."""
        self._acted = {}  # the terms are in the loss now
        if self._attachments:
            self._warn_once(
                "this Regularizer is attached to an optimizer, and its value() is backpropagated as well: the penalty "
                "counts twice; take one of the two (to log it, use reg.value().item() or .detach())"
            )
        elif callable(self._schedule.scale) and not self._schedule.begun:
            self._backpropagations += 1
            if self._backpropagations > 1:  # at the first, the schedule's step 0 is right
                self._warn_once(
                    "scale is a schedule, and stays at step 0: it counts the attached optimizer's steps, and none is "
                    "attached; set reg.steps in each step, or attach"
                )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, ObjectiveWarning, stacklevel=2)

    def sparsity(self) -> Sparsity:
        """Count exact zeros, and groups that are wholly zero, by parameter and in all."""
        self._binding.check()
        self._settle()
        return Sparsity(tuple(ParameterSparsity.of(t.name, t.parameter, t.penalty) for t in self._terms))

    def support(self) -> dict[str, Tensor]:
        """Where each penalised parameter is not 0 now: name → truth values of its shape."""
        self._binding.check()
        self._settle()
        return {term.name: distributed.whole(term.parameter.detach()) != 0 for term in self._terms}

    def hold_zeros(self, model: nn.Module, support: Mapping[str, Tensor] | None = None) -> None:
        """Set to 0 in an average of this model what is 0 in this model now.

        A mean of weights is exactly 0 only where all of them were; so EMA and SWA lose zeros. Those of the last step
        may be put back: in what was measured F fell by it each time (docs/frameworks.md).

        Args:
            model: such as a ``torch.optim.swa_utils.AveragedModel``, or its ``module``.
            support: what `support` has returned, where this model is not as it was then; None: that of now.

        Raises:
            InputError: it has not the parameters of this one.

        Example:
            >>> import copy, torch, torchshrink as ts
            >>> model = torch.nn.Linear(2, 1)
            >>> reg, average = ts.Regularizer(model, ts.L1(0.1)), copy.deepcopy(model)
            >>> _ = torch.nn.init.zeros_(model.weight)
            >>> reg.hold_zeros(average)
            >>> bool((average.weight == 0).all())
            True
        """
        average = model.module if isinstance(model, AveragedModel) else model
        hold_zeros(distributed.unwrapped(average), self.support() if support is None else support)

    def summary(self) -> Summary:
        """A table: parameter, shape, rule, penalty, method, groups, zeros; and what is exempt, and why.

        It is text to print, and a notebook shows it as tables.

        Below it are the parameters that lie outside of their constraints. Attaching changes no weight, so that a
        constraint holds from the optimizer's first step on.

        Raises:
            AttachmentError: a bound parameter has been replaced in the model, or the terms no longer act.

        Warns:
            SelectionWarning: parameters have been added or unfrozen since binding.
            ObjectiveWarning: there are gradients, and the attached optimizer has taken no step.
        """
        methods = self.methods
        frozen = {term.name: "none (frozen)" for term in self._terms if not term.parameter.requires_grad}
        self._notes()
        thawed = self._binding.thawed()
        choices = [replace(c, reason="frozen at binding, not now") if c.name in thawed else c for c in self._choices]
        sparsity, scaled = self.sparsity(), self._schedule.scaled
        return render(
            choices, sparsity, methods=methods | frozen, scaled=scaled, outside=self._outside(), acted=self._acted
        )

    @torch.no_grad()
    def _outside(self) -> list[str]:
        """The names of the parameters that lie outside of their constraints."""
        whole = distributed.whole
        held = [(term, self._schedule.scaled(term.penalty)) for term in self._terms if term.penalty.constraint]
        return [
            term.name
            for term, now in held
            if not math.isfinite(float(now.with_state(whole).value(whole(term.parameter))))
        ]

    def _notes(self) -> tuple[str, ...]:
        """What is known to keep the training from F's stationary points; warns of what binding did not see."""
        self._binding.check()
        drift = self._binding.drift()
        for note in drift:
            warnings.warn(note, SelectionWarning, stacklevel=3)
        for each in self._attachments:
            if not each.stepped and not self._schedule.begun and self._has_gradients():
                warnings.warn(
                    f"there are gradients, but the {type(each.optimizer).__name__} that this is attached to has not "
                    "taken a step yet: if the model is in training, then by another optimizer, without the penalty; "
                    "attach to the one whose step() is called",
                    ObjectiveWarning,
                    stacklevel=3,
                )
        return (*drift, *dict.fromkeys(note for each in self._attachments for note in each.notes))

    def _settle(self) -> None:
        """Before the weights are looked at: where a step has ended in an exception, they may be latent ones."""
        for each in self._attachments:
            each.settle()

    def _has_gradients(self) -> bool:
        return any(term.parameter.grad is not None for term in self._terms)

    # --- acting ---

    def attach(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        method: Method = "auto",
        *,
        rho: float | None = None,
        compile: bool = False,
    ) -> Self:
        """Let the terms act inside ``optimizer.step()``, whoever calls it, until `detach`.

        Args:
            optimizer: holds every penalised parameter. Of one that wraps another (SAM, Lookahead, a framework's), the
                inner one is taken, whose steps move the weights. Or several that share the parameters between them,
                such as ``[muon, adamw]``. Where they step in turn, a round of them is one step of a schedule; where one
                steps more often, its steps are counted.
            method: ``"gradient"`` adds ∂Ω(w) to the gradients; ``"prox"`` applies the exact proximal operator after
                the step, in the optimizer's own step sizes; ``"latent"`` lets the optimizer move latent weights,
                whatever it does, and the model holds their prox. All three end at a stationary point of F. ``"auto"``
                takes gradient for a penalty that is smooth, prox for one that is not, and latent where no prox after
                the step is exact (Muon, LBFGS, an optimizer that nobody has described; `NuclearNorm` under Adam).
                ``"decoupled"`` is AdamW's way, and in general does not: it warns, and `certify` repeats it.
            rho: for latent weights, ρ > 0 of the prox prox_{Ω/ρ} at scale 1, in units of loss per squared weight, for
                every tensor; None: ten times ‖∂Ω(w)‖/‖w‖ of each at the start, and no more than 1/s after SGD; of a
                constraint by the loss's gradient (docs/optimizers.md). The end of a convex problem does not depend on
                it, the way there does.
            compile: make the optimizer's update and the penalty one program, through ``torch.compile``: SGD, Adam,
                AdamW, NAdam, RAdam and Adamax with `L1`, `L2`, `ElasticNet`, `MCP`, `SCAD`, `GroupLasso` and
                `SparseGroupLasso`, in float32 and float64. The result is that of the plain path but for rounding, and
                the optimizer's state stays its own. It takes some seconds in the second step, once for models of the
                same shapes, whatever the rate and the strength; what cannot be compiled goes the plain way
                (docs/training.md).

        Returns:
            This regularizer, which is also a context manager (``with reg.attach(optimizer):``).

        Raises:
            AttachmentError: already attached; or the optimizer lacks a penalised parameter, or holds several others;
                or ``rho`` is given, and nothing acts by latent weights.
            StepSizeError: ``"prox"`` with an optimizer whose effective step size is not known.
            InputError: it is no optimizer.

        Warns:
            ObjectiveWarning: what will be minimised is not F, and what it is instead; in a step, that a wrapper moves
                the weights between the steps.
            CompileWarning: what ``compile=True`` cannot compile, and why.
        """
        if self._attachments:
            raise AttachmentError("already attached to an optimizer; call detach() first")
        _check_rho(rho)
        self._binding.check()
        several: list[Optimizer] = [*optimizer] if isinstance(optimizer, Sequence) else [optimizer]
        shares = shared_out(several, self._terms) if len(several) > 1 else [self._terms]
        self._schedule.share(len(several))
        try:
            for given, terms in zip(several, shares, strict=True):
                made = Attachment(
                    given,
                    terms,
                    method=method,
                    schedule=self._schedule,
                    offsets=self._offsets,
                    rho=rho,
                    compile=compile,
                )
                self._attachments = (*self._attachments, made)
            if rho is not None and "latent" not in self.methods.values():
                raise AttachmentError(f"rho={rho:g} is of latent weights, and no term here acts by them: leave it out")
        except BaseException:
            self.detach()
            raise
        self._keep_latent_alone()
        self._acted = {}
        return self

    def _keep_latent_alone(self) -> None:
        """Forget saved latent weights of terms that another method acts for."""
        self._offsets.keep_only(name for name, method in self.methods.items() if method == "latent")

    def detach(self) -> None:
        """Take the terms out of the optimizer. Does nothing where they are not attached."""
        if self._attachments:
            self._acted = self.methods
        for each in self._attachments:
            each.detach()
        if self._attachments:
            self._offsets.of.clear()
        self._schedule.share(1)
        self._attachments = ()

    def __enter__(self) -> Self:
        if not self._attachments:
            raise AttachmentError("attach first: with reg.attach(optimizer): ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    # --- proving ---

    def certify(self, closure: Callable[[], Tensor | float]) -> Certificate:
        """Measure how far the weights are from stationarity of F = mean loss + penalty.

        The closure runs once, with the model in evaluation mode (dropout off, normalisation statistics frozen);
        modes and gradients are put back afterwards. For a sharp certificate use all the data and float64.

        Args:
            closure: torch's convention: zero the gradients, ``backward()`` the mean loss on all the data, WITHOUT the
                penalty, and return it.

        Raises:
            InputError: the closure returned no scalar, or left no gradient.
            AttachmentError: a bound parameter has been replaced in the model, or the terms no longer act.

        Warns:
            SelectionWarning: parameters have been added or unfrozen since binding; they count as unpenalised.
            ObjectiveWarning: there are gradients, and the attached optimizer has taken no step.

        Over processes (see docs/distributed.md) each one's closure takes the mean loss on its own share of the data;
        the shares must be of equal size. Loss and gradients are averaged over the processes here.
        """
        notes = self._notes()
        trainable = self.trainable()
        parameters = [p for _, p in trainable]
        check_differentiable(trainable)
        reused = distributed.has_reused_gradients(self._model)
        before = [p.grad.clone() if reused and p.grad is not None else p.grad for p in parameters]
        modes = {module: module.training for module in self._model.modules()}
        self._certifying = True
        try:
            for p in parameters:
                p.grad = None
            self._model.eval()
            with torch.inference_mode(False):  # gradients, whatever the caller has off
                loss = closure()
            gradients = [p.grad for p in parameters]
            notes = (*notes, *of_activations(self._model))
        finally:
            self._certifying = False
            for module, training in modes.items():
                module.training = training
            for p, grad in zip(parameters, before, strict=True):
                p.grad = grad
        if not (isinstance(loss, Tensor) and loss.numel() == 1) and not isinstance(loss, float | int):
            raise InputError(
                f"certify: the closure returned {type(loss).__name__}, expected the mean loss as a scalar (after its "
                "backward())"
            )
        if all(grad is None for grad in gradients):
            raise InputError(
                "certify: the closure left no gradient; it must call backward() on the mean loss, and return it"
            )
        penalty_of = self.in_force()
        with torch.no_grad():
            groups = distributed.process_groups(self._model, parameters)
            mean = distributed.average_number(loss, groups, parameters[0].device)
            gradients = distributed.average_gradients(gradients, parameters, groups)
            return measure(
                [(name, p, penalty_of.get(p)) for name, p in trainable],
                gradients,
                loss=mean,
                imbalance=imbalance(self._model, penalty_of),
                notes=notes,
            )

    # --- saving ---

    def state_dict(self) -> dict[str, Any]:
        """The step count, the scale (None where it is a callable, which is yours to give again), and what binding kept.

        The last is under ``"bound"``, where there is any: for each term, copies of the tensors that its penalty
        remembers, such as the weights that `L2SP` pulls towards. Under ``"latent"``, where that method acts, is what
        latent weights have beyond the model's.
        """
        self._settle()
        return saved_state(self._terms, self._schedule, self._offsets)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, also where the terms are attached already.

        Raises:
            InputError: keys are missing or unknown, or what was bound there does not fit the terms here.
        """
        restore(self._terms, self._schedule, self._offsets, state)
        if self._attachments:
            self._keep_latent_alone()


def _check_rho(rho: Any) -> None:
    known = isinstance(rho, numbers.Real) and not isinstance(rho, bool)
    if rho is not None and not (known and 0 < rho < math.inf):
        raise InputError(f"rho={rho!r}: expected a finite number > 0, or None")


def _bound(penalty: Penalty, name: str, parameter: nn.Parameter) -> Penalty:
    """The penalty bound to a parameter, or an error that names it where groups, labels or weights do not fit."""
    try:
        bound = distributed.bind(penalty, parameter)
        bound.groups(parameter.shape)
    except InputError as error:
        raise InputError(f"{name}, of shape {tuple(parameter.shape)}: {error}") from error
    return bound
