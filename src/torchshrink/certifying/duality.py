"""How far above its minimum F can be at most: the duality gap of the convex models, linear and logistic regression.

With features A (n, d), outputs z = A·Wᵀ + b, row losses f, and h the penalty of one weight,

    F(W, b) = (1/n)·Σ f(z_i) + Σ h(w),    D(U) = −(1/n)·Σ f*(u_i) − Σ h*(v),    V = −Uᵀ·A/n,

F(W, b) ≥ D(U) for all W, b and every U that is feasible: Σ_i u_i = 0 where the intercept b is free. They are equal at
the optimum, where u_i = f'(z_i). For h(w) = l1·|w| + l2·w², h*(v) = (|v| − l1)₊²/(4·l2), which for l2 = 0 asks for
|v| ≤ l1. So the slopes f'(z) at the best intercept for W, times c = min(1, l1/max|v|), are feasible; where l2 > 0 they
are without c, and the better of the two is taken. With weights each coordinate has its own l1 and l2, and c is the
least of l1/|v|; where both of them are 0 there is no such c, and no gap. The gap F − D is the sum of the Fenchel–Young
losses of f and h, none of them negative.

Where the penalty is a norm Ω instead, of groups or of singular values, D(U) = −(1/n)·Σ f*(u_i) for all V that Ω's dual
norm bounds, and c is the strength over the least strength at which the slopes hold W at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certifying.conjugates import RowLoss
from torchshrink.certifying.full_data import Data, full_loss
from torchshrink.certifying.linear_model import LinearModel, linear_layer, linear_model, norm_on, strengths_on
from torchshrink.errors import NoDualError, UnsettledDualError
from torchshrink.penalties import Penalty
from torchshrink.penalties.proximal import soft_threshold
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.activations import live_activations
from torchshrink.support.tables import html_of_pairs
from torchshrink.training import Loss


@dataclass(frozen=True)
class DualityGap:
    """A proof of how good weights are.

    Attributes:
        gap: F(w) is at most this far above the minimum of F.
        objective: F(w).
        bound: the lower bound of the minimum, ``objective − gap``.
    """

    gap: float
    objective: float
    bound: float

    def _repr_html_(self) -> str:
        return html_of_pairs([(name, f"{value:.10g}") for name, value in vars(self).items()], "duality gap")

    def __str__(self) -> str:
        return f"objective {self.objective:.10g}, at most {self.gap:.3g} above its minimum"


def duality_gap(model: nn.Module, data: Data, regularizer: Regularizer, *, loss: Loss | None = None) -> DualityGap:
    """The duality gap of linear or logistic regression under `L1`, `L2`, `ElasticNet` or a norm, in float64.

    Norms are `GroupLasso`, `SparseGroupLasso` and `NuclearNorm`.

    Args:
        model: an `nn.Linear`, or an `nn.Sequential` with one, which modules without parameters may precede (such as
            `Preprocess`) and `Rescale` may follow: what ``ts.models`` makes without hidden layers.
        data: (X, y), all rows, on the model's device.
        regularizer: of this model.
        loss: `nn.MSELoss`, `nn.CrossEntropyLoss` (two classes or more; label smoothing too) or
            `nn.BCEWithLogitsLoss`, each a plain mean; by default as in training.

    Raises:
        NoDualError: an `InputError`: the model is not convex in its weights, or has no dual here.
        UnsettledDualError: a `NoDualError`: it has one, but rounding hides it.

    Example:
        At w = 0 and the mean of y, with a strength above the critical one, nothing is left to gain:

        >>> model = nn.Linear(1, 1, dtype=torch.float64)
        >>> _ = nn.init.zeros_(model.weight), nn.init.constant_(model.bias, 2.0)
        >>> X, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> from torchshrink.penalties import L1
        >>> duality_gap(model, (X, y), Regularizer(model, L1(1.5))).gap
        0.0
        >>> round(duality_gap(model, (X, y), Regularizer(model, L1(0.5))).gap, 3)
        0.25
    """
    linear, _ = linear_layer(model)
    if live_activations(model):
        raise NoDualError("Activations are on the model, and their penalty has no dual here: remove() them")
    norm = norm_on(linear.weight, regularizer)
    weights = None if norm else strengths_on(linear.weight, regularizer)
    if norm is None and weights is None:
        raise NoDualError("weight is not penalised: where the strength is 0 there is no bound to give")
    intercept = None if linear.bias is None else strengths_on(linear.bias, regularizer)
    with full_loss(model, data, loss) as full, torch.no_grad():
        found = linear_model(full)
        bias = None if linear.bias is None else linear.bias.double()
        if weights is not None:
            gap = float(gaps_of(found, linear.weight.double(), bias, weights, intercept))
        elif norm is not None and intercept is None:
            gap = norm_gap(found, linear.weight.double(), norm, free=bias is not None)
        else:
            raise NoDualError(f"the bias is penalised, which beside {norm} has no dual here: leave it free")
        if math.isnan(gap):
            raise UnsettledDualError("the best intercept was not found: look for huge values in the features")
        objective = found.loss + sum(float(p.value(w)) for w, p in regularizer.in_force().items())
    return DualityGap(gap, objective, objective - gap)


def gaps_of(
    model: LinearModel,
    weight: Tensor,
    bias: Tensor | None,
    strengths: tuple[Tensor, Tensor],
    on_intercept: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """How far F is above its minimum at most, of any number of weights at once: (…); NaN where it is not known.

    It is not where rounding hides the best intercept.

    Args:
        model: with the outputs of these weights (…, n, k).
        weight: (…, k, d).
        bias: (…, k), or None.
        strengths: (l1, l2) of each weight, (…, k, d) each.
        on_intercept: (l1, l2) of each intercept, (…, k) each; None where they are free, or none are there.
    """
    A = model.features
    points = [(weight, A, *strengths)]
    if bias is not None and on_intercept is not None:
        l1, l2 = on_intercept
        points.append((bias.unsqueeze(-1), torch.ones_like(A[:, :1]), l1.unsqueeze(-1), l2.unsqueeze(-1)))
    return _gaps(model.row_loss, model.outputs, points, bias is not None and on_intercept is None)


def norm_gap(model: LinearModel, weight: Tensor, penalty: Penalty, *, free: bool) -> float:
    """How far F is above its minimum at most; NaN where rounding hides the best intercept.

    Args:
        model: with the outputs of these weights (n, k).
        weight: (k, d).
        penalty: on the weights; a norm, of strength > 0, that exempts none of them.
        free: whether there are intercepts, unpenalised.
    """
    A, Z, row_loss = model.features, model.outputs, model.row_loss
    U = row_loss.with_intercept(Z) if free else row_loss.slopes(Z)
    if free and bool(_off(U)):
        return math.nan
    V = -(U.mT @ A) / len(A)
    worst = float(penalty.critical_strength(V))
    c = min(1.0, float(penalty.strength) / worst) if worst > 0 else 1.0
    kink = (penalty.value(weight) - c * (V * weight).sum()).clamp(min=0)
    return float(row_loss.fenchel_young(Z, c * U).mean() + kink)


def _off(U: Tensor) -> Tensor:
    """Whether slopes (…, n, k) that are to sum to 0 do not: (…). They have the units of the targets, and rounding."""
    return (U.mean(-2).abs() > 1e-12 * U.abs().mean(-2).clamp(min=1.0)).any(-1)


Point = tuple[Tensor, Tensor, Tensor, Tensor]  # weights (…, k, d), their features (n, d), l1 and l2 (…, k, d)


def _gaps(row_loss: RowLoss, Z: Tensor, points: list[Point], free: bool) -> Tensor:
    """The least gap over the dual points tried."""
    U = row_loss.with_intercept(Z) if free else row_loss.slopes(Z)
    # As one product: torch takes one with several (k, n), k small, row by row.
    flat_U = U.mT.reshape(-1, U.shape[-2])
    slopes = [
        (flat_U @ features).div_(-len(features)).reshape(*U.shape[:-2], U.shape[-1], -1) for _, features, *_ in points
    ]
    shares = [torch.where(V == 0, torch.inf, l1 / V.abs()) for V, (*_, l1, _) in zip(slopes, points, strict=True)]
    flat = [torch.where(l2 > 0, torch.inf, share) for share, (*_, l2) in zip(shares, points, strict=True)]
    gap = torch.full(Z.shape[:-2], torch.inf, dtype=Z.dtype, device=Z.device)
    every, least = _least(shares), _least(flat)
    for c in (every,) if torch.equal(every, least) else (every, least):
        found = row_loss.fenchel_young(Z, c[..., None, None] * U).mean(-1)
        for V, (w, _, l1, l2) in zip(slopes, points, strict=True):
            found = found + _penalty_gap(w, c[..., None, None] * V, l1, l2)
        gap = torch.minimum(gap, found)
    if free:
        gap = torch.where(_off(U), torch.nan, gap)
    return gap


def _least(shares: list[Tensor]) -> Tensor:
    """The least over all coordinates, and 1; (…)."""
    return torch.stack([share.flatten(-2).amin(-1) for share in shares]).amin(0).clamp(max=1.0)


def _penalty_gap(w: Tensor, v: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """Σ h(w) + h*(v) − v·w, (…). With e = S(v, l1): l1·|w| − (v − e)·w + l2·(w − e/(2·l2))²; e is 0 where l2 is."""
    kink = torch.where(w == 0, 0.0, l1 * w.abs() - v * w)
    curved = l2 > 0
    if not bool(curved.any()):
        return kink.clamp(min=0).flatten(-2).sum(-1)
    e = torch.where(curved, soft_threshold(v, l1), 0.0)  # without l2, v was scaled to |v| ≤ l1
    bend = torch.where(curved, l2 * (w - e / torch.where(curved, 2 * l2, 1.0)).square(), 0.0)
    return ((kink + e * w).clamp(min=0) + bend).flatten(-2).sum(-1)
