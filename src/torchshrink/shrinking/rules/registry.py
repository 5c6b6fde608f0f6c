"""Rules say what an operator does with units; here they are kept by the operator's name, open for registration."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from torchshrink.errors import InputError
from torchshrink.shrinking.channels import Axis, Fact, Units, Values, unknown
from torchshrink.shrinking.trace import place_of
from torchshrink.shrinking.valid_sizes import sizes
from torchshrink.support.private_torch import OpOverload, is_composite, pytree

Rule = Callable[["Operation"], "Fact | tuple[Fact, ...]"]
_RULES: dict[str, Rule] = {}


@dataclass(frozen=True, eq=False)
class Reading:
    """A contraction: rows of a weight read the columns of an activation, and nothing else reads.

    Args:
        node: the operator's name in the graph.
        weight: the weight as (rows, columns, positions of a kernel), float64.
        rows: units of the rows.
        columns: units of the columns.
        values: the constants that the activation has at the columns.
        everywhere: a constant column adds the same number at every position, so that a bias can take it.
        weight_node: the weight's node.
        weight_column: the dimension of the columns in it.
        bias_node: the bias's node, or None.
        bias_slot: whether the operator has a place for a bias.
    """

    node: str
    weight: Tensor
    rows: Axis
    columns: Axis
    values: Values
    everywhere: bool
    weight_node: fx.Node
    weight_column: int
    bias_node: fx.Node | None
    bias_slot: bool


@dataclass(eq=False)
class Operation:
    """An operator at work, as its rule sees it."""

    node: fx.Node
    arguments: dict[str, Any]
    units: Units
    facts: dict[fx.Node, Any]
    readings: list[Reading]
    group_counts: dict[str, Axis]

    def fact(self, name: str) -> Fact:
        """What is known of the tensor that is this argument."""
        fact = self.facts[self.arguments[name]]
        if not isinstance(fact, Fact):
            raise NotUnderstoodError(f"{name} is not one tensor")
        return fact

    def optional(self, name: str) -> Fact | None:
        """The same, where the argument may be left out."""
        return None if self.arguments.get(name) is None else self.fact(name)

    def value(self, name: str) -> Tensor:
        """An argument as the trace has it: its shape and dtype."""
        return self.arguments[name].meta["val"]  # type: ignore[no-any-return]

    @property
    def inputs(self) -> list[Fact]:
        """What is known of every tensor that goes in."""
        found: list[Fact] = []
        for node in self.node.all_input_nodes:
            fact = self.facts.get(node)
            found += [fact] if isinstance(fact, Fact) else list(fact or ())
        return found

    @property
    def shapes(self) -> list[tuple[Any, ...]]:
        """The shapes of the tensors that come out."""
        value = self.node.meta.get("val")
        values = value if isinstance(value, list | tuple) else [value]
        return [sizes(one) for one in values if isinstance(one, Tensor)]

    @property
    def why(self) -> str:
        """The operator and its place, for a reason to pin."""
        return f"{name_of(self.node)} at {place_of(self.node)}"

    def pin(self, fact: Fact, dims: Sequence[int] | None = None) -> None:
        """Keep all units of these dimensions (of all)."""
        for dim in range(len(fact.axes)) if dims is None else dims:
            axis = fact.axes[dim]
            if axis is not None:
                self.units.pin(axis, self.why)

    def unite(self, first: Axis | None, second: Axis | None) -> None:
        """Two dimensions are the same units; where a size is open, the other one's stay."""
        if first is None or second is None or len(first) != len(second):
            for axis in (first, second):
                if axis is not None:
                    self.units.pin(axis, self.why)
        else:
            self.units.unite(first, second)

    def fresh(self, shape: Sequence[Any], *, pinned: bool = False) -> Fact:
        """A tensor of new units, without constants."""
        axes = tuple(self.units.fresh(size) if isinstance(size, int) else None for size in shape)
        fact = Fact(axes, tuple(unknown(size) if isinstance(size, int) else None for size in shape))
        if pinned:
            self.pin(fact)
        return fact


