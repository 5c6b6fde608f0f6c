"""Bounds on how many weights are nonzero: L0Ball and NM, which are not convex; and Gradual, a schedule for them.

What stationarity means there: with S the support of w and k the bound, the directions in which w can move are those
along S and, while |S| < k, along k − |S| more coordinates. `distance` is the size of the part of −g along them, its
projection onto this (Bouligand) tangent cone: |g_i| on S, and of the other coordinates the k − |S| largest |g_i|. It is
0 exactly where g is 0 on S and, while |S| < k, everywhere: Beck and Eldar's basic feasibility. Each of the C(p, k)
supports has such a point, so it says that the weights that are left are trained to the end, and not that they are the
best to keep.

A training says more. Where it rests under steps s, no exchange of a kept weight for a dropped one pays to first order:
s_i·g_i² ≤ min over S of w_j²/s_j for each i outside S, Beck and Eldar's L-stationarity with L = 1/s.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.penalties.base import Kinks, working
from torchshrink.penalties.constraints import Constraint, indicator
from torchshrink.penalties.weighted import infinite_unless_zero

Keep = int | float
KeepSchedule = Callable[[int], Keep]


@final
@dataclass(frozen=True, eq=False)
class L0Ball(Constraint):
    """The constraint that at most k weights of the tensor are nonzero: its size instead of its strength. Not convex.

    Projection: keeps the k largest |z_i|, in the metric of one step per coordinate the k largest z_i²/s_i, and makes
    the others 0; of equals the first ones stay. `hard_sparsity` says what a stationary point is.

    Args:
        keep: how many weights of each tensor may stay: a number (int), or a share above 0 and up to 1 (float), of
            which at least one weight stays; or a callable that returns one of the two for the count of optimizer steps
            so far, such as `Gradual`. In the latter case a `Regularizer` says which is in force.

    Raises:
        InputError: it is none of these; or a method is called while ``keep`` is still a schedule.

    Example:
        >>> L0Ball(2).prox(torch.tensor([3.0, -0.5, 0.1, -2.0]), 1.0)
        tensor([ 3.,  0.,  0., -2.])
        >>> L0Ball(0.25).prox(torch.tensor([3.0, -0.5, 0.1, -2.0]), 1.0)
        tensor([3., 0., 0., 0.])

    Source:
        Blumensath and Davies (2009), Iterative hard thresholding; Beck and Eldar (2013), Sparsity constrained nonlinear
        optimization.
    """

    keep: Keep | KeepSchedule

    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        if not callable(self.keep):
            object.__setattr__(self, "keep", _checked_keep(self.keep))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, L0Ball):
            return NotImplemented
        return type(self.keep) is type(other.keep) and self.keep == other.keep  # 1 is one weight, 1.0 is all

    def __hash__(self) -> int:
        return hash((L0Ball, type(self.keep), self.keep))

    @property
    def scheduled(self) -> bool:
        """Whether ``keep`` is a schedule."""
        return callable(self.keep)

    def at_step(self, steps: int) -> L0Ball:
        """With what the schedule says after so many steps."""
        return L0Ball(self.keep(steps)) if callable(self.keep) else self

    def count(self, w: Tensor) -> int:
        """k, for a tensor of this size."""
        if callable(self.keep):
            raise InputError(
                f"keep={self.keep!r}: a schedule, of which a Regularizer knows the step; at_step(steps) says what it is"
            )
        if isinstance(self.keep, int):
            return min(self.keep, w.numel())
        return min(max(1, math.floor(self.keep * w.numel() * (1 + 1e-12))), w.numel())  # .29·100 is 28.999…

    def value(self, w: Tensor) -> Tensor:
        """0 if at most k coordinates are nonzero, else infinite."""
        return indicator(working(w), (w != 0).sum() <= self.count(w))

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The k largest z²/s, the others 0. A step of 0 moves nothing."""
        k = self.count(w)  # also of an empty tensor, where keep must be a number too
        stays = largest(_score(w, step).reshape(1, -1), k).reshape(w.shape)
        return torch.where(stays, w, 0.0)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate: |g|; 0 outside the support, but for the k − |S| largest there; infinite where |S| > k."""
        k = self.count(w)
        free = largest(_support_first(w, grad).reshape(1, -1), k).reshape(w.shape)
        return tangential(w, grad, free, (w != 0).sum() > k)

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if the gradient is 0, else infinite: at w = 0 any coordinate may move."""
        return infinite_unless_zero(grad)

    def __str__(self) -> str:
        return f"L0Ball({getattr(self.keep, '__name__', self.keep)})"


