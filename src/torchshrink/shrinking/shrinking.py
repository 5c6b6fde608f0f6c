"""Shrinking: trace, decide, cut, prove; what does not hold is pinned, and it begins again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchshrink.errors import InputError
from torchshrink.shrinking.analysis import Analysis, analyse
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.export import export
from torchshrink.shrinking.plan import Decision, Plan, decide
from torchshrink.shrinking.proof import Mismatch, compare_traces, first_difference, outputs_difference, rounding
from torchshrink.shrinking.raw_rows import (
    apply_to_chain,
    begins_with_preprocess,
    raw_difference,
    with_preprocess,
    without_preprocess,
)
from torchshrink.shrinking.rules import all_known
from torchshrink.shrinking.saved import save
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import Trace, arguments, copy_model, frames, place_of, quiet, trace
from torchshrink.support.private_torch import HigherOrderOperator
from torchshrink.support.storage import PathLike

_TRIES = 12


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model with the same outputs.

    Args:
        model: of the same classes as the one given, with smaller layers.
        plan: what was kept, folded and merged.
        kept: by parameter or buffer that became smaller, its shape before and after.
        difference: the largest difference of the outputs, over the largest output or 1, whichever is larger: in
            float64 on the example and on random inputs of other sizes.
        parameters: how many numbers, before and after.
        operations: floating point operations of the contractions on the example, before and after; 0 where the model
            has control flow (torch.cond), which cannot be counted.
        bytes: of the parameters, before and after.
        latency: seconds of one call on the example, after over before.
        pinned: how many units could not go, by reason.
        unread_inputs: places of the last dimension of the input that nothing reads.
        ranges: for which input sizes this was checked, where not for all.
        example: the arguments with which it was checked, as the smaller model takes them.
    """

    model: nn.Module
    plan: Plan
    kept: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    difference: float
    parameters: tuple[int, int]
    operations: tuple[int, int]
    bytes: tuple[int, int]
    latency: float
    pinned: Mapping[str, int]
    unread_inputs: tuple[int, ...]
    ranges: tuple[str, ...]
    example: tuple[tuple[Any, ...], Mapping[str, Any]] = field(repr=False)

    def __str__(self) -> str:
        rows = [
            f"{name}: {tuple(before)} → {tuple(after)}"
            for name, (before, after) in self.kept.items()
            if name.endswith(("weight", "_orig", "original1", "weight_v")) or name.count(".") == 0
        ]
        if not rows:
            rows = ["nothing could go"]
        made = [fold.bias for fold in self.plan.folds if fold.made]
        rows += [f"{name}: made, for the constants of what went" for name in made]
        for label, (before, after) in (
            ("parameters", self.parameters),
            ("operations on the example", self.operations),
            ("bytes of parameters", self.bytes),
        ):
            rows.append(f"{label}: {before:,} → {after:,} ({after / before if before else 1:.2f})")
        rows.append(f"latency on the example: {self.latency:.2f} of what it was")
        rows.append(f"largest difference of the outputs: {self.difference:.1e} (float64, evaluation mode)")
        if self.unread_inputs:
            rows.append(f"inputs that nothing reads: {', '.join(map(str, self.unread_inputs))}")
        rows += [f"stayed: {count} units, {reason}" for reason, count in self.pinned.items()]
        rows.append(f"holds for {', '.join(self.ranges)}" if self.ranges else "holds for every input size tried")
        return "\n".join(rows)

    def save(self, folder: PathLike, *, force: bool = False) -> None:
        """Write plan and tensors to ``folder``: JSON and safetensors, no code; `ts.load_shrunk` reads them.

        Raises:
            InputError: the folder has files in it and ``force`` is not given, or it cannot be written.
        """
        save(self.model, self.plan, folder, force=force)

    def export(self, path: PathLike, *, force: bool = False) -> None:
        """Write the smaller model as one file that needs neither torchshrink nor the model's code.

        The file is read again and its outputs are compared with the model's, on the example and on other numbers of
        rows, before it is left there.

        Args:
            path: ends in ``.pt2`` (for ``torch.export.load``) or in ``.onnx`` (needs the extra ``onnx``).
            force: write over a file that is there.

        Raises:
            InputError: another ending, a file that is there, a model that cannot be exported, or whose file gives other
                outputs. Nothing is left there then.
            MissingDependencyError: a package that ``.onnx`` needs is not installed.
        """
        export(self.model, self.example, path, force=force)


