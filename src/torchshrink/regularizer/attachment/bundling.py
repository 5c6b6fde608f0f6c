"""Which terms act together in a step, how, and whether they can.

Everything that can be settled when terms are attached is settled here, so that a step has nothing to look up.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, SparseAdam

from torchshrink import distributed
from torchshrink.errors import AttachmentError, InputError, StepSizeError
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import ProxSteps
from torchshrink.regularizer.attachment.wrapping import stepping
from torchshrink.regularizer.terms import Term
from torchshrink.step_sizes import StepSizeRule, refusal_of, step_size_of

Method = Literal["auto", "gradient", "prox", "latent", "decoupled"]
Resolved = Literal["gradient", "prox", "latent", "decoupled"]


def resolve_method(penalty: Penalty, method: Method, optimizer: Optimizer, group: Mapping[str, Any]) -> Resolved:
    """What ``auto`` means for a penalty in a parameter group of an optimizer.

    ``gradient`` where the penalty is smooth, else ``prox``; and where no prox after the optimizer's step is exact,
    ``latent``.
    """
    if method not in get_args(Method):
        known = ", ".join(map(repr, get_args(Method)))
        loss = "; of a penalty in the loss nothing is attached: add reg.value() to the loss" * (str(method) == "loss")
        raise InputError(f"method={method!r}: expected one of {known}{loss}")
    if method != "auto":
        return method
    if penalty.smooth:
        return "gradient"
    if penalty.prox_steps == "none":
        return "prox"  # which will be refused by the reason
    try:
        rule = step_size_of(optimizer, group)
    except StepSizeError:
        return "latent"
    return "latent" if rule.coordinatewise and _acting_steps(penalty) == "scalar" else "prox"


def _acting_steps(penalty: Penalty) -> ProxSteps:
    """For which steps the prox that acts is exact: that of the convex part, where one is known."""
    return (penalty.convex_part or penalty).prox_steps


@dataclass(frozen=True)
class Bundle:
    """The parameters of one parameter group that one penalty acts on in one way.

    Attributes:
        group: the parameter group's index, since load_state_dict replaces the groups themselves.
        method: how it acts.
        penalty: at scale 1.
        names: the parameters' qualified names.
        parameters: the parameters, all of one dtype and device when they were attached.
        rule: the optimizer's, for ``prox``; None for the other methods.
    """

    group: int
    method: Resolved
    penalty: Penalty
    names: list[str]
    parameters: list[nn.Parameter]
    rule: StepSizeRule | None

    @property
    def acts_before(self) -> bool:
        """Whether it acts before the optimizer's own update, through a gradient, and not after it, through a prox."""
        return self.method == "gradient" or (self.method == "decoupled" and self.penalty.smooth)

    @property
    def has_rest(self) -> bool:
        """Whether its prox is that of the penalty's convex part, so that the rest acts through the gradient."""
        convex = self.penalty.convex_part
        return self.method in ("prox", "latent") and convex is not None and convex is not self.penalty

    def by_name(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that are not frozen now, with their names."""
        return [(name, p) for name, p in zip(self.names, self.parameters, strict=True) if p.requires_grad]

    def live_by_name(self) -> list[tuple[str, nn.Parameter]]:
        """`live`, with their names."""
        return [(name, p) for name, p in self.by_name() if p.grad is not None]

    def live(self) -> list[nn.Parameter]:
        """The parameters that this step moves. Like the optimizer, a term leaves alone what has no gradient.

        And what has been frozen, which still has one after ``zero_grad(set_to_none=False)``.
        """
        return [p for p in self.parameters if p.grad is not None and p.requires_grad]


def bundled(optimizer: Optimizer, terms: Sequence[Term], method: Method) -> list[Bundle]:
    """The terms by parameter group, method, penalty, dtype and device.

    Raises:
        AttachmentError: the optimizer lacks a parameter, or a penalty cannot act by its method.
        StepSizeError: ``prox`` with an optimizer whose step size is not known.
    """
    refusal = refusal_of(optimizer)
    if refusal is not None and refusal.entirely:
        raise AttachmentError(f"{type(optimizer).__name__} {refusal.reason}. {refusal.instead}.")
    group_of = _group_of(optimizer)
    missing = [term.name for term in terms if id(term.parameter) not in group_of]
    if missing:
        raise AttachmentError(
            f"{', '.join(missing)}: penalised, but not among the parameters of this {type(optimizer).__name__}; "
            "give the optimizer these parameters, or exempt them with a rule None; where several optimizers share the "
            "model, attach to all of them, attach([muon, adam])."
        )
    together: dict[tuple[Any, ...], list[Term]] = defaultdict(list)
    for term in terms:
        p, group = term.parameter, group_of[id(term.parameter)]
        how = resolve_method(term.penalty, method, optimizer, optimizer.param_groups[group])
        together[group, how, term.penalty, p.dtype, p.device].append(term)
    bundles = []
    for (group, how, penalty, _, _), found in together.items():
        _check_possible(optimizer, group, how, penalty)
        rule = step_size_of(optimizer, optimizer.param_groups[group]) if how == "prox" else None
        parameters = [term.parameter for term in found]
        names = [term.name for term in found]
        bundles.append(Bundle(group, how, penalty, names, parameters, rule))
    return bundles


def shared_out(optimizers: Sequence[Optimizer], terms: Sequence[Term]) -> list[list[Term]]:
    """For each optimizer the terms whose parameters it holds.

    Raises:
        AttachmentError: a term's parameter is in none of them, or in several.
    """
    held = [set(_group_of(stepping(each))) for each in optimizers]
    names = ", ".join(type(each).__name__ for each in optimizers)
    for term in terms:
        count = sum(id(term.parameter) in each for each in held)
        if count != 1:
            how_many = "none" if count == 0 else "more than one"
            raise AttachmentError(
                f"{term.name}: penalised, but {how_many} of these optimizers ({names}) holds it; give it to one, or "
                "exempt it with a rule None."
            )
    return [[term for term in terms if id(term.parameter) in each] for each in held]


def check_settings(optimizer: Optimizer, bundles: Sequence[Bundle]) -> None:
    """What `bundled` checked of the optimizer may since have been changed: its settings, and who is in which group.

    Raises:
        AttachmentError: a parameter has left its group, or a penalty can no longer act by its method.
        StepSizeError: the group's settings now leave no step size.
    """
    group_of = _group_of(optimizer)
    for bundle in bundles:
        for name, p in zip(bundle.names, bundle.parameters, strict=True):
            if group_of.get(id(p)) != bundle.group:
                raise AttachmentError(
                    f"{name}: no longer in parameter group {bundle.group} of this {type(optimizer).__name__}; "
                    "detach() and attach() again after changing the groups."
                )
        _check_possible(optimizer, bundle.group, bundle.method, bundle.penalty)


@final
class Members:
    """Who is in which parameter group, to notice in each step whether that has changed."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = [[*group["params"]] for group in optimizer.param_groups]

    def changed(self) -> bool:
        """Whether a group has come, gone or moved, or has others in it. Not looked at in what is being compiled."""
        if torch.compiler.is_compiling():
            return False
        now = self._optimizer.param_groups
        return len(now) != len(self._groups) or not all(
            len(group["params"]) == len(kept) and all(map(operator.is_, group["params"], kept))
            for group, kept in zip(now, self._groups, strict=True)
        )


def _group_of(optimizer: Optimizer) -> dict[int, int]:
    return {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}


def _check_possible(optimizer: Optimizer, group: int, method: Resolved, penalty: Penalty) -> None:
    name = type(penalty).__name__
    if penalty.constraint and method == "gradient":
        raise AttachmentError(f"{penalty} is a constraint, which no gradient can impose; use method='prox'.")
    if method != "prox":
        if optimizer.param_groups[group].get("differentiable", False):
            raise AttachmentError(
                f"{type(optimizer).__name__}: differentiable=True, and autograd does not see what is added inside the "
                "step; add reg.value() to the loss instead."
            )
        if method != "latent":
            return
    if penalty.prox_steps == "none":
        raise AttachmentError(f"{name} has no closed prox; use method='gradient'.")
    if method == "latent":
        if isinstance(optimizer, SparseAdam):
            raise AttachmentError(
                f"{type(optimizer).__name__} takes sparse gradients only, and latent weights have a gradient "
                "everywhere; use sparse=False in the embedding, with Adam, or exempt it with a rule None."
            )
        return
    rule = step_size_of(optimizer, optimizer.param_groups[group])
    if rule.coordinatewise and _acting_steps(penalty) == "scalar":
        raise StepSizeError(
            f"{name}'s prox is exact for one step size only, and {type(optimizer).__name__} has one per coordinate; "
            "use method='latent', or SGD, or method='gradient'."
        )


def dense_gradient(parameter: nn.Parameter) -> Tensor:
    """A parameter's gradient, placed as the parameter is, to add to.

    Raises:
        AttachmentError: it is sparse.
    """
    grad = parameter.grad
    if type(grad) is Tensor and grad.layout is torch.strided:
        return grad
    distributed.align_gradient_(parameter)
    grad = parameter.grad
    if grad is None or grad.layout is not torch.strided:
        raise AttachmentError(
            f"a penalised parameter of shape {tuple(parameter.shape)} has a sparse gradient, to which a dense penalty "
            "cannot be added; use sparse=False, or exempt it with a rule None."
        )
    return grad
