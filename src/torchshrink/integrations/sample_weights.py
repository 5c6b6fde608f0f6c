"""Rows that count more than others, in the means and scales that standardise the features.

A path hands rows and targets to whatever trains; so a row's weight travels as the last column of both, and the loss
(`torchshrink.training.WeightedLoss`) reads it there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

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
