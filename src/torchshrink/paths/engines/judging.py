"""Trained lanes on rows that are given, all lanes of a fold at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from torchshrink.data.lazy import at_once, batches_of
from torchshrink.paths.engines.vmap_support import batchable
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.training import ROWS_AT_ONCE, counted_of, row_losses

Named = dict[str, Tensor]


def evaluate_lanes(
    skeleton: nn.Module, parameters: Named, own: Named, shared: Named, *, spec: TrainingSpec, rows: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Each row's loss and the accuracy of one fold's lanes, all at once, in the mode in which the skeleton is.

    Args:
        skeleton: the model's code.
        parameters: what the lanes train (S, …), by name.
        own: the buffers that training changes (S, …).
        shared: what all of them share (…).
        spec: whose rows and loss are meant.
        rows: the numbers of the rows (n,).

    Returns:
        Losses (S, n), float64, on the CPU; accuracies (S,), None where the targets are numbers.
    """
    lanes = len(next(iter(parameters.values())))
    X, y, loss = spec.X, spec.y, spec.loss
    targets = y[rows.to(y.device)]
    output_dims = 0

    def lane(parameters: Any, own: Any, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal output_dims
        output = functional_call(skeleton, (parameters, own, shared), (X,))
        output_dims = output.ndim
        return output, row_losses(loss, output, y, among=targets)

    losses, hits = [], []
    size = at_once(X, max(1, ROWS_AT_ONCE // lanes))
    for part, batch in batches_of(X, torch.split(rows.to(spec.device), size)):
        with batchable(skeleton):
            output, each = vmap(lane, in_dims=(0, 0, None, None))(parameters, own, batch, y[part])
        losses.append(each.double().cpu())
        if not y.is_floating_point() and output_dims == y.ndim + 1:
            hits.append(output.argmax(2) == y[part])  # (S, n, …)
    if not hits:
        return torch.cat(losses, dim=1), None
    right, counted = torch.cat(hits, dim=1), counted_of(targets, loss)  # (S, n, …), (n, …)
    if counted is None:
        return torch.cat(losses, dim=1), right.flatten(1).double().mean(1).cpu()
    share = (right & counted).flatten(1).double().sum(1) / counted.sum()
    return torch.cat(losses, dim=1), share.cpu()
