"""The proof that a shrunk model computes the same: the same operators, and the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchshrink.shrinking.bodies import held_difference
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.plan import Decision
from torchshrink.shrinking.rules import argument_dict, name_of
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import Trace, copy_model, quiet
from torchshrink.shrinking.valid_sizes import disputed, sizes
from torchshrink.support.private_torch import OpOverload, pytree

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
    """

    nodes: tuple[str, ...]
    reason: str


def compare_traces(decision: Decision, small: Trace) -> Mismatch | None:
    """The first difference between what was planned and what the shrunk model does, or None.

    Operators, wiring and literals must be equal; sizes must be those that the plan predicts.
    """
    large = decision.analysis.trace
    pairs = _Pairing(large, small, dict(zip(_inputs(large), _inputs(small), strict=False)))
    before, after = _operators(large), _operators(small)
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


def _operators(trace: Trace) -> list[fx.Node]:
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


def _hint(size: Any) -> int:
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _shapes(value: Any) -> list[list[int]]:
    values = value if isinstance(value, list | tuple) else [value]
    return [[_hint(size) for size in one.shape] for one in values if isinstance(one, Tensor)]


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


def inputs_to_try(trace: Trace, small: Trace, seed: int = 0) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The example; random inputs of its sizes; one row more; one row more of larger images or longer sequences.

    And sizes at which the larger model's code goes the way that was traced, and the smaller one's may not.
    """
    generator = torch.Generator().manual_seed(seed)
    yield trace.args, dict(trace.kwargs)
    leaves, spec = pytree.tree_flatten((trace.args, dict(trace.kwargs)))
    places = _inputs(trace)
    symbolic: list[Any] = [place.meta.get("val") for place in places]
    if len(leaves) != len(symbolic):
        return
    tried = set()
    open_sizes = [size for value in symbolic if isinstance(value, Tensor) for size in sizes(value)]
    symbols = {size.node.expr: int(size.node.hint) for size in open_sizes if isinstance(size, torch.SymInt)}
    given: list[tuple[int, bool, dict[str, int]]] = [(0, False, {}), (1, False, {}), (1, True, {})]
    for rows, larger, fixed in (*given, *((0, False, one) for one in disputed(trace.guards, small.guards, symbols))):
        new = dict(fixed)
        shapes = [
            [
                _another(size, own, dim=dim, rows=rows, larger=larger, new=new)
                for dim, (size, own) in enumerate(zip(sizes(value), leaf.shape, strict=True))
            ]
            for leaf, value in zip(leaves, symbolic, strict=True)
            if isinstance(leaf, Tensor)
        ]
        if str(shapes) in tried:
            continue
        tried.add(str(shapes))
        rest = iter(shapes)
        made = [_random(leaf, next(rest), generator) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        yield pytree.tree_unflatten(made, spec)


def _another(size: Any, own: int, *, dim: int, rows: int, larger: bool, new: dict[str, int]) -> int:
    if not isinstance(size, torch.SymInt):
        return own
    # of large images not twice the size, which takes four times as long, but what strides of 32 divide
    return new.setdefault(str(size.node.expr), own + rows if dim == 0 else own + larger * min(own, 32))


def _random(leaf: Tensor, shape: list[int], generator: torch.Generator) -> Tensor:
    """Of the example's kind: normal numbers of its spread, or draws from its own entries."""
    if leaf.is_floating_point():
        return (torch.randn(shape, generator=generator) * 2).to(leaf)
    flat = leaf.reshape(-1)
    return flat[torch.randint(len(flat), shape, generator=generator).to(leaf.device)]


