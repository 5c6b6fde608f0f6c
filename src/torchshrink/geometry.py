"""The effective step size of an optimizer, per coordinate: what a prox after its step must use.

Let an optimizer stand where nothing moves any more: the gradient is constant, and every average that it keeps has
reached its limit. Then a step displaces coordinate i by −s_i·g_i, and a prox with step sizes s undoes exactly this
displacement if and only if −g is in ∂Ω(w). With any other step sizes the fixed point is that of other strengths:
soft-thresholding by lr·λ after SGD(momentum=0.9) solves the problem for λ/10, and after Adam it solves no lasso.

One short function per optimizer class gives s. Classes are matched exactly: a subclass may step differently.
`register_geometry` adds a third party's optimizer in the same way as the ones below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from torchshrink.errors import GeometryError

Group = Mapping[str, Any]
State = Mapping[str, Any]
StepSize = Callable[[Group, State], float | Tensor]


@dataclass(frozen=True)
class Geometry:
    """How an optimizer class steps.

    Attributes:
        step_size: from a parameter group and a parameter's state, both as they are after the step, to s: a number, or
            a tensor shaped like the parameter.
        coordinatewise: whether s differs between the coordinates of a parameter.
    """

    step_size: StepSize
    coordinatewise: bool


_GEOMETRIES: dict[type[Optimizer], Geometry] = {}


def register_geometry(*optimizer_classes: type[Optimizer], coordinatewise: bool) -> Callable[[StepSize], StepSize]:
    """Say, as a decorator, what the effective step size of these optimizer classes is.

    Args:
        optimizer_classes: matched exactly, subclasses not included.
        coordinatewise: whether the step size differs between the coordinates of a parameter.

    Example:
        >>> class PlainDescent(torch.optim.Optimizer):
        ...     pass
        >>> @register_geometry(PlainDescent, coordinatewise=False)
        ... def plain(group, state):
        ...     return group["lr"]
    """

    def register(step_size: StepSize) -> StepSize:
        for optimizer_class in optimizer_classes:
            _GEOMETRIES[optimizer_class] = Geometry(step_size, coordinatewise)
        return step_size

    return register


def geometry_of(optimizer: Optimizer) -> Geometry:
    """The geometry of an optimizer.

    Raises:
        GeometryError: none is known for this class.
    """
    geometry = _GEOMETRIES.get(type(optimizer))
    if geometry is None:
        raise GeometryError(
            f"{type(optimizer).__name__}: its effective step size per coordinate is not known, so a prox after its "
            "step would solve for another strength. Use method='gradient', or register the step size with "
            "torchshrink.geometry.register_geometry."
        )
    return geometry


@register_geometry(SGD, coordinatewise=False)
def sgd(group: Group, state: State) -> float | Tensor:
    """lr·(1−τ)/(1−β): a buffer b ← βb + (1−τ)g has the limit g·(1−τ)/(1−β).

    Nesterov's step g + βb has the same limit, since it requires τ = 0. Coupled weight decay is part of g.
    """
    lr: float | Tensor = group["lr"]
    momentum: float = group["momentum"]
    dampening: float = group["dampening"]
    return lr if momentum == 0 else lr * ((1 - dampening) / (1 - momentum))


@register_geometry(Adam, AdamW, coordinatewise=True)
def adam(group: Group, state: State) -> Tensor:
    """lr/(√v̂ + ε), with v̂ corrected for its start from 0, and AMSGrad's running maximum where that is on.

    The corrected first moment of a constant gradient is that gradient, so it drops out.
    """
    second: Tensor = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** step_count(state)
    root = second.sqrt()
    # (√(v/c) + ε)/lr in two passes over memory, then its reciprocal.
    return root.div_(group["lr"] * correction**0.5).add_(group["eps"] / group["lr"]).reciprocal_()


def step_count(state: State) -> float | Tensor:
    """The number of steps taken. A tensor that lives on an accelerator stays there: reading it would wait for it."""
    step = state["step"]
    if isinstance(step, Tensor):
        return float(step) if step.device.type == "cpu" and not torch.compiler.is_compiling() else step
    return float(step)
