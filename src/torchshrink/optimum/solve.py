"""The optima of one linear model at several strengths, each with what is proved about it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.certifying.conjugates import Squares
from torchshrink.certifying.duality import gaps_of
from torchshrink.certifying.linear_model import LinearModel
from torchshrink.optimum import coordinate_descent
from torchshrink.optimum.newton import MeanLoss, Problem, elastic_net, minimise

CLOSE = 1e-6  # of F: a duality gap with which a point is the optimum
AT_ONCE = 2**22  # outputs of several models that are looked at together


@dataclass(frozen=True, eq=False)
class Strengths:
    """The penalty Σ l1·|w| + l2·w² of a linear layer, in float64.

    Attributes:
        l1: on the weights (k, d).
        l2: likewise.
        intercept: (l1, l2) on the intercepts, (k,) each; zeros where they are free; None where there are none.
    """

    l1: Tensor
    l2: Tensor
    intercept: tuple[Tensor, Tensor] | None

    @property
    def free(self) -> bool:
        """Whether nothing is penalised."""
        return not bool(self.l1.any() or self.l2.any() or self.on_intercept)

    @property
    def uniform(self) -> tuple[float, float] | None:
        """The one l1 > 0 and the one l2 of all weights, where there are such, and free intercepts if any."""
        l1, l2 = float(self.l1.flatten()[0]), float(self.l2.flatten()[0])
        same = bool((self.l1 == l1).all() and (self.l2 == l2).all())
        return (l1, l2) if same and 0 < l1 < torch.inf and self.on_intercept is None else None

    @property
    def has_dual(self) -> bool:
        """Whether each weight is penalised, and so is each intercept, or none of them."""
        pairs = [(self.l1, self.l2), *([] if self.on_intercept is None else [self.on_intercept])]
        return all(bool((l1 + l2 > 0).all()) for l1, l2 in pairs)

    @functools.cached_property
    def on_intercept(self) -> tuple[Tensor, Tensor] | None:
        """`intercept`, or None where no intercept is penalised."""
        there = self.intercept is not None and bool(self.intercept[0].any() or self.intercept[1].any())
        return self.intercept if there else None


@dataclass(frozen=True, eq=False)
class Optimum:
    """Weights of a linear layer.

    Attributes:
        weight: (k, d), float64.
        bias: (k,), or None where the layer has none.
        gap: F is at most this above its minimum, as a share of F; None where that is not known; infinite where there is
            no minimum. So it is of a loss of classes without penalty where a plane separates the rows, since larger
            weights are then always better.
        settled: whether it is the optimum, by the gap, or else by its slopes.
    """

    weight: Tensor
    bias: Tensor | None
    gap: float | None
    settled: bool

    @property
    def stalled(self) -> bool:
        """Whether there may be a minimum, and the steps did not arrive."""
        return not self.settled and self.gap != math.inf

    def outputs(self, features: Tensor) -> Tensor:
        """What the layer gives for features (n, d): (n, k)."""
        return outputs_of(features, self.weight, self.bias)


def outputs_of(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What linear layers give for features (n, d): (…, n, k), of weights (…, k, d) and intercepts (…, k)."""
    flat = weight.reshape(-1, weight.shape[-1]) @ features.mT
    Z = flat.reshape(*weight.shape[:-1], len(features)).mT
    return Z if bias is None else Z + bias.unsqueeze(-2)


@torch.no_grad()
def solve(model: LinearModel, penalties: Sequence[Strengths], *, exactly: bool = False) -> list[Optimum]:
    """The optimum at each penalty, best given from the strongest down, as each begins where the one before it ended.

    Squares with no penalty, which may have many optima: the one of least ‖W‖.

    Args:
        model: features, targets and loss; its layer's weights say only how many there are, and are left alone.
        penalties: one for each optimum.
        exactly: down to rounding, and not only until the duality gap is small.
    """
    layer = model.layer
    A = model.features
    mean_loss = MeanLoss(torch.cat([A, A.new_ones(len(A), 1)], 1) if layer.bias is not None else A, model.row_loss)
    W = A.new_zeros(layer.out_features, mean_loss.features.shape[1])
    near = {} if exactly else _descended(model, penalties)
    found = dict(zip(near, _proved(model, [(penalties[k], W, False) for k, W in near.items()]), strict=True))
    left = []
    for place, penalty in enumerate(penalties):
        if place in found and found[place].settled:
            W = near[place]
            continue
        if penalty.free and isinstance(model.row_loss, Squares):
            W, settled = _least_squares(A, model.row_loss, intercept=layer.bias is not None), True
        else:
            # Without penalty there may be no end, and where it then stops depends on where it begins.
            start = torch.zeros_like(W) if penalty.free else near.get(place, W)
            minimum = minimise(Problem(mean_loss, *_joined(penalty)), start, tol=1e-15 if exactly else 1e-11)
            settled = minimum.settled
            W = minimum.W if settled else W
        left.append((place, penalty, W if settled else minimum.W, settled))
    proofs = _proved(model, [(penalty, at, settled) for _, penalty, at, settled in left])
    found |= {place: proof for (place, *_), proof in zip(left, proofs, strict=True)}
    return [found[place] for place in range(len(penalties))]


