"""The plain training loop and the plain evaluation, which every faster engine is tested against."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import Rows, ahead, split, with_gaps
from torchshrink.errors import DivergenceError, DivergenceWarning, InputError
from torchshrink.models.target_scale import rescales
from torchshrink.support.randomness import mix_seed
from torchshrink.support.storage import brief
from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from torchshrink.regularizer import Regularizer

__all__ = [
    "DivergenceError",
    "DivergenceWarning",
    "EpochStats",
    "Evaluation",
    "Loss",
    "StandardisedMSELoss",
    "batches",
    "check_fit",
    "default_loss",
    "default_optimizer",
    "evaluate",
    "evaluating",
    "load_checkpoint",
    "row_losses",
    "row_weights",
    "save_checkpoint",
    "train_epoch",
    "train_step",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""A mean loss over a batch: (output (B, …), target (B, …)) -> scalar."""

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


class StandardisedMSELoss(nn.modules.loss._Loss):
    """mean(((f − y)/scale)²): squared errors in units of the target's standard deviation.

    >>> StandardisedMSELoss(2.0)(torch.tensor([4.0]), torch.tensor([0.0]))
    tensor(4.)
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch."""
        return nn.functional.mse_loss(output / self.scale, target / self.scale, reduction=self.reduction)


def default_loss(y: Tensor, model: nn.Module | None = None) -> nn.Module:
    """Cross entropy where the targets are class codes (whole numbers), mean squared error where they are numbers.

    For a ``model`` that ends in a fitted `models.Rescale`, the squared errors are in units of its scale: that is the
    loss that it was trained on (`models.TargetScale`).

    >>> default_loss(torch.tensor([0, 1, 2]))
    CrossEntropyLoss()
    """
    if not y.is_floating_point():
        return nn.CrossEntropyLoss()
    ends = [] if model is None else rescales(model)
    scale = float(ends[0].scale) if len(ends) == 1 and y.ndim == 1 else 1.0
    return nn.MSELoss() if scale == 1.0 else StandardisedMSELoss(scale)


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
    weights = row_weights(loss, y)
    for rows in ahead(X, order):
        target = y[rows]
        mean, output = train_step(model, X[rows], target, loss=loss, optimizer=optimizer, regularizer=regularizer)
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
    with evaluating(model), torch.no_grad():
        for rows, target in split(X, y, most=ROWS_AT_ONCE):
            output = model(rows)
            losses.append(row_losses(loss, output, target, among=y).double().cpu())
            hits.append(hits_of(output, target, loss))
    each = torch.cat(losses)
    return Evaluation(each.mean().item(), each, _share(hits))


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