def outputs_difference(
    large: nn.Module, small: nn.Module, decision: Decision, *, new: Trace
) -> tuple[float, float, int]:
    """The largest difference of the outputs in float64, relative to the largest output, the bound, and trials done.

    The plan is applied to a float64 copy, so that rounding of the biases to the model's dtype does not hide an error.
    """
    wide_large = copy_model(large).double().eval()
    wide = [wide_large, apply(wide_large, decision.plan)]
    worst, bound, done = 0.0, 1e-10, 0
    small_of = decision.inputs_of_small
    for args, kwargs in inputs_to_try(decision.analysis.trace, new):
        with torch.no_grad(), quiet():
            try:
                first = wide[0](*_wide(args), **_wide(kwargs))
                models, cast = wide, _wide
            except Exception:  # code that asks for float32 by name
                bound, models, cast = 1e-4, [copy_model(large).eval(), copy_model(small).eval()], _same
                try:
                    first = models[0](*_same(args), **_same(kwargs))
                except Exception:  # these sizes are not the model's
                    continue
            second = models[1](*small_of(cast(args)), **small_of(cast(kwargs)))
        done += 1
        for a, b in zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True):
            if isinstance(a, Tensor):
                if a.dtype in (torch.float32, torch.float16, torch.bfloat16):
                    bound = max(bound, 1e-4)
                worst = max(worst, _difference(a, b))
    return worst, bound, done


def rounding(large: nn.Module, small: nn.Module, decision: Decision) -> Mismatch | None:
    """Whether the models as they are, in their own dtype, differ on the example by more than rounding does."""
    with torch.no_grad(), quiet():
        old = decision.analysis.trace
        args, kwargs = _same((old.args, dict(old.kwargs)))
        fewer, other = _same(decision.inputs_of_small((old.args, dict(old.kwargs))))
        both = [pytree.tree_leaves(large(*args, **kwargs)), pytree.tree_leaves(small(*fewer, **other))]
    kinds = [p.dtype for p in large.parameters() if p.is_floating_point()]
    bound = max([torch.finfo(kind).eps for kind in kinds], default=2e-16) ** 0.5
    for a, b in zip(*both, strict=True):
        if isinstance(a, Tensor) and a.is_floating_point() and not _difference(a, b) <= bound:
            return Mismatch((), f"the outputs differ by {_difference(a, b):.1e} in {a.dtype}")
    return None


def _wide(value: Any) -> Any:
    """A copy in float64, which a model that works in place may change."""
    return pytree.tree_map(
        lambda one: (one.double() if one.is_floating_point() else one).clone() if isinstance(one, Tensor) else one,
        value,
    )


def _same(value: Any) -> Any:
    return pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, value)


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.numel():
        return 0.0
    if a.is_complex():
        a, b = torch.view_as_real(a.detach().resolve_conj()), torch.view_as_real(b.detach().resolve_conj())
    a, b = a.detach().double(), b.detach().double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
    return float((a - b).abs().max() / max(1.0, float(a.abs().max())))


def first_difference(decision: Decision, small: Trace) -> tuple[str, ...]:
    """The first operator whose surviving entries differ: both traces run on the example, in float64."""
    recorded = [_run(decision.analysis.trace), _run(small)]
    for one, other in zip(_operators(decision.analysis.trace), _operators(small), strict=False):
        fact = decision.analysis.facts.get(one)
        a, b = recorded[0].get(one), recorded[1].get(other)
        if not isinstance(fact, Fact) or not isinstance(a, Tensor) or not isinstance(b, Tensor):
            continue
        for dim, axis in enumerate(fact.axes):
            if axis is not None:
                a = a.index_select(dim, torch.as_tensor(decision.survivors(axis), device=a.device))
        if _difference(a, b) > 1e-10:
            return (one.name,)
    return ()


class _Recorder(fx.Interpreter):
    """Keeps what every operator gives."""

    def __init__(self, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(nn.Module(), graph), garbage_collect_values=False)
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
    recorder = _Recorder(trace.graph)
    with torch.no_grad(), quiet():
        try:
            recorder.run(*values)
        except Exception:  # what was recorded until then is what there is
            return recorder.found
    return recorder.found
