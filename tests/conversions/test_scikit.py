"""scikit-learn's conventions: its own fits against the converted problem's solution."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, MultiTaskLasso, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from solving import (
    Array,
    breast_cancer,
    diabetes,
    grouped,
    linear,
    linnerud,
    logistic,
    softmax,
    standardised,
    strengths,
)
from torch import Tensor, nn

import torchshrink as ts
from torchshrink.conversions.convert import convert

# --- scikit-learn's linear models: their own fit against the converted problem's solution ---

LINEAR = {
    "sklearn.Lasso": (Lasso, {"alpha": 0.8}, {"tol": 1e-14, "max_iter": 100_000}),
    "sklearn.ElasticNet": (ElasticNet, {"alpha": 0.6, "l1_ratio": 0.3}, {"tol": 1e-14, "max_iter": 100_000}),
    "sklearn.Ridge": (Ridge, {"alpha": 7.0}, {"solver": "cholesky"}),
}


@pytest.mark.parametrize("data", [diabetes, linnerud])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_of_scikit_learn(name, data):
    estimator, settings, how = LINEAR[name]
    X, Y = data()
    conversion = convert(name, **settings, rows=len(X), outputs=Y.reshape(len(Y), -1).shape[1])
    expected = estimator(**settings, **how).fit(X, Y).coef_
    assert np.abs(linear(X, Y, **strengths(conversion)) - expected).max() < 1e-6
    assert conversion.exact


@pytest.mark.parametrize("data", [diabetes, linnerud])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_of_scikit_learn_from_torchshrink(name, data):
    estimator, _, how = LINEAR[name]
    X, Y = data()
    mine = {"Lasso": {"l1": 1.1}, "ElasticNet": {"l1": 0.9, "l2": 0.1}, "Ridge": {"l2": 0.2}}[name.split(".")[1]]
    conversion = convert("torchshrink", to=name, **mine, rows=len(X), outputs=Y.reshape(len(Y), -1).shape[1])
    expected = estimator(**conversion.settings, **how).fit(X, Y).coef_
    assert np.abs(linear(X, Y, **mine) - expected).max() < 1e-6


def test_multi_task_lasso_which_has_no_root_of_the_group_size():
    X, Y = linnerud()
    conversion = convert("sklearn.MultiTaskLasso", alpha=4.0, outputs=3)
    expected = MultiTaskLasso(alpha=4.0, tol=1e-14, max_iter=100_000).fit(X, Y).coef_  # (3, 3)
    found = grouped(X, Y, **strengths(conversion))
    assert np.abs(found - expected).max() < 1e-6
    assert 0 < (found == 0).all(axis=0).sum() < 3  # some columns, not all, so that the test can tell
    penalty = eval(conversion.expression, {"ts": ts})
    columns = np.linalg.norm(expected, axis=0).sum()
    assert penalty.value(torch.from_numpy(expected)).item() == pytest.approx(2 / 3 * 4.0 * columns, rel=1e-12)


LOGISTIC = {
    "ridge": ({"C": 0.05}, {"solver": "newton-cg"}),
    "lasso": ({"C": 0.05, "l1_ratio": 1.0}, {"solver": "saga"}),
    "elastic net": ({"C": 0.05, "l1_ratio": 0.4}, {"solver": "saga"}),
}


@pytest.mark.parametrize("case", LOGISTIC)
def test_logistic_regression(case):
    settings, how = LOGISTIC[case]
    X, y = breast_cancer()
    conversion = convert("sklearn.LogisticRegression", **settings, rows=len(X))
    expected = LogisticRegression(**settings, **how, tol=1e-12, max_iter=50_000).fit(X, y)
    w, bias = logistic(X, y, **strengths(conversion))
    assert np.abs(w - expected.coef_[0]).max() < 1e-6
    assert abs(bias - expected.intercept_[0]) < 1e-6
    assert conversion.exact


def test_logistic_regression_by_liblinear_penalises_the_intercept():
    X, y = breast_cancer()
    expected = LogisticRegression(C=0.05, solver="liblinear", tol=1e-12, max_iter=10_000).fit(X, y)
    conversion = convert("sklearn.LogisticRegression", C=0.05, rows=len(X), solver="liblinear")
    assert any("on=ts.ALL" in note and "intercept" in note for note in conversion.notes)
    w, bias = logistic(X, y, **strengths(conversion), bias_too=True)
    assert np.abs(w - expected.coef_[0]).max() < 1e-6
    assert abs(bias - expected.intercept_[0]) < 1e-6
    free, _ = logistic(X, y, **strengths(conversion))
    assert np.abs(free - expected.coef_[0]).max() > 1e-3

    other = convert("sklearn.LogisticRegression", to="glmnet.binomial", C=0.05, rows=len(X), solver="liblinear")
    assert not other.exact
    assert "penalises the intercept" in other.notes[0]


def test_two_logits_need_twice_the_l2_of_one():
    X, y = breast_cancer()
    expected = LogisticRegression(C=0.05, solver="newton-cg", tol=1e-12).fit(X, y).coef_[0]
    two = convert("sklearn.LogisticRegression", C=0.05, rows=len(X), outputs=2)
    W = softmax(X, y, classes=2, **strengths(two))
    assert np.abs(W[1] - W[0] - expected).max() < 1e-6
    one = convert("sklearn.LogisticRegression", C=0.05, rows=len(X))
    assert two.settings["l2"] == 2 * one.settings["l2"]
    assert any("outputs=2" in note for note in one.notes)


def test_logistic_regression_with_three_classes():
    X, y = load_wine(return_X_y=True)
    X = standardised(X)
    expected = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-12).fit(X, y).coef_
    conversion = convert("sklearn.LogisticRegression", C=0.1, rows=len(X), outputs=3)
    assert np.abs(softmax(X, y, classes=3, **strengths(conversion)) - expected).max() < 1e-6


# --- scikit-learn's multilayer perceptrons: linear ones solved, deep ones by one step ---


def to_the_end(mlp: MLPClassifier | MLPRegressor, X: Array, y: Array) -> Array:
    """Fitted by lbfgs again and again from where it stopped: its own stopping rule is looser than these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a line search that finds nothing left to gain
        for _ in range(30):
            mlp.fit(X, y)
    return mlp.coefs_[0][:, 0]


