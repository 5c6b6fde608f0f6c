"""Shrunk models on disk: bit for bit, and no file can do harm."""

import json

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import FAMILIES, random_mask, zero
from torchshrink.support.storage import read_json, write_json


class Unbiased(nn.Module):
    """A bias is made, groups go, and two names have one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4)
        self.c, self.d, self.e = nn.Linear(8, 6, bias=False), nn.Linear(6, 6), nn.Linear(6, 6)
        self.e.weight = self.d.weight

    def forward(self, x):
        x = self.b(self.a(x)).sigmoid().mean((2, 3))
        return self.e(torch.tanh(self.d(torch.relu(self.c(x)))))


def shrunk_of(build, size):
    torch.manual_seed(1)
    model = random_mask(build(), 1)
    if isinstance(model, Unbiased):
        zero(model.b.weight, range(4))
    x = torch.randn(size).double()
    return ts.shrink(model, x), x


@pytest.mark.parametrize("family", ["mlp", "separable", "unbiased"])
def test_what_is_saved_is_loaded_bit_for_bit(family, tmp_path):
    build, size = (Unbiased, (2, 3, 4, 4)) if family == "unbiased" else FAMILIES[family][:2]
    shrunk, x = shrunk_of(build, size)
    shrunk.save(tmp_path / "small")
    loaded = ts.load_shrunk(tmp_path / "small", build)
    assert str(loaded) == str(shrunk.model)
    assert torch.equal(loaded(x), shrunk.model.eval()(x))
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}
    if family == "unbiased":
        assert loaded.e.weight is loaded.d.weight
        assert any(fold.made for fold in shrunk.plan.folds)
        assert shrunk.plan.groups
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"shrunk.json", "shrunk.safetensors"}
    with pytest.raises(ts.errors.InputError, match="not empty"):
        shrunk.save(tmp_path / "small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    shrunk_of(FAMILIES["mlp"][0], (4, 6))[0].save(place)
    return place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": {"0.weight": {"0": [0, 99]}}}, "not growing, or not between 0 and 19"),
        ({"kept": {"0.weight": {"0": [-1, 3]}}}, "not growing, or not between 0 and 19"),
        ({"kept": {"0.weight": {"0": [3, 3]}}}, "not growing"),
        ({"kept": {"0.weight": {"0": [10**30]}}}, "not growing, or not between"),
        ({"kept": {"0.weight": {"0": [True, 2]}}}, "no list of whole numbers"),
        ({"kept": {"0.weight": {"0": []}}}, "no list of whole numbers"),
        ({"kept": {"0.weight": {"0": "ab"}}}, "no list of whole numbers"),
        ({"kept": {"0.weight": {"7": [0]}}}, "dimension '7' of 0.weight, which has 2"),
        ({"kept": {"0.weight": {"-1": [0]}}}, "dimension '-1'"),
        ({"kept": {"0.__class__": {"0": [0]}}}, "no parameter or buffer"),
        ({"kept": [1]}, "kept is list, an object expected"),
        ({"kept": {"0.weight": {"0": [0]}}}, "has shape"),
        ({"groups": {"0": 2}}, "no module with groups"),
        ({"groups": {"": 2}}, "no module with groups"),
        ({"groups": {"nowhere": 2}}, "no module with groups"),
        ({"folds": [{"bias": "0.bias", "made": True}]}, "where none can be"),
        ({"folds": [{"bias": "2.bias", "made": True}] * 2}, "made twice"),
        ({"folds": [{"bias": 3, "made": True}]}, "where none can be"),
        ({"folds": 3}, "folds is int"),
        ({"format": 2}, "format is 2, 1 expected"),
    ],
    ids=str,
)
def test_a_hostile_plan_is_one_line(folder, tmp_path, change, message):
    plan = read_json(folder / "shrunk.json", what="shrunk plan")
    write_json(tmp_path / "shrunk.json", {**plan, **change}, what="shrunk plan")
    (tmp_path / "shrunk.safetensors").write_bytes((folder / "shrunk.safetensors").read_bytes())
    with pytest.raises(ts.errors.InputError, match=message) as caught:
        ts.load_shrunk(tmp_path, FAMILIES["mlp"][0])
    assert "\n" not in str(caught.value)


def test_a_plan_that_was_changed_or_another_model_is_one_line(folder, tmp_path):
    plan = json.loads((folder / "shrunk.json").read_text())
    plan["kept"]["0.weight"]["0"][0] = 1
    (tmp_path / "shrunk.json").write_text(json.dumps(plan))
    with pytest.raises(ts.errors.InputError, match="is not the shrunk that was written there"):
        ts.load_shrunk(tmp_path, FAMILIES["mlp"][0])
    with pytest.raises(ts.errors.InputError, match=r"0\.weight"):
        ts.load_shrunk(folder, lambda: nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ts.errors.InputError, match="build returned int"):
        ts.load_shrunk(folder, lambda: 3)
    with pytest.raises(ts.errors.InputError, match="no such file"):
        ts.load_shrunk(tmp_path / "nowhere", FAMILIES["mlp"][0])
