"""Optimizers that hold another one: which of them moves the weights, and what the outer one does between its steps."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from torchshrink import distributed
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning
from torchshrink.support.private_torch import version_of

WATCHED = 50  # steps in which the weights are looked at: the averages of Lookahead come every 5th or 10th
SAME = 1e-5  # in relation: what adding a perturbation and subtracting it again may leave

_OPAQUE = (str, bytes, int, float, type(None), type, FunctionType, MethodType, BuiltinFunctionType, ModuleType, Tensor)
_CHANGE_GRADIENTS = ("OrthoGrad",)  # in a closure too, where it cannot be seen
_DEEP = 3  # objects in objects
_LONG = 1000  # of a longer list or mapping the beginning is looked at


def stepping(given: object) -> Optimizer:
    """The optimizer whose own ``step()`` moves the weights: the one given, or the one that it wraps.

    It is told by structure and not by name: an object that holds one other optimizer over the same parameters leaves
    the steps to that one (Lightning's and Accelerate's, SAM over its base, Lookahead), be it in an object of its own or
    in a slot. Hooks of the outer one would run where its own ``step()`` is called, which SAM's two half-steps never do.

    Raises:
        InputError: ``given`` is no optimizer; where it holds one, as a learning rate scheduler does, the message names
            it.
        AttachmentError: it holds several, whether it is an optimizer or not, or one over other parameters than its own.
    """
    seen: set[int] = set()
    now = given
    while id(now) not in seen and not _is_torchs_own(now):
        seen.add(id(now))
        held = {name: each for name, each in _held(now).items() if id(each) not in seen and _related(now, each)}
        inner = {id(each): each for each in held.values()}
        if not inner:
            break
        (only,) = inner.values() if len(inner) == 1 else (None,)
        if only is None or (_acts_as_optimizer(now) and _parameters(now) and _parameters(only) != _parameters(now)):
            what = ", ".join(f"{place} ({type(each).__name__})" for place, each in held.items())
            what = f"holds {what}" if _acts_as_optimizer(now) else f"is no optimizer, and holds several: {what}"
            raise AttachmentError(
                f"{type(now).__name__} {what}, which move its parameters or a part of them: attach a Regularizer "
                "to each, with rules for the parameters that it holds, or add reg.value() to the loss."
            )
        if not _acts_as_optimizer(now):
            (place,) = held
            raise InputError(
                f"optimizer: a {type(now).__name__} given, a torch.optim.Optimizer expected: attach to the "
                f"{type(only).__name__} that it holds as {place}"
            )
        now = only
    if not isinstance(now, Optimizer):
        raise InputError(f"optimizer: a {type(given).__name__} given, a torch.optim.Optimizer expected")
    return now


def _is_torchs_own(optimizer: object) -> bool:
    return isinstance(optimizer, Optimizer) and type(optimizer).__module__.startswith("torch.optim.")


def _held(holder: object) -> dict[str, Any]:
    """The optimizers that an object holds, by their places: as attributes, or in lists, mappings and objects of these.

    Not those that another one of them holds, as SAM holds its base.
    """
    found = dict(_found_in(holder))
    within = {id(each) for outer in found.values() for _, each in _found_in(outer)}
    outermost = {place: each for place, each in found.items() if id(each) not in within}
    return outermost or found


def _found_in(holder: object) -> Iterator[tuple[str, Any]]:
    """The nearest first; what is in an optimizer that was found is its own."""
    visited = {id(holder)}
    level = [("", holder)]
    for _ in range(_DEEP):
        below: list[tuple[str, object]] = []
        for prefix, outer in level:
            for place, each in _attributes(outer):
                if isinstance(each, _OPAQUE) or id(each) in visited:
                    continue
                visited.add(id(each))
                if _acts_as_optimizer(each):
                    yield prefix + place, each
                else:
                    below.append((prefix + place, each))
        level = below


def _attributes(holder: object) -> Iterator[tuple[str, object]]:
    """Those of an instance's own, in its ``__dict__`` or its slots, and what is in lists and mappings of these."""
    named = {f".{name}": value for name, value in getattr(holder, "__dict__", {}).items() if name != "state"}
    for cls in type(holder).__mro__:
        for name, slot in vars(cls).items():
            if isinstance(slot, MemberDescriptorType) and cls.__module__ != "builtins":
                with contextlib.suppress(AttributeError):  # nothing is in it yet
                    named.setdefault(f".{name}", slot.__get__(holder))
    if isinstance(holder, list | tuple | Mapping):
        named[""] = holder
    for name, value in named.items():
        if isinstance(value, list | tuple):
            yield from ((f"{name}[{i}]", each) for i, each in enumerate(value[:_LONG]))
        elif isinstance(value, Mapping):
            yield from ((f"{name}[{key!r}]", each) for key, each in itertools.islice(value.items(), _LONG))
        else:
            yield name, value


def _acts_as_optimizer(found: object) -> bool:
    if isinstance(found, Optimizer):
        return True
    wanted = ("step", "zero_grad")
    try:
        return isinstance(getattr(found, "param_groups", None), list) and all(
            callable(getattr(found, name, None)) for name in wanted
        )
    except Exception:  # whatever a property of anybody's raises
        return False


def _parameters(optimizer: object) -> set[int]:
    groups = getattr(optimizer, "param_groups", ())
    return {id(p) for group in groups for p in group["params"]}


