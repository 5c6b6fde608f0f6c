"""`ts.path` from end to end."""

import json
import math
import runpy
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.linear_model import Lasso
from torch import nn

import torchshrink as ts
from torchshrink.errors import DivergenceError, DivergenceWarning, InputError, ObjectiveWarning
from torchshrink.models import mlp
from torchshrink.paths import PathComparison, PathResult, clear_journal, load_path
from torchshrink.support.randomness import rng_state
from torchshrink.training import default_optimizer


def iris(rows=150):
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)[:rows]
    return X[order].astype("f4"), y[order]


def quick(penalty=ts.L1, *, build=lambda: mlp(4, 3, hidden=(8,)), data=None, call=ts.path, **settings):
    fixed = {"strengths": (1e-3, 1e-2), "folds": 3, "epochs": 4, "batch_size": 32, "repeats": 1, "progress": False}
    return call(build, data or iris(), penalty, **(fixed | settings))


ONE = nn.Linear(4, 3)
GENERATOR = torch.Generator().manual_seed(0)


def unseeded():
    model = nn.Linear(4, 3)
    nn.init.normal_(model.weight, generator=GENERATOR)
    return model


def sigmoidal(model):
    return nn.Sequential(*(nn.Sigmoid() if isinstance(layer, nn.ReLU) else layer for layer in model))


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """Twice what it says it is."""

    def forward(self, output, target):
        return 2 * super().forward(output, target)


scaled = CrossEntropyLoss()


def plain(result):
    return json.dumps(result.to_dict(), allow_nan=False)


class TestGroundTruth:
    def test_a_linear_path_is_scikit_learns_lasso(self):
        X, y = load_diabetes(return_X_y=True)
        X, y = (X - X.mean(0)) / X.std(0), y / y.std()
        alphas = [0.02, 0.05, 0.3]
        result = ts.path(
            lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)).double(),
            (X, y),
            ts.L1,
            strengths=[2 * alpha for alpha in alphas],  # mean squared error is twice scikit-learn's half
            folds=3,
            epochs=800,
            batch_size=len(y),
            optimizer=partial(torch.optim.SGD, lr=0.2, momentum=0.9),
            progress=False,
        )
        for alpha, point in zip(alphas, result.points[1:], strict=True):
            losses, nonzero = [], []
            for k in range(3):
                train, held_out = (result.fold != k).numpy(), (result.fold == k).numpy()
                fitted = Lasso(alpha, tol=1e-12, max_iter=100_000).fit(X[train], y[train])
                losses.append(((fitted.predict(X[held_out]) - y[held_out]) ** 2).mean())
                nonzero.append(np.count_nonzero(fitted.coef_))
            assert [fold.validation_loss for fold in point.folds] == pytest.approx(losses, rel=1e-7)
            assert [fold.nonzero for fold in point.folds] == nonzero

        model, certificate = result.refit(strength=0.1)
        fitted = Lasso(0.05, tol=1e-12, max_iter=100_000).fit(X, y)
        np.testing.assert_allclose(model[0].weight.detach().numpy()[0], fitted.coef_, atol=1e-7)
        assert certificate.ok(1e-5)
        assert not model.training

    def test_at_the_exact_top_nothing_is_left_and_below_it_something(self):
        X, y = load_diabetes(return_X_y=True)
        result = ts.path(
            lambda: nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)).double(),
            ((X / X.std(0)), y / y.std()),
            ts.L1,
            strengths=4,
            folds=[[0], [1]],  # as good as all the data
            epochs=400,
            batch_size=500,
            optimizer=partial(torch.optim.SGD, lr=0.2, momentum=0.9),
            progress=False,
        )
        assert result.grid.how == "exact"
        assert result.points[-1].nonzero <= 1  # a row less moves the top by a hair
        assert result.points[-2].nonzero > 1
        assert result.points[-1].train_loss == pytest.approx(1, rel=0.01)

    def test_on_300_training_rows_of_digits_the_tuned_strength_helps(self):
        X, y = load_digits(return_X_y=True)
        parts = np.array_split(np.random.default_rng(0).permutation(len(y)), 6)  # 299 or 300 rows each
        result = ts.path(
            lambda: mlp(64, 10),
            (X, y),
            ts.L2,
            strengths=[1e-3, 3e-3, 1e-2],
            folds=[(parts[k], parts[(k + 1) % 6]) for k in range(6)],
            epochs=60,
            optimizer=partial(torch.optim.Adam, lr=5e-3, fused=True),
            progress=False,
        )
        assert result.best.strength > 0
        assert result.verdict.helps
        assert result.verdict.interval[1] < 0
        assert result.best.validation_loss < result.points[0].validation_loss - 0.03


