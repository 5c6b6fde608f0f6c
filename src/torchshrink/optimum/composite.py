"""Group lassos, and penalties that are not convex: a stationary point of a loss of linear outputs plus any Ω.

Two kinds of steps take turns. One says which weights are 0: the loss is replaced by its quadratic model, of a penalty
that is not convex the concave rest by its slope (which lies above it), and of what is then convex accelerated proximal
steps find the minimum. The other holds the zeros, and takes Newton steps of F in what is left, where Ω is smooth. Each
step is halved until F falls enough.

Source: Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, SIAM J. Optim. 24
(2014); Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, SIAM J. Imaging Sci. 2 (2009), restarted
as in O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes, Found. Comput. Math. 15 (2015).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.optimum.newton import MeanLoss, solved
from torchshrink.penalties import Penalty

MOST_STEPS = 100
_MOST_PROXIMAL = 300  # on one quadratic model
_MOST_NEWTON = 8  # on one support
_HALVINGS = 30
_ENOUGH = 1e-4  # of the fall that the slope promises


def acts_here(penalty: Penalty) -> bool:
    """Whether these steps know enough of a penalty: its prox, where its kinks are, and what of it is convex."""
    part = penalty.convex_part
    kinks = penalty.kinks in ("coordinates", "groups") and not penalty.constraint
    return penalty.as_elastic_net is not None or (kinks and part is not None and part.prox_steps != "none")


@dataclass(frozen=True, eq=False)
class Composite:
    """F(W, b) = L(W, b) + Ω(W), Ω with a convex part that has a prox.

    Attributes:
        mean_loss: L, of features (n, d), or (n, d + 1) with a last one that is 1 and whose weights are free.
        penalty: Ω, of weights (k, d).
        inputs: d.
    """

    mean_loss: MeanLoss
    penalty: Penalty
    inputs: int

    @functools.cached_property
    def convex(self) -> Penalty:
        """Ω's convex part."""
        part = self.penalty.convex_part
        return self.penalty if part is None else part

    def at(self, W: Tensor) -> Point:
        """A point (k, d), or (k, d + 1)."""
        Z = self.mean_loss.features @ W.mT
        value = float(self.mean_loss.row_loss.value(Z) + self.penalty.value(W[:, : self.inputs]))
        return Point(W, Z, self.mean_loss.slope(Z), value)

    def distance(self, there: Point) -> float:
        """The largest distance of a coordinate's or a group's slope from what Ω allows."""
        on_weights = self.penalty.distance(there.W[:, : self.inputs], there.slope[:, : self.inputs]).max()
        free = there.slope[:, self.inputs :].abs()
        return float(torch.maximum(on_weights, free.max()) if free.numel() else on_weights)

    def pulled(self, there: Point) -> Tensor:
        """F's slope where W is not 0, in all coordinates (k, D)."""
        return there.slope + self._spread(self.penalty.grad(there.W[:, : self.inputs]))

    def smooth(self, there: Point) -> Tensor:
        """The slope of L and of what of Ω is not convex, (k, D)."""
        if self.penalty.convex:
            return there.slope
        W = there.W[:, : self.inputs]
        return there.slope + self._spread(self.penalty.grad(W) - self.convex.grad(W))

    def prox(self, W: Tensor, step: float) -> Tensor:
        """That of the convex part; the intercepts stay."""
        return torch.cat([self.convex.prox(W[:, : self.inputs], step), W[:, self.inputs :]], 1)

    def bend(self, W: Tensor, outputs: Tensor, columns: Tensor) -> Tensor:
        """Ω's second derivatives among the coordinates (outputs, columns), none of them 0 but intercepts, (m, m)."""
        with torch.enable_grad():
            leaf = W.detach().clone().requires_grad_()
            slope = self._spread(self.penalty.grad(leaf[:, : self.inputs]))[outputs, columns]
            if not slope.requires_grad:
                return W.new_zeros(len(slope), len(slope))
            each = torch.eye(len(slope), dtype=W.dtype, device=W.device)
            (rows,) = torch.autograd.grad(slope, leaf, each, is_grads_batched=True, materialize_grads=True)
        return rows[:, outputs, columns]

    def _spread(self, weights: Tensor) -> Tensor:
        return torch.nn.functional.pad(weights, (0, self.mean_loss.features.shape[1] - self.inputs))


