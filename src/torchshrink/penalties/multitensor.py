"""The penalties over lists of tensors at once, for use inside a training step.

The methods of a `Penalty` are the specification; what stands here computes the same with fewer passes over memory and
fewer calls, for the penalties that are common enough to deserve it, and falls back to the methods for all others.
The tests hold each function to the specification, but for weights that are not a number: the sign of these is 0 here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch

import torch
from torch import Tensor

from torchshrink.penalties.base import Penalty, working
from torchshrink.penalties.elementwise import L1, L2, ElasticNet
from torchshrink.penalties.groups import GroupLasso
from torchshrink.penalties.proximal import BLOCK, group_norm, plain_norm, reduced_dims, shrinkage

Step = float | Tensor


def _accumulates_exactly(tensors: Sequence[Tensor]) -> bool:
    """Whether the foreach kernels may stand in: plain tensors, each dtype wide enough to sum in."""
    for w in tensors:  # a plain loop, since this runs in every step
        if type(w) not in (Tensor, torch.nn.Parameter) or w.dtype not in (torch.float32, torch.float64):
            return False
    return True


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in blocks that stay in the cache, coordinate by coordinate alike; views.

    What an operation makes of a large tensor on a CPU is fresh memory, ten times as slow as what is at hand.
    """
    small = tensors[0].numel() <= BLOCK or tensors[0].device.type != "cpu" or torch.compiler.is_compiling()
    if small or not all(each.is_contiguous() for each in tensors):
        yield tensors
        return
    yield from zip(*(each.view(-1).split(BLOCK) for each in tensors), strict=True)


@singledispatch
def total(penalty: Penalty, tensors: Sequence[Tensor]) -> Tensor:
    """Σ Ω(w) over the tensors, which share one dtype and device."""
    return torch.stack([penalty.value(w) for w in tensors]).sum()


@total.register
def _(penalty: L1, tensors: Sequence[Tensor]) -> Tensor:
    if penalty.weights is not None or not _accumulates_exactly(tensors):
        return total.dispatch(Penalty)(penalty, tensors)
    # vector_norm(1) is 5 times slower
    sums = [part.abs().sum() for w in tensors for (part,) in _parts(w)]
    return penalty.strength * (sums[0] if len(sums) == 1 else torch.stack(sums).sum())


@total.register
def _(penalty: L2, tensors: Sequence[Tensor]) -> Tensor:
    if penalty.weights is not None or not _accumulates_exactly(tensors):
        return total.dispatch(Penalty)(penalty, tensors)
    norms = torch.stack(torch._foreach_norm(list(tensors), 2))
    return penalty.strength * torch.dot(norms, norms)


@total.register
def _(penalty: ElasticNet, tensors: Sequence[Tensor]) -> Tensor:
    if penalty.weights is not None:
        return total.dispatch(Penalty)(penalty, tensors)
    return total(L1(penalty.l1), tensors) + total(L2(penalty.l2), tensors)


@total.register
def _(penalty: GroupLasso, tensors: Sequence[Tensor]) -> Tensor:
    if not _has_plain_groups(penalty) or not _accumulates_exactly(tensors):
        return total.dispatch(Penalty)(penalty, tensors)
    return torch.stack(
        [(penalty.strength * penalty.groups(w.shape).roots(w) * _norms(penalty, w)).sum() for w in tensors]
    ).sum()