LBFGS = {"hidden_layer_sizes": (), "solver": "lbfgs", "tol": 1e-14, "max_iter": 10_000, "max_fun": 100_000}


def test_mlp_regressor_by_lbfgs_without_hidden_layers_is_ridge():
    X, y = diabetes()
    y = standardised(y)
    fitted = to_the_end(MLPRegressor(alpha=30.0, warm_start=True, random_state=0, **LBFGS), X, y)
    conversion = convert("sklearn.MLPRegressor", alpha=30.0, solver="lbfgs", rows=len(X))
    assert np.abs(linear(X, y, **strengths(conversion)) - fitted).max() < 1e-6
    ridge = convert("sklearn.MLPRegressor", to="sklearn.Ridge", alpha=30.0, solver="lbfgs", rows=len(X))
    assert np.abs(Ridge(**ridge.settings).fit(X, y).coef_ - fitted).max() < 1e-6


def test_mlp_classifier_by_lbfgs_without_hidden_layers_is_logistic_regression():
    X, y = breast_cancer()
    fitted = to_the_end(MLPClassifier(alpha=20.0, warm_start=True, random_state=0, **LBFGS), X, y)
    conversion = convert("sklearn.MLPClassifier", alpha=20.0, solver="lbfgs", rows=len(X))
    assert np.abs(logistic(X, y, **strengths(conversion))[0] - fitted).max() < 1e-6


def torch_twin(mlp: MLPClassifier | MLPRegressor) -> list[Tensor]:
    """The weights and biases of a fitted MLP, as leaves."""
    leaves = [a.T for a in mlp.coefs_] + list(mlp.intercepts_)
    return [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in leaves]


