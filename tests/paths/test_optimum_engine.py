"""Paths whose optima are computed: when, against scikit-learn's, and with what is proved."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import Lasso, LassoCV
from sklearn.model_selection import KFold
from torch import nn

import torchshrink as ts
from torchshrink.paths.zero_pattern import apply_pattern

GIVEN = {"repeats": 1, "progress": False}


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    return torch.tensor(X), torch.tensor(y)


def least_squares(inputs=10):
    return lambda: nn.Sequential(nn.Linear(inputs, 1, dtype=torch.float64), nn.Flatten(0))


def solved(result):
    return str(result.settings["optimizer"]).startswith("none")


def test_a_lasso_path_is_scikit_learns():
    X, y = diabetes()
    folds = [held for _, held in KFold(5, shuffle=True, random_state=0).split(X)]
    peer = LassoCV(alphas=20, cv=KFold(5, shuffle=True, random_state=0), tol=1e-9, max_iter=10**5)
    peer.fit(X.numpy(), y.numpy())
    result = ts.path(least_squares(), (X, y), ts.L1, strengths=2 * peer.alphas_, folds=folds, **GIVEN)
    assert solved(result)
    assert "proof" in result.settings
    found = [[fold.validation_loss for fold in point.folds] for point in result.points[1:]]
    np.testing.assert_allclose(found, peer.mse_path_[::-1], rtol=1e-6)
    assert result.best.strength == pytest.approx(2 * peer.alpha_)
    model, certificate = result.refit(result.best.strength)
    np.testing.assert_allclose(model[0].weight[0].detach().numpy(), peer.coef_, atol=1e-6)
    assert certificate.gap <= 1e-12


@pytest.mark.parametrize("rescaled", [False, True])
def test_test_rows_judge_the_optima_in_the_target_s_own_unit(rescaled):
    """Not two trainings, which stop early, and not in the unit that is trained in."""
    X, y = diabetes()
    y = 50 + 7 * y
    end = ts.models.Rescale if rescaled else lambda: nn.Flatten(0)
    rows = list(range(100))

    def build():
        return nn.Sequential(nn.Linear(10, 1, dtype=torch.float64), end())

    result = ts.path(build, (X, y), ts.L1, strengths=3, test=rows, **GIVEN)
    assert solved(result)
    for told, strength in ((result.test.tuned_loss, "best"), (result.test.unpenalised_loss, 0.0)):
        model, _ = result.refit(strength)
        with torch.no_grad():
            assert told == pytest.approx((model(X[rows]) - y[rows]).square().mean().item(), rel=1e-9)


@pytest.mark.parametrize("penalty", [ts.L1, ts.L2, ts.ElasticNet(1.0, 1.0), ts.L1(1.0, weights=torch.ones(1, 10))])
def test_every_elastic_net_is_certified(penalty):
    result = ts.path(least_squares(), diabetes(), penalty, strengths=6, **GIVEN)
    assert solved(result)
    assert float(result.settings["proof"].split("at most ")[1].split()[0]) <= 1e-6
    _, certificate = result.refit(result.points[3].strength)
    assert certificate.relative <= 1e-6


def test_a_group_lasso_is_certified_and_its_pattern_kept(tmp_path):
    X, y = load_iris(return_X_y=True)
    X = torch.tensor(np.c_[X, np.random.default_rng(0).normal(size=(len(X), 4))]).float()
    arguments = (lambda: nn.Linear(8, 3), (X, torch.tensor(y)), ts.GroupLasso(1.0, dim=1))
    result = ts.path(*arguments, strengths=5, folds=3, folder=tmp_path, **GIVEN)
    assert solved(result)
    assert float(result.settings["proof"].split("at most ")[1].split()[0]) <= 1e-6
    assert all(fold.nonzero % 3 == 0 for point in result.points for fold in point.folds)
    assert 0 < result.points[3].nonzero < 24
    for point, patterns in zip(result.points, result.counts.patterns, strict=True):
        for fold, pattern in zip(point.folds, patterns, strict=True):
            model = arguments[0]()
            apply_pattern(model, pattern)
            assert int((model.weight != 0).sum()) == fold.nonzero
    again = ts.path(*arguments, strengths=5, folds=3, folder=tmp_path, **GIVEN)
    assert again.settings == result.settings


def test_what_is_not_convex_is_said_to_be_stationary(tmp_path):
    given = {"strengths": 4, "folds": 3, "folder": tmp_path} | GIVEN
    result = ts.path(least_squares(), diabetes(), ts.MCP, **given)
    assert solved(result)
    words = result.settings["proof"]
    assert "no minimum is proved" in words
    assert "above its minimum" not in words
    assert float(words.split("farther than ")[1].split()[0]) <= 1e-6
    _, certificate = result.refit(result.points[2].strength)
    assert certificate.relative <= 1e-6
    assert certificate.gap is None
    assert ts.path(least_squares(), diabetes(), ts.MCP, **given).settings == result.settings


LINEAR = """
import sys
import torch
from torch import nn
import torchshrink as ts
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
for y, outputs, loss in (
    (X[:, :1] + X[:, 1:2] ** 2, 1, None),
    ((X[:, :1] > X[:, 1:2] ** 2).float(), 1, nn.BCEWithLogitsLoss()),
    ((X[:, 0] > X[:, 1] ** 2).long(), 2, None),
):
    for penalty in (ts.L1, ts.MCP) if outputs == 1 else (ts.ElasticNet(1.0, 1.0), ts.GroupLasso):
        given = {"strengths": 2, "folds": 2, "repeats": 1, "loss": loss, "progress": False}
        result = ts.path(lambda: nn.Linear(4, outputs), (X, y), penalty, **given)
        assert "proof" in result.settings
