"""How much the gradient of the mean loss owes to which rows there are: its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchshrink.certifying.full_data import FullLoss
from torchshrink.data.lazy import subset
from torchshrink.training import row_weights

BATCHES, ROWS, FEWEST = 16, 64, 8


def standard_error(full: FullLoss, parameters: Sequence[nn.Parameter]) -> float | None:
    """√(S²/n), with S² the rows' variance of the gradient, summed over the weights that are not zero.

    By how much other rows of the same kind would change the gradient. A weight that is zero has no part in it: there a
    penalty holds what the rows change. S² is that of 16 batches of m ≤ 64 rows, drawn by a seed of their own:
    Var g_B = S²·(1/m − 1/n).

    Args:
        full: the mean loss of n rows.
        parameters: the trainable ones.

    Returns:
        None where there are too few rows that the loss counts.
    """
    counted = row_weights(full.loss, full.y).nonzero().flatten()
    n = len(counted)
    if n < FEWEST:
        return None
    m = min(ROWS, n // 2)
    _, whole = full.gradient(parameters)
    generator, squares = torch.Generator().manual_seed(0), []
    for _ in range(BATCHES):
        rows = counted[torch.randperm(n, generator=generator)[:m].to(counted.device)]
        _, part = replace(full, X=subset(full.X, rows), y=full.y[rows]).gradient(parameters)
        squares.append(math.fsum(_square(*each) for each in zip(parameters, part, whole, strict=True)))
    return math.sqrt(math.fsum(squares) / BATCHES / n / (1 / m - 1 / n))


def _square(weight: Tensor, part: Tensor, whole: Tensor) -> float:
    return float(((part - whole) * (weight.detach() != 0).to(part.dtype)).square().sum(dtype=torch.float64))