@dataclass(frozen=True, eq=False)
class Point:
    """Weights (k, D), outputs (n, k), L's slope (k, D), and F."""

    W: Tensor
    Z: Tensor
    slope: Tensor
    value: float


def descend(problem: Composite, start: Tensor, *, tol: float) -> tuple[Tensor, bool]:
    """Go down from ``start`` until no distance exceeds ``tol``, or no step goes down; and whether the first is so."""
    there = problem.at(start)
    for _ in range(MOST_STEPS):
        if problem.distance(there) <= tol:
            return there.W, True
        before = there
        there = _on_support(problem, _proximal(problem, there, tol), tol)
        if there is before:
            break
    return there.W, problem.distance(there) <= tol


def _proximal(problem: Composite, there: Point, tol: float) -> Point:
    """Towards the minimum of the quadratic model, in the coordinates that are not 0 or would leave it."""
    W, smooth = there.W, problem.smooth(there)
    step = problem.mean_loss.safe_step(there.Z)
    mask = (W != 0) | (problem.prox(W - step * smooth, step) != 0)
    mask[:, problem.inputs :] = True
    at = mask.nonzero(as_tuple=True)
    H, g, w0 = problem.mean_loss.curvature(there.Z, *at), smooth[at], W[at]
    step = 1 / _largest(H)
    w = ahead = w0
    momentum = 1.0
    for _ in range(_MOST_PROXIMAL):
        slope = g + H @ (ahead - w0)
        moved = torch.zeros_like(W)
        moved[at] = ahead - step * slope
        after = problem.prox(moved, step)[at]
        residual = ahead - after
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        forth = after - w
        if float(residual @ forth) > 0:  # it has gone too far: begin anew
            following = momentum = 1.0
        ahead = after + (momentum - 1) / following * forth
        w, momentum = after, following
        if float(residual.abs().max()) <= 0.1 * tol * step:
            break
    move = torch.zeros_like(W)
    move[at] = w - w0
    promised = float((smooth * move).sum()) + float(
        problem.convex.value((W + move)[:, : problem.inputs]) - problem.convex.value(W[:, : problem.inputs])
    )
    return _searched(problem, there, move, promised)


def _on_support(problem: Composite, there: Point, tol: float) -> Point:
    """Newton steps in what is not 0, while they go down."""
    for _ in range(_MOST_NEWTON):
        mask = there.W != 0
        mask[:, problem.inputs :] = True
        at = mask.nonzero(as_tuple=True)
        slope = problem.pulled(there)[at]
        if not len(slope) or float(slope.abs().max()) <= 0.1 * tol:
            break
        move = torch.zeros_like(there.W)
        move[at] = -solved(problem.mean_loss.curvature(there.Z, *at) + problem.bend(there.W, *at), slope)
        promised = float(slope @ move[at])
        after = _searched(problem, there, move, promised) if promised < 0 else there
        if after is there:
            break
        there = after
    return there


def _searched(problem: Composite, there: Point, move: Tensor, promised: float) -> Point:
    """The first of t = 1, ½, ¼… times the move at which F falls enough; the same point where none does."""
    rounding = 4 * torch.finfo(move.dtype).eps * abs(there.value)
    t = 1.0
    for _ in range(_HALVINGS):
        after = problem.at(there.W + t * move)
        wanted = -_ENOUGH * t * promised
        if wanted > rounding:
            if after.value <= there.value - wanted:
                return after
        elif after.value <= there.value + rounding and problem.distance(after) < problem.distance(there):
            return after
        t /= 2
    return there


def _largest(H: Tensor) -> float:
    """A bound of H's eigenvalues that is near the largest of them."""
    if len(H) <= _SMALL:
        return float(torch.linalg.eigvalsh(H)[-1].clamp(min=torch.finfo(H.dtype).tiny))
    v = torch.ones(len(H), dtype=H.dtype, device=H.device)
    for _ in range(20):
        v = H @ (v / v.norm())
    # The power iteration comes from below; rows' sums are above, and so is no more than a few times of it.
    return min(1.3 * float(v.norm()), float(H.abs().sum(1).max()))


_SMALL = 300
