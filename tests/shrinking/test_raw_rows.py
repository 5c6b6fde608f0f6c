"""Models that take raw rows: which columns their preprocessing loses, and that the outputs stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchshrink as ts
from torchshrink.models import Preprocess, fit_preprocessing, load_model, mlp, model_settings, save_model, settings_of
from torchshrink.support.storage import read_json, write_json

SIZES = [0, 3, 0, 2, 0]  # encoded: 0 | 1 2 3 | 4 | 5 6 | 7


def rows_of(sizes, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = [
        torch.randint(size, (count,), generator=generator).double()
        if size
        else 5 + 3 * torch.randn(count, generator=generator, dtype=torch.float64)
        for size in sizes
    ]
    rows = torch.stack(columns, 1)
    return rows.masked_fill(torch.rand(rows.shape, generator=generator) < 0.1, torch.nan)


def model_of(sizes, unread=(), *, hidden=(8,), dead=4, regression=False, seed=0):
    torch.manual_seed(seed)
    rows = rows_of(sizes)
    model = mlp(sizes, 1 if regression else 3, hidden=hidden, regression=regression)
    target = torch.randn(len(rows)) * 7 + 100 if regression else torch.randint(3, (len(rows),))
    fit_preprocessing(model, rows, target)
    first = model.hidden1 if hidden else model.output
    with torch.no_grad():
        first.weight[:, list(unread)] = 0
        if hidden:
            first.weight[:dead] = 0
    return model.double(), rows


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    inputs=st.booleans(),
    layers=st.integers(0, 2),
    regression=st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_what_no_unit_reads_goes_and_the_outputs_stay(sizes, seed, share, inputs, layers, regression):
    source = [column for column, size in enumerate(sizes) for _ in range(max(size, 1))]
    gone = (torch.rand(len(source), generator=torch.Generator().manual_seed(seed)) < share).nonzero()[:, 0].tolist()
    model, rows = model_of(sizes, gone, hidden=(8, 5)[:layers], regression=regression, seed=seed)
    shrunk = ts.shrink(model, rows[:2], inputs=inputs)

    stay = [place for place in range(len(source)) if place not in gone] or [0]  # one at least
    columns = sorted({source[place] for place in stay})
    taken = rows[:, columns] if inputs else rows
    assert shrunk.plan.inputs == (tuple(columns) if inputs and len(columns) < len(sizes) else None)
    assert shrunk.unread_inputs == tuple(
        column for column in range(len(sizes)) if all(place in gone for place, at in enumerate(source) if at == column)
    )
    assert shrunk.model[0].outputs == len(stay)
    assert list(shrunk.model[0].sizes) == ([sizes[column] for column in columns] if inputs else sizes)
    torch.testing.assert_close(shrunk.model(taken), model(rows), rtol=1e-12, atol=1e-12)
    first = next(module for module in shrunk.model if isinstance(module, nn.Linear))
    assert first.in_features == len(stay)


@pytest.fixture(scope="module")
def shrunk():
    model, rows = model_of(SIZES, [2])
    return ts.shrink(model, rows[:2])


def test_a_category_goes_only_when_nothing_reads_any_of_its_levels():
    model, rows = model_of(SIZES, [1, 2, 5, 6])
    shrunk = ts.shrink(model, rows[:2], inputs=True)
    assert (shrunk.unread_inputs, shrunk.plan.inputs) == ((3,), (0, 1, 2, 4))
    assert shrunk.model[0].encoded == (0, 3, 4, 5)
    assert "inputs that nothing reads: 3" in str(shrunk)
    others = rows.clone()
    others[:, 3] = torch.nan  # it need not be collected
    full = ts.shrink(model, rows[:2]).model
    assert torch.equal(full(others), full(rows))


def test_infinities_are_still_seen():
    model, rows = model_of(SIZES, [4])
    rows[0, 0] = torch.inf
    small = ts.shrink(model, rows[1:3]).model
    assert not small(rows)[0].isfinite().all()
    assert small(rows)[1:].isfinite().all()


def test_a_shrunk_model_shrinks_again():
    model, rows = model_of(SIZES, [1])
    once = ts.shrink(model, rows[:2]).model
    with torch.no_grad():
        once.hidden1.weight[:, :2] = 0  # encoded columns 0 and 2
    twice = ts.shrink(once, rows[:2], inputs=True)
    assert twice.unread_inputs == (0,)
    assert twice.model[0].encoded == (2, 3, 4, 5, 6)  # of columns 1 to 4: level 2, 2, 3's two levels, 4
    torch.testing.assert_close(twice.model(rows[:, 1:]), once(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inputs", "regression"), [(False, True), (True, False)])
def test_the_small_model_is_loaded_bit_for_bit_either_way(inputs, regression, tmp_path):
    model, rows = model_of(SIZES, [2, 5, 6], regression=regression)
    model, rows = model.float(), rows.float()
    shrunk = ts.shrink(model, rows[:2], inputs=inputs)
    taken = rows if shrunk.plan.inputs is None else rows[:, list(shrunk.plan.inputs)]
    wanted = shrunk.model.eval()(taken)

    before = model_settings("mlp", inputs=SIZES, outputs=1 if regression else 3, hidden=(8,), regression=regression)
    after = settings_of(shrunk.model, before)
    assert after["hidden"] == [4]
    save_model(tmp_path, shrunk.model, after)
    assert torch.equal(load_model(tmp_path)(taken), wanted)

    shrunk.save(tmp_path / "plan")
    again = ts.load_shrunk(
        tmp_path / "plan", lambda: mlp(SIZES, 1 if regression else 3, hidden=(8,), regression=regression)
    )
    assert torch.equal(again(taken), wanted)
    assert str(again) == str(shrunk.model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoded": [0, 1, 3, 4, 5, 6, 99]}, "ascending places from 0 to 7"),
        ({"encoded": [3] * 7}, "ascending places"),
        ({"encoded": [-1, 0, 1, 2, 3, 4, 5]}, "ascending places"),
        ({"encoded": []}, r"\(0,\) expected"),
        ({"encoded": "all"}, "a list of whole numbers expected"),
        ({"encoded": [True]}, "a list of whole numbers expected"),
        ({"encoded": [0, 1]}, r"\(2,\) expected"),
        ({"inputs": [10**12, 3, 0, 2, 0]}, None),  # as large as is said, and no more made than there is
    ],
)
def test_settings_that_were_changed_are_refused_in_one_line(change, message, shrunk, tmp_path):
    settings = settings_of(shrunk.model, model_settings("mlp", inputs=SIZES, outputs=3, hidden=(8,)))
    save_model(tmp_path, shrunk.model, settings)
    saved = read_json(tmp_path / "model.json", what="model")
    write_json(tmp_path / "model.json", saved | change, what="model")
    if message is None:
        assert load_model(tmp_path)[0].outputs == 7
        return
    with pytest.raises(ts.errors.InputError, match=message) as raised:
        load_model(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": [0, 1]}, "lack a column that it keeps encoded"),
        ({"inputs": [0, 9]}, "not growing, or not between 0 and 4"),
        ({"inputs": "all"}, "no list of whole numbers"),
        ({"kept": {"preprocess.mean": {"0": [0]}}}, "keeps other columns of preprocess.mean"),
        ({"kept": {"preprocess.mean": {"0": [8]}}}, "not growing, or not between 0 and 7"),
    ],
)
def test_plans_that_were_changed_are_refused_in_one_line(change, message, shrunk, tmp_path):
    shrunk.save(tmp_path)
    saved = read_json(tmp_path / "shrunk.json", what="shrunk plan")
    write_json(tmp_path / "shrunk.json", saved | {"kept": saved["kept"] | change.get("kept", {})} | {
        name: value for name, value in change.items() if name != "kept"
    }, what="shrunk plan")  # fmt: skip
    with pytest.raises(ts.errors.InputError, match=message) as raised:
        ts.load_shrunk(tmp_path, lambda: mlp(SIZES, 3, hidden=(8,)))
    assert "\n" not in str(raised.value)


def test_weights_of_another_plan_are_refused(tmp_path):
    for name, unread in (("one", [2]), ("two", [3])):
        model, rows = model_of(SIZES, unread)
        ts.shrink(model, rows[:2]).save(tmp_path / name)
    (tmp_path / "two" / "shrunk.safetensors").replace(tmp_path / "one" / "shrunk.safetensors")
    with pytest.raises(ts.errors.InputError, match=r"of another model than its shrunk\.json"):
        ts.load_shrunk(tmp_path / "one", lambda: mlp(SIZES, 3, hidden=(8,)))


def test_preprocessing_is_fitted_with_fewer_encoded_columns_too():
    rows = rows_of(SIZES)
    every, few = Preprocess(SIZES), Preprocess(SIZES, [0, 2, 3, 7])
    every.fit(rows)
    few.fit(rows)
    assert torch.equal(few(rows), every(rows)[:, [0, 2, 3, 7]])
    assert torch.equal(every.narrowed([0, 2, 3, 7], [0, 1, 4])(rows[:, [0, 1, 4]]), few(rows))
