"""The outputs of the large and the small model, on many inputs: how far they are apart, and where that begins."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchshrink.errors import InputError
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.comparison import EXACT, difference, finite, outputs_apart
from torchshrink.shrinking.limits import in_words
from torchshrink.shrinking.plan import Decision
from torchshrink.shrinking.proof import Mismatch, operators
from torchshrink.shrinking.rules import name_of
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import Trace, copy_model, frames, module_of, place_of, quiet, trace
from torchshrink.shrinking.trials import Shapes, Space, Trial, trials
from torchshrink.support.private_torch import OpOverload, pytree
from torchshrink.support.storage import brief


@dataclass(frozen=True)
class Evidence:
    """On what a small model's outputs were compared.

    Args:
        difference: the largest, over the largest output or 1.
        dtype: of the outputs that were compared.
        shapes: of the inputs, all that ran.
        untried: conditions of the trace of which no size that violates them was tried, in words.
    """

    difference: float = float("inf")
    dtype: str = ""
    shapes: tuple[Shapes, ...] = ()
    untried: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Both models, and how they take their arguments.

    Args:
        exact: whether they compute in float64, or as near to it as they can.
    """

    large: nn.Module
    small: nn.Module
    cast: Callable[[Any], Any]
    exact: bool

    def first(self, trial: Trial) -> Any:
        """What the large one gives. Copies run, so that what one call leaves behind is no part of the next."""
        return copy_model(self.large)(*self.cast(trial.args), **self.cast(trial.kwargs))

    def second(self, trial: Trial, decision: Decision) -> Any:
        """What the small one gives."""
        less = decision.inputs_of_small
        return copy_model(self.small)(*less(self.cast(trial.args)), **less(self.cast(trial.kwargs)))


def compare_outputs(
    large: nn.Module, small: nn.Module, decision: Decision, *, new: Trace
) -> tuple[Evidence, Mismatch | None]:
    """Run both on all `trials`: in float64, so that rounding of the biases does not hide an error, and as they are.

    Args:
        large: in evaluation mode.
        small: the plan applied to it.
        decision: the plan.
        new: the small one's trace.

    Returns:
        What was compared, and the first difference that rounding does not explain, if there is one.

    Raises:
        InputError: no output of any trial is finite.
    """
    old = decision.analysis.trace
    pairs = _pairs(large, small, decision)
    worst, count = 0.0, 0
    dtypes, ran, tried = set[str](), list[Shapes](), list[Shapes]()
    for trial in trials(decision.analysis, new):
        for place, pair in enumerate(pairs):
            with torch.no_grad(), quiet():
                try:
                    expected = pair.first(trial)
                except Exception as error:  # these sizes are not the model's
                    if not tried:
                        raise InputError(f"shrink: the model does not run on the example: {brief(error)}") from error
                    break
                try:
                    found = pair.second(trial, decision)
                except Exception as error:  # whatever the small model's code raises
                    where = failing(old, error) or _diverging(decision, large, trial)
                    reason = f"the smaller one does not run on {_words(trial.shapes)}"
                    return Evidence(), Mismatch(where, reason, by_size=True)
            kinds = [leaf for leaf in pytree.tree_leaves(expected) if isinstance(leaf, Tensor)]
            if trial.wild and sum(map(finite, kinds)) < sum(leaf.numel() for leaf in kinds):
                break  # numbers that are not the model's
            apart, relative = outputs_apart(expected, found, exact=pair.exact)
            if place == 0:
                worst, count = max(worst, apart), count + sum(map(finite, kinds))
                dtypes |= {str(leaf.dtype).removeprefix("torch.") for leaf in kinds}
            if not relative <= 1:
                return Evidence(apart), _mismatch(decision, large, trial, pair=pair, new=new, apart=apart)
        else:
            ran.append(trial.shapes)
        tried.append(trial.shapes)
    if not count:
        raise InputError(
            "shrink: no output was a finite number on the example, or there was none: give another example"
        )
    space = Space.of(old)
    untried = [one for one in space.conditions if all(space.holds(one, shapes) for shapes in tried)]
    words = tuple(in_words(one, old) for one in untried if not _is_bound(one) and space.breakable(one))
    return Evidence(worst, " and ".join(sorted(dtypes)), tuple(dict.fromkeys(ran)), words), None


def _is_bound(condition: Any) -> bool:
    """Whether the trace reports it already."""
    return len(condition.free_symbols) == 1 and getattr(condition, "rel_op", "") in ("<", "<=", ">", ">=")


def _pairs(large: nn.Module, small: nn.Module, decision: Decision) -> list[_Pair]:
    """In float64 where the model takes that, and in its own dtypes where those are others."""
    old = decision.analysis.trace
    example = Trial(old.args, dict(old.kwargs), ())
    wide = copy_model(large).double().eval()
    exact = _Pair(wide, apply(wide, decision.plan), _wide, True)
    own = _Pair(large, small, _same, False)
    with torch.no_grad(), quiet():
        try:
            exact.first(example)
        except Exception:  # code that asks for float32 by name
            return [_Pair(large, small, _same, True)]
    tensors = [*large.parameters(), *large.buffers(), *pytree.tree_leaves((old.args, dict(old.kwargs)))]
    narrow = any(isinstance(one, Tensor) and one.is_floating_point() and one.dtype != torch.float64 for one in tensors)
    return [exact, own] if narrow else [exact]


