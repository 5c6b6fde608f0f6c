"""The graphs inside a graph: branches of ``torch.cond``, bodies of loops, blocks under ``torch.no_grad()``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx

from torchshrink.shrinking.rules import argument_dict, name_of


def held_difference(held: object, other: object) -> str:
    """What differs between two things that graphs hold by name, or nothing.

    What goes into a body is pinned, so that nothing in it may change: neither operators, nor wiring, literals, sizes.
    """
    if isinstance(held, fx.GraphModule) and isinstance(other, fx.GraphModule):
        return _graph_difference(held, other)
    if isinstance(held, Tensor) and isinstance(other, Tensor):
        return "" if held.shape == other.shape and torch.equal(held, other) else "a constant of its code changes"
    return "" if type(held) is type(other) else f"{type(held).__name__} becomes {type(other).__name__}"


def _graph_difference(large: fx.GraphModule, small: fx.GraphModule) -> str:
    before, after = list(large.graph.nodes), list(small.graph.nodes)
    pairs: dict[fx.Node, fx.Node] = {}
    for one, other in zip(before, after, strict=False):
        pairs[one] = other
        if one.op != other.op or (one.op == "call_function" and str(one.target) != str(other.target)):
            return f"{name_of(one)} becomes {name_of(other)}"
        if one.op == "get_attr":
            found = held_difference(*(attrgetter(str(node.target))(node.graph.owning_module) for node in (one, other)))
            if found:
                return found
        if _fixed_sizes(one) != _fixed_sizes(other):
            return f"sizes {_fixed_sizes(one)} of {name_of(one)} become {_fixed_sizes(other)}"
        for name, value in (argument_dict(one) if one.op == "call_function" else {"outputs": one.args}).items():
            new = argument_dict(other).get(name) if one.op == "call_function" else other.args
            if one.op != "placeholder" and not _same(value, new, pairs):
                return f"{name} {str(value)[:40]} of {name_of(one)} becomes {str(new)[:40]}"
    return "" if len(before) == len(after) else f"{len(before)} operators become {len(after)}"


def _fixed_sizes(node: fx.Node) -> list[list[int | None]]:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [
        [size if isinstance(size, int) else None for size in one.shape] for one in values if isinstance(one, Tensor)
    ]


def _same(value: Any, new: Any, pairs: Mapping[fx.Node, fx.Node]) -> bool:
    if isinstance(value, fx.Node):
        return pairs.get(value) is new
    if isinstance(value, list | tuple) and isinstance(new, list | tuple):
        return len(value) == len(new) and all(_same(a, b, pairs) for a, b in zip(value, new, strict=True))
    return type(value) is type(new) and bool(value == new or (value != value and new != new))
