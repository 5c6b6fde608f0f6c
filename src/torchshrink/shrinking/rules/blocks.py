"""Stacks, repeats and shuffles: units beside each other, several times, or as positions."""

from __future__ import annotations

import numpy as np

from torchshrink.shrinking.channels import Axis, Fact, Values, same_or_unknown_rows, unknown
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, name_of, shrink_rule


@shrink_rule("aten.stack")
def stack(op: Operation) -> Fact:
    """Tensors of the same units beside each other; the new dimension stays."""
    facts = [op.facts[node] for node in op.arguments["tensors"]]
    at = op.arguments["dim"] % len(op.shapes[0])
    axes: list[Axis | None] = []
    values: list[Values | None] = []
    for own in zip(*(zip(fact.axes, fact.values, strict=True) for fact in facts), strict=True):
        for axis, _ in own[1:]:
            if own[0][0] is not None or axis is not None:
                op.unite(own[0][0], axis)
        axes.append(own[0][0])
        known = [v for _, v in own if v is not None]
        values.append(same_or_unknown_rows(np.stack(known, 1)) if len(known) == len(own) else None)
    new = op.fresh([len(facts)], pinned=True)
    axes.insert(at, new.axes[0])
    values.insert(at, new.values[0])
    return Fact(tuple(axes), tuple(values))


@shrink_rule("aten.repeat", "aten.repeat_interleave")
def repeat(op: Operation) -> Fact:
    """The same units several times."""
    x, shape = op.fact("self"), op.shapes[0]
    rank = len(x.axes)
    each = name_of(op.node) == "aten.repeat_interleave"
    if each:
        if not isinstance(op.arguments["repeats"], int) or op.arguments["dim"] is None:
            raise NotUnderstoodError("the numbers of repeats are not one literal")
        counts = [op.arguments["repeats"] if dim == op.arguments["dim"] % rank else 1 for dim in range(rank)]
    else:
        counts = list(op.arguments["repeats"])
    lead = len(shape) - rank
    new = op.fresh(shape[:lead], pinned=True)
    axes, values = list(new.axes), list(new.values)
    for axis, own, count, size in zip(x.axes, x.values, counts[lead:], shape[lead:], strict=True):
        if count == 1 or axis is None or own is None or not isinstance(size, int):
            fresh = op.fresh([size], pinned=True)
            axes.append(axis if count == 1 else fresh.axes[0])
            values.append(own if count == 1 else fresh.values[0])
            if count != 1 and axis is not None:
                op.units.pin(axis, op.why)
        else:
            axes.append(np.repeat(axis, count) if each else np.tile(axis, count))
            values.append(np.repeat(own, count) if each else np.tile(own, count))
    return Fact(tuple(axes), tuple(values))


@shrink_rule("aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle")
def shuffle(op: Operation) -> Fact:
    """Channels become positions and back: those of one position's block go together, or as many of each group."""
    x, shape = op.fact("self"), op.shapes[0]
    at = 1 if name_of(op.node) == "aten.channel_shuffle" else len(shape) - 3
    axis, own = x.axes[at], x.values[at]
    if axis is None or own is None or not isinstance(shape[at], int):
        raise NotUnderstoodError("the number of channels is open")
    op.pin(x, range(at + 1, len(x.axes)))
    space = op.fresh(shape[at + 1 :], pinned=True)
    if name_of(op.node) == "aten.channel_shuffle":
        blocks, numbers = axis.reshape(op.arguments["groups"], -1), own.reshape(op.arguments["groups"], -1)
        for other in blocks[1:]:
            op.units.unite(blocks[0], other)
        channels, constants = blocks.T.reshape(-1), numbers.T.reshape(-1)
        return Fact((*x.axes[:at], channels, *x.axes[at + 1 :]), (*x.values[:at], constants, *x.values[at + 1 :]))
    size = next(int(op.arguments[name]) for name in ("upscale_factor", "downscale_factor") if name in op.arguments)
    if name_of(op.node) == "aten.pixel_unshuffle":
        channels, constants = np.repeat(axis, size**2), np.repeat(own, size**2)
    else:
        blocks = axis.reshape(-1, size**2)
        for place in range(1, size**2):
            op.units.unite(blocks[:, 0], blocks[:, place])
        channels, constants = blocks[:, 0], same_or_unknown_rows(own.reshape(-1, size**2))
    lead = tuple(None if axis is None else unknown(len(axis)) for axis in x.axes[:at])
    return Fact((*x.axes[:at], channels, *space.axes), (*lead, constants, *space.values))
