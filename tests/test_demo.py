"""`make demo`: a stranger's first minutes, run as they would, with fewer epochs of the network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

ROOT = Path(__file__).parents[1]
MEASURED = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Its folder, and all that a terminal would show."""
    folder = tmp_path_factory.mktemp("first minutes")  # with a blank, which a command line and an address must survive
    (folder / "patients").mkdir()
    (folder / "patients" / "settings.json").write_text("{}")  # as an interrupted run may have left it
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), "--out", str(folder), "--epochs", "4"],
        capture_output=True, text=True, encoding="utf-8", check=False, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_make_demo_is_that_script():
    assert re.search(
        r"^demo: install\n\t\$\(BIN\)/python scripts/demo\.py$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )


def test_few_rows_are_won_by_the_tool_s_own_verdict_and_by_rows_that_chose_nothing(demo):
    folder, out = demo
    path = read(folder / "patients", "path.json")
    assert path["verdict"]["helps"]
    assert path["test"]["verdict"]["helps"]
    assert path["test"]["rows"] == 292
    assert path["test"]["tuned_loss"] < 0.8 * path["test"]["unpenalised_loss"]
    (line,) = re.findall(r"^Penalising helps: .*$", out, re.MULTILINE)
    for verdict in (path["verdict"], path["test"]["verdict"]):
        assert f"falls by {-100 * verdict['change']:.0f} %" in line


def test_its_zeros_are_named_and_its_model_is_a_fraction(demo):
    folder, out = demo
    (left,) = re.findall(r"^\d+ of 64 columns are left: (.*?); \d+ of 65", out, re.MULTILINE)
    left, gone = left.split(", "), read(folder / "patients" / "shrunk", "shrink.json")["not read"]
    products = [f"{a}*{b}" for i, a in enumerate(MEASURED) for b in MEASURED[i:] if a + b != "sexsex"]
    assert sorted(left + gone) == sorted(MEASURED + products)
    assert 1 <= len(left) <= 32
    measured = {part for name in left for part in name.split("*")}
    spared = ", ".join(name for name in MEASURED if name not in measured) or "none"
    assert f"Measurements that need not be taken: {spared}." in out
    assert f"{len(gone)} of 64 columns are not read by the model: {gone[0]!r}" in out
    assert f"{len(left) + 1} of 65 parameters" in out
    assert "the optimum, proved" in out


def test_clean_digits_buy_size(demo):
    folder, out = demo
    path, shrink = read(folder / "digits", "path.json"), read(folder / "digits" / "shrunk", "shrink.json")
    assert not path["verdict"]["helps"]
    before, after = shrink["parameters"]
    assert f"What it buys is size: {after:,} of {before:,} parameters" in out
    assert "No benefit is shown" in out


def test_the_commands_shown_are_the_ones_that_ran_and_the_reports_are_there(demo):
    folder, out = demo
    shown = re.findall(r"^\$ torchshrink (path .*)$", out, re.MULTILINE)
    assert len(shown) == 2
    assert all("--force" in line for line in shown)  # so that all of it can be run again
    addresses = re.findall(r"^  python -m webbrowser (file://\S+)$", out, re.MULTILINE)
    assert [Path(unquote(urlparse(each).path)).resolve() for each in addresses] == [
        (folder / name / "report.html").resolve() for name in ("patients", "digits")
    ]
    assert all(Path(unquote(urlparse(each).path)).stat().st_size > 1000 for each in addresses)
