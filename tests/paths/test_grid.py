import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import Lasso
from torch import nn

import torchshrink as ts
from path_cases import spec_for
from penalties.test_contract import Wrapped
from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.models import mlp
from torchshrink.paths.grid import RATIO, automatic_grid, exact_top, geometric, grid_from_dict
from torchshrink.paths.null_model import null_losses, null_output
from torchshrink.paths.penalty_family import family
from torchshrink.regularizer.selection import WEIGHTS


def spec(build, data, penalty=ts.L1, **settings):
    fixed = {"loss": None, "optimizer": None, "seed": 0, "device": None, "on": WEIGHTS, "method": "auto"}
    return spec_for(build, data, [family(penalty)], epochs=1, batch_size=64, **(fixed | settings))


def linear(inputs, outputs=1):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Flatten(0)) if outputs == 1 else nn.Linear(inputs, outputs)


class TestExactTop:
    def test_lasso_is_scikit_learns(self):
        X, y = load_diabetes(return_X_y=True)
        top = exact_top(spec(partial(linear, 10), (X, y)), family(ts.L1))
        # Mean squared error is twice scikit-learn's half: so are its strengths.
        assert top / 2 == pytest.approx(np.abs((X - X.mean(0)).T @ (y - y.mean())).max() / len(y), rel=1e-7)
        assert top / 2 == pytest.approx(2.14804, abs=1e-5)
        assert not Lasso(top / 2 * 1.0001, tol=1e-12).fit(X, y).coef_.any()
        assert Lasso(top / 2 * 0.999, tol=1e-12).fit(X, y).coef_.any()

    @pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
    def test_logistic_is_the_formula(self, load):
        X, y = load(return_X_y=True)
        X = (X - X.mean(0)) / X.std(0)
        top = exact_top(spec(partial(linear, X.shape[1], y.max() + 1), (X, y)), family(ts.L1))
        shares = np.eye(y.max() + 1)[y]
        assert top == pytest.approx(np.abs(X.T @ (shares - shares.mean(0))).max() / len(y), rel=1e-7)

    def test_groups_are_norms_over_the_root_of_their_size(self):
        X, y = load_iris(return_X_y=True)
        gradient = (np.eye(3)[y] - 1 / 3).T @ X / len(y)  # (classes, features)
        built = spec(partial(linear, 4, 3), (X, y))
        by_class = exact_top(built, family(ts.GroupLasso))
        by_feature = exact_top(built, family(ts.GroupLasso(1.0, dim=1)))
        assert by_class == pytest.approx(np.linalg.norm(gradient, axis=1).max() / math.sqrt(4), rel=1e-7)
        assert by_feature == pytest.approx(np.linalg.norm(gradient, axis=0).max() / math.sqrt(3), rel=1e-7)

    def test_elastic_net_counts_both_strengths(self):
        X, y = load_diabetes(return_X_y=True)
        built = spec(partial(linear, 10), (X, y))
        l1 = exact_top(built, family(ts.L1))
        assert exact_top(built, family(ts.ElasticNet(0.25, 0.75))) == pytest.approx(4 * l1)

    def test_float32_is_as_exact(self):
        X, y = load_diabetes(return_X_y=True)
        exact = exact_top(spec(partial(linear, 10), (X, y)), family(ts.L1))
        single = exact_top(spec(lambda: linear(10), (X.astype("f4"), y.astype("f4"))), family(ts.L1))
        assert single == pytest.approx(exact, rel=1e-5)

    def test_preprocessing_in_front_is_no_obstacle(self):
        X, y = load_diabetes(return_X_y=True, scaled=False)
        top = exact_top(spec(lambda: mlp(10, 1, hidden=(), regression=True), (X, y)), family(ts.L1))
        X, scale = (X - X.mean(0)) / X.std(0), y.std()
        # In units of the standardised target, for which the strengths of a model that rescales are.
        assert top == pytest.approx(2 * np.abs(X.T @ (y - y.mean())).max() / len(y) / scale, rel=1e-5)

    def test_a_penalised_intercept_is_zero_at_the_null_model_too(self):
        X, y = load_diabetes(return_X_y=True)
        top = exact_top(spec(partial(linear, 10), (X, y), on=ts.ALL), family(ts.L1))
        assert top == pytest.approx(2 * abs(y.mean()), rel=1e-9)

    def test_rules_whose_strengths_differ(self):
        X, y = load_diabetes(return_X_y=True)
        built = spec(partial(linear, 10), (X, y))
        plain = exact_top(built, family(ts.L1))
        assert exact_top(built, family(lambda s: {"0.weight": ts.L1(4 * s)})) == pytest.approx(plain / 4)
        assert exact_top(built, family(lambda s: ts.L1(s**2))) is None

    @pytest.mark.parametrize("penalty", [ts.MCP, ts.SCAD])
    def test_no_formula_where_the_penalty_is_not_convex(self, penalty):
        X, y = load_diabetes(return_X_y=True)
        assert exact_top(spec(partial(linear, 10), (X, y), lambda s: penalty(s)), family(penalty)) is None

    def test_of_a_users_own_penalty_it_is_what_the_penalty_says(self):
        """Whether a class is built in plays no part: MCP in another class is no more convex than MCP."""
        X, y = load_diabetes(return_X_y=True)
        built = spec(partial(linear, 10), (X, y))

        class Mine(Wrapped):
            pass

        class MineConvex(Wrapped):
            convex = True

        assert exact_top(built, family(lambda s: Mine(ts.MCP(s)))) is None
        assert exact_top(built, family(lambda s: Mine(ts.L1(s)))) is None  # which says nothing of itself
        assert exact_top(built, family(lambda s: MineConvex(ts.L1(s)))) == exact_top(built, family(ts.L1))
        settings = {"strengths": 2, "epochs": 2, "folds": 2, "repeats": 1, "progress": False}
        with pytest.warns(ObjectiveWarning, match="not known to be convex"):
            found = ts.path(partial(linear, 10), (X, y), lambda s: Mine(ts.MCP(s)), **settings)
        assert found.grid.how == "probed"

    def test_no_formula_where_the_loss_is_not_known_to_be_convex(self):
        def cauchy(output, y):
            return (1 + (output - y) ** 2).log().mean()

        X, y = load_diabetes(return_X_y=True)
        assert exact_top(spec(partial(linear, 10), (X, y), loss=cauchy), family(ts.L1)) is None
        assert exact_top(spec(partial(linear, 10), (X, y), loss=nn.functional.mse_loss), family(ts.L1)) > 0

    @pytest.mark.parametrize(
        ("build", "penalty"),
        [
            (lambda: mlp(10, 1, hidden=(8,), regression=True), ts.L1),
            (lambda: nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 1), nn.Flatten(0)), ts.L1),
            (lambda: nn.Sequential(nn.Linear(10, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0)), ts.L1),
            (partial(linear, 10), ts.L2),
        ],
        ids=["relu", "two layers", "batch norm", "L2"],
    )
    def test_no_formula_for_deep_models_and_smooth_penalties(self, build, penalty):
        X, y = load_diabetes(return_X_y=True)
        assert exact_top(spec(build, (X, y), penalty), family(penalty)) is None


