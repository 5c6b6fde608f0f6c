"""Which ρ the prox of latent weights is given.

What is said of one tensor here holds of several at once, and of lanes: ρ and what it rests on are scalars, or tensors
of one shape, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import StepSizeError
from torchshrink.penalties import Penalty
from torchshrink.penalties.multitensor import gradients
from torchshrink.regularizer.attachment.blocks import blocks
from torchshrink.step_sizes import step_size_of, weight_decays


@dataclass(frozen=True)
class Measured:
    """What one step did to one tensor.

    Attributes:
        gradient: ‖∇L + ρu‖, which the step was given.
        pull: ‖ρu‖.
        displacement: of the latent weights, a norm too.
        evaluations: of the gradient.
    """

    gradient: Tensor
    pull: Tensor
    displacement: Tensor
    evaluations: Tensor | int


class Fit(NamedTuple):
    """ρ at scale 1, and what it rests on.

    Attributes:
        unit: by `default_rho`.
        held: as it is taken, which the optimizer's steps may limit.
        most: the most that it may be, as far as these have shown (`stepped_limit`), at the scale of now; infinite
            before the first.
    """

    unit: Tensor
    held: Tensor
    most: Tensor


KAPPA = 10.0
"""ρ = κ·‖∂Ω(z)‖/‖z‖ at the start: under L1 all weights below a tenth of their root mean square are 0 at most.

Too small a ρ lets a weight cross a wide range in which the model sees 0; too large a one makes every step a short one.
"""

KAPPA_OF_COUNTS = 0.3
"""The same where a constraint says how many weights are nonzero, and not how large they are.

There a zero becomes a weight where its |∇L| exceeds ρ times the smallest weight that is not 0. A large ρ keeps the
first choice of zeros for ever; at a third of this they flicker. On eight problems of 12 features of which 4 may stay,
under Adam, SGD with momentum and Muon, 23 of 24 ends are the best subset, and with κ = 10 eleven; a digits
network with 3 % of its weights under Muon ends at a mean loss of .08 instead of .67.
"""

FAR, FAR_OF_COUNTS = 10.0, 3.0
"""How many times larger a later gradient has to be for a ρ that rests on the first one to follow it."""

LOOKS = 16
"""The first steps, and then each so many: in these ρ is looked at."""

OFF = 3.0
"""How many times larger or smaller ρ = κ·‖∂Ω(z)‖/‖z‖ has to be for the weights of now before ρ follows it."""

STEPPED, SEARCHED = 0.5, 4.0
"""ρ is at most this times ‖gradient‖/‖displacement‖ of the steps that are looked at.

