"""What a step size rule is, and who has one: the registry of step sizes, of refusals, and of how weight decay acts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from torchshrink.errors import InputError, StepSizeError

Group = Mapping[str, Any]
State = Mapping[str, Any]
Step = float | Tensor
StepSize = Callable[[Group, State], Step]
StepSizes = Callable[[Group, Sequence[State]], list[Step]]
Reach = Callable[[Group, State], Step]
Remember = Callable[[Tensor, State], Mapping[str, Any]]
Refuses = Callable[[Group], str | None]
DecayKind = Literal["coupled", "decoupled", "unknown"]
Decay = DecayKind | Callable[[Group], DecayKind]
Class = type[Optimizer] | str
"""An optimizer class, or the name under which its library has it, such as ``"timm.optim.AdamWLegacy"``."""

PREVIOUS = "previous"

REACHES = 2.0
"""A prox moves a coordinate by at most this many of the optimizer's reaches.

At a stationary point it moves it by one reach at most, so that from 1 on the limit changes no solution; what is above 1
leaves room for averages that have not settled or are of noisy gradients.
"""


@dataclass(frozen=True)
class StepSizeRule:
    """How an optimizer class steps.

    Attributes:
        step_size: from a parameter group and a parameter's state, both as they are after the step, to s: a number, or
            a new tensor shaped like the parameter, which the caller may overwrite.
        coordinatewise: whether s differs between the coordinates of a parameter.
        remember: what s needs and the step overwrites: from a parameter and its state (empty before the first step),
            both as they are before the step, to what ``step_size`` then finds in its state under ``"previous"``.
            It runs under ``torch.no_grad``, and before a closure has made the gradients.
        refuses: from a parameter group to the reason why its settings leave no s, or None.
        many: the same as ``step_size`` for the states of several parameters, in fewer calls; None: one by one.
        reach: from a parameter group and a parameter's state, both as they are after the step, to the largest
            displacement s·|g| that the step makes of a constant gradient g, however small v and however large s are:
            a number, or a new tensor shaped like the parameter. None: without a limit.
        elementwise: whether s and the reach at a coordinate rest on the same coordinate of the state alone, so that
            they may be asked for a part of a parameter. False is never wrong, but takes more time and memory.
    """

    step_size: StepSize
    coordinatewise: bool
    remember: Remember | None = None
    refuses: Refuses | None = None
    many: StepSizes | None = None
    reach: Reach | None = None
    elementwise: bool = False

    def step_sizes(self, group: Group, states: Sequence[State]) -> list[Step]:
        """s for each of these states."""
        if self.many is not None:
            return self.many(group, states)
        return [self.step_size(group, state) for state in states]

    def limits(self, group: Group, states: Sequence[State]) -> list[Step] | None:
        """How far a prox may move each coordinate, for each of these states; None: as far as it wants.

        At a stationary point a prox takes back s·|g|, which is within reach. Elsewhere s may have no bound: a weight
        whose gradients have all been 0 has s = lr/ε under Adam, and would become 0 at once under any penalty.
        """
        if self.reach is None:
            return None
        limits = [REACHES * self.reach(group, state) for state in states]
        return limits if any(isinstance(limit, Tensor) or limit < math.inf for limit in limits) else None


@dataclass(frozen=True)
class Refusal:
    """Why an optimizer class has no step size per coordinate, and what to do instead.

    Attributes:
        reason: a clause that can follow the class's name.
        instead: a sentence without its full stop.
        entirely: whether no method at all can act in its step.
    """

    reason: str
    instead: str
    entirely: bool = False


@dataclass(frozen=True)
class _Known:
    """What has been said of an optimizer class."""

    rule: StepSizeRule | Refusal | None
    decay: Decay


_BESIDE_THE_STEP = """
    __abstractmethods__ __annotations__ __classcell__ __dict__ __doc__ __eq__ __firstlineno__ __getstate__ __hash__
    __init__ __init_subclass__ __module__ __orig_bases__ __qualname__ __reduce__ __reduce_ex__ __repr__ __setstate__
    __slots__ __static_attributes__ __str__ __weakref__ _abc_impl add_param_group load_state_dict state_dict zero_grad
