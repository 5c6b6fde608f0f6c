"""The step sizes of torch.optim, one short function each, derived from the sources of torch 2.13.

In the formulas g is the gradient with what coupled decay adds to it, and t the number of the step just taken.

Beside s stands the reach, the most that s·|g| can be under a constant gradient g, where that has a bound: an average of
squares is then g², apart from its start at 0, so that g cancels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
    SparseAdam,
)

from torchshrink.penalties.base import working
from torchshrink.step_sizes.registry import (
    PREVIOUS,
    REACHES,
    DecayKind,
    Group,
    State,
    Step,
    refuse_step_size,
    register_step_size,
)


def step_count(state: State) -> Step:
    """The number of steps taken, or 1 where the first one was skipped (a fused step that found an overflow)."""
    step = _read(state["step"])
    return step.clamp(min=1) if isinstance(step, Tensor) else max(step, 1.0)


def _read(value: Step) -> Step:
    """A number where reading it costs nothing. One on an accelerator stays there: reading it would wait for it."""
    if isinstance(value, Tensor):
        return value.reshape(()) if value.device.type != "cpu" or torch.compiler.is_compiling() else float(value)
    return float(value)


def _over_root(numerator: Step, square: Tensor, offset: Step) -> Tensor:
    """numerator/(√square + offset), in float32 at least. Nothing is divided by a learning rate, which may be 0."""
    return working(square).sqrt().add_(offset).reciprocal_().mul_(numerator)


def _rate(group: Group, state: State) -> Step:
    """The reach of an optimizer that divides by the root of an average that is corrected for its start, or by more."""
    return _read(group["lr"])


def _from_start(reach: Step, relative: Tensor, share: Step) -> Step:
    """The reach where the average of squares starts from 0 and is not corrected: larger by 1/√share at first.

    That is so of coordinates that have had gradients. For the others, whose s has no bound then, it is ``reach``.

    Args:
        reach: in the limit.
        relative: each coordinate's s·|g| under a constant gradient, in units of its limit times the root of the share:
            near 0 where v is below ε², near 1 elsewhere. Overwritten.
        share: of a constant gradient's square in its average, 1 − α^t.
    """
    if not isinstance(share, Tensor) and share * REACHES**2 >= 1:
        return reach  # REACHES of it are enough
    return relative.mul_(share**-0.5).clamp_(min=1.0).mul_(reach)


def _decay_by_flag(group: Group) -> DecayKind:
    return "decoupled" if group["decoupled_weight_decay"] else "coupled"


# Before torch 2.7, Adam and AdamW knew no flag: each had its own decay, whatever a group's settings held.
_ADAM_HAS_FLAG = "decoupled_weight_decay" in inspect.signature(Adam).parameters


def momentum_without_limit(group: Group) -> str | None:
    """Refuses what keeps a momentum buffer from a limit, or the gradient out of it."""
    if group["momentum"] >= 1:
        return f"momentum={group['momentum']:g} sums gradients without a limit; take a momentum below 1"
    if group["momentum"] > 0 and group.get("dampening", 0) >= 1:
        return f"dampening={group['dampening']:g} keeps the gradient out of the step; take a dampening below 1"
    return None


@register_step_size(SGD, coordinatewise=False, refuses=momentum_without_limit, weight_decay="coupled")
def sgd(group: Group, state: State) -> Step:
    """lr·(1−τ)/(1−β): a buffer b ← βb + (1−τ)g has the limit g·(1−τ)/(1−β).

    Nesterov's step g + βb has the same limit, since it requires τ = 0.
    """
    lr = _read(group["lr"])
    momentum: float = group["momentum"]
    return lr if momentum == 0 else lr * ((1 - group["dampening"]) / (1 - momentum))


def _adam_of_many(group: Group, states: Sequence[State]) -> list[Step]:
    """`adam` of each, by four calls for all instead of four for each, where they are plain and equally old."""
    counts = {step_count(state) for state in states}
    key = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    squares = [state[key] for state in states]
    if len(counts) > 1 or not all(type(v) is Tensor and v.dtype in (torch.float32, torch.float64) for v in squares):
        return [adam(group, state) for state in states]
    root = (1 - _read(group["betas"][1]) ** counts.pop()) ** 0.5
    steps = list(torch._foreach_sqrt(squares))
    torch._foreach_add_(steps, group["eps"] * root)
    torch._foreach_reciprocal_(steps)
    torch._foreach_mul_(steps, _read(group["lr"]) * root)
    return [*steps]


@register_step_size(
    Adam,
    coordinatewise=True,
    many=_adam_of_many,
    reach=_rate,
    elementwise=True,
    weight_decay=_decay_by_flag if _ADAM_HAS_FLAG else "coupled",
)
@register_step_size(
    AdamW,
    coordinatewise=True,
    many=_adam_of_many,
    reach=_rate,
    elementwise=True,
    weight_decay=_decay_by_flag if _ADAM_HAS_FLAG else "decoupled",
)
def adam(group: Group, state: State) -> Tensor:
    """lr/(√v̂ + ε), with v̂ corrected for its start from 0, and AMSGrad's running maximum where that is on.

    The corrected first moment of a constant gradient is that gradient, so it drops out.
    """
    second: Tensor = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    numerator, offset = adam_scale(group, state)
    return _over_root(numerator, second, offset)


def adam_scale(group: Group, state: State) -> tuple[Step, Step]:
    """Numerator and offset of lr/(√v̂ + ε) as numerator/(√v + offset)."""
    root = (1 - _read(group["betas"][1]) ** step_count(state)) ** 0.5
    return _read(group["lr"]) * root, group["eps"] * root


def nadam_momenta(group: Group, t: Step) -> tuple[Step, Step]:
    """μ_t and μ_{t+1}."""
    beta1, psi = group["betas"][0], group["momentum_decay"]
    return beta1 * (1 - 0.5 * 0.96 ** (t * psi)), beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * psi))


def nadam_weights(group: Group, state: State) -> tuple[Step, Step]:
    """The weights that NAdam's step gives the gradient and its average."""
    mu, mu_next = nadam_momenta(group, step_count(state))
    product = _read(state["mu_product"])
    return (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)


