"""Proximal Newton steps: the optimum of a loss of linear outputs, plus l1·|w| + l2·w² in each weight.

Outside: F's smooth part is replaced by its quadratic model at W, in the weights that are not 0 and those that would
leave it; the model's minimum is where the step goes, and the step is halved until F falls enough. Squares are their own
model. Inside: of the model, projected Newton steps. A weight may move on the side of its own sign, or, from 0, against
its slope where that exceeds l1; on that face the model is smooth, so a Newton step in all of them at once, what would
change its side stopped at 0, halved until the model falls enough. Both converge quadratically at the end, and only the
outer one costs passes over the rows.

Source: Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, SIAM J. Optim. 24
(2014); Bertsekas, Projected Newton methods for optimization problems with simple constraints, SIAM J. Control Optim. 20
(1982), whose two bounds are here the two signs of a weight.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.certifying.conjugates import RowLoss, Squares

MOST_STEPS = 100
STALLED = 1e-9  # of the largest slope at W = 0: what is below, and no step lowers, is rounding
SEPARATED = 1e-4  # scikit-learn's tolerance, with which it ends a logistic regression without penalty
DAMPINGS = (1e-11, 1e-9, 1e-7, 1e-5)  # of each second derivative: the first that makes all of them definite
TINY = 1e-24  # of the largest second derivative: what is less is taken as this
_MOST_INNER = 30  # a model solved only in part is still lower than where it began
_HALVINGS = 40
_ENOUGH = 1e-4  # of the fall that the slope promises


def squared(B: Tensor) -> Tensor:
    """B·Bᵀ of a matrix (m, n)."""
    if B.device.type != "cpu":
        return B @ B.mT
    rows = B.numpy()
    return torch.from_numpy(rows @ rows.T)  # numpy knows that it is symmetric, and takes half the time


@dataclass(frozen=True, eq=False)
class MeanLoss:
    """L(W) = (1/n)·Σ f(W·a_i), in float64.

    Attributes:
        features: A (n, d); an intercept is a feature that is 1.
        row_loss: f, of k outputs.
    """

    features: Tensor
    row_loss: RowLoss

    def slope(self, Z: Tensor) -> Tensor:
        """The gradient, (k, d), given the outputs Z = A·Wᵀ."""
        return self.row_loss.slopes(Z).mT @ self.features / len(Z)

    def curvature(self, Z: Tensor, outputs: Tensor, columns: Tensor) -> Tensor:
        """The second derivatives among the coordinates (outputs, columns), (m, m)."""
        if isinstance(self.row_loss, Squares):
            found = 2 * self.row_loss.a * self._gram[columns][:, columns]
            return found * (outputs.unsqueeze(1) == outputs)
        own, met = self.row_loss.seconds(Z)
        A = self._across[columns]
        if Z.shape[1] == 1:
            found = squared(A * own.mT.sqrt())
        else:
            found = A.new_zeros(len(columns), len(columns))
            for k in outputs.unique().tolist():
                of_k = (outputs == k).nonzero().flatten()
                found[of_k.unsqueeze(1), of_k] = squared(A[of_k] * own[:, k].sqrt())
        if met is not None:
            found -= squared(A * met.mT[outputs])
        return found / len(Z)

    def safe_step(self, Z: Tensor) -> float:
        """The length of a step along the slope that is nowhere near Z too long."""
        own, _ = self.row_loss.seconds(Z)
        return 1 / max(self._size * float(own.max()), torch.finfo(Z.dtype).tiny)

    @functools.cached_property
    def _size(self) -> float:
        """The largest eigenvalue of AᵀA/n, from above."""
        A = self.features
        v = torch.ones(A.shape[1], dtype=A.dtype, device=A.device)
        for _ in range(20):
            v = A.mT @ (A @ (v / v.norm())) / len(A)
        return min(1.3 * float(v.norm()), float(A.square().sum()) / len(A))

    @functools.cached_property
    def _across(self) -> Tensor:
        """Aᵀ (d, n), of which some features are taken fast."""
        return self.features.mT.contiguous()

    @functools.cached_property
    def _gram(self) -> Tensor:
        return squared(self._across) / len(self.features)


@dataclass(frozen=True, eq=False)
class Problem:
    """F(W) = L(W) + Σ l1·|w| + l2·w².

    Attributes:
        mean_loss: L.
        l1: (k, d), at least 0; infinite where a weight is to stay 0.
        l2: (k, d), at least 0.
    """

    mean_loss: MeanLoss
    l1: Tensor
    l2: Tensor

    def outputs(self, W: Tensor) -> Tensor:
        """Z = A·Wᵀ (n, k)."""
        return self.mean_loss.features @ W.mT

    def value(self, W: Tensor, Z: Tensor) -> float:
        """F."""
        return float(self.mean_loss.row_loss.value(Z) + elastic_net(W, self.l1, self.l2))

    def slope(self, W: Tensor, Z: Tensor) -> Tensor:
        """The gradient of what is smooth in F, (k, d)."""
        return self.mean_loss.slope(Z) + 2 * self.l2 * W

    def curvature(self, Z: Tensor, outputs: Tensor, columns: Tensor) -> Tensor:
        """The second derivatives of what is smooth in F, among the coordinates (outputs, columns), (m, m)."""
        found = self.mean_loss.curvature(Z, outputs, columns)
        found.diagonal().add_(2 * self.l2[outputs, columns])
        return found


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the steps ended.

    Attributes:
        W: the weights (k, d).
        Z: the outputs (n, k).
        settled: whether no slope is left but for rounding.
        steps: how many there were.
    """

    W: Tensor
    Z: Tensor
    settled: bool
    steps: int


