"""What can be shrunk at all: refused here in one line, before anything is copied or traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchshrink.errors import InputError
from torchshrink.support.private_torch import pytree, uncompiled


def acceptable(model: object, example: Any) -> nn.Module:
    """The model, without the wrapper of ``torch.compile``, if it and its example have numbers that can be looked at.

    Raises:
        InputError: it is no module; or a parameter or a buffer is lazy, on the meta device, sparse or nested; or the
            example is on the meta device or nested; or something is on a device without float64.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"shrink: model is {type(model).__name__}, a torch.nn.Module expected")
    model = uncompiled(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"shrink: {name} has no size yet: call the model once")
        _check(name, tensor)
        if tensor.layout != torch.strided:
            raise InputError(f"shrink: {name} is of layout {tensor.layout}, a dense tensor expected: {name}.to_dense()")
    for tensor in pytree.tree_leaves(example):
        if isinstance(tensor, Tensor):
            _check("the example", tensor)
    return model


def _check(what: str, tensor: Tensor) -> None:
    if tensor.is_nested:
        raise InputError(f"shrink: {what} is a nested tensor, one of a shape expected: pad it (torch.nested)")
    if tensor.device.type == "meta":
        raise InputError(f"shrink: {what} is on the meta device, numbers expected: load them first")
    if tensor.device.type == "mps":
        raise InputError(f"shrink: {what} is on mps, which has no float64 for the proof: move both to the CPU")