def _nadam_rate(group: Group, state: State) -> Step:
    """NAdam's lr, times the sum of the two weights under a constant gradient."""
    of_gradient, of_average = nadam_weights(group, state)
    weight = of_gradient + of_average * (1 - group["betas"][0] ** step_count(state))
    rate: Step = _read(group["lr"]) * weight
    return rate


@register_step_size(NAdam, coordinatewise=True, reach=_nadam_rate, elementwise=True, weight_decay=_decay_by_flag)
def nadam(group: Group, state: State) -> Tensor:
    """lr·((1−μ_t)/(1−Π_t) + μ_{t+1}·(1−β₁^t)/(1−Π_t·μ_{t+1}))/(√v̂ + ε), with Π_t the product of μ_1 … μ_t.

    The step weighs the gradient and its average apart, by weights that sum to 1 only in the limit; and the average of
    a constant gradient is (1−β₁^t)·g, since it is not corrected for its start from 0.
    """
    root = (1 - _read(group["betas"][1]) ** step_count(state)) ** 0.5
    return _over_root(_nadam_rate(group, state) * root, state["exp_avg_sq"], group["eps"] * root)


def rectified_rate(group: Group, state: State) -> tuple[Step, Step]:
    """RAdam's ρ_t, and lr·r_t, which means something where ρ_t > 5."""
    t, beta2 = step_count(state), group["betas"][1]
    limit = 2 / (1 - beta2) - 1
    rho: Step = limit - 2 * t * beta2**t / (1 - beta2**t)
    lr = _read(group["lr"])
    if not isinstance(rho, Tensor) and rho <= 5:
        return rho, lr
    return rho, lr * ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5


def _radam_reach(group: Group, state: State) -> Step:
    """lr·r_t once ρ_t > 5. Before, the step is in proportion to the gradient, as SGD's, and has no bound."""
    rho, rate = rectified_rate(group, state)
    if isinstance(rho, Tensor):
        return torch.where(rho > 5, rate, math.inf)
    return rate if rho > 5 else math.inf


