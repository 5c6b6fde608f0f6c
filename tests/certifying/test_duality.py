"""Duality gaps against optima of scikit-learn, and against the definition of a dual."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression
from torch import nn

import torchshrink as ts
from torchshrink.certifying.conjugates import Logistic, Softmax, Squares
from torchshrink.certifying.duality import duality_gap
from torchshrink.errors import InputError, NoDualError, UnsettledDualError
from torchshrink.models import fit_preprocessing, mlp


def standardised(X):
    return torch.tensor((X - X.mean(0)) / X.std(0))


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return standardised(X), torch.tensor(y)[:, None]


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return standardised(X)[:, :8], torch.tensor(y)


def linear(weight, bias):
    weight = torch.as_tensor(np.atleast_2d(weight))
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.as_tensor(np.atleast_1d(bias)))
    return layer


def nudged(layer, size):
    with torch.no_grad():
        for p in layer.parameters():
            p += size * torch.randn_like(p)
    return layer


# (l1, l2) beside scikit-learn's ½·MSE and ½·l2·w². nn.MSELoss and our L2 have no ½: l1 doubles, l2 stays.
@pytest.mark.parametrize(("l1", "l2"), [(5.0, 0.0), (5.0, 0.3), (0.0, 0.3)])
@pytest.mark.parametrize("size", [1e-3, 0.1, 3.0])
def test_linear_gap_bounds_the_suboptimality_and_vanishes_at_the_optimum(diabetes, l1, l2, size):
    X, y = diabetes
    alpha, ratio = l1 + l2, l1 / (l1 + l2)
    if ratio == 1:
        fitted = Lasso(alpha=alpha, tol=1e-15, max_iter=100_000).fit(X.numpy(), y.numpy().ravel())
        w, b = fitted.coef_, fitted.intercept_
    elif ratio > 0:
        fitted = ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-15, max_iter=100_000).fit(X.numpy(), y.numpy().ravel())
        w, b = fitted.coef_, fitted.intercept_
    else:
        b = float(y.mean())
        w = torch.linalg.solve(X.T @ X / len(X) + l2 * torch.eye(10, dtype=X.dtype), X.T @ (y - b) / len(X)).T
    penalty = ts.ElasticNet(l1=2 * l1, l2=l2) if l1 and l2 else ts.L1(2 * l1) if l1 else ts.L2(l2)
    best = linear(w, b)
    optimum = ts.duality_gap(best, (X, y), ts.Regularizer(best, penalty))
    assert 0 <= optimum.gap <= 1e-9 * optimum.objective
    other = nudged(linear(w, b), size)
    there = ts.duality_gap(other, (X, y), ts.Regularizer(other, penalty))
    assert there.gap >= there.objective - optimum.objective - 1e-9 * optimum.objective > 0
    assert there.bound <= optimum.objective * (1 + 1e-12)


@pytest.mark.parametrize("form", ["one logit", "two logits"])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_binary_logistic_gap(cancer, form, C):
    X, y = cancer
    fitted = LogisticRegression(C=C, solver="saga", l1_ratio=1.0, tol=1e-12, max_iter=100_000).fit(X.numpy(), y.numpy())
    w, b, strength = fitted.coef_, fitted.intercept_, 1 / (len(y) * C)
    if form == "one logit":
        loss, target = nn.BCEWithLogitsLoss(), y[:, None].double()
    else:  # of (−w/2, w/2) the L1 norm is that of w
        loss, target, w, b = nn.CrossEntropyLoss(), y, np.vstack([-w / 2, w / 2]), np.concatenate([-b / 2, b / 2])
    best = linear(w, b)
    optimum = ts.duality_gap(best, (X, target), ts.Regularizer(best, ts.L1(strength)), loss=loss)
    assert 0 <= optimum.gap <= 1e-9
    for size in (1e-4, 0.1, 2.0):
        other = nudged(linear(w, b), size)
        there = ts.duality_gap(other, (X, target), ts.Regularizer(other, ts.L1(strength)), loss=loss)
        assert there.gap >= there.objective - optimum.objective - 1e-12


@pytest.mark.parametrize("penalty", [ts.L1(0.02), ts.ElasticNet(0.02, 0.01), ts.L2(0.01)], ids=str)
@pytest.mark.parametrize("on", [ts.WEIGHTS, ts.ALL], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multinomial_gap_vanishes_where_polish_ends(penalty, on, smoothing):
    X, y = load_iris(return_X_y=True)
    data, loss = (standardised(X), torch.tensor(y)), nn.CrossEntropyLoss(label_smoothing=smoothing)
    model = nn.Linear(4, 3, dtype=torch.float64)
    reg = ts.Regularizer(model, penalty, on=on)
    start = ts.duality_gap(model, data, reg, loss=loss)
    polished = ts.polish(model, data, reg, loss=loss, tol=1e-9)
    end = ts.duality_gap(model, data, reg, loss=loss)
    assert polished.converged
    assert end.gap <= 1e-8
    assert polished.certificate.gap == end.gap
    assert start.bound <= end.objective + 1e-12
    assert start.gap >= start.objective - end.objective


def test_it_sees_through_preprocessing_and_rescaling():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    X[3, 2] = math.nan
    model = mlp(10, 1, hidden=(), regression=True)
    fit_preprocessing(model, X, y)
    model.double()
    reg = ts.Regularizer(model, ts.L1(300.0))
    assert ts.polish(model, (X, y), reg, tol=1e-8).converged
    certificate = ts.certify(model, (X, y), reg)
    assert 0 <= certificate.gap <= 1e-7 * certificate.objective
    assert "convex" in certificate.proves


def test_probabilities_are_targets_like_the_classes_that_they_stand_for():
    X, codes = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    model = nn.Linear(4, 3, dtype=torch.float64)
    reg = ts.Regularizer(model, ts.L1(0.05))
    hard, soft = nn.functional.one_hot(codes, 3).double(), torch.rand(30, 3, dtype=torch.float64).softmax(1)
    loss = nn.CrossEntropyLoss()
    by_codes = ts.duality_gap(model, (X, codes), reg, loss=loss)
    assert ts.duality_gap(model, (X, hard), reg, loss=loss).gap == pytest.approx(by_codes.gap, rel=1e-12)
    before = ts.duality_gap(model, (X, soft), reg, loss=loss)
    ts.polish(model, (X, soft), reg, loss=loss, tol=1e-9)
    after = ts.duality_gap(model, (X, soft), reg, loss=loss)
    assert 0 <= after.gap <= 1e-8 < before.objective - after.objective <= before.gap


@pytest.mark.parametrize("left_out", [-100, 3])
def test_rows_that_the_loss_leaves_out_have_no_dual_here(left_out):
    model, y = nn.Linear(4, 3), torch.arange(30) % 3
    y[0] = left_out
    data, reg = (torch.randn(30, 4), y), ts.Regularizer(model, ts.L1(0.05))
    with pytest.raises(NoDualError, match="with these targets"):
        ts.duality_gap(model, data, reg, loss=nn.CrossEntropyLoss(ignore_index=left_out))


def test_a_class_or_an_answer_that_never_occurs_still_has_a_bound():
    X = torch.randn(30, 4, dtype=torch.float64)
    model = nn.Linear(4, 3, dtype=torch.float64)
    two = torch.randint(0, 2, (30,))
    gap = ts.duality_gap(model, (X, two), ts.Regularizer(model, ts.L1(0.05)))
    assert 0 <= gap.gap < math.inf
    ones = torch.ones(30, 3, dtype=torch.float64)
    gap = ts.duality_gap(model, (X, ones), ts.Regularizer(model, ts.L1(0.05)), loss=nn.BCEWithLogitsLoss())
    assert gap.bound == pytest.approx(0, abs=1e-12)  # the intercept alone can make the loss 0


@pytest.mark.parametrize(
    "row_loss",
    [
        Squares(torch.randn(5, 2, dtype=torch.float64), 0.3),
        Logistic(torch.rand(5, 2, dtype=torch.float64), 0.5),
        Softmax(torch.rand(5, 3, dtype=torch.float64).softmax(1)),
    ],
    ids=lambda row_loss: type(row_loss).__name__,
)
def test_fenchel_young_is_its_definition(row_loss):
    """FY(z, u) = sup over z' of f(z) − f(z') − <u, z − z'>, found by descent; 0 at u = f'(z)."""
    Z = torch.randn_like(row_loss.target)
    U = 0.7 * row_loss.slopes(torch.randn_like(Z))
    closed = row_loss.fenchel_young(Z, U)
    assert torch.allclose(row_loss.fenchel_young(Z, row_loss.slopes(Z)), torch.zeros(5, dtype=Z.dtype), atol=1e-15)
    free = torch.zeros_like(Z, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=500, tolerance_grad=1e-13, line_search_fn="strong_wolfe")

    def f(z):
        if isinstance(row_loss, Squares):
            return row_loss.a * (z - row_loss.target).square().sum(1)
        if isinstance(row_loss, Logistic):
            return row_loss.a * (nn.functional.softplus(z) - row_loss.target * z).sum(1)
        return z.logsumexp(1) - (row_loss.target * z).sum(1)

    def closure():
        optimizer.zero_grad()
        value = (f(free) - (U * free).sum(1)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        expected = f(Z) - (U * Z).sum(1) - f(free) + (U * free).sum(1)
    assert torch.allclose(closed, expected, atol=1e-9)


@pytest.mark.parametrize("row_loss", [Logistic, Softmax])
def test_the_intercept_is_optimal_first(row_loss):
    target = torch.nn.functional.one_hot(torch.randint(0, 3, (40,)), 3).double()
    made = row_loss(target, 1 / 3) if row_loss is Logistic else row_loss(target)
    U = made.with_intercept(5 * torch.randn(40, 3, dtype=torch.float64) + torch.tensor([30.0, 0.0, -20.0]))
    assert float(U.mean(0).abs().max()) <= 1e-14


@pytest.mark.parametrize(
    ("model", "penalty", "loss", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), ts.L1(0.1), None, "not convex"),
        (lambda: nn.Sequential(nn.Linear(4, 1), nn.Tanh()), ts.L1(0.1), None, "Tanh after"),
        (lambda: nn.Linear(4, 1), ts.MCP(0.1), None, "MCP"),
        (lambda: nn.Linear(4, 1), ts.L1(0.0), None, "not penalised"),
        (lambda: nn.Linear(4, 1), ts.L1(0.1), nn.HuberLoss(), "HuberLoss"),
        (lambda: nn.Linear(4, 1), ts.L1(0.1), nn.BCEWithLogitsLoss(pos_weight=torch.ones(1)), "BCEWithLogits"),
    ],
)
def test_what_has_no_dual_is_named_and_certified_without_a_gap(model, penalty, loss, message):
    built = model()
    data = (torch.randn(20, 4), torch.rand(20, 1))
    reg = ts.Regularizer(built, penalty)
    with pytest.raises(NoDualError, match=message):
        ts.duality_gap(built, data, reg, loss=loss)
    certificate = ts.certify(built, data, reg, loss=loss)
    assert certificate.gap is None
    assert "above its minimum" not in str(certificate)


def test_rows_of_several_feature_vectors_have_no_dual_here():
    model = nn.Linear(4, 1)
    data = (torch.randn(6, 5, 4), torch.randn(6, 5, 1))
    with pytest.raises(NoDualError, match=r"takes \(6, 5, 4\) for 6 rows: one row of features expected"):
        ts.duality_gap(model, data, ts.Regularizer(model, ts.L1(0.1)))


@pytest.mark.parametrize("penalty", [ts.L1(0.02), ts.ElasticNet(0.02, 0.01)], ids=str)
def test_a_penalised_intercept_is_the_weight_of_a_column_of_ones(penalty):
    X, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    with_bias, without = nn.Linear(4, 3, dtype=torch.float64), nn.Linear(5, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        without.weight.copy_(torch.cat([with_bias.weight, with_bias.bias[:, None]], dim=1))
    one = ts.duality_gap(with_bias, (X, y), ts.Regularizer(with_bias, penalty, on=ts.ALL))
    wide = torch.cat([X, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    two = ts.duality_gap(without, (wide, y), ts.Regularizer(without, penalty))
    assert one.gap > 0.01
    assert (one.gap, one.objective) == pytest.approx((two.gap, two.objective), rel=1e-10)


def test_a_frozen_bias_has_no_dual_here():
    model = nn.Linear(4, 1)
    model.bias.requires_grad_(False)
    with pytest.raises(NoDualError, match="frozen"):
        ts.duality_gap(model, (torch.randn(9, 4), torch.randn(9, 1)), ts.Regularizer(model, ts.L1(0.1)))


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].weight.grad = torch.ones(2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ts.certify(model, (torch.randn(9, 4), torch.randint(0, 2, (9,))), ts.Regularizer(model, ts.L1(0.1)))
    assert model.training
    assert bool((model[0].weight.grad == 1).all())
    assert all(
        value.dtype == torch.float32 and torch.equal(value, before[n]) for n, value in model.state_dict().items()
    )
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("factor", [1.0, 100.0, 1e4, 1e6])
def test_the_gap_does_not_depend_on_the_targets_units(diabetes, factor):
    X, y = diabetes
    layer = nn.Linear(10, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)

    def gap(scale, model):
        return ts.certify(model, (X, scale * y), ts.Regularizer(model, ts.L1(5.0 * scale))).gap

    one = copy.deepcopy(layer)
    with torch.no_grad():
        one.weight.div_(factor)
        one.bias.div_(factor)
    assert gap(factor, layer) == pytest.approx(factor**2 * gap(1.0, one), rel=1e-6)


def test_a_numerical_failure_is_not_taken_for_a_model_without_a_dual(monkeypatch):
    model = nn.Linear(2, 1, dtype=torch.float64)
    data = torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    monkeypatch.setattr(Squares, "with_intercept", Squares.slopes)
    with pytest.raises(UnsettledDualError, match="best intercept was not found"):
        duality_gap(model, data, ts.Regularizer(model, ts.L1(0.1)))


X4, Y4 = torch.ones(4, 2), torch.ones(4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X4, "Tensor given, a pair"),
        ((X4, Y4, Y4), "tuple given, a pair"),
        ((X4, [1.0] * 4), "tuple given, a pair"),
        (([[1.0, 1.0]] * 4, Y4), "tuple given, a pair"),
        ((torch.tensor(1.0), Y4[:1]), r"shape \(\) and y \(1,\): one target for each row"),
        ((X4[:1], torch.tensor(1.0)), r"shape \(1, 2\) and y \(\): one target for each row"),
        ((X4, Y4[:3]), r"shape \(4, 2\) and y \(3,\): one target for each row"),
        ((X4[:0], Y4[:0]), r"shape \(0, 2\) and y \(0,\): one target for each row"),
    ],
)
def test_data_that_are_no_rows_with_a_target_each_are_named(data, message):
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match=message):
        ts.certify(model, data, ts.Regularizer(model, ts.L1(0.1)))


class InFloat32(nn.Linear):
    def forward(self, x):
        return super().forward(x.float())  # as code that was written for float32 does: its weights have to stay so


def test_a_model_whose_code_insists_on_its_dtype_is_certified_in_it():
    torch.manual_seed(0)
    X, y = torch.randn(20, 3), torch.randn(20, 1)
    plain, tied = nn.Linear(3, 1), InFloat32(3, 1)
    tied.load_state_dict(plain.state_dict())
    expected = ts.certify(plain, (X, y), ts.Regularizer(plain, ts.L1(0.1)))
    found = ts.certify(tied, (X, y), ts.Regularizer(tied, ts.L1(0.1)))
    assert found.distance == pytest.approx(expected.distance, rel=1e-5)
    assert found.loss != expected.loss
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert tied.weight.dtype == torch.float32
