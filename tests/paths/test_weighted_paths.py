"""Weights and labels in paths: lanes, the exact top of the grid, and what tells two journals apart."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from torch import nn

import torchshrink as ts
from path_cases import iris, spec_for
from torchshrink.errors import InputError
from torchshrink.models import mlp
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.grid import exact_top
from torchshrink.paths.penalty_family import families, family
from torchshrink.regularizer.selection import WEIGHTS

F64 = torch.float64
STRENGTHS = (0.0, 1e-3, 0.1)
FACTORS = torch.linspace(0, 3, 16)
LABELS = [0, 0, 1, 2, 2, 2, 3, 0, 4, 4, 5, 6, 6, 6, 6, 7]

FAMILIES = {
    "l1": ts.L1(1.0, weights=FACTORS),
    "l2": ts.L2(1.0, weights=FACTORS),
    "elastic net": ts.ElasticNet(1, 1, weights=FACTORS),
    "mcp": ts.MCP(1.0, weights=FACTORS),
    "group lasso": ts.GroupLasso(1.0, dim=1, weights=FACTORS),
    "labels": ts.GroupLasso(1.0, dim=1, labels=LABELS, weights=FACTORS[:8]),
    "sparse labels": ts.SparseGroupLasso(1, 1, dim=1, labels=LABELS),
    "size": ts.GroupLasso(1.0, dim=(0, 1), size=(2, 4)),
}


ADAM, SGD = partial(torch.optim.Adam, lr=0.03), partial(torch.optim.SGD, lr=0.01, momentum=0.9)


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((name, ADAM) for name in FAMILIES), *((name, SGD) for name in ("l1", "l2", "labels"))]
)
def test_lanes_end_where_single_trainings_end(name, optimizer):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(48, 16, generator=generator, dtype=F64)
    tuned = families(lambda s: {"hidden1.weight": FAMILIES[name].with_strength(s)})
    spec = spec_for(
        lambda: mlp(16, 3, hidden=(8,)).double(), (X, X[:, :3].argmax(1)), tuned, epochs=4, optimizer=optimizer,
        batch_size=6, loss=None, seed=3, device=None, on=WEIGHTS, method="auto",
    )  # fmt: skip
    folds = dict(enumerate(make_folds(spec.y, 2, seed=0)))
    stack = Stack(spec, folds, tuned[0], STRENGTHS)
    assert not stack.train().any()
    plain_zeros = 0
    for f, (number, fold) in enumerate(folds.items()):
        for s, strength in enumerate(STRENGTHS):
            model, _ = spec.train(tuned[0].make(strength), spec.X[fold.train], spec.y[fold.train], part=number)
            for parameter, wanted in model.named_parameters():
                torch.testing.assert_close(stack.parameters[parameter][f, s].data, wanted.data, rtol=0, atol=1e-9)
            plain_zeros += int((model.hidden1.weight == 0).sum())
    assert name == "l2" or plain_zeros > 0


def linear(inputs):
    return nn.Sequential(nn.Linear(inputs, 1), nn.Flatten(0))


def spec(build, data, penalty):
    return spec_for(
        build, data, [family(penalty)], epochs=1, batch_size=64, loss=None, optimizer=None, seed=0, device=None,
        on=WEIGHTS, method="auto",
    )  # fmt: skip


class TestExactTop:
    """On the diabetes data, whose targets' mean squared error has gradients of twice the covariances."""

    def test_is_the_largest_gradient_over_its_factor(self):
        X, y = load_diabetes(return_X_y=True)
        factors = np.linspace(0.5, 4, 10)
        penalty = ts.L1(1.0, weights=factors)
        wanted = (2 * np.abs((X - X.mean(0)).T @ (y - y.mean())) / len(y) / factors).max()
        assert exact_top(spec(lambda: linear(10), (X, y), penalty), family(penalty)) == pytest.approx(wanted, rel=1e-7)

    @pytest.mark.parametrize("dataset", [False, True])
    def test_fits_what_is_exempt_beforehand_like_what_is_unpenalised(self, dataset):
        X, y = load_diabetes(return_X_y=True)
        X = X / X.std(0)
        factors = np.ones(10)
        factors[[2, 8]] = 0
        left = y - LinearRegression().fit(X[:, [2, 8]], y).predict(X[:, [2, 8]])
        wanted = 2 * np.abs(np.delete(X, [2, 8], 1).T @ left).max() / len(y)
        penalty = ts.L1(1.0, weights=factors)
        data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(y)) if dataset else (X, y)
        found = exact_top(spec(lambda: linear(10).double(), data, penalty), family(penalty))
        assert found == pytest.approx(wanted, rel=1e-6)
        unweighted = exact_top(spec(lambda: linear(10).double(), data, ts.L1), family(ts.L1))
        assert unweighted > 1.5 * found

    def test_of_labels_is_a_norm_over_the_root_of_their_number(self):
        X, y = load_diabetes(return_X_y=True)
        g = 2 * (X - X.mean(0)).T @ (y - y.mean()) / len(y)
        labels = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
        norms = [np.linalg.norm(g[labels == each]) / math.sqrt((labels == each).sum()) for each in range(4)]
        penalty = ts.GroupLasso(1.0, dim=1, labels=labels)
        assert exact_top(spec(lambda: linear(10), (X, y), penalty), family(penalty)) == pytest.approx(
            max(norms), rel=1e-7
        )


