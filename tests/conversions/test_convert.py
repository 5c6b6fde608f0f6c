"""The conversions as a whole: there and back, by way of any tool, what the result is, and what goes wrong.

Whether each tool's entry is right is tested in tests/conventions.
"""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torchshrink as ts
from torchshrink.conversions.convert import REFUSED, TOOLS, convert
from torchshrink.errors import InputError, NoEquivalentError

FACTS = {"rows": 120, "batch_size": 30, "y_sd": 7.0}
MATCHING = [
    (a, b)
    for a, b in itertools.permutations(TOOLS, 2)
    if set(TOOLS[a].terms) <= set(TOOLS[b].terms) and {TOOLS[a].loss, TOOLS[b].loss} != {"squared", "log"}
]


def facts(outputs: int, *names: str) -> dict[str, float]:
    single = "glmnet.gaussian" in names or ("sklearn.MLPClassifier" in names and outputs == 2)
    return FACTS | {"outputs": 1 if single else outputs}


def settings_of(name: str, draw: st.DataObject) -> dict[str, float]:
    ranges = {"strength": (1e-6, 1e3), "positive": (1e-6, 1e3), "share": (0.0, 1.0)}
    return {p.name: draw.draw(st.floats(*ranges[str(p.kind)]), label=p.name) for p in TOOLS[name].settings}


@given(st.sampled_from(MATCHING), st.sampled_from([1, 2, 5]), st.data())
def test_there_and_back(pair, outputs, data):
    there, back = pair
    given_, known = settings_of(there, data), facts(outputs, *pair)
    conversion = convert(there, to=back, **given_, **known)
    returned = convert(back, to=there, **conversion.settings, **known).settings
    assert returned == pytest.approx(given_, rel=1e-9, abs=1e-12)
    # as an estimator would take it: plain Python, and JSON holds it
    assert json.loads(json.dumps(conversion.to_dict(), allow_nan=False))["settings"] == conversion.settings
    assert "\n" not in str(conversion)


@given(st.sampled_from(MATCHING), st.sampled_from([1, 2, 5]), st.data())
def test_by_way_of_torchshrink_or_directly(pair, outputs, data):
    first, last = pair
    given_, known = settings_of(first, data), facts(outputs, *pair)
    direct = convert(first, to=last, **given_, **known).settings
    common = convert(first, **given_, **known).settings
    if "group" in common and common.get("l2"):
        return
    assert convert("torchshrink", to=last, **common, **known).settings == pytest.approx(direct, rel=1e-9, abs=1e-12)


@given(st.sampled_from(sorted(TOOLS)), st.data())
def test_a_penalty_twice_as_strong_is_twice_as_strong_everywhere(name, data):
    tool = TOOLS[name]
    mine = {term: data.draw(st.floats(1e-3, 1e2)) for term in tool.terms if term != "group" or len(tool.terms) == 1}
    once = convert("torchshrink", to=name, **mine, **facts(3, name)).settings
    twice = convert("torchshrink", to=name, **{k: 2 * v for k, v in mine.items()}, **facts(3, name)).settings
    for key, value in once.items():
        shares = key == "l1_ratio" or (key == "alpha" and "lambda" in once)
        factor = 1.0 if shares else 0.5 if key == "C" else 2.0
        assert twice[key] == pytest.approx(factor * value, rel=1e-12)


def test_the_expression_is_the_penalty():
    w = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    for mine, value in [
        ({"l1": 0.5}, 0.5 * 3.5),
        ({"l2": 0.5}, 0.5 * 5.25),
        ({"l1": 0.5, "l2": 2.0}, 0.5 * 3.5 + 2 * 5.25),
        ({"l1": 0.5, "group": 2.0}, 0.5 * 3.5 + 2 * math.sqrt(2) * (math.sqrt(1.25) + 2)),
        ({}, 0.0),
    ]:
        penalty = eval(convert("torchshrink", **mine).expression, {"ts": ts})
        assert penalty.value(w).item() == pytest.approx(value, rel=1e-12), mine


