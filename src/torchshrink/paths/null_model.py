"""The best constant output, which a model falls back to where all its weights are zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.training import Loss, row_losses

MOST_SETTLED = 200  # unpenalised numbers that Newton steps are taken for


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
    """The constant output (``shape``, for one row) of least mean loss on the targets, fitted by LBFGS in float64.

    Raises:
        InputError: the loss does not take a constant output, or is not finite there.
    """
    y = y.double() if y.is_floating_point() else y
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
    constant = null_output(loss, y, shape)
    judged = judged.double() if judged.is_floating_point() else judged
    return row_losses(loss, constant.expand(len(judged), *shape), judged).double().cpu()


def lbfgs(parameters: list[nn.Parameter] | list[Tensor]) -> torch.optim.LBFGS:
    """One that goes on until nothing moves."""
    # No line search of LBFGS's own ends below rounding error, which these tolerances are far below.
    return torch.optim.LBFGS(
        parameters, max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )


def minimised(mean_loss: Callable[[], Tensor], parameters: list[nn.Parameter] | list[Tensor]) -> Tensor:
    """Minimise over the parameters by LBFGS; the mean loss at the end, differentiable."""
    if parameters:
        optimizer = lbfgs(parameters)

        def closure() -> Tensor:
            optimizer.zero_grad()
            mean = mean_loss()
            mean.backward()
            return mean

        optimizer.step(closure)
        optimizer.zero_grad()
        _settle(mean_loss, parameters)
    return mean_loss()


def _settle(mean_loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Newton steps from a fit that LBFGS ended early, so that features far from 0 do not multiply what is left of it.

    Only where the parameters are few, as intercepts are. A step that does not lower the gradient is taken back.
    """
    if sum(p.numel() for p in parameters) > MOST_SETTLED:
        return

    def gradient() -> Tensor:
        found = torch.autograd.grad(mean_loss(), list(parameters), create_graph=True, materialize_grads=True)
        return torch.cat([each.reshape(-1) for each in found])

    slope = gradient()
    for _ in range(5):
        if not slope.requires_grad or not bool(slope.detach().any()):
            return
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
            return
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
            return
        slope = after
