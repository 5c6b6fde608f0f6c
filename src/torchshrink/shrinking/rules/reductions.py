"""Pooling, resizing, softmax and reductions: what they combine stays, the rest goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torchshrink.shrinking.channels import Fact, Values, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, name_of, shrink_rule

_POOLS = [f"aten.{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_MODES = (
    "nearest1d",
    "nearest2d",
    "nearest3d",
    "_nearest_exact2d",
    "bilinear2d",
    "linear1d",
    "trilinear3d",
    "bicubic2d",
)


def _space(name: str) -> int:
    return int(next(letter for letter in reversed(name.replace("_with_indices", "")[:-1]) if letter.isdigit()))


def _over_space(op: Operation, x: Fact, shape: Sequence[Any], *, keep: str) -> Fact:
    """The first dimensions go through, the positions stay; ``keep`` says which constants stay constant."""
    lead = len(shape) - _space(name_of(op.node))
    op.pin(x, range(lead, len(shape)))
    space = op.fresh(shape[lead:], pinned=True)
    kept = []
    for own in x.values[:lead]:
        kept.append(np.where(own == 0, own, np.nan) if keep == "zero" and own is not None else own)
    return Fact((*x.axes[:lead], *space.axes), (*kept, *space.values))


@shrink_rule(*_POOLS, "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices")
def pool(op: Operation) -> Fact | tuple[Fact, ...]:
    """A mean that counts zeros around the image does not keep a constant."""
    padding = op.arguments.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    average = "avg" in name_of(op.node)
    odd = op.arguments.get("divisor_override") or (padded and average and op.arguments.get("count_include_pad", True))
    facts = tuple(_over_space(op, op.fact("self"), shape, keep="zero" if odd else "all") for shape in op.shapes)
    if len(facts) == 1:
        return facts[0]
    return (
        facts[0],
        *(Fact(fact.axes, op.fresh(shape).values) for fact, shape in zip(facts[1:], op.shapes[1:], strict=True)),
    )


@shrink_rule(*(f"aten.upsample_{mode.strip('_')}" for mode in _MODES), "aten._upsample_nearest_exact2d")
def resize(op: Operation) -> Fact:
    """Interpolation weights add up to one."""
    return _over_space(op, op.fact("self" if "self" in op.arguments else "input"), op.shapes[0], keep="all")


@shrink_rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten.cumsum")
def softmax(op: Operation) -> Fact:
    """What is normalised over stays."""
    x = op.fact("self")
    op.pin(x, [op.arguments["dim"]])
    return Fact(x.axes, tuple(None if axis is None else unknown(len(axis)) for axis in x.axes))


_NEUTRAL = ("aten.sum", "aten.norm", "aten.linalg_vector_norm")  # an index that is zero adds nothing


@shrink_rule(
    *("aten.mean", "aten.amax", "aten.amin", "aten.max", "aten.min", "aten.var", "aten.std", "aten.argmax"),
    *("aten.argmin", "aten.logsumexp", "aten.prod", "aten.any", "aten.all", *_NEUTRAL),
)
def reduction(op: Operation) -> Fact | tuple[Fact, ...]:
    """What is reduced stays; the other dimensions go through."""
    x, name = op.fact("self"), name_of(op.node)
    if name in ("aten.max", "aten.min") and "other" in op.arguments:
        raise NotUnderstoodError("two tensors go in")
    rank = len(x.axes)
    dims = op.arguments.get("dim")
    chosen = [dims] if isinstance(dims, int) else list(range(rank)) if not dims else list(dims)
    gone = {dim % rank for dim in chosen} if rank else set()
    for dim in gone:
        axis, own = x.axes[dim], x.values[dim]
        if axis is None:
            continue
        if x.static is not None and own is not None and name in _NEUTRAL:
            op.units.pin(axis[own != 0], op.why)
        else:
            op.units.pin(axis, op.why)
    facts = tuple(_reduced(op, x, gone) for _ in op.shapes)
    return facts[0] if len(facts) == 1 else facts


def _reduced(op: Operation, x: Fact, gone: set[int]) -> Fact:
    name = name_of(op.node)
    fact = Fact((), ())
    for dim, (axis, own) in enumerate(zip(x.axes, x.values, strict=True)):
        if dim not in gone:
            kept: Values | None = None if own is None else unknown(len(own))
            if own is not None and name in ("aten.mean", "aten.amax", "aten.amin"):
                kept = own
            elif own is not None and name == "aten.sum":
                kept = np.where(own == 0, own, np.nan)
            fact = Fact((*fact.axes, axis), (*fact.values, kept))
        elif op.arguments.get("keepdim"):
            one = op.fresh([1])
            fact = Fact((*fact.axes, *one.axes), (*fact.values, *one.values))
    return fact


@shrink_rule("aten._weight_norm")
def weight_norm(op: Operation) -> Fact:
    """Rows are scaled to a length; a column that is not zero is part of it and stays."""
    v, g = op.fact("v"), op.fact("g")
    dim = op.arguments["dim"] % len(v.axes)
    op.unite(v.axes[dim], g.axes[dim])
    for place, (axis, own) in enumerate(zip(v.axes, v.values, strict=True)):
        if place != dim and axis is not None and own is not None:
            op.units.pin(axis[own != 0] if v.static is not None else axis, op.why)
    return Fact(v.axes, tuple(None if axis is None else unknown(len(axis)) for axis in v.axes))
