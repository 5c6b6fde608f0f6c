"""What has to be arranged for torch's vmap to take a model's operations, all lanes at once or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from torchshrink.support.private_torch import decomposed, without_onednn, without_vmap_fallback

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@contextlib.contextmanager
def batchable(model: nn.Module) -> Iterator[None]:
    """Inside, operations of ``model`` that have no batching rule go through others that have one.

    Recurrent layers are taken apart into the steps of their definition, and attention into products and a softmax.
    Whatever else has no rule is an error: torch's own way out, one lane after another, would be slower than training
    one model after another.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        fast_path = torch.backends.mha.get_fastpath_enabled()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(without_vmap_fallback())
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(_StepByStep())
        yield


class _StepByStep(TorchFunctionMode):
    """Recurrent layers by their definition."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.__name__ if callable(func) and type(func).__name__.startswith("builtin") else ""
        if name not in _RECURRENT:
            return func(*args, **(kwargs or {}))
        # (input, state, weights, bias, …), or (data, batch sizes, state, weights, bias, …) of packed sequences
        padded = isinstance(args[3], bool)
        operator = getattr(torch.ops.aten, name)
        with without_onednn():  # else a float32 layer would be one operation after all
            return decomposed(operator.input if padded else operator.data)(*args, **(kwargs or {}))
