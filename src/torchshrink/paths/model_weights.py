"""A model's weights apart from the model: what one training of a warm path hands to the next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
"""Parameters and buffers by name; of what a step does not change, some or none."""


def weights_of(model: nn.Module) -> Weights:
    """Copies of all parameters and buffers; batch normalisation's running statistics are among these."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}


@torch.no_grad()
def load_weights(model: nn.Module, weights: Weights) -> None:
    """Set the parameters and buffers that ``weights`` names, in place."""
    mine = _tensors(model)
    for name, tensor in weights.items():
        mine[name].copy_(tensor)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_buffers()) | dict(model.named_parameters())
