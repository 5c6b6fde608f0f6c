"""From a trace to units, readings and reasons: the rules applied, operator by operator."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from torchshrink.errors import InputError
from torchshrink.shrinking.channels import Axis, Fact, Units, unknown, values_of
from torchshrink.shrinking.rules import NotUnderstoodError, Operation, Reading, argument_dict, name_of, rule_of
from torchshrink.shrinking.trace import Trace
from torchshrink.shrinking.valid_sizes import sizes
from torchshrink.support.private_torch import OpOverload, pytree

_SIZES = ("sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata", "_assert_async", "_assert_scalar")


@dataclass(frozen=True, eq=False)
class Analysis:
    """What `analyse` found.

    Args:
        trace: of which model.
        units: which indices go together, and what is pinned.
        facts: by node of the graph.
        readings: the contractions.
        group_counts: by operator with groups, one unit of each group.
        free_input: the model's one input of (rows, features), where its features may go; else None.
    """

    trace: Trace
    units: Units
    facts: dict[fx.Node, Any]
    readings: tuple[Reading, ...]
    group_counts: dict[str, Axis]
    free_input: fx.Node | None = None

    def pin(self, node: fx.Node, reason: str) -> int:
        """Keep what an operator touches; returns how many units that changes."""
        changed = 0
        for near in (node, *node.all_input_nodes):
            changed += sum(self.units.pin(axis, reason) for axis in _axes(self.facts.get(near)))
        return changed

    def pin_constants(self, node: fx.Node, reason: str) -> int:
        """Keep what is constant, not zero, and read, in an operator's result; returns how many units that changes."""
        fact, changed = self.facts.get(node), 0
        for axis, values in zip(fact.axes, fact.values, strict=True) if isinstance(fact, Fact) else ():
            if axis is not None and values is not None:
                read = np.isin(self.units.roots(axis), self._read())
                changed += self.units.pin(axis[read & ~np.isnan(values) & (values != 0)], reason)
        return changed

    def _read(self) -> Axis:
        """The units of which some weight has a column that is not zero."""
        found = [r.columns[(r.weight != 0).any(2).any(0).numpy()] for r in self.readings]
        return self.units.roots(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def pin_before(self, node: fx.Node, reason: str, *, only: tuple[str, ...] = ()) -> int:
        """Keep what the operators touch (of these names, or all) that an operator depends on, weights included."""
        changed, seen, todo = 0, set(), [node]
        while todo:
            near = todo.pop()
            if near not in seen:
                seen.add(near)
                todo += near.all_input_nodes
                if not only or name_of(near) in only:
                    changed += sum(self.units.pin(axis, reason) for axis in _axes(self.facts.get(near)))
        return changed

    @property
    def axes(self) -> list[Axis]:
        """Every dimension of every tensor."""
        return [axis for fact in self.facts.values() for axis in _axes(fact)]


def _axes(fact: Any) -> list[Axis]:
    facts = [fact] if isinstance(fact, Fact) else list(fact or ())
    return [axis for one in facts for axis in one.axes if axis is not None and len(axis)]


def analyse(trace: Trace, *, inputs: bool = False) -> Analysis:
    """Apply the rules. What no rule understands is pinned, with the reason and the place.

    Args:
        trace: of the model.
        inputs: whether features of the input may go.

    Raises:
        InputError: ``inputs`` is asked for, and the model has another input than one of (rows, features).
    """
    free = _free_input(trace) if inputs else None
    units, facts = Units(), dict[fx.Node, Any]()
    readings: list[Reading] = []
    groups: dict[str, Axis] = {}
    shared: dict[int, Fact] = {}
    narrow = dict[fx.Node, Tensor]()
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            _placeholder(trace, node, units=units, facts=facts, shared=shared)
            if node.name in trace.tensors:
                narrow[node] = trace.tensors[node.name].detach().cpu()
            if node is not free and node.name not in trace.tensors:
                for axis in _axes(facts.get(node)):
                    units.pin(axis, "an input of the model")
        elif node.op == "output":
            for source in node.all_input_nodes:
                for axis in _axes(facts.get(source)):
                    units.pin(axis, "an output of the model")
        elif node.target is operator.getitem:
            source = facts.get(node.args[0])
            if isinstance(source, tuple):
                facts[node] = source[node.args[1]]
        else:
            op = Operation(node, argument_dict(node), units, facts, readings, groups)
            _apply(op, node, facts=facts, narrow=narrow)
    used = {trace.names[node.name] for node in facts if node.name in trace.names and node.users}
    for node, fact in facts.items():
        if node.name in trace.names and trace.names[node.name] not in used:  # an auxiliary head, for training only
            for axis in _axes(fact):
                units.pin(axis, "not used in evaluation mode")
    return Analysis(trace, units, facts, tuple(readings), groups, free)


def _free_input(trace: Trace) -> fx.Node:
    nodes = [node for node in trace.graph.nodes if node.op == "placeholder" and node.name in trace.inputs]
    value = nodes[0].meta.get("val") if len(nodes) == 1 else None
    if not isinstance(value, Tensor) or value.ndim != 2 or not isinstance(sizes(value)[1], int):
        raise InputError("shrink: inputs=True needs a model of one input, of (rows, features): leave it out")
    return nodes[0]  # type: ignore[no-any-return]


def _placeholder(
    trace: Trace, node: fx.Node, *, units: Units, facts: dict[fx.Node, Any], shared: dict[int, Fact]
) -> None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return
    tensor = trace.tensors.get(node.name)
    axes: tuple[Axis | None, ...]
    if tensor is not None and trace.names.get(node.name) in trace.moved:  # other numbers at the next call
        axes = tuple(units.fresh(size) for size in tensor.shape)
        facts[node] = Fact(axes, tuple(unknown(size) for size in tensor.shape))
        reason = "a buffer that each call changes"
    elif tensor is None:
        axes = tuple(units.fresh(size) if isinstance(size, int) else None for size in sizes(value))
        facts[node] = Fact(axes, tuple(None if axis is None else unknown(len(axis)) for axis in axes))
        reason = ""
    else:
        if id(tensor) in shared:
            facts[node] = shared[id(tensor)]
            return
        axes = tuple(units.fresh(size) for size in tensor.shape)
        known = tensor.detach().cpu()  # once, here: rules compute with it, and numpy reads nothing elsewhere
        known = known.double() if known.is_floating_point() else known
        facts[node] = shared[id(tensor)] = Fact(axes, values_of(known), known)
        reason = "" if node.name in trace.names else "a constant of the model's code"
    for axis in axes:
        if axis is not None and reason:
            units.pin(axis, reason)


def _apply(op: Operation, node: fx.Node, *, facts: dict[fx.Node, Any], narrow: dict[fx.Node, Tensor]) -> None:
    if not op.shapes:
        if not any(name in name_of(node) for name in _SIZES) and any(facts.get(n) for n in node.all_input_nodes):
            _pin_all(op, f"{op.why} makes a number of it")
        return
    rule = rule_of(node)
    many = isinstance(node.meta.get("val"), list | tuple)
    before = len(op.readings)
    try:
        if rule is None:
            raise NotUnderstoodError("no rule")
        found = _fitted(op, rule(op), many=many)
        _check(op, found, many=many)
        computed = _computed(node, facts, narrow) if isinstance(found, Fact) else None
    except Exception as error:
        ours = rule is None or rule.__module__.startswith("torchshrink.")
        expected = (NotUnderstoodError, KeyError, IndexError, TypeError, AttributeError, ValueError)
        if ours and not isinstance(error, expected):  # a rule of a user may raise what it likes
            raise
        del op.readings[before:]
        known = isinstance(error, NotUnderstoodError)
        reason = f"{op.why}: {error if known else 'used in a way that its rule does not know'}"
        _pin_all(op, reason)
        fresh = tuple(op.fresh(shape) for shape in op.shapes)
        for fact in fresh:
            for axis in _axes(fact):
                op.units.pin(axis, reason)
        found, computed = fresh if many else fresh[0], None
    if isinstance(found, Fact) and computed is not None:
        found = Fact(found.axes, values_of(computed), computed)
    facts[node] = found


def _fitted(op: Operation, found: Any, *, many: bool) -> Any:
    """A size that was open where the rule looked, and of which a later operator needs that it is one number."""
    facts = list(found) if many else [found]
    fitted = []
    for fact, shape in zip(facts, op.shapes, strict=False):
        axes, values = list(fact.axes), list(fact.values)
        for dim, size in enumerate(shape[: len(axes)]):
            if axes[dim] is None and isinstance(size, int):
                axes[dim], values[dim] = op.fresh([size], pinned=True).axes[0], unknown(size)
        fitted.append(Fact(tuple(axes), tuple(values), fact.static))
    return tuple(fitted) if many else fitted[0]


def _check(op: Operation, found: Any, *, many: bool) -> None:
    """A rule states a fact per output, of its rank and sizes."""
    facts = list(found) if many else [found]
    if len(facts) != len(op.shapes):
        raise NotUnderstoodError("its rule states another number of outputs")
    for fact, shape in zip(facts, op.shapes, strict=True):
        sizes = [None if axis is None else len(axis) for axis in fact.axes]
        if sizes != [size if isinstance(size, int) else None for size in shape]:
            raise NotUnderstoodError(f"its rule states sizes {sizes}, {list(shape)} expected")


def _pin_all(op: Operation, reason: str) -> None:
    for fact in op.inputs:
        for axis in _axes(fact):
            op.units.pin(axis, reason)


def _in_place(target: OpOverload) -> bool:
    return bool(target._schema.is_mutable)


def _computed(node: fx.Node, facts: dict[fx.Node, Any], narrow: dict[fx.Node, Tensor]) -> Tensor | None:
    """The result itself, in float64, where it depends on no input; in ``narrow`` it is put in the model's own dtype.

    Raises:
        NotUnderstoodError: the two differ by more than rounding, as where 0.7 is compared with a float32 of 0.7.
    """
    sources = node.all_input_nodes
    target: Any = node.target
    if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded in target.tags or _in_place(target):
        return None
    if not all(isinstance(facts.get(source), Fact) and facts[source].static is not None for source in sources):
        return None
    if not sources and any(not isinstance(size, int) for size in sizes(node.meta["val"])):
        return None
    wide = {source: facts[source].static for source in sources}
    found = _evaluated(node, wide)
    if found is not None and all(source in narrow for source in sources):
        same = all(wide[source].dtype == narrow[source].dtype for source in sources)
        own = found if same else _evaluated(node, narrow)
        if own is not None:
            narrow[node] = own
            if not same and not _rounded(own, found):
                raise NotUnderstoodError("gives other numbers in float64 than in the model's own dtype")
    if found is None:
        return None
    return found.double() if found.is_floating_point() else found


def _evaluated(node: fx.Node, known: Mapping[fx.Node, Tensor]) -> Tensor | None:
    def tensor(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return known[value] if isinstance(value, fx.Node) else value

    target: Any = node.target
    try:
        with torch.no_grad():
            found = target(*pytree.tree_map(tensor, node.args), **pytree.tree_map(tensor, node.kwargs))
    except Exception:  # an operator that does not take float64: its result is not known in advance
        return None
    if not isinstance(found, Tensor) or tuple(found.shape) != sizes(node.meta["val"]):
        return None
    return found.cpu()  # torch.set_default_device has another, for those that name none


def _rounded(narrow: Tensor, wide: Tensor) -> bool:
    """Whether two results differ by rounding alone."""
    if not narrow.is_floating_point() or not wide.is_floating_point():
        return narrow.is_complex() or torch.equal(narrow, wide)
    bound = (
        torch.finfo(narrow.dtype).eps ** 0.5 * max(1e-30, float(wide.abs().nan_to_num(0, 0, 0).max()))
        if wide.numel()
        else 0
    )
    return torch.allclose(narrow.double(), wide.double(), rtol=0, atol=bound, equal_nan=True)
