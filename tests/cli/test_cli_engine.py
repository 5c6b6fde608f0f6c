"""``path --engine``: what it takes, says and resumes."""

import json
from pathlib import Path

import pytest

from torchshrink import load_path

BASE = (
    "path", "small.csv", "--target", "kind", "--hidden", "4", "--epochs", "3", "--batch-size", "20", "--folds", "3",
    "--repeats", "1", "--strengths", "1e-3,0.03,1", "--lr", "0.02",
)  # fmt: skip


def test_lanes(run, small_csv):
    ran = run(*BASE, "--engine", "lanes", "--lanes", "5", "--out", "out")
    assert ran.status == 0, ran.err
    assert "l1: up to 5 lanes at once: as asked" in ran.err
    assert json.loads(Path("out/settings.json").read_text())["engine"] == {
        "name": "lanes", "lanes": 5, "compile": None, "workers": 0,
    }  # fmt: skip
    again = run(*BASE, "--engine", "lanes", "--lanes", "5", "--quiet", "--out", "again")
    assert (again.status, again.err) == (0, "")
    for name in ("path.json", "losses.safetensors", "model.safetensors"):
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()
    other = run(*BASE, "--engine", "sequential", "--resume", "--out", "out")
    assert other.status == 2
    assert "engine" in other.err


@pytest.mark.filterwarnings("default::torchshrink.errors.LanesWarning")
def test_compiling_that_does_nothing_says_so_even_when_quiet(run, small_csv):
    ran = run(*BASE, "--compile", "--quiet", "--out", "out")
    assert ran.status == 0
    assert ran.err == (
        "warning: l1: one training after another: too little work for a stack to pay; "
        "compile=True does nothing, since only stacks of lanes are compiled\n"
    )


def test_a_warm_path(run, small_csv):
    ran = run(*BASE, "--order", "warm", "--out", "out")
    assert ran.status == 0, ran.err
    assert json.loads(Path("out/settings.json").read_text())["order"] == "warm"
    result = load_path("out")
    assert result.settings["order"] == "warm"
    assert "warm starts" in ran.out
    printed = run(*BASE, "--order", "warm", "--resume", "--json", "--quiet", "--out", "out")
    assert json.loads(printed.out)["verdict"] == result.verdict.to_dict()
    cold = run(*BASE, "--resume", "--out", "out")
    assert cold.status == 2
    assert "order" in cold.err


@pytest.mark.parametrize("engine", [("--engine", "lanes", "--lanes", "5"), ("--engine", "sequential")])
def test_jobs_change_no_byte(run, small_csv, engine):
    for out, jobs in (("one", 1), ("two", 2)):
        ran = run(*BASE, *engine, "--jobs", jobs, "--quiet", "--out", out)
        assert (ran.status, ran.err) == (0, "")
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes(), path.name


def test_a_table_cut_by_jobs_is_resumed_with_as_many(run, small_csv):
    assert run(*BASE, "--engine", "lanes", "--quiet", "--out", "out").status == 0
    ran = run(*BASE, "--engine", "lanes", "--jobs", "2", "--resume", "--out", "out")
    assert ran.status == 2
    assert "engine jobs was 1, now 2" in ran.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--order", "hot"), "--order hot: expected one of cold, warm"),
        (("--engine", "fast"), "--engine fast: expected one of auto, lanes, sequential"),
        (("--lanes", "0"), "--lanes 0: expected"),
        (("--engine", "sequential", "--lanes", "4"), "--lanes 4: --engine sequential has no lanes"),
        (("--engine", "sequential", "--compile"), "--compile: --engine sequential has no lanes"),
        (("--jobs", "0"), "--jobs 0: expected a whole number ≥ 1, or -1"),
        (("--jobs", "2", "--threads", "2"), "--threads 2 with --jobs 2: each job computes on one core"),
    ],
)
def test_bad_ones(run, small_csv, given, message):
    ran = run(*BASE, *given)
    assert ran.status == 2
    assert message in ran.err
    assert len(ran.lines) == 1
