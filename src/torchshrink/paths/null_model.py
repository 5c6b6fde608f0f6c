"""The best constant output, which a model falls back to where all its weights are zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.training import Loss, StandardisedMSELoss, WeightedLoss, row_losses, row_weights

MOST_SETTLED = 200  # unpenalised numbers that Newton steps are taken for
MOST_NEWTON = 12  # steps
ROUNDING = 1e-14  # of the first slope: nothing that a step could lower
LEFT = 1e-9  # of the first slope: next to nothing
LEAST_SHARE = 1e-12  # of a class that never occurs, whose best output would be −∞


@dataclass(frozen=True)
class NullLoss:
    """Mean losses of the best constant output for each fold's training rows; None where the loss takes none.

    Args:
        train: on these rows.
        validation: on the rows held out.
    """

    train: float | None
    validation: float | None


def null_output(loss: Loss, y: Tensor, shape: Sequence[int]) -> Tensor:
    """The constant output (``shape``, for one row) of least mean loss on the targets, in float64.

    By its formula where the loss has one, else by Newton's method or LBFGS.

    Raises:
        InputError: the loss does not take a constant output, or is not finite there.
    """
    y = y.double() if y.is_floating_point() else y
    known = _formula(loss, y, tuple(shape))
    if known is not None:
        return known
    constant = torch.zeros(tuple(shape), dtype=torch.float64, device=y.device, requires_grad=True)
    try:
        mean = minimised(lambda: loss(constant.expand(len(y), *shape), y), [constant])
    except RuntimeError as error:
        raise InputError(
            f"strengths: the loss does not take a constant output in float64 ({brief(error)}), so the strengths "
            "cannot be found: give them"
        ) from error
    if not bool(mean.isfinite()):
        raise InputError("strengths: the loss is not finite for a constant output, so give the strengths themselves")
    return constant.detach()


def null_losses(loss: Loss, y: Tensor, judged: Tensor, shape: Sequence[int]) -> Tensor:
    """Each loss (m,) on the targets ``judged`` (m, …) of the best constant output for the targets ``y`` (n, …)."""
    return losses_of(loss, null_output(loss, y, shape), judged)


def losses_of(loss: Loss, constant: Tensor, judged: Tensor) -> Tensor:
    """Each loss (m,) on the targets ``judged`` (m, …) of a constant output."""
    judged = judged.double() if judged.is_floating_point() else judged
    return row_losses(loss, constant.expand(len(judged), *constant.shape), judged).double().cpu()


def _formula(loss: Loss, y: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Squares: the targets' mean; classes: its log odds, or its logarithms. None where no formula is known."""
    plain = loss.loss if isinstance(loss, WeightedLoss) else loss
    wanted = loss.wanted(y) if isinstance(loss, WeightedLoss) else y
    if not isinstance(plain, nn.modules.loss._Loss) or plain.reduction != "mean":
        return None
    shares = row_weights(loss, y)
    shares = shares / shares.sum()
    if isinstance(plain, nn.CrossEntropyLoss):
        codes = not wanted.is_floating_point() and wanted.ndim == 1
        if len(shape) != 1 or not (codes or wanted.shape[1:] == shape):
            return None
        if plain.weight is not None and not (codes and plain.label_smoothing == 0):
            return None  # the classes' weights are more than weights of rows
        kept = shares > 0  # what is ignored has a code that is no class
        q = nn.functional.one_hot(wanted[kept], *shape).double() if codes else wanted[kept]
        found = shares[kept] @ q
        found = found * (1 - plain.label_smoothing) + plain.label_smoothing / len(found)
        return found.clamp(min=LEAST_SHARE).log()
    if wanted.numel() != len(y) * math.prod(shape):
        return None
    mean = (shares @ wanted.double().reshape(len(y), -1)).reshape(shape)
    if isinstance(plain, nn.MSELoss | StandardisedMSELoss):
        return mean
    if type(plain) is nn.BCEWithLogitsLoss and plain.weight is None and plain.pos_weight is None:
        return mean.clamp(LEAST_SHARE, 1 - LEAST_SHARE).logit()
    return None


def lbfgs(parameters: list[nn.Parameter] | list[Tensor]) -> torch.optim.LBFGS:
    """One that goes on until nothing moves."""
    # No line search of LBFGS's own ends below rounding error, which these tolerances are far below.
    return torch.optim.LBFGS(
        parameters, max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )


def minimised(mean_loss: Callable[[], Tensor], parameters: list[nn.Parameter] | list[Tensor]) -> Tensor:
    """Minimise over the parameters; the mean loss at the end, differentiable.

    By Newton's method, and by LBFGS first where that alone does not arrive or the parameters are many: to make an
    optimizer of torch's is to import its compiler, which takes a second.
    """
    if parameters and not _settled(mean_loss, parameters):
        optimizer = lbfgs(parameters)

        def closure() -> Tensor:
            optimizer.zero_grad()
            mean = mean_loss()
            mean.backward()
            return mean

        optimizer.step(closure)
        optimizer.zero_grad()
        _settled(mean_loss, parameters)
    return mean_loss()


def _settled(mean_loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> bool:
    """Newton steps while the slope falls; whether next to none of it is left.

    Only where the parameters are few, as intercepts are. Where LBFGS has ended early they take what is left, so that
    features far from 0 do not multiply it. A step that does not lower the slope is taken back.
    """
    if sum(p.numel() for p in parameters) > MOST_SETTLED:
        return False

    def gradient() -> Tensor:
        found = torch.autograd.grad(mean_loss(), list(parameters), create_graph=True, materialize_grads=True)
        return torch.cat([each.reshape(-1) for each in found])

    slope = gradient()
    first = float(slope.detach().abs().max())
    for _ in range(MOST_NEWTON):
        if not slope.requires_grad or not bool(slope.detach().any()):
            break
        rows = [
            torch.cat(
                [
                    each.reshape(-1)
                    for each in torch.autograd.grad(one, list(parameters), retain_graph=True, materialize_grads=True)
                ]
            )
            for one in slope
        ]
        curvature = torch.stack(rows)
        if not bool(curvature.isfinite().all()):
            break
        move = torch.linalg.pinv(curvature, hermitian=True) @ slope.detach()
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, part in zip(parameters, move.split([p.numel() for p in parameters]), strict=True):
                p.sub_(part.view_as(p))
        after = gradient()
        if not float(after.detach().abs().max()) < float(slope.detach().abs().max()):
            with torch.no_grad():
                for p, value in zip(parameters, before, strict=True):
                    p.copy_(value)
            break
        slope = after
        if float(slope.detach().abs().max()) <= ROUNDING * first:
            break
    return float(slope.detach().abs().max()) <= LEFT * first