def minimise(problem: Problem, start: Tensor, *, tol: float = 1e-12, enough: float = 0.0) -> Minimum:
    """Go down from ``start`` (k, d) until no slope exceeds ``tol`` of the largest at W = 0, or no step goes down.

    Or until none exceeds ``enough`` of its own l1, of the least where it has none. Without any penalty, where a plane
    separates the rows, it goes down for ever, and so no further than `SEPARATED`.
    """
    W = start
    Z = problem.outputs(W)
    scale = float(problem.slope(torch.zeros_like(W), torch.zeros_like(Z)).abs().max())
    free = not bool(problem.l1.any() or problem.l2.any())
    least = torch.where(problem.l1 > 0, problem.l1, torch.inf).amin().nan_to_num(posinf=0.0)
    allowed = (enough * torch.where(problem.l1 > 0, problem.l1, least)).clamp(min=tol * scale)
    for steps in range(MOST_STEPS):
        smooth = problem.slope(W, Z)
        slope, side = _faced(W, smooth, problem.l1)
        largest = float(slope.abs().max())
        if free and largest <= SEPARATED * scale and problem.mean_loss.row_loss.separated(Z):
            return Minimum(W, Z, False, steps)
        if bool((slope.abs() <= allowed).all()):
            return Minimum(W, Z, True, steps)
        at = side.nonzero(as_tuple=True)
        model = _Quadratic(problem.curvature(Z, *at), smooth[at], W[at], problem.l1[at])
        move = torch.zeros_like(W)
        # Of a model that is far from F, the minimum is not worth many digits; near it they double with each step.
        near = max(0.1 * tol * scale, 1e-15 * scale, min(0.1, largest / scale) * largest)
        move[at] = model.minimum(tol=near) - W[at]
        found = _searched(problem, (W, Z), move, smooth, slope)
        if found is None:
            return Minimum(W, Z, largest <= STALLED * scale, steps)
        W, Z = found
    return Minimum(W, Z, False, MOST_STEPS)