"""
"""What a subclass may have of its own, under a name that its base has too, and step as its base does."""

_KNOWN: dict[Class, _Known] = {}  # the last word comes last
_MET: dict[type[Optimizer], Class | None] = {}  # under which key of _KNOWN a class was found, if any


def _know(optimizer_class: Class, known: _Known) -> None:
    parts = optimizer_class.split(".") if isinstance(optimizer_class, str) else ()
    if len(parts) == 1 or not all(map(str.isidentifier, parts)):
        raise InputError(
            f"optimizer class {optimizer_class!r}: expected a class, or its name with that of a module that has it, "
            "such as 'timm.optim.AdamWLegacy'"
        )
    _KNOWN.pop(optimizer_class, None)
    _KNOWN[optimizer_class] = known
    _MET.clear()


def _known(optimizer_class: type[Optimizer]) -> _Known | None:
    """What has been said of a class, or else of the nearest base that steps as it does."""
    if optimizer_class not in _MET:
        keys = (key for each in _stepping_alike(optimizer_class) if (key := _key_of(each)) is not None)
        _MET[optimizer_class] = next(keys, None)
    key = _MET[optimizer_class]
    return None if key is None else _KNOWN[key]


def _key_of(optimizer_class: type[Optimizer]) -> Class | None:
    found = (key for key in reversed(_KNOWN) if key is optimizer_class or _is_name_of(key, optimizer_class))
    return next(found, None)


def _stepping_alike(optimizer_class: type[Optimizer]) -> Iterator[type[Optimizer]]:
    """A class, and its bases as far as nothing that their ``step()`` is or may call has been overridden."""
    order = optimizer_class.__mro__
    for place, each in enumerate(order):
        if issubclass(each, Optimizer):
            yield each
        inherited = {name for base in order[place + 1 :] for name in vars(base)}
        own = {name for name in vars(each) if name != "step" or not _is_torchs_wrapper(each, order[place + 1 :])}
        if not inherited.isdisjoint(own - {*_BESIDE_THE_STEP.split()}):
            return


def _is_torchs_wrapper(optimizer_class: type, bases: Sequence[type]) -> bool:
    """Whether a class's ``step`` is what torch wraps its bases' in, where it is the first to have an optimizer."""
    step = vars(optimizer_class)["step"]
    inherited: Any = next((vars(base)["step"] for base in bases if "step" in vars(base)), None)
    plain = inherited.__wrapped__ if getattr(inherited, "hooked", False) else inherited
    return bool(getattr(step, "hooked", False) and step.__wrapped__ is plain)


def _is_name_of(key: Class, optimizer_class: type[Optimizer]) -> bool:
    """Whether a name is that of the class where it was defined, or in another module that has been imported."""
    if not isinstance(key, str):
        return False
    module, _, name = key.rpartition(".")
    if name != optimizer_class.__name__:
        return False
    if module == optimizer_class.__module__:
        return optimizer_class.__qualname__ == name
    return module in sys.modules and vars(sys.modules[module]).get(name) is optimizer_class


def register_step_size(
    *optimizer_classes: Class,
    coordinatewise: bool,
    remember: Remember | None = None,
    refuses: Refuses | None = None,
    many: StepSizes | None = None,
    reach: Reach | None = None,
    elementwise: bool = False,
    weight_decay: Decay = "unknown",
) -> Callable[[StepSize], StepSize]:
    """Say, as a decorator, what the effective step size of these optimizer classes is.

    Args:
        optimizer_classes: with their subclasses, but for those that override what their ``step()`` may call. A name,
            such as ``"timm.optim.AdamWLegacy"``, stands for the class that this module has under it, and imports
            nothing.
        coordinatewise: whether the step size differs between the coordinates of a parameter.
        remember: what the step size needs from before the step (see `StepSizeRule`).
        refuses: which settings of a group leave no step size, and why (see `StepSizeRule`).
        many: the same for several parameters at once, where that is faster (see `StepSizeRule`).
        reach: the largest displacement of a coordinate under a constant gradient (see `StepSizeRule`). Where step sizes
            differ it is to be said: without it, a prox may set a weight that has had no gradient yet to 0 at once.
        elementwise: whether they may be asked for a part of a parameter (see `StepSizeRule`).
        weight_decay: whether the group's ``weight_decay`` is added to the gradient ("coupled") or shrinks the weights
            beside it ("decoupled"); a function of the group where that depends on its settings.

    Raises:
        InputError: ``coordinatewise=True`` without a reach; a name without its module.

    Example:
        >>> import torch
        >>> class PlainDescent(torch.optim.Optimizer):
        ...     pass
        >>> @register_step_size(PlainDescent, coordinatewise=False)
        ... def plain(group, state):
        ...     return group["lr"]
    """
    if coordinatewise and reach is None:
        raise InputError(
            "coordinatewise=True: a reach expected, the largest displacement that a step makes of a constant gradient, "
            "such as reach=lambda group, state: group['lr']; math.inf where there is no bound"
        )

    def register(step_size: StepSize) -> StepSize:
        rule = StepSizeRule(step_size, coordinatewise, remember, refuses, many, reach, elementwise)
        for optimizer_class in optimizer_classes:
            _know(optimizer_class, _Known(rule, weight_decay))
        return step_size

    return register


def same_step_size(optimizer_class: Class, like: type[Optimizer]) -> None:
    """Say that an optimizer class steps exactly as ``like`` does: a subclass, most likely, with its own ``step()``.

    Raises:
        StepSizeError: ``like`` has no known step size.

    Example:
        >>> import torch
        >>> class LoggingAdam(torch.optim.Adam):
        ...     def step(self, closure=None):
        ...         print("step")
        ...         return super().step(closure)
        >>> same_step_size(LoggingAdam, like=torch.optim.Adam)
    """
    rule, known = _look_up(like), _known(like)
    _know(optimizer_class, _Known(rule, "unknown" if known is None else known.decay))


def register_weight_decay(*optimizer_classes: Class, acts: Decay) -> None:
    """Say how the ``weight_decay`` of optimizer classes acts. What has been said of their step sizes stays.

    Args:
        optimizer_classes: classes or names, as for `register_step_size`.
        acts: as ``weight_decay`` there.

    Raises:
        InputError: a name without its module.

    Example:
        >>> import torch
        >>> class MySign(torch.optim.Optimizer):
        ...     pass
        >>> register_weight_decay(MySign, acts="decoupled")
    """
    for optimizer_class in optimizer_classes:
        known = _KNOWN.get(optimizer_class) if isinstance(optimizer_class, str) else _known(optimizer_class)
        _know(optimizer_class, _Known(None if known is None else known.rule, acts))


def refuse_step_size(
    *optimizer_classes: Class, reason: str, instead: str, weight_decay: Decay = "unknown", entirely: bool = False
) -> None:
    """Say why these optimizer classes have no step size per coordinate, and what to do instead.

    Args:
        optimizer_classes: classes or names, as for `register_step_size`.
        reason: a clause that can follow the class's name.
        instead: a sentence without its full stop.
        weight_decay: as for `register_step_size`.
        entirely: whether no method at all can act, since the weights are not moved by ``step()``.

    Example:
        >>> import torch
        >>> class SignDescent(torch.optim.Optimizer):
        ...     pass
        >>> refuse_step_size(SignDescent, reason="steps by the gradient's sign", instead="Use Adam")
    """
    for optimizer_class in optimizer_classes:
        _know(optimizer_class, _Known(Refusal(reason, instead, entirely), weight_decay))


def step_size_of(optimizer: Optimizer, group: Group | None = None) -> StepSizeRule:
    """The step size rule of an optimizer, under the settings that a parameter group of it has now.

    Args:
        optimizer: its class decides, or the base whose ``step()`` it has.
        group: whose settings must leave a step size; None: those of every group.

    Raises:
        StepSizeError: there is none for this class, none is known, or the settings leave none.
    """
    rule = _look_up(type(optimizer))
    for settings in optimizer.param_groups if group is None else (group,):
        reason = _refused_everywhere(settings) or (rule.refuses(settings) if rule.refuses is not None else None)
        if reason is not None:
            raise StepSizeError(f"{type(optimizer).__name__}: {reason}.")
    return rule


def refusal_of(optimizer: Optimizer) -> Refusal | None:
    """Why there is no step size for an optimizer's class, where that has been said."""
    known = _known(type(optimizer))
    return known.rule if known is not None and isinstance(known.rule, Refusal) else None


