"""Output ends no command for want of a character: what an encoding lacks is written as an escape."""

from __future__ import annotations

import codecs
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.cli import app as application
from torchshrink.cli import main
from torchshrink.data import load
from torchshrink.models import build, model_settings, save_model

NAMES = ("Größe", "重さ", "λ")
DATA = ("dätä-λ.csv", "--target", "class")
QUICK = ("--epochs", "1", "--hidden", "3", "--out", "öut-λ", "--force")
COMMANDS = {
    "path": (*DATA, *QUICK, "--strengths", "1", "--folds", "2", "--repeats", "1"),
    "train": (*DATA, *QUICK),
    "audit": DATA,
    "convert": ("--list",),
    "shrink": ("modèle-重", "--out", "öut-λ", "--force"),
    "report": ("päth-重さ",),
}
REFUSED = {  # what it says that was given
    "λ.csv": ("train", "λ.csv"),
    "λ2.csv": ("train", "λ2.csv", "--debug"),
    "'重'": ("path", DATA[0], "--target", "重"),
    "--penälty": ("train", *DATA, "--penälty", "l1"),
    "λ1": ("audit", *DATA, "--penalty", "λ1"),
    "'größe'": ("größe",),
}
ENCODINGS = ("ascii", "cp1252")


@pytest.fixture
def table(here):
    """40 rows, their file, columns, categories and classes named in German, Japanese and Greek."""
    generator = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'röt' if a + b > 0 else '青'},{'はい' if a > 0 else 'nö'}"
        for a, b in generator.normal(size=(40, 2))
    ]
    (here / DATA[0]).write_text("\n".join([",".join([*NAMES, "class"]), *rows]), encoding="utf-8")


@pytest.fixture
def model(table, here):
    """A model of the table's rows that does not read 重さ."""
    data = load(DATA[0], target="class")
    settings = model_settings("mlp", inputs=data.sizes, outputs=2, hidden=(3,))
    made = build(settings)
    with torch.no_grad():
        made.hidden1.weight[:, 1] = 0
    (here / COMMANDS["shrink"][0]).mkdir()
    save_model(here / COMMANDS["shrink"][0], made, settings | {"data": data.describe()})
    X, y = torch.arange(12.0).view(-1, 1), torch.arange(12.0).view(-1, 1)
    result = ts.path(lambda: nn.Linear(1, 1), (X, y), ts.L1, strengths=[0.1], folds=2, repeats=1, progress=False)
    result.save(here / COMMANDS["report"][0])


@pytest.fixture(params=["its own", "of codecs"])
def written(request, monkeypatch):
    """``written(encoding, *arguments)`` -> the status, and what both streams got, which refuse what they lack."""

    def run(encoding, *arguments):
        wrap = io.TextIOWrapper if request.param == "its own" else _of_codecs
        out, err = io.BytesIO(), io.BytesIO()
        streams = [wrap(each, encoding=encoding, errors="strict") for each in (out, err)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            status = main(arguments)
        for stream in streams:
            stream.flush()
        return status, out.getvalue().decode(encoding), err.getvalue().decode(encoding)

    return run


def _of_codecs(binary, *, encoding, errors):
    return codecs.getwriter(encoding)(binary, errors)


def test_every_command_is_here():
    assert set(COMMANDS) == set(application.VERBS)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.usefixtures("model")
def test_every_command_ends_well(written, verb, encoding):
    names_columns = DATA[0] in COMMANDS[verb] or verb in ("shrink", "report")
    status, out, err = written(encoding, verb, *COMMANDS[verb])
    assert (status, "error" in err) == (0, False), err
    lacking = "重さ" if names_columns else "Σ"
    assert lacking.encode("ascii", "backslashreplace").decode() in out
    status, out, err = written(encoding, verb, *COMMANDS[verb], "--json")
    assert status == 0, err
    if names_columns:
        assert "重さ" in json.dumps(json.loads(out), ensure_ascii=False)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("given", REFUSED)
@pytest.mark.usefixtures("table")
def test_every_refusal_is_said(written, given, encoding):
    status, out, err = written(encoding, *REFUSED[given])
    assert (status, out) == (2, "")
    *before, line = err.splitlines()
    assert line.startswith("error: ")
    assert bool(before) == ("--debug" in REFUSED[given])
    assert given.encode(encoding, "backslashreplace").decode(encoding) in line


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_help_is_printed(written, verb):
    status, out, err = written("ascii", verb, "--help")
    assert (status, err) == (0, "")
    assert "--debug" in out


@pytest.mark.usefixtures("table")
def test_as_a_program_where_names_of_files_are_ascii_as_well(here):
    os.rename(DATA[0], b"d\xff.csv")  # a name that is no text
    ran = subprocess.run(
        [sys.executable, "-m", "torchshrink", "train", b"d\xff.csv", "--target", "class", *QUICK],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert b"\\u91cd\\u3055" in ran.stdout
    assert (here / QUICK[-2] / "model.safetensors").exists()
