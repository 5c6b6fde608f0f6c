"""Einstein sums."""

from __future__ import annotations

from torchshrink.shrinking.channels import Axis, Fact, unknown
from torchshrink.shrinking.rules.contractions import contraction
from torchshrink.shrinking.rules.registry import NotUnderstoodError, Operation, shrink_rule


@shrink_rule("aten.einsum")
def einsum(op: Operation) -> Fact:
    """Two tensors, of which one may be a known matrix that reads; else what is summed over stays."""
    equation, nodes = op.arguments["equation"].replace(" ", ""), op.arguments["tensors"]
    terms, arrow, result = equation.partition("->")
    names = terms.split(",")
    if not arrow or "." in equation or len(nodes) != 2 or any(len(set(name)) < len(name) for name in names):
        raise NotUnderstoodError("it is not an equation of two tensors, written out")
    facts = dict(zip(names, (op.facts[node] for node in nodes), strict=True)) if len(set(names)) == 2 else {}
    summed = [letter for letter in dict.fromkeys("".join(names)) if letter not in result]
    for (one, x), (two, w) in ((a, b) for a in facts.items() for b in facts.items() if a[0] != b[0]):
        if w.static is not None and x.static is None and len(two) == 2 and len(summed) == 1 and summed[0] in two:
            (column,) = summed
            row = two.replace(column, "")
            if column in one and row not in one:
                return _einsum_read(op, (one, x), (two, row, column), result)
    known: dict[str, Axis] = {}
    for name, node in zip(names, nodes, strict=True):
        fact = op.facts[node]
        for letter, axis in zip(name, fact.axes, strict=True):
            if axis is not None and letter in known:
                op.unite(known[letter], axis)
            if axis is not None:
                known.setdefault(letter, axis)
                if letter in summed or len(axis) == 1:
                    op.units.pin(axis, op.why)
    axes = tuple(known.get(letter) for letter in result)
    return Fact(axes, tuple(None if axis is None else unknown(len(axis)) for axis in axes))


def _einsum_read(op: Operation, read: tuple[str, Fact], weight: tuple[str, str, str], result: str) -> Fact:
    one, x = read
    two, row, column = weight
    dims = ("weight", two.index(row), two.index(column))
    rows, numbers = contraction(op, x, one.index(column), weight=dims, bias=None, everywhere=True)
    known = dict(zip(one, x.axes, strict=True)) | {row: rows}
    axes = tuple(known[letter] for letter in result)
    values = [None if axis is None else unknown(len(axis)) for axis in axes]
    values[result.index(row)] = numbers
    return Fact(axes, tuple(values))