class TestPairing:
    def test_strengths_share_initial_weights_and_batches(self):
        result = quick(strengths=[1e-12])
        none, hardly = result.points
        assert none.validation_loss == pytest.approx(hardly.validation_loss, rel=1e-5)

    def test_penalties_share_folds_initial_weights_and_batches(self):
        result = quick([ts.L1, ts.L2, ts.GroupLasso])
        assert isinstance(result, PathComparison)
        folds = [each.fold for each in result.results.values()]
        assert all(torch.equal(folds[0], fold) for fold in folds)
        unpenalised = [each.losses[:, 0] for each in result.results.values()]
        for losses in unpenalised[1:]:
            torch.testing.assert_close(losses, unpenalised[0], rtol=1e-6, atol=1e-8)

    def test_a_penalty_among_several_is_as_it_is_alone(self):
        assert plain(quick([ts.L1, ts.L2]).results["l2"]) == plain(quick(ts.L2))

    def test_dropout_is_the_same_at_every_strength(self):
        result = quick(
            build=lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)), strengths=[1e-12]
        )
        assert result.points[0].validation_loss == pytest.approx(result.points[1].validation_loss, rel=1e-5)

    def test_preprocessing_sees_training_rows_only(self):
        X, y = iris()
        wild = X.copy()
        wild[7] = 1e6  # wrecks the scale of every column where it is trained on
        folds = [[7], list(range(20, 50)), list(range(50, 100))]
        (held_out, trained_on, _), before = (quick(data=(each, y), folds=folds).points[0].folds for each in (wild, X))
        assert held_out.train_loss == before[0].train_loss
        assert trained_on.train_loss > before[1].train_loss + 0.01


