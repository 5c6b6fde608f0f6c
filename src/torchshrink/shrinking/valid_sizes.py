"""For which input sizes a trace holds: what ``torch.export`` found the model's code to ask of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "Add": sum,
    "Mul": math.prod,
    "Max": max,
    "Min": min,
    "And": all,
    "Or": any,
    "Not": lambda args: not args[0],
    **dict.fromkeys(("FloorDiv", "CleanDiv"), lambda args: args[0] // args[1]),
    **dict.fromkeys(("Mod", "PythonMod"), lambda args: args[0] % args[1]),
    "==": lambda args: args[0] == args[1],
    "!=": lambda args: args[0] != args[1],
    "<": lambda args: args[0] < args[1],
    "<=": lambda args: args[0] <= args[1],
    ">": lambda args: args[0] > args[1],
    ">=": lambda args: args[0] >= args[1],
}
_MOST = 2**31  # no bound


def sizes(tensor: Tensor) -> tuple[Any, ...]:
    """A traced tensor's shape: an int where the size is fixed, a symbol where it depends on the input."""
    found = []
    size: Any
    for size in tensor.shape:
        fixed = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else size
        found.append(size if fixed is None else fixed)
    return tuple(found)


def guards(program: Any) -> tuple[Any, ...]:
    """The conditions on symbols of input sizes under which the model's code went this way."""
    for node in program.graph_module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            for size in node.meta["val"].shape:
                if isinstance(size, torch.SymInt):
                    env = size.node.shape_env
                    found = [env.replace(guard.expr) for guard in env.guards]
                    parts = [part for one in found for part in (one.args if str(one.func) == "And" else (one,))]
                    return tuple(dict.fromkeys(part for part in parts if part.free_symbols))
    return ()


def ranges(program: Any, conditions: Sequence[Any]) -> Iterator[str]:
    """The sizes that are bounded, in words."""
    for node in program.graph_module.graph.nodes:
        if node.op != "placeholder" or not isinstance(node.meta.get("val"), Tensor):
            continue
        for dim, size in enumerate(sizes(node.meta["val"])):
            if isinstance(size, torch.SymInt):
                span = program.range_constraints.get(size.node.expr)
                ends = [int(end) if str(end).isdigit() else None for end in (span.lower, span.upper)] if span else []
                low, high = ends or (None, None)
                own = [bounds(one, size) for one in conditions if one.free_symbols == {size.node.expr}]
                low, high = max([low or 0, *(one for one, _ in own)]), min([high or 2**31, *(two for _, two in own)])
                if low > 2:
                    yield f"{node.name}.shape[{dim}] ≥ {low}"
                if high < 2**31:
                    yield f"{node.name}.shape[{dim}] ≤ {high}"


def met(condition: Any, values: Mapping[Any, int]) -> bool:
    """Whether a condition holds at these sizes; one that they do not decide, as one divides by zero there, does."""
    try:
        return bool(_value(condition, values))
    except KeyError:  # a function that is not among those below
        try:
            return bool(condition.subs(values))
        except (ArithmeticError, TypeError, ValueError):
            return True
    except ArithmeticError:
        return True


def _value(expr: Any, values: Mapping[Any, int]) -> Any:
    """An expression's number: `subs` takes fifty times as long."""
    if expr.is_Symbol:
        return values[expr]
    if not expr.args:
        return int(expr) if expr.is_Integer else {"True": True, "False": False}[str(expr)]
    compute = _FUNCTIONS[getattr(expr, "rel_op", "") or expr.func.__name__]
    return compute([_value(arg, values) for arg in expr.args])


def bounds(condition: Any, size: Any) -> tuple[int, int]:
    """From which size to which an inequality of one symbol holds around the example's, where it has such ends."""
    if getattr(condition, "rel_op", "") not in ("<", "<=", ">", ">="):
        return 0, 2**31
    symbol, hint = size.node.expr, int(size.node.hint)

    def holds(number: int) -> bool:
        return met(condition, {symbol: number})

    low = 0 if holds(2) else _first(holds, 2, hint)
    high = 2**31 if holds(_MOST) else _first(lambda number: not holds(number), hint, _MOST) - 1
    return low, high


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number above ``low`` at which something holds that does at ``high``, and not at ``low``."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def disputed(conditions: Sequence[Any], others: Sequence[Any], symbols: dict[Any, int]) -> list[dict[str, int]]:
    """Sizes at which one model's conditions hold and another's do not: there the two may go different ways.

    Args:
        conditions: of the one.
        others: of the other.
        symbols: the example's sizes by symbol; one of them is changed at a time.
    """
    known = [[one for one in some if one.free_symbols <= symbols.keys()] for some in (conditions, others)]
    mine, theirs = ([one for one in known[place] if one not in known[1 - place]] for place in (0, 1))
    found = []
    for symbol, hint in symbols.items() if theirs else ():
        rest = {key: value for key, value in symbols.items() if key != symbol}
        numbers = [
            number
            for number in (*range(2, 65), *(2**power for power in range(7, 12)), *range(hint, hint + 9))
            if all(met(one, {**rest, symbol: number}) for one in mine)
            and not all(met(one, {**rest, symbol: number}) for one in theirs)
        ]
        found += [{str(symbol): number} for number in dict.fromkeys((*numbers[:1], *numbers[-1:]))]
    return found


def hint_of(size: Any) -> int:
    """The number that a size had when it was traced."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)
