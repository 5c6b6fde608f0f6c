"""`result.at`, which picks a strength for a wanted size, and relaxed refits."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LinearRegression
from torch import nn

import torchshrink as ts
from path_cases import iris, small
from torchshrink.errors import InputError
from torchshrink.paths import load_path

F64 = torch.float64


def noisy(rows=120, features=12):
    X = torch.randn(rows, features, dtype=F64)
    y = X[:, :4] @ torch.tensor([2.0, -1.0, 0.7, 0.3], dtype=F64) + 0.5 * torch.randn(rows, dtype=F64)
    return X, y[:, None]


def linear_path(data, **settings):
    fixed = {"strengths": (0.05, 0.2, 0.5, 1.0, 3.0, 10.0), "folds": 3, "epochs": 60, "batch_size": 120, "repeats": 1}
    fixed["optimizer"] = partial(torch.optim.SGD, lr=0.1)
    return ts.path(lambda: nn.Linear(12, 1, dtype=F64), data, ts.L1, progress=False, **(fixed | settings))


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    return linear_path(noisy())


class TestAt:
    def test_it_is_the_largest_that_fits(self, result):
        sizes = [point.nonzero for point in result.points]
        assert len(set(sizes)) >= 4
        for wanted in range(13):
            fitting = [size for size in sizes if size <= wanted]
            assert result.at(nonzero=wanted).nonzero == max(fitting)
        for share in (0.1, 0.25, 1 / 3, 0.5, 1.0):
            assert result.at(nonzero=share).nonzero == max(size for size in sizes if size <= share * 12 + 1e-9)
        assert result.at(nonzero=1.0) is result.points[0]
        assert result.at(nonzero=np.int64(5)) is result.at(nonzero=5)
        assert result.at(nonzero=np.float64(0.4)) is result.at(nonzero=0.4)

    def test_of_equals_it_is_the_better(self, result):
        dense = [point for point in result.points if point.nonzero == 12]
        assert result.at(nonzero=12).validation_loss == min(point.validation_loss for point in dense)

    def test_the_refit_there_is_that_strength_s(self, result):
        point = result.at(nonzero=0.4)
        model, _ = result.refit(point)
        same, _ = result.refit(point.strength)
        assert torch.equal(model.weight, same.weight)
        assert 1 <= int((model.weight != 0).sum()) <= 7

    def test_a_saved_result_knows_its_size_too(self, result, tmp_path):
        result.save(tmp_path)
        assert load_path(tmp_path).at(nonzero=0.4).strength == result.at(nonzero=0.4).strength

    def test_a_path_that_is_not_so_sparse_says_how_sparse_it_is(self):
        result = linear_path(noisy(), strengths=(0.05, 0.1))
        sparsest = min(result.points, key=lambda point: point.nonzero)
        with pytest.raises(
            InputError, match=rf"nonzero=2: .* strength {sparsest.strength:g}, has {sparsest.nonzero:.6g}"
        ):
            result.at(nonzero=2)
        with pytest.raises(InputError, match=r"^nonzero=0.1: no strength of this path leaves so few"):
            result.at(nonzero=0.1)
        with pytest.raises(InputError, match=rf"has {sparsest.nonzero:.6g} of 12 weights nonzero: give more"):
            result.at(nonzero=0.1)

    def test_a_choice_goes_by_its_name(self, result):
        assert result.one_se.strength != result.best.strength
        for name, point in (("best", result.best), ("one_se", result.one_se)):
            named, known = result.refit(name)[0], result.refit(point)[0]
            assert torch.equal(named.weight, known.weight)

    @pytest.mark.parametrize("bad", ["one-se", "", "0.1"])
    def test_a_name_of_no_choice_is_refused(self, result, bad):
        with pytest.raises(InputError, match=r"^strength=.*expected a number ≥ 0, a point, 'best' or 'one_se'"):
            result.refit(bad)

    @pytest.mark.parametrize("bad", [-1, 1.5, 0.0, -0.5, math.nan, True, "3", None], ids=str)
    def test_a_size_that_is_none_is_refused_in_one_line(self, result, bad):
        with pytest.raises(InputError, match=r"^nonzero=.*expected how many weights"):
            result.at(nonzero=bad)

    def test_what_is_exempt_does_not_count(self):
        result = ts.path(
            small,
            iris(),
            lambda s: {"hidden1.weight": ts.L1(s)},
            strengths=(0.01,),
            folds=2,
            epochs=2,
            repeats=1,
            progress=False,
        )
        assert result.points[0].nonzero == 32
        assert result.at(nonzero=1.0).nonzero == 32
        with pytest.raises(InputError, match=r"nonzero=0.001"):
            result.at(nonzero=0.001)


class TestRelaxed:
    @pytest.mark.parametrize("order", ["cold", "warm"])
    def test_a_linear_model_is_least_squares_on_the_support(self, order):
        X, y = noisy()
        result = linear_path((X, y), order=order, epochs=300, strengths=(0.2, 0.4))
        kept = Lasso(alpha=0.2, tol=1e-14, max_iter=100_000).fit(X.numpy(), y.numpy()[:, 0]).coef_ != 0
        assert 2 <= kept.sum() <= 6
        wanted = LinearRegression().fit(X.numpy()[:, kept], y.numpy()[:, 0])
        for polish in (False, True):
            model, certificate = result.refit(
                0.4, relaxed=True, polish=polish
            )  # nn.MSELoss: twice scikit-learn's alpha
            found = model.weight.detach().numpy()[0]
            assert np.array_equal(found != 0, kept)
            assert np.allclose(found[kept], wanted.coef_, rtol=0, atol=1e-8)
            assert model.bias.item() == pytest.approx(wanted.intercept_, abs=1e-8)
            assert certificate.ok(1e-6)
            assert certificate.penalty == 0
            assert certificate.objective == certificate.loss < result.refit(0.4)[1].loss
            assert certificate.notes == ()

    def test_a_polished_support_is_the_lasso_s_however_short_the_training(self):
        X, y = noisy()
        result = linear_path((X, y), epochs=2, strengths=(0.4,), optimizer=None)
        kept = Lasso(alpha=0.2, tol=1e-14, max_iter=100_000).fit(X.numpy(), y.numpy()[:, 0]).coef_ != 0
        model, certificate = result.refit(0.4, relaxed=True, polish=True)
        wanted = LinearRegression().fit(X.numpy()[:, kept], y.numpy()[:, 0])
        assert np.array_equal(model.weight.detach().numpy()[0] != 0, kept)
        assert np.allclose(model.weight.detach().numpy()[0][kept], wanted.coef_, rtol=0, atol=1e-6)
        assert certificate.ok(1e-5)

    @pytest.mark.parametrize("penalty", [ts.L1, ts.GroupLasso], ids=["l1", "group lasso"])
    def test_a_network_keeps_its_zeros_and_fits_better(self, penalty):
        result = ts.path(
            small, iris(), penalty, strengths=(0.03,), folds=2, epochs=40, repeats=1, progress=False, batch_size=16,
            optimizer=partial(torch.optim.Adam, lr=0.01),
        )  # fmt: skip
        shrunk, before = result.refit(0.03)
        relaxed, after = result.refit(0.03, relaxed=True)
        zeros = 0
        for p, q in zip(shrunk.parameters(), relaxed.parameters(), strict=True):
            if p.ndim > 1:
                assert (q[p == 0] == 0).all()
                zeros += int((p == 0).sum())
        assert zeros > 3
        assert after.loss < before.loss
        assert after.penalty == 0

    def test_where_nothing_is_zero_it_says_so(self):
        result = ts.path(small, iris(), ts.L2, strengths=(0.01,), folds=2, epochs=2, repeats=1, progress=False)
        _, certificate = result.refit(0.01, relaxed=True)
        assert "the penalty left no weight exactly zero, so this is a training without penalty" in certificate.notes[-1]

    def test_rules_that_exempt_all_are_no_obstacle(self):
        result = ts.path(
            small, iris(), lambda s: ts.L1(s) if s else {"*": None}, strengths=(0.01,), folds=2, epochs=1, repeats=1,
            progress=False,
        )  # fmt: skip
        assert math.isfinite(result.refit(0.0, relaxed=True)[1].loss)

    def test_the_best_of_several_penalties(self):
        compared = ts.path(
            small, iris(), [ts.L1, ts.L2], strengths=(0.01,), folds=2, epochs=2, repeats=1, progress=False
        )
        one, two = compared.refit(relaxed=True)[0], compared.best.refit(relaxed=True)[0]
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
