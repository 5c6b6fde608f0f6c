"""The plain training loop and the plain evaluation, which every faster engine is tested against."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import Rows, batches_of, split
from torchshrink.errors import DivergenceError
from torchshrink.support.randomness import mix_seed
from torchshrink.training.losses import (
    Loss,
    class_codes,
    class_hits,
    hits_of,
    mean_of_nothing,
    part_loss,
    row_losses,
    row_weights,
)

if TYPE_CHECKING:
    from torchshrink.regularizer import Regularizer


ROWS_AT_ONCE = 4096  # an evaluation's batch: its memory is bounded, and its sums are always taken in the same order


@dataclass(frozen=True)
class EpochStats:
    """One epoch as seen while training: the mean loss without the penalty, and the accuracy (None for numbers)."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model on some rows, in evaluation mode: the mean loss without any penalty, and each row's.

    ``row_losses`` is float64, of shape (n,), on the CPU. ``accuracy`` is None where the targets are numbers.
    """

    loss: float
    row_losses: Tensor
    accuracy: float | None


def default_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam with its usual settings, as one fused kernel per step: on a CPU several times faster than a loop."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def batches(rows: int, batch_size: int, *, seed: int, epoch: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """The row numbers of each batch of one epoch, in an order that depends on (seed, epoch) and nothing else.

    Trainings with the same seed therefore see the same batches, and a resumed one needs no replay. The last, smaller
    batch is kept; a single row that is left over joins the batch before it, since batch normalisation cannot train
    on one row.

    >>> [len(batch) for batch in batches(10, 4, seed=0, epoch=0)], [len(b) for b in batches(9, 4, seed=0, epoch=0)]
    ([4, 4, 2], [4, 5])
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))
    parts = list(torch.split(order.to(device), batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def train_epoch(
    model: nn.Module,
    X: Rows,
    y: Tensor,
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    regularizer: Regularizer | None = None,
    batch_size: int,
    seed: int,
    epoch: int,
) -> EpochStats:
    """Take one pass over the rows, one optimizer step per batch.

    Args:
        model: put in training mode.
        X: (n, …), on the model's device.
        y: (n, …), likewise.
        loss: the mean loss of a batch.
        optimizer: holds the model's parameters; an attached regularizer acts in its step.
        regularizer: one whose value is added to the loss (method ``loss``); None where it is attached, or where
            there is none.
        batch_size: rows per step.
        seed: together with the epoch, decides the batches (see `batches`).
        epoch: counted from 0.

    Returns:
        The mean over the examples of the loss without the penalty, and the accuracy, both as seen before each step.

    Raises:
        DivergenceError: the loss became infinite or NaN.
    """
    model.train()
    order = batches(len(X), batch_size, seed=seed, epoch=epoch, device=X.device)
    means, hits = [], []
    loss = part_loss(loss, y)
    weights = row_weights(loss, y)
    for rows, batch in batches_of(X, order):
        target = y[rows]
        mean, output = train_step(model, batch, target, loss=loss, optimizer=optimizer, regularizer=regularizer)
        # Kept on the device, and looked at once at the end: every other operation here would slow each step.
        means.append(mean)
        hits.append(hits_of(output, target, loss))
    sizes = torch.stack([weights[rows].sum() for rows in order])
    value = (torch.stack(means).double().flatten() @ sizes).item() / weights.sum().item()
    if not math.isfinite(value):
        raise DivergenceError(value, epoch)
    return EpochStats(value, _share(hits))


def train_step(
    model: nn.Module,
    rows: Tensor,
    target: Tensor,
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    regularizer: Regularizer | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on these rows: the mean loss without the penalty and the output, both before it.

    An optimizer whose ``step`` takes a closure that cannot be left out, such as LBFGS, gets one.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        output = model(rows)
        mean = loss(output, target)
        if mean_of_nothing(loss, target):
            mean = 0 * output.sum()  # torch's mean of no rows is NaN
        objective = mean if regularizer is None else mean + regularizer.value()
        objective.backward()
        if not seen:
            seen.append((mean.detach(), output.detach()))
        return objective

    if _needs_closure(type(optimizer).step):
        optimizer.step(closure)  # type: ignore[arg-type]  # torch takes a tensor of one value
    else:
        closure()
        optimizer.step()
    return seen[0]


@functools.cache
def _needs_closure(step: Callable[..., object]) -> bool:
    given = inspect.signature(step).parameters.get("closure")
    return given is not None and given.default is inspect.Parameter.empty


def evaluate(model: nn.Module, X: Rows, y: Tensor, *, loss: Loss) -> Evaluation:
    """The model's mean loss and each row's loss, in evaluation mode and without gradients; the mode is put back.

    Args:
        model: any.
        X: (n, …), on the model's device.
        y: (n, …), likewise.
        loss: a mean loss; see `row_losses` for how its rows are told apart.
    """
    losses, hits = [], []
    floating = y.is_floating_point()
    codes = class_codes(loss, y) if floating else None
    everything = (X, y) if codes is None else (X, y, codes, row_weights(loss, y))
    with evaluating(model), torch.no_grad():
        for rows, target, *classes in split(*everything, most=ROWS_AT_ONCE):
            output = model(rows)
            losses.append(row_losses(loss, output, target, among=y).double().cpu())
            hits.append(_hits(output, *classes) if classes else hits_of(output, target, loss))
    each = torch.cat(losses)
    return Evaluation(each.mean().item(), each, _share(hits))


def _hits(output: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """What `hits_of` is for codes, for classes that are told otherwise, by their rows' weights."""
    return torch.stack([(weights * class_hits(output, codes)[0]).sum(), weights.sum()])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode inside; outside, every module in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def _share(hits: list[Tensor | None]) -> float | None:
    """The accuracy over all parts; None where the targets are no classes, or none is counted."""
    found = [part for part in hits if part is not None]
    right, count = torch.stack(found).sum(0).tolist() if found else (0.0, 0.0)
    return right / count if count else None
