"""For which inputs a shrunk model was proved: what is fixed, left out, or asked of sizes that could not be tried."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from torchshrink.shrinking.analysis import Analysis
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.trace import Trace
from torchshrink.shrinking.valid_sizes import sizes
from torchshrink.support.private_torch import pytree

_SHOWN = 6  # arguments that are named
_NAMES = {"==": "=", "!=": "≠", "<=": "≤", ">=": "≥", "<": "<", ">": ">"}


def fixed_dims(analysis: Analysis) -> list[tuple[int, int]]:
    """The (tensor, dimension) of the inputs whose size the trace fixed, but for widths that a weight reads."""
    own = {node for node in analysis.facts if node.name in analysis.trace.tensors}
    read = {
        int(root)
        for node in own
        if isinstance(analysis.facts[node], Fact)
        for axis in analysis.facts[node].axes
        if axis is not None
        for root in analysis.units.roots(axis)
    }
    read |= {int(root) for reading in analysis.readings for root in analysis.units.roots(reading.columns)}
    found = []
    places = [node for node in analysis.trace.graph.nodes if node.name in analysis.trace.inputs]
    tensors = [node for node in places if isinstance(node.meta.get("val"), Tensor)]
    for place, node in enumerate(tensors):
        fact = analysis.facts.get(node)
        for dim, size in enumerate(sizes(node.meta["val"])):
            axis = fact.axes[dim] if isinstance(fact, Fact) else None
            weighed = axis is not None and any(int(root) in read for root in analysis.units.roots(axis))
            if isinstance(size, int) and not weighed:
                found.append((place, dim))
    return found


def fixed_sizes(analysis: Analysis) -> Iterator[str]:
    """The same in words."""
    places = [node for node in analysis.trace.graph.nodes if node.name in analysis.trace.inputs]
    tensors = [node for node in places if isinstance(node.meta.get("val"), Tensor)]
    for place, dim in fixed_dims(analysis):
        yield f"{tensors[place].name}.shape[{dim}] = {sizes(tensors[place].meta['val'])[dim]}"


def constant_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[str]:
    """The arguments that are no tensors, or are left out: what the model does with others was not looked at."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return
    given = dict(bound.arguments)
    bound.apply_defaults()
    found = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        many = kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        leaves = pytree.tree_leaves(given.get(name, () if many else value))
        if any(not isinstance(leaf, Tensor) for leaf in leaves):
            text = str(pytree.tree_map(lambda leaf: "tensor" if isinstance(leaf, Tensor) else leaf, value))
            found.append(f"{name} = {text if len(text) < 40 else text[:37] + '…'}")
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN} more arguments as by default or in the example"


def in_words(condition: Any, trace: Trace) -> str:
    """A condition on sizes, with the inputs' names for its symbols."""
    names: dict[str, str] = {}
    for node in trace.graph.nodes:
        if node.name in trace.inputs and isinstance(node.meta.get("val"), Tensor):
            for dim, size in enumerate(sizes(node.meta["val"])):
                if not isinstance(size, int) and size.node.expr.is_Symbol:
                    names.setdefault(str(size.node.expr), f"{node.name}.shape[{dim}]")
    sign = getattr(condition, "rel_op", "")
    text = f"{condition.lhs} {_NAMES.get(sign, sign)} {condition.rhs}" if sign else str(condition)
    text = re.sub(r"\b(?:Python)?Mod\(([^(),]+), (\w+)\)", r"(\1) % \2", text)
    return re.sub(r"\bs\d+\b", lambda match: names.get(match[0], match[0]), text)
