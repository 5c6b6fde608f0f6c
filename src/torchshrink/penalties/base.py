"""The contract that every penalty keeps, in prose and mathematics.

A penalty is a function Ω of a tensor ``w`` with its strength λ inside: what is added to the mean loss L to give
the objective F = L + Ω. It is frozen, compared by value, and knows nothing of models or optimizers.

Every method takes tensors of any shape (empty and 0-d too), dtype and device, and has no control flow that depends
on data, so that it also works under ``torch.func.vmap``. Half-precision tensors are computed in float32: ``value``
and ``critical_strength`` are returned in float32, the others rounded once, at the end, to the dtype that came in.

What the methods owe each other (``torchshrink.testing.check_penalty`` holds an implementation to it):

- ``value`` is at least 0 and differentiable: autograd's gradient is ``grad`` wherever Ω is differentiable. A penalty
  that is not smooth has its least value at 0 (a constraint may exclude that), and there, at its kink, the gradient is
  0, never NaN.
- ``u = prox(w, s)`` is the global minimiser of Ω(z) + Σ (z−w)²/(2s), so (w − u)/s is in ∂Ω(u):
  ``distance(u, (u − w)/s) = 0``.
- ``distance(w, g)`` is 0 exactly where −g is in ∂Ω(w): of what is not convex, where it is written in its docstring.
- ``critical_strength(g)`` is the least strength at which ``distance(0, g) = 0``, coordinates that are exempt aside.
- ``with_strength(t)`` is the same penalty at another strength, whatever its other settings; a strength may be a
  tensor of one value, which is how one stacked program trains many strengths.
"""

from __future__ import annotations

import abc
import math
import numbers
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.grouping import Groups
from torchshrink.support.private_torch import is_batched

Strength = float | Tensor
ProxSteps = Literal["none", "scalar", "coordinate"]
Kinks = Literal["coordinates", "groups", "unknown"]


