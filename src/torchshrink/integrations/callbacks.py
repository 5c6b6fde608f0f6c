"""What the callbacks of the frameworks share: what they penalise, and what they say of clipped gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from torchshrink.errors import AttachmentError, InputError
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import Selection
from torchshrink.regularizer.terms import Scale

Penalties = Penalty | Mapping[str, Penalty | None]
On = str | Sequence[str] | Selection


def bound(model: nn.Module, penalty: Penalties, on: On, scale: Scale | None) -> Regularizer:
    """A regularizer of ``model``.

    Args:
        model: whose parameters are penalised.
        penalty: one penalty, or rules pattern → penalty or None, as `Regularizer` takes them.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, or several, for one penalty.
        scale: as `Regularizer.scale`; None: 1.
    """
    words = {each.value: each for each in Selection}
    if isinstance(on, Selection) or (isinstance(on, str) and on in words):
        made = Regularizer(model, penalty, on if isinstance(on, Selection) else words[on])
    elif not isinstance(penalty, Penalty):
        raise InputError(f"on={on!r} with a mapping of rules, which says itself what it is for: leave out one of them")
    else:
        made = Regularizer(model, dict.fromkeys([on] if isinstance(on, str) else list(on), penalty))
    if scale is not None:
        made.scale = scale
    return made


def attached(regularizer: Regularizer, optimizers: Sequence[Optimizer], method: Method) -> Regularizer:
    """Attach to those of the optimizers that hold penalised parameters.

    Raises:
        AttachmentError: none of them does.
    """
    penalised = {id(term.parameter) for term in regularizer.terms}
    some = [each for each in optimizers if penalised & {id(p) for g in each.param_groups for p in g["params"]}]
    if not some:
        raise AttachmentError("no optimizer of this training holds a penalised parameter: look at `penalty` and `on`")
    return regularizer.attach(some if len(some) > 1 else some[0], method)


def clipping_at_start(limit: float, setting: str) -> str:
    """What clipping does, where it is on."""
    return (
        f"gradients are clipped at {limit:g} ({setting}): in a step in which that happens, the loss is scaled down and "
        "the penalty is not, so that another, larger λ acts; at the end this will say whether it did"
    )


def clipping_at_end(norm: float, limit: float, setting: str) -> str:
    """That clipping was at work when training ended."""
    return (
        f"the training ended with gradients clipped: their norm was {norm:.3g}, the limit {limit:g}. It has solved for "
        f"a λ about {norm / limit:.3g} times as strong as the one given; set {setting} to 0 or higher"
    )


def zeros_lost(by: str) -> str:
    """That averaged weights are not sparse."""
    return (
        f"{by} puts averages of the weights in their place when training ends: a mean is exactly zero only where every "
        "weight that went into it was, so most zeros are lost"
    )
