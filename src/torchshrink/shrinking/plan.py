"""The plan: which indices of which tensors stay, and where the constants of the others go. It changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from torchshrink.shrinking.analysis import Analysis
from torchshrink.shrinking.channels import Axis, Fact, Values
from torchshrink.shrinking.rules import Reading
from torchshrink.shrinking.trace import Trace, module_of
from torchshrink.support.private_torch import pytree


@dataclass(frozen=True)
class Fold:
    """Numbers that a bias takes: b' = b + Σ W[:, k] · v_k over the constant columns k that go.

    Args:
        bias: the parameter's name.
        amounts: what is added, for every row of the model before it shrinks.
        made: the bias was not there.
    """

    bias: str
    amounts: tuple[float, ...] = field(repr=False)
    made: bool = False


@dataclass(frozen=True)
class Merge:
    """Columns that go are added to one that stays, the carrier c: W'[:, c] = W[:, c] + Σ W[:, k] · v_k / v_c.

    Exact where the bias is not: at the border of a zero-padded image, and in transposed convolutions.

    Args:
        weight: the parameter's name.
        dim: the dimension of its columns.
        carrier: the column that stays.
        columns: those that go.
        ratios: v_k / v_c.
    """

    weight: str
    dim: int
    carrier: int
    columns: tuple[int, ...] = field(repr=False)
    ratios: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """What is kept, folded and merged; the same plan does the same to the same model.

    Args:
        kept: by parameter or buffer and dimension, the indices that stay, where some go.
        folds: numbers that biases take.
        merges: columns that carriers take.
        groups: by module, how many groups are left, where some go.
        pinned: how many units could not go, by reason.
        inputs: the features of the input that the smaller model takes, where it does not take all.
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]]
    folds: tuple[Fold, ...] = ()
    merges: tuple[Merge, ...] = ()
    groups: Mapping[str, int] | None = None
    pinned: Mapping[str, int] | None = None
    inputs: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"<Plan: {len(self.kept)} tensors become smaller, {len(self.folds)} biases take constants, "
            f"{len(self.merges)} merges>"
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        plain = asdict(self)
        plain["kept"] = {
            name: {str(dim): list(places) for dim, places in dims.items()} for name, dims in self.kept.items()
        }
        return plain


@dataclass(frozen=True, eq=False)
class Decision:
    """A plan, and which units go in it.

    Args:
        plan: what to do.
        gone: by unit, as `survivors` reads it.
    """

    plan: Plan
    gone: NDArray[np.bool_]
    analysis: Analysis

    def survivors(self, axis: Axis) -> NDArray[np.int64]:
        """The places of a dimension that stay."""
        return np.flatnonzero(~self.gone[self.analysis.units.roots(axis)])

    def inputs_of_small(self, value: Any) -> Any:
        """The large model's arguments as the small one takes them."""
        places = self.plan.inputs
        if places is None:
            return value
        return pytree.tree_map(lambda one: one[:, list(places)] if isinstance(one, Tensor) else one, value)


@dataclass(frozen=True, eq=False)
class _Reader:
    """All uses of one weight."""

    readings: tuple[Reading, ...]
    rows: Axis
    columns: Axis
    used: NDArray[np.bool_]
    values: Values
    fold_into: str | None
    made: bool
    carrying: str | None

    @property
    def folds(self) -> bool:
        return self.fold_into is not None and all(reading.everywhere for reading in self.readings)


def decide(analysis: Analysis) -> Decision:
    """The greatest set of units that can go.

    All that are not pinned go; then those come back that a row that stays reads and that are not constant, or whose
    constant nothing can take; and one of each dimension that would be empty; until nothing changes.
    """
    units = analysis.units
    roots = units.roots(np.arange(units.count))
    gone = ~units.pinned(roots)
    readers = _readers(analysis, roots)
    axes = list({axis.tobytes(): axis for axis in (roots[axis] for axis in analysis.axes)}.values())
    while True:
        while any(_revive(reader, gone) for reader in readers):
            pass
        empty = next((axis for axis in axes if gone[axis].all()), None)
        if empty is None:
            break
        gone[empty[0]] = False  # after the readers, which may want another one
    return Decision(_plan(analysis, readers, gone, roots=roots), gone, analysis)


def _revive(reader: _Reader, gone: NDArray[np.bool_]) -> bool:
    read = reader.used[~gone[reader.rows]].any(0) & gone[reader.columns]
    varying = read & (np.isnan(reader.values) | ((reader.values != 0) & (not reader.folds and not reader.carrying)))
    if varying.any():
        gone[reader.columns[varying]] = False
        return True
    needed = read & (reader.values != 0)
    if reader.folds or not needed.any() or _carrier(reader, gone) is not None:
        return False
    strongest = int(np.argmax(np.where(needed, np.abs(np.nan_to_num(reader.values)), -1.0)))
    gone[reader.columns[strongest]] = False
    return True


def _carrier(reader: _Reader, gone: NDArray[np.bool_]) -> int | None:
    """A column that stays and is constant, of the largest value: others are divided by it."""
    able = ~gone[reader.columns] & ~np.isnan(reader.values) & (reader.values != 0)
    return int(np.argmax(np.where(able, np.abs(np.nan_to_num(reader.values)), -1.0))) if able.any() else None