@pytest.mark.parametrize("name", [n for n in TOOLS if n.startswith("sklearn.")])
def test_the_expression_is_scikit_learns(name):
    import sklearn.linear_model
    import sklearn.neural_network

    mine = dict.fromkeys(TOOLS[name].terms, 0.1)
    conversion = (
        convert("torchshrink", to=name, **mine, rows=100, batch_size=50)
        if name != "sklearn.MultiTaskLasso"
        else convert("torchshrink", to=name, **mine, outputs=3)
    )
    estimator = eval(conversion.expression, vars(sklearn.linear_model) | vars(sklearn.neural_network))
    for key, value in conversion.settings.items():
        assert estimator.get_params()[key] == value


# --- what goes wrong ---

ERRORS = [
    ("sklearn.LogisticRegresion", {}, InputError, ["did you mean 'sklearn.LogisticRegression'?"]),
    ("LogisticRegression", {}, InputError, ["did you mean 'sklearn.LogisticRegression'?"]),
    ("sgd", {}, InputError, ["did you mean 'torch.SGD'?"]),
    ("qqqq", {}, InputError, ["expected one of torchshrink", "glmnet.gaussian"]),
    ("sklearn.Lasso", {"alpha": 1, "to": "tourchshrink"}, InputError, ["did you mean 'torchshrink'?"]),
    ("sklearn.Ridge", {"alpha": 1.0}, InputError, ["needs rows", "over which this tool adds its loss"]),
    ("sklearn.LogisticRegression", {}, InputError, ["needs C and rows", "inverse strength"]),
    ("sklearn.MLPClassifier", {"alpha": 1.0}, InputError, ["rows is missing", "batch_size"]),
    ("sklearn.MLPClassifier", {"alpha": 1.0, "solver": "lbfgs"}, InputError, ["rows is missing", "lbfgs"]),
    ("sklearn.MultiTaskLasso", {"alpha": 1.0}, InputError, ["needs outputs", "p_g"]),
    ("glmnet.gaussian", {"lambda": 1, "alpha": 0.5}, InputError, ["y_sd is missing", "variance 1"]),
    ("torch.SGD", {"weight_decay": 1, "loss": "mse_sum"}, InputError, ["rows is missing", "mse_sum"]),
    ("sklearn.Lasso", {"alhpa": 1.0}, InputError, ["alhpa is no parameter", "did you mean 'alpha'?"]),
    ("sklearn.Lasso", {"alpha": 1.0, "to": "keras.L1", "l1": 3}, InputError, ["l1", "leave it out"]),
    ("sklearn.Lasso", {"alpha": -1.0}, InputError, ["alpha=-1.0", "a finite number ≥ 0"]),
    ("sklearn.Lasso", {"alpha": math.nan}, InputError, ["alpha=nan"]),
    ("sklearn.Lasso", {"alpha": math.inf}, InputError, ["alpha=inf"]),
    ("sklearn.Lasso", {"alpha": "1"}, InputError, ["alpha='1'"]),
    ("sklearn.Lasso", {"alpha": True}, InputError, ["alpha=True"]),
    ("sklearn.ElasticNet", {"alpha": 1.0, "l1_ratio": 1.1}, InputError, ["l1_ratio=1.1", "from 0 to 1"]),
    ("sklearn.LogisticRegression", {"C": 0.0, "rows": 9}, InputError, ["C=0.0", "> 0"]),
    ("sklearn.LogisticRegression", {"C": 1.0, "rows": 9.5}, InputError, ["rows=9.5", "a whole number ≥ 1"]),
    ("sklearn.LogisticRegression", {"C": 1.0, "rows": 0}, InputError, ["rows=0"]),
    ("sklearn.LogisticRegression", {"C": 1, "rows": 9, "solver": "sgd"}, InputError, ["solver='sgd'", "liblinear"]),
    ("sklearn.LogisticRegression", {"C": 1e-320, "rows": 1}, InputError, ["beyond what a float can hold"]),
    ("glmnet.gaussian", {"lambda": 1, "outputs": 2}, InputError, ["outputs=2", "expected one of 1"]),
    ("timm.SGDW", {"weight_decay": 1, "momentum": 1.0}, InputError, ["momentum=1.0", "to below 1"]),
    ("torchshrink", {"l2": 0.0, "to": "sklearn.LogisticRegression", "rows": 9}, InputError, ["no finite C", "np.inf"]),
    ("keras.L2", {"l2": 1, "to": "sklearn.MLPClassifier", "rows": 9, "solver": "sgd", "to_solver": "adam"},
     InputError, ["solver and to_solver", "give one"]),
    ("torchshrink", {"l2": 1, "to": "sklearn.MLPClassifier", "rows": 9, "outputs": 2}, InputError, ["one logit"]),
    ("sklearn.Lasso", {"alpha": 1.0, "to": "sklearn.LogisticRegression", "rows": 9}, NoEquivalentError,
     ["squared errors", "log loss"]),
    ("torch.SGD", {"weight_decay": 1, "loss": "half_mse", "to": "glmnet.binomial"}, NoEquivalentError, ["squared"]),
    ("sklearn.Lasso", {"alpha": 1.0, "to": "torch.SGD"}, NoEquivalentError, ["torch.SGD has no L1", "keras.L1"]),
    ("torchshrink", {"group": 1.0, "to": "keras.L1L2"}, NoEquivalentError, ["no group lasso", "MultiTaskLasso"]),
    ("torchshrink", {"group": 1.0, "l2": 1.0}, NoEquivalentError, ["ts.GroupLasso and ts.L2"]),
    ("torch.AdamW", {"weight_decay": 0.01}, NoEquivalentError, ["AdamW", "‖w‖∞ ≤ 1/λ", "2404.04454", "ts.L2"]),
    ("torch.optim.AdamW", {}, NoEquivalentError, ["‖w‖∞ ≤ 1/λ"]),
    ("sklearn.Ridge", {"alpha": 1.0, "rows": 9, "to": "torch.Muon"}, NoEquivalentError, ["Muon", "‖W‖₂ ≤ r/λ"]),
    ("torch.Adam", {"weight_decay": 1, "decoupled_weight_decay": True}, NoEquivalentError, ["‖w‖∞ ≤ 1/λ"]),
    ("keras.L2", {"l2": 1, "to": "torch.NAdam", "decoupled_weight_decay": True}, NoEquivalentError, ["‖w‖∞ ≤ 1/λ"]),
    ("torch.Adam", {"weight_decay": 1, "decoupled_weight_decay": 1}, InputError, ["decoupled_weight_decay=1"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "arguments", "error", "parts"), ERRORS)
def test_errors_say_in_one_line_what_was_expected(source, arguments, error, parts):
    with pytest.raises(error) as caught:
        convert(source, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equivalent_is_refused_both_ways_with_a_way_out(name):
    for source, to in [(name, "torchshrink"), ("torchshrink", name)]:
        with pytest.raises(NoEquivalentError, match=r"use|add reg\.value\(\)"):
            convert(source, to=to)


def test_whose_parameter_it_is():
    assert convert("torch.SGD", weight_decay=1.0, loss="half_mse").settings["l2"] == 1.0  # the source's
    assert convert("torch.SGD", weight_decay=1.0, loss="half_mse", to_loss="half_mse").settings["l2"] == 0.5
    batches = convert("sklearn.MLPRegressor", to="sklearn.MLPRegressor", alpha=1.0, batch_size=10, to_batch_size=20)
    assert batches.settings == {"alpha": 2.0}
    both = convert("sklearn.MLPClassifier", to="sklearn.MLPClassifier", alpha=1.0, batch_size=10, rows=50,
                   to_solver="lbfgs")  # fmt: skip
    assert both.settings == {"alpha": 5.0}
    assert both.assumed["solver"] == "lbfgs"


def test_names_with_their_modules_and_numbers_of_numpy():
    long = convert("sklearn.linear_model.Ridge", to="torch.optim.SGD", alpha=np.float32(0.5), rows=np.int64(10))
    assert long.settings == {"weight_decay": 0.1}
    assert type(long.given["alpha"]) is float
    assert type(long.given["rows"]) is int


def test_a_conversion_is_a_frozen_value():
    conversion = convert("sklearn.Lasso", alpha=1.0)
    with pytest.raises(AttributeError):
        conversion.exact = False
    assert conversion == convert("sklearn.Lasso", alpha=1.0)
    assert str(conversion) == "sklearn.Lasso(alpha=1.0, outputs=1) = ts.L1(2.0)"


def test_converting_needs_neither_torch_nor_the_other_libraries():
    others = "('torch', 'sklearn', 'numpy')"
    code = f"import torchshrink.conversions, sys; sys.exit(any(m in sys.modules for m in {others}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_names_every_tool():
    page = (Path(__file__).parents[2] / "docs" / "conversions.md").read_text(encoding="utf-8")
    for name in (*TOOLS, *REFUSED):
        assert f"`{name}`" in page, name
