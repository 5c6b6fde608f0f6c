import copy
import json
import math
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from torchshrink.errors import InputError
from torchshrink.models import (
    Preprocess,
    Rescale,
    build,
    fit_preprocessing,
    load_model,
    mlp,
    model_settings,
    save_model,
)

NAN, INF = math.nan, math.inf


def fitted(sizes, rows):
    preprocess = Preprocess(sizes)
    preprocess.fit(rows)
    return preprocess


# --- Preprocess -------------------------------------------------------------------------------------------------------

finite = st.floats(-1e6, 1e6, width=32)
numbers = hnp.arrays(np.float32, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=finite | st.just(NAN))


@settings(max_examples=60, deadline=None)
@given(numbers)
def test_numbers_have_zero_mean_and_unit_variance_on_the_rows_fitted(values):
    rows = torch.from_numpy(values).double()
    preprocess = Preprocess((0,) * rows.shape[1]).double()
    preprocess.fit(rows)
    encoded = preprocess(rows)
    assert torch.isfinite(encoded).all()
    for column in range(rows.shape[1]):
        present = ~torch.isnan(rows[:, column])
        assert (encoded[~present, column] == 0).all()
        if not present.any():
            continue
        kept = encoded[present, column]
        assert abs(float(kept.mean())) < 1e-6
        if rows[present, column].unique().numel() == 1:
            assert (kept == 0).all()
        else:
            assert float(kept.var(correction=0)) == pytest.approx(1, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(numbers, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    rows = torch.from_numpy(values)
    one, other = fitted((0,) * rows.shape[1], rows), fitted((0,) * rows.shape[1], rows[order])
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.scale, other.scale, rtol=1e-6, atol=0)


codes = hnp.arrays(np.float32, st.integers(1, 20), elements=st.integers(0, 4).map(float) | st.just(NAN))


@settings(max_examples=60, deadline=None)
@given(codes, codes)
def test_a_category_is_one_hot_where_training_had_its_level_and_zero_elsewhere(training, validation):
    encoded = fitted([5], torch.from_numpy(training[:, None]))(torch.from_numpy(validation[:, None]))
    known = set(training[~np.isnan(training)].astype(int))
    for code, row in zip(validation, encoded, strict=True):
        expected = [float(not np.isnan(code) and level == code and level in known) for level in range(5)]
        assert row.tolist() == expected


def test_it_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    number, category = generator.normal(5, 3, (50, 2)), generator.integers(0, 3, (50, 1))
    rows = torch.tensor(np.hstack([number[:, :1], category, number[:, 1:]]), dtype=torch.float64)
    preprocess = Preprocess([0, 3, 0]).double()
    preprocess.fit(rows)
    scaled = StandardScaler().fit_transform(number)
    onehot = OneHotEncoder(sparse_output=False).fit_transform(category)
    expected = np.hstack([scaled[:, :1], onehot, scaled[:, 1:]])
    np.testing.assert_allclose(preprocess(rows).numpy(), expected, atol=1e-12)


def test_constant_and_missing_columns_are_zero_in_training():
    rows = torch.tensor([[0.1, NAN, 1.0], [0.1, NAN, 3.0], [0.1, NAN, NAN]])
    preprocess = fitted([0, 0, 0], rows)
    assert preprocess.mean.tolist() == [rows[0, 0].item(), 0, 2]
    assert preprocess.scale.tolist() == [1, 1, 1]
    assert preprocess(rows).tolist() == [[0, 0, -1], [0, 0, 1], [0, 0, 0]]


def test_a_constant_column_is_exactly_zero_though_its_mean_rounds():
    rows = torch.full((3, 1), 0.1, dtype=torch.float64)
    assert float(rows.sum() / 3) != 0.1
    preprocess = Preprocess([0]).double()
    preprocess.fit(rows)
    assert preprocess(rows).tolist() == [[0], [0], [0]]
    assert preprocess.scale == 1


def test_spreads_that_the_dtype_cannot_hold_do_not_divide_by_zero():
    rows = torch.tensor([[0.0, 1e38], [1e-45, -1e38]])
    encoded = fitted([0, 0], rows)(rows)
    assert torch.isfinite(encoded).all()
    assert encoded[:, 1].tolist() == [1, -1]


def test_fitting_again_forgets_the_first_rows():
    preprocess = fitted([0, 2], torch.tensor([[5.0, 0.0], [9.0, 0.0]]))
    preprocess.fit(torch.tensor([[-1.0, 1.0], [1.0, 1.0]]))
    fresh = fitted([0, 2], torch.tensor([[-1.0, 1.0], [1.0, 1.0]]))
    for name, buffer in fresh.state_dict().items():
        assert torch.equal(buffer, preprocess.state_dict()[name])


def test_before_fitting_numbers_pass_and_all_levels_are_known():
    assert Preprocess([0, 2])(torch.tensor([[7.0, 1.0]])).tolist() == [[7, 0, 1]]


def test_an_infinity_is_not_taken_for_a_missing_value():
    assert Preprocess([0, 0])(torch.tensor([[INF, -INF]])).tolist() == [[INF, -INF]]


def test_what_is_fitted_are_buffers_and_the_rest_stays_out_of_the_file():
    preprocess = Preprocess([0, 2])
    assert not list(preprocess.parameters())
    assert list(preprocess.state_dict()) == ["mean", "scale", "seen"]


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ([0], torch.zeros(0, 1)),
        ([0], torch.zeros(3, 2)),
        ([0], torch.zeros(3)),
        ([0], torch.tensor([[INF]])),
        ([2], torch.tensor([[2.0]])),
        ([2], torch.tensor([[-1.0]])),
        ([2], torch.tensor([[0.5]])),
        ([0, 2], torch.tensor([[3.0, 2.0]])),
    ],
    ids=[
        "no rows",
        "columns",
        "one dimension",
        "infinity",
        "code too large",
        "negative code",
        "no code",
        "second column",
    ],
)
def test_rows_that_cannot_be_fitted_are_refused_and_change_nothing(sizes, rows):
    preprocess = Preprocess(sizes)
    before = copy.deepcopy(preprocess.state_dict())
    with pytest.raises(InputError):
        preprocess.fit(rows)
    assert all(torch.equal(before[name], buffer) for name, buffer in preprocess.state_dict().items())