@register_step_size(RAdam, coordinatewise=True, reach=_radam_reach, elementwise=True, weight_decay=_decay_by_flag)
def radam(group: Group, state: State) -> Step:
    """lr·r_t·√(1−β₂^t)/(√v + ε) once ρ_t > 5, and lr before. ε is added to the uncorrected root."""
    rho, rate = rectified_rate(group, state)
    if not isinstance(rho, Tensor) and rho <= 5:
        return rate
    root = (1 - group["betas"][1] ** step_count(state)) ** 0.5
    rectified = _over_root(rate * root, state["exp_avg_sq"], group["eps"])
    return torch.where(rho > 5, rectified, _read(group["lr"])) if isinstance(rho, Tensor) else rectified


@register_step_size(Adamax, coordinatewise=True, reach=_rate, elementwise=True, weight_decay="coupled")
def adamax(group: Group, state: State) -> Tensor:
    """lr/u, with u the running maximum, which has ε inside: u ← max(β₂u, |g| + ε)."""
    return working(state["exp_inf"]).reciprocal().mul_(_read(group["lr"]))


def _centered_or_momentum(group: Group) -> str | None:
    if group["centered"]:
        # v − ḡ² is 0 but for rounding under a constant gradient, where torch's own step divides by √(−1e-17).
        return (
            "centered=True divides by the gradient's deviation from its average, which is 0 at the solution that a "
            "prox aims at, where the step itself becomes NaN; take centered=False, or method='gradient'"
        )
    return momentum_without_limit(group)


def _rmsprop_reach(group: Group, state: State) -> Step:
    """lr/(1−μ) in the limit: of a constant gradient v is (1 − α^t)·g²."""
    reach = _read(group["lr"]) / (1 - group["momentum"])
    root = working(state["square_avg"]).sqrt()
    return _from_start(reach, root.div_(root + group["eps"]), 1 - group["alpha"] ** step_count(state))


@register_step_size(
    RMSprop,
    coordinatewise=True,
    refuses=_centered_or_momentum,
    reach=_rmsprop_reach,
    elementwise=True,
    weight_decay="coupled",
)
def rmsprop(group: Group, state: State) -> Tensor:
    """lr/(1−μ)/(√v + ε), μ the momentum: a buffer b ← μb + g/(√v + ε) has the limit g/(√v + ε)/(1−μ)."""
    return _over_root(_read(group["lr"]) / (1 - group["momentum"]), state["square_avg"], group["eps"])


def _decayed_rate(group: Group, state: State) -> Step:
    """lr/(1 + (t−1)·lr_decay); Adagrad's reach, since its sum has the last gradient's square in full."""
    rate: Step = _read(group["lr"]) / (1 + (step_count(state) - 1) * group["lr_decay"])
    return rate


@register_step_size(Adagrad, coordinatewise=True, reach=_decayed_rate, elementwise=True, weight_decay="coupled")
def adagrad(group: Group, state: State) -> Tensor:
    """lr/(1 + (t−1)·lr_decay)/(√sum + ε)."""
    return _over_root(_decayed_rate(group, state), state["sum"], group["eps"])


def _acc_delta(parameter: Tensor, state: State) -> Mapping[str, Any]:
    return {"acc_delta": state["acc_delta"].clone() if "acc_delta" in state else torch.zeros_like(parameter)}


def _adadelta_reach(group: Group, state: State) -> Step:
    """lr·√(a + ε) in the limit: of a constant gradient v is (1 − ρ^t)·g²."""
    reach = working(state[PREVIOUS]["acc_delta"]).add(group["eps"]).sqrt_().mul_(_read(group["lr"]))
    square = working(state["square_avg"])
    relative = (square / (square + group["eps"])).sqrt_()
    return _from_start(reach, relative, 1 - group["rho"] ** step_count(state))


@register_step_size(Adadelta, coordinatewise=True, remember=_acc_delta, reach=_adadelta_reach, weight_decay="coupled")
def adadelta(group: Group, state: State) -> Tensor:
    """lr·√(a + ε)/√(v + ε), with a the average of squared displacements as it was before this step's went in."""
    before = working(state[PREVIOUS]["acc_delta"])
    return before.add(group["eps"]).div_(state["square_avg"] + group["eps"]).sqrt_().mul_(_read(group["lr"]))


