"""What a mean loss says of rows: each row's own, which of them count, and whether a prediction is right."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchshrink.models.target_scale import rescales
from torchshrink.training.weighted import WeightedLoss

Loss = Callable[[Tensor, Tensor], Tensor]
"""A mean loss over a batch: (output (B, …), target (B, …)) -> scalar."""


class StandardisedMSELoss(nn.modules.loss._Loss):
    """mean(((f − y)/scale)²): squared errors in units of the target's standard deviation.

    >>> StandardisedMSELoss(2.0)(torch.tensor([4.0]), torch.tensor([0.0]))
    tensor(4.)
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch."""
        return nn.functional.mse_loss(output / self.scale, target / self.scale, reduction=self.reduction)


def default_loss(y: Tensor, model: nn.Module | None = None) -> nn.Module:
    """Cross entropy where the targets are class codes (whole numbers), mean squared error where they are numbers.

    For a ``model`` that ends in a fitted `models.Rescale`, the squared errors are in units of its scale: that is the
    loss that it was trained on (`models.TargetScale`).

    >>> default_loss(torch.tensor([0, 1, 2]))
    CrossEntropyLoss()
    """
    if not y.is_floating_point():
        return nn.CrossEntropyLoss()
    ends = [] if model is None else rescales(model)
    scale = float(ends[0].scale) if len(ends) == 1 and y.ndim == 1 else 1.0
    return nn.MSELoss() if scale == 1.0 else StandardisedMSELoss(scale)


def row_weights(loss: Loss, target: Tensor) -> Tensor:
    """How much each row counts in the loss's mean (n,), float64: 1; its class's weight; or its own (`WeightedLoss`).

    >>> row_weights(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), torch.tensor([0, 1]))
    tensor([1., 3.], dtype=torch.float64)
    """
    if isinstance(loss, WeightedLoss) and loss.mean_weight is None:
        return loss.weights(target).double()
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
        return torch.ones(len(target), dtype=torch.float64, device=target.device)
    ignored = target == loss.ignore_index
    codes = target.masked_fill(ignored, 0)
    each = torch.ones_like(codes, dtype=torch.float64) if loss.weight is None else loss.weight[codes].double()
    return each.masked_fill(ignored, 0).flatten(1).sum(1) if each.ndim > 1 else each.masked_fill(ignored, 0)


def row_losses(loss: Loss, output: Tensor, target: Tensor, *, among: Tensor | None = None) -> Tensor:
    """Each row's own loss (n,), given a loss that returns a mean; the mean of the rows' is the loss of all.

    A loss module of torch is asked with ``reduction="none"`` (a copy is), and what it returns for one row is averaged.
    Where its mean is weighted (by class: ``weight``, ``ignore_index``; or a `WeightedLoss`), a row's loss has its
    weight in it, as a share of the mean weight. Any other callable is called on one row at a time, as a batch of one.

    >>> row_losses(nn.MSELoss(), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2))
    tensor([ 2.5000, 12.5000])

    Args:
        loss: (output, target) -> scalar mean.
        output: (n, …).
        target: (n, …).
        among: the targets of all the rows whose mean is meant, where these are a part of them.
    """
    if isinstance(loss, WeightedLoss):
        return loss.among(target if among is None else among).of_rows(output, target)
    if isinstance(loss, nn.modules.loss._Loss):
        each = copy.copy(loss)
        each.reduction = "none"
        values = each(output, target)
        flat = values.unsqueeze(1) if values.ndim == 1 else values.flatten(1)
        if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and not target.is_floating_point():
            mean_weight = row_weights(loss, target if among is None else among).mean()
            return flat.sum(1) / mean_weight.to(flat.dtype)  # type: ignore[no-any-return]
        return flat.sum(1) if loss.reduction == "batchmean" else flat.mean(1)  # type: ignore[no-any-return]

    def one(row: Tensor, wanted: Tensor) -> Tensor:
        return loss(row.unsqueeze(0), wanted.unsqueeze(0))

    try:
        return torch.func.vmap(one)(output, target)
    except RuntimeError:  # what vmap cannot take, such as a branch on a value, a loop can
        return torch.stack([one(row, wanted) for row, wanted in zip(output, target, strict=True)])


def part_loss(loss: Loss, y: Tensor) -> Loss:
    """The loss whose batches add up, over an epoch, to the mean over all targets y (n, …) of a part of the data."""
    return loss.among(y) if isinstance(loss, WeightedLoss) else loss


def class_codes(loss: Loss, y: Tensor) -> Tensor | None:
    """The class of each row (n,), int64, where the targets are classes; None where they are numbers, or many a row.

    Classes are codes, or 0 and 1 under `nn.BCEWithLogitsLoss`, in one column.

    >>> class_codes(nn.BCEWithLogitsLoss(), torch.tensor([[0.0], [1.0]]))
    tensor([0, 1])
    """
    if isinstance(loss, WeightedLoss):
        return class_codes(loss.loss, loss.wanted(y))
    if not y.is_floating_point():
        return y if y.ndim == 1 else None
    bits = isinstance(loss, nn.BCEWithLogitsLoss) and y.numel() == len(y) and bool(((y == 0) | (y == 1)).all())
    return y.flatten().long() if bits else None


def class_hits(output: Tensor, codes: Tensor) -> Tensor:
    """Whether the class with the largest of several outputs, or the sign of a single one, is right: (lanes, n).

    >>> class_hits(torch.tensor([[-1.0], [2.0]]), torch.tensor([0, 0]))
    tensor([[ True, False]])

    Args:
        output: of each row, after what else there is: (…, n, classes), (…, n, 1), or (…, n) for a single lane.
        codes: the right classes (n,).
    """
    single = output.ndim == 1 or output.shape[-1] == 1
    chosen = (output > 0).long() if single else output.argmax(-1)
    return chosen.reshape(-1, len(codes)) == codes


def counted_of(y: Tensor, loss: Loss) -> Tensor | None:
    """Which of the class codes y (n, …) the loss counts; None where it counts all of them.

    >>> counted_of(torch.tensor([0, -100, 1]), nn.CrossEntropyLoss())
    tensor([ True, False,  True])
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or y.is_floating_point():
        return None
    counted = y != loss.ignore_index
    return None if bool(counted.all()) else counted


def mean_of_nothing(loss: Loss, target: Tensor) -> bool:
    """Whether the loss ignores each of these targets, so that their mean is 0/0."""
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
        return False
    # Looked at where it can be: on another device a look would wait for all that is under way.
    return target.device.type == "cpu" and bool((target == loss.ignore_index).all())


def hits_of(output: Tensor, target: Tensor, loss: Loss) -> Tensor | None:
    """Of the targets that the loss counts, how many are predicted, and how many there are (2,), float64.

    None where the targets are no classes.
    """
    if target.is_floating_point() or output.ndim != target.ndim + 1:
        return None
    hits = output.argmax(1) == target
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        counted = target != loss.ignore_index
        return torch.stack([(hits & counted).sum(), counted.sum()]).double()
    return torch.stack([hits.sum(), torch.ones_like(hits).sum()]).double()