def elastic_net(w: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """Σ l1·|w| + l2·w² of weights (…, k, d), (…); 0 where w is, however large l1."""
    return torch.where(w == 0, 0.0, l1 * w.abs() + l2 * w.square()).flatten(-2).sum(-1)


def _kinks(w: Tensor, l1: Tensor) -> Tensor:
    return torch.where(w == 0, 0.0, l1 * w.abs()).sum()


def _faced(w: Tensor, smooth: Tensor, l1: Tensor) -> tuple[Tensor, Tensor]:
    """The slope on the face in which w may move, 0 elsewhere; and each coordinate's side: −1, 1, or 0 to stay."""
    side = torch.where(w == 0, -smooth.sign() * (smooth.abs() > l1), w.sign())
    return torch.where(side == 0, 0.0, smooth + torch.where(side == 0, 0.0, l1) * side), side


def _searched(
    problem: Problem, at: tuple[Tensor, Tensor], move: Tensor, smooth: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The first of t = 1, ½, ¼… times the move from (W, Z) at which F falls enough, and the outputs there."""
    W, Z = at
    value, shift = problem.value(W, Z), problem.outputs(move)
    promised = float((smooth * move).sum() + _kinks(W + move, problem.l1) - _kinks(W, problem.l1))
    rounding = 4 * torch.finfo(W.dtype).eps * abs(value)
    t = 1.0
    for _ in range(_HALVINGS):
        moved = W + t * move
        ahead = Z + t * shift if t < 1 else problem.outputs(moved)
        found = problem.value(moved, ahead)
        wanted = -_ENOUGH * t * promised
        if wanted > rounding:
            if found <= value - wanted:
                return moved, ahead
        elif found <= value + rounding:  # the values no longer tell two points apart, the slopes still do
            after, _ = _faced(moved, problem.slope(moved, ahead), problem.l1)
            if bool(after.abs().max() < slope.abs().max()):
                return moved, ahead
        t /= 2
    return None


@dataclass(frozen=True, eq=False)
class _Quadratic:
    """q(w) = ½(w − w₀)ᵀH(w − w₀) + g·(w − w₀) + Σ l1·|w|."""

    H: Tensor
    g: Tensor
    start: Tensor
    l1: Tensor

    def minimum(self, *, tol: float) -> Tensor:
        """Where no slope exceeds ``tol``, or no step goes down."""
        w, smooth = self.start, self.g
        for _ in range(_MOST_INNER):
            slope, side = _faced(w, smooth, self.l1)
            if float(slope.abs().max()) <= tol:
                break
            direction = self._direction(w, slope, side)
            found = self._searched(w, direction, slope, side)
            if found is None:
                break
            step, bend = found
            w, smooth = w + step, smooth + bend
        return w

    def _direction(self, w: Tensor, slope: Tensor, side: Tensor) -> Tensor:
        """Newton's on the face, less the zeros that it would send to the other side than they may go to.

        Of those that are left at least one has a slope and goes down it, so there is always somewhere to go.
        """
        face = (slope != 0) | (w != 0)
        while True:
            at = face.nonzero().flatten()
            direction = torch.zeros_like(w)
            direction[at] = -solved(self.H[at][:, at], slope[at])
            astray = face & (w == 0) & (self.l1 > 0) & (direction * side <= 0)
            if not bool(astray.any()):
                return direction
            face = face & ~astray

    def _searched(self, w: Tensor, direction: Tensor, slope: Tensor, side: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first of t = 1, ½, ¼… times the direction, stopped at kinks, at which q falls enough; and H times it.

        At last the one at which the first weight arrives at its kink: up to there q falls, as it does all the way to
        the minimum on the face.
        """
        leaves = (self.l1 > 0) & (w * direction < 0)
        first = float(torch.where(leaves, -w / torch.where(leaves, direction, 1.0), torch.inf).amin())
        t = 1.0
        for _ in range(_HALVINGS):
            t = max(t, min(first, 1.0))
            step = t * direction
            step = torch.where(leaves & (((w + step) * side <= 0) | (-w / direction <= t)), -w, step)
            bend, along = self.H @ step, float(slope @ step)
            if along + 0.5 * float(step @ bend) <= _ENOUGH * along:  # no weight changes its side, so this is exact
                return step, bend
            if t <= first:
                return None
            t /= 2
        return None


def solved(curvature: Tensor, slope: Tensor) -> Tensor:
    """Curvature⁻¹·slope, with a little added to its diagonal, as a share of each coordinate's own.

    F may be flat in some directions, as where all classes of a softmax move alike; without the addition rounding would
    send a step far along these.
    """
    own = curvature.diagonal()
    root = own.clamp(min=TINY * float(own.max()) + torch.finfo(own.dtype).tiny).sqrt()
    scaled, turned = curvature / root / root.unsqueeze(1), slope / root
    for damping in DAMPINGS:
        damped = scaled.clone()
        damped.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            step = torch.cholesky_solve(turned.unsqueeze(1), factor).squeeze(1) / root
            if bool(step.isfinite().all()):
                return step
    return slope / root.square()
