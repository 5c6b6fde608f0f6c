"""Shrunk models on disk: bit for bit, and no file can do harm."""

import json

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import FAMILIES, random_mask, zero
from torchshrink.shrinking.saved import save
from torchshrink.support.storage import digest_of, read_json, read_tensors, write_json, write_tensors


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


class Plain(nn.Module):
    """A normalisation without numbers, whose size is an attribute alone; a parameter of the model itself."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Conv2d(8, 6, 1, bias=False)
        self.scale, self.c = nn.Parameter(torch.randn(8, 1, 1)), nn.Linear(6, 2)

    def forward(self, x):
        return self.c(torch.relu(self.b(self.norm(self.a(x)) * self.scale)).mean((2, 3)))


def vectors():
    return nn.Sequential(nn.Linear(6, 9, bias=False), nn.BatchNorm1d(9), nn.PReLU(9), nn.Linear(9, 4))


SAVED = {name: case[:2] for name, case in FAMILIES.items()} | {
    "unbiased": (Unbiased, (2, 3, 4, 4)),
    "plain norm": (Plain, (2, 3, 6, 6)),
    "vectors": (vectors, (4, 6)),
}


def shrunk_of(build, size):
    torch.manual_seed(1)
    model = random_mask(build(), 1)
    if isinstance(model, Unbiased):
        zero(model.b.weight, range(4))
    x = torch.randn(size).double()
    return ts.shrink(model, x), x


@pytest.mark.parametrize("family", SAVED)
def test_what_is_saved_is_loaded_bit_for_bit(family, tmp_path):
    build, size = SAVED[family]
    shrunk, x = shrunk_of(build, size)
    shrunk.save(tmp_path / "small")
    loaded = ts.load_shrunk(tmp_path / "small", build)
    assert str(loaded) == str(shrunk.model)
    assert torch.equal(loaded(x), shrunk.model.eval()(x))
    assert shrunk.plan.kept
    assert not loaded.training
    own, other = loaded.state_dict(), shrunk.model.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}
    if family == "plain norm":
        assert loaded.norm.num_features == loaded.a.out_channels < 8
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
        ({"format": None}, "format is None"),
        ({"kept": None}, "kept is NoneType"),
        ({"kept": {"../../etc/passwd": {"0": [0]}}}, "no parameter or buffer"),
        ({"kept": {"0.weight": {"0": {"a": 1}}}}, "no list of whole numbers"),
        ({"kept": {"0.weight": {"0": [0.5]}}}, "no list of whole numbers"),
        ({"kept": {"0.weight": {"0": [3, 1]}}}, "not growing"),
        ({"kept": {"0.weight": 3}}, "kept of 0.weight is int"),
        ({"groups": 7}, "groups is int"),
        ({"folds": [7]}, "a fold is int"),
        ({"folds": [{"bias": "0.__init__.bias", "made": True}]}, "where none can be"),
        ({"folds": [{"bias": "", "made": True}]}, "where none can be"),
        *(
            ({"folds": [{"bias": f"2.{key}", "made": True}]}, "where none can be")
            for key in ("forward", "", "in_features", "training", "weight", "x y", "bias2", " bias")
        ),
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


def test_a_hostile_number_of_groups_is_one_line(tmp_path):
    build, size = SAVED["grouped"]
    model = build()
    zero(model[3].weight, range(12))
    shrunk = ts.shrink(model, torch.randn(size))
    shrunk.save(tmp_path / "a")
    plan = read_json(tmp_path / "a" / "shrunk.json", what="shrunk plan")
    for count in (0, -1, 99, True, 2.5, "2", None, [1]):
        write_json(tmp_path / "a" / "shrunk.json", {**plan, "groups": {"3": count}}, what="shrunk plan")
        with pytest.raises(ts.errors.InputError, match=r"groups of 3 is|has shape") as caught:
            ts.load_shrunk(tmp_path / "a", build)
        assert "\n" not in str(caught.value)


def normed(affine=True):
    return nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(4, 8, affine=affine), nn.ReLU(), nn.Conv2d(8, 2, 1))


def grouped():
    return nn.Sequential(nn.Conv2d(4, 8, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1))


def transposed():
    return nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 8, 1, groups=4), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize(
    ("build", "path", "count"),
    [(normed, "1", 2), (normed, "1", 1), (grouped, "0", 2), (grouped, "0", 1), (transposed, "2", 2)],
)
def test_groups_that_are_others_than_those_of_the_model_are_one_line(tmp_path, build, path, count):
    """A number in range, that fits the weights, and with which other outputs would come."""
    ts.shrink(build(), torch.randn(2, 4, 3, 3)).save(tmp_path)
    ts.load_shrunk(tmp_path, build)
    plan = read_json(tmp_path / "shrunk.json", what="shrunk plan")
    write_json(tmp_path / "shrunk.json", {**plan, "groups": {path: count}}, what="shrunk plan")
    with pytest.raises(ts.errors.InputError, match=rf"groups of {path} would have|has shape") as caught:
        ts.load_shrunk(tmp_path, build)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("affine", [True, False])
def test_groups_that_went_and_are_not_in_the_plan_are_one_line(tmp_path, affine):
    model = normed(affine)
    for layer in (model[0], model[3]):
        zero(layer.weight, range(4), dim=int(layer is model[3]))
    zero(model[0].bias, range(4))
    shrunk = ts.shrink(model, torch.randn(2, 4, 3, 3))
    assert (shrunk.model[1].num_groups, shrunk.model[1].num_channels) == (2, 4)
    shrunk.save(tmp_path)
    assert str(ts.load_shrunk(tmp_path, lambda: normed(affine))) == str(shrunk.model)
    if affine:
        plan = read_json(tmp_path / "shrunk.json", what="shrunk plan")
        write_json(tmp_path / "shrunk.json", {**plan, "groups": {}}, what="shrunk plan")
        with pytest.raises(ts.errors.InputError, match="groups of 1 would have 1 channels each, 2 expected"):
            ts.load_shrunk(tmp_path, lambda: normed(affine))


class Unsaved(nn.Module):
    """Its buffers are in no state_dict: the bias of what reads constants, the weight of it, or factors."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 3, padding=1)
        self.register_buffer("bias", torch.randn(2), persistent=False)
        self.register_buffer("weight", torch.randn(2, 8, 3, 3), persistent=False)
        self.register_buffer("factors", torch.rand(8, 1, 1), persistent=False)
        zero(self.a.weight, range(4))

    def forward(self, x):
        h = torch.sigmoid(self.a(x))
        if self.kind == "bias":
            return nn.functional.linear(h.mean((2, 3)), self.b.weight[:, :, 0, 0], self.bias)
        if self.kind == "weight":
            return nn.functional.conv2d(h, self.weight, self.b.bias, padding=1)
        return self.b(h * self.factors)


