"""Deterministic minimisation of F = L + Ω: proximal steps settle which weights are zero, Newton's method does the rest.

A prox-gradient step with backtracking decides the support, and lets a weight that should not be zero leave it. With the
zeros held, Ω is smooth in the weights that are left, and L-BFGS, then Newton's method where they are few, find their
stationary point to many digits; a weight that would change its sign there stops at zero. The two take turns until the
distance from stationarity is small. What has no support to hold (`NuclearNorm`, most constraints, others' penalties) is
moved by the proximal steps alone, which are then accelerated. No step raises F by more than its own rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchshrink.polishing.objective import Objective, State
from torchshrink.regularizer.certificate import Certificate

Watch = Callable[[int, State, Certificate], None]

NEWTON_SIZE = 600  # weights that are not zero, up to which their second derivatives are taken
_QUASI_NEWTON_STEPS, _NEWTON_STEPS, _ACCELERATED_STEPS = 40, 30, 30
_IDLE_ROUNDS = 8  # in which F hardly falls


@dataclass(eq=False)
class Descent:
    """A descent of ``objective`` until the relative distance is at most ``tol``, or after ``max_steps`` steps.

    Args:
        objective: F.
        tol: of the certificate's relative distance.
        max_steps: steps that moved the weights, at most.
        watch: called with the count of steps, the point, and its certificate.
    """

    objective: Objective
    tol: float
    max_steps: int
    watch: Watch
    steps: int = 0
    _step: float = 1.0
    _damping: float = 1e-3
    _memory: _Memory = field(init=False)

    def run(self, state: State) -> tuple[State, str]:
        """The last point, and why it is the last: ``converged``, ``budget`` or ``stalled``.

        Stalled: rounding, or a kink of the loss itself, lets no step go further down.
        """
        size, slope = float(state.w.norm()), float(state.grad.norm())
        self._step = 0.1 * size / slope if size > 0 and slope > 0 else 1.0
        self._memory = _Memory(len(state.w))
        idle = 0
        while True:
            if self._certified(state).relative <= self.tol:
                return state, "converged"
            if self._spent:
                return state, "budget"
            before = state
            for phase in (self._proximal_steps, self._quasi_newton_steps, self._newton_steps):
                state = phase(state)
            idle = idle + 1 if not state.value < before.value - 1e-11 * abs(before.value) else 0
            if state is before or idle >= _IDLE_ROUNDS:
                return state, "stalled"

    @property
    def _spent(self) -> bool:
        return self.steps >= self.max_steps

    def _certified(self, state: State) -> Certificate:
        certificate = self.objective.certificate(state)
        self.watch(self.steps, state, certificate)
        return certificate

    # --- the support ---

    def _proximal_steps(self, state: State) -> State:
        """One prox-gradient step; where they alone act, many, with momentum that is dropped where F would rise."""
        ahead, momentum = state, 1.0
        for _ in range(_ACCELERATED_STEPS if self.objective.needs_prox else 1):
            if self._spent:
                break
            there = self._proximal_step(ahead)
            if there is None or there.value > state.value + self.objective.rounding(state):
                if ahead is state:
                    break
                ahead, momentum = state, 1.0
                continue
            self.steps += 1
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            beta, momentum = (momentum - 1) / following, following
            previous, state = state, there
            ahead = state
            if self.objective.needs_prox and beta > 0:
                ahead = self.objective.at(state.w + beta * (state.w - previous.w))
        return state

    def _proximal_step(self, state: State) -> State | None:
        objective = self.objective
        slope = state.grad + objective.pull(state.w, only_without_prox=True)
        self._step *= 2
        for _ in range(60):
            w = objective.prox(state.w - self._step * slope, self._step)
            move = w - state.w
            if not bool(move.any()):
                return None
            there = objective.at(w)
            bound = float(move @ move) / (2 * self._step)
            # L lies below its quadratic model; where rounding hides that, the gradients tell.
            below = there.loss <= state.loss + float(state.grad @ move) + bound
            below = below or float((there.grad - state.grad) @ move) <= bound
            if not objective.has_every_prox:
                below = below and there.value <= state.value + objective.rounding(state)
            if below and math.isfinite(there.value):
                return there
            self._step /= 2
        return None

    # --- what is not zero ---

    def _remaining(self, state: State) -> tuple[Tensor, Tensor] | None:
        """The free coordinates and F's slope in them, or None: they are near enough, or not what is farthest."""
        certificate = self._certified(state)
        free = self.objective.free(state.w)
        slope = free * (state.grad + self.objective.pull(state.w))
        inside = float(slope.norm())
        outside = math.sqrt(max(certificate.distance**2 - inside**2, 0.0)) if certificate.distance < math.inf else 0.0
        if certificate.relative <= self.tol or inside <= 0.1 * outside or inside == 0 or self._spent:
            return None
        return free, slope

    def _quasi_newton_steps(self, state: State) -> State:
        objective = self.objective
        for _ in range(_QUASI_NEWTON_STEPS):
            remaining = self._remaining(state)
            if remaining is None:
                break
            free, slope = remaining
            there = self._searched(state, slope, self._memory.direction(slope, free, self._step))
            if there is None:
                self._memory.clear()
                there = self._searched(state, slope, -self._step * slope)
                if there is None:
                    break
            # Ω's own part of the slope is smooth where both ends are in the support, and jumps elsewhere.
            both = free * objective.free(there.w)
            change = there.grad - state.grad + both * (objective.pull(there.w) - objective.pull(state.w))
            self._memory.add(there.w - state.w, change)
            state = there
        return state

    def _searched(self, state: State, slope: Tensor, direction: Tensor) -> State | None:
        """The first of t = 1, ½, ¼… times the direction at which F falls enough; counted as one step."""
        if not float(slope @ direction) < 0:
            return None
        t = 1.0
        for _ in range(30):
            there = self._tried(state, slope, t * direction)
            if there is not None:
                return there
            t *= 0.5 if t > 1e-3 else 0.1
        return None

    def _tried(self, state: State, slope: Tensor, move: Tensor) -> State | None:
        """The point after a move that stops at kinks, if F falls there, or its slope where F's change is rounding."""
        objective = self.objective
        w = objective.crossed(state.w, state.w + move)
        move = w - state.w
        along = float(slope @ move)
        if not along < 0:
            return None
        there = objective.at(w)
        falls = there.value <= state.value + 1e-4 * along and there.value < state.value
        if not falls:
            after = float((objective.free(w) * (there.grad + objective.pull(w))) @ move)
            falls = there.value <= state.value + objective.rounding(state) and abs(after) <= 0.9 * abs(along)
        if falls:
            self.steps += 1
        return there if falls else None

    def _newton_steps(self, state: State) -> State:
        """Newton's method with |eigenvalues|, so that saddles repel, and a damping that steps of full length lower."""
        for _ in range(_NEWTON_STEPS):
            remaining = self._remaining(state)
            if remaining is None or int(remaining[0].sum()) > NEWTON_SIZE:
                break
            free, slope = remaining
            hessian = self.objective.hessian(state.w, free)
            if hessian is None:
                break
            at = free.nonzero().flatten()
            values, vectors = torch.linalg.eigh(hessian)
            size, turned = values.abs(), vectors.mT @ slope[at]
            there = None
            for _ in range(12):
                damped = size + self._damping * size.max()
                move = torch.zeros_like(slope)
                move[at] = -(vectors @ (turned / damped.clamp(min=torch.finfo(slope.dtype).tiny)))
                there = self._tried(state, slope, move)
                if there is not None:
                    self._damping = max(self._damping / 10, 1e-12)
                    break
                self._damping = min(self._damping * 10, 1e6)
            if there is None:
                break
            state = there
        return state


class _Memory:
    """The last pairs of displacement and change of slope, for L-BFGS."""

    def __init__(self, size: int) -> None:
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=max(5, min(40, 20_000_000 // max(size, 1))))

    def clear(self) -> None:
        self._pairs.clear()

    def add(self, s: Tensor, y: Tensor) -> None:
        """Keep a pair, if the slope rose along it."""
        if _rises(s, y):
            self._pairs.append((s, y))

    def direction(self, slope: Tensor, free: Tensor, first: float) -> Tensor:
        """The quasi-Newton descent direction within the free coordinates; without any pair, ``first`` times −slope."""
        d = -slope
        used = []
        for s, y in reversed(self._pairs):
            s, y = s * free, y * free
            if _rises(s, y):
                curvature = float(s @ y)
                a = float(s @ d) / curvature
                d = d - a * y
                used.append((s, y, curvature, a))
        if not used:
            return first * d
        _, y, curvature, _ = used[0]
        d = d * (curvature / float(y @ y))
        for s, y, curvature, a in reversed(used):
            d = d + s * (a - float(y @ d) / curvature)
        return d


def _rises(s: Tensor, y: Tensor) -> bool:
    return float(s @ y) > 1e-10 * float(s.norm()) * float(y.norm())
