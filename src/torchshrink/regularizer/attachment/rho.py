"""Which ρ the prox of latent weights is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchshrink import distributed
from torchshrink.errors import StepSizeError
from torchshrink.step_sizes import step_size_of, weight_decays

KAPPA = 10.0
"""ρ = κ·‖∂Ω(z)‖/‖z‖ at the start: under L1 all weights below a tenth of their root mean square are 0 at most.

Too small a ρ lets a weight cross a wide range in which the model sees 0; too large a one makes every step a short one.
"""

SMALLEST, ORDINARY = 0.01, 0.3
"""What stands in for ‖z‖ when ρ is chosen, times √numel/√(inputs): ORDINARY, about what a layer starts with, where all
weights start at 0; and at least SMALLEST elsewhere."""


def start_for_rho(z: Tensor) -> Tensor:
    """The weights at which ∂Ω is taken to choose ρ: z itself, or an ordinary start where z is 0 everywhere."""
    return torch.where(norm_of(z) > 0, z, ORDINARY * _unit(z))


def default_rho(z: Tensor, pull: Tensor, grad: Tensor) -> Tensor:
    """ρ = κ·‖∂Ω(z)‖/‖z‖, a scalar, in proportion to the penalty and inversely to the weights.

    Args:
        z: the weights at the start.
        pull: ∂Ω at `start_for_rho`.
        grad: the loss's gradient, which stands in for ∂Ω where that is 0, as it is of a constraint inside its set.

    Returns:
        A scalar that is 0, infinite or NaN where ``pull`` is 0 and ``grad`` is no help.
    """
    norm, unit = norm_of(z), _unit(z) * math.sqrt(z.numel())
    size = torch.where(norm > 0, norm.clamp(min=SMALLEST * unit), ORDINARY * unit)
    against = norm_of(pull)
    return KAPPA * torch.where(against > 0, against, norm_of(grad)) / size


def bounded_rho(rho: Tensor, optimizer: Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    """ρ, at most 1/s where one step size s is known for the whole tensor, as after SGD: there it is the prox."""
    try:
        rule = step_size_of(optimizer, group)
    except StepSizeError:
        return rho
    if rule.coordinatewise or rule.remember is not None:
        return rho
    try:
        step = float(rule.step_size(group, state))
    except KeyError:
        if state:
            raise
        return rho  # the optimizer has not taken a step yet
    return rho.clamp(max=1 / step) if step > 0 else rho


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
