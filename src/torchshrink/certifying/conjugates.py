"""Losses f of a row's outputs z that have a dual: slopes, optimal intercepts, and Fenchel–Young losses.

Outputs are (…, n, k): before the rows there may be any number of models of the same rows, such as a path's strengths.

With f*(u) = sup_z <u, z> − f(z), the Fenchel–Young loss FY(z, u) = f(z) + f*(u) − <u, z> is never negative, and 0 where
u = f'(z). A duality gap is a sum of such terms. Each is written here without the cancellation of its definition, so
that a gap of 1e-16 is 1e-16 and not a rounding error.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

SETTLED = 1e-15  # of a mean slope: the rounding of what it is the mean of


class RowLoss(abc.ABC):
    """A row's loss f, summed over its outputs. Z and U are (…, n, k) in float64."""

    def value(self, Z: Tensor) -> Tensor:
        """The mean of f over the rows, (…)."""
        return self.rows(Z).mean(-1)

    @abc.abstractmethod
    def rows(self, Z: Tensor) -> Tensor:
        """f of each row, (…, n)."""

    @abc.abstractmethod
    def slopes(self, Z: Tensor) -> Tensor:
        """f'(z), (…, n, k)."""

    @abc.abstractmethod
    def seconds(self, Z: Tensor) -> tuple[Tensor, Tensor | None]:
        """(D, C), each (…, n, k), with f''(z) = diag(D) − C·Cᵀ for each row; C is None where outputs do not meet."""

    @abc.abstractmethod
    def separated(self, Z: Tensor) -> bool:
        """Whether every row's f falls for ever as Z (n, k) is multiplied by more and more, so that no Z is the best."""

    @abc.abstractmethod
    def with_intercept(self, Z: Tensor) -> Tensor:
        """Feasible slopes whose sum over the rows is 0 for each output: those at the best constant to add to Z."""

    @abc.abstractmethod
    def fenchel_young(self, Z: Tensor, U: Tensor) -> Tensor:
        """FY(z, u) for each row, (…, n); ``U`` lies between 0 and what the other two return."""


@final
@dataclass(frozen=True, eq=False)
class Squares(RowLoss):
    """f(z) = a·Σ(z − t)². Then f*(u) = Σ u·t + u²/(4a), and FY = Σ(u − f'(z))²/(4a)."""

    target: Tensor
    a: float

    def rows(self, Z: Tensor) -> Tensor:
        """a·Σ(z − t)²."""
        return self.a * (Z - self.target).square().sum(-1)

    def slopes(self, Z: Tensor) -> Tensor:
        """2a(z − t)."""
        return 2 * self.a * (Z - self.target)

    def seconds(self, Z: Tensor) -> tuple[Tensor, None]:
        """2a."""
        return torch.full_like(Z, 2 * self.a), None

    def separated(self, Z: Tensor) -> bool:
        """Never: squares have a minimum."""
        return False

    def with_intercept(self, Z: Tensor) -> Tensor:
        """The slopes less their means, which is what they are at the best intercept."""
        U = self.slopes(Z)
        return U - U.mean(-2, keepdim=True)

    def fenchel_young(self, Z: Tensor, U: Tensor) -> Tensor:
        """Σ(u − f'(z))²/(4a)."""
        return (U - self.slopes(Z)).square().sum(-1) / (4 * self.a)


@final
@dataclass(frozen=True, eq=False)
class Logistic(RowLoss):
    """f(z) = a·Σ log(1 + e^z) − y·z. Then f*(u) = −a·ΣH(y + u/a), H the binary entropy in nats, on 0 ≤ y + u/a ≤ 1.

    FY is a times the Kullback–Leibler divergence of y + u/a from σ(z).
    """

    target: Tensor
    a: float

    def slopes(self, Z: Tensor) -> Tensor:
        """a(σ(z) − y)."""
        return self.a * (Z.sigmoid() - self.target)

    def seconds(self, Z: Tensor) -> tuple[Tensor, None]:
        """a·σ(z)·σ(−z)."""
        return self.a * Z.sigmoid() * (-Z).sigmoid(), None

    def separated(self, Z: Tensor) -> bool:
        """Whether the sign of each output is that of its target, 0 or 1."""
        return bool((((self.target == 1) & (Z > 0)) | ((self.target == 0) & (Z < 0))).all())

    def with_intercept(self, Z: Tensor) -> Tensor:
        """The slopes at the intercepts that make their sums 0; 0 where all targets of an output are the same 0 or 1."""
        U = torch.zeros_like(Z)
        both = (self.target.sum(0) > 0) & ((1 - self.target).sum(0) > 0)
        part = Logistic(self.target[:, both], self.a)
        if part.target.shape[1]:
            U[..., both] = part.slopes(_centred(part, Z[..., both]))
        return U

    def rows(self, Z: Tensor) -> Tensor:
        """a·Σ log(1 + e^z) − y·z."""
        return self.a * (nn.functional.softplus(Z) - self.target * Z).sum(-1)

    def curvature(self, Z: Tensor) -> Tensor:
        """The mean of f'' over the rows, (…, k, k)."""
        p = Z.sigmoid()
        return torch.diag_embed(self.a * (p * (1 - p)).mean(-2))

    def log_ratios(self, Z: Tensor) -> Tensor:
        """log of the targets' odds over the predictions', (…, k)."""
        sigmoid = nn.functional.logsigmoid
        targets = self.target.mean(0)
        return targets.log() - (1 - targets).log() - sigmoid(Z).logsumexp(-2) + sigmoid(-Z).logsumexp(-2)

    def fenchel_young(self, Z: Tensor, U: Tensor) -> Tensor:
        """a·Σ KL(y + u/a ‖ σ(z))."""
        p = (self.target + U / self.a).clamp(0, 1)
        log_p, log_q = nn.functional.logsigmoid(Z), nn.functional.logsigmoid(-Z)
        one = torch.xlogy(p, p) - p * log_p + torch.xlogy(1 - p, 1 - p) - (1 - p) * log_q
        return self.a * one.sum(-1).clamp(min=0)


