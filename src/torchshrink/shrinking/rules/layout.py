"""Operators that only move entries: units are moved with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sympy import Integer  # type: ignore[import-untyped]
from torch import fx

from torchshrink.shrinking.channels import Axis, Fact, Values, same_or_unknown_rows, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, name_of, shrink_rule
from torchshrink.shrinking.valid_sizes import hint_of, sizes


@shrink_rule(
    *("aten.view", "aten.reshape", "aten._unsafe_view", "aten.flatten", "aten.unflatten", "aten.squeeze"),
    "aten.unsqueeze",
)
def reshape(op: Operation) -> Fact:
    """Dimensions are merged and split in groups of equal size; in each, one dimension carries the units."""
    x, after = op.fact("self"), op.shapes[0]
    before = sizes(op.value("self"))
    axes: list[Axis | None] = [None] * len(after)
    values: list[Values | None] = [None] * len(after)
    for dim, size in enumerate(after):
        if isinstance(size, int):
            axes[dim], values[dim] = op.units.fresh(size), unknown(size)
    for ins, outs in _groups(before, after):
        if len(ins) == 1 and len(outs) == 1:
            axes[outs[0]], values[outs[0]] = x.axes[ins[0]], x.values[ins[0]]
            continue
        _regroup(op, x, ins, outs=outs, axes=axes, values=values)
    return Fact(tuple(axes), tuple(values))


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else Integer(size)


def _groups(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions with equal products; dimensions of one index take no part."""
    ins = [dim for dim, size in enumerate(before) if not (isinstance(size, int) and size == 1)]
    outs = [dim for dim, size in enumerate(after) if not (isinstance(size, int) and size == 1)]
    found, i, o = [], 0, 0
    while i < len(ins) or o < len(outs):
        group: tuple[list[int], list[int]] = ([], [])
        left: Any = _expression(1)
        right: Any = _expression(1)
        sizes = [1, 1]
        while True:
            if i < len(ins) and (sizes[0] <= sizes[1] or o >= len(outs)):
                left, sizes[0] = left * _expression(before[ins[i]]), sizes[0] * hint_of(before[ins[i]])
                group[0].append(ins[i])
                i += 1
            elif o < len(outs):
                right, sizes[1] = right * _expression(after[outs[o]]), sizes[1] * hint_of(after[outs[o]])
                group[1].append(outs[o])
                o += 1
            done = i >= len(ins) and o >= len(outs)
            if done or (group[0] and group[1] and (left - right).expand() == 0):
                break
        found.append(group)
    return found


def _regroup(
    op: Operation, x: Fact, ins: list[int], *, outs: list[int], axes: list[Axis | None], values: list[Values | None]
) -> None:
    first = [x.axes[dim] for dim in ins]
    then = [axes[dim] for dim in outs]
    read = [axis for axis in first if axis is not None]
    write = [axis for axis in then if axis is not None]
    if len(read) < len(first) or len(write) < len(then) or not read or not write:
        for axis in (*read, *write):
            op.units.pin(axis, op.why)
        return
    shape_in, shape_out = tuple(map(len, read)), tuple(map(len, write))
    count = int(np.prod(shape_in))
    if count != int(np.prod(shape_out)):
        raise NotUnderstoodError("its sizes do not match")
    places_in, places_out = np.unravel_index(np.arange(count), shape_in), np.unravel_index(np.arange(count), shape_out)
    carrier = next((i for i, axis in enumerate(read) if not op.units.pinned(axis).all()), None)
    target = _carrier(op, outs)
    for i, axis in enumerate(read):
        if i != carrier:
            op.units.pin(axis, op.why)
    for o, axis in enumerate(write):
        if o != target or carrier is None:
            op.units.pin(axis, op.why)
    if carrier is not None:
        pairs = np.unique(np.stack([places_in[carrier], places_out[target]]), axis=1)
        op.units.unite(read[carrier][pairs[0]], write[target][pairs[1]])
    entries = np.full(count, np.nan)
    for dim, place in zip(ins, places_in, strict=True):
        own = x.values[dim]
        if own is not None:
            entries = np.where(np.isnan(entries), own[place], entries)
    block = entries.reshape(shape_out)
    for o, dim in enumerate(outs):
        values[dim] = same_or_unknown_rows(np.moveaxis(block, o, 0).reshape(shape_out[o], -1))


def _carrier(op: Operation, outs: list[int]) -> int:
    """Where a dimension is split, the part that the code leaves open (-1) carries the units, else the outermost."""
    sizes = op.arguments.get("size", op.arguments.get("shape"))
    if isinstance(sizes, list | tuple) and len(sizes) == len(op.shapes[0]):
        for place, dim in enumerate(outs):
            if isinstance(sizes[dim], int) and sizes[dim] == -1:
                return place
    return 0


@shrink_rule("aten.permute", "aten.transpose", "aten.t", "aten.numpy_T", "aten.swapaxes", "aten.adjoint", "aten.mT")
def permute(op: Operation) -> Fact:
    """Dimensions change places."""
    x = op.fact("self")
    rank = len(x.axes)
    order = list(range(rank))
    if name_of(op.node) == "aten.permute":
        order = [dim % rank for dim in op.arguments["dims"]]
    elif name_of(op.node) == "aten.numpy_T":
        order.reverse()
    elif rank > 1:
        one, other = op.arguments.get("dim0", -2) % rank, op.arguments.get("dim1", -1) % rank
        order[one], order[other] = order[other], order[one]
    return Fact(tuple(x.axes[dim] for dim in order), tuple(x.values[dim] for dim in order))


