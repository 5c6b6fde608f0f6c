"""GroupMCP and GroupSCAD: MCP and SCAD of the groups' norms, which zero whole groups and leave large ones alone.

Everything follows from the penalty of one number, taken at ‖w_g‖ with the strength λ√p_g: the value is its value, the
gradient points along w_g, and the prox for one step shortens z_g to its prox of ‖z_g‖. With one step per coordinate the
problem has no such form, so the prox is for one step only. The convex part, `GroupLasso`, has it for both.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.penalties.base import Kinks, Penalty, ProxSteps, Strength, checked_strength, show, working
from torchshrink.penalties.groups import GroupLasso, checked_dims
from torchshrink.penalties.nonconvex import MCP, SCAD
from torchshrink.penalties.proximal import group_norm, group_size, per_group


class ConcaveGroups(Penalty):
    """A concave penalty of each group's norm. Abstract: the two below say which.

    - ``strength``, ``gamma``, ``dim``: as in `MCP`, `SCAD` and `GroupLasso`; the dataclass has them.
    """

    strength: Strength
    gamma: float
    dim: int | tuple[int, ...]

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "scalar"
    kinks: ClassVar[Kinks] = "groups"

    @abc.abstractmethod
    def of_norm(self, size: int) -> MCP | SCAD:
        """The penalty of one number that acts on the norm of a group of ``size`` coordinates."""

    @property
    def group_dims(self) -> tuple[int, ...]:
        """The dimensions that number the groups."""
        return checked_dims(self.dim)

    @property
    def convex_part(self) -> GroupLasso:
        """λ·Σ √p_g·‖w_g‖: the rest has a continuous gradient, 0 in a zero group."""
        return GroupLasso(self.strength, self.dim)

    def value(self, w: Tensor) -> Tensor:
        """The sum over the groups of the penalty of their norms."""
        x = working(w)
        return self._scalar(x).value(group_norm(x, self.group_dims))

    def grad(self, w: Tensor) -> Tensor:
        """The slope at ‖w_g‖, along w_g; 0 in a zero group."""
        x = working(w)
        norm = group_norm(x, self.group_dims)
        return (self._scalar(x).grad(norm) * (x / torch.where(norm == 0, 1.0, norm))).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """Each group shortened to the prox of its norm; for one step."""
        x = working(w)
        norm = group_norm(x, self.group_dims)
        left = self._scalar(x).prox(norm, step)
        # What is not shortened keeps its bits; a NaN stays one.
        factor = torch.where(left == norm, 1.0, left / torch.where(norm == 0, 1.0, norm))
        return (x * factor).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per group: ‖g + Ω'(‖w‖)·w/‖w‖‖, or (‖g‖ − λ√p_g)₊ where the group is zero."""
        x, g, dims = working(w), working(grad), self.group_dims
        norm = group_norm(x, dims)
        held = self.strength * math.sqrt(group_size(x.shape, dims))
        at_zero = (group_norm(g, dims) - held).clamp(min=0)
        return per_group(torch.where(norm == 0, at_zero, group_norm(g + self.grad(x), dims)), dims).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """max_g ‖g_g‖/√p_g."""
        return self.convex_part.critical_strength(grad)

    def _scalar(self, x: Tensor) -> MCP | SCAD:
        return self.of_norm(group_size(x.shape, self.group_dims))


@final
@dataclass(frozen=True)
class GroupMCP(ConcaveGroups):
    """`MCP` of each group's norm, with λ√p_g: group lasso whose pull on large groups fades to nothing. Not convex.

    Σ_g λ_g‖w_g‖ − ‖w_g‖²/(2γ) where ‖w_g‖ ≤ γλ_g, else γλ_g²/2, with λ_g = λ√p_g. Prox with one step s < γ: 0 if
    ‖z_g‖ ≤ sλ_g; z_g·(1 − sλ_g/‖z_g‖)/(1 − s/γ) if ‖z_g‖ ≤ γλ_g; else z_g. With s ≥ γ: 0 if ‖z_g‖ ≤ λ_g√(γs), else z_g.

    Args:
        strength: λ ≥ 0.
        gamma: γ > 0, finite: how far the pull reaches, in units of λ_g.
        dim: the dimension, or dimensions, that number the groups, as for `GroupLasso`.

    Raises:
        InputError: the strength is negative, infinite or not a number; γ is not a finite number > 0; or ``dim`` is not
            one the tensor has.

    Example:
        >>> GroupMCP(1.0, gamma=2.0).prox(torch.tensor([[3.0, 4.0], [0.1, 0.1]]), 1.0)
        tensor([[3., 4.],
                [0., 0.]])

    Source:
        Breheny and Huang (2015), Group descent algorithms for nonconvex penalized linear and logistic regression models
        with grouped predictors.
    """

    strength: Strength
    gamma: float = 3.0
    dim: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "gamma", MCP(0.0, self.gamma).gamma)
        checked_dims(self.dim)

    def of_norm(self, size: int) -> MCP:
        """`MCP` with λ√size."""
        return MCP(self.strength * math.sqrt(size), self.gamma)

    def with_strength(self, strength: Strength) -> Self:
        """The same γ and groups at another λ."""
        return type(self)(strength, self.gamma, self.dim)

    def __str__(self) -> str:
        return f"GroupMCP({show(self.strength)}, gamma={self.gamma:g}, dim={self.dim})"


@final
@dataclass(frozen=True)
class GroupSCAD(ConcaveGroups):
    """`SCAD` of each group's norm, with λ√p_g: group lasso that leaves large groups alone. Not convex.

    Prox with one step: each group shortened to SCAD's prox of its norm.

    Args:
        strength: λ ≥ 0.
        gamma: > 2, finite: where the pull ends, in units of λ√p_g.
        dim: the dimension, or dimensions, that number the groups, as for `GroupLasso`.

    Raises:
        InputError: the strength is negative, infinite or not a number; gamma is not a finite number > 2; or ``dim`` is
            not one the tensor has.

    Source:
        Breheny and Huang (2015), as for `GroupMCP`.
    """

    strength: Strength
    gamma: float = 3.7
    dim: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))
        object.__setattr__(self, "gamma", SCAD(0.0, self.gamma).gamma)
        checked_dims(self.dim)

    def of_norm(self, size: int) -> SCAD:
        """`SCAD` with λ√size."""
        return SCAD(self.strength * math.sqrt(size), self.gamma)

    def with_strength(self, strength: Strength) -> Self:
        """The same γ and groups at another λ."""
        return type(self)(strength, self.gamma, self.dim)

    def __str__(self) -> str:
        return f"GroupSCAD({show(self.strength)}, gamma={self.gamma:g}, dim={self.dim})"
