"""docs/penalties.md lists every penalty, and says of each what its class says."""

import inspect
import re
from pathlib import Path

import pytest

from torchshrink.penalties import BUILTIN

PAGE = Path(__file__).parents[2] / "docs" / "penalties.md"
STEPS = {"coordinate": "each coordinate's step", "scalar": "one step", "none": "no prox"}


def rows(heading):
    """The rows of the table with this heading, by the penalty's name."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return found
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        found[cells[0].strip("`")] = cells
    return found


TABLE = rows("| name | class |")


def test_both_tables_list_every_penalty_in_order():
    assert list(TABLE) == list(BUILTIN)
    assert list(rows("| name | prox")) == list(BUILTIN)


@pytest.mark.parametrize("name", BUILTIN)
def test_a_row_says_what_its_class_says(name):
    penalty = BUILTIN[name]
    _, signature, _, method, steps, _ = TABLE[name]
    parameters = inspect.signature(penalty).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters if p.default is not None]
    assert signature == f"`{penalty.__name__}({', '.join(shown)})`"
    assert method == ("gradient" if penalty.smooth else "prox")
    assert steps == STEPS[penalty.prox_steps]
