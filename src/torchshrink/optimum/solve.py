"""The optima of one linear model at several strengths, each with what is proved about it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.certifying.conjugates import Squares
from torchshrink.certifying.duality import gaps_of
from torchshrink.certifying.linear_model import LinearModel
from torchshrink.optimum.least_squares import CentredSquares, rank_tolerance
from torchshrink.optimum.newton import MeanLoss, Problem, elastic_net, minimise
from torchshrink.optimum.strengths import Strengths

CLOSE = 1e-6  # of F: a duality gap with which a point is the optimum
NOTHING = 1e-10  # of the loss at W = 0: what is less is taken as this, as where all rows are of one class
ENOUGH = 3e-7  # of l1: slopes with which the gap is below that of l1·|W|, and so of F, but for second order
AT_ONCE = 2**22  # outputs of several models that are looked at together


@dataclass(frozen=True, eq=False)
class Optima:
    """Weights of a linear layer at each of S strengths.

    Attributes:
        weight: (S, k, d), float64.
        bias: (S, k), or None where the layer has none.
        loss: the mean loss on the rows, of each.
        gap: F is at most this above its minimum, as a share of F; None where that is not known; infinite where there is
            no minimum. So it is of a loss of classes without penalty where a plane separates the rows, since larger
            weights are then always better.
        settled: whether it is the optimum: by the gap, or where none is known by its slopes.
        stationary: of each penalty that is not convex how far it is from stationarity, as a share of the penalty's pull
            (a certificate's ``relative``); None of others.
    """

    weight: Tensor
    bias: Tensor | None
    loss: list[float]
    gap: list[float | None]
    settled: list[bool]
    stationary: list[float | None] = dataclasses.field(default_factory=list)

    @property
    def stalled(self) -> list[bool]:
        """Whether there may be a minimum, and the steps did not arrive."""
        return [not settled and gap != math.inf for settled, gap in zip(self.settled, self.gap, strict=True)]


def outputs_of(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What linear layers give for features (n, d): (…, n, k), of weights (…, k, d) and intercepts (…, k)."""
    flat = weight.reshape(-1, weight.shape[-1]) @ features.mT
    Z = flat.reshape(*weight.shape[:-1], len(features)).mT
    return Z if bias is None else Z + bias.unsqueeze(-2)


@torch.no_grad()
def solve(model: LinearModel, penalties: Strengths, *, exactly: bool = False) -> Optima:
    """The optimum at each penalty, best given from the strongest down, as each begins where the one before it ended.

    With no penalty there may be many optima, where features depend on each other (`rank_tolerance`): then of squares
    the one of least ‖W‖, of another loss one whose weights are a combination of the rows.

    Args:
        model: features, targets and loss; its layer's weights say only how many there are, and are left alone.
        penalties: one for each optimum.
        exactly: down to rounding, and not only until the duality gap is small.
    """
    layer, A, row_loss = model.layer, model.features, model.row_loss
    W = A.new_zeros(len(penalties), layer.out_features, layer.in_features + (layer.bias is not None))
    settled = [False] * len(penalties)
    least = None
    if isinstance(row_loss, Squares):
        least = CentredSquares.of(A, row_loss, intercept=layer.bias is not None, digits=model.digits)
    near = set()
    if least is not None:
        if not exactly and A.device.type == "cpu":
            uniform = {place: pair for place, pair in enumerate(penalties.uniform) if pair is not None}
            near = set(uniform)
            if uniform:
                W[[*uniform]] = least.descended([*uniform.values()])
        for place, free in enumerate(penalties.free):
            if free:
                W[place], settled[place] = least.free, True
    found = _proved(model, penalties, W, settled) if near or any(settled) else None
    # Until the slopes promise a small gap, and then, where it is larger all the same, until nothing is left of them.
    for enough in (0.0,) if exactly else (ENOUGH, 0.0):
        left = [place for place in range(len(penalties)) if found is None or found.stalled[place]]
        if left:
            _minimise(model, penalties, W, settled, _Effort(left, near, exactly, enough))
            near |= {*left}
            found = _proved(model, penalties, W, settled)
    return _proved(model, penalties, W, settled) if found is None else found


@dataclass(frozen=True)
class _Effort:
    """Which optima are to be searched by steps, which of them have begun, and how far the steps go."""

    left: Sequence[int]
    begun: Collection[int]
    exactly: bool
    enough: float


def _minimise(model: LinearModel, penalties: Strengths, W: Tensor, settled: list[bool], effort: _Effort) -> None:
    """Steps towards the optima that are left, whose weights in W (S, k, D) are replaced."""
    A = model.features
    # Features of one size: slopes are then compared with what is theirs.
    size = torch.frexp(A.square().mean(0).sqrt())[1].double().exp2()
    A = A / size
    if model.layer.bias is not None:
        size = torch.cat([size, size.new_ones(1)])
        A = torch.cat([A, A.new_ones(len(A), 1)], 1)
    mean_loss = MeanLoss(A, model.row_loss)
    for place in effort.left:
        if penalties.free[place]:
            W[place], settled[place] = _free(model, exactly=effort.exactly)
            continue
        fresh = place not in effort.begun and place > 0
        l1, l2 = penalties.joined(place)
        bounded = penalties.bounded[place] and bool((l1 > 0).any())
        minimum = minimise(
            Problem(mean_loss, l1 / size, l2 / size.square()),
            (W[place - 1] if fresh else W[place]) * size,
            tol=1e-15 if effort.exactly or bounded else 1e-11,
            enough=effort.enough,
        )
        W[place], settled[place] = minimum.W / size, minimum.settled


def _free(model: LinearModel, *, exactly: bool) -> tuple[Tensor, bool]:
    """The least loss without penalty, (k, d) or (k, d + 1), and whether it is settled.

    In the features' own directions, each of one size; the loss does not change along any other.
    """
    A, intercept = model.features, model.layer.bias is not None
    mean = A.mean(0) if intercept else A.new_zeros(A.shape[1])
    _, sizes, directions = torch.linalg.svd(A - mean, full_matrices=False)
    kept = sizes > rank_tolerance(model.digits) * sizes.max()
    turned = directions[kept].mT / sizes[kept] * len(A) ** 0.5  # (d, r)
    reduced = (A - mean) @ turned
    if intercept:
        reduced = torch.cat([reduced, reduced.new_ones(len(A), 1)], 1)
    none = A.new_zeros(model.layer.out_features, reduced.shape[1])
    minimum = minimise(Problem(MeanLoss(reduced, model.row_loss), none, none), none, tol=1e-15 if exactly else 1e-11)
    if not intercept:
        return minimum.W @ turned.mT, minimum.settled
    weight = minimum.W[:, :-1] @ turned.mT
    return torch.cat([weight, minimum.W[:, -1:] - (weight @ mean).unsqueeze(1)], 1), minimum.settled


def _proved(model: LinearModel, penalties: Strengths, W: Tensor, settled: list[bool]) -> Optima:
    """What is proved of weights (S, k, d), or (S, k, d + 1) with intercepts; whether they are settled may be known."""
    n, k = model.outputs.shape
    weight, bias = (W, None) if model.layer.bias is None else (W[..., :-1].contiguous(), W[..., -1].contiguous())
    found = Optima(weight, bias, [], [], [])
    size = max(1, AT_ONCE // (n * k))
    for at in range(0, len(penalties), size):
        numbers = [*range(at, min(at + size, len(penalties)))]
        own = None if bias is None else bias[numbers]
        there = dataclasses.replace(model, outputs=outputs_of(model.features, weight[numbers], own))
        loss = model.row_loss.value(there.outputs)
        gaps = _gaps(there, penalties[numbers], weight[numbers], own, loss)
        for place, number in enumerate(numbers):
            endless = penalties.free[number] and model.row_loss.separated(there.outputs[place])
            gap = math.inf if endless else gaps.get(place)
            found.gap.append(gap)
            found.settled.append(settled[number] if gap is None else gap <= CLOSE)
        found.loss.extend(loss.tolist())
    return found


def _gaps(
    model: LinearModel, penalties: Strengths, weight: Tensor, bias: Tensor | None, loss: Tensor
) -> dict[int, float]:
    """Each gap as a share of F, by number, where there is one; ``loss`` is the mean loss of each."""
    found: dict[int, float] = {}
    nothing = float(model.row_loss.value(torch.zeros_like(model.outputs[0])))
    for penalised in (False, True):  # whether the intercepts are
        kinds = zip(penalties.bounded, penalties.on_intercept, strict=True)
        numbers = [number for number, (bounded, on) in enumerate(kinds) if bounded and on is penalised]
        if not numbers:
            continue
        some = penalties[numbers]
        own = None if bias is None else bias[numbers]
        there = dataclasses.replace(model, outputs=model.outputs[numbers])
        gaps = gaps_of(there, weight[numbers], own, (some.l1, some.l2), some.intercept if penalised else None)
        value = loss[numbers] + elastic_net(weight[numbers], some.l1, some.l2)
        if penalised and some.intercept is not None and own is not None:
            value = value + elastic_net(own.unsqueeze(-1), *(each.unsqueeze(-1) for each in some.intercept))
        shares = (gaps / value.clamp(min=max(NOTHING * nothing, 1e-300))).tolist()
        found |= {number: share for number, share in zip(numbers, shares, strict=True) if not math.isnan(share)}
    return found
