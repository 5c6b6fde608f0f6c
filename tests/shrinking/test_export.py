"""Files for programs without torchshrink: compared before they are left there, and nothing else is left."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import FAMILIES, random_mask
from torchshrink.shrinking import export as export_module
from torchshrink.support import storage


def shrunk_of(family="mlp"):
    build, size = FAMILIES[family][:2]
    torch.manual_seed(0)
    model = random_mask(build(), 1).float()
    return ts.shrink(model, torch.randn(size))


@pytest.fixture(scope="module")
def shrunk():
    return shrunk_of()


def run_onnx(path, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.as_tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def run_pt2(path, x):
    return torch.export.load(path).module()(x)


RUN = {".pt2": run_pt2, ".onnx": run_onnx}


@pytest.mark.parametrize(("family", "ending"), [("mlp", ".pt2"), ("separable", ".pt2"), ("separable", ".onnx")])
def test_the_file_computes_the_same_at_other_numbers_of_rows(family, ending, tmp_path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    shrunk = shrunk_of(family)
    shrunk.model.train()  # which the file is not, and the model stays
    path = tmp_path / f"model{ending}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shrunk.export(path)
    assert caught == []
    assert shrunk.model.training
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    for rows in (1, 2, 7):
        x = torch.randn(rows, *shrunk.example[0][0].shape[1:])
        torch.testing.assert_close(RUN[ending](path, x), shrunk.model.eval()(x), rtol=1e-4, atol=1e-5)


def test_raw_rows_go_into_the_file(tmp_path):
    pytest.importorskip("onnxruntime")
    model = ts.models.mlp([0, 3, 0], 2, hidden=(8,))
    rows = torch.tensor([[1.0, 2.0, 3.0], [0.0, torch.nan, 1e6], [torch.nan, 1.0, 7.0]], dtype=torch.float64)
    ts.models.fit_preprocessing(model, rows, torch.tensor([0, 1, 0]))
    with torch.no_grad():
        model.hidden1.weight[:, 4] = 0
    shrunk = ts.shrink(model, rows, inputs=True)
    shrunk.export(tmp_path / "model.onnx")
    taken = rows[:, list(shrunk.plan.inputs)]
    torch.testing.assert_close(run_onnx(tmp_path / "model.onnx", taken), model.eval()(rows), rtol=1e-5, atol=1e-6)


def test_a_pt2_file_needs_torch_alone(shrunk, tmp_path):
    shrunk.export(tmp_path / "model.pt2")
    x = torch.randn(3, *shrunk.example[0][0].shape[1:])
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; sys.modules['torchshrink'] = None; "
        f"y = torch.export.load(r'{tmp_path / 'model.pt2'}').module()(torch.load(r'{tmp_path / 'x.pt'}')); "
        f"torch.save(y.detach(), r'{tmp_path / 'y.pt'}')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "y.pt"), shrunk.model.eval()(x).detach())


def test_a_file_with_other_outputs_is_not_left_there(shrunk, tmp_path, monkeypatch):
    make = export_module._FORMATS[".pt2"]

    def wrong(program):
        name, weight = next((n, p) for n, p in program.state_dict.items() if n.endswith("weight"))
        changed = nn.Parameter(weight.detach().clone())
        changed.detach()[0, 0] += 0.5
        program.state_dict[name] = changed
        return make(program)

    monkeypatch.setitem(export_module._FORMATS, ".pt2", wrong)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"before")
    with pytest.raises(ts.errors.InputError, match="was not written: its outputs differ"):
        shrunk.export(path, force=True)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_package_is_one_line_before_anything_else(shrunk, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ts.errors.MissingDependencyError, match=r"needs onnx, which .*extra 'onnx'"):
        shrunk.export(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pt", r"ends in \.pt2 or \.onnx expected"),
        ("model", r"ends in \.pt2 or \.onnx expected"),
        ("there.pt2", "exists: force=True"),
        ("nowhere/model.pt2", "there is no folder"),
        ("folder.pt2", "is a folder"),
    ],
)
def test_places_that_cannot_be_written_are_refused_in_one_line(name, message, shrunk, tmp_path):
    (tmp_path / "there.pt2").write_bytes(b"before")
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ts.errors.InputError, match=message) as raised:
        shrunk.export(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "there.pt2").read_bytes() == b"before"


def test_a_full_disk_leaves_nothing(shrunk, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(ts.errors.InputError, match="No space left"):
        shrunk.export(tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


class Counting(nn.Module):
    """Its code makes a Python number of the number of rows, which torch.export then fixes."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return self.a(x.view(len(x), -1))


def test_a_file_that_takes_one_number_of_rows_only_is_warned_of(tmp_path):
    shrunk = ts.shrink(Counting(), torch.randn(4, 3))
    with pytest.warns(ts.errors.DataWarning, match=r"takes 4 rows only, where the model takes 5 or 1 too"):
        shrunk.export(tmp_path / "model.pt2")
    assert run_pt2(tmp_path / "model.pt2", torch.randn(4, 3)).shape == (4, 2)