def _readers(analysis: Analysis, roots: Axis) -> list[_Reader]:
    """Readings by weight; what a bias or a carrier may take depends on who else uses the parameters."""
    trace = analysis.trace
    users: dict[str, set[str]] = defaultdict(set)
    for node in trace.graph.nodes:
        if node.name in trace.names:
            users[trace.names[node.name]] |= {user.name for user in node.users}

    def name(node: fx.Node | None) -> str | None:
        return None if node is None else trace.names.get(node.name)

    grouped: dict[str, list[Reading]] = defaultdict(list)
    for reading in analysis.readings:
        grouped[name(reading.weight_node) or f"node {reading.weight_node.name}"].append(reading)
    nodes = {node.name: node for node in trace.graph.nodes}
    found = []
    for weight, readings in grouped.items():
        first = readings[0]
        values = first.values.copy()
        for other in readings[1:]:
            same_columns = other.weight_column == first.weight_column and len(other.values) == len(values)
            values = np.where(values == other.values, values, np.nan) if same_columns else values * np.nan
        here = {reading.node for reading in readings}
        biases = {name(reading.bias_node) for reading in readings}
        bias = biases.pop() if len(biases) == 1 else None
        target, made = None, False
        if bias is not None and users[bias] == here and _is_parameter(trace, bias):
            target = bias
        paths = {module_of(nodes[node]) for node in here}
        if all(reading.bias_node is None and reading.bias_slot for reading in readings) and len(paths) == 1:
            (path,) = paths
            if path in trace.bare:
                target, made = f"{path}.bias" if path else "bias", True
        sole = weight in users and users[weight] == here and len({r.weight_column for r in readings}) == 1
        carries = sole and weight not in trace.unsaved | trace.moved
        if len({reading.weight_column for reading in readings}) > 1:  # W in one place, its transpose in another
            target = None
            for reading in readings:
                found.append(_reader(reading, [reading], roots, values=reading.values, target=None, carrying=None))
            continue
        reader = _reader(first, readings, roots, values=values, target=target, carrying=weight if carries else None)
        found.append(replace(reader, made=made))
    return found


def _is_parameter(trace: Trace, name: str) -> bool:
    """Whether a bias can take numbers: floating point, changed by no call, and in the model's ``state_dict``."""
    if name in trace.unsaved | trace.moved:
        return False
    return any(own == name and trace.tensors[place].is_floating_point() for place, own in trace.names.items())


def _reader(
    first: Reading, readings: list[Reading], roots: Axis, *, values: Values, target: str | None, carrying: str | None
) -> _Reader:
    used = (first.weight != 0).any(2).numpy()
    return _Reader(tuple(readings), roots[first.rows], roots[first.columns], used, values, target, False, carrying)


def _plan(analysis: Analysis, readers: list[_Reader], gone: NDArray[np.bool_], *, roots: Axis) -> Plan:
    folds, merges = [], []
    for reader in readers:
        stay = ~gone[reader.rows]
        taken = gone[reader.columns] & (np.nan_to_num(reader.values) != 0) & reader.used[stay].any(0)
        if not taken.any():
            continue
        weight = reader.readings[0].weight
        if reader.folds and reader.fold_into is not None:
            amounts = weight.sum(2).numpy()[:, taken] @ reader.values[taken]
            folds.append(Fold(reader.fold_into, tuple(amounts.tolist()), reader.made))
            continue
        carrier = _carrier(reader, gone)
        if carrier is None or reader.carrying is None:
            raise AssertionError("a constant has no place to go")
        ratios = reader.values[taken] / reader.values[carrier]
        columns = tuple(np.flatnonzero(taken).tolist())
        dim = reader.readings[0].weight_column
        merges.append(Merge(reader.carrying, dim, carrier, columns, tuple(ratios.tolist())))
    return Plan(
        _kept(analysis, gone, roots),
        tuple(folds),
        tuple(merges),
        _groups(analysis, gone, roots),
        _pinned(analysis, roots),
        _inputs(analysis, gone, roots),
    )


def _inputs(analysis: Analysis, gone: NDArray[np.bool_], roots: Axis) -> tuple[int, ...] | None:
    if analysis.free_input is None:
        return None
    axis = analysis.facts[analysis.free_input].axes[1]
    return tuple(np.flatnonzero(~gone[roots[axis]]).tolist()) if gone[roots[axis]].any() else None


def _kept(analysis: Analysis, gone: NDArray[np.bool_], roots: Axis) -> dict[str, dict[int, tuple[int, ...]]]:
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for node, fact in analysis.facts.items():
        if node.name not in analysis.trace.names or not isinstance(fact, Fact):
            continue
        for dim, axis in enumerate(fact.axes):
            if axis is not None and gone[roots[axis]].any():
                places = tuple(np.flatnonzero(~gone[roots[axis]]).tolist())
                kept.setdefault(analysis.trace.names[node.name], {})[dim] = places
    return kept


def _groups(analysis: Analysis, gone: NDArray[np.bool_], roots: Axis) -> dict[str, int]:
    nodes = {node.name: node for node in analysis.trace.graph.nodes}
    return {
        module_of(nodes[name]): int((~gone[roots[axis]]).sum())
        for name, axis in analysis.group_counts.items()
        if gone[roots[axis]].any() and module_of(nodes[name]) in analysis.trace.grouped
    }


def _pinned(analysis: Analysis, roots: Axis) -> dict[str, int]:
    """Of the units of parameters, how many each reason keeps; inputs, outputs and kernels are no news."""
    seen: set[int] = set()
    for node, fact in analysis.facts.items():
        if node.name in analysis.trace.names and isinstance(fact, Fact):
            for axis in fact.axes[:2]:
                seen.update(roots[axis].tolist() if axis is not None else ())
    reasons = Counter(reason for root in seen if (reason := analysis.units.reason(root)) is not None)
    return dict(reasons.most_common())
