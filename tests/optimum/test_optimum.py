"""Optima against scikit-learn, closed forms, and the conditions that define them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from torch import nn

import torchshrink as ts
from torchshrink.certifying.conjugates import Logistic, Softmax, Squares
from torchshrink.certifying.full_data import full_loss
from torchshrink.certifying.linear_model import LinearModel, linear_model
from torchshrink.optimum import Strengths, solve
from torchshrink.optimum.solve import _proved

KINDS = ("squares", "logistic", "softmax")


def linear(kind, rows=40, inputs=6, outputs=3, *, bias=True, seed=0, spread=1.0, separable=False):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, inputs, generator=g, dtype=torch.float64) * spread ** torch.linspace(-1, 1, inputs).double()
    noise = torch.randn(rows, outputs, generator=g, dtype=torch.float64)
    Z = 2 * X @ torch.randn(inputs, outputs, generator=g, dtype=torch.float64) + (0 if separable else 2) * noise
    loss = {
        "squares": lambda: Squares(Z, 0.5),
        "logistic": lambda: Logistic((Z > 0).double(), 1 / outputs),
        "softmax": lambda: Softmax(nn.functional.one_hot(Z.argmax(1), outputs).double()),
    }[kind]()
    layer = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    return LinearModel(layer, (), X, torch.zeros_like(Z), loss, 0.0)


def strengths(model, *pairs, intercept=0.0):
    """Of each l1, or (l1, l2): numbers, or tensors of the weights' shape."""
    W, b = model.layer.weight, model.layer.bias
    given = [pair if isinstance(pair, tuple) else (pair, 0.0) for pair in pairs]
    return Strengths.of(W, given, None if b is None else [(intercept, 0.0)] * len(given))


