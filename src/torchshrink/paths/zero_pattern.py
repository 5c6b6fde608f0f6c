"""Which weights of a trained model are zero, in few bytes: what decides how small it can become."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

_MANY = 2  # dimensions from which on a tensor's zeros are kept, and not its numbers


def zero_pattern(tensors: Mapping[str, Tensor]) -> bytes:
    """A bit for each weight, whether it is nonzero; of vectors (biases, normalisation) and whole numbers, all of them.

    Args:
        tensors: parameters and buffers, by name.
    """
    parts = []
    for name in sorted(tensors):
        own = tensors[name].detach().cpu()
        if _only_zeros(own):
            parts.append(np.packbits((own != 0).numpy()).tobytes())
        else:
            parts.append(own.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return zlib.compress(b"".join(parts), level=1)  # groups of zeros are long runs


@torch.no_grad()
def apply_pattern(model: nn.Module, pattern: bytes) -> None:
    """Give ``model`` zeros where the pattern has them, in place; elsewhere it keeps its weights, where they are not 0.

    Args:
        model: made as the one was of whose tensors the pattern is.
        pattern: of those.
    """
    content, at = zlib.decompress(pattern), 0
    for _, own in sorted(tensors_of(model).items()):
        if not own.numel():
            continue
        if _only_zeros(own):
            size = -(-own.numel() // 8)
            bits = np.unpackbits(np.frombuffer(content, np.uint8, size, at), count=own.numel())
            nonzero = torch.from_numpy(bits).bool().reshape(own.shape).to(own.device)
            own.copy_(torch.where(nonzero, torch.where(own == 0, torch.ones_like(own), own), torch.zeros_like(own)))
        else:
            size = own.numel() * own.element_size()
            own.copy_(torch.frombuffer(bytearray(content[at : at + size]), dtype=own.dtype).reshape(own.shape))
        at += size


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(model.named_buffers()) | dict(model.named_parameters())


def _only_zeros(tensor: Tensor) -> bool:
    return tensor.ndim >= _MANY and tensor.is_floating_point()