def _mismatch(decision: Decision, large: nn.Module, trial: Trial, *, pair: _Pair, new: Trace, apart: float) -> Mismatch:
    own = Space.of(decision.analysis.trace).own
    how = "" if pair.exact else " in the model's own dtype"
    reason = f"the outputs differ by {apart:.1e}{how}"
    if trial.shapes == own:
        return Mismatch(first_difference(decision, new) if pair.exact else (), reason)
    nodes = first_difference(decision, new) or _diverging(decision, large, trial)
    return Mismatch(nodes, f"{reason} on {_words(trial.shapes)}", by_size=True)


def _words(shapes: Shapes) -> str:
    return f"inputs of {' and '.join(map(str, shapes))}"


def failing(old: Trace, error: BaseException | None) -> tuple[str, ...]:
    """The operators of the line of code that failed: those with the longest common stack."""
    places = frames(error) if error is not None else []
    common = {
        node.name: sum(place in (node.meta.get("stack_trace") or "") for place in places) for node in old.graph.nodes
    }
    most = max(common.values(), default=0)
    return tuple(name for name, count in common.items() if count == most) if most else ()


def _diverging(decision: Decision, large: nn.Module, trial: Trial) -> tuple[str, ...]:
    """What is read by the operators that the large model has at other sizes and not at the example's.

    It is traced again, at these sizes; its operators are aligned with those of the first trace by what they are and
    where the code calls them.
    """
    old = decision.analysis.trace
    try:
        args, kwargs = _same((trial.args, trial.kwargs))
        other = trace(large, args, kwargs, plain=old.plain, open_dims=0)
    except InputError:
        return ()
    before, after = operators(old), operators(other)
    before, after = ([node for node in nodes if isinstance(node.target, OpOverload)] for nodes in (before, after))
    keys = [[(name_of(node), module_of(node), place_of(node)) for node in nodes] for nodes in (before, after)]
    blocks = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    pairs = {after[b + step]: before[a + step] for a, b, size in blocks for step in range(size)}
    inputs = {node.name for node in old.graph.nodes if node.op == "placeholder" and node.name not in old.tensors}
    read = [source for node in after if node not in pairs for source in node.all_input_nodes]
    found = [pairs[source].name if source in pairs else source.name for source in read]
    known = {node.name for node in before} | inputs
    return tuple(
        dict.fromkeys(name for source, name in zip(read, found, strict=True) if source in pairs or name in known)
    )


def _wide(value: Any) -> Any:
    """A copy in float64, which a model that works in place may change."""
    return pytree.tree_map(
        lambda one: (one.double() if one.is_floating_point() else one).clone() if isinstance(one, Tensor) else one,
        value,
    )


def _same(value: Any) -> Any:
    return pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, value)


def first_difference(decision: Decision, small: Trace) -> tuple[str, ...]:
    """The first operator whose surviving entries differ: both traces run on the example, in float64."""
    recorded = [_run(decision.analysis.trace), _run(small)]
    for one, other in zip(operators(decision.analysis.trace), operators(small), strict=False):
        fact = decision.analysis.facts.get(one)
        a, b = recorded[0].get(one), recorded[1].get(other)
        if not isinstance(fact, Fact) or not isinstance(a, Tensor) or not isinstance(b, Tensor):
            continue
        for dim, axis in enumerate(fact.axes):
            if axis is not None:
                a = a.index_select(dim, torch.as_tensor(decision.survivors(axis), device=a.device))
        if difference(a, b) > EXACT:
            return (one.name,)
    return ()


class _Recorder(fx.Interpreter):
    """Keeps what every operator gives."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(fx.GraphModule(dict(trace.held), trace.graph), garbage_collect_values=False)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run and keep; an operator in place changes a copy of what was kept."""
        if isinstance(n.target, OpOverload) and n.target._schema.is_mutable and isinstance(n.args[0], fx.Node):
            self.env[n.args[0]] = self.env[n.args[0]].clone()
        result = super().run_node(n)
        self.found[n] = result
        return result


def _run(trace: Trace) -> dict[fx.Node, Any]:
    leaves = iter(pytree.tree_leaves((trace.args, dict(trace.kwargs))))
    values = []
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            value = trace.tensors.get(node.name)
            value = next(leaves) if value is None else value
            values.append(_wide(value.detach() if isinstance(value, Tensor) else value))
    recorder = _Recorder(trace)
    with torch.no_grad(), quiet():
        try:
            recorder.run(*values)
        except Exception:  # what was recorded until then is what there is
            return recorder.found
    return recorder.found
