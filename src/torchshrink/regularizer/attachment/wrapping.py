"""Optimizers that hold another one: which of them moves the weights, and what the outer one does between its steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning
from torchshrink.support.private_torch import version_of

WATCHED = 50  # steps in which the weights are looked at: the averages of Lookahead come every 5th or 10th
SAME = 1e-5  # in relation: what adding a perturbation and subtracting it again may leave


def stepping(given: object) -> Optimizer:
    """The optimizer whose own ``step()`` moves the weights: the one given, or the one that it wraps.

    It is told by structure and not by name: an object that holds one other optimizer over the same parameters leaves
    the steps to that one (Lightning's and Accelerate's, SAM over its base, Lookahead). Hooks of the outer one would
    run where its own ``step()`` is called, which SAM's two half-steps never do.

    Raises:
        InputError: ``given`` is no optimizer; where it holds one, as a learning rate scheduler does, the message names
            it.
        AttachmentError: it holds several, or one over other parameters than its own.
    """
    seen: set[int] = set()
    now = given
    while id(now) not in seen and not _is_torchs_own(now):
        seen.add(id(now))
        held = {name: each for name, each in _held(now) if id(each) not in seen and _related(now, each)}
        inner = {id(each): each for each in held.values()}
        if not inner:
            break
        if not _acts_as_optimizer(now):
            place, each = next(iter(held.items()))
            raise InputError(
                f"optimizer: a {type(now).__name__} given, a torch.optim.Optimizer expected: attach to the "
                f"{type(each).__name__} that it holds as .{place}"
            )
        (only,) = inner.values() if len(inner) == 1 else (None,)
        if only is None or (_parameters(now) and _parameters(only) != _parameters(now)):
            what = ", ".join(f".{place} ({type(each).__name__})" for place, each in held.items())
            raise AttachmentError(
                f"{type(now).__name__} holds {what}, which move its parameters or a part of them: attach a Regularizer "
                "to each, with rules for the parameters that it holds, or add reg.value() to the loss."
            )
        now = only
    if not isinstance(now, Optimizer):
        raise InputError(f"optimizer: a {type(given).__name__} given, a torch.optim.Optimizer expected")
    return now


def _is_torchs_own(optimizer: object) -> bool:
    return isinstance(optimizer, Optimizer) and type(optimizer).__module__.startswith("torch.optim.")


def _held(holder: object) -> Iterator[tuple[str, Any]]:
    """The optimizers among an object's attributes, or in lists and mappings of these, each with its place."""
    for name, value in getattr(holder, "__dict__", {}).items():
        if isinstance(value, list | tuple):
            within: Mapping[str, object] = {f"{name}[{i}]": each for i, each in enumerate(value)}
        elif isinstance(value, Mapping) and name != "state":
            within = {f"{name}[{key!r}]": each for key, each in value.items()}
        else:
            within = {name: value}
        for place, each in within.items():
            if each is not holder and _acts_as_optimizer(each):
                yield place, each


def _acts_as_optimizer(found: object) -> bool:
    if isinstance(found, Optimizer):
        return True
    wanted = ("step", "zero_grad")
    return isinstance(getattr(found, "param_groups", None), list) and all(
        callable(getattr(found, name, None)) for name in wanted
    )


def _parameters(optimizer: object) -> set[int]:
    groups = getattr(optimizer, "param_groups", ())
    return {id(p) for group in groups for p in group["params"]}


def _related(outer: object, inner: object) -> bool:
    """Whether they share a parameter, as far as the outer one says what it has."""
    mine = _parameters(outer)
    return not mine or bool(mine & _parameters(inner))


@final
class Between:
    """Looks at what happens to the weights between the steps of an optimizer that another one wraps.

    Args:
        outer: the class that was given.
        inner: the class whose steps move the weights.
        parameters: the penalised ones.
    """

    def __init__(self, outer: str, inner: str, parameters: Sequence[nn.Parameter]) -> None:
        self._outer, self._inner = outer, inner
        self._parameters = parameters
        self._left = WATCHED
        self._kept: tuple[list[int], torch.Tensor] | None = None
        self._put_back = self._in_a_row = 0  # how often
        self.notes: tuple[str, ...] = ()

    def after_step(self) -> None:
        """The step is over: remember the weights."""
        self._kept = None
        if self._left and not torch.compiler.is_compiling():
            self._left -= 1
            self._kept = self._look()

    def before_step(self) -> None:
        """The next step begins: compare the weights with those that the last one left.

        Warns:
            ObjectiveWarning: they are not; or they were elsewhere in between, twice in a row or three times.
        """
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
