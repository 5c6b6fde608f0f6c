"""The optima of one linear model at several strengths, each with what is proved about it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.certifying.conjugates import Squares
from torchshrink.certifying.duality import gap_of
from torchshrink.certifying.linear_model import LinearModel
from torchshrink.errors import NoDualError
from torchshrink.optimum import coordinate_descent
from torchshrink.optimum.newton import MeanLoss, Problem, minimise

CLOSE = 1e-6  # of F: a duality gap with which a point is the optimum


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
        return not bool(self.l1.any() or self.l2.any() or self._on_intercept)

    @property
    def uniform(self) -> tuple[float, float] | None:
        """The one l1 > 0 and the one l2 of all weights, where there are such, and free intercepts if any."""
        l1, l2 = float(self.l1.flatten()[0]), float(self.l2.flatten()[0])
        same = bool((self.l1 == l1).all() and (self.l2 == l2).all())
        return (l1, l2) if same and 0 < l1 < torch.inf and not self._on_intercept else None

    @property
    def _on_intercept(self) -> bool:
        return self.intercept is not None and bool(self.intercept[0].any() or self.intercept[1].any())


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
        return features @ self.weight.mT + (0.0 if self.bias is None else self.bias)


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
    ones = A.new_ones(len(A), 1)
    mean_loss = MeanLoss(torch.cat([A, ones], 1) if layer.bias is not None else A, model.row_loss)
    W = A.new_zeros(layer.out_features, mean_loss.features.shape[1])
    descended = _descended(model, penalties)
    found = []
    for penalty, near in zip(penalties, descended, strict=True):
        at = None
        if near is not None:
            W = near
            at = _proved(model, penalty, W, settled=False)
        elif penalty.free and isinstance(model.row_loss, Squares):
            W = _least_squares(A, model.row_loss, intercept=layer.bias is not None)
            at = _proved(model, penalty, W, settled=True)
        if at is None or not at.settled or (exactly and near is not None):
            # Without penalty there may be no end, and where it then stops depends on where it begins.
            start = torch.zeros_like(W) if penalty.free else W
            minimum = minimise(Problem(mean_loss, *_joined(penalty)), start, tol=1e-15 if exactly else 1e-11)
            at = _proved(model, penalty, minimum.W, settled=minimum.settled)
            W = minimum.W if at.settled else W
        found.append(at)
    return found


def _descended(model: LinearModel, penalties: Sequence[Strengths]) -> list[Tensor | None]:
    """Where coordinate descent ended, (k, d) with the intercepts as last column; None where it does not apply."""
    found: list[Tensor | None] = [None] * len(penalties)
    uniform = [penalty.uniform for penalty in penalties]
    at = [place for place, pair in enumerate(uniform) if pair is not None]
    if at and isinstance(model.row_loss, Squares) and model.features.device.type == "cpu":
        pairs = [pair for pair in uniform if pair is not None]
        intercept = model.layer.bias is not None
        for place, (weight, bias) in zip(
            at, coordinate_descent.path(model.features, model.row_loss, pairs, intercept=intercept), strict=True
        ):
            found[place] = weight if bias is None else torch.cat([weight, bias.unsqueeze(1)], 1)
    return found


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


def _proved(model: LinearModel, penalty: Strengths, W: Tensor, *, settled: bool) -> Optimum:
    layer = model.layer
    weight, bias = (W, None) if layer.bias is None else (W[:, :-1].contiguous(), W[:, -1].contiguous())
    optimum = Optimum(weight, bias, None, settled)
    outputs = optimum.outputs(model.features)
    penalised = penalty.l1 + penalty.l2 > 0
    if not bool(penalised.all()):
        endless = penalty.free and model.row_loss.separated(outputs)
        return dataclasses.replace(optimum, gap=math.inf if endless else None, settled=settled and not endless)
    there = dataclasses.replace(model, outputs=outputs)
    on_intercept = penalty.intercept
    if on_intercept is not None and not bool((on_intercept[0] + on_intercept[1] > 0).any()):
        on_intercept = None
    value = float(model.row_loss.value(outputs))
    value += float((penalty.l1 * weight.abs() + penalty.l2 * weight.square()).sum())
    try:
        gap = gap_of(there, weight, bias, (penalty.l1, penalty.l2), on_intercept) / max(value, 1e-300)
    except NoDualError:
        return optimum
    return dataclasses.replace(optimum, gap=gap, settled=settled or gap <= CLOSE)
