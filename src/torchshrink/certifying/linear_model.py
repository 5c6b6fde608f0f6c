"""Linear and logistic regression as what they are: features, outputs linear in them, and a loss of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certifying.conjugates import Logistic, RowLoss, Softmax, Squares
from torchshrink.certifying.full_data import FullLoss
from torchshrink.data.lazy import LazyRows
from torchshrink.errors import NoDualError, UnsettledDualError
from torchshrink.models import Rescale
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import Strength
from torchshrink.regularizer import Regularizer
from torchshrink.training import StandardisedMSELoss


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A model with one linear layer, on its data, in float64.

    Attributes:
        layer: the linear layer.
        after: the modules after it.
        features: what enters it (n, d).
        outputs: what leaves it (n, k).
        row_loss: of one row, as a function of what leaves it.
        loss: the mean loss.
        digits: the dtype of which features and weights have the digits: the model's own, before it was made float64.
    """

    layer: nn.Linear
    after: tuple[nn.Module, ...]
    features: Tensor
    outputs: Tensor
    row_loss: RowLoss
    loss: float
    digits: torch.dtype = torch.float64


def linear_model(full: FullLoss) -> LinearModel:
    """A model and its data as linear or logistic regression.

    Raises:
        NoDualError: it is neither.
        UnsettledDualError: its rows are not in memory.
    """
    layer, after = linear_layer(full.model)
    features, outputs, loss = _features(full, layer)
    return LinearModel(layer, tuple(after), features, outputs, _row_loss(full, outputs, after), loss)


def linear_layer(model: nn.Module) -> tuple[nn.Linear, list[nn.Module]]:
    """The model's only layer with parameters, and what stands after it."""
    layers = list(model) if type(model) is nn.Sequential else [model]
    trained = [at for at, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    if len(trained) != 1 or type(layers[trained[0]]) is not nn.Linear:
        found = ", ".join(type(layers[at]).__name__ for at in trained) or "no parameters at all"
        raise NoDualError(f"the model is not convex in its weights: {found}, where one nn.Linear is expected")
    linear, after = layers[trained[0]], layers[trained[0] + 1 :]
    assert isinstance(linear, nn.Linear)
    odd = [type(layer).__name__ for layer in after if not isinstance(layer, Rescale | nn.Identity | nn.Flatten)]
    if odd or len(after) > 1:
        what = odd[0] if odd else "more than one layer"
        raise NoDualError(f"{what} after the nn.Linear: at most a Rescale or a Flatten expected")
    if not all(p.requires_grad for p in linear.parameters()):
        raise NoDualError("a frozen weight or bias is not known to this dual: train both, or leave the bias out")
    return linear, after


def elastic_net_of(w: Tensor, in_force: Mapping[Tensor, Penalty]) -> tuple[Strength, Strength]:
    """(l1, l2) of the penalty on ``w``, numbers or what broadcasts to it; 0 where nothing is penalised.

    Raises:
        NoDualError: the penalty is no elastic net.
    """
    penalty = in_force.get(w)
    known = (0.0, 0.0) if penalty is None else penalty.as_elastic_net
    if known is None:
        raise NoDualError(f"{penalty} has no dual here: L1, L2, ElasticNet or a norm expected")
    return known


def norm_on(w: Tensor, regularizer: Regularizer) -> Penalty | None:
    """The penalty in force on ``w`` where it is no elastic net, but a norm; None where it is not.

    Raises:
        NoDualError: it exempts coordinates.
    """
    penalty = regularizer.in_force().get(w)
    if penalty is None or penalty.as_elastic_net is not None or not penalty.norm or float(penalty.strength) == 0:
        return None
    if exempts(penalty, w):
        raise NoDualError(f"{penalty} exempts coordinates: where the strength is 0 there is no bound to give")
    return penalty


def exempts(penalty: Penalty, w: Tensor) -> bool:
    """Whether there are coordinates on which it does not act."""
    exempt = penalty.exempt(w)
    return exempt is not None and bool(exempt.any())


def strengths_on(w: Tensor, regularizer: Regularizer) -> tuple[Tensor, Tensor] | None:
    """(l1, l2) on each coordinate of ``w``, in float64, where all of them are penalised; None where none is.

    Raises:
        NoDualError: in some of them, or the penalty is no elastic net.
    """
    known = elastic_net_of(w, regularizer.in_force())
    l1, l2 = (torch.as_tensor(part, dtype=torch.float64, device=w.device).expand(w.shape) for part in known)
    penalised = l1 + l2 > 0
    if not bool(penalised.any()):
        return None
    if not bool(penalised.all()):
        exempting = regularizer.in_force()[w]
        raise NoDualError(f"{exempting} exempts coordinates: where the strength is 0 there is no bound to give")
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
    A, Z = seen[0] if len(seen) == 1 else (torch.cat(each) for each in zip(*seen, strict=True))
    if A.ndim != 2 or len(A) != len(full.X):
        raise NoDualError(f"the nn.Linear takes {tuple(A.shape)} for {len(full.X)} rows: one row of features expected")
    return A, Z, mean


def _row_loss(full: FullLoss, Z: Tensor, after: Sequence[nn.Module]) -> RowLoss:
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
        codes = codes and not bool((y == loss.ignore_index).any())
        if codes or (y.is_floating_point() and y.shape == Z.shape):
            q = nn.functional.one_hot(y, classes).double() if codes else y.double()
            return Softmax(q * (1 - loss.label_smoothing) + loss.label_smoothing / classes)
    raise NoDualError(f"{loss} with these targets has no dual here: a plain mean of squares or cross entropy expected")
