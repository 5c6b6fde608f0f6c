"""The proof that a shrunk model computes the same: the same operators, and the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from torchshrink.shrinking.bodies import held_difference
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.plan import Decision
from torchshrink.shrinking.rules import argument_dict, name_of
from torchshrink.shrinking.trace import Trace
from torchshrink.shrinking.valid_sizes import hint_of

_SIZED = {  # operators and arguments that are sizes of what comes out
    **dict.fromkeys(("aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand"), ("size", "shape")),
    **dict.fromkeys(("aten.zeros", "aten.ones", "aten.full"), ("size",)),
}
_GROUPS = ("groups", "num_groups")


@dataclass(frozen=True)
class Mismatch:
    """Where the shrunk model computes something else than was planned.

    Args:
        nodes: the operators of the model before that may be the cause; none: it is not known.
        reason: what differs.
        by_size: it differs at other sizes than the example's.
    """

    nodes: tuple[str, ...]
    reason: str
    by_size: bool = False


def compare_traces(decision: Decision, small: Trace) -> Mismatch | None:
    """The first difference between what was planned and what the shrunk model does, or None.

    Operators, wiring and literals must be equal; sizes must be those that the plan predicts.
    """
    large = decision.analysis.trace
    pairs = _Pairing(large, small, dict(zip(_inputs(large), _inputs(small), strict=False)))
    before, after = operators(large), operators(small)
    for one, other in zip(before, after, strict=False):
        if str(one.target) != str(other.target):
            return Mismatch((one.name,), f"{name_of(one)} becomes {name_of(other)}")
        pairs.nodes[one] = other
        if one.op == "get_attr":
            difference = held_difference(large.held.get(str(one.target)), small.held.get(str(other.target)))
            if difference:
                return Mismatch(tuple(user.name for user in one.users), f"{difference}, in {one.target}")
            continue
        difference = _arguments(decision, one, other, pairs=pairs) or _sizes(decision, one, other)
        if difference:
            return Mismatch((one.name,), difference)
    if len(before) != len(after):
        return Mismatch((), f"{len(before)} operators become {len(after)}")
    outputs = [next(node for node in trace.graph.nodes if node.op == "output") for trace in (large, small)]
    if not pairs.same(outputs[0].args, outputs[1].args):
        return Mismatch((), "the outputs are wired otherwise")
    if large.structure != small.structure:
        return Mismatch((), "the outputs are put together otherwise, as under other keys")
    return None


def _inputs(trace: Trace) -> list[fx.Node]:
    return [node for node in trace.graph.nodes if node.op == "placeholder" and node.name in trace.inputs]


def operators(trace: Trace) -> list[fx.Node]:
    """What the model computes, in the order of execution."""
    return [node for node in trace.graph.nodes if node.op not in ("placeholder", "output")]


@dataclass(frozen=True, eq=False)
class _Pairing:
    """Which node of the shrunk model's graph is which of the other's."""

    large: Trace
    small: Trace
    nodes: dict[fx.Node, fx.Node]

    def same(self, value: Any, new: Any) -> bool:
        """Whether two arguments are the same."""
        if isinstance(value, fx.Node):
            return isinstance(new, fx.Node) and self._same_node(value, new)
        if isinstance(value, list | tuple):
            return (
                isinstance(new, list | tuple)
                and len(value) == len(new)
                and all(self.same(a, b) for a, b in zip(value, new, strict=True))
            )
        return type(value) is type(new) and bool(value == new or (value != value and new != new))

    def _same_node(self, value: fx.Node, new: fx.Node) -> bool:
        own = self.large.tensors.get(value.name)
        if own is None:
            return self.nodes.get(value) is new
        name, other = self.large.names.get(value.name), self.small.tensors.get(new.name)
        if name is not None:  # a parameter or buffer, under whichever of its names
            return self.small.names.get(new.name) == name
        return other is not None and new.name not in self.small.names and torch.equal(own, other)


def _arguments(decision: Decision, one: fx.Node, other: fx.Node, *, pairs: _Pairing) -> str:
    made = {fold.bias for fold in decision.plan.folds if fold.made}
    first, second = argument_dict(one), argument_dict(other)
    if first.keys() != second.keys():
        return f"{name_of(one)} has other arguments"
    for name, value in first.items():
        new = second[name]
        if name == "bias" and value is None and isinstance(new, fx.Node) and made:
            continue  # its numbers are compared by the outputs
        if not pairs.same(value, new):
            if isinstance(value, int | list | tuple) and _predicted(decision, one, other, name=name):
                continue
            return f"{name} {_short(value)} of {name_of(one)} becomes {_short(new)}"
    return ""


def _predicted(decision: Decision, one: fx.Node, other: fx.Node, *, name: str) -> bool:
    """Whether an argument that changed is a size, and the one that the plan leads to."""
    value, new = argument_dict(one)[name], argument_dict(other)[name]
    if name in _GROUPS:
        axis = decision.analysis.group_counts.get(one.name)
        return axis is not None and new == len(decision.survivors(axis))
    if name in _SIZED.get(name_of(one), ()):
        shape = other.meta["val"].shape
        if len(new) != len(shape) or len(new) != len(value):
            return False
        return all(
            isinstance(size, fx.Node) or size == -1 or size == shape[dim] for dim, size in enumerate(new)
        ) and all(isinstance(a, fx.Node) == isinstance(b, fx.Node) for a, b in zip(value, new, strict=True))
    # the sizes of the pieces themselves are compared with what was predicted
    return name in ("split_size", "split_sizes")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "…"


def _shapes(value: Any) -> list[list[int]]:
    values = value if isinstance(value, list | tuple) else [value]
    return [[hint_of(size) for size in one.shape] for one in values if isinstance(one, Tensor)]


def _sizes(decision: Decision, one: fx.Node, other: fx.Node) -> str:
    fact = decision.analysis.facts.get(one)
    facts = [fact] if isinstance(fact, Fact) else list(fact or ())
    before, after = _shapes(one.meta.get("val")), _shapes(other.meta.get("val"))
    if not facts:
        return "" if before == after else f"sizes {before} of {name_of(one)} become {after}"
    expected = [
        [size if axis is None else len(decision.survivors(axis)) for size, axis in zip(shape, own.axes, strict=True)]
        for shape, own in zip(before, facts, strict=False)
    ]
    return "" if expected == after else f"sizes {expected} of {name_of(one)} were planned, {after} found"
