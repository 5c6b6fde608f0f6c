"""Operators that act on each entry by itself: units go through, and so do constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from torchshrink.shrinking.channels import Axis, Fact, Values, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, name_of, shrink_rule
from torchshrink.support.private_torch import pytree

_LIKE = {"zeros_like": 0.0, "ones_like": 1.0}


@shrink_rule(
    *("pointwise.any", "aten.hardswish", "aten._to_copy", "aten.hardsigmoid", "aten.hardtanh", "aten.relu6"),
    *("aten.mish", "aten.softsign", "aten.celu", "aten.selu", "aten.relu", "aten.where", "aten.clamp", "aten.to"),
    *("aten.__and__", "aten.__or__", "aten.__xor__", "aten.silu", "aten.gelu", "aten.clamp_min", "aten.clamp_max"),
)
def pointwise(op: Operation) -> Fact:
    """Tensors are broadcast against each other; dimensions of the same size are the same units."""
    (shape,) = op.shapes
    nodes = [node for node in op.node.all_input_nodes if isinstance(op.facts.get(node), Fact)]
    facts = {node: op.facts[node] for node in nodes if isinstance(node.meta.get("val"), Tensor)}
    if not facts:
        raise NotUnderstoodError("no tensor goes in")
    axes: list[Axis | None] = []
    values: list[Values | None] = []
    for dim, size in enumerate(shape):
        axes.append(_axis(op, list(facts.values()), dim - len(shape), size))
        values.append(_values(op, facts, dim - len(shape), size))
    return Fact(tuple(axes), tuple(values))


def _axis(op: Operation, facts: list[Fact], dim: int, size: Any) -> Axis | None:
    there = [fact.axes[dim] for fact in facts if len(fact.axes) >= -dim]
    if not isinstance(size, int):
        for axis in there:
            if axis is not None:
                op.units.pin(axis, op.why)
        return None
    full = [axis for axis in there if axis is not None and len(axis) == size]
    if not full:
        return op.units.fresh(size)
    for axis in full[1:]:
        op.units.unite(full[0], axis)
    return full[0]


def _values(op: Operation, facts: dict[fx.Node, Fact], dim: int, size: Any) -> Values | None:
    """The operator itself, applied to the constants."""
    if not isinstance(size, int):
        return None
    profiles: dict[fx.Node, Values] = {}
    for node, fact in facts.items():
        own = fact.values[dim] if len(fact.values) >= -dim else None
        profiles[node] = own if own is not None and len(own) == size else np.full(size, fact.whole)
    known = ~np.any([np.isnan(profile) for profile in profiles.values()], axis=0)
    result = unknown(size)
    if known.any():
        computed = _evaluate(op.node, profiles)
        if computed is not None and len(computed) == size:
            result = np.where(known & np.isfinite(computed), computed, np.nan)
    if name_of(op.node) == "aten.mul" and len(profiles) == 2:
        one, other = profiles.values()
        result = np.where((one == 0) | (other == 0), 0.0, result)
    return result


def _evaluate(node: fx.Node, profiles: dict[fx.Node, Values]) -> Values | None:
    def tensor(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        kind = value.meta["val"].dtype
        profile = torch.from_numpy(np.nan_to_num(profiles[value]))
        return profile if kind.is_floating_point else profile.to(kind)

    try:
        found = node.target(*pytree.tree_map(tensor, node.args), **pytree.tree_map(tensor, node.kwargs))  # type: ignore[operator]
    except Exception:  # arguments that are sizes, or an operator that wants more than a vector: no constant is known
        return None
    return found.double().numpy() if isinstance(found, Tensor) and found.ndim == 1 else None


@shrink_rule("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.native_dropout")
def dropout(op: Operation) -> Fact:
    """Nothing, in evaluation mode."""
    if op.arguments.get("train"):
        raise NotUnderstoodError("it is random")
    return op.fact("input")


@shrink_rule("aten.alias", "aten.detach", "aten.contiguous", "aten.clone", "aten.lift_fresh_copy", "aten.type_as")
def identity(op: Operation) -> Fact:
    """The same tensor."""
    return op.fact("self")


@shrink_rule("aten.prelu")
def prelu(op: Operation) -> Fact:
    """A slope for all channels or for each."""
    x, slope = op.fact("self"), op.fact("weight")
    values = [unknown(0) if v is None else np.where(v >= 0, v, np.nan) for v in x.values]
    kept: list[Values | None] = [None if x.values[dim] is None else value for dim, value in enumerate(values)]
    dim = 1 if len(x.axes) > 1 else 0
    if len(slope.axes) == 1 and slope.axes[0] is not None and len(slope.axes[0]) > 1:
        op.unite(x.axes[dim], slope.axes[0])
        factor: Any = None if slope.static is None else slope.static.detach().double().numpy()
    else:
        factor = slope.whole
    v = x.values[dim]
    if factor is not None and v is not None:
        kept[dim] = np.where(v >= 0, v, v * factor)
    return Fact(x.axes, tuple(kept))


@shrink_rule("aten.zeros_like", "aten.ones_like", "aten.full_like")
def like(op: Operation) -> Fact:
    """A constant of another tensor's shape."""
    x = op.fact("self")
    number = _LIKE.get(name_of(op.node).removeprefix("aten."), op.arguments.get("fill_value"))
    if not isinstance(number, int | float):
        raise NotUnderstoodError("the value is no number")
    values = tuple(None if axis is None else np.full(len(axis), float(number)) for axis in x.axes)
    return Fact(x.axes, values)


@shrink_rule("aten.zeros", "aten.ones", "aten.full")
def filled(op: Operation) -> Fact:
    """A constant of a shape of its own."""
    number = {"aten.zeros": 0.0, "aten.ones": 1.0}.get(name_of(op.node), op.arguments.get("fill_value"))
    fact = op.fresh(op.shapes[0])
    if not isinstance(number, int | float):
        return fact
    values = tuple(None if axis is None else np.full(len(axis), float(number)) for axis in fact.axes)
    return Fact(fact.axes, values)


@shrink_rule("aten.glu")
def glu(op: Operation) -> Fact:
    """One half times the sigmoid of the other."""
    x, dim = op.fact("self"), op.arguments["dim"]
    axis, v = x.axes[dim], x.values[dim]
    if axis is None or v is None or len(axis) % 2:
        raise NotUnderstoodError("its halves are not known")
    half = len(axis) // 2
    op.units.unite(axis[:half], axis[half:])
    axes, values = list(x.axes), [None if one is None else unknown(len(one)) for one in x.axes]
    axes[dim] = axis[:half]
    with np.errstate(over="ignore"):
        product = v[:half] / (1 + np.exp(-v[half:]))
    values[dim] = np.where(v[:half] == 0, 0.0, product)
    return Fact(tuple(axes), tuple(values))
