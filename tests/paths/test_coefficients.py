"""``result.coefficients()``: held to scikit-learn's paths, and to what the refitted models do with a raw row."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, lasso_path
from torch import nn

import torchshrink as ts
from torchshrink.errors import DivergenceWarning, InputError
from torchshrink.models import Preprocess, mlp
from torchshrink.report.words import input_names

QUICK = {"folds": 2, "repeats": 1, "progress": False}


def diabetes():
    found = load_diabetes(as_frame=True, scaled=False)
    return found.data, found.target.astype(float)


def rows(d=6, classes=3, n=90):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.arange(n) % classes


def test_a_lasso_is_scikit_learns_path():
    X, y = diabetes()
    scaled = X.to_numpy() / 30
    strengths = [0.5, 5.0, 50.0, 500.0]
    build = lambda: nn.Sequential(nn.Linear(10, 1, dtype=torch.float64), nn.Flatten(0))  # noqa: E731
    found = ts.path(build, (scaled, y), ts.L1, strengths=strengths, **QUICK).coefficients(progress=False)
    centred = scaled - scaled.mean(0)
    alphas = [strength / 2 for strength in strengths]  # scikit-learn's has ½ before the mean of squares
    _, expected, _ = lasso_path(centred, y - y.mean(), alphas=alphas, tol=1e-12, max_iter=100_000)
    np.testing.assert_allclose(
        found[strengths].to_numpy(), expected[:, np.argsort(np.argsort(alphas)[::-1])], atol=2e-3
    )
    assert list(found.columns) == [0.0, *strengths]
    assert list(found.index) == [f"x{k}" for k in range(10)]
    assert (found == 0).sum().is_monotonic_increasing


def test_a_lasso_of_standardised_columns_is_in_the_raw_units(tmp_path):
    X, y = diabetes()
    strengths = [0.05, 0.2, 0.8]
    found = ts.path(lambda: mlp(10, 1, hidden=(), regression=True), (X, y), ts.L1, strengths=strengths, **QUICK)
    table = found.coefficients(strengths, progress=False)
    standard, z = (X - X.mean()) / X.std(ddof=0), (y - y.mean()) / y.std(ddof=0)
    _, expected, _ = lasso_path(standard, z, alphas=[strength / 2 for strength in strengths], tol=1e-12)
    raw = expected * float(y.std(ddof=0)) / X.std(ddof=0).to_numpy()[:, None]
    np.testing.assert_allclose(table.to_numpy(), raw[:, ::-1], rtol=1e-3, atol=1e-5)
    assert list(table.index) == list(X.columns)  # which the rows brought with them
    assert (table.index.name, table.columns.name) == ("input", "strength")
    found.report(tmp_path / "report.html")  # goes by these names as well
    assert input_names(found.view(), found.view().parts[0]) == list(X.columns)
    assert "bmi" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_logistic_regression_of_several_classes_is_scikit_learns():
    X, y = rows()
    found = ts.path(lambda: nn.Linear(6, 3, dtype=torch.float64), (X.double(), y), ts.L2, strengths=[0.1], **QUICK)
    table = found.coefficients(progress=False)
    own = LogisticRegression(C=1 / (2 * 0.1 * len(X)), tol=1e-10, max_iter=10_000).fit(X.double().numpy(), y.numpy())
    np.testing.assert_allclose(table[0.1].unstack().to_numpy(), own.coef_, atol=1e-5)
    assert table.index.names == ["output", "input"]
    assert list(table.loc[2].index) == [f"x{k}" for k in range(6)]


@pytest.mark.parametrize("regression", [False, True])
def test_a_coefficient_is_what_one_unit_of_a_raw_number_does(regression):
    generator = torch.Generator().manual_seed(1)
    X = torch.stack([
        1e3 * torch.randn(120, generator=generator), torch.arange(120) % 3, torch.rand(120, generator=generator),
        torch.arange(120) % 2,
    ], 1).double()  # fmt: skip
    y = 50 * X[:, 2] + X[:, 1] if regression else (X[:, 0] / 1e3 + X[:, 1] > 1).long()
    sizes = [0, 3, 0, 2]
    build = lambda: mlp(sizes, 1 if regression else 2, hidden=(), regression=regression)  # noqa: E731
    result = ts.path(build, (X, y), ts.L2, strengths=[0.01], **QUICK)
    table = result.coefficients([0.01], names=["money", "colour", "share", "sex"], progress=False)[0.01]
    model, _ = result.refit(0.01)
    row = torch.tensor([[100.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        base = model(row).double()
        for name, place, step in (("money", 0, 1000.0), ("share", 2, 0.25)):
            moved = row.clone()
            moved[0, place] += step
            change = (model(moved).double() - base).flatten() / step
            expected = table[name] if regression else table[:, name]
            np.testing.assert_allclose(change, expected, rtol=1e-3, atol=1e-6)
        other = row.clone()
        other[0, 1] = 2.0
        change = (model(other).double() - base).flatten()
    levels = [table[each] if regression else table[:, each].to_numpy() for each in ("colour=2", "colour=0")]
    np.testing.assert_allclose(change, levels[0] - levels[1], rtol=1e-3, atol=1e-4)
    names = ["money", "colour=0", "colour=1", "colour=2", "share", "sex=0", "sex=1"]
    assert list(table.index if regression else table[0].index) == names


@pytest.mark.parametrize("order", ["cold", "warm"])
def test_of_a_network_they_are_the_norms_of_what_reads_an_input(order):
    X, y = rows()
    network = lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))  # noqa: E731
    result = ts.path(network, (X, y), ts.GroupLasso(1, dim=1), strengths=[0.01, 0.3], epochs=3, order=order, **QUICK)
    table = result.coefficients([0.3, 0.0, 0.1], progress=False)
    assert list(table.columns) == [0.3, 0.0, 0.1]  # as they were asked for
    for strength in table.columns:
        weight = result.refit(strength)[0][0].weight.detach().double()
        np.testing.assert_allclose(table[strength], torch.linalg.vector_norm(weight, dim=0), rtol=1e-12)
    assert (table[0.0] > 0).all()


def test_a_warm_path_is_gone_once(monkeypatch):
    from torchshrink.paths.training_spec import TrainingSpec

    X, y = rows()
    network = lambda: nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 3))  # noqa: E731
    result = ts.path(network, (X, y), ts.L1, strengths=[0.01, 0.02, 0.3], epochs=1, order="warm", **QUICK)
    trained, train = [], TrainingSpec.train
    monkeypatch.setattr(TrainingSpec, "train", lambda self, *a, **k: trained.append(1) or train(self, *a, **k))
    result.coefficients(progress=False)
    assert len(trained) == 4


def test_of_a_convolution_they_are_by_channel_and_of_an_image_by_place():
    images = torch.randn(40, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    convolution = lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))  # noqa: E731
    result = ts.path(convolution, (images, y), ts.L1, strengths=[0.01], epochs=1, **QUICK)
    table = result.coefficients(progress=False)
    weight = result.refit(0.01)[0][0].weight.detach().double()
    np.testing.assert_allclose(table[0.01], weight.square().sum((0, 2, 3)).sqrt(), rtol=1e-12)
    assert (list(table.index), table.index.name) == (["channel 0", "channel 1"], "channel")
    flat = ts.path(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), (images, y), ts.L1, strengths=[0.1], **QUICK)
    assert list(flat.coefficients(progress=False).loc[0].index)[:6] == [
        "x[0, 0, 0]", "x[0, 0, 1]", "x[0, 0, 2]", "x[0, 0, 3]", "x[0, 1, 0]", "x[0, 1, 1]"
    ]  # fmt: skip


def test_where_a_training_diverged_there_is_nothing():
    X, y = rows()
    steep = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    build = lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        settings = {"method": "loss", "optimizer": steep, "epochs": 60} | QUICK
        result = ts.path(build, (X, y), ts.L2, strengths=[1e-3, 50.0], **settings)
    table = result.coefficients(progress=False)
    assert table[50.0].isna().all()
    assert table[[0.0, 1e-3]].notna().all(axis=None)


def test_several_penalties_give_the_best_ones():
    X, y = rows()
    result = ts.path(lambda: nn.Linear(6, 3), (X, y), [ts.L1, ts.L2], strengths=[0.01], **QUICK)
    table = result.best.coefficients(progress=False)
    pd.testing.assert_frame_equal(result.coefficients(progress=False), table)
    best = result.best
    named = result.coefficients(["best", best.points[0], "one_se"], progress=False)
    pd.testing.assert_frame_equal(named, table[[best.best.strength, 0.0, best.one_se.strength]])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"names": ["a"]}, "names: 1 given, 6 expected"),
        ({"strengths": [-1.0]}, "strength=-1.0: a finite number"),
        ({"strengths": [float("nan")]}, "strength=nan: a finite number"),
        ({"strengths": [True]}, "strength=True: a finite number"),
        ({"strengths": ["worst"]}, "strength='worst': expected a number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(asked, said):
    X, y = rows()
    result = ts.path(lambda: nn.Linear(6, 3), (X, y), ts.L1, strengths=[0.01], **QUICK)
    with pytest.raises(InputError, match=said) as caught:
        result.coefficients(**asked, progress=False)
    assert "\n" not in str(caught.value)


def test_a_loaded_path_and_a_model_without_such_a_layer_say_so(tmp_path):
    X, y = rows()
    result = ts.path(lambda: nn.Linear(6, 3), (X, y), ts.L1, strengths=[0.01], **QUICK)
    result.save(tmp_path)
    with pytest.raises(InputError, match="loaded from a file"):
        ts.load_path(tmp_path).coefficients()
    words = torch.randint(0, 9, (40, 3), generator=torch.Generator().manual_seed(0))
    bag = lambda: nn.EmbeddingBag(9, 2)  # noqa: E731
    embedded = ts.path(bag, (words, torch.arange(40) % 2), ts.L1, strengths=[0.01], epochs=1, **QUICK)
    with pytest.raises(InputError, match="EmbeddingBag: it has no linear"):
        embedded.coefficients(progress=False)


def test_a_preprocess_that_has_been_narrowed_keeps_its_names():
    from torchshrink.paths.coefficients import _encoded

    narrowed = Preprocess([0, 3, 0]).narrowed([1, 3, 4])
    assert list(_encoded(narrowed, ["a", "b", "c"])) == ["b=0", "b=2", "c"]
