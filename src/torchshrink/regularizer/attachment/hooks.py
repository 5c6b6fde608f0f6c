"""What an attachment leaves in an optimizer, and how it is taken out again without a trace.

Besides the hooks this is a guard against copies: ``copy.deepcopy`` and ``pickle`` drop an optimizer's hooks without a
word, so that the copy would train without the penalty.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from torchshrink.errors import AttachmentError, ObjectiveWarning
from torchshrink.support.private_torch import steps_under_way

BeforeStep = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
AfterStep = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], None]
AfterLoad = Callable[[Optimizer], None]
Around = Callable[[], AbstractContextManager[None]]

# An attribute of the instance wins over the class's, both for the copy module and for pickle, and is itself not
# copied: `Optimizer.__getstate__` names what is.
_GUARD = "__reduce_ex__"

_EXCHANGES = ("train", "eval")  # of schedule-free optimizers

_TABLES = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "_optimizer_load_state_dict_post_hooks")


class Installation:
    """The hooks of one attachment in one optimizer.

    Args:
        optimizer: any, but for one that only wraps another.
        before: runs before each step.
        after: runs after each step.
        loaded: runs after each ``load_state_dict``.
        around: a context for what moves the weights besides a step: ``train`` and ``eval`` of optimizers that have
            them, which exchange the weights for their average.

    Raises:
        AttachmentError: the optimizer has no place for hooks.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        before: BeforeStep,
        after: AfterStep,
        loaded: AfterLoad,
        around: Around | None = None,
    ) -> None:
        missing = [table for table in _TABLES if table not in vars(optimizer)]
        if missing:
            raise AttachmentError(
                f"{type(optimizer).__name__} has no hooks of its own ({missing[0]} is missing), so nothing can act in "
                "its step: it wraps another, to which attach; or its __init__ leaves out super().__init__()."
            )
        self._optimizer = optimizer
        self._handles: list[RemovableHandle] = []
        self._around = around
        guarded = _GUARD in vars(optimizer)
        try:
            self._handles.append(optimizer.register_step_pre_hook(before))
            self._handles.append(optimizer.register_step_post_hook(after))
            self._handles.append(optimizer.register_load_state_dict_post_hook(loaded))
            vars(optimizer)[_GUARD] = MethodType(_reduce_with_a_warning, optimizer)
            if around is not None:
                self._wrap_exchanges(around)
        except BaseException:
            self.remove(others=guarded)
            for table in _TABLES:  # what a register method of the optimizer's own has put there before it failed
                for key in [key for key, hook in vars(optimizer)[table].items() if hook in (before, after, loaded)]:
                    del vars(optimizer)[table][key]
            raise

    def _wrap_exchanges(self, around: Around) -> None:
        """One wrapper for all attachments of the optimizer, each of which adds its context to it."""
        for name in _EXCHANGES:
            exchange = getattr(self._optimizer, name, None)
            if isinstance(exchange, _Exchange):
                exchange.contexts.append(around)
            elif callable(exchange):
                vars(self._optimizer)[name] = _Exchange(exchange, [around])

    def _unwrap_exchanges(self, around: Around) -> None:
        for name in _EXCHANGES:
            exchange = vars(self._optimizer).get(name)
            if isinstance(exchange, _Exchange) and around in exchange.contexts:
                exchange.contexts.remove(around)
                if not exchange.contexts:
                    del vars(self._optimizer)[name]

    @property
    def intact(self) -> bool:
        """Whether all hooks are still there."""
        tables = (handle.hooks_dict_ref() for handle in self._handles)
        return all(
            table is not None and handle.id in table for handle, table in zip(self._handles, tables, strict=True)
        )

    def make_last_before(self) -> None:
        """Run the hook before a step after everybody else's. Not to be called from one of these."""
        self._move(self._handles[0], last=True)

    def make_first_after(self) -> None:
        """Run the hook after a step before everybody else's. Not to be called from one of these."""
        self._move(self._handles[1], last=False)

    @property
    def is_last_before(self) -> bool:
        """Whether nobody else's hook before a step comes after this one's."""
        table = self._handles[0].hooks_dict_ref()
        return table is not None and next(reversed(table), None) == self._handles[0].id

    @staticmethod
    def _move(handle: RemovableHandle, *, last: bool) -> None:
        table = handle.hooks_dict_ref()
        if isinstance(table, OrderedDict) and handle.id in table:
            table.move_to_end(handle.id, last=last)

    def remove(self, *, others: bool) -> None:
        """Take out everything; the guard only where no ``others`` need it."""
        for handle in self._handles:
            handle.remove()
        if self._around is not None:
            self._unwrap_exchanges(self._around)
        if not others:
            vars(self._optimizer).pop(_GUARD, None)


def let_copy(optimizer: Optimizer) -> None:
    """Do not warn of copies of this optimizer: who copies it copies what is attached, and attaches it again."""
    vars(optimizer).pop(_GUARD, None)


class _Exchange:
    """A method of an optimizer's instance, called inside contexts."""

    def __init__(self, method: Callable[..., Any], contexts: list[Around]) -> None:
        functools.update_wrapper(self, method)
        self._method, self.contexts = method, contexts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for around in self.contexts:
                stack.enter_context(around())
            return self._method(*args, **kwargs)


def owners_of_hooks(optimizer: Optimizer) -> list[object]:
    """The objects whose methods run after each step, in that order."""
    hooks = vars(optimizer).get("_optimizer_step_post_hooks", {}).values()
    return [hook.__self__ for hook in hooks if isinstance(hook, MethodType)]


def _reduce_with_a_warning(optimizer: Optimizer, protocol: Any) -> Any:
    warnings.warn(
        f"this copy of {type(optimizer).__name__} (by deepcopy or pickle) trains without the penalty, since hooks are "
        "not copied; make a Regularizer of the copied model and attach it to the copied optimizer, "
        "or save optimizer.state_dict() instead",
        ObjectiveWarning,
        stacklevel=3,
    )
    return type(optimizer).__reduce_ex__(optimizer, protocol)


# --- steps inside steps ---


def may_nest(optimizer_class: type[Optimizer]) -> bool:
    """Whether ``step`` is defined more than once in a class's ancestry.

    Torch runs the hooks in each of them, so a ``step`` that calls ``super().step()`` runs them twice.
    """
    return sum("step" in vars(base) for base in optimizer_class.__mro__ if base is not Optimizer) > 1


def is_nested(optimizer: Optimizer) -> bool:
    """Whether the step whose hook this is called from is inside another step of the same optimizer."""
    return steps_under_way(optimizer) > 1
