"""Which terms act together in a step, how, and whether they can.

Everything that can be settled when terms are attached is settled here, so that a step has nothing to look up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import Optimizer

from torchshrink.errors import AttachmentError, InputError, StepSizeError
from torchshrink.penalties import Penalty
from torchshrink.regularizer.terms import Term
from torchshrink.step_sizes import StepSizeRule, step_size_of

Method = Literal["auto", "gradient", "prox", "decoupled"]
Resolved = Literal["gradient", "prox", "decoupled"]


def resolve_method(penalty: Penalty, method: Method) -> Resolved:
    """What ``auto`` means for a penalty: ``gradient`` where it is smooth, ``prox`` where it is not."""
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: expected one of {', '.join(map(repr, get_args(Method)))}")
    if method == "auto":
        return "gradient" if penalty.smooth else "prox"
    return method


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
        return self.method == "prox" and convex is not None and convex is not self.penalty

    def live(self) -> list[nn.Parameter]:
        """The parameters that this step moves. Like the optimizer, a term leaves alone what has no gradient.

        And what has been frozen, which still has one after ``zero_grad(set_to_none=False)``.
        """
        return [p for p in self.parameters if p.grad is not None and p.requires_grad]


def bundled(optimizer: Optimizer, terms: Sequence[Term], methods: Mapping[str, Resolved]) -> list[Bundle]:
    """The terms by parameter group, method, penalty, dtype and device.

    Raises:
        AttachmentError: the optimizer lacks a parameter, or a penalty cannot act by its method.
        StepSizeError: ``prox`` with an optimizer whose step size is not known.
    """
    group_of = _group_of(optimizer)
    missing = [term.name for term in terms if id(term.parameter) not in group_of]
    if missing:
        raise AttachmentError(
            f"{', '.join(missing)}: penalised, but not among the parameters of this {type(optimizer).__name__}; "
            "give the optimizer these parameters, or exempt them with a rule None."
        )
    together: dict[tuple[Any, ...], list[Term]] = defaultdict(list)
    for term in terms:
        p = term.parameter
        together[group_of[id(p)], methods[term.name], term.penalty, p.dtype, p.device].append(term)
    bundles = []
    for (group, method, penalty, _, _), found in together.items():
        _check_possible(optimizer, group, method, penalty)
        rule = step_size_of(optimizer, optimizer.param_groups[group]) if method == "prox" else None
        parameters = [term.parameter for term in found]
        names = [term.name for term in found]
        bundles.append(Bundle(group, method, penalty, names, parameters, rule))
    return bundles


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
        return
    if penalty.prox_steps == "none":
        raise AttachmentError(f"{name} has no closed prox; use method='gradient'.")
    rule = step_size_of(optimizer, optimizer.param_groups[group])
    if rule.coordinatewise and penalty.prox_steps == "scalar":
        raise StepSizeError(
            f"{name}'s prox is exact for one step size only, and {type(optimizer).__name__} has one per coordinate; "
            "use SGD, or method='gradient'."
        )