class TestReproducibility:
    def test_same_seed_same_bits_and_the_callers_generators_untouched(self, tmp_path):
        before = rng_state()
        one = quick(strengths=3, seed=4)
        two = quick(strengths=3, seed=4)
        refitted = [result.refit()[0] for result in (one, two)]
        after = rng_state()
        assert plain(one) == plain(two)
        assert torch.equal(one.losses, two.losses)
        for a, b in zip(refitted[0].parameters(), refitted[1].parameters(), strict=True):
            assert torch.equal(a, b)
        assert plain(quick(strengths=3, seed=5)) != plain(one)
        assert torch.equal(before["torch"], after["torch"])
        assert torch.equal(before["numpy"][1], after["numpy"][1])
        assert before["python"] == after["python"]
        for place, result in (("a", one), ("b", two)):
            result.save(tmp_path / place)
            result.report(tmp_path / place / "path.png")
        for name in ("path.json", "losses.safetensors", "path.png"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_float64_all_the_way(self):
        X, y = iris()
        result = quick(build=lambda: mlp(4, 3, hidden=(8,)).double(), data=(X.astype("f8"), y))
        model, _ = result.refit()
        assert {p.dtype for p in model.parameters()} == {torch.float64}

    def test_the_callers_data_are_left_alone(self):
        X, y = iris()
        kept = X.copy(), y.copy()
        quick(data=(X, y))
        assert np.array_equal(kept[0], X)
        assert np.array_equal(kept[1], y)


class TestJournal:
    SCRIPT = """
        import sys, time, torch, torchshrink as ts
        from sklearn.datasets import load_iris
        from torchshrink.models import mlp
        torch.set_num_threads(1)
        pause = 0.0
        def slow(parameters):
            optimizer = torch.optim.Adam(parameters)
            optimizer.register_step_pre_hook(lambda *_: time.sleep(pause))
            return optimizer
        X, y = load_iris(return_X_y=True)
        def run(folder):
            result = ts.path(lambda: mlp(4, 3, hidden=(8,)), (X, y), [ts.L1, ts.L2], strengths=3, folds=3, epochs=4,
                             batch_size=32, progress=False, folder=folder, optimizer=slow)
            result.save(folder)
        if __name__ == "__main__":
            pause = 0.005
            run(sys.argv[1])
    """

    def test_killed_and_resumed_ends_with_the_same_bytes(self, tmp_path):
        """Killed in a process of its own, and resumed in this one."""
        script = tmp_path / "run.py"
        script.write_text(textwrap.dedent(self.SCRIPT))
        process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "killed")])
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "killed").glob("journal/*.safetensors"))) < 4:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert not (tmp_path / "killed" / "path.json").exists()
        run = runpy.run_path(str(script))["run"]
        run(tmp_path / "whole")
        run(tmp_path / "killed")
        for name in ("path.json", "losses.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()

    def test_what_is_finished_is_not_trained_again(self, tmp_path):
        first = quick(folder=tmp_path)
        built = []

        def build():
            built.append(1)
            return mlp(4, 3, hidden=(8,))

        assert plain(quick(folder=tmp_path, build=build)) == plain(first)
        assert len(built) <= 3  # looked at, not trained
        (tmp_path / "journal" / "0-1-0.01.safetensors").unlink()
        assert plain(quick(folder=tmp_path, build=build)) == plain(first)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"epochs": 5}, "epochs was 4 and is 5"),
            ({"seed": 1}, "seed was 0 and is 1"),
            ({"folds": 4}, "folds was 3 folds"),
            ({"data": iris(149)}, "X was"),
            ({"penalty": ts.L2}, "penalties was"),
            ({"build": lambda: mlp(4, 3, hidden=(9,))}, "initial weights"),
            ({"optimizer": partial(torch.optim.SGD, lr=0.1)}, "optimizer was Adam"),
            ({"build": lambda: sigmoidal(mlp(4, 3, hidden=(8,)))}, "architecture was Sequential"),
            ({"loss": scaled}, "first losses was"),
        ],
    )
    def test_another_setting_is_refused_by_name(self, tmp_path, change, named):
        quick(folder=tmp_path)
        with pytest.raises(InputError, match=named) as raised:
            quick(**({"folder": tmp_path} | change))
        assert "\n" not in str(raised.value)

    def test_other_class_weights_are_another_loss(self, tmp_path):
        quick(folder=tmp_path, loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 1.0])))
        with pytest.raises(InputError, match="first losses was"):
            quick(folder=tmp_path, loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 30.0, 1.0])))

    def test_another_number_of_threads_rounds_otherwise(self, tmp_path):
        quick(folder=tmp_path)
        torch.set_num_threads(2)
        with pytest.raises(InputError, match="threads was 1 and is 2"):
            quick(folder=tmp_path)

    def test_another_order_of_penalties_is_another_path(self, tmp_path):
        quick([ts.L1, ts.L2], folder=tmp_path)
        with pytest.raises(InputError, match="penalties was"):
            quick([ts.L2, ts.L1], folder=tmp_path)

    def test_other_strengths_go_on_from_those_in_common(self, tmp_path):
        quick(folder=tmp_path, strengths=[0.01])
        assert plain(quick(folder=tmp_path)) == plain(quick())

    def test_an_interruption_leaves_what_is_finished(self, tmp_path):
        steps = []

        def count(*_):
            steps.append(1)
            if len(steps) > 30:
                raise KeyboardInterrupt

        def interrupted(parameters):
            optimizer = torch.optim.SGD(parameters, lr=0.1)
            optimizer.register_step_pre_hook(count)
            return optimizer

        with pytest.raises(KeyboardInterrupt):
            quick(folder=tmp_path, optimizer=interrupted)
        assert len(list((tmp_path / "journal").glob("*.safetensors"))) == 30 // (4 * 4)

    def test_cleared_is_gone(self, tmp_path):
        quick(folder=tmp_path)
        clear_journal(tmp_path)
        clear_journal(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestDivergence:
    """SGD on L2 diverges where lr · 2λ > 2, and only there."""

    def test_a_strength_that_diverges_is_reported_and_the_others_go_on(self):
        settings = {"penalty": ts.L2, "optimizer": partial(torch.optim.SGD, lr=0.1), "epochs": 60}
        with pytest.warns(DivergenceWarning, match=r"l2 1e\+04 \(3/3 folds\)"):
            result = quick(strengths=[1e-3, 1e4], **settings)
        bad = result.points[-1]
        assert bad.diverged
        assert bad.validation_loss == math.inf
        assert result.to_dict()["points"][-1]["validation_loss"] is None
        assert not result.best.diverged
        assert not result.one_se.diverged
        sound = quick(strengths=[1e-3], **settings)
        assert result.points[:-1] == sound.points
        assert result.verdict == sound.verdict
        assert torch.equal(result.losses[:, :-1], sound.losses)
        assert result.losses[:, -1].isnan().all()

    def test_everything_that_diverges_is_an_error(self):
        with pytest.raises(DivergenceError, match="lower the learning rate"):
            quick(strengths=[0.1], optimizer=partial(torch.optim.SGD, lr=1e30))

    def test_a_strength_0_that_diverges_leaves_nothing_to_compare_with(self):
        data = torch.randn(60, 3), torch.randn(60, 1)

        def explode(parameters):
            return torch.optim.SGD(parameters, lr=0.1)

        # Unpenalised, the loss has no minimum: −w² falls for ever.
        def loss(output, target):
            return -0.5 * (output**2).mean() * 20

        with pytest.warns(DivergenceWarning, match="l2 0 "):
            result = ts.path(
                lambda: nn.Linear(3, 1, bias=False),
                data,
                ts.L2,
                strengths=[60.0, 80.0],
                folds=3,
                epochs=200,
                batch_size=10,
                loss=loss,
                optimizer=explode,
                method="prox",
                progress=False,
            )
        assert result.points[0].diverged
        assert result.best.strength > 0
        assert not result.verdict.helps
        assert "nothing to compare" in result.verdict.words


class TestInputs:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": 0}, "epochs=0"),
            ({"epochs": 2.5}, "epochs=2.5"),
            ({"batch_size": 0}, "batch_size=0"),
            ({"strengths": 0}, "strengths=0"),
            ({"strengths": -3}, "strengths=-3"),
            ({"strengths": True}, "strengths=True"),
            ({"strengths": [0.1, math.nan]}, "nan given"),
            ({"folds": 1}, "folds=1"),
            ({"folds": 51}, "only 50 rows of class"),
            ({"seed": -1}, "seed=-1"),
            ({"seed": 0.5}, "seed=0.5"),
            ({"method": "proximal"}, "method='proximal'"),
            ({"on": 3}, "on: int 3"),
            ({"device": "cuda:99"}, "device='cuda:99'"),
            ({"device": "nowhere"}, "device='nowhere'"),
            ({"optimizer": lambda p: 3}, "returned int"),
            ({"build": 3}, "build: int"),
            ({"build": lambda: 3}, "returned int"),
            ({"build": nn.Linear(4, 3)}, r"a Linear given, a function that makes a new one expected: lambda: Linear\("),
            ({"build": lambda: ONE}, "the same weights twice"),
            ({"build": lambda: nn.Sequential(ONE, nn.Linear(3, 3))}, "the same weights twice"),
            ({"build": unseeded}, "other weights under the same seed"),
            ({"optimizer": "sgd"}, r"optimizer: 'sgd' given, a function of a model's parameters .* lambda parameters:"),
            ({"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)}, "an instance of SGD given"),
            ({"build": nn.ReLU}, "nothing to train"),
            ({"build": lambda: mlp(5, 3)}, r"\(n ≥ 1, 5\) expected"),
            ({"build": lambda: nn.Linear(5, 3)}, "does not take rows"),
            ({"data": (np.zeros((4, 2)),)}, r"a pair \(X, y\)"),
            ({"data": (np.zeros((4, 2)), np.zeros(3))}, "one target for each row"),
            ({"data": (np.zeros((4, 4)), np.array(["a", "b", "c", "d"]))}, "y: text given"),
            ({"data": (np.zeros((4, 4)), np.array([0, 1, math.nan, 2]))}, "y has 1 values"),
            ({"data": (np.full((4, 4), math.inf), np.arange(4) % 2)}, "X has infinite"),
            ({"data": (np.zeros((4, 4)), np.zeros(4, dtype=int))}, "one class only"),
            ({"data": (np.zeros((4, 4)), np.arange(4) - 1)}, "class code -1"),
            ({"penalty": ts.ElasticNet}, "more than one strength"),
            ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "a mean expected"),
        ],
    )
    def test_bad_ones_are_refused_in_one_line_before_any_training(self, change, message, monkeypatch):
        def never(*_, **__):
            raise AssertionError("trained")

        monkeypatch.setattr("torchshrink.paths.training_spec.train_epoch", never)
        with pytest.raises(InputError, match=message) as raised:
            quick(**change)
        assert "\n" not in str(raised.value)

    def test_weight_decay_that_acts_too_is_warned_of_once(self):
        with pytest.warns(ObjectiveWarning) as warned:
            quick(optimizer=partial(torch.optim.Adam, weight_decay=0.1))
        assert len(warned) == 1

    @pytest.mark.parametrize("method", ["loss", "gradient", "prox", "auto"])
    def test_methods(self, method):
        result = quick(ts.L2, method=method, strengths=[0.01], optimizer=partial(torch.optim.SGD, lr=0.01))
        assert result.points[1].validation_loss != result.points[0].validation_loss
        _, certificate = result.refit(0.01)
        assert certificate.penalty > 0

    def test_loss_and_gradient_are_the_same_objective(self):
        one, two = (quick(ts.L2, method=method, strengths=[0.01]) for method in ("loss", "gradient"))
        torch.testing.assert_close(one.losses, two.losses, rtol=1e-4, atol=1e-5)

    def test_any_shape_of_rows_and_any_loss(self):
        X, y = torch.randn(40, 1, 6, 6), torch.randn(40, 2)
        result = ts.path(
            lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)),
            (X, y),
            lambda s: {nn.Conv2d: ts.GroupLasso(s), "*": None},
            strengths=2,
            folds=2,
            epochs=3,
            loss=nn.HuberLoss(),
            progress=False,
        )
        assert result.points[0].accuracy is None
        assert result.settings["at strength 1"] == {"type:Conv2d": str(ts.GroupLasso(1.0)), "*": None}

    def test_token_codes_stay_whole_numbers(self):
        X, y = torch.randint(0, 9, (40, 5)), torch.arange(40) % 2
        model = lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))  # noqa: E731
        result = ts.path(model, (X, y), ts.L2, strengths=2, folds=2, epochs=2, progress=False)
        assert len(result.points) == 3


