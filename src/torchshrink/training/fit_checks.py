"""Whether model, data and loss fit together, told in one line before any training."""

from __future__ import annotations

import inspect
import warnings

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import Rows, with_gaps
from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.training.loop import evaluating
from torchshrink.training.losses import Loss, row_losses

_OF_PROBABILITIES = (nn.functional.binary_cross_entropy, nn.functional.binary_cross_entropy_with_logits)


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
            f"the model returns shape {mine} for a row whose target has shape {theirs}: the same expected, or every "
            f"row would be compared with every other{'; give y[:, None]' if (mine, theirs) == ((1,), ()) else ''}"
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