def test_rows_of_another_width_are_refused():
    with pytest.raises(InputError, match="3 columns expected"):
        Preprocess([0, 0, 0])(torch.zeros(4, 1))  # would broadcast


def test_sizes_that_make_no_sense_are_refused():
    for sizes in ([], [-1]):
        with pytest.raises(InputError):
            Preprocess(sizes)


@pytest.mark.parametrize("sizes", [[0, 0, 0], [0, 3, 2]], ids=["numbers", "mixed"])
def test_stacked_models_give_what_each_gives_alone(sizes):
    generator = torch.Generator().manual_seed(0)
    folds = [torch.randint(0, 2, (10, 3), generator=generator).float() for _ in range(3)]
    models = []
    for fold in folds:
        model = mlp(sizes, 1, hidden=(4,), regression=True)
        fit_preprocessing(model, fold, fold.sum(1))
        models.append(model)
    parameters, buffers = stack_module_state(models)

    def run(parameters, buffers, rows):
        return functional_call(models[0], (parameters, buffers), (rows,))

    rows = torch.tensor([[0.0, 1.0, NAN], [2.0, NAN, 0.0]])
    shared = vmap(run, in_dims=(0, 0, None))(parameters, buffers, rows)
    own = vmap(run)(parameters, buffers, rows.expand(3, 2, 3))
    alone = torch.stack([model(rows) for model in models])
    torch.testing.assert_close(shared, alone)
    torch.testing.assert_close(own, alone)


def test_double_precision_and_single_rows():
    model = fitted([0, 2], torch.tensor([[1.0, 0.0], [2.0, 1.0]])).double()
    assert model(torch.tensor([[1.0, 0.0]])).dtype == torch.float64
    assert model(torch.tensor([1.0, 0.0])).tolist() == [-1, 1, 0]


# --- Rescale and mlp --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)))
def test_rescale_undoes_standardising(values):
    target = torch.from_numpy(values)
    rescale = Rescale().double()
    rescale.fit(target)
    standard = (target - rescale.mean) / rescale.scale
    torch.testing.assert_close(rescale(standard.unsqueeze(-1)), target, rtol=1e-9, atol=1e-9)
    if len(set(values)) == 1:
        assert rescale.scale == 1


@pytest.mark.parametrize("target", [torch.tensor([0, 1]), torch.zeros(0), torch.zeros(2, 1), torch.tensor([0.0, NAN])])
def test_rescale_refuses_what_is_no_vector_of_numbers(target):
    with pytest.raises(InputError):
        Rescale().fit(target)