@pytest.mark.parametrize("kind", ["bias", "weight", "factors"])
def test_buffers_that_are_in_no_state_dict_are_saved_and_take_nothing(tmp_path, kind):
    model, x = Unsaved(kind).eval(), torch.randn(2, 3, 5, 5)
    shrunk = ts.shrink(model, x)
    shrunk.save(tmp_path)
    loaded = ts.load_shrunk(tmp_path, lambda: Unsaved(kind))
    assert torch.equal(loaded(x), shrunk.model(x))
    assert not {"bias", "weight"} & {
        *(fold.bias for fold in shrunk.plan.folds),
        *(m.weight for m in shrunk.plan.merges),
    }
    assert [torch.equal(*pair) for pair in zip(loaded.buffers(), shrunk.model.buffers(), strict=True)] == [True] * 3
    if kind == "factors":
        assert loaded.a.out_channels < 8


class Extra(nn.Linear):
    """A module with a state of its own kind."""

    def __init__(self, state):
        super().__init__(3, 2)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


@pytest.mark.parametrize("state", [{"scale": 1}, torch.ones(2), b"", None])
def test_a_state_that_is_no_parameter_and_no_buffer_is_one_line_and_nothing_is_written(tmp_path, state):
    with pytest.raises(ts.errors.InputError, match=r"save: state_dict has 0\._extra_state, which is") as caught:
        save(nn.Sequential(Extra(state)), ts.shrinking.Plan({}), tmp_path / "small")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "small").exists()


def without(tensors):
    del tensors["0.bias"]


def unknown(tensors):
    tensors["9.weight"] = torch.ones(2)


def wrong_shape(tensors):
    tensors["0.bias"] = torch.ones(1)


def whole_numbers(tensors):
    tensors["0.weight"] = tensors["0.weight"].long()


def complex_numbers(tensors):
    tensors["0.weight"] = tensors["0.weight"].to(torch.complex64)


@pytest.mark.parametrize("change", [without, unknown, wrong_shape, whole_numbers, complex_numbers])
def test_hostile_weights_are_one_line(folder, tmp_path, change):
    tensors, _ = read_tensors(folder / "shrunk.safetensors", what="shrunk weights")
    change(tensors)
    weights = tmp_path / "shrunk.safetensors"
    write_tensors(weights, tensors, what="shrunk weights")
    plan = read_json(folder / "shrunk.json", what="shrunk plan")
    write_json(tmp_path / "shrunk.json", plan | {"weights": digest_of(weights)}, what="shrunk plan")
    with pytest.raises(ts.errors.InputError, match=r"0\.(bias|weight)|9\.weight") as caught:
        ts.load_shrunk(tmp_path, FAMILIES["mlp"][0])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_plan_and_no_weights_are_one_line(folder, tmp_path):
    for plan, weights in (
        (b"[1]", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[" * 10**5, None),
        (None, b"PK"),
        (None, b""),
    ):
        (tmp_path / "shrunk.json").write_bytes(plan or (folder / "shrunk.json").read_bytes())
        if weights is None:
            weights = (folder / "shrunk.safetensors").read_bytes()
        (tmp_path / "shrunk.safetensors").write_bytes(weights)
        with pytest.raises(ts.errors.InputError) as caught:
            ts.load_shrunk(tmp_path, FAMILIES["mlp"][0])
        assert "\n" not in str(caught.value)
