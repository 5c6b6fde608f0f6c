"""Linear maps and convolutions: the operators that read units, and attention, which keeps what it contracts."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx

from torchshrink.shrinking.channels import Axis, Fact, Values, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, Reading, shrink_rule


def constant_rows(weight: Tensor, values: Values, bias: Values | None, *, everywhere: bool) -> Values:
    """The value of each row that reads no column that varies: bias + Σ weight · value; NaN for the others.

    Args:
        weight: (rows, columns, positions).
        values: the constants of the columns, or NaN.
        bias: of the rows; None: zero.
        everywhere: whether a constant column stays constant in what the rows read of it.
    """
    used = (weight != 0).any(2).numpy()
    steady = (values == 0) | (~np.isnan(values) & everywhere)
    total = weight.sum(2).numpy() @ np.where(steady, np.nan_to_num(values), 0.0)
    result = total + (0.0 if bias is None else bias)
    return np.where((used & ~steady).any(1), np.nan, result)


def _bias(op: Operation, name: str, rows: Axis) -> tuple[Values | None, bool]:
    """The bias's numbers, and whether they are known."""
    fact = op.optional(name)
    if fact is None:
        return None, True
    if len(fact.axes) != 1:
        raise NotUnderstoodError("the bias is not one number per row")
    op.unite(rows, fact.axes[0])
    return (None, False) if fact.static is None else (fact.static.detach().double().numpy(), True)


def _node(op: Operation, name: str | None) -> fx.Node | None:
    value = op.arguments.get(name) if name else None
    return value if isinstance(value, fx.Node) else None


def contraction(
    op: Operation, x: Fact, dim: int, *, weight: tuple[str, int, int], bias: str | None, everywhere: bool
) -> tuple[Axis, Values]:
    """Rows of a known weight read a dimension; ``weight`` is its name and its dimensions of rows and of columns."""
    name, row_dim, column_dim = weight
    w = op.fact(name)
    rows, columns, read = w.axes[row_dim], w.axes[column_dim], x.axes[dim]
    if w.static is None or rows is None or columns is None or read is None:
        raise NotUnderstoodError("the weight depends on the input")
    if w.static.is_complex() or not bool(w.static.isfinite().all()):
        raise NotUnderstoodError("the weight is not finite or not real")
    for kernel in range(len(w.axes)):
        if kernel not in (row_dim, column_dim):
            op.pin(w, [kernel])
    op.unite(read, columns)
    matrix = w.static.detach().double().movedim((row_dim, column_dim), (0, 1))
    matrix = matrix.reshape(len(rows), len(columns), -1)
    numbers, known = _bias(op, bias, rows) if bias else (None, True)
    values = x.values[dim]
    values = unknown(len(columns)) if values is None else values
    weight_node = op.arguments[name]
    reading = Reading(
        op.node.name,
        matrix,
        rows,
        columns,
        values,
        everywhere,
        weight_node,
        column_dim,
        _node(op, bias),
        bias is not None,
    )
    op.readings.append(reading)
    out = constant_rows(matrix, values, numbers, everywhere=everywhere) if known else unknown(len(rows))
    return rows, out


def _beside(x: Fact, dim: int) -> list[Values | None]:
    return [None if axis is None else unknown(len(axis)) for place, axis in enumerate(x.axes) if place != dim]


@shrink_rule("aten.linear")
def linear(op: Operation) -> Fact:
    """Rows of the weight read the last dimension."""
    x = op.fact("input")
    rows, values = contraction(op, x, -1, weight=("weight", 0, 1), bias="bias", everywhere=True)
    return Fact((*x.axes[:-1], rows), (*_beside(x, len(x.axes) - 1), values))


@shrink_rule("aten.addmm")
def addmm(op: Operation) -> Fact:
    """Bias + x W."""
    if op.arguments["beta"] != 1 or op.arguments["alpha"] != 1:
        raise NotUnderstoodError("it is scaled")
    x = op.fact("mat1")
    rows, values = contraction(op, x, -1, weight=("mat2", 1, 0), bias="self", everywhere=True)
    return Fact((x.axes[0], rows), (*_beside(x, 1), values))


@shrink_rule("aten.mm", "aten.matmul", "aten.bmm")
def matmul(op: Operation) -> Fact:
    """X W with a known W; of two activations, what is contracted stays."""
    second = "other" if "other" in op.arguments else "mat2"
    x, w = op.fact("self"), op.fact(second)
    if w.static is not None and len(w.axes) == 2:
        rows, values = contraction(op, x, -1, weight=(second, 1, 0), bias=None, everywhere=True)
        return Fact((*x.axes[:-1], rows), (*_beside(x, len(x.axes) - 1), values))
    if len(x.axes) != len(w.axes) or len(x.axes) < 3:
        raise NotUnderstoodError("its shapes are not of one batch")
    op.pin(x, [-1])
    op.pin(w, [-2])
    op.unite(x.axes[-1], w.axes[-2])
    for one, other in zip(x.axes[:-2], w.axes[:-2], strict=True):
        if one is not None or other is not None:
            op.unite(one, other)
    axes = (*x.axes[:-1], w.axes[-1])
    return Fact(axes, tuple(None if axis is None else unknown(len(axis)) for axis in axes))


