"""Which models are chains of linear layers, and what encodes the rows before them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import LazyRows
from torchshrink.models import Preprocess, Rescale
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.support.private_torch import has_hooks
from torchshrink.training import ROWS_AT_ONCE, evaluating

COORDINATEWISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.ELU,
    nn.SELU,
    nn.Softplus,
    nn.Hardtanh,
    nn.Dropout,
    nn.Identity,
)
"""Modules without parameters that act on each coordinate by itself, whatever the tensor's shape."""

MOST_ENCODED = 2**28  # bytes that the encoded rows of all folds may take; beyond, the general program encodes batches


def dense_fits(spec: TrainingSpec, model: nn.Module, folds: int) -> bool:
    """Whether `DenseProgram` computes this model, with this loss and these rows."""
    if not _is_chain(model) or not spec.X.is_floating_point() or spec.X.ndim != 2:
        return False
    with evaluating(model), torch.no_grad():
        width = _encoded(parts(model)[0], spec.X[:2]).shape[1]
        output = model(spec.X[:2])
    in_memory = not isinstance(spec.X, LazyRows)
    if in_memory and folds * len(spec.X) * width * spec.X.dtype.itemsize > MOST_ENCODED:
        return False
    y, loss = spec.y, spec.loss
    if type(loss) is nn.CrossEntropyLoss:
        plain = loss.weight is None and loss.label_smoothing == 0 and not bool((y == loss.ignore_index).any())
        return plain and not y.is_floating_point() and y.ndim == 1 and output.ndim == 2
    bits = type(loss) is nn.BCEWithLogitsLoss and loss.weight is None and loss.pos_weight is None
    single = y.is_floating_point() and y[:2].shape == output.shape and y.numel() == len(y)
    return single and (bits or type(loss) is nn.MSELoss)


def parts(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """What encodes the rows, and the layers after it."""
    layers = _flat(model)
    front = list(itertools.takewhile(lambda module: type(module) in (Preprocess, nn.Flatten), layers))
    return front, layers[len(front) :]


def _flat(model: nn.Module) -> list[nn.Module]:
    return [leaf for child in model for leaf in _flat(child)] if type(model) is nn.Sequential else [model]


def _is_chain(model: nn.Module) -> bool:
    front, chain = parts(model)
    if chain and (type(chain[-1]) is Rescale or (type(chain[-1]) is nn.Flatten and chain[-1].start_dim == 0)):
        chain = chain[:-1]
    return (
        any(type(module) is nn.Linear for module in chain)
        and all(type(module) in (nn.Linear, *COORDINATEWISE) for module in chain)
        and all(type(module) is Preprocess or module.start_dim == 1 for module in front)
        and not any(_altered(module) for module in model.modules())
    )


def _altered(module: nn.Module) -> bool:
    """Whether a module does more than its class says: hooks, or a forward of its own."""
    return has_hooks(module) or "forward" in vars(module)


def encode_folds(fronts: Sequence[Sequence[nn.Module]], rows: Iterable[Tensor]) -> Tensor:
    """(F, n, d): for each fold its rows (n, …) as the fold's own preprocessing encodes them."""
    return torch.stack([_encoded(front, each) for front, each in zip(fronts, rows, strict=True)])


@torch.no_grad()
def _encoded(front: Sequence[nn.Module], X: Tensor) -> Tensor:
    done = []
    for rows in torch.split(X, ROWS_AT_ONCE):
        for module in front:
            rows = module(rows)
        done.append(rows)
    return torch.cat(done)