@shrink_rule("aten.expand")
def expand(op: Operation) -> Fact:
    """A dimension of one index becomes many; they stay."""
    x, shape = op.fact("self"), op.shapes[0]
    fact = op.fresh(shape)
    axes, values = list(fact.axes), list(fact.values)
    start = len(shape) - len(x.axes)
    for dim, size in enumerate(shape):
        own = x.axes[dim - start] if dim >= start else None
        axis = axes[dim]
        if own is not None and isinstance(size, int) and len(own) == size:
            axes[dim], values[dim] = own, x.values[dim - start]
        elif axis is not None:
            op.units.pin(axis, op.why)
    return Fact(tuple(axes), tuple(values))


@shrink_rule("aten.cat", "aten.concat")
def cat(op: Operation) -> Fact:
    """Units one after another."""
    tensors: list[fx.Node] = list(op.arguments["tensors"])
    facts = [op.facts[node] for node in tensors]
    rank = len(facts[0].axes)
    at = op.arguments["dim"] % rank
    axes: list[Axis | None] = []
    values: list[Values | None] = []
    for dim in range(rank):
        there = [fact.axes[dim] for fact in facts]
        own = [fact.values[dim] for fact in facts]
        known = [axis for axis in there if axis is not None]
        if dim == at and len(known) == len(there):
            axes.append(np.concatenate(known))
            values.append(np.concatenate([v for v in own if v is not None]))
        elif len(known) < len(there):
            for axis in known:
                op.units.pin(axis, op.why)
            axes.append(None)
            values.append(None)
        else:
            for axis in known[1:]:
                op.unite(known[0], axis)
            axes.append(known[0])
            values.append(same_or_unknown_rows(np.stack([v for v in own if v is not None], 1)))
    return Fact(tuple(axes), tuple(values))


@shrink_rule("aten.split", "aten.chunk", "aten.split_with_sizes", "aten.unbind")
def split(op: Operation) -> tuple[Fact, ...]:
    """Pieces of one dimension; pieces of equal size stay of equal size."""
    x = op.fact("self")
    at = op.arguments["dim"] % len(x.axes)
    axis, own = x.axes[at], x.values[at]
    if name_of(op.node) == "aten.unbind":
        op.pin(x, [at])
        rest = [dim for dim in range(len(x.axes)) if dim != at]
        piece = Fact(tuple(x.axes[dim] for dim in rest), tuple(x.values[dim] for dim in rest))
        return tuple(piece for _ in op.shapes)
    sizes = [shape[at] for shape in op.shapes]
    if axis is None or own is None:
        axes, values = list(x.axes), list(x.values)
        return tuple(Fact(tuple(axes), tuple(values)) for _ in sizes)
    cuts = np.cumsum(sizes)[:-1]
    pieces, numbers = np.split(axis, cuts), np.split(own, cuts)
    if name_of(op.node) != "aten.split_with_sizes":
        if len(set(sizes)) > 1:
            op.pin(x, [at])
        else:
            for other in pieces[1:]:
                op.units.unite(pieces[0], other)
    found = []
    for part, number in zip(pieces, numbers, strict=True):
        axes, values = list(x.axes), list(x.values)
        axes[at], values[at] = part, number
        found.append(Fact(tuple(axes), tuple(values)))
    return tuple(found)


@shrink_rule("aten.select")
def select(op: Operation) -> Fact:
    """One index of a dimension, which stays."""
    x = op.fact("self")
    at = op.arguments["dim"] % len(x.axes)
    op.pin(x, [at])
    rest = [dim for dim in range(len(x.axes)) if dim != at]
    return Fact(tuple(x.axes[dim] for dim in rest), tuple(x.values[dim] for dim in rest))


@shrink_rule("aten.slice")
def take(op: Operation) -> Fact:
    """A range of a dimension, which stays unless all of it is taken."""
    x = op.fact("self")
    at = op.arguments["dim"] % len(x.axes)
    axis, own = x.axes[at], x.values[at]
    if axis is None or own is None:
        size = op.shapes[0][at]
        fact = op.fresh([size], pinned=True)
        axes, values = list(x.axes), list(x.values)
        axes[at], values[at] = fact.axes[0], fact.values[0]
        return Fact(tuple(axes), tuple(values))
    span = slice(op.arguments["start"], op.arguments["end"], op.arguments["step"])
    if not all(part is None or isinstance(part, int) for part in (span.start, span.stop, span.step)):
        raise NotUnderstoodError("its range depends on the input")
    if len(axis[span]) < len(axis) or (span.stop is not None and span.stop < 2**31):
        op.pin(x, [at])
    axes, values = list(x.axes), list(x.values)
    axes[at], values[at] = axis[span], own[span]
    return Fact(tuple(axes), tuple(values))


@shrink_rule("aten.pad", "aten.constant_pad_nd", "aten.reflection_pad2d", "aten.replication_pad2d")
def pad(op: Operation) -> Fact:
    """Channels go through; a constant one stays so where the border has its value."""
    x, padding = op.fact("self"), list(op.arguments["pad" if "pad" in op.arguments else "padding"])
    shape = op.shapes[0]
    padded = {len(shape) - 1 - place // 2 for place, size in enumerate(padding) if size != 0}
    fact = op.fresh(shape)
    axes, values = list(fact.axes), list(fact.values)
    constant = op.arguments.get("mode", "constant" if "constant" in name_of(op.node) else "mirror") == "constant"
    border = float(op.arguments.get("value") or 0.0)
    for dim in range(len(shape)):
        own, axis = x.values[dim], axes[dim]
        if dim in padded:
            op.pin(x, [dim])
            if axis is not None:
                op.units.pin(axis, op.why)
            continue
        axes[dim] = x.axes[dim]
        values[dim] = np.where(own == border, own, np.nan) if constant and own is not None else own
    return Fact(tuple(axes), tuple(values))