class TestNull:
    @pytest.mark.parametrize(
        ("loss", "y", "expected"),
        [
            (nn.MSELoss(), torch.tensor([100.0, 200.0, 600.0]), torch.tensor(300.0)),
            (nn.BCEWithLogitsLoss(), torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor(math.log(1 / 3))),
            (nn.PoissonNLLLoss(), torch.tensor([1.0, 2.0, 6.0]), torch.tensor(math.log(3))),
        ],
    )
    def test_the_constant_of_least_loss(self, loss, y, expected):
        torch.testing.assert_close(null_output(loss, y, ()), expected.double(), rtol=1e-6, atol=1e-6)

    def test_of_classes_is_their_shares(self):
        y = torch.tensor([0, 0, 0, 1])
        torch.testing.assert_close(
            null_output(nn.CrossEntropyLoss(), y, (2,)).softmax(0), torch.tensor([0.75, 0.25]).double()
        )
        judged = null_losses(nn.CrossEntropyLoss(), y, torch.tensor([1, 0]), (2,))
        torch.testing.assert_close(judged, -torch.tensor([0.25, 0.75]).double().log())

    def test_a_loss_that_takes_none_is_refused(self):
        with pytest.raises(InputError, match="give the strengths"):
            null_output(lambda output, y: output.mean() * torch.nan, torch.ones(3), ())


class TestProbing:
    """Made-up trainings, whose loss rises from 0 at strength 0 towards 1, the null model's."""

    def grid(self, probe):
        X, y = torch.randn(20, 3), torch.randn(20, 1)
        built = spec(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), (X, y))
        tried = []

        def counted(strength):
            tried.append(strength)
            return probe(strength)

        grid = automatic_grid(built, family(ts.L2), 8, null_loss=1.0, probe=counted)
        assert grid.how == "probed"
        assert len(tried) == len(set(tried)) <= 13
        assert len(grid.strengths) == 9
        saved = json.loads(json.dumps(grid.to_dict(), allow_nan=False))
        assert grid_from_dict(saved).strengths == grid.strengths
        return grid

    @pytest.mark.parametrize("top", [1e-6, 0.003, 0.02, 0.3, 50.0])
    def test_finds_the_top_within_a_factor_of_two_or_so(self, top):
        grid = self.grid(lambda s: min(1.0, s / top))
        assert 0.99 * top <= grid.strengths[-1] <= 2.1 * top
        assert "nothing is learnt" in grid.words

    @pytest.mark.parametrize("left", [0.02, 0.5, 0.9])
    @pytest.mark.parametrize("top", [1e-4, 0.02, 5.0])
    def test_finds_where_there_is_nothing_more_to_lose(self, left, top):
        # Such as L2 in few steps, or a penalty on one layer of several.
        grid = self.grid(lambda s: min(1 - left, s / top))
        assert 0.9 * (1 - left) * top <= grid.strengths[-1] <= 2.1 * (1 - left) * top
        assert f"{100 * left:.0f} % of what is learnt" in grid.words

    def test_a_probe_that_diverges_is_too_strong(self):
        grid = self.grid(lambda s: math.nan if s > 0.02 else min(1.0, s / 10))
        assert 0.02 < grid.strengths[-1] < 0.05

    def test_a_model_that_learns_nothing_is_said(self):
        assert "a guess: without a penalty" in self.grid(lambda s: 2.0).words

    def test_a_penalty_without_effect_is_said(self):
        grid = self.grid(lambda s: 0.0)
        assert "a guess: the penalty changes nothing" in grid.words
        assert grid.strengths[-1] < 10

    def test_probing_ends(self):
        grid = self.grid(lambda s: 0.05 * math.log10(1 + s * 1e5))
        assert "the last probe" in grid.words


class TestGrids:
    def test_geometric(self):
        strengths = geometric(2.0, 5)
        assert strengths[0] == 0
        assert strengths[-1] == 2.0
        assert strengths[1] == pytest.approx(2 * RATIO)
        assert np.ptp(np.diff(np.log(strengths[1:]))) < 1e-12
        assert geometric(2.0, 1) == (0.0, 2.0)