def shrink(model: nn.Module, example: Any, *, inputs: bool = False) -> Shrunk:
    """A physically smaller model with the same outputs, from one that has zeros.

    A unit (a neuron, a filter, a head) goes where nothing that stays reads it, or where it is constant and its
    constant can be added to the bias of what reads it: ``b' = b + Σ W[:, k] · v_k``. What is not understood stays,
    with a reason. The result is traced again and compared operator by operator, then its outputs are compared in
    float64; nothing is returned that does not pass.

    Args:
        model: any module that ``torch.export`` takes; it is not changed. Evaluation mode is what is kept equal.
        example: its input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        inputs: of a model of (rows, features), let features go that nothing reads; the smaller model then takes
            ``x[:, shrunk.plan.inputs]``. Of a model that begins with `models.Preprocess` these are raw columns, and a
            category goes where nothing reads any of its levels.

    Returns:
        The model and how it was made.

    Raises:
        InputError: the model cannot be traced; the message names the place.

    >>> import torch, torchshrink as ts
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[2:].zero_()
    >>> shrunk = ts.shrink(model, torch.randn(5, 4))
    >>> shrunk.model
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )
    >>> shrunk.parameters, shrunk.difference < 1e-12
    ((58, 16), True)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"shrink: model is {type(model).__name__}, a torch.nn.Module expected")
    args, kwargs = arguments(example)
    if begins_with_preprocess(model) and len(args) == 1 and not kwargs and args[0].ndim == 2:
        return _shrink_behind_preprocess(model, args[0], inputs=inputs)
    large = copy_model(model).eval()
    analysis = analyse(trace(large, args, kwargs, plain=all_known), inputs=inputs)
    for _ in range(_TRIES):
        decision = decide(analysis)
        small, mismatch, difference = attempt(large, decision)
        if mismatch is None:
            return _result(model, large, small, decision=decision, difference=difference)
        pin(analysis, mismatch)
    analysis.units.pin_all("the proof failed too often")
    decision = decide(analysis)
    small, mismatch, difference = attempt(large, decision)
    if mismatch is not None:
        raise InputError(
            f"shrink: {type(model).__name__} does not compute the same twice ({mismatch.reason}): "
            "a model whose output depends on its input and weights alone is expected"
        )
    return _result(model, large, small, decision=decision, difference=difference)


def _shrink_behind_preprocess(model: nn.Sequential, rows: Tensor, *, inputs: bool) -> Shrunk:
    """Shrink what stands behind the `Preprocess`, its features too, and take from that what is not read any more."""
    large = copy_model(model).eval()
    assert isinstance(large, nn.Sequential)
    first, rest = without_preprocess(large)
    with torch.no_grad():
        part = shrink(rest, first(rows), inputs=True)
    plan = with_preprocess(large, part.plan, inputs=inputs)
    small = apply_to_chain(large, plan)
    difference = max(part.difference, raw_difference(large, plan, rows))
    if not difference <= 1e-10:
        raise InputError(f"shrink: with its Preprocess the model's outputs differ by {difference:.1e}")
    taken = rows if plan.inputs is None else rows[:, list(plan.inputs)]
    unread = set(part.unread_inputs)
    read = {column for place, column in enumerate(first.sources) if place not in unread}
    before, after = dict(_tensors(large)), dict(_tensors(small))
    latency = _latency((large, (rows,), {}), (small, (taken,), {}))
    for one, other in zip(model.modules(), small.modules(), strict=True):
        other.training = one.training
    return replace(
        part,
        model=small,
        plan=plan,
        kept=_kept(before, after),
        difference=difference,
        latency=latency,
        unread_inputs=tuple(column for column in range(len(first.sizes)) if column not in read),
        example=((taken,), {}),
    )


def attempt(large: nn.Module, decision: Decision) -> tuple[nn.Module, Mismatch | None, float]:
    """Apply a plan and prove it: the small model, where it fails (None: it holds), and the difference of outputs."""
    small = apply(large, decision.plan)
    old = decision.analysis.trace
    try:
        args, kwargs = decision.inputs_of_small((old.args, dict(old.kwargs)))
        new = trace(small, args, kwargs, plain=old.plain)
    except InputError as error:
        return small, Mismatch(_failing(old, error.__cause__), "the smaller one does not run"), float("inf")
    mismatch = compare_traces(decision, new)
    if mismatch is not None:
        return small, mismatch, float("inf")
    try:
        difference, bound, trials = outputs_difference(large, small, decision)
    except Exception as error:  # whatever the smaller model's code raises at another size
        return small, Mismatch(_failing(old, error), "the smaller one does not run at another size"), float("inf")
    if not difference <= bound or trials == 0:
        place = first_difference(decision, new)
        return small, Mismatch(place, f"the outputs differ by {difference:.1e}"), difference
    return small, rounding(large, small, decision), difference


def _failing(old: Trace, error: BaseException | None) -> tuple[str, ...]:
    """The operators of the line of code that failed: those with the longest common stack."""
    places = frames(error) if error is not None else []
    common = {
        node.name: sum(place in (node.meta.get("stack_trace") or "") for place in places) for node in old.graph.nodes
    }
    most = max(common.values(), default=0)
    return tuple(name for name, count in common.items() if count == most) if most else ()


_NAMES_SIZES = ("aten.split", "aten.split_with_sizes", "aten.view", "aten.reshape", "aten.unflatten", "aten.expand")


def pin(analysis: Analysis, mismatch: Mismatch) -> None:
    """Keep what a mismatch touches; where that was not enough, what names a size before it; then all before it."""
    nodes = [node for node in analysis.trace.graph.nodes if node.name in mismatch.nodes]
    reasons = [f"{mismatch.reason}, at {place_of(node)}" for node in nodes]
    pairs = list(zip(nodes, reasons, strict=True))
    if sum(analysis.pin(node, reason) for node, reason in pairs):
        return
    for only in (_NAMES_SIZES, ()):
        if sum(analysis.pin_before(node, reason, only=only) for node, reason in pairs):
            return
    analysis.units.pin_all(mismatch.reason)


def _result(model: nn.Module, large: nn.Module, small: nn.Module, *, decision: Decision, difference: float) -> Shrunk:
    old = decision.analysis.trace
    kept = _kept(dict(_tensors(large)), dict(_tensors(small)))
    fewer = replace(old, args=decision.inputs_of_small(old.args), kwargs=decision.inputs_of_small(dict(old.kwargs)))
    latency = _latency((large, old.args, old.kwargs), (small, fewer.args, fewer.kwargs))
    operations = _operations(large, old), _operations(small, fewer)
    for one, other in zip(model.modules(), small.modules(), strict=True):
        other.training = one.training
    return Shrunk(
        model=small,
        plan=decision.plan,
        kept=kept,
        difference=difference,
        parameters=(_count(large), _count(small)),
        operations=operations,
        bytes=(_bytes(large), _bytes(small)),
        latency=latency,
        pinned=decision.plan.pinned or {},
        unread_inputs=_unread(decision),
        ranges=old.ranges,
        example=(fewer.args, fewer.kwargs),
    )


def _kept(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {
        name: (tuple(before[name].shape), tuple(after[name].shape))
        for name in before
        if name in after and before[name].shape != after[name].shape
    }


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _operations(model: nn.Module, old: Trace) -> int:
    if any(isinstance(node.target, HigherOrderOperator) for node in old.graph.nodes):
        return 0  # the counter does not look into torch.cond, and after it torch.cond fails
    with torch.no_grad(), quiet(), FlopCounterMode(display=False) as counter:
        model(*old.args, **old.kwargs)
    return int(counter.get_total_flops())


_Call = tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]


def _latency(large: _Call, small: _Call, rounds: int = 9) -> float:
    """The median of the ratios of calls one after another."""
    ratios = []
    with torch.no_grad(), quiet():
        for _ in range(rounds):
            spans = []
            for model, args, kwargs in (large, small):
                start = time.perf_counter()
                model(*args, **kwargs)
                spans.append(time.perf_counter() - start)
            ratios.append(spans[1] / spans[0])
    return statistics.median(ratios)


def _unread(decision: Decision) -> tuple[int, ...]:
    """Features of a single (rows, features) input that only contractions take, and none of their rows reads."""
    analysis = decision.analysis
    places = [node for node in analysis.trace.graph.nodes if node.name in analysis.trace.inputs]
    if len(places) != 1 or not isinstance(analysis.facts.get(places[0]), Fact):
        return ()
    fact = analysis.facts[places[0]]
    axis = fact.axes[-1] if len(fact.axes) == 2 else None
    by_node = {reading.node: reading for reading in analysis.readings}
    users = [node for node in places[0].users if not node.name.startswith("sym_")]
    if axis is None or not users or not all(user.name in by_node for user in users):
        return ()
    read = [
        (by_node[user.name].weight[decision.survivors(by_node[user.name].rows)] != 0).any(2).any(0) for user in users
    ]
    return tuple(torch.nonzero(~torch.stack(read).any(0)).flatten().tolist())
