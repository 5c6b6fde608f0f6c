"""Checks that ``build()`` makes new models, equal under one seed, and makes digests that tell specs apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.support.randomness import seeded
from torchshrink.training import Loss, evaluating, row_losses

FEW = 8  # rows on which an initial model is looked at


def check_anew(model: nn.Module, build: Callable[[], nn.Module], seed: int) -> None:
    """Refuse a ``build`` whose models are not new ones, or not the same ones under the same seed."""
    with seeded(seed):
        again = build()
    if not isinstance(again, nn.Module):
        raise InputError(f"build() returned {type(again).__name__}, an nn.Module expected")
    if again is model or _storages(model) & _storages(again):
        raise InputError("build() returned the same weights twice; make a new model in each call")
    if digest(model.state_dict().values()) != digest(again.state_dict().values()):
        raise InputError(
            "build() made other weights under the same seed: draw them from torch's, NumPy's or Python's global "
            "generators, as every strength is to start from the same ones"
        )


def _storages(model: nn.Module) -> set[int]:
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


@torch.no_grad()
def identity_of(model: nn.Module, X: Tensor, y: Tensor, loss: Loss) -> dict[str, str]:
    """What tells apart models of the same weights, and losses of the same name."""
    plain = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    with evaluating(model):
        output = model(X)
        each = row_losses(loss, output, y)
    state = digest(loss.state_dict().values()) if isinstance(loss, nn.Module) else ""
    return {
        "architecture": f"{type(model).__name__} {hashlib.sha256(plain.encode()).hexdigest()[:16]}",
        "first outputs": digest([output]),
        "first losses": f"{digest([each])} {state}".rstrip(),
    }


def digest(tensors: Iterable[Tensor]) -> str:
    """A short digest of tensors' shapes, dtypes and bits."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        hashed.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        hashed.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:16]