@shrink_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def convolution(op: Operation) -> Fact:
    """Filters read channels; a group of a grouped convolution goes as a whole, with the channels that it reads."""
    return _convolve(op, weight=(0, 1), padded=_padded(op))


@shrink_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed(op: Operation) -> Fact:
    """Its weight is (in, out, …), and what a constant channel adds differs from position to position."""
    return _convolve(op, weight=(1, 0), padded=True)


def _padded(op: Operation) -> bool:
    padding = op.arguments["padding"]
    if isinstance(padding, str):
        return padding == "same" and any(size != 1 for size in op.value("weight").shape[2:])
    return any(not isinstance(size, int) or size != 0 for size in padding)


def _convolve(op: Operation, *, weight: tuple[int, int], padded: bool) -> Fact:
    x, w, groups = op.fact("input"), op.fact("weight"), op.arguments["groups"]
    if len(x.axes) != len(w.axes):
        raise NotUnderstoodError("the input has no dimension of rows")
    op.pin(x, range(2, len(x.axes)))
    if groups == 1:
        channels, values = contraction(op, x, 1, weight=("weight", *weight), bias="bias", everywhere=not padded)
    else:
        channels, values = _grouped(op, x, w, transposed=weight[0] == 1, padded=padded)
    space = op.fresh(op.shapes[0][2:], pinned=True)
    batch = None if x.axes[0] is None else unknown(len(x.axes[0]))
    return Fact((x.axes[0], channels, *space.axes), (batch, values, *space.values))


def _grouped(op: Operation, x: Fact, w: Fact, *, transposed: bool, padded: bool) -> tuple[Axis, Values]:
    groups, read, first = op.arguments["groups"], x.axes[1], w.axes[0]
    if read is None or first is None or w.static is None:
        raise NotUnderstoodError("the weight depends on the input")
    if w.static.is_complex() or not bool(w.static.isfinite().all()):
        raise NotUnderstoodError("the weight is not finite or not real")
    for dim in range(1, len(w.axes)):
        op.pin(w, [dim])
    ins = read.reshape(groups, -1)
    if transposed:
        op.unite(read, first)
        rows = op.units.fresh(groups * w.static.shape[1])
        parts = w.static.detach().double().reshape(groups, ins.shape[1], w.static.shape[1], -1).transpose(1, 2)
    else:
        rows = first
        parts = w.static.detach().double().reshape(groups, len(rows) // groups, ins.shape[1], -1)
    outs = rows.reshape(groups, -1)
    for block in (ins, outs):
        for place in range(block.shape[1]):
            op.units.unite(ins[:, 0], block[:, place])
    op.group_counts[op.node.name] = ins[:, 0]
    numbers, known = _bias(op, "bias", rows)
    values = x.values[1]
    if values is None or not known:
        return rows, unknown(len(rows))
    bias = np.zeros(len(rows)) if numbers is None else numbers
    found = [
        constant_rows(part, v, b, everywhere=not padded)
        for part, v, b in zip(parts, values.reshape(groups, -1), bias.reshape(groups, -1), strict=True)
    ]
    return rows, np.concatenate(found)


@shrink_rule("aten.scaled_dot_product_attention")
def attention(op: Operation) -> Fact:
    """Heads go together; the width of query and key stays, since the scale depends on it; that of the value may go."""
    q, k, v = (op.fact(name) for name in ("query", "key", "value"))
    if op.arguments["dropout_p"] or op.arguments.get("enable_gqa") or not len(q.axes) == len(k.axes) == len(v.axes):
        raise NotUnderstoodError("it drops, groups or broadcasts heads")
    mask = op.optional("attn_mask")
    if mask is not None:
        op.pin(mask, [-2, -1])
        for one, head in zip(mask.axes[-3::-1], q.axes[-3::-1], strict=False):
            if one is not None and len(one) > 1:  # a mask of its own for each head
                op.unite(one, head)
    for first, second, third in zip(q.axes[:-2], k.axes[:-2], v.axes[:-2], strict=True):
        for other in (second, third):
            if first is not None or other is not None:
                op.unite(first, other)
    op.pin(q, [-1])
    op.pin(k, [-2, -1])
    op.pin(v, [-2])
    axes = (*q.axes[:-1], v.axes[-1])
    values: list[Any] = [None if axis is None else unknown(len(axis)) for axis in axes]
    if mask is None:  # a row whose mask hides everything is not an average
        values[-1] = v.values[-1]
    return Fact(axes, tuple(values))


@shrink_rule("aten.embedding")
def embedding(op: Operation) -> Fact:
    """Columns of the table are units; its rows are read by number and stay."""
    table, index = op.fact("weight"), op.fact("indices")
    op.pin(table, [0])
    op.pin(index)
    values = tuple(None if axis is None else unknown(len(axis)) for axis in index.axes)
    return Fact((*index.axes, table.axes[1]), (*values, table.values[1]))


@shrink_rule("aten.embedding_bag")
def embedding_bag(op: Operation) -> tuple[Fact, ...]:
    """Sums, means or maxima of rows of the table; an empty bag is zero."""
    table = op.fact("weight")
    op.pin(table, [0])
    rows, *rest = [op.fresh(shape, pinned=True) for shape in op.shapes]
    own = table.values[1]
    values = None if own is None else np.where(own == 0, own, np.nan)
    return (Fact((rows.axes[0], table.axes[1]), (rows.values[0], values)), *rest)
