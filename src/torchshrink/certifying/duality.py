"""How far above its minimum F can be at most: the duality gap of the convex models, linear and logistic regression.

With features A (n, d), outputs z = A·Wᵀ + b, row losses f, and h the penalty of one weight,

    F(W, b) = (1/n)·Σ f(z_i) + Σ h(w),    D(U) = −(1/n)·Σ f*(u_i) − Σ h*(v),    V = −Uᵀ·A/n,

F(W, b) ≥ D(U) for all W, b and every U that is feasible: Σ_i u_i = 0 where the intercept b is free. They are equal at
the optimum, where u_i = f'(z_i). For h(w) = l1·|w| + l2·w², h*(v) = (|v| − l1)₊²/(4·l2), which for l2 = 0 asks for
|v| ≤ l1. So the slopes f'(z) at the best intercept for W, times c = min(1, l1/max|v|), are feasible; with l2 > 0 they
are without c, and the better of the two is taken. With weights each coordinate has its own l1 and l2, and c is the
least of l1/|v|; where some of them are 0 there is no such c, and no gap. The gap F − D is the sum of the Fenchel–Young
losses of f and h, none of them negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certifying.conjugates import Logistic, RowLoss, Softmax, Squares
from torchshrink.certifying.full_data import Data, FullLoss, full_loss
from torchshrink.data.lazy import LazyRows
from torchshrink.errors import NoDualError, UnsettledDualError
from torchshrink.models import Rescale
from torchshrink.penalties.proximal import soft_threshold
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.activations import live_activations
from torchshrink.training import Loss, StandardisedMSELoss


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

    def __str__(self) -> str:
        return f"objective {self.objective:.10g}, at most {self.gap:.3g} above its minimum"


def duality_gap(model: nn.Module, data: Data, regularizer: Regularizer, *, loss: Loss | None = None) -> DualityGap:
    """The duality gap of linear or logistic regression under `L1`, `L2` or `ElasticNet`, in float64.

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
    linear, after = _linear_of(model)
    if live_activations(model):
        raise NoDualError("Activations are on the model, and their penalty has no dual here: remove() them")
    weights = _strengths(linear.weight, regularizer)
    if weights is None:
        raise NoDualError("weight is not penalised: where the strength is 0 there is no bound to give")
    intercept = None if linear.bias is None else _strengths(linear.bias, regularizer)
    with full_loss(model, data, loss) as full, torch.no_grad():
        A, Z, mean = _features(full, linear)
        row_loss = _row_loss(full, Z, after)
        points = [(linear.weight.double(), A, *weights)]
        if intercept is not None:
            l1, l2 = intercept
            bias, ones = linear.bias.double().unsqueeze(1), torch.ones_like(A[:, :1])
            points.append((bias, ones, l1.unsqueeze(1), l2.unsqueeze(1)))
        free = linear.bias is not None and intercept is None
        gap = _gap(row_loss, Z, points, free)
        objective = mean + sum(float(p.value(w)) for w, p in regularizer.in_force().items())
    return DualityGap(gap, objective, objective - gap)


Point = tuple[Tensor, Tensor, Tensor, Tensor]  # weights (k, d), their features (n, d), l1 (k, d), l2 (k, d)


def _gap(row_loss: RowLoss, Z: Tensor, points: list[Point], free: bool) -> float:
    """The least gap over the dual points tried."""
    U = row_loss.with_intercept(Z) if free else row_loss.slopes(Z)
    # Slopes have the units of the targets, and rounding with them.
    if free and bool((U.mean(0).abs() > 1e-12 * U.abs().mean(0).clamp(min=1.0)).any()):
        raise UnsettledDualError("the best intercept was not found: look for huge values in the features")
    slopes = [-(U.mT @ features) / len(features) for _, features, _, _ in points]
    shares = [(l1 / V.abs())[V != 0] for V, (*_, l1, _) in zip(slopes, points, strict=True)]
    c = min([1.0, *(float(share.min()) for share in shares if len(share))])
    scales = {c, 1.0} if all(bool((l2 > 0).all()) for *_, l2 in points) else {c}
    return min(
        float(row_loss.fenchel_young(Z, scale * U).mean())
        + sum(float(_penalty_gap(w, scale * V, l1, l2)) for V, (w, _, l1, l2) in zip(slopes, points, strict=True))
        for scale in scales
    )