@final
@dataclass(frozen=True)
class NM(Constraint):
    """The constraint that of every m consecutive inputs of a unit at most n have a nonzero weight. Not convex.

    Blocks of m run along the second dimension, in which Linear and convolution layers have their inputs: entries 0 …
    m − 1 of a row, m … 2m − 1 and so on; for each position of a filter by itself, which is the layout that sparse
    tensor cores (2:4) read. In a vector they run along itself. Where m does not divide the inputs the last block is
    shorter.
    Projection: in each block as that of `L0Ball`; and so is stationarity.

    Args:
        n: how many may be nonzero.
        m: of how many, at least n.

    Raises:
        InputError: they are not whole numbers with 1 ≤ n ≤ m.

    Example:
        >>> NM(2, 4).prox(torch.tensor([[3.0, -0.5, 0.1, -2.0, 0.2, 0.1]]), 1.0)
        tensor([[ 3.0000,  0.0000,  0.0000, -2.0000,  0.2000,  0.1000]])

    Source:
        Mishra et al. (2021), Accelerating sparse deep neural networks; Zhou et al. (2021), Learning N:M fine-grained
        structured sparse neural networks from scratch.
    """

    n: int
    m: int

    kinks: ClassVar[Kinks] = "coordinates"

    def __post_init__(self) -> None:
        if not all(_is_whole(each) for each in (self.n, self.m)) or not 1 <= self.n <= self.m:
            raise InputError(f"n={self.n!r}, m={self.m!r}: expected whole numbers with 1 ≤ n ≤ m, such as NM(2, 4)")
        for name in ("n", "m"):
            object.__setattr__(self, name, int(getattr(self, name)))

    def value(self, w: Tensor) -> Tensor:
        """0 if no block has more than n nonzeros, else infinite."""
        return indicator(working(w), ~self._too_many(w))

    def prox(self, w: Tensor, step: float | Tensor) -> Tensor:
        """The n largest z²/s of each block, the others 0. A step of 0 moves nothing."""
        return torch.where(self._largest(_score(w, step)), w, 0.0)

    def distance(self, w: Tensor, grad: Tensor) -> Tensor:
        """Per coordinate, in each block as for `L0Ball`."""
        return tangential(w, grad, self._largest(_support_first(w, grad)), self._too_many(w))

    def critical_strength(self, grad: Tensor) -> Tensor:
        """0 if the gradient is 0, else infinite: at w = 0 any coordinate may move."""
        return infinite_unless_zero(grad)

    def __str__(self) -> str:
        return f"NM({self.n}, {self.m})"

    def _largest(self, score: Tensor) -> Tensor:
        if score.numel() == 0:
            return torch.ones_like(score, dtype=torch.bool)
        blocks, undo = self._blocks(score, -1.0)  # what fills the last block up is below all scores
        return undo(largest(blocks, self.n))

    def _too_many(self, w: Tensor) -> Tensor:
        """Whether each coordinate is in a block with more than n nonzeros."""
        if w.numel() == 0:
            return torch.zeros_like(w, dtype=torch.bool)
        blocks, undo = self._blocks((w != 0).to(torch.uint8), 0)
        return undo((blocks.sum(dim=-1, keepdim=True) > self.n).expand(blocks.shape))

    def _blocks(self, x: Tensor, filler: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``x`` as (blocks, m), and what brings such a tensor back into its shape."""
        along = x.movedim(1, -1) if x.ndim > 1 else x.reshape(1, -1)
        inputs = along.shape[-1]
        padded = torch.nn.functional.pad(along, (0, -inputs % self.m), value=filler)

        def undo(blocks: Tensor) -> Tensor:
            back = blocks.reshape(padded.shape)[..., :inputs]
            return back.movedim(-1, 1) if x.ndim > 1 else back.reshape(x.shape)

        return padded.reshape(-1, self.m), undo


@final
@dataclass(frozen=True)
class Gradual:
    """A schedule for ``keep``: from all weights down to a share in so many steps, fast at first and then slower.

    After t steps keep + (1 − keep)·(1 − t/steps)³, and ``keep`` from ``steps`` on. A certificate has a meaning from
    then on: before, the weights are in the last step's set, and what is in force is the next one's.

    Args:
        keep: the share that is to stay, above 0 and up to 1.
        steps: of the optimizer, until then.
        begin: steps before it starts.

    Raises:
        InputError: a share or a count of steps is none.

    Example:
        >>> schedule = Gradual(0.1, steps=1000)
        >>> [round(schedule(t - 1), 4) for t in (1, 500, 1000, 2000)]
        [0.9973, 0.2125, 0.1, 0.1]

    Source:
        Zhu and Gupta (2017), To prune, or not to prune.
    """

    keep: float
    steps: int
    begin: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.keep, float):
            raise InputError(f"keep={self.keep!r}: expected a share above 0 and up to 1, such as 0.1")
        _checked_keep(self.keep)
        for name, least in (("steps", 1), ("begin", 0)):
            value = getattr(self, name)
            if not _is_whole(value) or value < least:
                raise InputError(f"{name}={value!r}: expected a whole number ≥ {least}")

    def __call__(self, step: int) -> float:
        """The share that a step leaves; steps are counted from 0."""
        left = min(max(1 - (step + 1 - self.begin) / self.steps, 0.0), 1.0)
        return self.keep + (1 - self.keep) * left**3


def largest(score: Tensor, k: int) -> Tensor:
    """Whether each entry of a row (…, n) is among its k largest; of equals the first are; always what is not finite.

    A threshold and a running count, since a stable sort takes ten times as long.
    """
    if k >= score.shape[-1]:
        return torch.ones_like(score, dtype=torch.bool)
    at = torch.topk(score, k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    above, equal = score > at, score == at
    room = k - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= room)) | ~score.isfinite()


def _score(w: Tensor, step: float | Tensor) -> Tensor:
    """|z|/√s, whose order is that of z²/s; infinite where a step of 0 moves nothing, and z is not 0 anyway."""
    size = working(w).abs()
    if not isinstance(step, Tensor):
        return size if step > 0 else torch.full_like(size, math.inf)
    return size / step.to(size.dtype).sqrt()


def _support_first(w: Tensor, grad: Tensor) -> Tensor:
    return torch.where(w != 0, math.inf, working(grad).abs())


def tangential(w: Tensor, grad: Tensor, free: Tensor, outside: Tensor) -> Tensor:
    """|g| where a coordinate is free to move, 0 elsewhere, infinite outside of the set."""
    g = working(grad)
    found = torch.where(outside, math.inf, torch.where(free | g.isnan(), g.abs(), 0.0))
    return torch.where(w.isfinite(), found, math.nan).to(w.dtype)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked_keep(keep: object) -> Keep:
    if isinstance(keep, int | float | numbers.Real) and not isinstance(keep, bool):
        whole, number = isinstance(keep, numbers.Integral), float(keep)
        if whole and number >= 1:
            return int(number)
        if not whole and 0 < number <= 1:
            return number
    raise InputError(
        f"keep={keep!r}: expected how many weights stay, a whole number ≥ 1, or a share (float) above 0 and up to 1"
    )
