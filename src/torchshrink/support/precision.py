"""Penalties are computed in the dtype of the weights, also where ``torch.autocast`` is on."""

from __future__ import annotations

import contextlib

import torch

from torchshrink.support.private_torch import any_autocast

_KINDS = ("cpu", "cuda", "xpu", "mps")


def without_autocast() -> contextlib.AbstractContextManager[object]:
    """Switch ``torch.autocast`` off inside: it would run the matrix products of a penalty in half precision."""
    if not any_autocast():
        return _NOTHING
    stack = contextlib.ExitStack()
    for kind in _KINDS:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


_NOTHING = contextlib.nullcontext()