def _eta(parameter: Tensor, state: State) -> Mapping[str, Any]:
    return {"eta": state["eta"].clone()} if "eta" in state else {}


@register_step_size(ASGD, coordinatewise=False, remember=_eta, weight_decay="coupled")
def asgd(group: Group, state: State) -> Step:
    """η_t, which the state held before the step; after it holds the next one. The first is lr, in η's precision."""
    eta: Tensor = state["eta"]
    return _read(state[PREVIOUS].get("eta", torch.as_tensor(group["lr"], dtype=eta.dtype, device=eta.device)))


def _magnitude(parameter: Tensor, state: State) -> Mapping[str, Any]:
    return {"magnitude": _read(parameter.detach().norm(2) / parameter.numel() ** 0.5), "parameter": parameter}


def _adafactor_rate(group: Group, state: State, inverse: Tensor) -> float:
    """max(ε₂, RMS(w))·min(lr, 1/√t)/max(1, RMS(g/√v)/d): the displacement of a coordinate whose g² is v."""
    update = inverse * state[PREVIOUS]["parameter"].grad
    clip = max(1.0, float(update.norm(2)) / (update.numel() ** 0.5 * group["d"]))
    rate = min(float(group["lr"]), float(step_count(state)) ** -0.5)
    return float(max(group["eps"][1], state[PREVIOUS]["magnitude"]) * rate / clip)


def _inverse_root(group: Group, state: State) -> Tensor:
    """1/√v of Adafactor."""
    eps1 = group["eps"][0]
    if eps1 is None:
        eps1 = torch.finfo(state[PREVIOUS]["parameter"].dtype).eps
    if "row_var" in state:
        rows = state["row_var"]
        variance = (rows @ state["col_var"]).div_(rows.mean(dim=-2, keepdim=True).clamp_(min=eps1))
    else:
        variance = state["variance"].clone()
    root: Tensor = variance.clamp_(min=eps1 * eps1).rsqrt_()
    return root


def _adafactor_reach(group: Group, state: State) -> Step:
    """The rate, times |g|/√v where v is smaller than g²: g² is at most its row's sum of squares, and its column's."""
    inverse = _inverse_root(group, state)
    rate = _adafactor_rate(group, state, inverse)
    if "row_var" not in state:
        return rate
    rows, columns = state["row_var"], state["col_var"]
    largest = torch.minimum(rows * columns.shape[-1], columns * rows.shape[-2]).sqrt_()
    return working(inverse).mul_(largest).clamp_(min=1.0).mul_(rate)


@register_step_size(
    Adafactor, coordinatewise=True, remember=_magnitude, reach=_adafactor_reach, weight_decay="decoupled"
)
def adafactor(group: Group, state: State) -> Tensor:
    """max(ε₂, RMS(w))·min(lr, 1/√t)/(max(1, RMS(g/√v)/d)·√v), w before the step.

    v is the product of the averages over rows and over columns, over the mean of the former; 0-d and 1-d: the average.
    """
    inverse = _inverse_root(group, state)
    return working(inverse).mul(_adafactor_rate(group, state, inverse))


refuse_step_size(
    LBFGS,
    reason="steps along a dense approximation of the inverse Hessian, not by one step size per coordinate",
    instead="Use method='latent' for exact zeros, or method='gradient' for a smooth penalty",
)
refuse_step_size(
    Rprop,
    reason="moves each weight by a length of its own whatever the size of the gradient",
    instead="Use method='latent' for exact zeros, or method='gradient' for a smooth penalty",
)
refuse_step_size(
    SparseAdam,
    reason="moves only the rows that the batch has touched, and a penalty acts on all",
    instead="Use sparse=False in the embedding, with Adam, or exempt it with a rule None",
)

_MUON: type[Optimizer] | None = vars(torch.optim).get("Muon")
if _MUON is not None:  # torch 2.8 has none yet
    refuse_step_size(
        _MUON,
        reason="orthogonalises the gradient of a whole matrix, so that no displacement is in proportion to it",
        instead="Use method='latent' for exact zeros, or method='gradient' for a smooth penalty",
        weight_decay="decoupled",
    )