class NotUnderstoodError(Exception):
    """A rule does not cover this use of its operator, which pins what it touches."""


def shrink_rule(*names: str) -> Callable[[Rule], Rule]:
    """Say what an operator does with units, for ``ts.shrink``.

    Args:
        names: of operators without overload, as ``"aten.relu"`` or ``"mylib.scale"``.

    The rule takes an operation and returns a fact per output. It may pin, unite, and take axes over from its inputs;
    whatever it states is checked on the shrunk model. An operator without a rule pins what it touches.

    >>> import torchshrink as ts
    >>> @ts.shrink_rule("mylib.identity")
    ... def identity(operation):
    ...     return operation.fact("x")
    """
    for name in names:
        if not isinstance(name, str) or name.count(".") != 1:
            raise InputError(f"shrink_rule: {name!r} given, an operator without overload expected, as 'aten.relu'")

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def name_of(node: fx.Node) -> str:
    """Namespace and name of an operator, without its overload, and without the underscore of one in place."""
    if isinstance(node.target, OpOverload):
        name = str(node.target.overloadpacket).replace("::", ".")
        return name.removesuffix("_") if node.target._schema.is_mutable else name
    return getattr(node.target, "__name__", str(node.target))


def rule_of(node: fx.Node) -> Rule | None:
    """The rule for an operator, or None."""
    found = _RULES.get(name_of(node))
    if found is None and isinstance(node.target, OpOverload) and torch.Tag.pointwise in node.target.tags:
        found = _RULES.get("pointwise.any")
    return found


def plain_enough(graph: fx.Graph) -> bool:
    """Whether taking the operators apart would bring nothing: each has a rule or is not made of others.

    One in place counts as the other that makes a new tensor, where nobody sees the difference. What depends on whole
    numbers alone (masks, positions) has no units.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    real = set[fx.Node]()
    for node in graph.nodes:
        kinds = [one.dtype for one in pytree.tree_leaves(node.meta.get("val")) if isinstance(one, Tensor)]
        if node.op == "placeholder":
            if any(kind.is_floating_point or kind.is_complex for kind in kinds):
                real.add(node)
            continue
        in_place = isinstance(node.target, OpOverload) and node.target._schema.is_mutable
        if in_place and not _changes_its_own(node, order):
            return False
        if node.op != "call_function" or real.isdisjoint(node.all_input_nodes):
            continue
        real.add(node)
        if not kinds or node.target is operator.getitem:
            continue
        if not isinstance(node.target, OpOverload):
            return False
        if rule_of(node) is None and is_composite(node.target):
            return False
    return True


_LAYERS = {"linear", "matmul", "batch_norm", "layer_norm", "group_norm", "instance_norm"} | {
    f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)
}


def _makes_new(node: fx.Node) -> bool:
    """Whether the result shares no memory with what goes in. Composite operators may, and do not say so."""
    return (
        isinstance(node.target, OpOverload)
        and not any(argument.alias_info for argument in node.target._schema.arguments)
        and (not is_composite(node.target) or name_of(node).removeprefix("aten.") in _LAYERS)
    )


def _changes_its_own(node: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether nobody sees later what an operator in place changes, but by its result."""
    target, source = node.target, node.args[0] if node.args else None
    if not isinstance(target, OpOverload) or not isinstance(source, fx.Node) or source.op != "call_function":
        return False
    written = [
        place for place, one in enumerate(target._schema.arguments) if one.alias_info and one.alias_info.is_write
    ]
    chained = isinstance(source.target, OpOverload) and source.target._schema.is_mutable
    return (
        written == [0]
        and (chained or _makes_new(source))
        and all(user is node or (order[user] < order[node] and _makes_new(user)) for user in source.users)
    )


def argument_dict(node: fx.Node) -> dict[str, Any]:
    """An operator's arguments by name, defaults included."""
    if not isinstance(node.target, OpOverload):
        return {str(place): value for place, value in enumerate(node.args)} | dict(node.kwargs)
    found = {}
    for place, argument in enumerate(node.target._schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found