def row_weights(loss: Loss, target: Tensor) -> Tensor:
    """How much each row counts in the loss's mean (n,), float64: 1, or by its class where torch's mean is weighted.

    >>> row_weights(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), torch.tensor([0, 1]))
    tensor([1., 3.], dtype=torch.float64)
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
        return torch.ones(len(target), dtype=torch.float64, device=target.device)
    ignored = target == loss.ignore_index
    codes = target.masked_fill(ignored, 0)
    each = torch.ones_like(codes, dtype=torch.float64) if loss.weight is None else loss.weight[codes].double()
    return each.masked_fill(ignored, 0).flatten(1).sum(1) if each.ndim > 1 else each.masked_fill(ignored, 0)


def row_losses(loss: Loss, output: Tensor, target: Tensor, *, among: Tensor | None = None) -> Tensor:
    """Each row's own loss (n,), given a loss that returns a mean; the mean of the rows' is the loss of all.

    A loss module of torch is asked with ``reduction="none"`` (a copy is), and what it returns for one row is averaged.
    Where its mean is weighted by class (``weight``, ``ignore_index``), a row's loss has its weight in it, as a share
    of the mean weight. Any other callable is called on one row at a time, as a batch of one.

    >>> row_losses(nn.MSELoss(), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2))
    tensor([ 2.5000, 12.5000])

    Args:
        loss: (output, target) -> scalar mean.
        output: (n, …).
        target: (n, …).
        among: the targets of all the rows whose mean is meant, where these are a part of them.
    """
    if isinstance(loss, nn.modules.loss._Loss):
        each = copy.copy(loss)
        each.reduction = "none"
        values = each(output, target)
        flat = values.unsqueeze(1) if values.ndim == 1 else values.flatten(1)
        if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and not target.is_floating_point():
            mean_weight = row_weights(loss, target if among is None else among).mean()
            return flat.sum(1) / mean_weight.to(flat.dtype)  # type: ignore[no-any-return]
        return flat.sum(1) if loss.reduction == "batchmean" else flat.mean(1)  # type: ignore[no-any-return]

    def one(row: Tensor, wanted: Tensor) -> Tensor:
        return loss(row.unsqueeze(0), wanted.unsqueeze(0))

    try:
        return torch.func.vmap(one)(output, target)
    except RuntimeError:  # what vmap cannot take, such as a branch on a value, a loop can
        return torch.stack([one(row, wanted) for row, wanted in zip(output, target, strict=True)])


def check_fit(model: nn.Module, X: Rows, y: Tensor, *, loss: Loss) -> None:
    """Try a few rows, so that a model, data and loss that do not fit together are told apart in one line.

    Raises:
        InputError: the model does not take the rows, its output does not fit the targets or the loss, or the loss is
            not one number.
    """
    if isinstance(loss, nn.modules.loss._Loss) and loss.reduction not in ("mean", "batchmean"):
        raise InputError(f"loss={loss} has reduction {loss.reduction!r}: a mean expected, as strengths are per example")
    of_probabilities = isinstance(loss, nn.BCELoss | nn.BCEWithLogitsLoss) or loss in _OF_PROBABILITIES
    if of_probabilities and not y.is_floating_point():
        name = loss.__name__ if inspect.isroutine(loss) else type(loss).__name__
        raise InputError(
            f"the loss does not take class codes: {name} compares numbers from 0 to 1, and y is {y.dtype}: give "
            "y.float(), shaped like the model's output, or take cross entropy with an output for each class"
        )
    # The first rows, with the first of some classes and the first that has a missing value: what does not take those,
    # or weighs them differently, shows here.
    rows = torch.arange(min(len(X), 4))
    if not y.is_floating_point():
        codes = y.reshape(len(y), -1)[:, :1].flatten()
        firsts = [int((codes == code).nonzero()[0]) for code in codes.unique()[:8]]
        rows = torch.cat([rows, torch.tensor(firsts)]).unique()
    if X.is_floating_point():
        rows = torch.cat([rows, with_gaps(X)[:1]]).unique()
    some, target = X[rows.to(X.device)], y[rows.to(y.device)]
    with evaluating(model), torch.no_grad():
        try:
            output = model(some)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            hint = "" if X.is_floating_point() else f"; X is {X.dtype}: give X.float() if the model expects numbers"
            raise InputError(
                f"the model does not take rows of shape {tuple(X.shape[1:])}: {brief(error)}{hint}"
            ) from error
        _check_output(output, some, target, loss, y=y)
        _check_mean(loss, output, target)
        floating = output.is_floating_point() and target.is_floating_point()
        if floating and output.shape != target.shape and output.numel() == target.numel():
            # Outputs or targets that are all the same, as zeros are, would hide that every row meets every other.
            spread = torch.linspace(0, 1, output.numel(), dtype=output.dtype, device=output.device)
            _check_mean(loss, output + spread.view_as(output), target + spread.view_as(target))


def _check_mean(loss: Loss, output: Tensor, target: Tensor) -> None:
    """Refuse a loss that is not one number, or whose mean over a batch is no mean of its rows' losses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using a target size")  # torch's own of broadcasting, which is refused below
        try:
            mean = loss(output, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InputError(f"the loss does not take the model's output and the targets: {brief(error)}") from error
        if not isinstance(mean, Tensor) or mean.numel() != 1:
            raise InputError("the loss does not return one number for a batch: give one that returns the mean")
        try:
            each = row_losses(loss, output, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InputError(f"the loss does not take one row at a time: {brief(error)}") from error
    near = 1e3 * torch.finfo(mean.dtype).eps * float(each.abs().mean())
    if bool(mean.isfinite()) and not abs(float(each.mean()) - float(mean)) <= near:
        if output.shape != target.shape and output.numel() == target.numel():
            raise InputError(
                f"the model returns shape {tuple(output.shape[1:])} for a row whose target has shape "
                f"{tuple(target.shape[1:])}, and the loss compares every row with every other: the same shape expected"
            )
        raise InputError(
            f"the loss of a batch is not the mean of its rows' losses ({float(mean):.4g}, {float(each.mean()):.4g}), "
            "so it cannot be judged row by row: give a plain mean over the rows, and classes' weights as "
            "nn.CrossEntropyLoss(weight=…)"
        )


def counted_of(y: Tensor, loss: Loss) -> Tensor | None:
    """Which of the class codes y (n, …) the loss counts; None where it counts all of them.

    >>> counted_of(torch.tensor([0, -100, 1]), nn.CrossEntropyLoss())
    tensor([ True, False,  True])
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or y.is_floating_point():
        return None
    counted = y != loss.ignore_index
    return None if bool(counted.all()) else counted


def mean_of_nothing(loss: Loss, target: Tensor) -> bool:
    """Whether the loss ignores each of these targets, so that their mean is 0/0."""
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
        return False
    # Looked at where it can be: on another device a look would wait for all that is under way.
    return target.device.type == "cpu" and bool((target == loss.ignore_index).all())


_OF_PROBABILITIES = (nn.functional.binary_cross_entropy, nn.functional.binary_cross_entropy_with_logits)


def _counted_from_0(loss: nn.CrossEntropyLoss, y: Tensor) -> tuple[int, str]:
    """How many classes the codes stand for, the largest plus 1; and, where some are left out, what to do about it."""
    codes = y[y != loss.ignore_index].unique().tolist()
    classes = max(codes, default=0) + 1
    if len(codes) == classes:
        return classes, "give y.float() if y is a number"
    shown = ", ".join(map(str, codes[:4])) + (", …" if len(codes) > 4 else "")
    return classes, f"y has {len(codes)} codes ({shown}): number them from 0, np.unique(y, return_inverse=True)[1]"


def _check_output(output: object, X: Tensor, target: Tensor, loss: Loss, *, y: Tensor) -> None:
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(X):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the model returns {shape} for {len(X)} rows: one tensor with an entry for each row expected")
    if not output.isfinite().all():
        gaps = X.is_floating_point() and bool(X.isnan().any())
        remedy = (
            "impute the missing values of X, or give the model a Preprocess"
            if gaps
            else "look at its weights and at the data's scale"
        )
        raise InputError(f"the model's output is not finite: {remedy}")
    mine, theirs = tuple(output.shape[1:]), tuple(target.shape[1:])
    # A callable may know what to do with two shapes; whether it does, `_check_mean` finds out.
    known = isinstance(loss, nn.modules.loss._Loss) and not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss)
    if target.is_floating_point() and mine != theirs and known:
        raise InputError(
            f"the model returns shape {mine} for a row whose target has shape {theirs}: "
            "the same expected, or every row would be compared with every other"
        )
    if isinstance(loss, nn.CrossEntropyLoss) and not target.is_floating_point():
        if mine and theirs != mine[1:]:
            raise InputError(
                f"y has shape {theirs} for a row whose output has shape {mine}: one class code for each of {mine[1:]} "
                "expected, such as y.squeeze(1)"
            )
        classes, remedy = _counted_from_0(loss, y)
        if (mine[0] if mine else 0) < classes:
            raise InputError(
                f"the model returns shape {mine} for a row of {classes} classes: ({classes},) expected; {remedy}"
            )


def hits_of(output: Tensor, target: Tensor, loss: Loss) -> Tensor | None:
    """Of the targets that the loss counts, how many are predicted, and how many there are (2,), float64.

    None where the targets are no classes.
    """
    if target.is_floating_point() or output.ndim != target.ndim + 1:
        return None
    hits = output.argmax(1) == target
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        counted = target != loss.ignore_index
        return torch.stack([(hits & counted).sum(), counted.sum()]).double()
    return torch.stack([hits.sum(), torch.ones_like(hits).sum()]).double()


def _share(hits: list[Tensor | None]) -> float | None:
    """The accuracy over all parts; None where the targets are no classes, or none is counted."""
    found = [part for part in hits if part is not None]
    right, count = torch.stack(found).sum(0).tolist() if found else (0.0, 0.0)
    return right / count if count else None
