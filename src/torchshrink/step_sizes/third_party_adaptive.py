"""Step sizes of other libraries' optimizers, by name, whose updates `torch_optim` has no formula for.

Derived from and measured with the versions that `third_party` names, which has the rest. Adan, LaProp and ADOPT have a
step size too, and none stands here: they average what they have divided, or differences, and a prox comes to rest only
as fast as these do. With falling rates the lasso of 1,500 steps is off by 3e-6, 1e-4 and 2e-5 then, and by latent
weights by 1e-15, 1e-15 and 5e-11. The same holds of Adafactor with an average of updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchshrink.penalties.base import working
from torchshrink.step_sizes.registry import PREVIOUS, Group, State, Step, register_step_size
from torchshrink.step_sizes.third_party import by_setting, without


def _over_root(numerator: float, square: Tensor, offset: float) -> Tensor:
    """numerator/(√square + offset)."""
    return working(square).sqrt().add_(offset).reciprocal_().mul_(numerator)


def _rate(group: Group, state: State) -> Step:
    return float(group["lr"])


def _keep_parameter(parameter: Tensor, state: State) -> Mapping[str, Any]:
    return {"parameter": parameter}


_ADANORM = "rescales gradients by the size of all together"
_DEBIAS = "leaves its average uncorrected for its start from 0"
_AVERAGED = "averages updates, where a prox comes to rest far later than latent weights do"


# --- Transformers ---


def _relative_rate(group: Group, state: State) -> float:
    """lr, or min(.01, 1/√t) with ``relative_step``; times max(ε₂, RMS(w)) with ``scale_parameter``."""
    step: int = state["step"]
    rate: float
    if group["relative_step"]:
        rate = min(1e-6 * step if group["warmup_init"] else 1e-2, step**-0.5)
    else:
        rate = float(group["lr"])
    return rate * max(float(group["eps"][1]), float(state["RMS"])) if group["scale_parameter"] else rate


def _inverse_root(state: State) -> Tensor:
    """1/√v, v the product of the averages over rows and over columns, over the mean of the former; 1-d: the average."""
    if "exp_avg_sq_row" not in state:
        return working(state["exp_avg_sq"]).rsqrt()
    rows, columns = working(state["exp_avg_sq_row"]), working(state["exp_avg_sq_col"])
    root: Tensor = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1) * columns.unsqueeze(-2).rsqrt()
    return root


def _clipped_rate(group: Group, state: State, inverse: Tensor) -> float:
    update = inverse * state[PREVIOUS]["parameter"].grad
    threshold: float = group["clip_threshold"]
    return _relative_rate(group, state) / max(1.0, float(update.square().mean().sqrt()) / threshold)


def _adafactor_reach(group: Group, state: State) -> Step:
    """The rate, times |g|/√v where v is smaller than g²: g² is at most its row's sum of squares, and its column's."""
    inverse = _inverse_root(state)
    rate = _clipped_rate(group, state, inverse)
    if "exp_avg_sq_row" not in state:
        return rate
    rows, columns = working(state["exp_avg_sq_row"]).unsqueeze(-1), working(state["exp_avg_sq_col"]).unsqueeze(-2)
    largest = torch.minimum(rows * columns.shape[-1], columns * rows.shape[-2]).sqrt_()
    return inverse.mul_(largest).clamp_(min=1.0).mul_(rate)


@register_step_size(
    "transformers.optimization.Adafactor",
    coordinatewise=True,
    remember=_keep_parameter,
    refuses=without(beta1=_AVERAGED),
    reach=_adafactor_reach,
    weight_decay="decoupled",
)
def _adafactor_of_transformers(group: Group, state: State) -> Tensor:
    """rate/(max(1, RMS(g/√v)/d)·√v)."""
    inverse = _inverse_root(state)
    return inverse.mul_(_clipped_rate(group, state, inverse))


# --- pytorch_optimizer ---


def _rectified(group: Group) -> float:
    """lr·r_t·√(1−β₂^t), 0 where the step is not rectified yet: nothing, or little, moves then."""
    t, beta2 = group["step"], group["betas"][1]
    limit, share = 2 / (1 - beta2) - 1, 1 - beta2**t
    rho = limit - 2 * t * beta2**t / share
    if rho <= 5:
        return 0.0
    r_squared = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
    return float(group["lr"] * (share * r_squared) ** 0.5)


def _rectified_reach(group: Group, state: State) -> Step:
    root: float = (1 - group["betas"][1] ** group["step"]) ** 0.5
    return _rectified(group) / root


@register_step_size(
    "pytorch_optimizer.RAdam",
    coordinatewise=True,
    refuses=without(adam_debias=_DEBIAS, adanorm=_ADANORM),
    reach=_rectified_reach,
    elementwise=True,
    weight_decay=by_setting("weight_decouple", otherwise="unknown"),
)
def _radam(group: Group, state: State) -> Tensor:
    """lr·r_t·√(1−β₂^t)/(√v + ε) once ρ_t > 5."""
    return _over_root(_rectified(group), state["exp_avg_sq"], group["eps"])


@register_step_size(
    "pytorch_optimizer.QHAdam",
    coordinatewise=True,
    remember=_keep_parameter,
    reach=_rate,
    weight_decay=by_setting("weight_decouple"),
)
def _qhadam(group: Group, state: State) -> Tensor:
    """lr/(√(ν₂v̂ + (1−ν₂)g²) + ε), with averages that are corrected for their start."""
    square, share = state["exp_avg_sq"], group["nus"][1]
    if share != 1:
        square = square * share + state[PREVIOUS]["parameter"].grad.square() * (1 - share)
    return _over_root(group["lr"], square, group["eps"])
