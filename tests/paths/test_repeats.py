"""Repeats, given splits and test rows, through `ts.path`."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.models import Preprocess
from torchshrink.paths.folds import draw_rows, held_back, make_folds, make_splits
from torchshrink.paths.journal import FOLDER


def genes(seed=0, rows=150):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 100))
    return X.astype("f4"), (X[:, :5] @ [3, -2, 1.5, 1, 0.8] + rng.normal(size=rows)).astype("f4")


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(y))[:120]
    X = (X[rows] - X[rows].mean(0)) / X[rows].std(0)
    return np.column_stack([X, rng.normal(size=(120, 300))]).astype("f4"), y[rows]


def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype("f4"), y


def line(inputs=100):
    return nn.Sequential(nn.Linear(inputs, 1), nn.Flatten(0))


def tuned(penalty=ts.L2, **settings):
    fixed = {"strengths": (1e-3, 1e-2), "folds": 3, "epochs": 3, "batch_size": 32, "progress": False}
    return ts.path(lambda: nn.Linear(4, 3), iris(), penalty, **(fixed | settings))


class TestVerdicts:
    def test_breast_cancer_with_120_rows_and_330_features(self):
        result = ts.path(
            lambda: nn.Linear(330, 2), cancer(), ts.L2, strengths=(0.3, 1.0), epochs=40, progress=False,
            optimizer=partial(torch.optim.Adam, lr=0.02),
        )  # fmt: skip
        assert result.verdict.helps
        assert result.verdict.change < -0.3

    def test_where_nothing_is_learnt_that_comes_first(self):
        rng = np.random.default_rng(0)
        data = rng.normal(size=(60, 3)).astype("f4"), rng.normal(size=60).astype("f4")
        result = ts.path(lambda: line(3), data, ts.L2, strengths=(1e4,), epochs=2, folds=3, progress=False)
        assert result.verdict.words.startswith("nothing was learnt: ")

    @pytest.mark.parametrize("unit", [1e3, 1e6, 1e9])
    @pytest.mark.parametrize("centre", [True, False])
    def test_a_model_whose_steps_are_too_small_for_its_targets_has_learnt_nothing(self, unit, centre):
        rng = np.random.default_rng(1)
        X = rng.normal(size=(200, 4)).astype("f4")
        y = 2 * X[:, 0] + rng.normal(size=200)
        y = (unit * (y - y.mean() if centre else y + 3)).astype("f4")
        result = ts.path(lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), (X, y), ts.L1, strengths=(0.1, 1.0),
                         epochs=3, progress=False)  # fmt: skip
        assert result.verdict.words.startswith("nothing was learnt: the least training loss is ")
        assert "; against strength 0: " in result.verdict.words


class TestRepeats:
    def test_points_and_choice_are_the_first_repeats_and_later_ones_train_two_strengths_a_fold(self, tmp_path):
        once, thrice = tuned(repeats=1), tuned(folder=tmp_path)
        assert [point.to_dict() for point in once.points] == [point.to_dict() for point in thrice.points]
        assert torch.equal(once.losses, thrice.losses)
        assert (once.verdict.compared, thrice.verdict.compared) == (3, 9)
        assert ["luck that all these folds share" in each.verdict.words for each in (once, thrice)] == [True, False]
        trainings = list((tmp_path / FOLDER).glob("*-*.safetensors"))
        assert 9 + 6 <= len(trainings) <= 9 + 12  # one where strength 0 is chosen, else two

    def test_later_repeats_have_splits_and_initial_weights_of_their_own(self):
        splits = make_splits(torch.arange(30.0), 3, repeats=3, seed=0)
        held_out = [fold.validation.tolist() for fold in splits.every]
        assert len({tuple(each) for each in held_out}) == 9
        for folds in splits.repeats:
            assert sorted(row for fold in folds for row in fold.validation.tolist()) == list(range(30))

    @pytest.mark.parametrize("order", ["cold", "warm"])
    def test_both_engines_say_the_same(self, order):
        stacked, plain = (
            tuned([ts.L1, ts.L2], engine=engine, order=order, strengths=(1e-3, 0.1))
            for engine in ("lanes", "sequential")
        )
        for one, two in (
            (stacked.verdict, plain.verdict),
            *zip(stacked.against.values(), plain.against.values(), strict=True),
            *((stacked.results[name].verdict, plain.results[name].verdict) for name in ("l1", "l2")),
        ):
            assert one.compared == two.compared == 9
            assert one.interval == pytest.approx(two.interval, abs=2e-3)

    @pytest.mark.parametrize("settings", [{"order": "cold"}, {"order": "warm"}, {"engine": "sequential"}])
    def test_a_run_goes_on_from_any_training_to_the_same_bits(self, tmp_path, settings):
        settings = {"engine": "lanes"} | settings
        whole = tuned([ts.L1, ts.L2], folder=tmp_path, **settings)
        kept = sorted((tmp_path / FOLDER).glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[len(kept) // 2 :]:
            path.unlink()
        again = tuned([ts.L1, ts.L2], folder=tmp_path, **settings)
        assert again.to_dict() == whole.to_dict()


class TestGivenSplits:
    def test_a_splitter_is_what_it_yields(self):
        y = torch.arange(20.0)
        splitter = RepeatedKFold(n_splits=4, n_repeats=2, random_state=0)
        made = make_folds(y, splitter, seed=0)
        listed = make_folds(y, list(splitter.split(np.zeros(20))), seed=0)
        assert [fold.validation.tolist() for fold in made] == [fold.validation.tolist() for fold in listed]
        assert len(made) == 8

    def test_a_splitter_without_a_seed_draws_by_ours(self):
        folds = [make_folds(torch.arange(20.0), ShuffleSplit(3), seed=seed) for seed in (0, 0, 1)]
        one, two, other = ([fold.validation.tolist() for fold in each] for each in folds)
        assert one == two != other

    def test_rows_held_out_more_than_once(self):
        result = tuned(folds=ShuffleSplit(6, test_size=0.2, random_state=0))
        assert result.verdict.compared == 6
        assert result.verdict.over == "folds"
        counted = sum(
            torch.bincount(torch.from_numpy(held_out), minlength=150)
            for _, held_out in ShuffleSplit(6, test_size=0.2, random_state=0).split(np.zeros(150))
        )
        assert torch.equal(result.losses[:, 0].isnan(), counted == 0)
        means = [sum(fold.validation_loss for fold in point.folds) / 6 for point in result.points]
        assert [point.validation_loss for point in result.points] == pytest.approx(means)

    def test_a_generator_is_gone_through_once(self):
        assert tuned(folds=KFold(3, shuffle=True, random_state=0).split(np.zeros(150))).verdict.compared == 3

    def test_one_fixed_split_says_that_it_speaks_of_its_rows_alone(self):
        rows = np.random.default_rng(0).permutation(150)
        result = tuned(folds=[(rows[:100], rows[100:])])
        assert (result.verdict.over, result.verdict.compared) == ("rows", 50)
        assert "one fixed split: the interval is over its rows alone" in result.verdict.words
        assert result.points[0].validation_se > 0

    def test_a_class_that_is_held_out_and_never_trained_on_is_refused(self):
        with pytest.raises(InputError, match=r"folds\[0\] holds out class 0, of which it trains on no row"):
            tuned(folds=KFold(3))


class TestTestRows:
    def test_of_classes_each_side_has_its_share(self):
        y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
        assert y[held_back(y, 0.2, seed=0)].bincount().tolist() == [12, 6, 2]
        assert torch.equal(held_back(y, 0.2, seed=0), held_back(y, 0.2, seed=0))
        assert not torch.equal(held_back(y, 0.2, seed=0), held_back(y, 0.2, seed=1))

    def test_no_choice_nor_scale_nor_refit_sees_them(self):
        X, y = genes(rows=80)
        test = list(range(0, 80, 4))
        wild = X.copy()
        wild[test] *= 1e3

        def path(X, y, **settings):
            return ts.path(
                lambda: nn.Sequential(Preprocess([0] * 100), *line()), (X, y), ts.L1, strengths=4, folds=3, epochs=2,
                progress=False, **settings,
            )  # fmt: skip

        one, two = path(X, y, test=test), path(wild, np.where(np.isin(np.arange(80), test), -y, y), test=test)
        assert [point.to_dict() for point in one.points] == [point.to_dict() for point in two.points]
        assert (one.grid, one.verdict, one.null_loss) == (two.grid, two.verdict, two.null_loss)
        assert one.test != two.test
        rest = np.setdiff1d(np.arange(80), test)
        without = path(X[rest], y[rest])
        assert without.verdict == one.verdict
        assert torch.equal(one.losses[rest], without.losses)
        assert bool(one.losses[test].isnan().all())
        assert one.fold[test].unique().tolist() == [-1]
        for ours, theirs in zip(one.refit()[0].parameters(), without.refit()[0].parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_it_is_the_refitted_model_s_loss_and_accuracy(self):
        X, y = (torch.tensor(each) for each in iris())
        rows = held_back(y, 0.3, seed=0)
        for order in ("cold", "warm"):
            found = tuned(strengths=(1e-3, 0.03), test=rows.tolist(), order=order, epochs=6, batch_size=8)
            test, model = found.test, found.refit()[0]
            with torch.no_grad():
                output = model(X[rows])
            assert (test.rows, test.trained, test.strength) == (45, 105, found.best.strength)
            assert test.tuned_loss == pytest.approx(nn.functional.cross_entropy(output, y[rows]).item(), rel=1e-6)
            assert test.tuned_accuracy == pytest.approx((output.argmax(1) == y[rows]).double().mean().item())
            assert "this speaks of these two models" in test.words

    def test_genes_are_better_on_the_test_rows_too(self, tmp_path):
        result = ts.path(
            line, genes(), {"lasso": ts.L1, "ridge": ts.L2}, strengths=(0.3, 1.0), epochs=60, test=0.3, progress=False,
            repeats=1, optimizer=partial(torch.optim.Adam, lr=0.05),
        )  # fmt: skip
        test = result.test
        assert test.verdict.helps
        assert test.verdict.over == "rows"
        assert test.tuned_loss < test.unpenalised_loss / 2
        assert test.tuned_accuracy is None is test.accuracy_interval
        assert test.penalty == "lasso"
        result.save(tmp_path)
        assert ts.load_path(tmp_path).test == test

    def test_where_strength_0_is_chosen_there_is_one_model(self):
        found = tuned(strengths=(1e3,), test=0.2, epochs=20)
        assert found.best.strength == 0
        assert found.test.words.startswith("strength 0 was chosen")
        assert found.test.tuned_loss == found.test.unpenalised_loss

    def test_row_numbers_of_folds_are_the_caller_s(self):
        folds = [list(range(20, 50)), list(range(50, 80))]
        found = tuned(folds=[list(range(20, 50)), list(range(60, 90))], test=[0, 59, 149, 101])
        assert torch.equal(torch.nonzero(found.fold == 0).flatten(), torch.arange(20, 50))
        assert torch.equal(torch.nonzero(found.fold == 1).flatten(), torch.arange(60, 90))
        with pytest.raises(InputError, match=r"folds\[1\]: row 60 is one of the test rows"):
            tuned(folds=folds, test=[0, 60, 149, 101])

    @pytest.mark.parametrize(
        ("test", "message"),
        [
            (0.0, "a share between 0 and 1"),
            (1.0, "a share between 0 and 1"),
            (True, "a share between 0 and 1"),
            (-0.1, "a share between 0 and 1"),
            (0.99, "would tune"),
            ([150], "0 to 149 expected"),
            ([], "^test: none given, at least one row number expected"),
            (torch.arange(150) < 50, r"^test: a mask of shape \(150,\) given, .*: mask.nonzero\(\)\[:, 0\]"),
            ((torch.arange(150) < 50).numpy(), r"np.flatnonzero\(mask\)"),
            ([3, 60, 149, 60], "^test: row 60 is given twice"),
            ("a", "row numbers expected"),
            (list(range(150)), "leaves 0"),
            (list(range(50)), "class 0, of which it trains on no row"),
        ],
    )
    def test_what_is_none_is_refused_in_one_line(self, test, message):
        with pytest.raises(InputError, match=message) as raised:
            tuned(test=test)
        assert "\n" not in str(raised.value)

    def test_so_many_rows(self):
        y = torch.arange(10.0)
        assert len(draw_rows(y, 4, seed=0, what="--rows 6")) == 4
        with pytest.raises(InputError, match="--rows 10: of 10 rows 10 would tune and 0 test"):
            draw_rows(y, 0, seed=0, what="--rows 10")


def test_settings_are_checked():
    with pytest.raises(InputError, match="repeats=0"):
        tuned(repeats=0)
