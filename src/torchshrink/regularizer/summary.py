"""The summary of a regularizer: a table of plain text, which a notebook shows as a table of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torchshrink.penalties import Penalty
from torchshrink.regularizer.selection import Choice
from torchshrink.regularizer.sparsity import Sparsity
from torchshrink.support.tables import Column, Table, html_of_pairs
from torchshrink.support.text import shortened

_COLUMNS = (
    Column("parameter", left=True),
    Column("shape", left=True, rank=1),
    Column("rule", left=True, rank=5),
    Column("penalty", left=True),
    Column("method", left=True, rank=3),
    Column("groups", left=True, rank=4),
    Column("zeros", left=True, rank=2),
)


class Summary(str):
    """The text of a summary; a notebook shows it as tables.

    It is a ``str``, as its users compare, search and write it; the tables that it was made from go with it.
    """

    terms: Table
    exempt: Table
    remarks: Sequence[str]

    @classmethod
    def of(cls, terms: Table, exempt: Table, remarks: Sequence[str]) -> Summary:
        """The text of these.

        Args:
            terms: one row per penalised parameter.
            exempt: one row per parameter that nothing acts on, with the reason.
            remarks: what is said below, a sentence each.
        """
        made = cls(_text(terms, exempt, remarks))
        made.terms, made.exempt, made.remarks = terms, exempt, remarks
        return made

    def fitted(self, width: int) -> str:
        """The text with columns left out, where lines would be longer than ``width``."""
        return _text(self.terms, self.exempt, self.remarks, width)

    def __repr__(self) -> str:
        counts = f"{len(self.terms.rows)} parameters penalised, {len(self.exempt.rows)} exempt"
        return f"<Summary: {counts}; {shortened(self.remarks[-1], 100)}; print it for the table>"

    def _repr_html_(self) -> str:
        tables = [
            table.html(name) for name, table in (("penalised", self.terms), ("exempt", self.exempt)) if table.rows
        ]
        return f"<div>{''.join(tables)}{html_of_pairs([('', remark) for remark in self.remarks])}</div>"


def _text(terms: Table, exempt: Table, remarks: Sequence[str], width: int | None = None) -> str:
    blocks = ["\n".join(terms.lines(width)) if terms.rows else "nothing is penalised"]
    if exempt.rows:
        bare = replace(exempt, columns=[Column("", left=True)] * len(exempt.columns))  # in text it has no heads
        lines = bare.lines(None if width is None else width - 2)[1:]
        blocks.append("\n".join(["exempt:", *(f"  {line}" for line in lines)]))
    return "\n\n".join([*blocks, *remarks])


def render(
    choices: Sequence[Choice],
    sparsity: Sparsity,
    *,
    methods: Mapping[str, str],
    scaled: Callable[[Penalty], Penalty],
    outside: Sequence[str] = (),
    acted: Mapping[str, str] | None = None,
) -> Summary:
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
    rows: list[tuple[str, ...]] = []
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
    return Summary.of(
        Table(_COLUMNS, rows, ruled=True),
        Table([Column("parameter", left=True), Column("shape", left=True), Column("why", left=True)], exempt),
        [*_outside(outside, methods), str(sparsity)],
    )


def _outside(outside: Sequence[str], methods: Mapping[str, str]) -> list[str]:
    if not outside:
        return []
    attached = all(name in methods for name in outside)
    step = "the optimizer's next step" if attached else "the first step of an optimizer that this is attached to"
    return [f"outside of its constraint until {step} projects it: {', '.join(outside)}"]
