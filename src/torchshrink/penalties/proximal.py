"""Pure tensor functions behind the proximal operators. No strengths, no models: tensors in, tensors out.

Every function works under ``torch.func.vmap`` and in compiled code: where data cannot be looked at, no iteration ends
early (`_certainly`).
A NaN that goes in comes out: a diverged weight must not look like an exact zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.support.private_torch import unbatched, under_functorch

Threshold = float | Tensor

# The Newton iteration of `metric_block_soft_threshold` is monotone and at last quadratic. Over 1e6 random groups
# with steps between 1e-8 and 1e8 it settled in float64 in at most 9 iterations, in 7 within 1e-1 … 1e1.
NEWTON_ITERATIONS = 12
# That of `metric_project_ball`, monotone too: 16 iterations over 1e5 groups of 2 to 1024, steps between 1e-8 and 1e8.
BALL_ITERATIONS = 18
SPHERE_ITERATIONS = 18


def soft_threshold(z: Tensor, threshold: Threshold) -> Tensor:
    """sign(z)·(|z| − t)₊, the prox of t·|·|, with exact zeros where |z| ≤ t.

    Args:
        z: any shape.
        threshold: t ≥ 0, a number or a tensor that broadcasts against ``z``.

    Example:
        >>> soft_threshold(torch.tensor([3.0, -0.5, -2.0]), 1.0)
        tensor([ 2.,  0., -1.])
    """
    t = cast("Tensor", threshold)  # clamp takes both, but is typed for two of the same kind
    return z - z.clamp(-t, t)


def reduced_dims(ndim: int, dims: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions inside a group, when ``dims`` number the groups of a tensor with ``ndim`` dimensions.

    Raises:
        InputError: a dimension that such a tensor does not have.
    """
    for dim in dims:
        if not -max(ndim, 1) <= dim < max(ndim, 1):
            raise InputError(f"dim={dim}: a tensor with {ndim} dimensions has no such dimension to number groups by")
    kept = {dim % ndim for dim in dims} if ndim else set()
    return tuple(dim for dim in range(ndim) if dim not in kept)


def group_size(shape: torch.Size, dims: tuple[int, ...]) -> int:
    """How many coordinates each group has."""
    return math.prod([shape[dim] for dim in reduced_dims(len(shape), dims)])