def test_the_mlp_has_stable_names_and_its_outputs_the_shape_of_the_target():
    model = mlp([0, 3], 5, hidden=(8, 4))
    names = ["hidden1.weight", "hidden1.bias", "hidden2.weight", "hidden2.bias", "output.weight", "output.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert model.hidden1.in_features == 4
    rows = torch.zeros(7, 2)
    assert model(rows).shape == (7, 5)
    assert mlp(2, 1, regression=True)(rows).shape == (7,)
    assert mlp(2, 1, regression=True)(rows[:1]).shape == (1,)
    assert [name for name, _ in mlp(2, 3, hidden=()).named_children()] == ["preprocess", "output"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": 0, "outputs": 1},
        {"inputs": [], "outputs": 1},
        {"inputs": 2, "outputs": 0},
        {"inputs": 2, "outputs": 2, "regression": True},
        {"inputs": 2, "outputs": 2, "hidden": (8, 0)},
    ],
)
def test_an_mlp_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(InputError):
        mlp(**arguments)


def test_fitting_finds_what_is_nested_and_leaves_other_models_alone():
    inner = mlp(1, 1, regression=True)
    model = nn.ModuleDict({"branch": nn.Sequential(inner)})
    fit_preprocessing(model, torch.tensor([[2.0], [4.0]]), torch.tensor([10.0, 30.0]))
    assert inner.preprocess.mean == 3
    assert inner.rescale.scale == 10
    plain = nn.Linear(1, 1)
    before = copy.deepcopy(plain.state_dict())
    fit_preprocessing(plain, torch.zeros(0, 9), torch.zeros(0))
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())


# --- settings and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "numbers", "children"),
    [
        ("mlp", False, ["preprocess", "hidden1", "relu1", "output"]),
        ("mlp", True, ["preprocess", "hidden1", "relu1", "output", "rescale"]),
        ("logistic", False, ["preprocess", "output"]),
        ("linear", False, ["preprocess", "output"]),
        ("linear", True, ["preprocess", "output", "rescale"]),
    ],
)
def test_settings_survive_json_and_build_the_same_model(model, numbers, children):
    made = model_settings(model, inputs=(0, 2), outputs=1 if numbers else 3, hidden=(4,), regression=numbers)
    assert json.loads(json.dumps(made)) == made
    assert [name for name, _ in build(made).named_children()] == children
    torch.manual_seed(0)
    one = build(made)
    torch.manual_seed(0)
    other = build(json.loads(json.dumps(made)))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_unknown_models_are_refused_with_a_near_miss():
    with pytest.raises(InputError, match="did you mean 'logistic'"):
        model_settings("logistics", inputs=[0], outputs=2)
    with pytest.raises(InputError, match="take 'linear'"):
        model_settings("logistic", inputs=[0], outputs=1, regression=True)


GOOD = {"format": 1, "model": "mlp", "inputs": [0], "outputs": 2, "hidden": [4], "regression": False}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"model": "cnn"},
        {"model": None},
        {"inputs": None},
        {"inputs": ["a"]},
        {"inputs": []},
        {"hidden": 3},
        {"hidden": [0]},
        {"outputs": None},
    ],
)
def test_settings_from_a_foreign_file_are_one_line(change):
    build(GOOD)
    with pytest.raises(InputError) as caught:
        build({**GOOD, **change})
    assert "\n" not in str(caught.value)
    for name in ("inputs", "outputs", "hidden", "regression"):
        with pytest.raises(InputError, match="incomplete"):
            build({key: value for key, value in GOOD.items() if key != name})


def trained():
    torch.manual_seed(0)
    made = model_settings("mlp", inputs=[0, 3], outputs=1, hidden=(4,), regression=True)
    model = build(made)
    rows = torch.tensor([[1.0, 0.0], [2.0, 2.0], [NAN, 2.0]])
    fit_preprocessing(model, rows, torch.tensor([1.0, 5.0, 9.0]))
    return model, made, rows


