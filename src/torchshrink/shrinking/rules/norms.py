"""Normalisations: per channel they go through, over channels they keep what they average."""

from __future__ import annotations

import numpy as np

from torchshrink.shrinking.channels import Axis, Fact, Values, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, shrink_rule


def _numbers(op: Operation, name: str, axis: Axis | None, default: float) -> Values:
    """A vector of the normalisation, united with the channels; NaN where it is not known."""
    if axis is None:
        raise NotUnderstoodError("the number of channels is open")
    fact = op.optional(name)
    if fact is None:
        return np.full(len(axis), default)
    op.unite(axis, fact.axes[0])
    return unknown(len(axis)) if fact.static is None else fact.static.detach().double().numpy()


def _affine(normal: Values, weight: Values, bias: Values) -> Values:
    """Weight · normal + bias, where a weight of zero makes anything constant."""
    return np.where(weight == 0, bias, normal * weight + bias)


def _at(x: Fact, dim: int, values: Values) -> Fact:
    found: list[Values | None] = [None if axis is None else unknown(len(axis)) for axis in x.axes]
    found[dim] = values
    return Fact(x.axes, tuple(found))


def _by_channel(op: Operation, x: Fact) -> Fact:
    """With running statistics."""
    axis = x.axes[1]
    mean, var = _numbers(op, "running_mean", axis, np.nan), _numbers(op, "running_var", axis, np.nan)
    weight, bias = _numbers(op, "weight", axis, 1.0), _numbers(op, "bias", axis, 0.0)
    values = x.values[1]
    normal = (unknown(len(mean)) if values is None else values - mean) / np.sqrt(var + op.arguments["eps"])
    return _at(x, 1, _affine(normal, weight, bias))


@shrink_rule("aten._native_batch_norm_legit_no_training")
def batch_norm_native(op: Operation) -> tuple[Fact, ...]:
    """BatchNorm in evaluation mode, as torch.export writes it."""
    rest = [op.fresh(shape) for shape in op.shapes[1:]]
    return (_by_channel(op, op.fact("input")), *rest)


@shrink_rule("aten.batch_norm")
def batch_norm(op: Operation) -> Fact:
    """BatchNorm in evaluation mode."""
    if op.arguments["training"]:
        raise NotUnderstoodError("it uses the batch's statistics")
    return _by_channel(op, op.fact("input"))


@shrink_rule("aten.instance_norm")
def instance_norm(op: Operation) -> Fact:
    """Each channel by itself: a constant one becomes zero."""
    x = op.fact("input")
    if not op.arguments["use_input_stats"]:
        return _by_channel(op, x)
    axis = x.axes[1]
    op.pin(x, range(2, len(x.axes)))
    if axis is not None:
        op.group_counts[op.node.name] = axis
    for name in ("running_mean", "running_var"):
        _numbers(op, name, axis, 0.0)
    weight, bias = _numbers(op, "weight", axis, 1.0), _numbers(op, "bias", axis, 0.0)
    values = x.values[1]
    normal = unknown(len(weight)) if values is None else values * 0.0
    return _at(x, 1, _affine(normal, weight, bias))


@shrink_rule("aten.group_norm")
def group_norm(op: Operation) -> Fact:
    """A group goes as a whole."""
    x, groups = op.fact("input"), op.arguments["num_groups"]
    axis, values = x.axes[1], x.values[1]
    weight, bias = _numbers(op, "weight", axis, 1.0), _numbers(op, "bias", axis, 0.0)
    if axis is None or values is None:
        raise NotUnderstoodError("the number of channels is open")
    op.pin(x, range(2, len(x.axes)))
    blocks = axis.reshape(groups, -1)
    for place in range(blocks.shape[1]):
        op.units.unite(blocks[:, 0], blocks[:, place])
    op.group_counts[op.node.name] = blocks[:, 0]
    grouped = values.reshape(groups, -1)
    centred = grouped - grouped.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + op.arguments["eps"])
    return _at(x, 1, _affine(normal.reshape(-1), weight, bias))


@shrink_rule("aten.layer_norm", "aten.rms_norm")
def layer_norm(op: Operation) -> Fact:
    """The width stays."""
    x = op.fact("input")
    width = len(op.arguments["normalized_shape"])
    op.pin(x, range(len(x.axes) - width, len(x.axes)))
    for name in ("weight", "bias"):
        fact = op.optional(name)
        if fact is not None:
            op.pin(fact)
    fact = Fact(x.axes, tuple(None if axis is None else unknown(len(axis)) for axis in x.axes))
    if width == 1 and op.optional("weight") is not None:
        axis = x.axes[-1]
        weight, bias = _numbers(op, "weight", axis, 1.0), _numbers(op, "bias", axis, 0.0)
        return _at(x, len(x.axes) - 1, np.where(weight == 0, bias, np.nan))
    return fact
