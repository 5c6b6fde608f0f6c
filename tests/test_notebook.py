"""The tutorial runs from its first cell to its last, and what it prints is what its text says."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOK = FOLDER / "tutorial.ipynb"

_spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


@pytest.fixture
def kept():
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


def found(pattern, text):
    """The numbers in the one place where ``pattern`` matches."""
    (groups,) = re.findall(pattern, text, flags=re.MULTILINE)
    return [float(each.replace(",", "")) for each in ([groups] if isinstance(groups, str) else groups)]


def test_it_runs_and_shows_what_its_text_says(kept):
    """One test, since workers share no fixtures and the notebook should run once."""
    ran = execute.execute(kept)
    text = execute.text_of(ran)

    # The loops: the tutorial's line for every epoch.
    lines = re.findall(r"^Train Loss: \d+\.\d{3} \| Accuracy: \d+\.\d{3}$", text, flags=re.MULTILINE)
    assert len(lines) == 3 * 40

    # Overfitted on purpose; every penalty keeps most wrong labels out and lowers the test loss.
    describe = r"^{} +training loss ([\d.]+), .* (\d+) of \d+ wrong labels learnt \| test loss ([\d.]+)"
    train, learnt, test = found(describe.format("no penalty"), text)
    assert train < 0.15
    assert learnt > 20
    for name in ("L1 by hand", "L2 by hand", "L1 attached", "tuned"):
        _, kept_out, better = found(describe.format(name), text)
        assert kept_out < 0.5 * learnt, name
        assert better < test - 0.2, name
    assert found(describe.format("strength 0"), text)[2] > test - 0.2

    # One objective, many ways: equal to the last digits.
    for way in (
        r"L1, value\(\) against the loop",
        r"L2, value\(\) against the loop",
        "L2, attached against the loop",
        "weight_decay = 2λ against the L2 loop",
        "Adam,  weight_decay = 2λ against the L2 loop",
    ):
        assert found(rf"^{way} by hand: (.*)$", text)[0] <= 1e-10, way
    assert found(r"^AdamW, weight_decay = 2λ against the L2 loop by hand: (.*)$", text)[0] > 0.01

    # Zeros.
    assert found(r"^L1 by hand +exact zeros: ([\d,]+) of", text) == [0]
    assert found(r"^L1 attached +exact zeros: ([\d,]+) of", text)[0] > 5000

    # The strength asked for, and another.
    assert found(r"^attached: distance ([^,]+),", text)[0] < 1e-4
    assert found(r"^threshold lr·λ: distance ([^,]+),", text)[0] > 1e-2

    # Tuned, and saved.
    assert "verdict: penalising helps" in text
    assert found(r"^largest difference of a weight after loading: (.*)$", text) == [0]

    # What is kept is what is printed now, digits apart: another machine rounds otherwise.
    assert words(text) == words(execute.text_of(kept)), "run notebooks/execute.py"


def words(text):
    """The text without its numbers, and without the blanks and rules whose lengths follow from them."""
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?|─+", "", text).split()


def test_the_first_code_cell_installs_and_is_tagged_so(kept):
    first = next(cell for cell in kept.cells if cell.cell_type == "code")
    assert execute.INSTALL in first.metadata["tags"]
    assert "%pip install" in first.source


def test_what_is_kept_is_fit_to_be_read(kept):
    """Outputs and pictures are there, of a run without errors, and say nothing of the machine that made them."""
    outputs = [output for cell in kept.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert not re.search(r"/(home|root|work|tmp|usr|Users)/|site-packages|it/s|Warning", execute.text_of(kept))
    assert NOTEBOOK.stat().st_size < 500_000
