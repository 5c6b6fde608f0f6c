"""Warm paths: what a strength starts from, both engines, resuming, divergence, refitting."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import Lasso, LinearRegression
from torch import nn
from torch.utils.data import TensorDataset

import torchshrink as ts
from path_cases import Conv, Normalised, flat, iris, plain, small, spec_for
from torchshrink.errors import DivergenceWarning, InputError, LanesWarning
from torchshrink.models import mlp
from torchshrink.paths import load_path
from torchshrink.paths.engines import planner, warm_path
from torchshrink.paths.engines.planner import make_plan
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.journal import Journal
from torchshrink.paths.model_weights import load_weights, weights_of
from torchshrink.paths.penalty_family import families
from torchshrink.regularizer.selection import ALL, WEIGHTS
from torchshrink.support.randomness import seeded
from torchshrink.training import batches, evaluate

STRENGTHS = (0.0, 1e-3, 1e-2)
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01),
}


def chain():
    return mlp(16, 3, hidden=(8, 6))


def quick(penalty=ts.L1, *, build=small, data=None, **settings):
    fixed = {
        "strengths": (1e-3, 1e-2),
        "folds": 3,
        "epochs": 3,
        "batch_size": 32,
        "repeats": 1,
        "progress": False,
        "order": "warm",
    }
    return ts.path(build, iris() if data is None else data, penalty, **flat(fixed | settings))


def spec_of(build, penalty=ts.L1, *, epochs=4, optimizer=OPTIMIZERS["adam"], rows=48, **settings):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, 16, generator=generator, dtype=torch.float64)
    tuned = families(penalty)
    fixed = {"batch_size": 6, "loss": None, "seed": 3, "device": None, "on": WEIGHTS, "method": "auto"}
    spec = spec_for(
        lambda: build().double(),
        (X, X[:, :3].argmax(1)),
        tuned,
        epochs=epochs,
        optimizer=optimizer,
        **(fixed | settings),
    )
    return spec, make_folds(spec.y, 3, seed=0), tuned[0]


class TestAgreement:
    """In float64, every weight and buffer after each of three strengths."""

    @pytest.mark.parametrize(
        ("build", "optimizer", "penalty"),
        [
            (chain, "sgd", ts.L1),
            (chain, "adam", ts.GroupLasso),
            (Conv, "sgd", ts.GroupLasso),
            (Conv, "adam", ts.L1),
        ],
    )
    def test_of_the_engines(self, build, optimizer, penalty):
        self.check(build, penalty, optimizer=OPTIMIZERS[optimizer])

    @pytest.mark.parametrize("settings", [{"method": "loss"}, {"on": ALL}, {"method": "gradient"}])
    def test_however_the_penalty_acts(self, settings):
        self.check(chain, ts.L2, **settings)

    def test_of_folds_of_different_sizes(self):
        self.check(chain, ts.L1, rows=50)

    def test_with_rules_of_which_one_is_fixed(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.check(chain, lambda s: {"hidden1.weight": ts.L1(s), "output.weight": ts.L2(0.01)})

    def check(self, build, penalty, **settings):
        spec, folds, family = spec_of(build, penalty, **settings)
        stack = Stack(spec, dict(enumerate(folds)), family, STRENGTHS[:1])
        ends = [None] * len(folds)
        start = stack.weights()
        carried = set()
        for strength in STRENGTHS:
            stack.restart((strength,), start)
            assert not stack.train().any()
            start = stack.weights()
            for number, fold in enumerate(folds):
                X, y = spec.X[fold.train], spec.y[fold.train]
                model, _ = spec.train(family.make(strength), X, y, part=number, start=ends[number])
                ends[number] = weights_of(model)
                for name, tensor in start[number].items():
                    torch.testing.assert_close(tensor, ends[number][name], rtol=0, atol=1e-8)
                    carried.add(name)
        assert carried >= {name for name, _ in spec.fresh().named_parameters()}
        if build is Conv:
            assert int(start[0]["norm.num_batches_tracked"]) == 3 * spec.settings.epochs * 6

    @pytest.mark.parametrize("build", [small, Normalised])
    def test_of_results(self, build):
        one, other = (quick(engine=engine, build=lambda: build().double()) for engine in ("sequential", "lanes"))
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-8)


class TestStart:
    def test_is_where_the_strength_before_ended_with_a_fresh_optimizer_and_the_same_batches(self):
        """Against a loop that anybody would write."""
        X, y = (torch.as_tensor(part) for part in iris())
        build = lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()  # noqa: E731
        result = quick(ts.L2, build=build, engine="sequential", data=(X.double(), y))
        seed = result.source.spec.part_seed(1)
        train = (result.fold != 1).nonzero().flatten()
        with seeded(seed):
            model = build()
            for column, strength in enumerate((0.0, 1e-3, 1e-2)):
                optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
                for epoch in range(3):
                    model.train()
                    for rows in batches(len(train), 32, seed=seed, epoch=epoch):
                        optimizer.zero_grad()
                        mean = nn.functional.cross_entropy(model(X[train][rows].double()), y[train][rows])
                        (mean + strength * (model[0].weight.square().sum() + model[3].weight.square().sum())).backward()
                        optimizer.step()
                held_out = result.fold == 1
                each = evaluate(model, X[held_out].double(), y[held_out], loss=nn.CrossEntropyLoss()).row_losses
                torch.testing.assert_close(result.losses[held_out, column], each, rtol=1e-9, atol=1e-10)

    def test_the_first_is_that_of_a_cold_path_and_the_others_are_not(self):
        cold, found = (quick(order=order, engine="sequential") for order in ("cold", "warm"))
        assert found.points[0] == cold.points[0]
        assert found.points[1].train_loss < cold.points[1].train_loss - 0.01
        assert (cold.settings["order"], found.settings["order"]) == ("cold", "warm")
        assert found.to_dict()["settings"]["order"] == "warm"

    def test_a_penalty_towards_the_initial_weights_means_those_and_not_the_start(self):
        spec, folds, _ = spec_of(chain, ts.L2, epochs=30, optimizer=partial(torch.optim.SGD, lr=0.01), method="prox")
        rows = folds[0].train
        with seeded(spec.part_seed(0)):
            initial = weights_of(spec.fresh())
        far = {name: tensor + 1 if name.endswith("weight") else tensor for name, tensor in initial.items()}
        model, _ = spec.train(ts.L2SP(1e3), spec.X[rows], spec.y[rows], part=0, start=far)
        for name, tensor in weights_of(model).items():
            if name.endswith("weight"):
                torch.testing.assert_close(tensor, initial[name], rtol=0, atol=1e-2)

    def test_weights_go_out_and_in_again(self):
        one, other = Conv(), Conv()
        one(torch.randn(5, 16))
        load_weights(other, weights_of(one))
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


class TestResult:
    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    def test_same_seed_same_bits(self, engine):
        assert plain(quick(engine=engine)) == plain(quick(engine=engine))

    @pytest.mark.parametrize("penalty", [ts.L1, [ts.L1, ts.L2]])
    def test_saved_and_loaded_is_the_same(self, penalty, tmp_path):
        result = quick(penalty)
        result.save(tmp_path)
        loaded = load_path(tmp_path)
        assert json.dumps(loaded.to_dict(), allow_nan=False) == json.dumps(result.to_dict(), allow_nan=False)

    def test_several_penalties_have_a_path_each(self):
        both = quick([ts.L1, ts.L2])
        assert plain(both.results["l2"]) == plain(quick(ts.L2))
        assert "warm starts" in both.verdict.words

    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    @pytest.mark.parametrize("several", [False, True])
    def test_longer_training_is_not_taken_for_the_penaltys_doing(self, engine, several):
        """A penalty that does nothing: the points differ by their epochs, and strength 0 is given as many."""
        idle = lambda s: ts.L2(0.0 * s)  # noqa: E731
        settings = {"engine": engine, "folds": 5, "optimizer": partial(torch.optim.Adam, lr=5e-3)}
        result = quick([idle] if several else idle, **settings)
        found = result.best if several else result
        assert found.best.strength == 1e-2
        assert found.points[2].validation_loss < found.points[0].validation_loss - 0.05
        by_fold = torch.stack([found.losses[found.fold == k].mean(0) for k in range(5)])
        assert bool((by_fold[:, 2] < by_fold[:, 0]).all())  # so it would seem to help, in every fold
        assert not result.verdict.helps
        assert result.verdict.change == pytest.approx(0, abs=1e-6)
        assert "strength 0 had up to 9 epochs for this" in result.verdict.words
        assert "\n" not in result.verdict.words
        assert "warm" not in quick(order="cold").verdict.words

    def test_a_path_that_is_best_at_strength_0_needs_no_control(self, monkeypatch):
        done = interrupt_after(monkeypatch, "sequential", -1)
        descent = partial(torch.optim.SGD, lr=0.1)
        found = quick(ts.L2, strengths=[30.0], engine="sequential", method="prox", optimizer=descent)
        assert found.best.strength == 0
        assert len(done) == 2 * 3
        assert not found.verdict.helps
        assert "strength 0 had up to 3 epochs" in found.verdict.words

    def test_an_automatic_grid(self):
        found = quick(strengths=3, epochs=8)
        assert found.grid == quick(strengths=3, epochs=8, order="cold").grid
        assert len(found.points) == 4

    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    def test_a_data_set_gives_what_its_tensors_give(self, engine):
        X, y = (torch.as_tensor(part) for part in iris())
        one, other = (quick(data=data, engine=engine) for data in ((X, y), TensorDataset(X, y)))
        assert torch.equal(one.losses, other.losses)
        for a, b in zip(one.refit(1e-2)[0].parameters(), other.refit(1e-2)[0].parameters(), strict=True):
            assert torch.equal(a, b)


class TestRefit:
    def test_trains_the_path_up_to_there(self):
        result = quick(ts.L2)
        spec, family = result.source.spec, result.source.family
        start = None
        for strength in STRENGTHS:
            model, _ = spec.train(family.make(strength), spec.X, spec.y, part=-1, start=start)
            refitted, _ = result.refit(strength)
            for a, b in zip(refitted.parameters(), model.parameters(), strict=True):
                assert torch.equal(a, b)
            start = weights_of(model)

    def test_off_the_grid_comes_after_the_points_below(self):
        refitted, certificate = quick(strengths=(1e-3, 1e-1)).refit(1e-2)
        other, _ = quick(strengths=(1e-3, 1e-2)).refit(1e-2)
        for a, b in zip(refitted.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
        assert certificate.penalty > 0

    def test_polished(self):
        _, certificate = quick(ts.L2, build=lambda: nn.Linear(4, 3).double(), method="prox").refit(1e-2, polish=True)
        assert certificate.ok(1e-6)

    def test_a_cold_one_is_one_training(self):
        result = quick(order="cold")
        model, _ = result.refit(1e-2)
        spec = result.source.spec
        alone, _ = spec.train(ts.L1(1e-2), spec.X, spec.y, part=-1)
        for a, b in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(a, b)


DIVERGING = {"optimizer": partial(torch.optim.SGD, lr=0.1), "epochs": 12}


class TestDivergence:
    """SGD on L2 diverges where lr · 2λ > 2: here at one strength amid the path."""

    @staticmethod
    def penalty(strength):
        return ts.L2(1e4 if strength == 2e-3 else strength)

    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    def test_the_next_strength_starts_from_the_last_sound_weights(self, engine):
        settings = DIVERGING | {"engine": engine}
        with pytest.warns(DivergenceWarning, match=r"penalty 0\.002 \(3/3 folds\)"):
            found = quick(self.penalty, strengths=[1e-3, 2e-3, 3e-3], **settings)
        sound = quick(self.penalty, strengths=[1e-3, 3e-3], **settings)
        assert [point.diverged for point in found.points] == [False, False, True, False]
        assert [found.points[k] for k in (0, 1, 3)] == list(sound.points)

    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    def test_at_the_first_the_second_starts_from_the_initial_weights(self, engine):
        def penalty(strength):
            return ts.L2(strength or 1e4)

        with pytest.warns(DivergenceWarning, match="penalty 0 "):
            found = quick(penalty, strengths=[1e-3], engine=engine, **DIVERGING)
        with pytest.warns(DivergenceWarning):
            cold = quick(penalty, strengths=[1e-3], engine=engine, order="cold", **DIVERGING)
        np.testing.assert_allclose(found.losses[:, 1], cold.losses[:, 1], rtol=1e-5, atol=1e-6)

    def test_refitting_passes_it_over(self):
        with pytest.warns(DivergenceWarning):
            found = quick(self.penalty, strengths=[1e-3, 2e-3, 3e-3], **DIVERGING)
        sound = quick(self.penalty, strengths=[1e-3, 3e-3], **DIVERGING)
        for a, b in zip(found.refit(3e-3)[0].parameters(), sound.refit(3e-3)[0].parameters(), strict=True):
            assert torch.equal(a, b)


def interrupt_after(monkeypatch, engine, count):
    """Ctrl-C in the step after so many."""
    owner, name = (warm_path, "train_one") if engine == "sequential" else (Stack, "train")
    real = getattr(owner, name)
    done = []

    def counted(*args, **kwargs):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return done


class TestResuming:
    @pytest.mark.parametrize("build", [small, Normalised])
    @pytest.mark.parametrize(("engine", "count"), [("lanes", 1), ("lanes", 4), ("sequential", 4), ("sequential", 11)])
    def test_interrupted_and_resumed_ends_with_the_same_bytes(self, tmp_path, monkeypatch, engine, count, build):
        settings = {"engine": engine, "build": build}
        whole = plain(quick(**settings))
        with monkeypatch.context() as patch:
            interrupt_after(patch, engine, count)
            with pytest.raises(KeyboardInterrupt):
                quick(folder=tmp_path, **settings)
        with monkeypatch.context() as patch:
            done = interrupt_after(patch, engine, -1)
            assert plain(quick(folder=tmp_path, **settings)) == whole
        steps = 6 if engine == "lanes" else 18  # 3 of the path, and 3 without a penalty
        assert len(done) == steps - count

    @pytest.mark.parametrize("engine", ["lanes", "sequential"])
    def test_killed_between_any_two_files_it_ends_with_the_same_bytes(self, tmp_path, monkeypatch, engine):
        whole = plain(quick(engine=engine))
        write = Journal.write
        left = []

        def killed(self, *args):
            if len(left) == stop:
                raise KeyboardInterrupt
            left.append(1)
            write(self, *args)

        for stop in range(9):
            left.clear()
            folder = tmp_path / str(stop)
            with monkeypatch.context() as patch:
                patch.setattr(Journal, "write", killed)
                with pytest.raises(KeyboardInterrupt):
                    quick(engine=engine, folder=folder)
            with monkeypatch.context() as patch:
                done = interrupt_after(patch, engine, -1)
                assert plain(quick(engine=engine, folder=folder)) == whole
            steps, kept = (6, stop // 3) if engine == "lanes" else (18, stop)
            assert len(done) == steps - kept

    @pytest.mark.parametrize("engine", ["lanes", "sequential"])
    def test_what_is_there_is_not_trained_again(self, tmp_path, monkeypatch, engine):
        settings = {"engine": engine, "folder": tmp_path}
        first = plain(quick(**settings))
        longer = plain(quick(engine=engine, strengths=(1e-3, 1e-2, 1e-1)))
        other = plain(quick(engine=engine, strengths=(2e-3, 1e-2)))
        each = 1 if engine == "lanes" else 3
        done = interrupt_after(monkeypatch, engine, -1)
        assert plain(quick(**settings)) == first
        assert done == []
        assert plain(quick(strengths=(1e-3, 1e-2, 1e-1), **settings)) == longer
        assert len(done) == 2 * each  # the strength, and the control, as it is the best
        assert plain(quick(strengths=(2e-3, 1e-2), **settings)) == other  # another way to the same strength
        assert len(done) == 5 * each
        assert plain(quick(**settings)) == first
        assert len(done) == 5 * each

    def test_only_the_last_weights_are_kept(self, tmp_path):
        quick(folder=tmp_path, engine="lanes")
        assert len(list((tmp_path / "journal").glob("*.weights"))) == 2  # of the path, and of the control
        assert len(list((tmp_path / "journal").glob("*.safetensors"))) == 9 + 6  # which begin with the same

    def test_a_diverged_path(self, tmp_path, monkeypatch):
        settings = DIVERGING | {"strengths": [1e-3, 2e-3, 3e-3], "engine": "sequential"}
        with pytest.warns(DivergenceWarning):
            whole = plain(quick(TestDivergence.penalty, **settings))
        with monkeypatch.context() as patch:
            interrupt_after(patch, "sequential", 3)
            with pytest.raises(KeyboardInterrupt):
                quick(TestDivergence.penalty, folder=tmp_path, **settings)
        with pytest.warns(DivergenceWarning):
            assert plain(quick(TestDivergence.penalty, folder=tmp_path, **settings)) == whole

    @pytest.mark.parametrize("engine", ["sequential", "lanes"])
    def test_a_path_that_diverged_at_its_first_step(self, tmp_path, monkeypatch, engine):
        settings = DIVERGING | {"engine": engine, "penalty": lambda s: ts.L2(s or 1e4)}
        with pytest.warns(DivergenceWarning):
            whole = plain(quick(**settings))
        with monkeypatch.context() as patch:
            interrupt_after(patch, engine, 1)
            with pytest.raises(KeyboardInterrupt):
                quick(folder=tmp_path, **settings)
        with pytest.warns(DivergenceWarning):
            assert plain(quick(folder=tmp_path, **settings)) == whole

    def test_a_cold_journal_is_another(self, tmp_path):
        quick(folder=tmp_path, order="cold")
        with pytest.raises(InputError, match="order was cold and is warm"):
            quick(folder=tmp_path)


class TestFallback:
    def test_of_a_stack_that_fails_half_way_is_loud_and_whole(self, monkeypatch, tmp_path, capsys):
        real = Stack.train
        done = []

        def train(self, after_epoch):
            if len(done) == 2:
                raise RuntimeError("out of something")
            done.append(1)
            return real(self, after_epoch)

        monkeypatch.setattr(Stack, "train", train)
        with pytest.warns(LanesWarning, match="l1: one training after another: RuntimeError: out of something"):
            found = quick(engine="lanes", folder=tmp_path, progress=True)
        assert "18/18" in capsys.readouterr().err  # the six that were done side by side are done again
        assert plain(found) == plain(quick(engine="sequential"))

    def test_a_disk_that_is_full_is_no_reason_to_train_otherwise(self, monkeypatch, tmp_path):
        def full(*_):
            raise InputError("no space left")

        monkeypatch.setattr(Journal, "write_weights", full)
        with pytest.raises(InputError, match="no space left"):
            quick(engine="lanes", folder=tmp_path)

    def test_counts_every_training_once(self, capsys, monkeypatch):
        for engine in ("sequential", "lanes"):
            quick(engine=engine, progress=True)
            seen = capsys.readouterr().err
            assert "18/18" in seen
            assert "for comparison" in seen


class TestPlan:
    def planned(self, build, *, rows=150, folds=5, **settings):
        (family,) = families(ts.L1)
        X, y = (part[:rows] for part in iris())
        spec = spec_for(
            build, (X, y), [family], epochs=50, batch_size=32, **({"engine": "auto", "order": "warm"} | settings)
        )
        drawn = make_folds(spec.y, folds, seed=0)
        return make_plan(spec, drawn, family, 33)

    def test_chains_go_side_by_side_from_two_folds_on(self):
        made = self.planned(small, folds=2)
        assert (made.engine, made.lanes) == ("lanes", 2)
        assert self.planned(small).lanes == 5

    def test_others_from_five_of_one_size(self):
        assert self.planned(Normalised).engine == "lanes"
        for settings in ({"folds": 3}, {"rows": 148}, {"lanes": 2}):
            made = self.planned(Normalised, **settings)
            assert made.engine == "sequential"
            assert "only folds of one size are side by side" in made.reason
            assert self.planned(Normalised, engine="lanes", **settings).engine == "lanes"

    def test_little_work_is_done_plainly(self, monkeypatch):
        monkeypatch.setattr(planner, "LEAST_STEPS", 10**9)
        assert self.planned(small).engine == "sequential"

    def test_the_number_of_lanes_decides_bits_only(self):
        one, other = (quick(engine="lanes", lanes=lanes) for lanes in (1, 3))
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-3, atol=1e-4)

    def test_compiled_once_for_all_strengths(self, monkeypatch):
        compiled = []
        monkeypatch.setattr(torch, "compile", lambda program, **_: compiled.append(1) or program)
        monkeypatch.setattr("torchshrink.paths.engines.planner.cannot_compile", lambda: None)
        assert plain(quick(engine="lanes", compile=True)) == plain(quick(engine="lanes"))
        assert len(compiled) == 1


class TestConvergence:
    def test_takes_fewer_epochs_to_the_same_distance_on_a_lasso(self):
        """Epochs at each strength, until F at half of the strengths above 0 is within 0.002 of its minimum."""
        generator = torch.Generator().manual_seed(0)
        X = torch.randn(80, 20, generator=generator, dtype=torch.float64)
        X += torch.randn(80, 1, generator=generator, dtype=torch.float64)  # correlated, so no step is long
        y = X[:, :5].sum(1) + torch.randn(80, generator=generator, dtype=torch.float64)
        strengths = [float(s) for s in np.geomspace(1e-2, 1, 8)]
        (family,) = families(ts.L1)

        def gaps(order, epochs, least):
            spec = spec_for(
                lambda: nn.Sequential(nn.Linear(20, 1), nn.Flatten(0)).double(), (X, y), [family], epochs=epochs,
                batch_size=80, loss=None, optimizer=partial(torch.optim.SGD, lr=0.02), seed=0, device=None,
                on=WEIGHTS, method="auto",
            )  # fmt: skip
            found, start = [], None
            for strength in [0.0, *strengths]:
                model, regularizer = spec.train(family.make(strength), X, y, part=0, start=start)
                start = weights_of(model) if order == "warm" else None
                found.append((spec.loss(model(X), y) + regularizer.value()).item())
            return [f - m for f, m in zip(found, least, strict=True)][1:]

        least = []
        for strength in [0.0, *strengths]:
            fitted = (Lasso(strength / 2, tol=1e-12, max_iter=10**6) if strength else LinearRegression()).fit(X, y)
            mean = ((fitted.predict(X.numpy()) - y.numpy()) ** 2).mean()
            least.append(mean + strength * np.abs(fitted.coef_).sum())
        needed = {}
        for order in ("warm", "cold"):
            for epochs in (10, 20, 40, 80, 160):
                if np.median(gaps(order, epochs, least)) < 2e-3:
                    needed[order] = epochs
                    break
        assert needed["warm"] * 2 <= needed["cold"], needed


class TestSparseEnd:
    def test_a_network_that_would_not_start_there_holds_out(self):
        X, y = load_digits(return_X_y=True)
        found = {
            order: ts.path(
                lambda: mlp(64, 10, hidden=(32, 32)),
                (X[:400], y[:400]),
                ts.L1,
                strengths=[1e-3, 1e-2],
                folds=2,
                epochs=15,
                batch_size=32,
                optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
                order=order,
                progress=False,
            ).points[-1]
            for order in ("cold", "warm")
        }
        assert found["cold"].validation_loss > 2.2  # a constant's is 2.30
        assert found["warm"].validation_loss < 0.5
        assert 0 < found["warm"].nonzero < 3392 / 8


class TestInputs:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"order": "hot"}, "order='hot': expected one of 'cold', 'warm'"),
        ],
    )
    def test_bad_ones_are_refused_in_one_line(self, settings, message):
        with pytest.raises(InputError, match=message) as raised:
            quick(**settings)
        assert "\n" not in str(raised.value)
