"""Shrinking: trace, decide, cut, prove; what does not hold is pinned, and it begins again."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.shrinking.acceptable import acceptable
from torchshrink.shrinking.analysis import Analysis, analyse
from torchshrink.shrinking.gradient_mode import with_gradients
from torchshrink.shrinking.limits import constant_arguments, fixed_sizes
from torchshrink.shrinking.measures import (
    bytes_of,
    changed_shapes,
    count,
    latency_of,
    operations_of,
    tensors_of,
    unread_of,
)
from torchshrink.shrinking.outputs import Evidence, compare_outputs, failing
from torchshrink.shrinking.plan import Decision, decide
from torchshrink.shrinking.proof import Mismatch, compare_traces
from torchshrink.shrinking.raw_rows import (
    apply_to_chain,
    begins_with_preprocess,
    raw_difference,
    with_preprocess,
    without_preprocess,
)
from torchshrink.shrinking.rules import plain_enough
from torchshrink.shrinking.shrunk import Shrunk
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import arguments, copy_model, place_of, trace, trace_example
from torchshrink.support.progress_bar import Bar

_TRIES = 12


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
    model = acceptable(model, example)
    args, kwargs = arguments(example)
    if begins_with_preprocess(model) and len(args) == 1 and not kwargs and args[0].ndim == 2:
        return _shrink_behind_preprocess(model, args[0], inputs=inputs)
    with closing(Bar("shrink", "step", total=3, lines=False)) as bar:
        return _shrink(model, example, inputs=inputs, bar=bar)


def _shrink(model: nn.Module, example: Any, *, inputs: bool, bar: Bar) -> Shrunk:
    large = copy_model(model).eval()
    _say(bar, "tracing", 0)
    analysis = analyse(trace_example(large, example, plain=plain_enough), inputs=inputs)
    _say(bar, "proving", 1)
    failure = ""
    for place in range(_TRIES + 1):
        if place == _TRIES:
            analysis.units.pin_all("the proof failed too often")
        decision = decide(analysis)
        small, mismatch, evidence = attempt(large, decision)
        if mismatch is None:
            _say(bar, "measuring", 1)
            return _result(model, large, small, decision=decision, evidence=evidence)
        failure = mismatch.reason
        pin(analysis, mismatch)
        _say(bar, f"proving, again without what failed ({place + 1})", 0)
    raise InputError(
        f"shrink: {type(model).__name__} does not compute the same twice ({failure}): "
        "a model whose output depends on its input and weights alone is expected"
    )


def _say(bar: Bar, note: str, done: int) -> None:
    bar.note(note)
    bar.update(done)


def _shrink_behind_preprocess(model: nn.Sequential, rows: Tensor, *, inputs: bool) -> Shrunk:
    """Shrink what stands behind the `Preprocess`, its features too, and take from that what is not read any more."""
    large = copy_model(model).eval()
    assert isinstance(large, nn.Sequential)
    first, rest = without_preprocess(large)
    with torch.no_grad():
        part = shrink(rest, first(rows), inputs=True)
    plan = with_preprocess(large, part.plan, inputs=inputs)
    small = apply_to_chain(large, plan)
    difference, relative, tried = raw_difference(large, plan, rows)
    if not relative <= 1:
        raise InputError(f"shrink: with its Preprocess the model's outputs differ by {difference:.1e}")
    taken = rows if plan.inputs is None else rows[:, list(plan.inputs)]
    unread = set(part.unread_inputs)
    read = {column for place, column in enumerate(first.sources) if place not in unread}
    before, after = dict(tensors_of(large)), dict(tensors_of(small))
    latency = latency_of((copy_model(large), (rows,), {}), (copy_model(small), (taken,), {}))
    return replace(
        part,
        model=apply_to_chain(model, plan),  # made anew, as in `_result`
        plan=plan,
        kept=changed_shapes(before, after),
        difference=max(part.difference, difference),
        latency=latency,
        unread_inputs=tuple(column for column in range(len(first.sizes)) if column not in read),
        example=((taken,), {}),
        tried=tuple((tuple(each.shape),) for each in tried),
    )


def attempt(large: nn.Module, decision: Decision) -> tuple[nn.Module, Mismatch | None, Evidence]:
    """Apply a plan and prove it: the small model, where it fails (None: it holds), and what was compared."""
    small = apply(large, decision.plan)
    old = decision.analysis.trace
    try:
        args, kwargs = decision.inputs_of_small((old.args, dict(old.kwargs)))
        new = trace(small, args, kwargs, plain=old.plain, open_dims=old.open_dims)
    except InputError as error:
        return small, Mismatch(failing(old, error.__cause__), "the smaller one does not run"), Evidence()
    mismatch = compare_traces(decision, new)
    if mismatch is not None:
        return small, mismatch, Evidence()
    evidence, mismatch = compare_outputs(large, small, decision, new=new)
    return small, mismatch or with_gradients(large, small, decision), evidence


_NAMES_SIZES = ("aten.split", "aten.split_with_sizes", "aten.view", "aten.reshape", "aten.unflatten", "aten.expand")


def pin(analysis: Analysis, mismatch: Mismatch) -> None:
    """Keep what a mismatch touches; where that was not enough, what names a size before it; then all before it."""
    nodes = [node for node in analysis.trace.graph.nodes if node.name in mismatch.nodes]
    reasons = [f"{mismatch.reason}, at {place_of(node)}" for node in nodes]
    pairs = list(zip(nodes, reasons, strict=True))
    constants = sum(analysis.pin_constants(node, reason) for node, reason in pairs) if mismatch.by_size else 0
    if constants:
        return  # code that pads, or counts: what is zero or not read may be right still
    if sum(analysis.pin(node, reason) for node, reason in pairs):
        return
    for only in (_NAMES_SIZES, ()):
        if sum(analysis.pin_before(node, reason, only=only) for node, reason in pairs):
            return
    analysis.units.pin_all(mismatch.reason)


def _result(model: nn.Module, large: nn.Module, small: nn.Module, *, decision: Decision, evidence: Evidence) -> Shrunk:
    old = decision.analysis.trace
    kept = changed_shapes(dict(tensors_of(large)), dict(tensors_of(small)))
    fewer = replace(old, args=decision.inputs_of_small(old.args), kwargs=decision.inputs_of_small(dict(old.kwargs)))
    latency = latency_of((large, old.args, old.kwargs), (small, fewer.args, fewer.kwargs))
    operations = operations_of(large, old), operations_of(small, fewer)
    return Shrunk(
        model=apply(model, decision.plan),  # made anew: the one that was measured has run, and its buffers moved on
        plan=decision.plan,
        kept=kept,
        difference=evidence.difference,
        parameters=(count(large), count(small)),
        operations=operations,
        bytes=(bytes_of(large), bytes_of(small)),
        latency=latency,
        pinned=decision.plan.pinned or {},
        unread_inputs=unread_of(decision),
        ranges=(
            *old.ranges,
            *fixed_sizes(decision.analysis),
            *evidence.untried,
            *constant_arguments(large, old.args, old.kwargs),
        ),
        example=(fewer.args, fewer.kwargs),
        tried=evidence.shapes,
        dtype=evidence.dtype,
    )