print(sorted(name for name in sys.modules if name in ("torch._dynamo", "torch._inductor")))
"""


def test_a_path_that_is_solved_imports_no_compiler():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LINEAR], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_of_separable_classes_strength_0_has_no_optimum_and_the_verdict_says_so():
    X, y = load_breast_cancer(return_X_y=True)
    X = torch.tensor((X - X.mean(0)) / X.std(0))
    data = X, torch.tensor(y)
    result = ts.path(lambda: nn.Linear(30, 2, dtype=torch.float64), data, ts.L1, strengths=5, **GIVEN)
    assert solved(result)
    assert "5 of 5 folds have no optimum" in result.verdict.words
    assert math.isfinite(result.points[0].validation_loss)
    result.refit(0.0)


def test_a_relaxed_refit_is_least_squares_on_the_support():
    X, y = diabetes()
    result = ts.path(least_squares(), (X, y), ts.L1, strengths=[0.2], **GIVEN)
    plain, _ = result.refit(0.2)
    relaxed, _ = result.refit(0.2, relaxed=True)
    support = plain[0].weight[0].detach() != 0
    assert 0 < int(support.sum()) < 10
    A = torch.cat([X[:, support], torch.ones(len(X), 1)], 1)
    expected = torch.linalg.lstsq(A, y).solution
    torch.testing.assert_close(relaxed[0].weight[0].detach()[support], expected[:-1], rtol=1e-6, atol=1e-8)
    assert relaxed[0].weight[0].detach()[~support].eq(0).all()


def test_what_was_solved_is_not_solved_again(tmp_path, monkeypatch):
    arguments = (least_squares(), diabetes(), ts.L1)
    first = ts.path(*arguments, folder=tmp_path, strengths=4, **GIVEN)
    monkeypatch.setattr("torchshrink.paths.engines.optimum.solve", None)
    second = ts.path(*arguments, folder=tmp_path, strengths=4, **GIVEN)
    assert [point.to_dict() for point in first.points] == [point.to_dict() for point in second.points]
    assert first.settings == second.settings


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 2},
        {"batch_size": 500, "epochs": 1},
        {"optimizer": torch.optim.SGD, "epochs": 1},
        {"method": "latent"},
    ],
)
def test_who_says_how_to_train_has_it_trained(setting):
    setting = {"epochs": 1} | setting if "method" in setting else setting
    assert not solved(ts.path(least_squares(), diabetes(), ts.L1, strengths=2, folds=2, **setting, **GIVEN))


class Curved(nn.Linear):
    def forward(self, x):
        return super().forward(x).squeeze(1)


REFUSED = {
    "a hidden layer": (lambda: nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 1), nn.Flatten(0)), ts.L1, {}, "nn.Linear"),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Linear(10, 1), nn.Flatten(0)), ts.L1, {}, "Dropout"),
    "a class of one's own": (lambda: Curved(10, 1), ts.L1, {}, "Curved"),
    "no known kinks": (lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)), ts.NuclearNorm, {}, "NuclearNorm"),
    "a group penalty on the bias too": (
        lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)),
        ts.GroupLasso,
        {"on": ts.ALL},
        "bias",
    ),
    "a loss of one's own": (
        lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)),
        ts.L1,
        {"loss": lambda output, y: (output - y).abs().mean()},
        "no dual",
    ),
    "epochs": (lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)), ts.L1, {"epochs": 3}, "epochs"),
    "warm starts": (lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)), ts.L1, {"order": "warm"}, "order"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_solved_is_refused_if_asked_for(case):
    build, penalty, more, named = REFUSED[case]
    X, y = diabetes()
    with pytest.raises(ts.errors.InputError, match=named) as message:
        ts.path(build, (X.float(), y.float()), penalty, strengths=2, engine="optimum", **more, **GIVEN)
    assert "\n" not in str(message.value)


def test_a_refit_in_float32_is_scikit_learns_to_its_rounding():
    X, y = diabetes()
    build = lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0))  # noqa: E731
    result = ts.path(build, (X.float(), y.float()), ts.L1, strengths=[0.1], **GIVEN)
    model, _ = result.refit(0.1)
    peer = Lasso(0.05, tol=1e-14, max_iter=10**6).fit(X.numpy(), y.numpy())
    assert np.abs(model[0].weight[0].detach().numpy() - peer.coef_).max() <= 1e-6
    assert ((model[0].weight[0] == 0).numpy() == (peer.coef_ == 0)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [ts.L1, ts.L2, ts.GroupLasso(1, dim=1), ts.MCP])
@pytest.mark.parametrize("target", ["number", "two classes", "three classes"])
def test_features_that_depend_on_each_other_do_not_spoil_the_model_without_penalty(target, penalty, dtype):
    """Levels of categories that sum to one, a copy, a sum of others: no penalised model fits its rows better."""
    rng = np.random.default_rng(0)
    rows = 240
    numbers, city, kind = rng.normal(size=(rows, 4)), rng.integers(0, 5, rows), rng.integers(0, 3, rows)
    columns = [numbers, np.eye(5)[city], np.eye(3)[kind], numbers[:, :1], numbers[:, :1] + numbers[:, 1:2]]
    X = np.concatenate(columns, 1)
    X = (X - X.mean(0)) / X.std(0)
    signal = numbers[:, 0] + 0.5 * city + 2 * rng.normal(size=rows)
    outputs, y = {
        "number": (1, torch.tensor(signal[:, None], dtype=dtype)),
        "two classes": (2, torch.tensor(signal > 1).long()),
        "three classes": (3, torch.tensor(np.digitize(signal, [0, 2]))),
    }[target]

    def build():
        return nn.Linear(X.shape[1], outputs, dtype=dtype)

    data = torch.tensor(X, dtype=dtype), y
    few, more = (ts.path(build, data, penalty, strengths=s, folds=3, **GIVEN) for s in ([1e-3], [1e-4, 1e-2]))
    assert solved(few)
    for result in (few, more):
        losses = [point.train_loss for point in result.points]
        assert all(later >= before * (1 - 1e-9) for before, later in itertools.pairwise(losses))
    assert few.points[0].train_loss == pytest.approx(more.points[0].train_loss, rel=1e-9)
    assert few.points[0].train_loss == pytest.approx(more.points[1].train_loss, rel=1e-3)
    if target == "number":
        held = [fold.validation_loss for fold in few.points[0].folds]
        assert max(held) < 2 * np.var(signal)
        model, _ = few.refit(0.0)
        wide = data[0].double().numpy()
        wanted = wide @ np.linalg.lstsq(np.c_[wide, np.ones(rows)], signal, rcond=1e-5)[0][:-1]
        found = (model(data[0]) - model.bias).detach().double().numpy()[:, 0]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
