"""Which engine trains what, and that the choice shows in nothing but the time."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import torchshrink as ts
from path_cases import Normalised, flat, iris, plain, small, spec_for
from torchshrink.errors import DivergenceWarning, InputError, LanesWarning
from torchshrink.models import mlp
from torchshrink.paths.engines import planner, stack
from torchshrink.paths.engines.linear_chain_program import DenseProgram
from torchshrink.paths.engines.planner import Plan, make_plan, stack_tasks
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families


class Branching(nn.Linear):
    """What vmap cannot take: it asks for a value."""

    def __init__(self):
        super().__init__(4, 3)

    def forward(self, x):
        output = super().forward(x)
        return output * 2 if output.sum() > 0 else output


def quick(penalty=ts.L1, *, build=small, **settings):
    fixed = {"strengths": (1e-3, 1e-2), "folds": 4, "epochs": 3, "batch_size": 32, "repeats": 1, "progress": False}
    return ts.path(build, iris(), penalty, **flat(fixed | settings))


def planned(build=small, *, data=None, engine="auto", penalty=ts.L1, strengths=33, epochs=50, **settings):
    (family,) = families(penalty)
    spec = spec_for(
        build,
        data or iris(),
        [family],
        epochs=epochs,
        batch_size=32,
        engine=engine,
        **{key: value for key, value in settings.items() if key != "jobs"},
    )
    folds = make_folds(spec.y, 4, seed=0)
    return make_plan(spec, folds, family, strengths, jobs=settings.get("jobs", 1)), spec, folds


class TestChoice:
    def test_little_work_is_done_plainly(self):
        made, *_ = planned(strengths=2, epochs=2)
        assert made.engine == "sequential"
        assert "too little work" in made.reason

    @pytest.mark.parametrize("build", [small, Normalised])
    def test_much_work_of_a_small_model_is_stacked(self, build):
        made, *_ = planned(build)
        assert (made.engine, made.lanes, made.compiled) == ("lanes", 132, False)
        assert made == planned(build)[0]

    def test_a_large_model_fills_the_machine_by_itself(self):
        made, *_ = planned(lambda: mlp(4, 3, hidden=(1024, 1024)))
        assert made.engine == "sequential"
        assert "fill the machine" in made.reason

    def test_more_cores_are_offered_where_a_model_fills_one(self, capsys, monkeypatch):
        monkeypatch.setitem(planner.MOST_WORK, "chain", 1.0)
        monkeypatch.setattr(planner, "LEAST_STEPS", 1)
        assert "--jobs -1, would use all cores" in str(planned()[0])
        assert "would use" not in str(planned(jobs=2)[0])
        quick(progress=True)
        assert "would use all cores" in capsys.readouterr().err

    def test_every_job_has_a_share(self):
        assert planned(jobs=3)[0].lanes == 44
        assert planned(jobs=3, lanes=100)[0].lanes == planned(lanes=100)[0].lanes == 100
        assert planned(engine="lanes", jobs=1000)[0].lanes == 1

    def test_memory_sets_a_limit(self, monkeypatch):
        monkeypatch.setattr(planner, "memory_limit", lambda device: 1e6)
        made, *_ = planned()
        assert 1 <= made.lanes < 132
        assert "memory" in made.reason

    @pytest.mark.parametrize("jobs", [2, 3, 4])
    def test_jobs_share_the_memory(self, monkeypatch, jobs):
        """All stacks at once are in memory together, so each has its part of it."""
        monkeypatch.setattr(planner, "memory_limit", lambda device: 1e6)
        alone, *_ = planned()
        assert alone.lanes >= 2 * jobs  # and all lanes would be more than that for each job
        assert planned(jobs=jobs)[0].lanes == alone.lanes // jobs

    def test_what_the_caller_asks_for(self):
        assert planned(strengths=2, epochs=1, engine="lanes")[0].engine == "lanes"
        assert planned(engine="sequential")[0].engine == "sequential"
        assert planned(lanes=10)[0].lanes == 10

    @pytest.mark.parametrize(
        ("build", "settings", "reason"),
        [
            (Branching, {}, "data-dependent control flow"),
            (small, {"optimizer": torch.optim.Adafactor}, "Adafactor"),
            (small, {"penalty": ts.L2SP}, "remembers"),
        ],
    )
    def test_what_cannot_be_stacked(self, build, settings, reason):
        made, *_ = planned(build, **settings)
        assert made.engine == "sequential"
        assert made.refused
        assert reason in made.reason
        assert "\n" not in str(made)

    def test_a_program_that_computes_something_else(self, monkeypatch):
        true = DenseProgram._losses_and_gradient

        def wrong(self, *given):
            losses, g = true(self, *given)
            return losses, 1.01 * g

        monkeypatch.setattr(DenseProgram, "_losses_and_gradient", wrong)
        made, *_ = planned()
        assert made.refused
        assert "does not end with the model's own" in made.reason


class TestMemory:
    def test_a_containers_limit_counts(self, monkeypatch, tmp_path):
        monkeypatch.setattr(planner, "CONTAINER_LIMITS", (tmp_path / "none", tmp_path / "max", tmp_path / "limit"))
        (tmp_path / "max").write_text("max\n")
        free = planner.memory_limit(torch.device("cpu"))
        (tmp_path / "limit").write_text("1000000\n")
        assert planner.memory_limit(torch.device("cpu")) == 250_000 < free

    def test_a_machine_that_does_not_say_its_memory(self, monkeypatch):
        monkeypatch.setattr(planner, "CONTAINER_LIMITS", ())
        monkeypatch.delattr("os.sysconf")
        assert planner.memory_limit(torch.device("cpu")) == planner.MEMORY_SHARE * planner.ASSUMED_MEMORY


class TestChunks:
    @pytest.mark.parametrize("chain", [True, False])
    @pytest.mark.parametrize("at_once", [1, 3, 4, 7, 50, 1000])
    def test_are_a_partition(self, at_once, chain):
        _, spec, folds = planned()
        strengths = [0.0, *(0.1 * k for k in range(1, 24))]
        made = stack_tasks(Plan("lanes", at_once, False, chain, ""), spec, dict(enumerate(folds)), 0, strengths)
        keys = [key for task in made for key in task.keys]
        assert len(keys) == len(set(keys)) == 4 * 24
        assert max(len(task.keys) for task in made) <= at_once
        assert len({task.name for task in made}) == len(made)
        if not chain:
            assert all(len({len(folds[k].train) for k in task.folds}) == 1 for task in made)


@pytest.fixture
def compiled(monkeypatch):
    """How often each compiled function ran; a compiler is there, and gives them back as they are."""
    ran = Counter()

    def compile_(function, **_):
        def counted(*arguments):
            ran[function.__name__] += 1
            return function(*arguments)

        return counted

    monkeypatch.setattr(stack.torch, "compile", compile_)
    monkeypatch.setattr(planner, "cannot_compile", lambda: None)
    return ran


def _broken(*_, **__):
    raise RuntimeError("no C++ compiler")


class TestEngines:
    @pytest.mark.parametrize(
        ("data", "build", "penalty"),
        [
            (load_digits, lambda: mlp(64, 10, hidden=(16,)), ts.L1),
            (load_diabetes, lambda: mlp(10, 1, hidden=(16,), regression=True), ts.L2),
            (load_diabetes, lambda: mlp(10, 1, hidden=(), regression=True), ts.GroupLasso),
        ],
    )
    def test_choose_the_same(self, data, build, penalty):
        X, y = data(return_X_y=True)
        X, y = X[:400], y[:400] if data is load_digits else y[:400].astype("f4")
        settings = {"strengths": [1e-3, 1e-2, 1e-1], "folds": 3, "repeats": 1, "epochs": 10, "progress": False}
        one, other = (ts.path(build, (X, y), penalty, engine=e, **settings) for e in ("sequential", "lanes"))
        assert one.best.strength == other.best.strength
        assert one.one_se.strength == other.one_se.strength
        np.testing.assert_allclose(one.losses, other.losses, rtol=2e-3, atol=2e-3)

    @pytest.mark.parametrize("build", [small, Normalised])
    def test_same_seed_same_bits(self, build):
        settings = {"engine": "lanes", "lanes": 5, "build": build}
        assert plain(quick(**settings)) == plain(quick(**settings))

    def test_a_penalty_among_several_is_as_it_is_alone(self):
        both = quick([ts.L1, ts.L2], engine="lanes")
        assert plain(both.results["l2"]) == plain(quick(ts.L2, engine="lanes"))

    def test_an_automatic_grid(self):
        result = quick(strengths=3, engine="lanes")
        assert result.grid == quick(strengths=3, engine="sequential").grid

    def test_a_lane_that_diverges(self):
        settings = {"penalty": ts.L2, "optimizer": partial(torch.optim.SGD, lr=0.1), "epochs": 40, "engine": "lanes"}
        with pytest.warns(DivergenceWarning, match=r"l2 1e\+04 \(4/4 folds\)"):
            result = quick(strengths=[1e-3, 1e4], **settings)
        assert result.points[-1].diverged
        sound = quick(strengths=[1e-3], **settings)
        np.testing.assert_allclose(result.losses[:, :-1], sound.losses, rtol=1e-5, atol=1e-6)

    def test_compiled(self, compiled):
        assert plain(quick(engine="lanes", compile=True)) == plain(quick(engine="lanes"))
        assert compiled["prox_of_lanes"] > 0

    @pytest.mark.parametrize("batch_size", [32, 99, 1000])  # a last batch is smaller, is all but one row, is all rows
    def test_a_compiled_program_runs_whatever_the_size_of_a_batch(self, compiled, batch_size):
        quick(build=Normalised, engine="lanes", compile=True, batch_size=batch_size, epochs=2)
        assert compiled["_lane_by_lane"] > 0

    def test_a_program_is_compiled_whole(self, monkeypatch):
        # By the part of a compiler that reads the program, which is an error where it must leave a piece to Python.
        whole = partial(torch.compile, backend="eager", fullgraph=True)
        monkeypatch.setattr(stack.torch, "compile", lambda program, **given: whole(program, **given))
        monkeypatch.setattr(planner, "cannot_compile", lambda: None)
        quick(build=Normalised, engine="lanes", compile=True, epochs=1)

    def test_compiled_where_it_pays(self, compiled, monkeypatch):
        quick(engine="lanes")
        assert not compiled
        monkeypatch.setattr(planner, "COMPILING_PAYS", 0)
        quick(engine="lanes")
        assert compiled

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"engine": "auto"}, r"too little work for a stack to pay; compile=True does nothing, since only stacks"),
            ({"engine": "auto", "order": "warm"}, r"too little work .*; compile=True does nothing, since only stacks"),
            ({"engine": "lanes", "build": Branching}, r"no lanes, since .*; compile=True does nothing, since only"),
            ({"engine": "lanes", "penalty": ts.L2}, r"up to 12 lanes at once: as asked; compile=True .* no prox acts"),
            ({"engine": "lanes", "method": "loss"}, r"up to 12 lanes at once: as asked; compile=True .* no prox acts"),
        ],
    )
    def test_compiling_that_does_nothing_says_so(self, compiled, settings, words):
        with pytest.warns(LanesWarning, match=words) as said:
            quick(**settings, compile=True)
        (line,) = [str(each.message) for each in said]
        assert "\n" not in line
        assert not compiled

    def test_compiling_that_does_something_says_nothing(self, compiled):
        quick(engine="lanes", compile=True)  # warnings are errors here
        quick(ts.L2, build=Normalised, engine="lanes", compile=True)
        assert set(compiled) == {"prox_of_lanes", "_lane_by_lane"}

    @pytest.mark.parametrize(
        ("compile_", "problem"),
        [(_broken, r"RuntimeError: no C\+\+ compiler"), (lambda program, **_: program, "it is switched off")],
    )
    def test_no_compiler(self, monkeypatch, compile_, problem):
        monkeypatch.setattr(stack.torch, "compile", compile_)
        monkeypatch.setattr(planner, "COMPILING_PAYS", 0)
        planner.cannot_compile.cache_clear()
        quick(engine="lanes")  # nobody asked for it
        with pytest.raises(InputError, match=rf"^compile=True: torch.compile does not work here \({problem}"):
            quick(engine="lanes", compile=True)
        planner.cannot_compile.cache_clear()


class TestFallback:
    def test_is_loud_where_lanes_were_asked_for(self):
        with pytest.warns(LanesWarning, match=r"l1: one training after another: no lanes, since .*control flow"):
            result = quick(build=Branching, engine="lanes")
        assert plain(result) == plain(quick(build=Branching, engine="sequential"))

    def test_is_a_line_otherwise(self, capsys, monkeypatch):
        monkeypatch.setattr(planner, "LEAST_STEPS", 1)
        quick(build=Branching, progress=True)
        assert "l1: one training after another: no lanes, since" in capsys.readouterr().err

    def test_half_way(self, monkeypatch):
        def train(self, after_epoch):
            after_epoch(1, 5)
            raise RuntimeError("out of something")

        monkeypatch.setattr(Stack, "train", train)
        with pytest.warns(LanesWarning, match="out of something"):
            result = quick(engine="lanes")
        assert plain(result) == plain(quick(engine="sequential"))


LANES = {"engine": "lanes", "lanes": 4, "strengths": 3}


class TestResuming:
    @pytest.mark.parametrize("epochs_until", [1, 4, 8])
    def test_interrupted_and_resumed_ends_with_the_same_bytes(self, tmp_path, monkeypatch, epochs_until):
        whole = plain(quick(**LANES))
        done = []
        step = stack.Stack.train

        def interrupted(self, after_epoch):
            def counted(epoch, alive):
                done.append(1)
                if len(done) > epochs_until:
                    raise KeyboardInterrupt
                after_epoch(epoch, alive)

            return step(self, counted)

        monkeypatch.setattr(Stack, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick(folder=tmp_path, **LANES)
        monkeypatch.setattr(Stack, "train", step)
        assert plain(quick(folder=tmp_path, **LANES)) == whole

    def test_a_stack_of_which_a_training_is_missing_is_trained_again(self, tmp_path):
        whole = plain(quick(folder=tmp_path, **LANES))
        kept = sorted((tmp_path / "journal").glob("*-*-*-*.safetensors"))
        bytes_before = [each.read_bytes() for each in kept]
        kept[0].unlink()
        kept[-1].unlink()
        assert plain(quick(folder=tmp_path, **LANES)) == whole
        assert [each.read_bytes() for each in kept] == bytes_before

    def test_nothing_is_trained_that_is_there(self, tmp_path, monkeypatch):
        whole = plain(quick(folder=tmp_path, **LANES))
        monkeypatch.setattr(Stack, "train", None)
        assert plain(quick(folder=tmp_path, **LANES)) == whole

    def test_another_engine_or_partition_trains_its_own(self, tmp_path):
        for settings in ({"lanes": 4}, {"lanes": 12}, {"engine": "sequential", "lanes": None}):
            chosen = LANES | settings
            assert plain(quick(folder=tmp_path, **chosen)) == plain(quick(**chosen))


class TestInputs:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"engine": "stacked"}, "engine='stacked'"),
            ({"lanes": 0}, "lanes=0"),
            ({"lanes": True}, "lanes=True"),
            ({"engine": "sequential", "lanes": 3}, "leave out lanes=3"),
            ({"engine": "sequential", "compile": True}, "leave out compile=True"),
        ],
    )
    def test_bad_ones_are_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            quick(**settings)
