"""Penalties of a weight as a matrix: its singular values, its rows' angles.

A tensor with more than two dimensions is taken as the matrix (first dimension) × (all others), which is how a
convolution acts on a patch; a vector of n as n × 1 and a scalar as 1 × 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Penalty, ProxSteps, Strength, checked_strength, show, working
from torchshrink.penalties.proximal import scaled_norm
from torchshrink.penalties.weighted import infinite_unless_zero


def as_matrix(w: Tensor) -> Tensor:
    """``w`` as (first dimension) × (all others)."""
    rows = w.shape[0] if w.ndim else 1
    return w.reshape(rows, math.prod(w.shape[1:]))


@final
@dataclass(frozen=True)
class NuclearNorm(Penalty):
    """λ·‖W‖_*, the sum of the singular values: drives them to exact zero, and so W to low rank.

    Subgradient λUVᵀ; the subdifferential is λ(UVᵀ + M) with UᵀM = 0, MV = 0, ‖M‖₂ ≤ 1. Prox with step s:
    U·(σ − sλ)₊·Vᵀ, exact for one step, not for one per coordinate: use it with SGD, or with other optimizers through
    ``method="gradient"``, which makes no exact zeros. The whole tensor is one group.

    A singular value counts as zero up to max(m, n)·ε·σ_max, with ε the rounding unit (NumPy's numerical rank); for
    weights in half precision up to 2ε·σ_max with their own ε, which is what rounding them makes of an exact zero.

    Args:
        strength: λ ≥ 0, in units of loss per unit of singular value.

    Raises:
        InputError: the strength is negative, infinite or not a number; or ``prox`` is given one step per coordinate.

    Example:
        >>> NuclearNorm(1.0).prox(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), 1.0)
        tensor([[2., 0.],
                [0., 0.]])

    Source:
        Cai, Candès and Shen (2010), A singular value thresholding algorithm; Watson (1992) for the subdifferential.
    """

    strength: Strength

    smooth: ClassVar[bool] = False
    prox_steps: ClassVar[ProxSteps] = "scalar"
    convex: ClassVar[bool] = True
    norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))

    @property
    def group_dims(self) -> tuple[int, ...]:
        """One group, the whole tensor."""
        return ()

    def value(self, w: Tensor) -> Tensor:
        """λ·Σσ, with derivative 0 in the directions of zero singular values."""
        if w.numel() == 0:
            return working(w).sum()
        matrix = as_matrix(working(w))
        u, sigma, vh = _svd(matrix.detach())
        # <UVᵀ, W> has the derivative UVᵀ and, over the nonzero singular values, the value Σσ. An SVD's own derivative
        # would be that of arbitrary vectors where singular values are zero.
        inner = (((u * _rank_mask(sigma, w)) @ vh) * matrix).sum()
        return self.strength * (inner + (sigma.sum() - inner.detach()))

    def grad(self, w: Tensor) -> Tensor:
        """λUVᵀ over the nonzero singular values."""
        if w.numel() == 0:
            return torch.zeros_like(w)
        matrix = as_matrix(working(w))
        u, sigma, vh = _svd(matrix)
        polar = _finite_or_nan(matrix, (u * _rank_mask(sigma, w)) @ vh)
        return (self.strength * polar).reshape(w.shape).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """U·(σ − step·λ)₊·Vᵀ.

        Raises:
            InputError: one step per coordinate is given.
        """
        if isinstance(step, Tensor) and step.ndim > 0:
            raise InputError(
                f"{self}.prox: steps of shape {tuple(step.shape)} given, one number expected; "
                "with an optimizer that has one step per coordinate use method='gradient', or SGD"
            )
        if w.numel() == 0:
            return w.clone()
        matrix = as_matrix(working(w))
        u, sigma, vh = _svd(matrix)
        shrunk = (u * (sigma - step * self.strength).clamp(min=0)) @ vh
        moves = torch.as_tensor(step, device=w.device) > 0  # a skipped step's 0 must leave every bit as it is
        return torch.where(moves, _finite_or_nan(matrix, shrunk), matrix).reshape(w.shape).to(w.dtype)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """One value: the Frobenius distance of −g to λ(UVᵀ + M).

        In the tangent space the subdifferential is the point λUVᵀ; in its orthogonal complement it is the ball
        ‖M‖₂ ≤ λ, to which the distance is (Σ(σ_i − λ)₊²)^½ over the singular values of −g there.
        """
        if w.numel() == 0:
            return w.new_zeros(())
        matrix, g = as_matrix(working(w)), as_matrix(working(grad))
        u, sigma, vh = _svd(matrix)
        kept = _rank_mask(sigma, w)
        u, vh = u * kept, vh * kept.unsqueeze(-1)  # zero columns and rows beyond the rank
        outside = g - u @ (u.mT @ g)
        outside = outside - (outside @ vh.mT) @ vh  # (I − UUᵀ)·g·(I − VVᵀ)
        tangent = g - outside + self.strength * (u @ vh)
        excess = (_svd(outside)[1] - self.strength).clamp(min=0)
        both = torch.stack([scaled_norm(tangent, (0, 1)).reshape(()), scaled_norm(excess, (0,)).reshape(())])
        return _finite_or_nan(matrix, scaled_norm(both, (0,)).reshape(())).to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """The largest singular value of g."""
        g = working(grad)
        if g.numel() == 0:
            return g.new_zeros(())
        matrix = as_matrix(g)
        return _finite_or_nan(matrix, _svd(matrix)[1].amax())

    def with_strength(self, strength: Strength) -> Self:
        """The nuclear norm at another strength."""
        return type(self)(strength)

    def __str__(self) -> str:
        return f"NuclearNorm({show(self.strength)})"


@final
@dataclass(frozen=True)
class Orthogonal(Penalty):
    """λ·‖WWᵀ − I‖_F², of the smaller of the two Gram matrices: rows (or columns) that are orthonormal.

    Gradient 4λ(WWᵀ − I)W. Smooth, not convex, and without a closed prox: it acts through the gradient. W = 0 is a
    stationary point of it, a maximum: start elsewhere.

    Args:
        strength: λ ≥ 0.

    Raises:
        InputError: the strength is negative, infinite or not a number; or ``prox`` is called.

    Example:
        >>> Orthogonal(1.0).value(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
        tensor(9.)

    Source:
        Xie, Xiong and Pu (2017), All you need is beyond a good init; Bansal, Chen and Wang (2018), Can we gain more
        from orthogonality regularizations in training deep networks?
    """

    strength: Strength

    smooth: ClassVar[bool] = True
    prox_steps: ClassVar[ProxSteps] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_strength(self.strength))

    def value(self, w: Tensor) -> Tensor:
        """λ·‖WWᵀ − I‖_F², or WᵀW where that is the smaller."""
        return self.strength * _gram_residual(_wide(w)).square().sum()

    def grad(self, w: Tensor) -> Tensor:
        """4λ(WWᵀ − I)W."""
        return self._gradient(w).to(w.dtype)

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """There is none in closed form.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self} has no closed prox; use its gradient: attach with method='gradient'")

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g + 4λ(WWᵀ − I)W|."""
        return (working(grad) + self._gradient(w)).abs().to(w.dtype)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """Infinite unless the gradient is 0: at W = 0 this penalty's own gradient is 0."""
        return infinite_unless_zero(grad)

    def with_strength(self, strength: Strength) -> Self:
        """The same at another strength."""
        return type(self)(strength)

    def __str__(self) -> str:
        return f"Orthogonal({show(self.strength)})"

    def _gradient(self, w: Tensor) -> Tensor:
        wide = _wide(w)
        slope = 4 * self.strength * (_gram_residual(wide) @ wide)
        return (slope if _is_wide(w) else slope.mT).reshape(w.shape)


