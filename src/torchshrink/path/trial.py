"""What a try says of a model: whether it can be stacked, and what a step of one lane costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from torchshrink.path.batching import batchable
from torchshrink.path.family import Family
from torchshrink.path.folds import Fold
from torchshrink.path.lanes import Stack
from torchshrink.path.lanewise import CannotStackError
from torchshrink.path.recipe import Recipe
from torchshrink.path.starting import initial_model
from torchshrink.randomness import seeded
from torchshrink.training import evaluating


def try_stack(recipe: Recipe, fold: Fold, family: Family) -> bool:
    """Stack two strengths of a fold, hold their losses against the plain model's, take a step and evaluate.

    Returns:
        Whether the model is a chain of linear layers.

    Raises:
        CannotStackError: they cannot be stacked, or the losses differ. Any other of `CANNOT_STACK`: vmap does not take
            the model or the loss.
    """
    few = Fold(fold.train[: max(2, recipe.batch_size)], fold.validation[:2])
    rows = few.train.to(recipe.device)
    model = initial_model(recipe, 0, few)
    with evaluating(model), torch.no_grad():
        plain = recipe.loss(model(recipe.X[rows]), recipe.y[rows])
    stack = Stack(recipe, {0: few}, family, (0.0, 1.0))
    stacked = stack.losses(rows[None])
    tolerance = 1e3 * torch.finfo(plain.dtype).eps
    if not torch.allclose(stacked, plain.reshape(()).expand_as(stacked), rtol=tolerance, atol=tolerance):
        raise CannotStackError("the stacked program's losses are not the models' own")
    with seeded(0):
        stack.step(rows[None], None)
    list(stack.outcomes(torch.zeros(stack.shape, dtype=torch.int64)))
    return stack.chain


def convolves(model: nn.Module) -> bool:
    """Whether there is a convolution in it."""
    return any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())


def costs_of(recipe: Recipe, model: nn.Module, fold: Fold) -> tuple[float, float]:
    """What one lane's step costs: multiplications and additions, and bytes, both at most."""
    rows = fold.train[: recipe.batch_size].to(recipe.device)
    X, y = recipe.X[rows], recipe.y[rows]
    model.train()
    with seeded(0), batchable(model), FlopCounterMode(display=False) as work:
        with _Bytes() as made:
            loss = recipe.loss(model(X), y)
        loss.backward()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # Weights, gradients, up to three of the optimizer's, one in between; what the forward pass made, and gradients.
    return float(work.get_total_flops()), 6.0 * weights + 2.0 * made.total


class _Bytes(TorchDispatchMode):
    """Counts the bytes of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.total += each.numel() * each.element_size()
        return made
