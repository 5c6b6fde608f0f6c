"""Rows that count more than others: in the loss, and in the means and scales that standardise the features.

A path hands rows and targets to whatever trains; so a row's weight travels as the last column of both.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from torchshrink.models import Preprocess


class WeightedStandardise(Preprocess):
    """`Preprocess` of numbers (…, d + 1) whose last column is the row's weight: (…, d), standardised by them.

    >>> standardise = WeightedStandardise(1)
    >>> standardise.fit(torch.tensor([[1.0, 3.0], [5.0, 1.0]]))
    >>> standardise.mean, standardise.scale
    (tensor([2.], dtype=torch.float64), tensor([1.7321], dtype=torch.float64))
    """

    def __init__(self, inputs: int) -> None:
        super().__init__([0] * inputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Leave the weight out, and standardise."""
        return super().forward(rows[..., :-1])

    @torch.no_grad()
    def fit_parts(self, parts: Iterable[Tensor]) -> None:
        """Weighted means and standard deviations, as if each row were there as often as its weight says."""
        rows = torch.cat(list(parts)).double()
        values, weights = rows[:, :-1], rows[:, -1:]
        counted = values[weights.squeeze(1) > 0]
        constant = (counted == counted[:1]).all(0)
        mean = (weights * values).sum(0) / weights.sum()
        scale = ((weights * (values - mean).square()).sum(0) / weights.sum()).sqrt()
        self.mean.copy_(torch.where(constant, counted[0], mean))
        self.scale.copy_(torch.where(constant | (scale < torch.finfo(scale.dtype).tiny), 1.0, scale))

    def plain(self) -> Preprocess:
        """The same for rows without a weight."""
        made = Preprocess(self.sizes).to(self.mean.device)
        made.load_state_dict(self.state_dict())
        return made.to(self._like.dtype)


class WeightedLoss(nn.Module):
    """Σ wᵢ·ℓ(fᵢ, yᵢ) / (B·w̄) over a batch of B rows, whose targets (B, k + 1) have the weight wᵢ as last column.

    Args:
        classes: whether the targets are class codes, with cross entropy for ℓ; else it is the mean of k squared errors.
        mean_weight: w̄ over all rows, so that the batches of an epoch add up to the weighted mean.
    """

    def __init__(self, classes: bool, mean_weight: float) -> None:
        super().__init__()
        self.classes = classes
        self.mean_weight = mean_weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The batch's share of the weighted mean."""
        weights, wanted = target[:, -1], target[:, :-1]
        if self.classes:
            each = nn.functional.cross_entropy(output, wanted.squeeze(1).long(), reduction="none")
        else:
            each = (output - wanted).square().mean(1)
        return (weights * each).mean() / self.mean_weight

    def extra_repr(self) -> str:
        """What ℓ is."""
        return "cross entropy" if self.classes else "squared error"
