"""On which inputs a smaller model is compared with the larger one: of other sizes too, also where its code branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any

import torch
from torch import Tensor

from torchshrink.shrinking.analysis import Analysis
from torchshrink.shrinking.limits import fixed_dims
from torchshrink.shrinking.trace import Trace
from torchshrink.shrinking.valid_sizes import disputed, met, sizes
from torchshrink.support.private_torch import pytree

Shapes = tuple[tuple[int, ...], ...]
_EACH, _ALL = 3, 24  # how many sizes that violate one condition, or any, are tried
_NUMBERS = 2**20  # or four times the example's: inputs that are larger than both are not tried


@dataclass(frozen=True)
class Trial:
    """Arguments of a call.

    Args:
        args: as the larger model takes them.
        kwargs: its keyword arguments.
        shapes: of the tensors among them.
        wild: drawn without regard to the range of the example's numbers.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: Shapes
    wild: bool = False


def trials(analysis: Analysis, small: Trace, seed: int = 0) -> Iterator[Trial]:
    """The example, random inputs of its sizes, and random inputs of other sizes.

    These are: one row more; longer sequences or larger images; odd and ragged ones; each open size at 1; sizes that
    belong together, apart; those that the trace fixed, one larger; those at which a condition of the trace does not
    hold; and those at which the smaller model's conditions do not hold, while the larger one's do.
    """
    trace = analysis.trace
    leaves, spec = pytree.tree_flatten((trace.args, dict(trace.kwargs)))
    space = Space.of(trace)
    yield Trial(trace.args, dict(trace.kwargs), space.own)
    if any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in leaves):
        return  # sparse: which entries may be there is not known
    generator = torch.Generator().manual_seed(seed)
    most = max(_NUMBERS, 4 * _numbers(space.own))
    tried = set[tuple[Shapes, bool]]()
    tame = any(isinstance(leaf, Tensor) and _range(leaf)[0] >= 0 for leaf in leaves)
    drawn = [(space.own, True), *([(space.own, False)] if tame else [])]
    for shapes, wild in (*drawn, *((each, False) for each in _others(analysis, small, space))):
        if (shapes, wild) in tried or _numbers(shapes) > most:
            continue
        tried.add((shapes, wild))
        rest = iter(shapes)
        made = [
            _random(leaf, next(rest), generator, wild=wild) if isinstance(leaf, Tensor) else leaf for leaf in leaves
        ]
        args, kwargs = pytree.tree_unflatten(made, spec)
        yield Trial(args, kwargs, shapes, wild)


def _numbers(shapes: Shapes) -> int:
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


@dataclass(frozen=True)
class Space:
    """Which sizes of the inputs are open, and how they hang together.

    Args:
        own: the example's shapes.
        exprs: by (tensor, dimension), the size as an expression of symbols.
        hints: the example's size by symbol.
        conditions: of the trace, in these symbols.
    """

    own: Shapes
    exprs: Mapping[tuple[int, int], Any]
    hints: Mapping[Any, int]
    conditions: tuple[Any, ...]

    @classmethod
    def of(cls, trace: Trace) -> Space:
        """Of a trace."""
        tensors = [leaf for leaf in pytree.tree_leaves((trace.args, dict(trace.kwargs))) if isinstance(leaf, Tensor)]
        own = tuple(tuple(leaf.shape) for leaf in tensors)
        exprs = {}
        for place, value in enumerate(input_values(trace)):
            for dim, size in enumerate(sizes(value)):
                if isinstance(size, torch.SymInt):
                    exprs[place, dim] = size.node.expr
        hints = {expr: own[place][dim] for (place, dim), expr in exprs.items() if expr.is_Symbol}
        known = tuple(one for one in trace.guards if one.free_symbols and one.free_symbols <= hints.keys())
        return cls(own, exprs, hints, known)

    def at(self, values: Mapping[Any, int]) -> Shapes:
        """The shapes with other sizes for some symbols."""
        known = {**self.hints, **values}
        found = [list(shape) for shape in self.own]
        for (place, dim), expr in self.exprs.items():
            if expr.free_symbols <= known.keys():
                found[place][dim] = max(0, int(expr.subs(known)))
        return tuple(map(tuple, found))

    def alone(self, place: int, dim: int, size: int) -> Shapes:
        """The shapes with one size changed, and none that belongs to it."""
        found = [list(shape) for shape in self.own]
        found[place][dim] = size
        return tuple(map(tuple, found))

    def holds(self, condition: Any, shapes: Shapes) -> bool:
        """Whether a condition does at these shapes."""
        values = {expr: shapes[place][dim] for (place, dim), expr in self.exprs.items() if expr.is_Symbol}
        return met(condition, values)

    def breakable(self, condition: Any) -> bool:
        """Whether some sizes violate a condition: torch.export states many that always hold."""
        far = [2**power + 1 for power in range(5, 31)]
        near = range(1, 4097 if len(condition.free_symbols) == 1 else 25)
        grid = product((*near, *far), repeat=min(2, len(condition.free_symbols)))
        symbols = sorted(condition.free_symbols, key=str)
        return any(not met(condition, {**self.hints, **dict(zip(symbols, each, strict=False))}) for each in grid)

    def following(self, symbol: Any, size: int) -> int:
        """The first number from ``size`` on at which all conditions hold, or that itself."""
        own = [one for one in self.conditions if symbol in one.free_symbols]
        for number in range(size, size + 65):
            if all(met(one, {**self.hints, symbol: number}) for one in own):
                return number
        return size


