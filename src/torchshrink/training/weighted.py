"""The mean loss over rows that do not count alike: each row's weight travels as the last column of its target."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightedLoss(nn.Module):
    """Σ wᵢ·ℓ(fᵢ, yᵢ) / Σ wᵢ over a batch whose targets (B, k + 1) have the weights wᵢ ≥ 0 as their last column.

    Whole weights count as repetitions do. Made `among` the rows of a part of the data it is Σ wᵢ·ℓ(fᵢ, yᵢ) / (B·w̄),
    with their mean weight w̄: the batches of an epoch then add up to the part's weighted mean, however the heavy rows
    fall; with each batch's own weights they would not.

    >>> loss = WeightedLoss(nn.MSELoss())
    >>> output, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    >>> loss(output, target)
    tensor(3.)

    Args:
        loss: ℓ's mean, one of torch's: of class codes (`nn.CrossEntropyLoss`), or of numbers shaped as the output is.
        mean_weight: w̄; None: that of each batch.
    """

    def __init__(self, loss: nn.modules.loss._Loss, mean_weight: Tensor | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.mean_weight = mean_weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The batch's mean."""
        return self.of_rows(output, target).mean()

    def of_rows(self, output: Tensor, target: Tensor) -> Tensor:
        """wᵢ·ℓ(fᵢ, yᵢ)/w̄ of each row (B,)."""
        each = copy.copy(self.loss)
        each.reduction = "none"
        values = each(output, self.wanted(target).reshape(output.shape[: 1 if self._codes else output.ndim]))
        weights = self.weights(target)
        mean = weights.mean() if self.mean_weight is None else self.mean_weight
        # Where no row counts, the mean of nothing is 0.
        mean = mean.clamp(min=torch.finfo(weights.dtype).tiny)
        rows: Tensor = values.flatten(1).mean(1) if values.ndim > 1 else values
        return weights / mean * rows

    def among(self, target: Tensor) -> WeightedLoss:
        """The same with w̄ of these targets (n, k + 1)."""
        return WeightedLoss(self.loss, self.weights(target).mean())

    def wanted(self, target: Tensor) -> Tensor:
        """The targets themselves: codes (B,), int64, or numbers (B, k)."""
        return target[:, 0].long() if self._codes else target[:, :-1]

    def weights(self, target: Tensor) -> Tensor:
        """The rows' weights (…, B) in targets (…, B, k + 1)."""
        return target[..., -1]

    def __repr__(self) -> str:
        return f"WeightedLoss({self.loss})"

    @property
    def _codes(self) -> bool:
        return isinstance(self.loss, nn.CrossEntropyLoss)