def test_a_saved_model_takes_raw_rows_and_says_the_same(tmp_path):
    model, made, rows = trained()
    model.train()
    save_model(tmp_path, model, {**made, "data": {"name": "mine"}})
    state = torch.get_rng_state()
    loaded = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)  # building it drew initial weights
    assert not loaded.training
    assert torch.equal(loaded(rows), model(rows))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text())["data"] == {"name": "mine"}


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        model, made, _ = trained()
        save_model(tmp_path / folder, model, made)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_model_in_double_precision_stays_one(tmp_path):
    model, made, rows = trained()
    model.double()
    save_model(tmp_path, model, made)
    loaded = load_model(tmp_path)
    assert loaded(rows).dtype == torch.float64
    assert torch.equal(loaded(rows), model(rows))


USER_MODEL = """
import torch
class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(2, 2)
        self.norm = torch.nn.BatchNorm1d(2)
        self.two = torch.nn.Linear(2, 2)
        self.two.weight = self.one.weight
    def forward(self, x):
        return self.two(self.norm(self.one(x)))
def wrong():
    return 3
"""


def test_the_users_model_with_tied_weights_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_tied_model.py").write_text(USER_MODEL)
    made = model_settings("user_tied_model:Tied", inputs=[0, 0], outputs=2)
    model = build(made)
    model(torch.randn(5, 2))  # moves the running statistics
    save_model(tmp_path, model, made)
    with pytest.raises(InputError, match=r"build=user_tied_model\.Tied"):  # a file names it, so nothing of it is run
        load_model(tmp_path)
    loaded = load_model(tmp_path, build=sys.modules["user_tied_model"].Tied)
    assert loaded.one.weight is loaded.two.weight
    assert torch.equal(loaded(torch.ones(1, 2)), model.eval()(torch.ones(1, 2)))
    with pytest.raises(InputError, match="returned an object of type int"):
        build({"format": 1, "model": "user_tied_model:wrong"})


def test_a_state_that_is_not_all_tensors_is_refused_before_anything_is_written(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(InputError, match="_extra_state"):
        save_model(tmp_path, Extra(1, 1), GOOD)
    assert not list(tmp_path.iterdir())


def test_files_that_are_missing_truncated_or_of_two_models_are_one_line(tmp_path):
    model, made, _ = trained()

    def refused(says):
        with pytest.raises(InputError) as caught:
            load_model(tmp_path)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("model.json: no such file")
    save_model(tmp_path, model, made)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1])
    refused("not a safetensors file, or a truncated one")
    (tmp_path / "model.safetensors").unlink()
    refused("model.safetensors: no such file")
    save_model(tmp_path, model, {**made, "hidden": [5]})
    refused("'hidden1.weight' is torch.float32 (4, 4), torch.float32 (5, 4) expected")
    save_model(tmp_path, model, {**made, "hidden": []})
    refused("the model has no 'hidden1.")
    save_model(tmp_path, model, {**made, "hidden": [4, 4]})
    refused("'hidden2.weight' is missing")
    (tmp_path / "model.json").write_text('{"format": 1')
    refused("model.json is not a JSON file")


def test_preprocessing_from_rows_in_parts_is_that_of_all_rows():
    X = torch.randn(1000, 3, dtype=torch.float64) * 1e3 + 1e6
    X[::3, 0] = torch.nan
    X[:, 2] = torch.randint(4, (1000,))
    whole, parts = Preprocess([0, 0, 5]).double(), Preprocess([0, 0, 5]).double()
    whole.fit(X)
    parts.fit_parts(X.split(7))
    for name in ("mean", "scale"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-13, atol=0)
    assert torch.equal(parts.seen, whole.seen)
    assert parts.seen[-5:].tolist() == [True] * 4 + [False]
    with pytest.raises(InputError, match="no rows given, at least 1 expected"):
        parts.fit_parts([])


@pytest.mark.parametrize(
    "huge",
    [
        {"inputs": [10**9]}, {"inputs": [0, 10**9]}, {"hidden": [10**9]}, {"hidden": [2, 10**9, 2]},
        {"outputs": 10**9}, {"inputs": [10**400]}, {"hidden": [2**63]},
    ],
)  # fmt: skip
def test_sizes_in_a_file_allocate_nothing(tmp_path, huge):
    """Held against the tensors that are there before any model is made; the peak of memory would tell."""
    resource = pytest.importorskip("resource")
    settings = model_settings("mlp", inputs=[0, 0], outputs=3, hidden=[2, 2, 2])
    save_model(tmp_path, build(settings), {**settings, **huge})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"does not fit its model\.json|missing"):
        load_model(tmp_path)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    )  # KiB; 4e9 bytes and more are asked for