With 1/s for that ratio a weight that is 0 comes within ρ·s of its rest in a step, and from 2 on never rests; where
steps have one length whatever the gradient, λ/ρ, within which the model sees 0, is then no less than two of
them. SEARCHED is
for steps of several evaluations: with a ρ below the loss's curvature a line search finds no descent and stops for ever.
"""

STUCK = 1e-3
"""A search that moves nothing at a gradient of more than this times ‖ρu‖ is not at its end."""

FALL, RISE = 4.0, 2.0
"""By how much that limit may fall and rise in one step, which does not say much."""

SHORT = 2.0
"""How many times larger than its limit ρ may be. It changes rarely, since an optimizer that knows where the weights
began (MADGRAD) puts them back into the scale of the ρ that it knew."""

SMALLEST, ORDINARY = 0.01, 0.3
"""What stands in for ‖z‖ when ρ is chosen, times √numel/√(inputs): ORDINARY, about what a layer starts with, where all
weights start at 0; and at least SMALLEST elsewhere."""


def start_for_rho(z: Tensor) -> Tensor:
    """The weights at which ∂Ω is taken to choose ρ: z itself, or an ordinary start where z is 0 everywhere."""
    return torch.where(norm_of(z) > 0, z, ORDINARY * _unit(z))


def is_looked_at(steps: int) -> bool:
    """Whether ρ is looked at in the step after so many."""
    return steps < LOOKS or steps % LOOKS == 0


def looked_back(fit: Fit, measured: Measured, natural: Tensor, *, steps: int, scale: float | Tensor = 1.0) -> Fit:
    """What ρ is from the next step on, after one that was looked at.

    Args:
        fit: until now.
        measured: what the step did.
        natural: `default_rho` for the weights of now; NaN where ρ does not follow the weights.
        steps: that came before it.
        scale: the regularizer's.
    """
    most = stepped_limit(fit.most, measured, early=steps < LOOKS**2)
    unit = refitted_rho(fit.unit, natural)
    return Fit(unit, held_rho(fit.held, unit, most / scale), most)


def followed_rho(penalty: Penalty, unit: Tensor, z: Tensor, grad: Tensor, u: Tensor) -> Tensor:
    """ρ of a constraint at a later gradient: ``unit``, unless that rests on one that was far smaller.

    Args:
        penalty: the constraint.
        unit: ρ until now.
        z: the weights.
        grad: the loss's gradient.
        u: latent weights minus z. Where weights began at a minimum, this is what the first projection cut off, and
            ‖grad‖/‖u‖ the curvature that it met: what ρ is to be for a bound on the count of weights.
    """
    counts = penalty.bounds_support
    least = default_rho(penalty, z, torch.zeros_like(z), grad)
    far = ((FAR_OF_COUNTS if counts else FAR) * unit < least) & least.isfinite()
    if not counts:
        return torch.where(far, least, unit)
    curvature = norm_of(grad) / norm_of(u)
    return torch.where(far, torch.maximum(least, torch.minimum(curvature, least * (KAPPA / KAPPA_OF_COUNTS))), unit)


def is_stuck(measured: Measured, rounding: Tensor) -> Tensor:
    """Whether a step of several evaluations moved the weights by no more than rounding, and not for want of a gradient.

    Args:
        measured: the step's.
        rounding: of the latent weights.
    """
    still = (measured.displacement <= 4 * rounding) & (measured.gradient > STUCK * measured.pull)
    return still & (torch.as_tensor(measured.evaluations) > 2)


def refitted_rho(unit: Tensor, now: Tensor) -> Tensor:
    """ρ, or what `default_rho` gives for the weights of now, where the two are far apart: a start says little of them.

    From weights that start at 0, or far from where they belong, ρ would be off by orders of magnitude for ever.
    """
    off = (now < unit / OFF) | (now > unit * OFF)
    return torch.where(off & (now > 0) & now.isfinite(), now, unit)


def stepped_limit(limit: Tensor, measured: Measured, *, early: bool) -> Tensor:
    """The most that ρ may be, after one more step: what is known of an optimizer of which nothing is known.

    A step in proportion to the gradient says the same at all times, one by its sign says that ρ vanishes with the
    gradient: so ρu stands in for that where it is larger. Later on the limit only falls, but while gradients are large:
    at the turning points of an oscillation displacements vanish, and say nothing.

    Args:
        limit: until now; infinite before the first.
        measured: the step's.
        early: whether it is one of the first.
    """
    gradient, pull, displacement = measured.gradient, measured.pull, measured.displacement
    larger = torch.maximum(gradient, pull)
    tells = (displacement > 0) & displacement.isfinite() & (larger > 0) & larger.isfinite()
    share = torch.where(torch.as_tensor(measured.evaluations) > 2, SEARCHED, STEPPED).to(limit)
    least = share * larger / displacement
    fallen = torch.where(limit.isfinite(), torch.maximum(least, limit / FALL), least)
    risen = torch.maximum(limit, torch.minimum(share * gradient / displacement, limit * RISE))
    risen = risen if early else torch.where(gradient >= pull, risen, limit)
    return torch.where(tells, torch.where(least < limit, fallen, risen), limit)


def held_rho(held: Tensor, wanted: Tensor, limit: Tensor) -> Tensor:
    """ρ as it is taken: ``held``, as long as it is not far below what is wanted within the limit, nor beyond that."""
    target = torch.minimum(wanted, limit)
    beyond = target * torch.where(limit < wanted, SHORT, OFF).to(target)
    return torch.where((target / OFF <= held) & (held <= beyond), held, target)


def default_rho(penalty: Penalty, z: Tensor, pull: Tensor, grad: Tensor | None) -> Tensor:
    """ρ = κ·‖∂Ω(z)‖/‖z‖, a scalar, in proportion to the penalty and inversely to the weights.

    Args:
        penalty: Ω.
        z: the weights at the start.
        pull: ∂Ω at `start_for_rho`.
        grad: the loss's gradient, which stands in for ∂Ω where that is 0, as it is of a constraint inside its set.

    Returns:
        A scalar that is 0, infinite or NaN where ``pull`` is 0 and ``grad`` is no help.
    """
    return rho_of_norms(
        penalty, _unit(z) * math.sqrt(z.numel()), norm_of(z), norm_of(pull), None if grad is None else norm_of(grad)
    )


def rho_of_norms(penalty: Penalty, unit: float, norm: Tensor, against: Tensor, gradient: Tensor | None) -> Tensor:
    """As `default_rho`, from the norms of z, of ∂Ω and of the gradient; ``unit``: of weights 1/√(inputs) each."""
    size = torch.where(norm > 0, norm.clamp(min=SMALLEST * unit), ORDINARY * unit)
    if gradient is not None:
        against = torch.where(against > 0, against, gradient)
    return (KAPPA_OF_COUNTS if penalty.bounds_support else KAPPA) * against / size


def first_rho_in_blocks(penalty: Penalty, acting: Penalty, z: Tensor, grad: Tensor) -> Tensor:
    """As `default_rho` in float64, of a large tensor, of which no copy in float64 is made.

    Args:
        penalty: Ω.
        acting: whose gradient is the pull: Ω or its convex part, which can be `blocks.is_cut`.
        z: the weights.
        grad: the loss's gradient.
    """
    start = ORDINARY * _unit(z) if float(norm_of(z)) == 0 else None
    norms = []
    for part, block, state in blocks(acting, z, {"grad": grad}):
        w = block.double()
        at = w if start is None else torch.full_like(w, start)
        norms.append(torch.stack([norm_of(each) for each in (w, *gradients(part, [at], 1.0), state["grad"].double())]))
    norm, against, gradient = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return rho_of_norms(penalty, _unit(z) * math.sqrt(z.numel()), norm, against, gradient)


def rho_limit(optimizer: Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]) -> float:
    """1/s, the most that ρ is to be, where one step size s is known for the whole tensor, as after SGD; else infinite.

    There the latent step is the prox step.
    """
    try:
        rule = step_size_of(optimizer, group)
    except StepSizeError:
        return math.inf
    if rule.coordinatewise or rule.remember is not None:
        return math.inf
    try:
        step = float(rule.step_size(group, state))
    except KeyError:
        if state:
            raise
        return math.inf  # the optimizer has not taken a step yet
    return 1 / step if step > 0 else math.inf


def coupled_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> float:
    """What an optimizer adds to the gradient of a weight, in units of the weight."""
    return sum(decay.rate for decay in weight_decays(optimizer, group) if decay.kind == "coupled")


def norm_of(tensor: Tensor) -> Tensor:
    """‖tensor‖, of all its shards."""
    return distributed.whole(torch.linalg.vector_norm(tensor))


def _unit(z: Tensor) -> float:
    """1/√(inputs) of a layer with these weights."""
    inputs = z.numel() / z.shape[0] if z.ndim > 1 and z.numel() else z.numel()
    return 1 / math.sqrt(max(inputs, 1.0))
