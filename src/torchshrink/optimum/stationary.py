"""A path of stationary points under group penalties and those that are not convex, each with what is proved of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.certifying.duality import norm_gap
from torchshrink.certifying.linear_model import LinearModel, exempts
from torchshrink.optimum.composite import Composite, descend
from torchshrink.optimum.newton import MeanLoss
from torchshrink.optimum.solve import CLOSE, ENOUGH, NOTHING, Optima, outputs_of, solve
from torchshrink.optimum.strengths import Strengths
from torchshrink.penalties import Penalty
from torchshrink.regularizer.certificate import measure


@torch.no_grad()
def solve_composite(model: LinearModel, penalties: Sequence[Penalty | None], *, exactly: bool = False) -> Optima:
    """A stationary point at each penalty on the weights, given from the strongest down; the intercepts are free.

    Where F is convex it is the optimum, begun where the one before it ended. Else it is begun at the optimum of the
    penalty's convex part, which is the same wherever it is asked for: which of several stationary points is found
    depends on no other strength.

    Args:
        model: as in `solve`.
        penalties: those that `acts_here` takes; None, or of strength 0: there is none.
        exactly: down to rounding.
    """
    layer, A = model.layer, model.features
    inputs, intercept = layer.in_features, layer.bias is not None
    mean_loss = MeanLoss(torch.cat([A, A.new_ones(len(A), 1)], 1) if intercept else A, model.row_loss)
    acting = [None if each is None or float(each.strength) == 0 else each for each in penalties]
    free = [number for number, penalty in enumerate(acting) if penalty is None]
    nothing = Strengths.of(layer.weight, [(0.0, 0.0)] * len(free), [(0.0, 0.0)] * len(free) if intercept else None)
    found = dict(zip(free, _each(solve(model, nothing, exactly=exactly)), strict=True)) if free else {}
    starts = _convex_starts(model, acting)
    W = A.new_zeros(layer.out_features, mean_loss.features.shape[1])
    slope = mean_loss.slope(A.new_zeros(len(A), layer.out_features))[:, :inputs]
    for number, penalty in enumerate(acting):
        if penalty is None:
            continue
        top = float(penalty.critical_strength(slope))
        enough = 0.1 * ENOUGH * min(1.0, float(penalty.strength) / top) if top > 0 else 0.0
        tol = (1e-14 if exactly else enough) * float(slope.abs().max())
        W, settled = descend(Composite(mean_loss, penalty, inputs), starts.get(number, W), tol=tol)
        found[number] = _proved(model, penalty, W, settled=settled)
    every = [found[number] for number in range(len(acting))]
    return Optima(
        torch.stack([each.weight for each in every]),
        torch.stack([each.bias for each in every if each.bias is not None]) if intercept else None,
        [each.loss for each in every],
        [each.gap for each in every],
        [each.settled for each in every],
        [each.stationary for each in every],
    )


@dataclass(frozen=True, eq=False)
class _Single:
    """One of `Optima`."""

    weight: Tensor
    bias: Tensor | None
    loss: float
    gap: float | None
    settled: bool
    stationary: float | None = None


def _each(optima: Optima) -> list[_Single]:
    biases = [None] * len(optima.loss) if optima.bias is None else [*optima.bias]
    parts = zip(optima.weight, biases, optima.loss, optima.gap, optima.settled, strict=True)
    return [_Single(*part) for part in parts]


def _convex_starts(model: LinearModel, acting: Sequence[Penalty | None]) -> dict[int, Tensor]:
    """Of each penalty that is not convex, by its number, the optimum of its convex part."""
    parts = {number: each.convex_part for number, each in enumerate(acting) if each is not None and not each.convex}
    if not parts:
        return {}
    nets = [part.as_elastic_net for part in parts.values() if part is not None and part.as_elastic_net is not None]
    if len(nets) == len(parts):
        free = [(0.0, 0.0)] * len(parts) if model.layer.bias is not None else None
        optima = solve(model, Strengths.of(model.layer.weight, nets, free))
    else:
        optima = solve_composite(model, [*parts.values()])
    W = optima.weight if optima.bias is None else torch.cat([optima.weight, optima.bias.unsqueeze(-1)], -1)
    return dict(zip(parts, W, strict=True))


def _proved(model: LinearModel, penalty: Penalty, W: Tensor, *, settled: bool) -> _Single:
    """The gap, as a share of F, where there is one; else how far it is from stationarity."""
    inputs = model.layer.in_features
    weight, bias = W[:, :inputs].contiguous(), (W[:, inputs].contiguous() if model.layer.bias is not None else None)
    there = dataclasses.replace(model, outputs=outputs_of(model.features, weight, bias))
    loss = float(model.row_loss.value(there.outputs))
    if penalty.norm and not exempts(penalty, weight):
        nothing = float(model.row_loss.value(torch.zeros_like(there.outputs)))
        value = max(loss + float(penalty.value(weight)), NOTHING * nothing, 1e-300)
        gap = norm_gap(there, weight, penalty, free=bias is not None) / value
        if not math.isnan(gap):
            return _Single(weight, bias, loss, gap, gap <= CLOSE)
    U = model.row_loss.slopes(there.outputs)
    named: list[tuple[str, Tensor, Penalty | None]] = [("weight", weight, penalty)]
    slopes: list[Tensor | None] = [U.mT @ model.features / len(U)]
    if bias is not None:
        named, slopes = [*named, ("bias", bias, None)], [*slopes, U.mean(0)]
    relative = measure(named, slopes, loss=loss).relative
    return _Single(weight, bias, loss, None, settled or relative <= CLOSE, relative)