def _descended(model: LinearModel, penalties: Sequence[Strengths]) -> dict[int, Tensor]:
    """Where coordinate descent ended, by place, (k, d) with the intercepts as last column, where it applies."""
    at = [(place, penalty.uniform) for place, penalty in enumerate(penalties)]
    uniform = {place: pair for place, pair in at if pair is not None}
    if not (uniform and isinstance(model.row_loss, Squares) and model.features.device.type == "cpu"):
        return {}
    intercept = model.layer.bias is not None
    found = coordinate_descent.path(model.features, model.row_loss, [*uniform.values()], intercept=intercept)
    return dict(zip(uniform, found, strict=True))


def _joined(penalty: Strengths) -> tuple[Tensor, Tensor]:
    """(l1, l2) on weights and intercepts, (k, d) or (k, d + 1)."""
    if penalty.intercept is None:
        return penalty.l1, penalty.l2
    l1, l2 = penalty.intercept
    return torch.cat([penalty.l1, l1.unsqueeze(1)], 1), torch.cat([penalty.l2, l2.unsqueeze(1)], 1)


def _least_squares(A: Tensor, loss: Squares, *, intercept: bool) -> Tensor:
    at = A.mean(0) if intercept else torch.zeros_like(A[0])
    level = loss.target.mean(0) if intercept else torch.zeros_like(loss.target[0])
    driver = "gelsy" if A.device.type == "cpu" else None
    W = torch.linalg.lstsq(A - at, loss.target - level, driver=driver).solution.mT
    return torch.cat([W, (level - W @ at).unsqueeze(1)], 1) if intercept else W


def _proved(model: LinearModel, points: Sequence[tuple[Strengths, Tensor, bool]]) -> list[Optimum]:
    """What is proved of weights (k, d), or (k, d + 1) with intercepts, of which it is known whether they are settled."""
    found: list[Optimum] = []
    n, k = model.outputs.shape
    size = max(1, AT_ONCE // (n * k))
    for part in (points[at : at + size] for at in range(0, len(points), size)):
        W = torch.stack([W for _, W, _ in part])
        weight, bias = (W, None) if model.layer.bias is None else (W[..., :-1].contiguous(), W[..., -1].contiguous())
        outputs = outputs_of(model.features, weight, bias)
        gaps = _gaps(model, [penalty for penalty, *_ in part], weight, bias, outputs)
        for number, (penalty, _, settled) in enumerate(part):
            gap = gaps.get(number)
            endless = penalty.free and model.row_loss.separated(outputs[number])
            if endless:
                gap, settled = math.inf, False
            settled = settled or (gap is not None and gap <= CLOSE)
            found.append(Optimum(weight[number], None if bias is None else bias[number], gap, settled))
    return found


def _gaps(
    model: LinearModel, penalties: Sequence[Strengths], weight: Tensor, bias: Tensor | None, outputs: Tensor
) -> dict[int, float]:
    """Each gap as a share of F, by number, where there is one."""
    found: dict[int, float] = {}
    for free in (True, False):  # whether the intercepts are
        numbers = [
            number
            for number, each in enumerate(penalties)
            if each.has_dual and (each.intercept is None or each.on_intercept is None) is free
        ]
        if not numbers:
            continue
        some = [penalties[number] for number in numbers]
        l1, l2 = torch.stack([each.l1 for each in some]), torch.stack([each.l2 for each in some])
        pairs = [each.on_intercept for each in some if each.on_intercept is not None]
        on_intercept = tuple(torch.stack(each) for each in zip(*pairs, strict=True)) if pairs else None
        there = dataclasses.replace(model, outputs=outputs[numbers])
        own = None if bias is None else bias[numbers]
        gaps = gaps_of(there, weight[numbers], own, (l1, l2), on_intercept)
        value = model.row_loss.value(outputs[numbers]) + elastic_net(weight[numbers], l1, l2)
        if on_intercept is not None and own is not None:
            value = value + elastic_net(own.unsqueeze(-1), *(each.unsqueeze(-1) for each in on_intercept))
        shares = (gaps / value.clamp(min=1e-300)).tolist()
        found |= {number: share for number, share in zip(numbers, shares, strict=True) if not math.isnan(share)}
    return found