def test_a_path_over_a_weighted_template():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X / X.std(0)).astype("f4"), ((y - y.mean()) / y.std()).astype("f4")
    factors = np.ones(10)
    factors[8] = 0
    settings = {"strengths": 3, "folds": 2, "repeats": 1, "epochs": 15, "batch_size": 64, "progress": False}
    optimizer = partial(torch.optim.Adam, lr=0.02)
    by_lanes, one_by_one = (
        ts.path(lambda: linear(10), (X, y), ts.L1(1.0, weights=factors), optimizer=optimizer, engine=engine, **settings)
        for engine in ("lanes", "sequential")
    )
    top = by_lanes.points[-1]
    assert by_lanes.grid.how == "exact"
    assert top.nonzero == pytest.approx(one_by_one.points[-1].nonzero, abs=0.4)
    assert 1 <= top.nonzero < 3  # what is exempt stays
    assert "weights=<10 " in by_lanes.settings["at strength 1"]
    for a, b in zip(by_lanes.points, one_by_one.points, strict=True):
        assert a.validation_loss == pytest.approx(b.validation_loss, rel=1e-4)
    model, certificate = by_lanes.refit(top.strength)
    assert model[0].weight[0, 8] != 0
    assert certificate.relative < 0.2


def test_a_journal_of_other_weights_or_labels_is_another_s(tmp_path):
    settings = {"strengths": (0.0, 0.01), "folds": 2, "repeats": 1, "epochs": 1, "progress": False}
    cases = {
        "weights": [ts.L1(1.0, weights=(1.0, 2.0, 0.0, 1.0)), ts.L1(1.0, weights=(1.0, 2.0, 0.5, 1.0)), ts.L1(1.0)],
        "labels": [
            ts.GroupLasso(1.0, dim=1, labels=(0, 0, 1, 1)),
            ts.GroupLasso(1.0, dim=1, labels=(0, 1, 1, 1)),
            ts.GroupLasso(1.0, dim=1, size=2),
        ],
    }
    for name, (first, *others) in cases.items():
        folder = tmp_path / name
        build = partial(nn.Linear, 4, 3)
        before = ts.path(build, iris(), first, folder=folder, **settings)
        again = ts.path(build, iris(), first.with_strength(7.0), folder=folder, **settings)  # the same family
        assert again.to_dict()["points"] == before.to_dict()["points"]
        for other in others:
            with pytest.raises(InputError, match="of other trainings"):
                ts.path(build, iris(), other, folder=folder, **settings)


def test_what_does_not_fit_the_model_is_told_before_any_training():
    with pytest.raises(InputError, match=r"weight, of shape \(3, 4\): weights of shape \(3,\) given") as caught:
        ts.path(partial(nn.Linear, 4, 3), iris(), ts.L1(1.0, weights=(1, 2, 3)), progress=False)
    assert "\n" not in str(caught.value)