@dataclasses.dataclass(frozen=True)
class Single:
    """One of several optima."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    gap: float | None
    settled: bool


def solved(model, penalties, **how):
    found = solve(model, penalties, **how)
    biases = [None] * len(penalties) if found.bias is None else found.bias
    return [Single(*each) for each in zip(found.weight, biases, found.gap, found.settled, strict=True)]


def slopes(model, optimum):
    Z = model.features @ optimum.weight.mT + (0 if optimum.bias is None else optimum.bias)
    U = model.row_loss.slopes(Z)
    return U.mT @ model.features / len(U), U.mean(0)


def assert_optimal(model, penalties, number, optimum, tol=1e-8):
    """The conditions themselves: −∇L is in ∂Ω."""
    on_weight, on_bias = slopes(model, optimum)
    scale = float(model.row_loss.slopes(torch.zeros_like(model.outputs)).abs().max())
    pulled = [(optimum.weight, on_weight, penalties.l1[number], penalties.l2[number])]
    if optimum.bias is not None:
        pulled.append((optimum.bias, on_bias, *(each[number] for each in penalties.intercept)))
    for w, slope, l1, l2 in pulled:
        inside = (slope + 2 * l2 * w).abs() <= l1 + tol * scale
        rests = (slope + 2 * l2 * w + l1 * w.sign()).abs() <= tol * scale
        assert bool(torch.where(w == 0, inside, rests).all())


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    bias=st.booleans(),
    inputs=st.integers(1, 9),
    outputs=st.integers(2, 3),
    l1=st.sampled_from([1e-3, 1e-2, 0.1, 1.0]),
    l2=st.sampled_from([0.0, 1e-3, 0.1]),
    spread=st.sampled_from([1.0, 30.0, 1000.0]),
)
@example("softmax", 760, False, 2, 3, 1e-3, 0.0, 30.0)  # its zeros would be sent to the other side
def test_an_optimum_is_one_or_says_that_it_is_not(kind, seed, bias, inputs, outputs, l1, l2, spread):
    model = linear(kind, 30, inputs, outputs, bias=bias, seed=seed, spread=spread)
    penalties = strengths(model, (l1, l2), (l1 / 3, l2))
    for exactly in (False, True):
        for number, optimum in enumerate(solved(model, penalties, exactly=exactly)):
            if not optimum.settled:  # features of a million sizes are beyond float64
                assert spread > 30
                assert optimum.gap > 1e-6
                continue
            assert optimum.gap <= 1e-6
            if exactly and spread <= 30:
                assert_optimal(model, penalties, number, optimum)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intercept", [0.0, 0.02])
def test_the_gap_is_what_the_public_one_says(kind, intercept):
    if kind == "softmax":
        targets, loss = torch.arange(40) % 3, nn.CrossEntropyLoss()
    else:
        targets = torch.rand(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()
        loss = nn.MSELoss() if kind == "squares" else nn.BCEWithLogitsLoss()
    X = linear(kind).features
    layer = nn.Linear(6, 3, dtype=torch.float64)
    rules = {"weight": ts.ElasticNet(0.02, 0.01)} | ({"bias": ts.L1(intercept)} if intercept else {})
    regularizer = ts.Regularizer(layer, rules)
    with full_loss(layer, (X, targets), loss) as full, torch.no_grad():
        model = linear_model(full)
        penalties = strengths(model, (0.04, 0.01), (0.02, 0.01), intercept=intercept)
        _, optimum = solved(model, penalties)
        # Away from the optimum too, so that the gap is a number and no rounding.
        for weight in (optimum.weight, 1.1 * optimum.weight):
            W = torch.cat([weight, optimum.bias.unsqueeze(1)], 1)
            ours = _proved(model, penalties[[1]], W.unsqueeze(0), [False]).gap[0]
            layer.weight.copy_(weight)
            layer.bias.copy_(optimum.bias)
            proved = ts.certify(layer, (X, targets), regularizer, loss=loss)
            assert ours == pytest.approx(proved.gap / proved.objective, rel=1e-6, abs=1e-14)
            assert ours > 1e-6 or weight is optimum.weight


@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_may_have_its_own_strength_and_the_intercept_too(kind):
    model = linear(kind)
    W, b = model.layer.weight, model.layer.bias
    l1 = torch.rand(W.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 10
    l1[:, 0], l1[:, 1] = 0.0, math.inf
    l2, on_intercept = l1.clamp(max=1) / 2, (torch.full_like(b, 0.02), torch.full_like(b, 0.01))
    (optimum,) = solved(model, Strengths.of(W, [(l1, l2)], [on_intercept]))
    assert optimum.settled
    assert optimum.weight[:, 1].eq(0).all()
    assert optimum.weight[:, 0].ne(0).all()
    assert_optimal(model, Strengths.of(W, [(l1.clamp(max=1e6), l2)], [on_intercept]), 0, optimum)


def test_lasso_elastic_net_and_ridge_are_scikit_learns():
    model = linear("squares", outputs=1)
    X, y = model.features.numpy(), model.row_loss.target[:, 0].numpy()
    cases = [
        (strengths(model, 0.3), Lasso(0.3, tol=1e-14, max_iter=10**6)),
        (strengths(model, (0.2, 0.1)), ElasticNet(0.4, l1_ratio=0.5, tol=1e-14, max_iter=10**6)),
        (strengths(model, (0.0, 0.1)), Ridge(0.2 * len(X))),
    ]
    for penalty, peer in cases:
        (optimum,) = solved(model, penalty, exactly=True)
        peer.fit(X, y)
        np.testing.assert_allclose(optimum.weight[0].numpy(), peer.coef_, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(float(optimum.bias), peer.intercept_, rtol=1e-8, atol=1e-9)
        assert ((optimum.weight[0] == 0).numpy() == (peer.coef_ == 0)).all()


@pytest.mark.parametrize(("kind", "outputs"), [("logistic", 1), ("softmax", 3)])
def test_logistic_regression_is_scikit_learns(kind, outputs):
    model = linear(kind, rows=120, outputs=outputs)
    loss = model.row_loss
    y = loss.target[:, 0] if kind == "logistic" else loss.target.argmax(1)
    (optimum,) = solved(model, strengths(model, (0.02, 0.01)))
    peer = LogisticRegression(C=1 / (0.04 * len(y)), l1_ratio=0.5, solver="saga", tol=1e-10, max_iter=10**5)
    peer.fit(model.features.numpy(), y.numpy())
    assert np.abs(optimum.weight.numpy() - peer.coef_).max() <= 1e-5
    assert ((optimum.weight == 0).numpy() == (peer.coef_ == 0)).all()


def test_without_penalty_squares_have_the_least_weights():
    model = linear("squares", rows=5, inputs=9)
    (optimum,) = solved(model, strengths(model, 0.0))
    X, Y = model.features, model.row_loss.target
    expected = torch.linalg.pinv(X - X.mean(0)) @ (Y - Y.mean(0))
    torch.testing.assert_close(optimum.weight, expected.mT)
    assert optimum.settled


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
@pytest.mark.parametrize("separable", [False, True])
def test_without_penalty_classes_have_an_optimum_if_no_plane_separates_them(kind, separable):
    model = linear(kind, rows=80, inputs=3, separable=separable)
    with_penalty, without = solved(model, strengths(model, 0.01, 0.0))
    assert with_penalty.settled
    assert without.settled is not separable
    assert without.gap == (math.inf if separable else None)
    on_weight, _ = slopes(model, without)
    assert bool(without.weight.isfinite().all())
    assert on_weight.abs().max() <= (1e-3 if separable else 1e-8)


def test_equal_features_and_flat_directions_are_no_obstacle():
    model = linear("softmax", rows=60, inputs=4, outputs=2)  # of two classes the two rows of weights are twins
    model = dataclasses.replace(model, features=model.features[:, [0, 1, 2, 3, 0, 1]].contiguous())
    model = dataclasses.replace(model, layer=nn.Linear(6, 2, dtype=torch.float64))
    found = solve(model, strengths(model, *np.geomspace(0.3, 3e-4, 20).tolist()))
    assert all(found.settled)
    assert max(found.gap) <= 1e-6
