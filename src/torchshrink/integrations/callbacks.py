"""What the callbacks of the frameworks share: what they penalise, and what they say of clipped gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import Selection
from torchshrink.regularizer.terms import Scale

Penalties = Penalty | Mapping[str, Penalty | None]
On = str | Sequence[str]

_ALMOST = 0.999  # gradients that have been clipped are at the limit but for rounding


def bound(model: nn.Module, penalty: Penalties, on: On | Selection, scale: Scale | None) -> Regularizer:
    """A regularizer of ``model``.

    Args:
        model: whose parameters are penalised.
        penalty: one penalty, or rules pattern → penalty or None, as `Regularizer` takes them.
        on: ``"weights"``, ``"all"`` (or ``ts.WEIGHTS``, ``ts.ALL``); or, for one penalty, a pattern of parameter
            names, or several.
        scale: as `Regularizer.scale`; None: 1.

    Raises:
        InputError: patterns in ``on`` together with rules, or what `Regularizer` raises.
    """
    words = {each.value: each for each in Selection}
    rules: Any = penalty
    if isinstance(on, Selection):
        words, on = {"given": on}, "given"
    if isinstance(on, str) and on in words:
        made = Regularizer(model, rules, words[on])
    elif not isinstance(penalty, Penalty):
        raise InputError(
            f"on={on!r} with rules for penalty: the rules say themselves what they are for; patterns in `on` are for "
            "one penalty"
        )
    else:
        made = Regularizer(model, dict.fromkeys([on] if isinstance(on, str) else list(on), penalty))
    if scale is not None:
        made.scale = scale
    return made


def attached(regularizer: Regularizer, optimizers: Sequence[Any], method: Method) -> Regularizer:
    """Attach to those of the optimizers that hold penalised parameters.

    Raises:
        AttachmentError: none of them does, or a penalised parameter is in none of them.
    """
    penalised = {id(term.parameter) for term in regularizer.terms}
    some = [each for each in optimizers if penalised & {id(p) for p in held_by(each)}]
    if not some:
        raise AttachmentError("no optimizer of this training holds a penalised parameter: look at `penalty` and `on`")
    return regularizer.attach(some if len(some) > 1 else some[0], method)


def taken_out(regularizer: Regularizer) -> dict[str, Any]:
    """Detach, and return what the regularizer has to go on with: latent weights are forgotten once it is detached."""
    state = regularizer.state_dict()
    regularizer.detach()
    return state


def held_by(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def zeros_lost(by: str) -> str:
    """That averaged weights are not sparse."""
    return (
        f"{by} puts averages of the weights in their place when training ends: a mean is exactly zero only where every "
        "weight that went into it was, so zeros are lost; callback.hold_zeros(model) puts those of the last epoch back"
    )


@final
class Clipping:
    """Watches whether gradients are clipped: the penalty is outside the clip, so that another λ acts in these steps.

    Args:
        limit: where they are clipped.
        setting: what the user has set to have them clipped, such as ``TrainingArguments(max_grad_norm=)``.
        order: of the norm that is limited; ∞ for clipping by value.

    Warns:
        ObjectiveWarning: at once, that they are clipped.
    """

    def __init__(self, limit: float, setting: str, order: float = 2.0) -> None:
        self._limit, self._setting, self._order = limit, setting, order
        self._active: Tensor | float = 0.0
        self._steps = 0
        self._last: dict[Hashable, Tensor] = {}
        warnings.warn(
            f"gradients are clipped at {limit:g} ({setting}): in a step in which that happens, the loss is scaled "
            "down and the penalty is not, so that another, larger λ acts; when training ends this will say whether "
            "it still did",
            ObjectiveWarning,
            stacklevel=4,
        )

    @torch.no_grad()
    def look(self, parameters: Iterable[Tensor], key: Hashable = None) -> None:
        """Before or after they are clipped, which makes no difference here. Nothing is waited for.

        Args:
            parameters: whose gradients are clipped together.
            key: of which optimizer, where several step in turn.
        """
        norms = [torch.linalg.vector_norm(p.grad, self._order).float() for p in parameters if p.grad is not None]
        if norms:
            there = torch.stack([norm.to(norms[0].device) for norm in norms])
            norm = torch.linalg.vector_norm(there, math.inf if self._order == math.inf else 2)
            self._active = self._active + (norm >= _ALMOST * self._limit)
            self._steps += 1
            self._last[key] = norm

    def end(self, norm: float | None = None) -> None:
        """Training has ended.

        Args:
            norm: the last one known from before the gradients were clipped.

        Warns:
            ObjectiveWarning: they were clipped in the last step, too.
        """
        last = max((float(each) for each in self._last.values()), default=0.0)
        if last < _ALMOST * self._limit:
            return
        size = max(last, norm or 0.0)
        times = f", by a factor of {size / self._limit:.3g}" if size > 1.01 * self._limit else ""
        warnings.warn(
            f"gradients were clipped at {self._limit:g} in {int(self._active)} of {self._steps} steps, and still when "
            f"training ended{times}: what was solved for is a λ larger than the one given, by that factor; switch "
            f"{self._setting} off, or raise it until the last steps are free of it",
            ObjectiveWarning,
            stacklevel=4,
        )
