"""Tries whether a model can be stacked and ends where it would alone, and counts what a step of one lane costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchshrink.errors import CannotStackError, InputError
from torchshrink.paths.engines.side_effects import without_dropout
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.engines.stack_models import initial_model
from torchshrink.paths.engines.vmap_support import batchable
from torchshrink.paths.folds import Fold
from torchshrink.paths.model_weights import weights_of
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_spec import TrainingSpec, without_repeated_warnings
from torchshrink.regularizer import Regularizer
from torchshrink.support.private_torch import DispatchMode
from torchshrink.support.randomness import seeded
from torchshrink.training import evaluate

STEPS = 2
DRAWS = 1  # the seed of what models draw in them
STRENGTHS = (0.0, 1e-3)
EXACT, LOOSE = 1e-6, 1e-2  # how far two programs may be apart in float64, and where a model takes no float64


@dataclass(frozen=True)
class Trial:
    """What was found.

    Args:
        chain: whether the model is a chain of linear layers.
        proximal: whether any penalty acts by its prox.
    """

    chain: bool
    proximal: bool


def try_stack(spec: TrainingSpec, folds: Sequence[Fold], family: PenaltyFamily) -> Trial:
    """Stack two strengths of two folds, train and evaluate them, and hold what comes out against the plain engine's.

    Raises:
        CannotStackError: they cannot be stacked, or end elsewhere. Any other of `CANNOT_STACK`: vmap does not take the
            model or the loss.
    """
    size = max(2, min(spec.batch_size, *(len(fold.train) for fold in folds[:2])))
    few = {number: Fold(fold.train[:size], fold.validation[:2]) for number, fold in enumerate(folds[:2])}
    stack = Stack(spec, few, family, STRENGTHS)
    with seeded(0):
        rows = _rows(spec, few)
        stack.step(rows, None, spec.X[rows])
    list(stack.results(torch.zeros(stack.shape, dtype=torch.int64)))
    _check_steps(spec, few, family)
    return Trial(stack.chain, stack.proximal)


def _check_steps(spec: TrainingSpec, folds: Mapping[int, Fold], family: PenaltyFamily) -> None:
    """Compare every tensor after some steps: in float64, as a step of Adam's may be rounding and no more in float32.

    What a model may do that a stack does not see, such as a layer that is reached past its module, shows here.
    Dropout modules are kept from dropping anything; what else a model draws, all lanes draw as the plain engine does.
    """
    exact = dataclasses.replace(spec.in_float64(), build=lambda: without_dropout(spec.build().double()))
    tolerance = EXACT
    try:
        _plain(exact, folds[0], 0, STRENGTHS[0], family)
    except (RuntimeError, TypeError, ValueError):  # something in the model is of one dtype
        exact, tolerance = dataclasses.replace(spec, build=lambda: without_dropout(spec.build())), LOOSE
    stack, rows = Stack(exact, folds, family, STRENGTHS, same_draws=True), _rows(exact, folds)
    with seeded(DRAWS):
        for _ in range(STEPS):
            stack.step(rows, None, exact.X[rows])
    results = {(f, s): each for f, s, each in stack.results(torch.zeros(stack.shape, dtype=torch.int64))}
    for f, (number, fold) in enumerate(folds.items()):
        for s, strength in enumerate(STRENGTHS):
            wanted = _plain(exact, fold, number, strength, family)
            trained = results[number, strength].train_loss / spec.target_scale.of_loss
            found = stack.tensors(f, s) | {_LOSS: torch.tensor(trained)}
            for name, tensor in wanted.items():
                if not bool(tensor.isfinite().all()):
                    continue  # a training that diverges at once is told apart later
                if not torch.allclose(found[name].to(tensor.dtype), tensor, rtol=tolerance, atol=tolerance):
                    raise CannotStackError(f"the stacked program does not end with the model's own {name}")


_LOSS = "loss"


def _plain(spec: TrainingSpec, fold: Fold, number: int, strength: float, family: PenaltyFamily) -> dict[str, Tensor]:
    """All tensors of one model after some steps on all rows of the fold, and its loss in evaluation mode."""
    rows = fold.train.to(spec.device)
    X, y = spec.X[rows], spec.y[rows]
    model = initial_model(spec, number, fold)
    with seeded(DRAWS), without_repeated_warnings():
        regularizer = Regularizer(model, family.make(strength), spec.settings.on)
        optimizer = spec.make_optimizer(model.parameters())
        if spec.settings.method != "loss":
            regularizer.attach(optimizer, spec.settings.method)
        model.train()
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            mean = spec.loss(model(X), y)
            (mean + regularizer.value() if spec.settings.method == "loss" else mean).backward()
            optimizer.step()
        regularizer.detach()
        loss = evaluate(model, X, y, loss=spec.loss).loss
    return {**weights_of(model), _LOSS: torch.tensor(loss)}


def check_unspoilt(spec: TrainingSpec, fold: Fold) -> None:
    """Try a pass of a model that is trained alone, after lanes have failed.

    Raises:
        InputError: it meets a tensor of the lanes', which the model's code keeps where nobody saw it.
    """
    rows = fold.train[:2].to(spec.device)
    model = initial_model(spec, 0, fold).train()
    try:
        with torch.no_grad(), seeded(0):
            spec.loss(model(spec.X[rows]), spec.y[rows])
    except Exception as error:  # of any kind: what else fails, fails again when it is trained
        if "vmap" in str(error):
            raise InputError(
                f"the code of {type(model).__name__} or of the loss keeps a tensor outside of the model, which the "
                "trial of lanes has made unusable: keep it in a buffer of the model, or make it anew and give "
                "engine='sequential'"
            ) from error


def _rows(spec: TrainingSpec, folds: Mapping[int, Fold]) -> Tensor:
    return torch.stack([fold.train.to(spec.device) for fold in folds.values()])


def convolves(model: nn.Module) -> bool:
    """Whether there is a convolution in it."""
    return any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())


def costs_of(spec: TrainingSpec, model: nn.Module, fold: Fold) -> tuple[float, float]:
    """What one lane's step costs: multiplications and additions, and bytes, both at most."""
    rows = fold.train[: spec.batch_size].to(spec.device)
    X, y = spec.X[rows], spec.y[rows]
    model.train()
    with seeded(0), batchable(model), FlopCounterMode(display=False) as work:
        with _Bytes() as made:
            loss = spec.loss(model(X), y)
        loss.backward()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # Weights, gradients, up to three of the optimizer's, one in between; what the forward pass made, and gradients.
    return float(work.get_total_flops()), 6.0 * weights + 2.0 * made.total


class _Bytes(DispatchMode):
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
