"""``shrink``: what it writes and says, that the small model is loaded without code, and its bad inputs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchshrink as ts
from torchshrink.data import load
from torchshrink.models import load_model
from torchshrink.support.storage import read_json

MODULE = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

def rows():
    import torch
    X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    return X, (X[:, 0] > 0).long()
"""


@pytest.fixture
def trained(small_csv):
    """What a training on the table leaves, whose column b nothing reads."""
    data = load("small.csv", target="kind")
    settings = ts.models.model_settings("mlp", inputs=data.sizes, outputs=2, hidden=(16,))
    torch.manual_seed(0)
    model = ts.models.build(settings)
    ts.models.fit_preprocessing(model, data.X, data.y)
    with torch.no_grad():
        model.hidden1.weight[:, 1] = 0  # b
        model.hidden1.weight[:, 2] = 0  # one of the two colours
        model.hidden1.weight[8:] = 0
    folder = Path("runs/train-small")
    folder.mkdir(parents=True)
    ts.models.save_model(folder, model, settings | {"data": data.describe()})
    return folder


def rows():
    return load("small.csv", target="kind").X


def test_what_it_writes_and_says(run, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    ran = run("shrink", trained)
    assert (ran.status, ran.err) == (0, "")
    out = Path("runs/shrink-small")
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "model.json", "shrink.json"}
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before
    said = ran.out.splitlines()
    assert said[1].split() == ["hidden1.weight", "16", "×", "4", "8", "×", "2"]
    for word in (
        "parameters",
        "bytes of the file",
        "outputs",
        "latency",
        "1 of 3 columns are not read by the model: 'b'",
    ):
        assert word in ran.out
    large, small, X = load_model(trained), load_model(out), rows()
    torch.testing.assert_close(small(X), large(X), rtol=1e-5, atol=1e-6)
    X[:, 1] = torch.nan
    assert torch.equal(small(X), small(rows()))
    assert small.hidden1.out_features == 8


def test_with_inputs_the_columns_are_gone(run, trained):
    ran = run("shrink", trained, "--inputs", "--json")
    assert (ran.status, ran.err) == (0, "")
    printed = json.loads(ran.out)
    assert printed["not read"] == ["b"]
    assert printed["taken"] == ["a", "colour"]
    assert printed["parameters"][1] < printed["parameters"][0]
    assert printed["difference"] < 1e-12
    out = Path("runs/shrink-small")
    assert printed["files"] == [str(out / name) for name in ("model.safetensors", "model.json", "shrink.json")]
    about = read_json(out / "model.json", what="model")
    assert [column["name"] for column in about["data"]["columns"]] == ["a", "colour"]
    assert about["not read"] == ["b"]
    torch.testing.assert_close(load_model(out)(rows()[:, [0, 2]]), load_model(trained)(rows()), rtol=1e-5, atol=1e-6)
    again = run("shrink", out, "--inputs", "--out", "again", "--json")
    assert json.loads(again.out)["parameters"] == [printed["parameters"][1]] * 2


def test_files_for_other_programs(run, trained):
    ran = run("shrink", trained, "--format", "pt2", "--inputs", "--out", "out")
    assert (ran.status, ran.err) == (0, "")
    assert "model.json, model.pt2, shrink.json" in ran.out
    X = rows()[:5, [0, 2]]
    torch.testing.assert_close(torch.export.load("out/model.pt2").module()(X), load_model("out")(X))


def test_after_a_path_and_within_one(run, small_csv):
    command = ("path", "small.csv", "--target", "kind", "--penalty", "group_lasso", "--hidden", "8", "--epochs", "3",
               "--strengths", "0.01,0.3", "--lr", "0.05", "--folds", "2", "--repeats", "1", "--quiet")  # fmt: skip
    ran = run(*command, "--shrink", "--out", "with")
    assert (ran.status, ran.err) == (0, "")
    assert "with/shrunk: model.safetensors, model.json, shrink.json" in ran.out
    header = ran.out.splitlines()[1]
    assert header.split()[-1] == "parameters"
    sizes = json.loads(Path("with/path.json").read_text())["sizes"]
    assert len(sizes) == 3
    assert sizes[-1] < sizes[0]
    assert f"{sizes[-1]:,.0f}" in ran.out.splitlines()[4]
    report = Path("with/report.html").read_text()
    assert re.search(r"<dd[^>]*>Shrunk, the refitted model has \d+ of 58 parameters, and the same outputs", report)
    small, large, X = load_model("with/shrunk"), load_model("with"), rows()
    torch.testing.assert_close(small(X), large(X), rtol=1e-5, atol=1e-6)

    again = run(*command, "--shrink", "--out", "with", "--resume")
    assert again.out == ran.out
    assert again.err == "with is finished; this is its result\n"
    printed = json.loads(run(*command, "--shrink", "--out", "with", "--resume", "--json").out)
    assert printed["shrink"]["difference"] < 1e-12
    assert "was started otherwise (shrink was True, now nothing)" in run(*command, "--out", "with", "--resume").err

    assert run(*command, "--out", "without").status == 0
    assert not Path("without/shrunk").exists()
    after = run("shrink", "without", "--out", "after", "--json")
    assert json.loads(after.out)["parameters"] == printed["shrink"]["parameters"]
    assert Path("after/model.safetensors").read_bytes() == Path("with/shrunk/model.safetensors").read_bytes()

    assert run(*command, "--out", "with", "--force").status == 0  # what is there is of this run, or is not there
    assert list(Path("with/shrunk").iterdir()) == []


