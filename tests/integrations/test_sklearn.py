"""The estimators, by scikit-learn's own checks and as its users put them to work."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from diabetes import data
from joblib import effective_n_jobs
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
from torchshrink.integrations.estimator_checks import family_at
from torchshrink.integrations.sklearn import (
    PenalizedClassifier,
    PenalizedClassifierCV,
    PenalizedRegressor,
    PenalizedRegressorCV,
)
from torchshrink.paths.run import prepare

ESTIMATORS = (PenalizedClassifier, PenalizedClassifierCV, PenalizedRegressor, PenalizedRegressorCV)
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


LOGISTIC = {"l1": 1.0, "l2": 0.0, "elastic_net": 1 / 3}  # by name λ/2·Σ|w| + λ/2·Σw², and scikit-learn counts ½w²


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOGISTIC)
def test_a_linear_classifier_is_logistic_regression_at_the_strength_that_convert_says(name, classes):
    X, y = load_breast_cancer(return_X_y=True) if classes == 2 else load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X[:, :10])  # as it does by itself
    C = 0.4
    outputs = 1 if classes == 2 else classes
    settings = {"C": C, "l1_ratio": LOGISTIC[name]}
    said = ts.convert("sklearn.LogisticRegression", rows=len(y), outputs=outputs, **settings).expression
    penalty = eval(said, {"ts": ts})  # as its reader pastes it
    solver = "lbfgs" if name == "l2" else "saga"
    other = LogisticRegression(**settings, solver=solver, tol=1e-9, max_iter=100_000).fit(X, y)
    named = PenalizedClassifier(name, strength=strength_of(penalty), **LINEAR).fit(X, y)
    for fitted in (PenalizedClassifier(penalty, **LINEAR).fit(X, y), named):
        assert fitted.coef_.shape == other.coef_.shape
        np.testing.assert_allclose(fitted.coef_, other.coef_, atol=2e-4)
        np.testing.assert_allclose(fitted.predict_proba(X), other.predict_proba(X), atol=1e-4)
        found, expected = fitted.decision_function(X), other.decision_function(X)
        assert found.shape == expected.shape
        if classes > 2:  # softmax does not see what all outputs have in common
            found, expected = (each - each.mean(1, keepdims=True) for each in (found, expected))
        np.testing.assert_allclose(found, expected, atol=2e-3)


def strength_of(penalty):
    return penalty.l1 + penalty.l2 if isinstance(penalty, ts.ElasticNet) else penalty.strength


@pytest.mark.parametrize("kind", ["rows", "classes"])
def test_weighted_logistic_regression(kind):
    X, y = load_breast_cancer(return_X_y=True)
    weight = "balanced" if kind == "classes" else None
    rows = np.random.default_rng(0).random(len(y)) if kind == "rows" else None
    counts = compute_sample_weight(weight, y) if rows is None else rows
    X = X[:, :10]
    X = StandardScaler().fit(X, sample_weight=counts).transform(X)
    fitted = PenalizedClassifier("l2", strength=0.01, class_weight=weight, **LINEAR).fit(X, y, sample_weight=rows)
    C = 1 / (2 * 0.01 * counts.sum())
    other = LogisticRegression(C=C, tol=1e-10, class_weight=weight, max_iter=10_000).fit(X, y, sample_weight=rows)
    np.testing.assert_allclose(fitted.coef_, other.coef_, atol=1e-4)
    np.testing.assert_allclose(fitted.intercept_, other.intercept_, atol=1e-4)


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
    search = GridSearchCV(pipeline, grid, cv=KFold(2), n_jobs=2).fit(X, y)
    alone = GridSearchCV(pipeline, grid, cv=KFold(2)).fit(X, y)
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
    kept = (
        SelectFromModel(clone(fitted), threshold=1e-10).set_output(transform="pandas").fit_transform(iris.data, words)
    )
    assert isinstance(kept, pd.DataFrame)
    assert list(kept.columns) == list(iris.data.columns[fitted.feature_importances_ > 0])
    assert kept.shape[1] < 4


@pytest.mark.parametrize("penalty", ["group_lasso", "GROUP_LASSO", ts.GroupLasso(1.0, dim=1)])
def test_features_are_selected_by_the_network_that_reads_them(penalty):
    generator = np.random.default_rng(0)
    X = generator.standard_normal((200, 8))
    y = np.sin(2 * X[:, 2]) + X[:, 5] ** 2
    network = PenalizedRegressor(penalty, strength=0.05, hidden=(16,), epochs=100, lr=0.02, random_state=0)
    selector = SelectFromModel(network, threshold=1e-10).fit(X, y)
    assert list(np.flatnonzero(selector.get_support())) == [2, 5]


# --- tuned ---


def test_the_strength_is_that_of_a_grid_search_over_the_same_folds():
    X, y = load_breast_cancer(return_X_y=True)
    strengths, folds = [0.0, 0.003, 0.01, 0.1], StratifiedKFold(3, shuffle=True, random_state=0)
    settings = {"hidden": (), "random_state": 0}
    tuned = PenalizedClassifierCV("l1", strengths=strengths, cv=folds, **settings).fit(X, y)
    search = GridSearchCV(
        PenalizedClassifier("l1", **settings), {"strength": strengths}, cv=folds, scoring="neg_log_loss"
    ).fit(X, y)
    assert tuned.strength_ == search.best_params_["strength"]
    assert tuned.strength_ > 0
    found = [each.validation_loss for each in tuned.path_.points]
    # Folds count by their rows here, alike there. Without penalty a fold has no optimum, and log_loss clips.
    np.testing.assert_allclose(found[1:], -search.cv_results_["mean_test_score"][1:], rtol=2e-3)
    assert log_loss(y, tuned.predict_proba(X)) < 0.2


class Seen(Exception):
    pass


def prepared(monkeypatch, estimator, *data, **fit):
    """What a path was about to run, which is not run."""
    jobs = []

    def look(*args, **keywords):
        jobs.append(prepare(*args, **keywords))
        raise Seen

    with monkeypatch.context() as patched:
        patched.setattr("torchshrink.integrations.sklearn.prepare", look)
        with pytest.raises(Seen):
            estimator.fit(*data, **fit)
    return jobs[0]


WEIGHTS = np.random.default_rng(1).integers(0, 4, 442)
BITS = {"class_weight": "balanced"}


@pytest.mark.parametrize(
    ("kind", "settings", "columns", "weights"),
    [
        (PenalizedRegressorCV, {}, None, None),
        (PenalizedRegressorCV, {}, 2, None),
        (PenalizedRegressorCV, {}, None, WEIGHTS),
        (PenalizedRegressorCV, {"hidden": (4,), "module": lambda i, o: nn.Linear(i, o)}, None, None),
        (PenalizedClassifierCV, {}, None, None),
        (PenalizedClassifierCV, BITS, None, None),
        (PenalizedClassifierCV, {}, None, WEIGHTS),
    ],
)
def test_folds_are_drawn_anew_in_each_repeat(kind, settings, columns, weights, monkeypatch):
    X, y = diabetes()
    y = np.sort(y) if columns is None else np.column_stack([np.sort(y)] * columns)
    classes = kind is PenalizedClassifierCV
    y = (y > np.quantile(y, 0.9)).astype(int) if classes else y
    model = kind(**{**LINEAR, **settings}, repeats=np.int64(3), cv=np.int64(5))
    job = prepared(monkeypatch, model, X, y, sample_weight=weights)
    folds = job.layout.splits.every
    assert len(folds) == 15
    assert len({tuple(fold.validation.tolist()) for fold in folds}) == 15
    counted = y if weights is None else y[weights > 0]
    for fold in folds:
        part = counted[fold.validation.numpy()]
        if classes:  # each fold has its tenth of the second class
            assert abs(part.mean() - counted.mean()) < 1.5 / len(part)
        else:  # nor do the folds follow the rows' order
            assert abs(part.mean() - counted.mean()) < 0.5 * counted.std()
    assert len(prepared(monkeypatch, kind(**LINEAR, repeats=1), X, y).layout.splits.every) == 5
    assert len(prepared(monkeypatch, kind(**LINEAR), X, y).layout.splits.every) == 15


@pytest.mark.parametrize("cv", [KFold(3), list(KFold(3).split(np.empty(442)))])
def test_folds_that_are_given_are_taken_once(cv, monkeypatch):
    X, y = diabetes()
    with pytest.warns(UserWarning, match="repeats=2: folds that a splitter or a list gives are taken once"):
        job = prepared(monkeypatch, PenalizedRegressorCV(**LINEAR, cv=cv, repeats=2), X, y)
    assert len(job.layout.splits.every) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = prepared(monkeypatch, PenalizedRegressorCV(**LINEAR, cv=cv), X, y)
    assert [fold.validation.tolist() for fold in job.layout.splits.every] == [
        held_out.tolist() for _, held_out in KFold(3).split(X)
    ]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_bar_is_shown_on_stderr_where_it_is_asked_for(verbose, capsys):
    X, y = diabetes()
    PenalizedRegressorCV(**{**LINEAR, "epochs": 1}, strengths=[0.1], repeats=1, cv=2, verbose=verbose).fit(X, y)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("trainings" in said.err) == verbose


def test_the_order_of_the_rows_says_nothing():
    X, y = diabetes()
    order = np.argsort(y)
    settings = {"strengths": [0.02, 1.0], "repeats": 1, **LINEAR}
    losses = [
        [point.validation_loss for point in PenalizedRegressorCV("l1", **settings).fit(X[rows], y[rows]).path_.points]
        for rows in (np.arange(len(y)), order)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


@pytest.mark.parametrize("engine", ["lanes", "sequential"])
@pytest.mark.parametrize("kind", [PenalizedRegressorCV, PenalizedClassifierCV])
def test_weights_count_as_repetitions_do_in_every_fold(kind, engine):
    X, y = diabetes()
    X, y = X[:240], y[:240]
    if kind is PenalizedClassifierCV:
        y = np.where(y > np.median(y), "high", "low")
    counts = np.where(np.arange(240) < 60, 9, 1) * (np.arange(240) % 7 > 0)  # one fold has most of the weight; and 0s
    folds = list(KFold(4).split(X))
    number = np.repeat(np.arange(240), counts)
    same = [tuple(np.flatnonzero(np.isin(number, part)) for part in fold) for fold in folds]
    settings = {**LINEAR, "lr": 0.05, "batch_size": 10_000, "strengths": 3, "engine": engine}
    weighted = kind("l1", cv=folds, **settings).fit(X, y, sample_weight=counts)
    repeated = kind("l1", cv=same, **settings).fit(np.repeat(X, counts, 0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.strengths_, repeated.strengths_, rtol=1e-6)
    for ours, theirs in zip(weighted.path_.points, repeated.path_.points, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-4)
        assert ours.validation_se == pytest.approx(theirs.validation_se, rel=1e-4)
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert ours.accuracy == (None if theirs.accuracy is None else pytest.approx(theirs.accuracy))
        for one, other in zip(ours.folds, theirs.folds, strict=True):
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
            assert one.nonzero == other.nonzero
    assert weighted.strength_ == pytest.approx(repeated.strength_, rel=1e-6)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-3, atol=1e-3 * np.abs(repeated.coef_).max())
    plain = kind("l1", cv=folds, **settings).fit(X, y)
    assert abs(plain.path_.points[0].validation_loss / weighted.path_.points[0].validation_loss - 1) > 1e-3


def test_a_fold_without_weight_is_an_error_of_one_line():
    X, y = diabetes()
    weights = (np.arange(442) >= 221).astype(float)
    with pytest.raises(InputError, match="cv: all rows that fold 0 has held out have the weight 0"):
        PenalizedRegressorCV(**LINEAR, strengths=[0.1], cv=KFold(2)).fit(X, y, sample_weight=weights)
    trained = LINEAR | {"polish": False, "strengths": [0.1], "cv": 2, "repeats": 1}
    drawn = PenalizedRegressorCV(**trained).fit(X, y, sample_weight=weights)
    alone = PenalizedRegressorCV(**trained).fit(X[221:], y[221:])
    assert drawn.path_.points[0].validation_loss == pytest.approx(alone.path_.points[0].validation_loss, rel=0.02)


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


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"penalty": ts.L1(0.5)}, {"penalty": "l1", "strength": 0.5}),
        ({"penalty": ts.L1(0.5), "strength": 0.2}, {"penalty": "l1", "strength": 0.2}),
        ({"penalty": {"*weight": ts.L1(0.5)}}, {"penalty": "l1", "strength": 0.5}),
        ({"penalty": lambda strength: {"*weight": ts.L1(strength)}, "strength": 0.5}, {"strength": 0.5}),
        ({"penalty": "l1"}, {"penalty": ts.L1, "strength": 1e-3}),
        ({"penalty": "elastic_net"}, {"penalty": ts.ElasticNet(5e-4, 5e-4)}),
        ({"penalty": "L1"}, {"penalty": lambda strength: ts.L1(strength)}),
    ],
)
def test_a_penalty_acts_at_its_own_strength_unless_another_is_given(settings, same):
    X, y = diabetes()
    found, expected = (PenalizedRegressor(**LINEAR, **each).fit(X, y).coef_ for each in (settings, same))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_groups_by_name_are_what_reads_one_input():
    X, y = diabetes()
    for name in ("group_lasso", "sparse_group_lasso", "group_mcp", "group_scad"):
        made, _ = family_at(name, 0.1)
        assert made.make(0.1).dim == 1
    fitted = PenalizedRegressor("group_lasso", strength=0.03, hidden=(16, 8), epochs=100, random_state=0).fit(X, y)
    first, second = (m.weight for m in fitted.module_.modules() if isinstance(m, nn.Linear) and m.out_features > 1)
    assert 0 < int((first.norm(dim=0) == 0).sum()) < 10
    assert 0 < int((second.norm(dim=0) == 0).sum()) < 16
    assert int((first.norm(dim=1) == 0).sum()) == 0


def test_a_constraint_has_no_strength():
    X, y = diabetes()
    fitted = PenalizedRegressor(ts.NonNegative(), **LINEAR).fit(X, y)
    assert fitted.coef_.min() == 0.0
    with pytest.raises(InputError, match=r"strength=0\.1: NonNegative"):
        PenalizedRegressor(ts.NonNegative(), strength=0.1, **LINEAR).fit(X, y)


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
    assert fitted.decision_function(X).shape == (150, 3)
    two = PenalizedClassifier("l1", **settings).fit(X[:100].astype("float32"), y[:100])
    odds = two.predict_proba(X[:100].astype("float32"))
    np.testing.assert_allclose(two.decision_function(X[:100]), np.log(odds[:, 1] / odds[:, 0]), rtol=1e-3)
    assert not any(hasattr(fitted, name) for name in ("coef_", "feature_importances_"))
    assert not hasattr(PenalizedClassifier(**QUICK).fit(X, y), "coef_")  # nor has a network of ours one


ONE = [np.int64(1), np.float32(1), np.array(1), torch.tensor(1)]
NUMBERS = [
    *({"strength": each} for each in ONE),
    *({"lr": each} for each in ONE),
    *({"epochs": each} for each in (np.int32(1), np.array(1))),
    *({"batch_size": each} for each in (np.int64(50), np.array(50))),
    *({"hidden": each} for each in (np.int64(4), np.array(4), np.array([4, 3]), [np.int64(4), 3])),
    {"polish": np.bool_(False)},
]


@pytest.mark.parametrize("settings", NUMBERS)
def test_numbers_may_be_anybodys(settings):
    X, y = diabetes()
    fitted = PenalizedRegressor(**{"hidden": (4,), "epochs": 1, **settings}).fit(X[:60], y[:60])
    assert np.isfinite(fitted.predict(X)).all()


WRONG = [
    ({"penalty": "l3"}, "penalty='l3': expected one of"),
    ({"penalty": "lasso"}, "did you mean 'l1'"),
    ({"penalty": "Ridge"}, "did you mean 'l2'"),
    ({"penalty": {"*": ts.L1(0.1)}, "strength": 0.1}, "strength=0.1: rules have strengths of their own"),
    *(({"strength": each}, "strength=") for each in (-1.0, np.float32(-1), True, "0.1", np.nan, np.inf, [0.1])),
    *(({"hidden": each}, "hidden=") for each in (None, "64", True, 0, -1, 1.5, (8, -1), (8, True), ("8",), {8: 8})),
    *(({"epochs": each}, "epochs=") for each in (0, 1.5, True, "1", None)),
    *(({"batch_size": each}, "batch_size=") for each in (0, "all", True, None)),
    *(({"lr": each}, "lr=") for each in (0, -1.0, "fast", True, None)),
    *(({"polish": each}, "polish=") for each in ("foo", 2, None)),
    ({"module": nn.Linear(10, 1)}, "module: an instance of Linear given.* a function or class"),
    ({"module": "Linear"}, "module='Linear': a function or class"),
    ({"module": lambda inputs, outputs: 3}, r"module\(10, 1\) returned int"),
    ({"method": "magic"}, "method='magic'"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_a_setting_that_is_not_one_is_an_error_of_one_line(settings, said):
    with pytest.raises(InputError, match=said) as raised:
        PenalizedRegressor(**{**LINEAR, **settings}).fit(*diabetes())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({"cv": each}, "cv=") for each in (1, True, 2.5, "5", 1000)),
        *(({"repeats": each}, "repeats=") for each in (0, 1.5, True)),
        *(({"n_jobs": each}, "n_jobs=") for each in (0, 1.5, True)),
        ({"penalty": {"*": ts.L1(0.1)}}, "rules, which have no strength to tune"),
        ({"penalty": [ts.L1, ts.L2]}, "several given"),
        ({"penalty": ts.NonNegative()}, "a constraint"),
        ({"cv": [(np.arange(50, 442), np.arange(60))]}, r"cv\[0\]: a row is both"),
    ],
)
def test_what_cannot_be_tuned_is_an_error_of_one_line(settings, said):
    with pytest.raises(InputError, match=said) as raised:
        PenalizedRegressorCV(**{**LINEAR, "strengths": [0.1], **settings}).fit(*diabetes())
    assert "\n" not in str(raised.value)


def test_a_class_that_folds_cannot_spread_is_told_by_its_label():
    X, y = load_iris(return_X_y=True)
    words = np.array(["a", "b", "c"])[y]
    with pytest.raises(
        InputError, match=r"cv\[0\] holds out class 'a', of which it trains on no row.*give cv=a number"
    ):
        PenalizedClassifierCV(**LINEAR, cv=KFold(3)).fit(X, words)
    with pytest.raises(InputError, match=r"cv=3 and only 1 rows of class 'd'"):
        PenalizedClassifierCV(**LINEAR, cv=3).fit(np.r_[X, X[:1]], np.r_[words, ["d"]])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_unknown_argument_is_told_of_the_class(kind):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\.__init__\(\) got an unexpected keyword argument 'alpha'"):
        kind(alpha=1)


@pytest.mark.parametrize("n_jobs", [-1, np.int64(2)])
def test_jobs_are_counted_as_scikit_learn_does(n_jobs, monkeypatch):
    job = prepared(monkeypatch, PenalizedRegressorCV(**LINEAR, n_jobs=n_jobs), *diabetes())
    assert job.jobs == effective_n_jobs(n_jobs)


@pytest.mark.parametrize("weights", [None, np.arange(442) % 3])
@pytest.mark.parametrize("columns", [None, 2])
@pytest.mark.parametrize("kind", [PenalizedRegressor, PenalizedRegressorCV])
def test_a_constant_target_is_fitted(kind, columns, weights):
    X, _ = diabetes()
    y = np.full(442, 5.0) if columns is None else np.full((442, columns), [5.0, -1.0])
    settings = {} if kind is PenalizedRegressor else {"strengths": 2, "cv": 2, "repeats": 1}
    fitted = kind(**LINEAR, **settings).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(fitted.predict(X), y, atol=1e-9)


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