@singledispatch
def gradients(penalty: Penalty, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    """factor · ∂Ω(w) for each tensor; ``factor`` is a number or a tensor of one value."""
    return [(penalty.grad(w) * factor).to(w.dtype) for w in tensors]


@gradients.register
def _(penalty: L1, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    if penalty.weights is not None or not _accumulates_exactly(tensors):
        return gradients.dispatch(Penalty)(penalty, tensors, factor)
    return _signs_and_weights(tensors, penalty.strength * factor, 0.0)


@gradients.register
def _(penalty: L2, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    if penalty.weights is not None or not _accumulates_exactly(tensors):
        return gradients.dispatch(Penalty)(penalty, tensors, factor)
    return list(torch._foreach_mul(list(tensors), _scalar(2 * penalty.strength * factor, tensors)))


@gradients.register
def _(penalty: ElasticNet, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    l2 = 2 * penalty.l2 * factor
    if penalty.weights is not None or isinstance(l2, Tensor) or not _accumulates_exactly(tensors):
        return gradients.dispatch(Penalty)(penalty, tensors, factor)
    return _signs_and_weights(tensors, penalty.l1 * factor, l2)


def _signs_and_weights(tensors: Sequence[Tensor], of_sign: float | Tensor, of_weight: float) -> list[Tensor]:
    """of_sign·sign(w) + of_weight·w for each tensor."""
    factor = _scalar(of_sign, tensors)
    if not _by_parts(tensors):
        out = list(torch._foreach_sign(list(tensors)))
        torch._foreach_mul_(out, factor)
        if of_weight:
            torch._foreach_add_(out, list(tensors), alpha=of_weight)
        return out
    out = [torch.empty_like(w) for w in tensors]
    for w, whole in zip(tensors, out, strict=True):
        for part, here in _parts(w, whole):
            torch.sign(part, out=here)
            here.mul_(factor)
            if of_weight:
                here.add_(part, alpha=of_weight)
    return out


def _by_parts(tensors: Sequence[Tensor]) -> bool:
    """Whether blocks pay: on a CPU, where autograd does not look on (a second derivative may be asked for)."""
    return tensors[0].device.type == "cpu" and not torch.is_grad_enabled()


@gradients.register
def _(penalty: GroupLasso, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    if not _has_plain_groups(penalty) or not _accumulates_exactly(tensors):
        return gradients.dispatch(Penalty)(penalty, tensors, factor)
    return [x * pull for x, pull in (_by_groups(penalty, w, factor) for w in tensors)]


def _by_groups(penalty: GroupLasso, w: Tensor, factor: float | Tensor) -> tuple[Tensor, Tensor]:
    """What is shaped like w, and a number for each group, kept: their product is factor·∂Ω(w).

    They are w and factor·λ√p_g/‖w_g‖, of which nothing as large as w is made; where that loses digits for its size, or
    cannot be looked at without waiting for a device, w_g/‖w_g‖ and factor·λ√p_g.
    """
    norms = _norms(penalty, w)
    norms = torch.where(norms == 0, 1.0, norms)
    pull = penalty.strength * factor * penalty.groups(w.shape).roots(w) * torch.ones_like(norms)
    share = pull / norms
    if w.device.type == "cpu":
        size = share.abs()
        if bool(((size < torch.inf) & ((size >= torch.finfo(w.dtype).tiny) | (pull == 0))).all()):
            return w, share
    return w / norms, pull


def _has_plain_groups(penalty: GroupLasso) -> bool:
    """Whether the groups are slices, all under one strength."""
    return penalty.weights is None and penalty.labels is None and penalty.size is None


def _norms(penalty: GroupLasso, w: Tensor) -> Tensor:
    """The groups' norms, kept: by `group_norm`, which loses no entry when it squares, only where one could be lost.

    That takes five times as long.
    """
    dims = penalty.group_dims
    reduced = reduced_dims(w.ndim, dims)
    differentiated = w.requires_grad and torch.is_grad_enabled()
    if w.device.type != "cpu" or not reduced or differentiated or w.numel() == 0:
        return group_norm(w, dims)
    norms = plain_norm(w, reduced)
    least = torch.finfo(w.dtype).tiny ** 0.5 / torch.finfo(w.dtype).eps
    nothing = norms == 0
    if bool(nothing.any()):
        nothing &= w.abs().amax(reduced, keepdim=True) == 0
    kept = bool((((norms >= least) & (norms < torch.inf)) | nothing).all())
    return norms if kept else group_norm(w, dims)


def _scalar(value: float | Tensor, tensors: Sequence[Tensor]) -> float | Tensor:
    return value.to(tensors[0].dtype) if isinstance(value, Tensor) else value


@singledispatch
def add_gradients_(penalty: Penalty, tensors: Sequence[Tensor], grads: Sequence[Tensor], factor: Step) -> None:
    """grad += factor · ∂Ω(w), in place, for each pair."""
    torch._foreach_add_(list(grads), gradients(penalty, tensors, factor))


@add_gradients_.register(L1)
@add_gradients_.register(ElasticNet)
def _(penalty: L1 | ElasticNet, tensors: Sequence[Tensor], grads: Sequence[Tensor], factor: Step) -> None:
    l1, l2 = (strength * factor for strength in penalty.as_elastic_net)
    if isinstance(l1, Tensor) or isinstance(l2, Tensor) or not _accumulates_exactly(tensors):
        add_gradients_.dispatch(Penalty)(penalty, tensors, grads, factor)
    elif not _by_parts(tensors):
        torch._foreach_add_(list(grads), torch._foreach_sign(list(tensors)), alpha=l1)
        if l2:
            torch._foreach_add_(list(grads), list(tensors), alpha=2 * l2)
    else:
        for w, grad in zip(tensors, grads, strict=True):
            for part, of_grad in _parts(w, grad):
                of_grad.add_(part.sign(), alpha=l1)
                if l2:
                    of_grad.add_(part, alpha=2 * l2)


@add_gradients_.register
def _(penalty: L2, tensors: Sequence[Tensor], grads: Sequence[Tensor], factor: Step) -> None:
    strength = 2 * penalty.strength * factor
    if penalty.weights is not None or isinstance(strength, Tensor) or not _accumulates_exactly(tensors):
        add_gradients_.dispatch(Penalty)(penalty, tensors, grads, factor)
        return
    torch._foreach_add_(list(grads), list(tensors), alpha=strength)


@add_gradients_.register
def _(penalty: GroupLasso, tensors: Sequence[Tensor], grads: Sequence[Tensor], factor: Step) -> None:
    if not _has_plain_groups(penalty) or not _accumulates_exactly(tensors):
        add_gradients_.dispatch(Penalty)(penalty, tensors, grads, factor)
        return
    for w, grad in zip(tensors, grads, strict=True):
        grad.addcmul_(*_by_groups(penalty, w, factor))


def limited(moved: Tensor, w: Tensor, limit: Step) -> Tensor:
    """``moved``, no coordinate of it further from ``w`` than ``limit``; what is within is not touched by rounding."""
    return torch.clamp(moved, w - limit, w + limit)


@singledispatch
def prox_(
    penalty: Penalty, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None
) -> None:
    """w ← prox(w, step), in place, for each tensor with its step: a number, or a tensor that may be overwritten.

    ``limits``, where given, say for each tensor how far each coordinate may be moved at most: numbers or tensors too.
    """
    for i, (w, step) in enumerate(zip(tensors, steps, strict=True)):
        moved = penalty.prox(w, step)
        w.copy_(moved if limits is None else limited(moved, w, limits[i]))


@prox_.register
def _(penalty: L1, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None) -> None:
    if penalty.weights is not None:
        prox_.dispatch(Penalty)(penalty, tensors, steps, limits)
        return
    per_coordinate = [step for step in steps if isinstance(step, Tensor) and step.ndim > 0]
    several = len(steps) > 1 and len(per_coordinate) == len(steps)
    if several and not isinstance(penalty.strength, Tensor) and _accumulates_exactly(tensors):
        torch._foreach_mul_(per_coordinate, penalty.strength)
        if limits is not None:  # the threshold is as far as any coordinate is moved
            _clamp_max_(per_coordinate, limits)
        clamped = list(torch._foreach_minimum(list(tensors), per_coordinate))
        torch._foreach_neg_(per_coordinate)
        torch._foreach_maximum_(clamped, per_coordinate)
        torch._foreach_sub_(list(tensors), clamped)
        return
    for i, (w, step) in enumerate(zip(tensors, steps, strict=True)):
        _soft_threshold_(w, step, penalty.strength, None if limits is None else limits[i])


@prox_.register
def _(penalty: L2, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None) -> None:
    if penalty.weights is not None:
        prox_.dispatch(Penalty)(penalty, tensors, steps, limits)
        return
    for i, (w, step) in enumerate(zip(tensors, steps, strict=True)):
        before = None if limits is None else w.clone()
        w.div_(1 + 2 * step * penalty.strength)
        if limits is not None and before is not None:
            _limit_(w, before, limits[i])


@prox_.register
def _(
    penalty: ElasticNet, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None
) -> None:
    if penalty.weights is not None:
        prox_.dispatch(Penalty)(penalty, tensors, steps, limits)
        return
    for i, (w, step) in enumerate(zip(tensors, steps, strict=True)):
        before = None if limits is None else w.clone()
        shrinkage = 1 + 2 * step * penalty.l2
        _soft_threshold_(w, step, penalty.l1)
        w.div_(shrinkage)
        if limits is not None and before is not None:
            _limit_(w, before, limits[i])


@prox_.register
def _(
    penalty: GroupLasso, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None
) -> None:
    if (
        limits is not None
        or not _has_plain_groups(penalty)
        or any(isinstance(step, Tensor) and step.ndim > 0 for step in steps)
        or not _accumulates_exactly(tensors)
    ):
        prox_.dispatch(Penalty)(penalty, tensors, steps, limits)
        return
    for w, step in zip(tensors, steps, strict=True):
        w.mul_(shrinkage(w, step * penalty.strength * penalty.groups(w.shape).roots(w), penalty.group_dims))


@singledispatch
def split_(penalty: Penalty, w: Tensor, step: float, rest: Tensor) -> None:
    """w ← prox(w, step), in place, and rest ← what it took off: one shape, one dtype."""
    rest.copy_(w)
    prox_(penalty, [w], [step])
    rest.sub_(w)


@split_.register
def _(penalty: L1, w: Tensor, step: float, rest: Tensor) -> None:
    threshold = step * penalty.strength
    if penalty.weights is not None or isinstance(threshold, Tensor):
        split_.dispatch(Penalty)(penalty, w, step, rest)
        return
    torch.clamp(w, -threshold, threshold, out=rest)
    w.sub_(rest)


def _clamp_max_(thresholds: list[Tensor], limits: Sequence[Step]) -> None:
    first = limits[0]
    if not isinstance(first, Tensor) and all(limit == first for limit in limits):
        torch._foreach_clamp_max_(thresholds, first)
        return
    for threshold, limit in zip(thresholds, limits, strict=True):
        threshold.clamp_(max=limit)


def _limit_(w: Tensor, before: Tensor, limit: Step) -> None:
    """`limited`, in place, with one more tensor."""
    bound = before - limit
    torch.maximum(w, bound, out=w)
    torch.add(before, limit, out=bound)
    torch.minimum(w, bound, out=w)


def _soft_threshold_(w: Tensor, step: Step, strength: float | Tensor, limit: Step | None = None) -> None:
    """w ← S(w, step·λ) in place. A fresh buffer of a large weight costs as much as two passes over it: so one only."""
    if isinstance(step, Tensor) and step.shape == w.shape and step.dtype == w.dtype:
        high = step.mul_(strength)
        if limit is not None:
            high.clamp_(max=limit)
        low = high.neg()
        w.sub_(torch.clamp(w, low, high, out=low))
        return
    threshold = step * strength
    if limit is not None and not isinstance(threshold, Tensor) and not isinstance(limit, Tensor):
        threshold = min(threshold, limit)
    elif limit is not None:
        threshold = torch.as_tensor(threshold, dtype=working(w).dtype, device=w.device).clamp(max=limit)
    if isinstance(threshold, Tensor):
        w.sub_(w.clamp(threshold.neg(), threshold))
    elif type(w) in (Tensor, torch.nn.Parameter) and w.is_floating_point():
        torch.nn.functional.softshrink(w, threshold, out=w)  # type: ignore[call-arg]
    else:
        w.sub_(w.clamp(-threshold, threshold))