def forward(X: Array, leaves: list[Tensor]) -> Tensor:
    (W1, W2), (b1, b2) = leaves[:2], leaves[2:]
    return torch.tanh(torch.from_numpy(X) @ W1.T + b1) @ W2.T + b2


def half(estimator, X, y, **settings):
    """An MLP after one step, and another of the same seed before it; plain SGD, one batch of half the rows."""
    rate = 0.5
    common = {"hidden_layer_sizes": (6,), "activation": "tanh", "solver": "sgd", "momentum": 0.0, "random_state": 0}
    how = common | {"learning_rate_init": rate, "batch_size": len(X)} | settings
    classes = {"classes": np.unique(y)} if estimator is MLPClassifier else {}
    still = estimator(**how | {"learning_rate_init": 1e-300}).partial_fit(X, y, **classes)
    moved = estimator(**how).partial_fit(X, y, **classes)
    return still, moved, rate


MLPS = {
    "two classes": (MLPClassifier, lambda: breast_cancer(), {}),
    "three classes": (MLPClassifier, lambda: (standardised(load_wine().data), load_wine().target), {}),
    "one target": (MLPRegressor, lambda: (diabetes()[0], standardised(diabetes()[1])), {}),
    "three targets": (MLPRegressor, lambda: (linnerud()[0], standardised(linnerud()[1])), {"outputs": 3}),
}


@pytest.mark.parametrize("case", MLPS)
def test_mlp_step_on_a_batch_is_a_gradient_step_on_the_converted_objective(case):
    estimator, data, facts = MLPS[case]
    X, y = data()
    still, moved, rate = half(estimator, X, y, alpha=9.0)
    conversion = convert(f"sklearn.{estimator.__name__}", alpha=9.0, batch_size=len(X), **facts)
    leaves = torch_twin(still)
    output = forward(X, leaves)
    factor = 1.0
    if estimator is MLPRegressor:
        targets = torch.from_numpy(y).reshape(output.shape)
        loss = nn.functional.mse_loss(output, targets)
        factor = 2 / output.shape[1]  # F is so many times what scikit-learn descends
    elif output.shape[1] == 1:
        loss = nn.functional.binary_cross_entropy_with_logits(output[:, 0], torch.from_numpy(y))
    else:
        loss = nn.functional.cross_entropy(output, torch.from_numpy(y.astype(np.int64)))
    (loss + conversion.settings["l2"] * sum(W.square().sum() for W in leaves[:2])).backward()
    for before, after in zip(leaves, torch_twin(moved), strict=True):
        step = (after - before).detach()
        assert before.grad is not None
        assert step.abs().max() > 1e-3
        assert torch.allclose(step, -rate * before.grad / factor, rtol=0, atol=1e-12)


def test_mlp_batches_that_do_not_divide_the_rows():
    uneven = convert("sklearn.MLPClassifier", alpha=1.0, rows=442)
    assert uneven.settings["l2"] == 1 / (2 * 200)  # min(200, rows)
    assert not uneven.exact
    assert "42" in uneven.notes[0]
    assert convert("sklearn.MLPClassifier", alpha=1.0, rows=100).settings["l2"] == 1 / (2 * 100)
    assert convert("sklearn.MLPClassifier", alpha=1.0, rows=400).exact
    assert str(uneven).count("≈") == 1


def test_mlp_regressor_with_several_targets_gives_lbfgs_what_fits_no_objective():
    conversion = convert("sklearn.MLPRegressor", alpha=1.0, solver="lbfgs", rows=20, outputs=3)
    assert not conversion.exact
    X, Y = linnerud()
    mlp = MLPRegressor(hidden_layer_sizes=(), solver="sgd", random_state=0, batch_size=20, alpha=0.0).partial_fit(
        X, standardised(Y)
    )
    residuals = mlp.predict(X) - standardised(Y)
    # its loss (once the step above has been taken) averages over targets, its gradient adds over them
    assert mlp.loss_ != pytest.approx((residuals**2).sum() / 40, rel=0.1)
    assert mlp.loss_ == pytest.approx((residuals**2).mean() / 2, rel=0.1)
