"""The certificate of weights on data: everything that can be proved about them."""

from __future__ import annotations

import dataclasses

from torch import nn

from torchshrink.certifying.duality import duality_gap
from torchshrink.certifying.full_data import Data, full_loss
from torchshrink.certifying.standard_error import standard_error
from torchshrink.errors import NoDualError, UnsettledDualError
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.certificate import Certificate
from torchshrink.training import Loss


def certify(model: nn.Module, data: Data, regularizer: Regularizer, *, loss: Loss | None = None) -> Certificate:
    """How far the weights are from stationarity of F: on all the data, in evaluation mode, in float64.

    `Regularizer.certify` takes a closure for whatever is trained in whatever way; this is for data that fit in memory,
    and adds the duality gap where the model is convex. The model is left as it was.

    Args:
        model: what the regularizer is bound to.
        data: (X, y), all rows, on the model's device.
        regularizer: of this model; attached or not.
        loss: the mean loss without the penalty; by default as in training, by the kind of target.

    Raises:
        InputError: the data are no pair of tensors, or the loss depends on no trainable parameter.

    Example:
        >>> import torch, torchshrink as ts
        >>> model = nn.Linear(1, 1)
        >>> _ = nn.init.zeros_(model.weight), nn.init.constant_(model.bias, 2.0)
        >>> X, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]])
        >>> print(certify(model, (X, y), ts.Regularizer(model, ts.L1(1.5))).proves)
        a convex problem: F is at most 0 above its minimum
    """
    with full_loss(model, data, loss) as full:
        certificate = regularizer.certify(full)
        if not certificate.ok():
            error = standard_error(full, [p for _, p in regularizer.trainable()])
            certificate = dataclasses.replace(certificate, standard_error=error)
        try:
            gap = duality_gap(model, (full.X, full.y), regularizer, loss=full.loss).gap
        except UnsettledDualError as error:
            return dataclasses.replace(certificate, notes=(*certificate.notes, f"no duality gap: {error}"))
        except NoDualError:
            return certificate
    return dataclasses.replace(certificate, gap=gap)