def test_a_model_of_the_user_s_own_needs_their_word(run, here):
    (here / "mine.py").write_text(MODULE)
    assert run("train", "mine:rows", "--model", "mine:build", "--epochs", "2", "--quiet", "--out", "own", "--penalty",
               "group_lasso", "--strength", "0.1", "--lr", "0.05").status == 0  # fmt: skip
    ran = run("shrink", "own", "--out", "out")
    assert (ran.status, ran.out) == (2, "")
    assert "give --model mine:build, if you trust it" in ran.err
    assert not Path("out").exists()
    assert "expected one of" not in run("shrink", "own", "--model", "mine:build", "--out", "out").err
    assert {path.name for path in Path("out").iterdir()} == {"shrunk.safetensors", "shrunk.json", "shrink.json"}
    sys.path.insert(0, str(here))
    try:
        import mine
    finally:
        sys.path.remove(str(here))
    X, _ = mine.rows()
    large, small = load_model("own", build=mine.build), ts.load_shrunk("out", mine.build)
    torch.testing.assert_close(small(X), large(X), rtol=1e-5, atol=1e-6)
    assert small[0].out_features < 16
    ran = run("shrink", "own", "--model", "mine:build", "--inputs", "--out", "other")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert not Path("other").exists()


CORE = """
import sys
hidden = {'sklearn', 'scipy', 'joblib', 'cloudpickle', 'pandas', 'pyarrow', 'matplotlib', 'typer', 'rich', 'yaml'}
class Core:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in hidden:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Core())
import socket
def refused(*arguments, **options):
    raise OSError('no network')
socket.socket.connect = socket.getaddrinfo = refused
import torch, torchshrink as ts
model = ts.load_model(sys.argv[1])
print([round(x, 4) for x in model(torch.tensor([[0.5, float('nan'), 1.0]]).double())[0].tolist()])
"""


def test_the_small_model_is_loaded_with_the_core_alone_and_without_a_network(run, trained):
    assert run("shrink", trained, "--out", "out").status == 0
    ran = subprocess.run([sys.executable, "-c", CORE, "out"], capture_output=True, text=True, check=True)
    expected = load_model(trained)(torch.tensor([[0.5, float("nan"), 1.0]]).double())[0].tolist()
    assert json.loads(ran.stdout) == [round(x, 4) for x in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: there is no such folder"),
        (("runs",), "runs: there is no model.json in it"),
        (("a\0b",), "FOLDER"),
        (("x" * 300,), "File name too long"),
        (("small.csv",), "there is no model.json in it"),
        (("runs/train-small", "--out", "runs/train-small", "--force"), "the folder of the model itself"),
        (("runs/train-small", "--out", "full"), "--force overwrites it, or choose another --out"),
        (("runs/train-small", "--format", "pt3"), "--format pt3: expected one of pt2, onnx"),
        (("runs/train-small", "--model", "a:b"), "holds torchshrink's own mlp; leave it out"),
        ((), "Missing argument"),
    ],
)
def test_bad_inputs_are_one_line_and_nothing_is_written(run, trained, arguments, message):
    Path("full").mkdir()
    (Path("full") / "mine.txt").write_text("mine")
    before = sorted(Path().rglob("*"))
    ran = run("shrink", *arguments)
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert message in ran.err
    assert sorted(Path().rglob("*")) == before


def test_a_missing_package_is_one_line_and_nothing_is_written(run, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("shrink", trained, "--format", "onnx", "--out", "out")
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert "needs onnxruntime" in ran.err
    assert not Path("out").exists()


def test_what_fails_at_its_end_leaves_nothing(run, trained, monkeypatch):
    def failing(*arguments, **options):
        raise ts.errors.InputError("this model cannot be written")

    monkeypatch.setattr("torchshrink.shrinking.shrunk.export", failing)
    ran = run("shrink", trained, "--format", "pt2", "--out", "out")
    assert (ran.status, ran.err) == (2, "error: this model cannot be written\n")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_files_that_were_changed_are_one_line(run, trained, name):
    content = bytearray((trained / name).read_bytes())
    content[len(content) // 2] ^= 1
    (trained / name).write_bytes(bytes(content))
    ran = run("shrink", trained, "--out", "out")
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert not Path("out").exists()