def group_norm(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The Euclidean norm of each group, with the reduced dimensions kept as 1. Its gradient at a zero group is 0."""
    reduced = reduced_dims(w.ndim, dims)
    if not reduced:  # vector_norm(dim=()) would reduce everything
        return w.abs()
    return scaled_norm(w, reduced)


def scaled_norm(w: Tensor, reduced: tuple[int, ...]) -> Tensor:
    """The Euclidean norm over some dimensions, kept as 1, where neither huge nor tiny entries are lost when squared."""
    if w.numel() == 0:
        return torch.linalg.vector_norm(w, dim=reduced, keepdim=True)  # type: ignore[no-any-return]
    scale = power_of_two(torch.linalg.vector_norm(w.detach(), math.inf, dim=reduced, keepdim=True))
    return torch.linalg.vector_norm(w / scale, dim=reduced, keepdim=True) * scale  # type: ignore[no-any-return]


def plain_norm(w: Tensor, reduced: tuple[int, ...]) -> Tensor:
    """The Euclidean norm over some dimensions, kept as 1, of entries whose squares stay finite and are not lost.

    Over rows torch's own kernel is at the speed of the memory. Over the columns of what lies in rows it is ten times
    slower, on a CPU, than sums of squares; these are taken in blocks of slices, so that no tensor of squares is as
    large as the weights. Where autograd or a transform looks on, and in half precision, it is torch's everywhere.
    """
    ours = w.device.type == "cpu" and w.is_contiguous() and w.dtype in (torch.float32, torch.float64)
    if not ours or _is_watched() or reduced == tuple(range(w.ndim - len(reduced), w.ndim)):
        return torch.linalg.vector_norm(w, dim=reduced, keepdim=True)  # type: ignore[no-any-return]
    length = max(1, BLOCK * w.shape[0] // max(1, w.numel()))
    squares = (block.square().sum(reduced, keepdim=True) for block in w.split(length))
    return (torch.cat([*squares]) if 0 not in reduced else functools.reduce(Tensor.add_, squares)).sqrt_()


def _is_watched() -> bool:
    """Whether autograd, a transform of ``torch.func`` or the compiler looks on, for which nothing is overwritten."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or under_functorch()


BLOCK = 128 * 1024
"""Coordinates in a block that stays in a processor's cache between operations, 512 KiB in float32.

Measured with L1, the elastic net and the group lasso after a fused Adam, 1.9 M weights, as multiples of Adam's own
step: 3.9, 5.6 and 10; the group lasso with blocks of half or of twice this size 11, and without 25.
"""


def power_of_two(largest: Tensor) -> Tensor:
    """A power of two near each number, so that dividing by it changes no digit; 1 for what is 0 or not finite."""
    scale = torch.where((largest > 0) & (largest < math.inf), torch.exp2(largest.log2().floor()), 1.0)
    return scale.to(largest.dtype).clamp(min=torch.finfo(largest.dtype).tiny)


def per_group(kept: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Drop the reduced dimensions of a tensor that `group_norm` returned: one value per group."""
    reduced = reduced_dims(kept.ndim, dims)
    return kept.squeeze(reduced) if reduced else kept


def block_soft_threshold(z: Tensor, threshold: Threshold, dims: tuple[int, ...]) -> Tensor:
    """(1 − t/‖z_g‖)₊·z_g for each group g, the prox of t·‖·‖: with one t for all of a group's coordinates.

    Args:
        z: any shape.
        threshold: t ≥ 0, a number or a tensor of one value.
        dims: the dimensions that number the groups.
    """
    return z * shrinkage(z, threshold, dims)


def shrinkage(z: Tensor, threshold: Threshold, dims: tuple[int, ...]) -> Tensor:
    """The factor (1 − t/‖z_g‖)₊ of `block_soft_threshold`, with the reduced dimensions kept as 1."""
    reduced = reduced_dims(z.ndim, dims)
    # Not `group_norm`, which takes three times as long: a norm that overflows leaves z as it is, which under any usual
    # threshold is right to the last digit, and one whose square is lost is below 1e-19 in float32.
    norm = plain_norm(z, reduced) if reduced else z.abs()
    # Where ‖z‖ ≤ t the quotient is clamped to 1 and the factor is exactly 0, the zero group included.
    return 1 - torch.clamp(threshold / torch.clamp(norm, min=torch.finfo(norm.dtype).tiny), max=1.0)


def metric_block_soft_threshold(x: Tensor, threshold: Tensor, dims: tuple[int, ...]) -> Tensor:
    """argmin_u Σ (u_i−x_i)²/(2 s_i) + λ‖u_g‖ for each group, with one step s_i per coordinate.

    With t_i = s_i·λ the stationarity condition gives u_i = x_i·θ/(θ + t_i), where θ = ‖u‖ solves the secular equation
    ψ(θ) = Σ x_i²/(θ + t_i)² = 1, unless ‖x/t‖ ≤ 1, and then u = 0. ψ^(−1/2) − 1 is concave and increasing, so
    Newton climbs monotonically from its first step's end to it.

    Args:
        x: any shape.
        threshold: t_i ≥ 0, broadcastable to the shape of ``x``.
        dims: the dimensions that number the groups.

    Returns:
        The minimiser, shaped like ``x``; a group is zero exactly where the mathematics has a zero.

    Source:
        Deleu and Bengio, Structured sparsity inducing adaptive optimizers, arXiv 2102.03869, with the unknown scaled
        so that neither a zero step nor a step of 1e8 needs a case of its own.
    """
    threshold = threshold.expand(x.shape)
    if x.numel() == 0:
        return x.clone()
    reduced = reduced_dims(x.ndim, dims)
    if not reduced:
        return soft_threshold(x, threshold)
    return secular_soft_threshold(
        x,
        threshold,
        total=lambda t: t.sum(dim=reduced, keepdim=True),
        largest=lambda t: t.amax(dim=reduced, keepdim=True),
        spread=lambda kept: kept,
    )


def secular_soft_threshold(
    x: Tensor,
    threshold: Tensor,
    *,
    total: Callable[[Tensor], Tensor],
    largest: Callable[[Tensor], Tensor],
    spread: Callable[[Tensor], Tensor],
) -> Tensor:
    """The solution of `metric_block_soft_threshold` for groups of any kind.

    Args:
        x: not empty.
        threshold: t_i ≥ 0, shaped like ``x``.
        total: the sum over each group.
        largest: the largest of each group.
        spread: what broadcasts to ``x`` from one number per group, as the other two return it.
    """
    tiny = torch.finfo(x.dtype).tiny
    # Results of which nobody else knows are overwritten: in blocks of a large tensor that saves memory and time.
    keep = _is_watched()
    mul, div, sub = (torch.mul, torch.div, torch.sub) if keep else (Tensor.mul_, Tensor.div_, Tensor.sub_)
    # θ ≥ |x_i| − t_i for every i makes each quotient below at most 1, so nothing overflows.
    lower = largest(sub(x.abs(), threshold)).clamp(min=0)
    is_zero: Tensor | None = None
    if not _certainly(lower > 0):  # a step of 0 leaves what is not 0 alone: the quotient is huge
        is_zero = (lower <= 0) & (total((x / threshold.clamp(min=tiny)).square()) <= 1)
    # The root, where all t_i are alike; else near it as a rule. A tangent of a concave function lies above it: so
    # Newton's first step ends at a lower bound from wherever it starts, and climbs from there on.
    squares = x.square()
    whole = total(squares)
    theta = whole.sqrt() - total(mul(squares, threshold)) / whole
    theta = torch.where(theta.isfinite(), torch.maximum(theta, lower), lower)
    moving = torch.ones_like(theta, dtype=torch.bool)
    for first in (True, *[False] * (NEWTON_ITERATIONS - 1)):
        denominator = spread(theta.clamp(min=tiny)) + threshold
        quotient = x / denominator
        squares = mul(quotient, quotient)
        psi = total(squares)
        slope = total(div(squares, denominator))  # −ψ'/2
        climb = psi * (psi.sqrt() - 1) / slope.clamp(min=tiny)
        if first:
            theta = torch.maximum(theta + climb, lower)
            moving = ~_is_short(climb.abs(), theta)
        else:
            theta, moving = _climbed(theta, climb, moving)
        if _certainly(~moving):
            break
    if is_zero is not None:
        theta = torch.where(is_zero, 0.0, theta)
    theta = spread(theta)
    share = theta / (theta.clamp(min=tiny) + threshold)
    return mul(share, x) + 0.0  # no −0


def _climbed(at: Tensor, climb: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """A Newton step up to the root of each group that is still ``moving``, and which groups are after it.

    A group that has stopped stays where it is, so that its result does not depend on the groups beside it.
    """
    climb = torch.where(moving, climb.clamp(min=0), 0.0)  # monotone; what is negative here is rounding
    at = at + climb
    return at, moving & ~_is_short(climb, at)


def _is_short(climb: Tensor, at: Tensor) -> Tensor:
    """Whether another Newton step after this one, at quadratic convergence, would change no digit."""
    return climb.le(torch.finfo(at.dtype).eps ** 0.75 * at)


def _certainly(condition: Tensor) -> bool:
    """Whether it holds of all groups, of any lane; False where that cannot be seen: compiled, on another device."""
    if torch.compiler.is_compiling() or condition.device.type != "cpu":
        return False
    values = unbatched(condition) if under_functorch() else condition
    return values is not None and bool(values.all())


def project_ball(z: Tensor, radius: Threshold, dims: tuple[int, ...]) -> Tensor:
    """z_g·min(1, c/‖z_g‖) for each group g: the nearest point with ‖z_g‖ ≤ c.

    Args:
        z: any shape.
        radius: c > 0, a number or a tensor of one value.
        dims: the dimensions that number the groups.

    Example:
        >>> project_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0, (0,))
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    norm = group_norm(z, dims)
    return z * torch.clamp(radius / norm.clamp(min=torch.finfo(norm.dtype).tiny), max=1.0)


def metric_project_ball(x: Tensor, radius: Threshold, step: Tensor, dims: tuple[int, ...]) -> Tensor:
    """argmin_u Σ (u_i−x_i)²/(2 s_i) subject to ‖u_g‖ ≤ c for each group, with one step s_i per coordinate.

    A group outside has u_i = x_i/(1 + μs_i), where μ > 0 solves the secular equation ‖u(μ)‖ = c. 1/‖u(μ)‖ is concave
    and increasing, so Newton from a lower bound of μ climbs monotonically to it. Where all steps are 0 nothing moves.

    Args:
        x: any shape.
        radius: c > 0, a number or a tensor of one value.
        step: s_i ≥ 0, broadcastable to the shape of ``x``.
        dims: the dimensions that number the groups.
    """
    step = step.expand(x.shape)
    if x.numel() == 0:
        return x.clone()
    reduced = reduced_dims(x.ndim, dims)
    if not reduced:
        return torch.where(step > 0, x.sign() * x.abs().clamp(max=radius), x)
    tiny = torch.finfo(x.dtype).tiny
    given, x = x, x / radius  # a ball of radius 1, whose squares are near 1
    norm, fastest = group_norm(x, dims), step.amax(dim=reduced, keepdim=True)
    # ‖u‖ = 1 needs every |u_i| ≤ 1, and ‖u‖ ≥ ‖x‖/(1 + μ·max s).
    alone = torch.where(step > 0, (x.abs() - 1) / step.clamp(min=tiny), 0.0)
    together = torch.where(fastest > 0, (norm - 1) / fastest.clamp(min=tiny), 0.0)
    mu = torch.maximum(alone.amax(dim=reduced, keepdim=True), together).clamp(min=0)
    moving = torch.ones_like(mu, dtype=torch.bool)
    for _ in range(BALL_ITERATIONS):
        shrinkage = 1 + mu * step
        squares = (x / shrinkage).square()
        total = squares.sum(dim=reduced, keepdim=True)
        slope = (squares * (step / shrinkage)).sum(dim=reduced, keepdim=True)  # −½ d‖u‖²/dμ
        climb = total * (total.sqrt() - 1) / slope.clamp(min=tiny)
        mu, moving = _climbed(mu, climb, moving)
        if _certainly(~moving):
            break
    u = x / (1 + mu * step)
    u = u * (radius / group_norm(u, dims).clamp(min=tiny))  # onto the sphere to the last digit
    stays = (norm <= 1) | (fastest <= 0)  # neither for what is not a number
    return torch.where(stays, given, u)


def project_sphere(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """z_g/‖z_g‖ for each group g; 1/√p_g everywhere in a group of zeros, from which all points are equally far.

    Args:
        z: any shape.
        dims: the dimensions that number the groups.
    """
    norm = group_norm(z, dims)
    flat = 1 / math.sqrt(max(group_size(z.shape, dims), 1))
    return torch.where(norm == 0, flat, z / torch.where(norm == 0, 1.0, norm))


def metric_project_sphere(x: Tensor, step: Tensor, dims: tuple[int, ...]) -> Tensor:
    """argmin_u Σ (u_i−x_i)²/(2 s_i) subject to ‖u_g‖ = 1 for each group, with one step s_i per coordinate.

    With t_i = s_i/max s the minimiser is u_i = x_i/(1 + mt_i) for the one m ≥ −1 with ‖u‖ = 1: a trust-region problem,
    in which m < 0 for what lies inside. As in `metric_project_ball`, 1/‖u‖ is concave and increasing, so Newton from
    a lower bound climbs; the unknown is d = 1 + m, so that nothing cancels near the pole d = 0. The hard case, x_i = 0
    wherever t_i = 1, and ‖u‖ < 1 at the pole: what is missing goes to these coordinates in equal parts, positive.
    Where all steps are 0 nothing moves.

    Args:
        x: any shape.
        step: s_i ≥ 0, shaped like ``x``.
        dims: the dimensions that number the groups.

    Example:
        >>> metric_project_sphere(torch.tensor([[0.3, 0.4], [0.0, 0.0]]), torch.ones(2, 2), (0,))
        tensor([[0.6000, 0.8000],
                [0.7071, 0.7071]])

    Source:
        Conn, Gould and Toint (2000), Trust-region methods, chapter 7.
    """
    if x.numel() == 0:
        return x.clone()
    reduced = reduced_dims(x.ndim, dims)
    if not reduced:
        return torch.where(step > 0, project_sphere(x, dims), x)
    tiny = torch.finfo(x.dtype).tiny
    fastest = step.amax(dim=reduced, keepdim=True)
    t = step / fastest.clamp(min=tiny)
    # ‖u‖ = 1 needs every |u_i| ≤ 1, and ‖u‖ ≥ ‖x‖/max(1, d).
    alone = torch.where(t > 0, 1 + (x.abs() - 1) / t.clamp(min=tiny), 0.0)
    norm = group_norm(x, dims)
    d = torch.maximum(alone.amax(dim=reduced, keepdim=True), torch.where(norm > 1, norm, 0.0)).clamp(min=0)
    moving = torch.ones_like(d, dtype=torch.bool)
    for _ in range(SPHERE_ITERATIONS):
        shrinkage = ((1 - t) + d * t).clamp(min=tiny)
        squares = (x / shrinkage).square()
        total = squares.sum(dim=reduced, keepdim=True)
        slope = (squares * (t / shrinkage)).sum(dim=reduced, keepdim=True)  # −½ d‖u‖²/dd
        climb = total * (total.sqrt() - 1) / slope.clamp(min=tiny)
        d, moving = _climbed(d, climb, moving)
        if _certainly(~moving):
            break
    u = x / ((1 - t) + d * t).clamp(min=tiny)
    last = t == 1
    pole = torch.where(last, 0.0, x / torch.where(last, 1.0, 1 - t))
    missing = 1 - pole.square().sum(dim=reduced, keepdim=True)
    hard = (missing > 0) & ~((x != 0) & last).any(dim=reduced, keepdim=True)
    share = (missing.clamp(min=0) / last.sum(dim=reduced, keepdim=True).clamp(min=1)).sqrt()
    u = torch.where(hard, torch.where(last, share, pole), u)
    u = u / group_norm(u, dims).clamp(min=tiny)  # onto the sphere to the last digit
    return torch.where(fastest > 0, u, x)


def project_l1_ball(x: Tensor, radius: Threshold, step: Threshold = 1.0) -> Tensor:
    """argmin_u Σ (u_i−x_i)²/(2 s_i) subject to Σ|u_i| ≤ r over the whole tensor, with exact zeros.

    From outside it is |u_i| = (|x_i| − μs_i)₊ with the μ at which they sum to r. Subtracting multiples of s beforehand
    changes μ and not u: so once μ is known to rounding of x, it is found again from |x| − μs, to rounding of u. Without
    that, x = 2e7 and r = 1 in float32 would leave nothing. Where s_i = 0 nothing moves.

    Args:
        x: any shape.
        radius: r > 0, a number or a tensor of one value.
        step: s_i ≥ 0, a number or one per coordinate.

    Example:
        >>> project_l1_ball(torch.tensor([3.0, -1.0, 0.5]), 2.0)
        tensor([2., 0., 0.])

    Source:
        Duchi, Shalev-Shwartz, Singer and Chandra (2008), Efficient projections onto the l1-ball, for equal steps.
    """
    if x.numel() == 0:
        return x.clone()
    s = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(x.shape).reshape(-1)
    size, moves = x.abs().reshape(-1), s > 0
    left = (radius - torch.where(moves, 0.0, size).sum()).clamp(min=0)
    v = size - _multiplier(size, s, left) * s
    u = (v - _multiplier(v, s, left) * s).clamp(min=0)
    u = torch.where(moves, u, 0.0)
    u = u * (left / u.sum().clamp(min=torch.finfo(x.dtype).tiny))  # the last digits
    u = torch.where(u == 0, 0.0, torch.minimum(u, size) * x.reshape(-1).sign())  # no −0
    u = torch.where(moves, u, x.reshape(-1))
    u = torch.where(x.isfinite().all(), u, torch.nan)
    stays = (size.sum() <= radius) | ~moves.any()  # neither for what is not a number
    return torch.where(stays, x.reshape(-1), u).reshape(x.shape)


def _multiplier(v: Tensor, s: Tensor, budget: Tensor) -> Tensor:
    """The ν with Σ (v_i − νs_i)₊ = budget over the coordinates whose s_i is above 0; v of any sign, flat.

    Every set A of coordinates gives a lower bound (Σ_A v_i − budget)/Σ_A s_i of ν, and the one that stays nonzero
    attains it: with v_i/s_i sorted downwards that set is a prefix, so ν is the largest of the prefixes' bounds.
    """
    tiny = torch.finfo(v.dtype).tiny
    moves = s > 0
    v = torch.where(moves, v, 0.0)
    order = torch.where(moves, v / s.clamp(min=tiny), -torch.inf).argsort(descending=True)
    sums, steps = v.gather(0, order).cumsum(0), s.gather(0, order).cumsum(0)
    nu = torch.where(steps > 0, (sums - budget) / steps.clamp(min=tiny), -torch.inf).amax()
    for _ in range(2):  # the same bound for the set found, summed more accurately than a running sum
        kept = moves & (v > nu * s)
        weight = torch.where(kept, s, 0.0).sum()
        exact = (torch.where(kept, v, 0.0).sum() - budget) / weight.clamp(min=tiny)
        nu = torch.where(weight > 0, exact, nu)
    return nu
