"""The updates of torch's SGD and of its Adam family, as functions of tensors and of a few numbers: what is compiled.

Each is x ← keep·x − s·(…), with the step size's own formula for s. Everything that is the same for all coordinates of a
parameter is worked out beforehand, in Python's precision: so a rate that changes, a step count or a momentum is another
number in the same program. The optimizers themselves are the specification, and the tests hold each update to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam

from torchshrink.step_sizes.group_settings import climbs, weight_decays
from torchshrink.step_sizes.registry import Group, State, step_size_of
from torchshrink.step_sizes.torch_optim import (
    adam_scale,
    nadam_momenta,
    nadam_weights,
    rectified_rate,
    sgd,
)

Move = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor], tuple[Tensor, Sequence[Tensor], Tensor]]
"""From x, g, what the optimizer keeps of the same shape, and the numbers, to the next x and kept tensors, and to s."""


@dataclass(frozen=True)
class Update:
    """How an optimizer moves a parameter in a step.

    Attributes:
        move: the next values, from those of now; to be compiled.
        keys: under which the optimizer's state has what is kept of the parameter's shape.
        numbers: of this step, from a group and from the state of a parameter as the step will leave its counts.
    """

    move: Move
    keys: tuple[str, ...]
    numbers: Callable[[Group, State], list[float]]


# --- SGD: g has the coupled decay in it ---


def _descend(x: Tensor, g: Tensor, kept: Sequence[Tensor], n: Tensor) -> tuple[Tensor, Sequence[Tensor], Tensor]:
    return x - n[0] * g, (), n[1]


def _descend_with_momentum(
    x: Tensor, g: Tensor, kept: Sequence[Tensor], n: Tensor
) -> tuple[Tensor, Sequence[Tensor], Tensor]:
    b = n[2] * kept[0] + n[3] * g
    return x - n[0] * (n[4] * g + n[5] * b), (b,), n[1]


def _numbers_of_sgd(group: Group, state: State) -> list[float]:
    lr, momentum = float(group["lr"]), float(group["momentum"])
    nesterov = (1.0, momentum) if group["nesterov"] else (0.0, 1.0)
    return [lr, float(sgd(group, state)), momentum, 1 - float(group["dampening"]), *nesterov]


# --- the Adam family: s = numerator/(√v + offset), and x ← keep·x − s·(a·m + b·g) ---


def _adapt(x: Tensor, g: Tensor, kept: Sequence[Tensor], n: Tensor) -> tuple[Tensor, Sequence[Tensor], Tensor]:
    """Without decoupled decay, and with b = 0: what Adam mostly is, in fewer operations."""
    m, v, top = _averages(g, kept, n)
    s = n[4] / ((*top, v)[0].sqrt() + n[5])
    return x - s * (n[6] * m), (m, v, *top), s


def _adapt_fully(x: Tensor, g: Tensor, kept: Sequence[Tensor], n: Tensor) -> tuple[Tensor, Sequence[Tensor], Tensor]:
    """With decoupled decay, with b, and with a factor of √v, which for RAdam is 0 at first."""
    m, v, top = _averages(g, kept, n)
    s = n[4] / (n[8] * (*top, v)[0].sqrt() + n[5])
    return n[0] * x - s * (n[6] * m + n[7] * g), (m, v, *top), s


def _averages(g: Tensor, kept: Sequence[Tensor], n: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    m = kept[0] + n[1] * (g - kept[0])
    v = n[2] * kept[1] + n[3] * g * g
    return m, v, tuple(torch.maximum(largest, v) for largest in kept[2:])  # AMSGrad's


def _adapt_to_largest(
    x: Tensor, g: Tensor, kept: Sequence[Tensor], n: Tensor
) -> tuple[Tensor, Sequence[Tensor], Tensor]:
    m = kept[0] + n[1] * (g - kept[0])
    u = torch.maximum(n[2] * kept[1], g.abs() + n[5])
    s = n[4] / u
    return x - s * (n[6] * m), (m, u), s


def _numbers_of_adam(group: Group, state: State) -> list[float]:
    scale = adam_scale(group, state)
    return _numbers(group, scale, (1 / (1 - float(group["betas"][0]) ** state["step"]), 0.0))


def _numbers_of_nadam(group: Group, state: State) -> list[float]:
    of_gradient, of_average = nadam_weights(group, state)
    return _numbers(group, adam_scale(group, state), (of_average, of_gradient))


def _numbers_of_radam(group: Group, state: State) -> list[float]:
    rho, rate = rectified_rate(group, state)
    of_average = 1 / (1 - group["betas"][0] ** state["step"])
    if rho <= 5:  # s = lr
        return _numbers(group, (rate, 1.0), (of_average, 0.0), share=0.0)
    root = (1 - group["betas"][1] ** state["step"]) ** 0.5
    return _numbers(group, (rate * root, group["eps"]), (of_average, 0.0))


def _numbers_of_adamax(group: Group, state: State) -> list[float]:
    of_average = 1 / (1 - group["betas"][0] ** state["step"])
    return _numbers(group, (group["lr"], group["eps"]), (of_average, 0.0))


def _numbers(group: Group, scale: tuple[Any, Any], weights: tuple[Any, Any], *, share: float = 1.0) -> list[float]:
    beta1, beta2 = (float(beta) for beta in group["betas"])
    numerator, offset = scale
    found = [1.0, 1 - beta1, beta2, 1 - beta2, numerator, offset, *weights, share]
    return [float(number) for number in found]


# --- which ---

_ADAPTIVE: Mapping[type[Optimizer], Callable[[Group, State], list[float]]] = {
    Adam: _numbers_of_adam,
    AdamW: _numbers_of_adam,
    NAdam: _numbers_of_nadam,
    RAdam: _numbers_of_radam,
}


def update_of(optimizer: Optimizer, group: Group) -> Update | None:
    """The update of an optimizer, under the settings of a group; None: there is none to compile here.

    Subclasses have none: whatever their ``step()`` does beside is not in it.
    """
    kind = type(optimizer)
    if kind is SGD:
        if group["momentum"] == 0:
            return Update(_descend, (), _numbers_of_sgd)
        return Update(_descend_with_momentum, ("momentum_buffer",), _numbers_of_sgd)
    if kind is Adamax:
        return Update(_adapt_to_largest, ("exp_avg", "exp_inf"), _numbers_of_adamax)
    if kind not in _ADAPTIVE:
        return None
    top = ("max_exp_avg_sq",) if group.get("amsgrad", False) else ()
    plain = kind in (Adam, AdamW) and all(decay.kind == "coupled" for decay in weight_decays(optimizer, group))
    return Update(_adapt if plain else _adapt_fully, ("exp_avg", "exp_avg_sq", *top), _ADAPTIVE[kind])


@dataclass(frozen=True)
class Advance:
    """What a step does to a parameter besides moving it, and the numbers that it moves it by.

    Attributes:
        numbers: for `Update.move`.
        counts: the state's numbers after the step: a count of steps, NAdam's product.
        sign: −1 where the optimizer maximises.
        coupled: the decay that is added to the gradient.
        weight: how many times s the displacement per unit of constant gradient is.
        limit: how far a prox may move a coordinate.
    """

    numbers: list[float]
    counts: Mapping[str, float]
    sign: float
    coupled: float
    weight: float
    limit: float


def advance(optimizer: Optimizer, group: Group, state: State, update: Update) -> Advance:
    """The next step of a parameter with this state: nothing is changed.

    Raises:
        StepSizeError: the settings leave no step size.
    """
    counts: dict[str, float] = {}
    if "step" in state:
        counts["step"] = float(state["step"]) + 1
    if "mu_product" in state:  # in the precision that the optimizer keeps it in
        counts["mu_product"] = float(state["mu_product"] * nadam_momenta(group, counts["step"])[0])
    numbers = update.numbers(group, counts)
    coupled = 0.0
    for decay in weight_decays(optimizer, group):
        if decay.kind == "coupled":
            coupled += decay.rate
        else:
            numbers[0] = 1 - float(group["lr"]) * decay.rate
    weight = 1.0
    if type(optimizer) is NAdam:
        of_gradient, of_average = nadam_weights(group, counts)
        weight = float(of_gradient + of_average * (1 - group["betas"][0] ** counts["step"]))
    limits = step_size_of(optimizer, group).limits(group, [counts])
    limit = float("inf") if limits is None else float(limits[0])
    sign = -1.0 if climbs(optimizer, group) else 1.0
    return Advance(numbers, counts, sign, coupled, weight, limit)
