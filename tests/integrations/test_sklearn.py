"""The estimators, by scikit-learn's own checks and as its users put them to work."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from diabetes import data
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_linnerud
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, MultiTaskLasso
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.integrations.sklearn import (
    PenalizedClassifier,
    PenalizedClassifierCV,
    PenalizedRegressor,
    PenalizedRegressorCV,
)

QUICK = {"epochs": 12, "hidden": (8,), "lr": 0.05}
TUNED = {**QUICK, "strengths": [1e-3], "repeats": 1, "cv": 2}
LINEAR = {"hidden": (), "epochs": 20, "random_state": 0}


@parametrize_with_checks(
    [
        PenalizedClassifier(**QUICK),
        PenalizedRegressor(**QUICK),
        PenalizedClassifierCV(**TUNED),
        PenalizedRegressorCV(**TUNED),
    ]
)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


# --- it solves what it says ---


def diabetes():
    X, y = data()
    return X.numpy(), y.numpy().ravel()


def test_a_linear_regressor_is_the_lasso():
    X, y = diabetes()
    shifted = 3.0 * X + 7.0, 10.0 * y - 5.0  # it standardises by itself
    fitted = PenalizedRegressor("l1", strength=0.2, **LINEAR).fit(*shifted)
    lasso = Lasso(alpha=0.1, tol=1e-14).fit(X, y / y.std())
    expected = lasso.coef_ * 10.0 * y.std() / 3.0
    assert np.array_equal(fitted.coef_ == 0, expected == 0)
    assert np.abs(fitted.coef_ - expected).max() < 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(fitted.predict(shifted[0]), shifted[0] @ fitted.coef_ + fitted.intercept_, rtol=1e-9)
    assert fitted.certificate_.ok(1e-5)
    assert np.array_equal(fitted.feature_importances_ == 0, lasso.coef_ == 0)


def test_several_targets_are_the_multi_task_lasso():
    X, Y = load_linnerud(return_X_y=True)
    fitted = PenalizedRegressor(ts.GroupLasso(1.0, dim=1), strength=0.1, **LINEAR).fit(X, Y)
    Z, W = StandardScaler().fit_transform(X), StandardScaler().fit_transform(Y)
    # mean over the 3 targets and groups √3‖·‖: (1/(3n))‖·‖² + 0.1·√3·Σ‖w_j‖
    expected = MultiTaskLasso(alpha=0.1 * 3**0.5 * 3 / 2, tol=1e-14, max_iter=100_000).fit(Z, W).coef_
    expected = expected * Y.std(0)[:, None] / X.std(0)
    assert fitted.coef_.shape == (3, 3)
    np.testing.assert_allclose(fitted.coef_, expected, atol=1e-5 * np.abs(expected).max())
    assert fitted.predict(X[:4]).shape == (4, 3)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_linear_classifier_is_logistic_regression(balanced):
    X, y = load_breast_cancer(return_X_y=True)
    weight = "balanced" if balanced else None
    X = X[:, :10]
    X = StandardScaler().fit(X, sample_weight=compute_sample_weight(weight, y)).transform(X)  # as it does by itself
    fitted = PenalizedClassifier("l2", strength=0.01, class_weight=weight, **LINEAR).fit(X, y)
    # two outputs with ±w/2 each: strength·2·(w/2)² = strength·w²/2, and scikit-learn has ½‖w‖²/(C·n)
    other = LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-10, class_weight=weight, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(fitted.coef_, other.coef_, atol=1e-4)
    np.testing.assert_allclose(fitted.intercept_, other.intercept_, atol=1e-4)
    np.testing.assert_allclose(fitted.predict_proba(X), other.predict_proba(X), atol=1e-4)


def test_weights_count_as_repetitions_do():
    X, y = diabetes()
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    settings = {"strength": 0.1, **LINEAR, "batch_size": 10_000}
    weighted = PenalizedRegressor("l1", **settings).fit(X, y, sample_weight=counts)
    repeated = PenalizedRegressor("l1", **settings).fit(np.repeat(X, counts, 0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-4)
    assert np.abs(weighted.coef_ - PenalizedRegressor("l1", **settings).fit(X, y).coef_).max() > 0.1


# --- scikit-learn's tools ---


def test_a_pipeline_in_a_grid_in_two_processes():
    X, y = diabetes()
    pipeline = make_pipeline(StandardScaler(), PenalizedRegressor("l1", **LINEAR))
    grid = {"penalizedregressor__strength": [0.02, 0.2, 5.0]}
    search = GridSearchCV(pipeline, grid, cv=KFold(3), n_jobs=2).fit(X, y)
    alone = GridSearchCV(pipeline, grid, cv=KFold(3)).fit(X, y)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert search.best_params_["penalizedregressor__strength"] in (0.02, 0.2)
    assert search.cv_results_["mean_test_score"][2] < 0  # nothing is left at 5


def test_clones_and_pickles_predict_the_same():
    X, y = load_iris(return_X_y=True)
    fitted = PenalizedClassifierCV(**{**TUNED, "strengths": 3}, random_state=0).fit(X, y)
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))
    assert copied.verdict_ == fitted.verdict_
    assert copied.strength_ == fitted.strength_
    again = clone(fitted).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_frames_and_words_go_in_and_come_out():
    iris = load_iris(as_frame=True)
    words = iris.target.map(dict(enumerate(iris.target_names)))
    fitted = PenalizedClassifier("l1", strength=0.05, **LINEAR).fit(iris.data, words)
    assert list(fitted.feature_names_in_) == list(iris.data.columns)
    assert list(fitted.classes_) == ["setosa", "versicolor", "virginica"]
    assert (fitted.predict(iris.data) == words).mean() > 0.9
    assert fitted.coef_.shape == (3, 4)
    with pytest.warns(UserWarning, match="feature names"):
        fitted.predict(iris.data.to_numpy())
    kept = SelectFromModel(clone(fitted)).set_output(transform="pandas").fit_transform(iris.data, words)
    assert isinstance(kept, pd.DataFrame)
    assert list(kept.columns) == list(iris.data.columns[fitted.feature_importances_ > 1e-5])
    assert kept.shape[1] < 4


def test_features_are_selected_by_the_network_that_reads_them():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((200, 8))
    y = np.sin(2 * X[:, 2]) + X[:, 5] ** 2
    network = PenalizedRegressor(ts.GroupLasso(1.0, dim=1), strength=0.01, hidden=(16,), epochs=60, random_state=0)
    selector = SelectFromModel(network).fit(X, y)
    assert list(np.flatnonzero(selector.get_support())) == [2, 5]


# --- tuned ---


def test_the_strength_is_that_of_a_grid_search_over_the_same_folds():
    X, y = load_breast_cancer(return_X_y=True)
    strengths, folds = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1], StratifiedKFold(4, shuffle=True, random_state=0)
    settings = {"hidden": (), "epochs": 60, "lr": 0.1, "random_state": 0}
    tuned = PenalizedClassifierCV("l1", strengths=strengths, cv=folds, **settings).fit(X, y)
    search = GridSearchCV(
        PenalizedClassifier("l1", polish=False, **settings), {"strength": strengths}, cv=folds, scoring="neg_log_loss"
    ).fit(X, y)
    assert tuned.strength_ == search.best_params_["strength"]
    assert tuned.strength_ > 0
    found = [each.validation_loss for each in tuned.path_.points]
    np.testing.assert_allclose(found, -search.cv_results_["mean_test_score"], rtol=0.15)
    assert log_loss(y, tuned.predict_proba(X)) < 0.2


def test_one_se_is_at_least_as_strong():
    X, y = diabetes()
    settings = {"strengths": 6, "repeats": 1, **LINEAR}
    best = PenalizedRegressorCV("l1", **settings).fit(X, y)
    strong = PenalizedRegressorCV("l1", choose="one_se", **settings).fit(X, y)
    assert strong.strength_ >= best.strength_
    assert (strong.coef_ == 0).sum() >= (best.coef_ == 0).sum()
    with pytest.raises(InputError, match="choose='worst'"):
        PenalizedRegressorCV("l1", choose="worst", **settings).fit(X, y)


def test_groups_go_to_the_splitter():
    X, y = diabetes()
    groups = np.arange(len(X)) % 7
    settings = {"strengths": [0.1, 1.0], **LINEAR}
    tuned = PenalizedRegressorCV("l1", cv=GroupKFold(3), **settings).fit(X, y, groups=groups)
    same = PenalizedRegressorCV("l1", cv=list(GroupKFold(3).split(X, y, groups)), **settings).fit(X, y)
    assert tuned.path_.points[1].validation_loss == same.path_.points[1].validation_loss
    with pytest.raises(ValueError, match="groups"):
        PenalizedRegressorCV("l1", cv=GroupKFold(3), **settings).fit(X, y)


# --- penalties, modules, settings ---


@pytest.mark.parametrize("name", ["l2", "elastic_net", "group_lasso", "sparse_group_lasso", "mcp", "nuclear_norm"])
def test_penalties_have_names(name):
    X, y = diabetes()
    fitted = PenalizedRegressor(name, strength=0.05, **QUICK, random_state=0).fit(X, y)
    assert fitted.score(X, y) > 0.2
    assert np.isfinite(fitted.certificate_.objective)


def test_an_elastic_net_is_scikit_learns():
    X, y = diabetes()
    fitted = PenalizedRegressor(ts.ElasticNet(0.1, 0.02), strength=None, **LINEAR).fit(X, y)
    expected = ElasticNet(alpha=0.05 + 0.02, l1_ratio=0.05 / 0.07, tol=1e-14).fit(X, y / y.std()).coef_ * y.std()
    np.testing.assert_allclose(fitted.coef_, expected, atol=1e-5 * np.abs(expected).max())


def test_a_constraint_has_no_strength():
    X, y = diabetes()
    fitted = PenalizedRegressor(ts.NonNegative(), **LINEAR).fit(X, y)
    assert fitted.coef_.min() == 0.0


class Net(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs))


def test_a_module_of_ones_own():
    X, y = load_iris(return_X_y=True)
    settings = {"module": Net, "epochs": 100, "lr": 0.05, "random_state": 0}
    fitted = PenalizedClassifier("l1", strength=1e-3, **settings).fit(
        X.astype("float32"), y, sample_weight=np.ones(len(X))
    )
    assert isinstance(fitted.module_, Net)
    assert fitted.score(X, y) > 0.9
    assert not any(hasattr(fitted, name) for name in ("coef_", "feature_importances_"))
    assert not hasattr(PenalizedClassifier(**QUICK).fit(X, y), "coef_")  # nor has a network of ours one


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"penalty": "l3"}, "penalty='l3': expected one of"),
        ({"penalty": "l1", "strength": None}, "strength=None"),
        ({"penalty": "l1", "strength": -1.0}, "-1.0"),
        ({"penalty": "l1", "epochs": 0}, "epochs"),
    ],
)
def test_a_setting_that_is_not_one_is_an_error(settings, said):
    with pytest.raises(InputError, match=said):
        PenalizedRegressor(**{**LINEAR, **settings}).fit(*diabetes())


@pytest.mark.parametrize(
    ("weights", "said"), [([-1.0, 1, 1], "negative"), ([0.0, 0, 0], "non-zero"), ([1.0, 0, 0], "1 sample")]
)
def test_weights_that_are_none_are_an_error(weights, said):
    X, y = diabetes()
    with pytest.raises(ValueError, match=said):
        PenalizedRegressor(**LINEAR).fit(X[:3], y[:3], sample_weight=weights)


def test_the_same_seed_gives_the_same_bits():
    X, y = diabetes()
    first, second, other = (PenalizedRegressor(**QUICK, random_state=seed).fit(X, y).predict(X) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.get_num_threads() == 1
