"""What has to be arranged for torch's vmap to take a model's operations, all lanes at once or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from torchshrink.data.lazy import at_once, batches_of
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.support.private_torch import decomposed, without_onednn, without_vmap_fallback
from torchshrink.training import ROWS_AT_ONCE, class_codes, class_hits, counted_of, row_losses, row_weights

Named = dict[str, Tensor]

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
    codes = class_codes(loss, y) if y.is_floating_point() else None
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
        elif y.is_floating_point() and codes is not None:
            hits.append(class_hits(output, codes[part]))
    if not hits:
        return torch.cat(losses, dim=1), None
    if y.is_floating_point():
        weights = row_weights(loss, targets)
        return torch.cat(losses, dim=1), ((torch.cat(hits, dim=1) * weights).sum(1) / weights.sum()).cpu()
    right, counted = torch.cat(hits, dim=1), counted_of(targets, loss)  # (S, n, …), (n, …)
    if counted is None:
        return torch.cat(losses, dim=1), right.flatten(1).double().mean(1).cpu()
    share = (right & counted).flatten(1).double().sum(1) / counted.sum()
    return torch.cat(losses, dim=1), share.cpu()


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
