"""What the callbacks of the frameworks share: their settings, and how they tell their users something."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink.errors import AttachmentError, ObjectiveWarning
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import On, Pattern, Selection
from torchshrink.regularizer.terms import Scale

Penalties = Penalty | Mapping[Pattern, Penalty | None]

_NOT_THE_USERS = ("torchshrink", "torch", "lightning", "pytorch_lightning", "transformers", "accelerate", "skorch")
_NOR_THESE = ("sklearn", "joblib", "contextlib", "functools")


@final
@dataclass(frozen=True, eq=False)
class Settings:
    """What a callback is given: see there.

    Attributes:
        penalty: one penalty, or rules.
        on: as `Regularizer` takes it.
        method: as `Regularizer.attach` takes it.
        scale: as `Regularizer.scale`; None: 1.
    """

    penalty: Penalties
    on: On
    method: Method
    scale: Scale | None

    @property
    def key(self) -> str:
        """Which callback's a saved state is: what it penalises, and by which kinds of penalties, whatever the strength.

        >>> from torchshrink import L1
        >>> Settings(L1(0.1), ["encoder.*"], "auto", None).key
        'L1 on encoder.*'
        """
        given = [*self.on] if isinstance(self.on, Sequence) and not isinstance(self.on, str) else [self.on]
        on = ", ".join(each.value if isinstance(each, Selection) else _written(each) for each in given)
        if isinstance(self.penalty, Mapping):
            rules = ", ".join(f"{_written(pattern)}: {_kind(each)}" for pattern, each in self.penalty.items())
            return f"{{{rules}}} on {on}"
        return f"{_kind(self.penalty)} on {on}"

    def __str__(self) -> str:
        defaults = {"on": "weights", "method": "auto", "scale": None}
        more = {name: value for name, value in vars(self).items() if name in defaults and value != defaults[name]}
        given = str(self.penalty)
        if isinstance(self.penalty, Mapping):
            given = f"{{{', '.join(f'{_written(pattern)!r}: {each}' for pattern, each in self.penalty.items())}}}"
        return f"RegularizerCallback({', '.join([given, *(f'{name}={value!r}' for name, value in more.items())])})"

    def bound(self, model: nn.Module) -> Regularizer:
        """A regularizer of ``model``.

        Raises:
            InputError: what `Regularizer` raises.
        """
        with passing_on():
            made = Regularizer(model, self.penalty, self.on)
        self.set_scale(made)
        return made

    def set_scale(self, regularizer: Regularizer) -> None:
        """That of now, whatever a saved one was."""
        regularizer.scale = 1.0 if self.scale is None else self.scale


def attached(regularizer: Regularizer, optimizers: Sequence[Any], method: Method) -> Regularizer:
    """Attach to those of the optimizers that hold penalised parameters.

    Raises:
        AttachmentError: none of them does, or a penalised parameter is in none of them.
    """
    penalised = {id(term.parameter) for term in regularizer.terms}
    some = [each for each in optimizers if penalised & {id(p) for p in held_by(each)}]
    if not some:
        raise AttachmentError("no optimizer of this training holds a penalised parameter: look at `penalty` and `on`")
    try:
        with passing_on():
            return regularizer.attach(some if len(some) > 1 else some[0], method)
    except BaseException:  # a warning among them, where warnings are errors
        regularizer.detach()
        raise


def held_by(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def zeros_lost(by: str) -> str:
    """That averaged weights are not sparse."""
    return (
        f"{by} puts averages of the weights in their place when training ends: a mean is exactly zero only where every "
        "weight that went into it was, so zeros are lost; callback.hold_zeros(model) puts those of the last epoch back"
    )


def tell(message: str, category: type[Warning] = ObjectiveWarning) -> None:
    """Warn, at the line of the user's that called the framework."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


@contextlib.contextmanager
def passing_on() -> Iterator[None]:
    """What is warned of inside is told as by `tell`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        tell(str(each.message), each.category)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in (*_NOT_THE_USERS, *_NOR_THESE)


def _written(pattern: Any) -> str:
    return pattern if isinstance(pattern, str) else f"type:{pattern.__name__}"


def _kind(penalty: Penalty | None) -> str:
    return "None" if penalty is None else type(penalty).__name__
