"""The summary of a regularizer as a table of plain text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torchshrink.penalties import Penalty
from torchshrink.regularizer.selection import Choice
from torchshrink.regularizer.sparsity import Sparsity

_HEADER = ("parameter", "shape", "rule", "penalty", "method", "groups", "zeros")


def render(
    choices: Sequence[Choice],
    sparsity: Sparsity,
    *,
    methods: Mapping[str, str],
    scaled: Callable[[Penalty], Penalty],
    outside: Sequence[str] = (),
    acted: Mapping[str, str] | None = None,
) -> str:
    """The table: one line per penalised parameter, then what is exempt and why, then the totals.

    Args:
        choices: what was decided for each parameter.
        sparsity: the zeros of the penalised ones.
        methods: how each term acts, by parameter name; where it is not attached "loss", or nothing for a constraint.
        scaled: a penalty with the scale in force.
        outside: the names of parameters that lie outside of their constraints now.
        acted: how each term has acted, where it is detached.
    """
    zeros = {p.name: p for p in sparsity.by_parameter}
    before = {name: f"detached; was {method}" for name, method in (acted or {}).items()}
    rows = [_HEADER]
    exempt: list[tuple[str, ...]] = []
    for choice in choices:
        name = " = ".join((choice.name, *choice.aliases))
        shape = "×".join(map(str, choice.parameter.shape)) or "scalar"
        if choice.penalty is None:
            exempt.append((name, shape, choice.reason))
            continue
        count = zeros[choice.name]
        rows.append(
            (
                name,
                shape,
                choice.rule,
                str(scaled(choice.penalty)),
                methods.get(choice.name)
                or before.get(choice.name, "none yet: attach" if choice.penalty.constraint else "loss"),
                "" if count.groups is None else f"{count.groups_zero:,}/{count.groups:,} zero",
                f"{count.zeros:,}/{count.total:,}",
            )
        )
    blocks = [_aligned(rows, rule_below_first=True)] if len(rows) > 1 else ["nothing is penalised"]
    if exempt:
        blocks.append("exempt:\n" + _aligned(exempt, indent="  "))
    if outside:
        attached = all(name in methods for name in outside)
        step = "the optimizer's next step" if attached else "the first step of an optimizer that this is attached to"
        blocks.append(f"outside of its constraint until {step} projects it: {', '.join(outside)}")
    blocks.append(str(sparsity))
    return "\n\n".join(blocks)


def _aligned(rows: Sequence[tuple[str, ...]], *, indent: str = "", rule_below_first: bool = False) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if rule_below_first:
        lines.insert(1, indent + "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