class TestResult:
    def test_automatic_grids_end_where_nothing_is_learnt(self):
        result = quick(strengths=5, epochs=30, batch_size=16, optimizer=partial(torch.optim.Adam, lr=0.01))
        assert result.grid.how == "probed"
        assert len(result.points) == 6
        assert result.points[-1].nonzero == 0
        assert result.points[-1].validation_loss == pytest.approx(result.null_loss, rel=0.05)
        assert result.points[-1].gap < result.points[0].gap + 0.05

    @pytest.mark.parametrize("penalty", [ts.L1, [ts.L1, ts.L2], {"a": ts.L1(1.0)}])
    def test_saved_and_loaded_is_the_same(self, penalty, tmp_path):
        result = quick(penalty)
        result.save(tmp_path / "new" / "folder")
        loaded = load_path(tmp_path / "new" / "folder")
        assert type(loaded) is type(result)
        assert plain(loaded) == plain(result)
        assert loaded.verdict == result.verdict
        with pytest.raises(InputError, match="holds neither data nor code"):
            loaded.refit()
        if isinstance(result, PathResult):
            assert loaded.points == result.points
            assert torch.equal(loaded.losses, result.losses)

    def test_a_truncated_result_is_refused_in_one_line(self, tmp_path):
        quick().save(tmp_path)
        whole = (tmp_path / "path.json").read_text()
        for text in (whole[:50], "{}", json.dumps({"format": "torchshrink-path-1"})):
            (tmp_path / "path.json").write_text(text)
            with pytest.raises(InputError) as raised:
                load_path(tmp_path)
            assert "\n" not in str(raised.value)

    def test_no_time_and_no_place_in_the_files(self, tmp_path):
        quick().save(tmp_path)
        text = (tmp_path / "path.json").read_text()
        assert str(tmp_path) not in text
        assert "time" not in text

    def test_points_agree_with_the_rows_losses(self):
        result = quick()
        for column, point in enumerate(result.points):
            assert point.validation_loss == pytest.approx(result.losses[:, column].mean().item())
            assert point.gap == pytest.approx(point.validation_loss - point.train_loss)

    def test_comparison_names_the_better_one_and_says_how_sure(self):
        result = quick([ts.L1, ts.L2])
        assert result.best.best.validation_loss == min(r.best.validation_loss for r in result.results.values())
        (other,) = set(result.results) - {result.best.penalty}
        assert set(result.against) == {other}
        assert result.best.penalty in result.against[other].words

    def test_refit_leaves_a_model_that_takes_raw_rows(self):
        X, y = iris()
        result = quick(epochs=40)
        model, certificate = result.refit()
        assert (model(torch.from_numpy(X)).argmax(1).numpy() == y).mean() > 0.8
        assert certificate.loss == pytest.approx(
            nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(y)).item(), rel=1e-5
        )
        with pytest.raises(InputError, match="strength=-1"):
            result.refit(-1)

    def test_a_model_that_insists_on_float32_is_certified_in_it(self):
        class Stubborn(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(4, 3))

            def forward(self, X):
                return X.float() @ self.weight.view(4, 3)

        result = quick(build=Stubborn, strengths=2)
        assert result.grid.how == "probed"
        assert math.isfinite(result.refit()[1].distance)


class TestProgress:
    def test_counts_trainings_on_stderr(self, capsys):
        quick(progress=True)
        seen = capsys.readouterr()
        assert seen.out == ""
        assert "9/9" in seen.err
        assert "best" in seen.err

    def test_silent_without(self, capsys):
        quick(strengths=2)
        assert capsys.readouterr() == ("", "")

    def test_no_warning_of_its_own(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick([ts.L1, ts.L2], strengths=2)


def test_the_default_optimizer_is_adam():
    assert isinstance(default_optimizer(nn.Linear(2, 2).parameters()), torch.optim.Adam)
