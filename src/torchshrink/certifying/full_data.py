"""The mean loss on all the data, exactly: every row, evaluation mode, float64 where the model can."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.data.dense import check_dense
from torchshrink.data.lazy import Rows, split
from torchshrink.errors import InputError
from torchshrink.regularizer.activations import live_activations
from torchshrink.regularizer.binding import check_differentiable
from torchshrink.support.private_torch import apply_to_tensors_
from torchshrink.training import ROWS_AT_ONCE, Loss, check_fit, default_loss, evaluating, row_weights

Data = tuple[Rows, Tensor]


@dataclass(frozen=True, eq=False)
class FullLoss:
    """The mean loss of a model on all rows, with `Activations` that are on it, in parts so that memory is bounded.

    Calling it keeps torch's convention for a closure: gradients are zeroed, the mean loss is backpropagated, and
    returned.
    """

    model: nn.Module
    X: Rows
    y: Tensor
    loss: Loss

    def __call__(self) -> float:
        """The closure: its gradients go to ``.grad``."""
        self.model.zero_grad(set_to_none=True)
        total = 0.0
        for part in self.parts():
            torch.autograd.backward(part)
            total += part.item()
        return total

    def gradient(self, parameters: Sequence[nn.Parameter]) -> tuple[float, list[Tensor]]:
        """The mean loss and its gradient, zeros where it does not depend on a parameter; no ``.grad`` is touched."""
        total, sums = 0.0, [torch.zeros_like(p) for p in parameters]
        with torch.enable_grad():
            for part in self.parts():
                grads = torch.autograd.grad(part, parameters, allow_unused=True)
                total += part.item()
                for into, grad in zip(sums, grads, strict=True):
                    if grad is not None:
                        into += grad
        return total, sums

    def parts(self) -> Iterator[Tensor]:
        """The mean loss as terms of a sum, one for some thousand rows each."""
        # Each with its share of the weights that torch's mean gives the rows: of equal ones, the share of the rows.
        weights = row_weights(self.loss, self.y)
        activations = live_activations(self.model)
        for rows, target, some in split(self.X, self.y, weights, most=ROWS_AT_ONCE):
            share = some.sum().item() / weights.sum().item()
            if share > 0 or activations:
                output = self.model(rows)
                # The mean of nothing would be NaN.
                part = self.loss(output, target) * share if share > 0 else output.new_zeros(())
                for each in activations:
                    if each.left_out:
                        part = part + each.value().to(part.device) * (len(target) / len(self.y))
                yield part


@contextlib.contextmanager
def full_loss(model: nn.Module, data: Data, loss: Loss | None = None) -> Iterator[FullLoss]:
    """The loss on all of ``data`` inside; there the model is in evaluation mode, and in float64 where it can be.

    Outside, the model's modes, dtypes and gradients are as they were, and so are its weights unless they were changed:
    narrower numbers survive widening. A model whose code is tied to its dtype stays in it.

    Args:
        model: its parameters keep their identity.
        data: (X, y), on the model's device.
        loss: the mean loss; by default as in training, by the kind of target.

    Raises:
        InputError: ``data`` is no pair of tensors of equally many rows, or model, data and loss do not fit together.
    """
    check_differentiable([*model.named_parameters()])
    with torch.inference_mode(False):  # gradients, whatever the caller has off
        yield from _full_loss(model, *checked_data(data), loss)


def _full_loss(model: nn.Module, X: Rows, y: Tensor, loss: Loss | None) -> Iterator[FullLoss]:
    mean = copy.deepcopy(default_loss(y, model) if loss is None else loss)
    with evaluating(model):
        narrow = FullLoss(model, X, y, mean)
        wide = FullLoss(model, X.double() if X.is_floating_point() else X, _wide(y), _wide_loss(mean))
        with _in_float64(model):
            if _runs(wide):
                check_fit(model, wide.X, wide.y, loss=wide.loss)
                yield wide
                return
        check_fit(model, X, y, loss=mean)
        yield narrow


def checked_data(data: object) -> Data:
    """``data`` as a pair of tensors with a target for each row."""
    X, y = data if isinstance(data, tuple | list) and len(data) == 2 else (None, None)
    if not isinstance(X, Rows) or not isinstance(y, Tensor):
        raise InputError(f"data: {type(data).__name__} given, a pair of tensors (X, y) expected")
    for name, part in (("X", X), ("y", y)):
        if isinstance(part, Tensor):
            check_dense(name, part)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y) or len(X) == 0:
        raise InputError(f"X has shape {tuple(X.shape)} and y {tuple(y.shape)}: one target for each row expected")
    if isinstance(X, Tensor) and X.is_inference():
        X = X.clone()  # autograd keeps no inference tensor
    return X, y.clone() if y.is_inference() else y


def _runs(full: FullLoss) -> bool:
    first = FullLoss(full.model, full.X[:2], full.y[:2], full.loss)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that broadcast: `check_fit` refuses them
            for _ in first.parts():
                pass
    except (RuntimeError, ValueError, TypeError, IndexError):  # the model's own code insists on its dtype; or misfits
        return False
    return True


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _wide_loss(loss: Loss) -> Loss:
    return copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss


@contextlib.contextmanager
def _in_float64(model: nn.Module) -> Iterator[None]:
    """The same parameters in float64 inside, and each in its own dtype again outside."""
    before = {name: tensor.dtype for name, tensor in _named(model) if tensor.is_floating_point()}
    grads = [(p, p.grad) for p in model.parameters()]
    for p, _ in grads:
        p.grad = None
    model.double()
    try:
        yield
    finally:
        for p, _ in grads:
            p.grad = None
        if set(before.values()) != {torch.float64}:
            dtype_of = {id(tensor): before[name] for name, tensor in _named(model) if name in before}
            apply_to_tensors_(model, lambda tensor: tensor.to(dtype_of.get(id(tensor), tensor.dtype)))
        for p, grad in grads:
            p.grad = grad


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