def input_values(trace: Trace) -> list[Tensor]:
    """What the trace knows of the tensors among the model's arguments, in their order."""
    found = [
        node.meta.get("val") for node in trace.graph.nodes if node.op == "placeholder" and node.name in trace.inputs
    ]
    return [value for value in found if isinstance(value, Tensor)]


def _others(analysis: Analysis, small: Trace, space: Space) -> Iterator[Shapes]:
    rows = {expr for (_, dim), expr in space.exprs.items() if dim == 0}
    more = {symbol: space.following(symbol, size + 1) for symbol, size in space.hints.items() if symbol in rows}
    yield space.at(more)
    # of large images not twice the size, which takes four times as long, but what strides of 32 divide
    larger = {s: space.following(s, size + min(size, 32)) for s, size in space.hints.items() if s not in rows}
    yield space.at(larger)
    yield space.at({s: size + 1 + 2 * place for place, (s, size) in enumerate(space.hints.items()) if s not in rows})
    steps = {
        s: size if size < 32 else -size // 2 for s, size in space.hints.items() if s not in rows
    }  # smaller is faster
    yield space.at({s: space.hints[s] + 1 + step // (1 + place % 2) for place, (s, step) in enumerate(steps.items())})
    for symbol in space.hints:
        yield space.at({symbol: 1})
    counts = list(space.exprs.values())
    for (place, dim), expr in space.exprs.items():
        if not expr.is_Symbol or counts.count(expr) > 1:
            size = space.own[place][dim]
            yield space.alone(place, dim, size + 1)
            yield space.alone(place, dim, size + min(size, 32))
    for place, dim in fixed_dims(analysis):
        yield space.alone(place, dim, space.own[place][dim] + 1)
    yield from _violating(space)
    for values in disputed(space.conditions, small.guards, dict(space.hints)):
        yield space.at({symbol: values[str(symbol)] for symbol in space.hints if str(symbol) in values})


def _violating(space: Space) -> Iterator[Shapes]:
    """Sizes at which one condition does not hold and the others do, if there are such, nearest to the example's.

    First one for each condition and each of its symbols, then the second and the third.
    """
    found = []
    for condition in space.conditions:
        symbols = sorted(condition.free_symbols, key=str)
        choices = [[{symbol: number} for number in _candidates(space.hints[symbol])] for symbol in symbols]
        if len(symbols) > 1:
            first, second = (_candidates(space.hints[symbol])[:40] for symbol in symbols[:2])
            choices.append([dict(zip(symbols, pair, strict=False)) for pair in product(first, second)])
        found += [_violations(space, condition, values) for values in choices]
    ordered = [space.at(values) for each in zip_longest(*found) for values in each if values is not None]
    yield from list(dict.fromkeys(ordered))[:_ALL]


def _violations(space: Space, condition: Any, choices: list[dict[Any, int]]) -> list[dict[Any, int]]:
    """Those of the choices, which are nearest first, at which a condition does not hold."""
    found = []
    for values in choices:
        sizes = {**space.hints, **values}
        if not met(condition, sizes):
            found.append((sum(not met(one, sizes) for one in space.conditions if one is not condition), values))
            if len(found) == 3 * _EACH:
                break
    found.sort(key=lambda pair: pair[0])
    return [values for _, values in found[:_EACH]]


def _candidates(hint: int) -> list[int]:
    near = {*range(1, 18), *range(max(1, hint - 16), hint + 17), *(2**power + 1 for power in range(5, 17))} - {hint}
    return sorted(near, key=lambda number: abs(number - hint))


def _range(leaf: Tensor) -> tuple[float, float]:
    if not leaf.is_floating_point() or not leaf.numel():
        return -1.0, 1.0
    return float(leaf.min()), float(leaf.max())


def _random(leaf: Tensor, shape: Sequence[int], generator: torch.Generator, *, wild: bool) -> Tensor:
    """Of the example's kind: normal numbers, positive or between 0 and 1 where its are; or draws from its entries."""
    if leaf.is_floating_point():
        low, high = (-1.0, 1.0) if wild else _range(leaf)
        if low >= 0 and 0 < high <= 1:
            return torch.rand(list(shape), generator=generator).to(leaf)
        made = torch.randn(list(shape), generator=generator) * 2
        return (made.abs() if low >= 0 and high > 0 else made).to(leaf)
    flat = leaf.reshape(-1)
    if not len(flat):
        return leaf.new_zeros(list(shape))
    return flat[torch.randint(len(flat), list(shape), generator=generator).to(leaf.device)]