def decay_of(optimizer_class: type[Optimizer]) -> Decay:
    """What has been said of how the ``weight_decay`` of a class acts; "unknown" where nothing has."""
    known = _known(optimizer_class)
    return "unknown" if known is None else known.decay


def _look_up(optimizer_class: type[Optimizer]) -> StepSizeRule:
    name, known = optimizer_class.__name__, _known(optimizer_class)
    rule = None if known is None else known.rule
    if isinstance(rule, StepSizeRule):
        return rule
    if rule is not None:
        raise StepSizeError(f"{name} {rule.reason}, so no prox after its step is exact. {rule.instead}.")
    base = next((base for base in optimizer_class.__mro__[1:] if _has_rule(base)), None)
    same = (
        "" if base is None else f"; torchshrink.step_sizes.same_step_size({name}, like={base.__name__}) if they agree"
    )
    raise StepSizeError(
        f"{name}: its effective step size per coordinate is not known, so a prox after its step would solve for "
        "another strength. Use method='latent', or 'gradient' for a smooth penalty, or register the step size with "
        f"torchshrink.step_sizes.register_step_size{same}."
    )


def _has_rule(optimizer_class: type) -> bool:
    known = _known(optimizer_class)
    return known is not None and isinstance(known.rule, StepSizeRule)


def _refused_everywhere(group: Group) -> str | None:
    if group.get("differentiable", False):
        return (
            "differentiable=True, and autograd does not see a prox after the step; add reg.value() to the loss instead"
        )
    return None
