"""Stacked multilayer perceptrons: the special case that `torchshrink.models.mlp` makes, without vmap.

With the rows last, a layer of all lanes is one batched product W·H + b on contiguous tensors, the first layer of all
strengths of a fold is one large product, and the softmax runs over a dimension that is not the last, where it is some
twenty times faster for few classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchshrink.models import Preprocess, Rescale
from torchshrink.path.recipe import Recipe
from torchshrink.training import ROWS_AT_ONCE, evaluating

Named = Mapping[str, Tensor]

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


@final
class DenseProgram:
    """The losses of all lanes of a chain of linear layers; only of what `dense_fits`.

    Args:
        recipe: how each lane is trained.
        models: each fold's, its preprocessing fitted.
        skeleton: one of the same structure, whose mode, training or evaluation, decides what dropout does.
    """

    def __init__(self, recipe: Recipe, models: Sequence[nn.Module], skeleton: nn.Module) -> None:
        self._classes = isinstance(recipe.loss, nn.CrossEntropyLoss)
        self._y = recipe.y
        self._chain = _parts(skeleton)[1]
        self._names = {id(p): name for name, p in skeleton.named_parameters()}
        self._names |= {id(b): name for name, b in skeleton.named_buffers()}
        self._encoded = torch.stack([_encoded(_parts(model)[0], recipe.X) for model in models])  # (F, n, d)

    def __call__(self, parameters: Named, own: Named, shared: Named, rows: Tensor, weights: Tensor | None) -> Tensor:
        """The mean loss of each lane's batch (F, S), for row numbers (F, B) and weights (F, B) or None."""
        folds, lanes = next(iter(parameters.values())).shape[:2]
        fold = torch.arange(folds, device=rows.device)[:, None]
        h = self._encoded[fold, rows].transpose(1, 2)  # (F, d, B)
        y = self._y[rows]  # (F, B)
        common = True  # h is the same for all strengths of a fold: (F, d, B), not (F·S, d, B)

        def stack(tensor: Tensor) -> Tensor:  # (F, S, …)
            name = self._names[id(tensor)]
            if name in parameters:
                return parameters[name]
            frozen = shared[name]
            return frozen.unsqueeze(1).expand(folds, lanes, *frozen.shape[1:])

        for module in self._chain:
            if isinstance(module, nn.Linear):
                products = folds if common else folds * lanes
                w = stack(module.weight).reshape(products, -1, module.in_features)
                bias: nn.Parameter | None = module.bias
                h = torch.bmm(w, h) if bias is None else torch.baddbmm(stack(bias).reshape(products, -1, 1), w, h)
                h = h.view(folds * lanes, module.out_features, -1)
                common = False
            elif isinstance(module, Rescale):
                mean, scale = shared[self._names[id(module.mean)]], shared[self._names[id(module.scale)]]
                h = mean[:, None, None] + scale[:, None, None] * h.view(folds, lanes, -1)
            elif not isinstance(module, nn.Flatten):
                if common and isinstance(module, nn.Dropout):  # it differs by lane
                    h, common = h.repeat_interleave(lanes, dim=0), False
                h = module(h)
        if self._classes:
            logs = functional.log_softmax(h, dim=1).view(folds, lanes, *h.shape[1:])  # (F, S, C, B)
            each = -logs.gather(2, y[:, None, None].expand(-1, lanes, -1, -1)).squeeze(2)
        else:
            each = (h.view(folds, lanes, -1) - y[:, None]).square()
        return each.mean(2) if weights is None else (each * weights[:, None]).sum(2) / weights.sum(1)[:, None]


def dense_fits(recipe: Recipe, model: nn.Module, folds: int) -> bool:
    """Whether `DenseProgram` computes this model and loss."""
    if not _is_chain(model) or not recipe.X.is_floating_point() or recipe.X.ndim != 2:
        return False
    with evaluating(model), torch.no_grad():
        width = _encoded(_parts(model)[0], recipe.X[:2]).shape[1]
        output = model(recipe.X[:2])
    if folds * len(recipe.X) * width * recipe.X.element_size() > MOST_ENCODED:
        return False
    y, loss = recipe.y, recipe.loss
    if type(loss) is nn.CrossEntropyLoss:
        plain = loss.weight is None and loss.label_smoothing == 0 and not bool((y == loss.ignore_index).any())
        return plain and not y.is_floating_point() and y.ndim == 1 and output.ndim == 2
    return type(loss) is nn.MSELoss and y.is_floating_point() and y.ndim == 1 and output.ndim == 1


def _parts(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """What encodes the rows, and the layers after it."""
    layers = _flat(model)
    front = list(itertools.takewhile(lambda module: type(module) in (Preprocess, nn.Flatten), layers))
    return front, layers[len(front) :]


def _flat(model: nn.Module) -> list[nn.Module]:
    return [leaf for child in model for leaf in _flat(child)] if type(model) is nn.Sequential else [model]


def _is_chain(model: nn.Module) -> bool:
    front, chain = _parts(model)
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
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or "forward" in vars(module)


@torch.no_grad()
def _encoded(front: Sequence[nn.Module], X: Tensor) -> Tensor:
    parts = []
    for rows in torch.split(X, ROWS_AT_ONCE):
        for module in front:
            rows = module(rows)
        parts.append(rows)
    return torch.cat(parts)