def _is_wide(w: Tensor) -> bool:
    rows, columns = as_matrix(w).shape
    return rows <= columns


def _wide(w: Tensor) -> Tensor:
    """The matrix with no more rows than columns: W, or its transpose."""
    matrix = as_matrix(working(w))
    return matrix if _is_wide(w) else matrix.mT


def _gram_residual(wide: Tensor) -> Tensor:
    return wide @ wide.mT - torch.eye(wide.shape[0], dtype=wide.dtype, device=wide.device)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, sigma, vh = torch.linalg.svd(_finite_or_zero(matrix), full_matrices=False)
    return u, sigma, vh


def _finite_or_zero(matrix: Tensor) -> Tensor:
    """The matrix, or zero in place of one that is not finite: an SVD raises on NaN, for all lanes of a program."""
    return torch.where(matrix.isfinite().all(), matrix, 0.0)


def _finite_or_nan(matrix: Tensor, result: Tensor) -> Tensor:
    return torch.where(matrix.isfinite().all(), result, torch.nan)


def _rank_mask(sigma: Tensor, w: Tensor) -> Tensor:
    """1 for each singular value that is not zero up to rounding, 0 for the others, in the dtype of ``sigma``."""
    rounding = max(as_matrix(w).shape) * torch.finfo(sigma.dtype).eps
    if w.dtype != sigma.dtype:  # half precision: the weights themselves are rounded
        rounding = max(rounding, 2 * torch.finfo(w.dtype).eps)
    return (sigma > rounding * sigma.amax()).to(sigma.dtype)