class Penalty(abc.ABC):
    """A function Ω of a tensor, times its strength. Abstract: every concrete penalty is final.

    Class attributes that an implementation sets:

    - ``smooth``: whether Ω has a gradient everywhere. ``auto`` then acts through the gradient, else through the prox.
    - ``constraint``: whether Ω is 0 in a set and infinite outside. Then only the prox, a projection, can act.
    - ``prox_steps``: for which steps ``prox`` is exact: ``"coordinate"`` (one per coordinate, and so a number too),
      ``"scalar"`` (one number only) or ``"none"`` (there is no closed prox).
    - ``elementwise``: whether Ω is a sum over coordinates, so that a shard of a tensor needs nothing of the others.
      False is never wrong. With groups, ``group_dims`` says along what a tensor may be cut.
    - ``convex``: whether Ω is convex in all of ``w``. False is never wrong, and then `convex_part` matters: the
      prox of a penalty that is not convex is expansive for long steps, and a training with it need not come to rest.
    - ``norm``: whether Ω, convex, is its strength times a norm of the coordinates that are not exempt. Then
      ``critical_strength`` is the dual norm, and with it a linear model has a duality gap. False is never wrong.
    - ``kinks``: where a penalty that is not smooth has its kinks: ``"coordinates"``, nowhere but where a coordinate is
      0; ``"groups"``, nowhere but where a whole group is. ``"unknown"`` is never wrong. Polishing can do more where it
      knows.
    """

    smooth: ClassVar[bool]
    prox_steps: ClassVar[ProxSteps]
    constraint: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    norm: ClassVar[bool] = False
    kinks: ClassVar[Kinks] = "unknown"

    if TYPE_CHECKING:  # a dataclass field may stand in for it, which `abstractmethod` would not accept

        @property
        def strength(self) -> Strength:
            """The strength λ ≥ 0; for a penalty with two, their sum."""

    @property
    def group_dims(self) -> tuple[int, ...] | None:
        """The dimensions along which no cut divides a group, or makes it another one; None where there are no groups.

        Those that number the groups, where each index is a group of its own; ``()`` is never wrong. Where they say all,
        `groups` follows from them.
        """
        return None

    def groups(self, shape: torch.Size) -> Groups | None:
        """Which coordinates of a tensor of this shape belong together; None where each is on its own.

        Raises:
            InputError: such a tensor cannot be grouped so.
        """
        return None if self.group_dims is None else Groups(shape, self.group_dims, {})

    def exempt(self, w: Tensor) -> Tensor | None:
        """Where Ω does not depend on ``w`` at any strength, shaped like it; None: nowhere. None is never wrong.

        Such coordinates count as unpenalised: `critical_strength` leaves them out, and a path fits them beforehand.
        """
        return None

    @property
    def convex_part(self) -> Penalty | None:
        """A convex penalty C, its prox for at least the same steps, such that Ω − C has a continuous gradient.

        Itself where it is convex; `L1` for `MCP` and `SCAD`; None where none is known. A training adds the gradient of
        the rest to the loss's, and takes the prox of C: the stationary points are the same, and no step is too long.
        """
        return self if self.convex else None

    @property
    def bounds_support(self) -> bool:
        """Whether it says which coordinates may be nonzero, and nothing of their values: they may change their sign."""
        return self.constraint and not self.convex and self.kinks == "coordinates"

    @property
    def scheduled(self) -> bool:
        """Whether a setting, other than the strength, depends on the count of optimizer steps; then `at_step` acts."""
        return False

    def at_step(self, steps: int) -> Penalty:
        """The penalty in force after so many steps of the optimizer: itself, unless a setting is a schedule."""
        return self

    @property
    def as_elastic_net(self) -> tuple[Strength, Strength] | None:
        """(l1, l2) where Ω(w) = Σ l1·|w| + l2·w², whose duality gap is known; None elsewhere.

        Numbers, or tensors that broadcast to ``w`` where coordinates have their own.
        """
        return None

    @abc.abstractmethod
    def value(self, w: Tensor) -> Tensor:
        """Ω(w), a scalar, differentiable."""

    @abc.abstractmethod
    def grad(self, w: Tensor) -> Tensor:
        """A subgradient of Ω at ``w``, shaped like it; 0 where w = 0."""

    @abc.abstractmethod
    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """argmin_z Ω(z) + Σ (z−w)²/(2·step), shaped like ``w``; ``step`` ≥ 0, a number or one per coordinate."""

    @abc.abstractmethod
    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Distance of −``grad`` to ∂Ω(w): per coordinate, shaped like ``w``, or per group."""

    @abc.abstractmethod
    def critical_strength(self, grad: Tensor) -> Tensor:
        """The least strength at which w = 0 is stationary, given the loss gradient there; infinite if none is."""

    @abc.abstractmethod
    def with_strength(self, strength: Strength) -> Self:
        """The same penalty at another strength. With two strengths, their proportion is kept."""

    def bind(self, w: Tensor) -> Penalty:
        """What acts on this tensor from now on: the penalty itself, unless it remembers or has to fit something of it.

        Raises:
            InputError: it does not fit: weights, labels or a size of groups for other shapes.
        """
        return self

    def state(self) -> Mapping[str, Tensor]:
        """What `bind` remembered: tensors to save, and to be overwritten in place by what was saved."""
        return {}

    def with_state(self, change: Callable[[Tensor], Tensor]) -> Penalty:
        """The same penalty with ``change`` applied to each tensor with one number for each coordinate that it has.

        Those that `bind` remembered, and weights of coordinates, which `bind` has brought to the shape of ``w``.
        """
        return self

    def __add__(self, other: Penalty) -> Penalty:
        """The sum as one penalty, where its prox is known in closed form; TypeError, with the reason, where not."""
        if not isinstance(other, Penalty):
            return NotImplemented
        joint = _SUMS.get((type(self), type(other)))
        if joint is not None:
            return joint(self, other)
        swapped = _SUMS.get((type(other), type(self)))
        if swapped is not None:
            return swapped(other, self)
        raise TypeError(
            f"{self} + {other}: no penalty here has this sum's prox. "
            "Bind each in a Regularizer of its own, the smooth one attached with method 'gradient'."
        )


_SUMS: dict[tuple[type[Penalty], type[Penalty]], Callable[[Any, Any], Penalty]] = {}
_A = TypeVar("_A", bound=Penalty)
_B = TypeVar("_B", bound=Penalty)


def register_sum(first: type[_A], second: type[_B], joint: Callable[[_A, _B], Penalty]) -> None:
    """Say what ``first + second`` is, in either order."""
    _SUMS[first, second] = joint


def checked_strength(value: Strength, name: str = "strength") -> Strength:
    """``value`` as a strength: a finite number ≥ 0, or a tensor of one value (whose value is not looked at)."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"{name}: a tensor of shape {tuple(value.shape)} given, one value expected")
        return value.reshape(())
    if isinstance(value, bool) or not isinstance(value, int | float | numbers.Real):
        raise InputError(f"{name}={value!r}: expected a number ≥ 0, or a tensor of one value")
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name}={number}: expected a finite number ≥ 0")
    return number


def working(tensor: Tensor) -> Tensor:
    """``tensor`` in the dtype to compute in: float32 for half precision, its own otherwise."""
    if tensor.dtype in (torch.bfloat16, torch.float16):
        return tensor.float()
    return tensor


def show(strength: Strength) -> str:
    """A strength as people write it."""
    if isinstance(strength, Tensor):
        return "…" if strength.is_meta or is_batched(strength) else f"{strength.item():g}"
    return f"{strength:g}"
