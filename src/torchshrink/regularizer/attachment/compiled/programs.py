"""What is compiled: the optimizer's update of some tensors, and the penalty's action, in one pass.

A program takes every number in a tensor, so that another rate, strength, decay, momentum or step count is no other
program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from torchshrink.step_sizes.updates import Move
from torchshrink.support.private_torch import compiled

Kind = Literal["none", "l1", "elastic"]

Program = Callable[..., None]
"""From the numbers, a row for each slot, and each slot's tensors one after the other; these are changed in place."""

PROGRAMS = 128
"""As many are kept in a process."""

# The numbers of a slot, before those of the update.
SIGN, COUPLED, FIRST, SECOND, LIMIT, RHO, STEP, REST, BEGIN, SLOPE = range(10)
OWN = 10


@dataclass(frozen=True)
class Form:
    """What a program does to each of its tensors, apart from numbers.

    Attributes:
        move: the optimizer's update.
        kept: how many tensors the optimizer keeps for each.
        signed: whether the gradient has a factor: the optimizer maximises, or a loss scale is to be divided by.
        coupled: whether weights are added to the gradient: coupled decay, or L2 by its gradient.
        kind: whose prox acts: none, `L1`, or `ElasticNet` (and `L2`).
        latent: whether it acts by latent weights, with one more tensor for each; else after the update.
        limited: whether the prox is held to a limit.
        rest: whether what `MCP` or `SCAD` has beside its convex part acts before the update, through the gradient.
        dtype: theirs.
        device: theirs.
    """

    move: Move
    kept: int
    signed: bool
    coupled: bool
    kind: Kind
    latent: bool
    limited: bool
    rest: bool
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        """Tensors of a slot: x, g, what the optimizer keeps, and latent weights' offset."""
        return 2 + self.kept + self.latent


def _one(form: Form, tensors: Sequence[Tensor], n: Tensor) -> None:
    """One tensor's step, in place."""
    x, g, kept = tensors[0], tensors[1], tensors[2 : 2 + form.kept]
    moving = x
    if form.signed:
        g = n[SIGN] * g
    if form.coupled:
        g = g + n[COUPLED] * x
    if form.rest:  # −min((|x| − begin)₊·slope, λ)·sign(x)
        g = g - (_soft(x, n[BEGIN]) * n[SLOPE]).clamp(-n[REST], n[REST])
    if form.latent:
        u = tensors[-1]
        moving, g = x + u, g + n[RHO] * u
    moved, after, step = form.move(moving, g, kept, n[OWN:])
    if form.latent:
        shown = _prox(form, moved, n[STEP], n)
        u.copy_(moved - shown)
        moved = shown
    elif form.kind != "none":
        moved = _prox(form, moved, step, n)
    x.copy_(moved)
    for old, new in zip(kept, after, strict=True):
        old.copy_(new)


def _prox(form: Form, x: Tensor, step: Tensor, n: Tensor) -> Tensor:
    if form.kind == "l1":  # the threshold is as far as any coordinate is moved
        threshold = step * n[FIRST]
        return _soft(x, torch.minimum(threshold, n[LIMIT]) if form.limited else threshold)
    moved = _soft(x, step * n[FIRST]) / (1 + 2 * step * n[SECOND])
    return moved + _soft(x - moved, n[LIMIT]) if form.limited else moved


def _soft(z: Tensor, threshold: Tensor) -> Tensor:
    """`soft_threshold`, in operations that a CPU does in one instruction each; a NaN that goes in comes out."""
    return (z - threshold).relu() - (-z - threshold).relu()


@functools.lru_cache(maxsize=PROGRAMS)
def program_of(form: Form, places: tuple[Any, ...], threads: int) -> Program:
    """The program of a form for tensors of these shapes and strides, whatever the model; it is compiled when called.

    What the compiler raises, it raises before any tensor has been changed.
    """
    width = form.width

    def step_and_penalty(numbers: Tensor, *tensors: Tensor) -> None:
        for slot in range(len(tensors) // width):
            _one(form, tensors[slot * width : (slot + 1) * width], numbers[slot])

    return compiled(step_and_penalty)