def _related(outer: object, inner: object) -> bool:
    """Whether they share a parameter, as far as the outer one says what it has."""
    mine = _parameters(outer) if _acts_as_optimizer(outer) else set()
    return not mine or bool(mine & _parameters(inner))


@final
class Between:
    """Looks at what happens to weights and gradients around the steps of an optimizer that another one wraps.

    Args:
        outer: the one that was given.
        inner: the one whose steps move the weights.
        parameters: the penalised ones.
    """

    def __init__(self, outer: object, inner: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        self._given, self._stepping = outer, inner
        self._outer, self._inner = type(outer).__name__, type(inner).__name__
        self._parameters = parameters
        self._entered: Tensor | None = None  # what the gradients were where the outer step began
        self._handle: RemovableHandle | None = None
        self._left = WATCHED
        self._kept: tuple[list[int], torch.Tensor] | None = None
        self._put_back = self._in_a_row = 0  # how often
        self.notes: tuple[str, ...] = ()

    def install(self) -> None:
        """Look at the gradients as the outer step gets them, where that has a place for hooks of its own."""
        table = getattr(self._given, "__dict__", {}).get("_optimizer_step_pre_hooks")
        own = isinstance(table, dict) and table is not vars(self._stepping).get("_optimizer_step_pre_hooks")
        if own and isinstance(self._given, Optimizer):
            self._handle = self._given.register_step_pre_hook(self._enter)

    def remove(self) -> None:
        """Take the hook out again."""
        if self._handle is not None:
            self._handle.remove()

    def _enter(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # it would make the gradients anew
        looks = self._left and closure is None and not torch.compiler.is_compiling()
        self._entered = self._look_at_gradients() if looks else None

    def _look_at_gradients(self) -> Tensor:
        """Of each tensor's gradient the norm, and what it has along two directions that are always the same."""
        with torch.no_grad():
            found = []
            for p in self._parameters:
                grad = p.grad
                if grad is not None and grad.layout is torch.strided and not distributed.is_spread(p):
                    g = grad.flatten().to("cpu", torch.float64)
                    along = torch.arange(len(g), dtype=g.dtype).cos_() @ g
                    found.append(
                        torch.stack([g.norm(), g.sum() / max(len(g), 1) ** 0.5, along / max(len(g), 1) ** 0.5])
                    )
            return torch.stack(found) if found else torch.zeros(0, 3)

    def _compare_gradients(self) -> None:
        if self._entered is None:
            return
        before, self._entered = self._entered, None
        now = self._look_at_gradients()
        if before.shape != now.shape or not (before.isfinite().all() and now.isfinite().all()):
            return
        ratio = float(now[:, 0].norm() / before[:, 0].norm())
        unscaled = ratio > 0 and math.log2(ratio) % 1 in (0.0, 1.0)  # by a loss scale, which is a power of two
        factor = ratio if unscaled else 1.0
        if not bool(((now - factor * before).abs() <= SAME * factor * before[:, :1]).all()):
            self._say(self._of_gradients())

    def _of_gradients(self) -> str:
        return (
            f"{self._outer} changes the gradients before the steps of its {self._inner}: where these vanish, that of "
            "the mean loss need not, so that the end need not be a stationary point of mean loss + penalty; only a "
            "certificate tells"
        )

    def after_step(self) -> None:
        """The step is over: remember the weights."""
        self._kept = None
        if self._left and not torch.compiler.is_compiling():
            self._left -= 1
            self._kept = self._look()

    def before_step(self, *, alone: bool) -> None:
        """The next step begins: compare the weights with those that the last one left, and the gradients.

        Args:
            alone: whether nobody else acts on the gradients in the inner optimizer.

        Warns:
            ObjectiveWarning: they are not; or they were elsewhere in between, twice in a row or three times; or the
                gradients are not those with which the outer step began.
        """
        if type(self._given).__module__.split(".")[0] == "pytorch_optimizer" and self._outer in _CHANGE_GRADIENTS:
            self._say(self._of_gradients())
        if alone:
            self._compare_gradients()
        if self._kept is None or torch.compiler.is_compiling():
            return
        (versions, sizes), (versions_now, sizes_now) = self._kept, self._look()
        if not torch.allclose(sizes, sizes_now, rtol=SAME, atol=0.0, equal_nan=True):
            self._say(
                f"{self._outer} moves the weights between the steps of its {self._inner}, as averaging does: a weight "
                "that a prox has set to zero need not stay zero, and whether the end is a stationary point of mean "
                "loss + penalty, only a certificate tells"
            )
        moved = versions != versions_now
        self._in_a_row = self._in_a_row + 1 if moved else 0
        self._put_back += moved
        if (self._in_a_row > 1 or self._put_back > 2) and not self.notes:
            self._say(
                f"{self._outer} moves the weights and puts them back before each step of its {self._inner}, as "
                "sharpness-aware minimisation does: its gradients are those of other weights, so that the end need not "
                "be a stationary point of mean loss + penalty; only a certificate tells"
            )

    def _look(self) -> tuple[list[int], torch.Tensor]:
        """How often each tensor has been changed in place, and its norm: an assignment to ``.data`` is not counted."""
        with torch.no_grad():
            local = [p for p in self._parameters if not distributed.is_spread(p)]
            sizes = [p.detach().norm().to("cpu", torch.float64) for p in local]
            return [version_of(p) for p in local], torch.stack(sizes) if sizes else torch.zeros(0)

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes = (*self.notes, note)
            warnings.warn(note, ObjectiveWarning, stacklevel=5)
