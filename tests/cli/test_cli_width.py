"""On a terminal of eighty columns, and of fewer and more: no line of a result is wrapped by the terminal."""

from __future__ import annotations

import os
import re

import pytest

from torchshrink.cli import main

SMALL = ("--hidden", "4", "--epochs", "1", "--quiet")
COMMANDS = {
    "path": (
        "path", "iris", "--penalty", "l1,group_lasso", "--strengths", "16", "--folds", "2", "--repeats", "1", *SMALL,
    ),
    "path with a smaller model": (
        "path", "iris", "--penalty", "group_lasso", "--shrink", "--strengths", "2", "--folds", "2", "--test", "0.3",
        *SMALL,
    ),
    "train": ("train", "iris", "--polish", *SMALL),
    "shrink": ("shrink", "{small}", "--inputs"),
    "audit": ("audit", "digits", "--penalty", "sparse_group_lasso", "--hidden", "512,512,512"),
    "convert": ("convert", "--from", "sklearn.MLPClassifier", "--alpha", "1", "--rows", "442"),
    "convert --list": ("convert", "--list"),
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "run"
    assert main(["train", "iris", "--penalty", "group_lasso", "--strength", "0.1", *SMALL, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_longer_than_the_terminal(run, small, monkeypatch, command):
    words = [word.format(small=small) for word in COMMANDS[command]]
    for width in (66, 80, 120):
        monkeypatch.setattr("torchshrink.cli.console.columns", lambda w=width: w)
        more = {"path": ["--resume", "--out", "o"], "shrink": ["--force", "--out", "o"]}  # which is run once, and shown
        ran = run(*words, *(more | {"train": more["path"]}).get(words[0], []))
        assert ran.status == 0, ran.err
        for line in re.sub(r"\x1b\[\d*m", "", ran.out).splitlines():
            # What has no blank is not broken: paths, and the equation of a conversion.
            assert len(line) <= width or len(line.split()) <= 2, (width, line)


@pytest.mark.parametrize(("setting", "bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_the_rows_that_matter_stand_out_on_a_terminal(run, monkeypatch, setting, bold):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torchshrink.cli.console.columns", lambda: 80)
    command = (
        "path",
        "iris",
        "--strengths",
        "0.1,0.2",
        "--folds",
        "2",
        "--repeats",
        "1",
        *SMALL,
        "--force",
        "--out",
        "o",
    )
    ran = run(*command)
    strong = [line for line in ran.out.splitlines() if "\x1b" in line]
    assert bool(strong) == bold
    assert all(re.search("best|one_se|chosen", line) for line in strong)
    monkeypatch.setattr("torchshrink.cli.console.columns", lambda: None)
    assert "\x1b" not in run(*command).out
    assert os.environ.get("NO_COLOR") == setting.get("NO_COLOR")
