"""``torchshrink report``: the same page again from a path's folder."""

import datetime
import json
from pathlib import Path

import pytest
import torch

import torchshrink as ts
from torchshrink.paths import About

QUICK = ("path", "iris", "--strengths", "3", "--epochs", "2", "--folds", "2", "--repeats", "1", "--hidden", "4")


@pytest.fixture
def made(run):
    assert run(*QUICK, "--test", "0.2", "--out", "out", "--force", "--quiet").status == 0
    return Path("out")


def test_writes_the_same_page_again(run, made):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    (made / "report.html").write_text("spoilt")
    ran = run("report", "out")
    assert (ran.status, ran.out) == (0, "out/report.html\n")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert run(*QUICK, "--test", "0.2", "--out", "out", "--resume").status == 0  # which knows its report


def test_says_what_was_run_on_what(made):
    page = (made / "report.html").read_text().replace("\u00a0", " ")
    assert "<code>torchshrink path iris --strengths 3 --epochs 2" in page
    assert "--out" not in page.split("<h2>")[0].split("<body>")[1]
    assert "--force" not in page.split("<h2>")[0].split("<body>")[1]
    assert "iris, 150 rows (120 to tune on, 30 set aside for the end), 4 columns (sepal length (cm)" in page
    assert "one of 3 classes (setosa, versicolor, virginica)" in page
    assert datetime.date.today().isoformat() in page
    assert f"torch {torch.__version__}" in page
    assert "seed 0" in page
    assert "petal length (cm)" in page


def test_another_file_is_overwritten_with_force_only(run, made):
    Path("keep.html").write_text("other")
    ran = run("report", "out", "--out", "keep.html")
    assert (ran.status, ran.err) == (2, "error: --out keep.html: exists already; another name expected, or --force\n")
    assert Path("keep.html").read_text() == "other"
    assert run("report", "out", "--out", "keep.html", "--force").status == 0
    assert Path("keep.html").read_text() == (made / "report.html").read_text()
    assert run("report", "out", "--out", "out/report.html").status == 0  # its own
    assert run(*QUICK, "--test", "0.2", "--out", "out", "--resume").status == 0


def test_a_run_that_goes_on_keeps_its_day_and_its_command(run, made):
    settings = json.loads((made / "settings.json").read_text())
    assert settings["command"] == f"torchshrink {' '.join(QUICK)} --test 0.2"
    assert run(*QUICK, "--test", "0.2", "--out", "out", "--resume", "--choose", "one_se").status == 0
    after = json.loads((made / "settings.json").read_text())
    assert after["date"] == settings["date"]
    assert after["command"] == settings["command"] + " --choose one_se"


def test_of_a_result_that_was_saved_without_a_command(run):
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    result = ts.path(
        lambda: torch.nn.Linear(3, 2), (X, (X[:, 0] > 0).long()), ts.L1, strengths=2, folds=2, repeats=1, progress=False
    )
    result.save("saved")
    ran = run("report", "saved", "--out", "elsewhere.html", "--json")
    assert json.loads(ran.out) == {"files": ["elsewhere.html"]}
    assert "seed=0" in Path("elsewhere.html").read_text()
    assert not Path("saved/report.html").exists()
    about = About(data="mine", columns=["a", "b", "c"])
    result.report("named.html", about)
    assert "mine, 40 rows, 3 columns (a, b, c)" in Path("named.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "nowhere: there is no such folder; the folder of torchshrink path"),
        (("empty",), "empty: there is no path.json in it"),
        (("x" * 300,), "File name too long"),
    ],
)
def test_what_is_no_folder_of_a_path_is_one_line(run, arguments, says):
    Path("empty").mkdir()
    ran = run("report", *arguments)
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert says in ran.err


def test_what_cannot_be_read_or_written_is_one_line(run, made):
    for target, says in (("report.pdf", ".html or .png expected"), ("no/such/report.html", "cannot be written")):
        ran = run("report", "out", "--out", target)
        assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
        assert says in ran.err
    page = (made / "report.html").read_bytes()
    for name in ("settings.json", "refit.json", "model.json", "path.json", "losses.safetensors"):
        content = (made / name).read_bytes()
        (made / name).write_bytes(content.replace(b"iris", b"wine") if b"iris" in content else content[:-40])
        ran = run("report", "out")
        assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
        assert name in ran.err
        assert (made / "report.html").read_bytes() == page
        (made / name).write_bytes(content)
    assert run("report", "out").status == 0