@final
@dataclass(frozen=True, eq=False)
class Softmax(RowLoss):
    """f(z) = log Σe^z − <q, z>, q the target's class probabilities.

    Then f*(u) = Σ p·log p with p = q + u in the simplex, and FY is the divergence of p from the softmax of z.
    """

    target: Tensor

    def slopes(self, Z: Tensor) -> Tensor:
        """The softmax of z less q."""
        return Z.softmax(-1) - self.target

    def seconds(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """p and p, p the softmax of z."""
        p = Z.softmax(-1)
        return p, p

    def separated(self, Z: Tensor) -> bool:
        """Whether each row's target is one class, and its output the largest by itself."""
        own = (Z * self.target).sum(1)
        others = Z.masked_fill(self.target == 1, -torch.inf).amax(1)
        return bool((self.target.amax(1) == 1).all()) and bool((own > others).all())

    def with_intercept(self, Z: Tensor) -> Tensor:
        """The slopes at the intercepts that make their sums 0, with no probability for a class that never occurs."""
        U = torch.zeros_like(Z)
        present = self.target.sum(0) > 0
        part = Softmax(self.target[:, present])
        U[..., present] = part.slopes(_centred(part, Z[..., present]))
        return U

    def rows(self, Z: Tensor) -> Tensor:
        """log Σe^z − <q, z>."""
        return Z.logsumexp(-1) - (self.target * Z).sum(-1)

    def curvature(self, Z: Tensor) -> Tensor:
        """The mean of f'' over the rows, (…, k, k), singular along (1, …, 1)."""
        p = Z.softmax(-1)
        return torch.diag_embed(p.mean(-2)) - p.mT @ p / Z.shape[-2]

    def log_ratios(self, Z: Tensor) -> Tensor:
        """log of the targets' means over the predictions', (…, k)."""
        return self.target.sum(0).log() - Z.log_softmax(-1).logsumexp(-2)

    def fenchel_young(self, Z: Tensor, U: Tensor) -> Tensor:
        """KL(q + u ‖ softmax z)."""
        p = (self.target + U).clamp(0, 1)
        return (torch.xlogy(p, p) - p * Z.log_softmax(-1)).sum(-1).clamp(min=0)


def _centred(part: Logistic | Softmax, Z: Tensor) -> Tensor:
    """Z plus the constants that make the mean loss least.

    Proportional fitting, which lowers the loss from anywhere, then Newton's method, with steps halved until it falls.
    """
    for _ in range(200):
        far = _largest(part, Z) > 1e-3
        if not bool(far.any()):
            break
        Z = Z + torch.where(far[..., None], part.log_ratios(Z), 0.0).unsqueeze(-2)
    at = _Centre(Z, part.value(Z), _largest(part, Z))
    moving = torch.ones_like(at.value, dtype=torch.bool)
    for _ in range(60):
        moving = moving & (at.slope > SETTLED)
        if not bool(moving.any()):
            break
        slope = part.slopes(at.Z).mean(-2)
        inverse = torch.linalg.pinv(part.curvature(at.Z), hermitian=True)
        at, moving = _halved(part, at, -(inverse @ slope.unsqueeze(-1)).squeeze(-1), moving)
    return at.Z


@dataclass(frozen=True, eq=False)
class _Centre:
    """Outputs (…, n, k), the mean loss there, and its largest slope along a constant, (…) each."""

    Z: Tensor
    value: Tensor
    slope: Tensor


def _largest(part: Logistic | Softmax, Z: Tensor) -> Tensor:
    return part.slopes(Z).mean(-2).abs().amax(-1)


def _halved(part: Logistic | Softmax, at: _Centre, step: Tensor, moving: Tensor) -> tuple[_Centre, Tensor]:
    """Where the first of t = 1, ½, ¼… times the step leads that lowers the loss; and which models moved."""
    waiting = moving
    for _ in range(40):
        Z = at.Z + torch.where(waiting[..., None], step, 0.0).unsqueeze(-2)
        tried = _Centre(Z, part.value(Z), _largest(part, Z))
        # Where the values no longer tell two points apart, the slopes still do.
        falls = (tried.value < at.value) | ((tried.value <= at.value + 1e-15) & (tried.slope < at.slope))
        take = waiting & falls
        at = _Centre(
            torch.where(take[..., None, None], tried.Z, at.Z),
            torch.where(take, tried.value, at.value),
            torch.where(take, tried.slope, at.slope),
        )
        waiting = waiting & ~falls
        if not bool(waiting.any()):
            break
        step = step / 2
    return at, moving & ~waiting
