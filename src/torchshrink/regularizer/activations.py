"""`Activations`: penalties on what modules compute, a term of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MethodType, TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils.hooks import RemovableHandle

from torchshrink.errors import AttachmentError, InputError, SelectionError
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import working
from torchshrink.support.precision import without_autocast
from torchshrink.support.private_torch import hooks_before_forward
from torchshrink.support.text import suggestion


@final
class Activations:
    """The mean over examples of Ω(activation), summed over modules: for the loss, as weights' penalties are.

    A(w) = Σ over modules (1/B)·Σ over the B examples of Ω(what the module gives for that example), in units of the
    loss. It belongs to F = L + A + Ω(w), and so into the mean loss of a `Regularizer`'s closure, too. While its hooks
    are in the model, ``ts.certify`` and ``ts.polish`` count it by themselves, unless the loss given to them does.

    Hooks record the outputs of the last forward pass; `value` is a tensor on their graph. A module that is used twice
    in a pass counts twice. Keras's ``activity_regularizer=L1(s)`` is ``ts.L1(s)`` here in Keras 2, and in Keras 3,
    which sums over the batch, ``ts.L1(s * batch_size)``.

    Args:
        model: called as a whole in each step, since that is when a new pass begins.
        rules: from patterns to penalties: names of modules, with wildcards, or module classes. A module that several
            match has all their penalties.
        batch_dim: the dimension of the outputs that numbers the examples.

    Raises:
        SelectionError: a pattern matches no module.
        InputError: a penalty is a constraint, or remembers weights.

    Example:
        >>> import torch, torchshrink as ts
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> acts = ts.Activations(model, {"1": ts.L1(1e-3)})
        >>> loss = model(torch.ones(2, 3)).square().mean() + acts.value()
        >>> acts.remove()

    Source:
        Olshausen and Field (1996), Emergence of simple-cell receptive field properties by learning a sparse code.
    """

    def __init__(self, model: nn.Module, rules: Mapping[str | type[nn.Module], Penalty], *, batch_dim: int = 0) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model: a {type(model).__name__} given, an nn.Module expected")
        chosen = _chosen(model, rules)
        self._batch_dim = batch_dim
        self._recorded: dict[str, list[Tensor]] = {}
        self._asked = False
        self._names = [name for name, _, _ in chosen]
        self._handles: list[RemovableHandle] = [model.register_forward_pre_hook(self._begin)]
        for name, module, penalty in chosen:
            self._handles.append(module.register_forward_hook(_Recorder(self._recorded, name, penalty, batch_dim)))

    def __repr__(self) -> str:
        return f"Activations({', '.join(dict.fromkeys(self._names))})"

    def value(self) -> Tensor:
        """Σ over modules of the mean over examples of Ω(activation) in the last forward pass, a differentiable scalar.

        Raises:
            AttachmentError: there has been no forward pass of the model since the hooks came, or a module had no part
                in it; or the hooks are gone.
        """
        if not self._handles:
            raise AttachmentError("remove() has taken the hooks out of the model: make a new Activations")
        missing = [name for name in dict.fromkeys(self._names) if name not in self._recorded]
        if missing:
            raise AttachmentError(
                f"{', '.join(missing)}: no activation recorded; call the model, as a whole, before value(); make "
                "Activations before torch.compile sees the model for the first time"
            )
        self._asked = True
        values = [value for values in self._recorded.values() for value in values]
        total = values[0]
        for value in values[1:]:
            total = total + value.to(total.device)
        return total

    @property
    def left_out(self) -> bool:
        """Whether there has been a forward pass since which nobody has asked for `value`."""
        return bool(self._recorded) and not self._asked

    def remove(self) -> None:
        """Take the hooks out of the model. Does nothing where they are gone."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._recorded.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._recorded.clear()
        self._asked = False


def live_activations(model: nn.Module) -> list[Activations]:
    """Those whose hooks are in a model now."""
    hooks = (hook for module in model.modules() for hook in hooks_before_forward(module))
    found = [hook.__self__ for hook in hooks if isinstance(hook, MethodType)]
    return [each for each in found if isinstance(each, Activations)]


def of_activations(model: nn.Module) -> list[str]:
    """What a closure that has just run left out of the mean loss, or had in it, in words."""
    return [
        f"{each} is on the model, and the closure left its value() out of the mean loss: F here is without it"
        if each.left_out
        else f"the mean loss has the value of {each} in it"
        for each in live_activations(model)
    ]


class _Recorder:
    """A hook after a module's forward."""

    def __init__(self, recorded: dict[str, list[Tensor]], name: str, penalty: Penalty, batch_dim: int) -> None:
        self._recorded, self._name, self._penalty, self._batch_dim = recorded, name, penalty, batch_dim

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            what = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"{self._name} ({type(module).__name__}) gives a {what}, a tensor of real numbers expected: name a "
                "module inside it that gives one"
            )
        if not -output.ndim <= self._batch_dim < output.ndim:
            raise InputError(
                f"{self._name}: an output of shape {tuple(output.shape)} has no dimension {self._batch_dim} that "
                "numbers examples; give batch_dim"
            )
        with without_autocast():
            self._recorded.setdefault(self._name, []).append(self._mean(working(output)))

    def _mean(self, output: Tensor) -> Tensor:
        examples = output.shape[self._batch_dim]
        if self._penalty.elementwise:
            return self._penalty.value(output) / max(examples, 1)
        return vmap(self._penalty.value, in_dims=self._batch_dim)(output).sum() / max(examples, 1)


def _chosen(model: nn.Module, rules: Mapping[str | type[nn.Module], Penalty]) -> list[tuple[str, nn.Module, Penalty]]:
    if not isinstance(rules, Mapping) or not rules:
        raise InputError(f"rules: {rules!r} given, a mapping from module names or classes to penalties expected")
    modules = [(name, module) for name, module in model.named_modules() if name]
    chosen = []
    for pattern, penalty in rules.items():
        _check(pattern, penalty)
        found = [
            (name, module)
            for name, module in modules
            if (fnmatchcase(name, pattern) if isinstance(pattern, str) else isinstance(module, pattern))
        ]
        if not found:
            shown = repr(pattern) if isinstance(pattern, str) else pattern.__name__
            near = suggestion(pattern, [name for name, _ in modules]) if isinstance(pattern, str) else ""
            raise SelectionError(f"{shown} matches no module of this {type(model).__name__}{near}")
        chosen += [(name, module, penalty) for name, module in found]
    return chosen


def _check(pattern: object, penalty: object) -> None:
    if not isinstance(pattern, str) and not (isinstance(pattern, type) and issubclass(pattern, nn.Module)):
        raise InputError(f"{pattern!r}: a module's name, with wildcards, or a module class expected")
    if not isinstance(penalty, Penalty):
        raise InputError(f"{pattern!r}: a {type(penalty).__name__} given, a penalty such as ts.L1(1e-3) expected")
    if penalty.constraint:
        raise InputError(f"{penalty} is a constraint, which adding it to the loss cannot impose on activations")
    if penalty.bind(torch.zeros(1)) is not penalty:
        raise InputError(f"{penalty} pulls towards the weights at binding, and activations have none")