def _penalty_gap(w: Tensor, v: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """Σ h(w) + h*(v) − v·w, (k, d) each. With e = S(v, l1): l1·|w| − (v − e)·w + l2·(w − e/(2·l2))²."""
    curved = bool((l2 > 0).all())
    e = soft_threshold(v, l1) if curved else torch.zeros_like(v)  # without l2, v was scaled to |v| ≤ l1
    kink = (l1 * w.abs() - (v - e) * w).clamp(min=0)
    return kink.sum() + ((l2 * (w - e / (2 * l2)).square()).sum() if curved else 0.0)


def _linear_of(model: nn.Module) -> tuple[nn.Linear, list[nn.Module]]:
    """The model's only layer with parameters, and what stands after it."""
    layers = list(model) if type(model) is nn.Sequential else [model]
    trained = [at for at, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    if len(trained) != 1 or type(layers[trained[0]]) is not nn.Linear:
        found = ", ".join(type(layers[at]).__name__ for at in trained) or "no parameters at all"
        raise NoDualError(f"the model is not convex in its weights: {found}, where one nn.Linear is expected")
    linear, after = layers[trained[0]], layers[trained[0] + 1 :]
    assert isinstance(linear, nn.Linear)
    odd = [type(layer).__name__ for layer in after if not isinstance(layer, Rescale | nn.Identity)]
    if odd or len(after) > 1:
        raise NoDualError(f"{odd[0] if odd else 'more than one layer'} after the nn.Linear: at most a Rescale expected")
    if not all(p.requires_grad for p in linear.parameters()):
        raise NoDualError("a frozen weight or bias is not known to this dual: train both, or leave the bias out")
    return linear, after


def _strengths(w: Tensor, regularizer: Regularizer) -> tuple[Tensor, Tensor] | None:
    """(l1, l2) of the penalty in force on each coordinate of ``w``, in float64; None where nothing is penalised."""
    penalty = regularizer.in_force().get(w)
    if penalty is None:
        return None
    known = penalty.as_elastic_net
    if known is None:
        raise NoDualError(f"{penalty} has no dual here: L1, L2 or ElasticNet expected")
    l1, l2 = (torch.as_tensor(part, dtype=torch.float64, device=w.device).expand(w.shape) for part in known)
    penalised = l1 + l2 > 0
    if not bool(penalised.any()):
        return None
    if not bool(penalised.all()):
        raise NoDualError(f"{penalty} exempts coordinates: where the strength is 0 there is no bound to give")
    return l1, l2


def _features(full: FullLoss, linear: nn.Linear) -> tuple[Tensor, Tensor, float]:
    """What enters and what leaves the linear layer, (n, d) and (n, k) in float64, and the mean loss."""
    if isinstance(full.X, LazyRows):
        raise UnsettledDualError("it needs all rows in memory, and these are read from a Dataset")
    seen: list[tuple[Tensor, Tensor]] = []
    hook = linear.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].double(), output.double())))
    try:
        mean = sum(part.item() for part in full.parts())
    finally:
        hook.remove()
    A, Z = (torch.cat(each) for each in zip(*seen, strict=True))
    if A.ndim != 2 or len(A) != len(full.X):
        raise NoDualError(f"the nn.Linear takes {tuple(A.shape)} for {len(full.X)} rows: one row of features expected")
    return A, Z, mean


def _row_loss(full: FullLoss, Z: Tensor, after: list[nn.Module]) -> RowLoss:
    """The loss of one row as a function of what leaves the linear layer."""
    loss, y, classes = full.loss, full.y, Z.shape[1]
    rescale = next((layer for layer in after if isinstance(layer, Rescale)), None)
    squares = isinstance(loss, nn.MSELoss | StandardisedMSELoss) and loss.reduction == "mean"
    if squares and y.numel() == Z.numel():
        mean, scale = (0.0, 1.0) if rescale is None else (float(rescale.mean), float(rescale.scale))
        unit = loss.scale if isinstance(loss, StandardisedMSELoss) else 1.0
        return Squares((y.double().reshape(Z.shape) - mean) / scale, (scale / unit) ** 2 / classes)
    logits = rescale is None and isinstance(loss, nn.CrossEntropyLoss | nn.BCEWithLogitsLoss)
    plain = logits and loss.reduction == "mean" and loss.weight is None  # type: ignore[attr-defined]
    if plain and type(loss) is nn.BCEWithLogitsLoss and loss.pos_weight is None and y.shape == Z.shape:
        return Logistic(y.double(), 1 / classes)
    if plain and type(loss) is nn.CrossEntropyLoss:
        codes = not y.is_floating_point() and y.ndim == 1 and bool(((y >= 0) & (y < classes)).all())
        if codes or y.shape == Z.shape:
            # A class that is left out by ignore_index is no class code, and so is refused below.
            q = nn.functional.one_hot(y, classes).double() if codes else y.double()
            return Softmax(q * (1 - loss.label_smoothing) + loss.label_smoothing / classes)
    raise NoDualError(f"{loss} with these targets has no dual here: a plain mean of squares or cross entropy expected")
