"""Trainings in other processes end with the bytes of those in this one, and what goes wrong there is said here."""

import os
import signal
import threading
import time
import warnings

import joblib
import pytest
import torch
from joblib.parallel import LokyBackend
from sklearn.datasets import load_iris
from torch import nn

import torchshrink as ts
from path_cases import contents, flat, plain, small
from torchshrink.errors import DivergenceWarning, InputError, LanesWarning, TasksWarning, WorkerLostError
from torchshrink.models import mlp
from torchshrink.paths.engines import parallel, planner
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.journal import Journal

LANES = {"engine": "lanes", "lanes": 5}


def tuned(penalty=ts.L1, *, build=small, **settings):
    X, y = load_iris(return_X_y=True)
    fixed = {"strengths": (1e-3, 1e-2), "folds": 4, "repeats": 1, "epochs": 3, "batch_size": 32, "progress": False}
    return ts.path(build, (X.astype("f4"), y), penalty, **flat(fixed | settings))


@pytest.fixture
def two_processes():
    with joblib.parallel_config("loky", n_jobs=2):
        yield


class TestSameBytes:
    @pytest.mark.parametrize("generator", [True, False], ids=["one by one", "in slices"])
    @pytest.mark.parametrize("engine", [LANES, {"engine": "sequential"}])
    def test_as_on_one_thread_here(self, tmp_path, monkeypatch, generator, engine):
        monkeypatch.setattr(LokyBackend, "supports_return_generator", generator)
        here, away = tmp_path / "here", tmp_path / "away"
        engine = {"strengths": 3} | engine
        local = tuned(build=lambda: small(), folder=here, **engine)
        torch.set_num_threads(2)
        with joblib.parallel_config("loky", n_jobs=2):
            sent = tuned(build=lambda: small(), folder=away, **engine)
        assert torch.get_num_threads() == 2
        assert plain(sent) == plain(local)
        assert contents(away) == contents(here)

    @pytest.mark.parametrize("engine", [LANES, {"engine": "sequential"}])
    def test_with_what_the_caller_has_set_for_torch(self, engine):
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("high")
        try:
            local = tuned(**engine)
            with joblib.parallel_config("loky", n_jobs=2):
                sent = tuned(**engine)
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
        assert plain(sent) == plain(local)

    def test_penalties_and_engines_side_by_side(self, monkeypatch):
        monkeypatch.setattr(planner, "LEAST_STEPS", 1)
        given = {"l1": ts.L1, "l2sp": ts.L2SP, "l2": ts.L2}  # the second cannot be stacked
        local = tuned(given, lanes=5)
        with joblib.parallel_config("loky", n_jobs=2):
            sent = tuned(given, lanes=5)
        for name in given:
            assert plain(sent.results[name]) == plain(local.results[name])

    def test_started_here_and_finished_there(self, tmp_path):
        whole = plain(tuned(folder=tmp_path, **LANES))
        files = sorted((tmp_path / "journal").glob("*.safetensors"))
        before = contents(tmp_path)
        for path in files[::5]:
            path.unlink()
        with joblib.parallel_config("loky", n_jobs=2):
            assert plain(tuned(folder=tmp_path, **LANES)) == whole
        assert contents(tmp_path) == before

    def test_a_diverging_strength_is_reported(self, two_processes):
        def fast(parameters):
            return torch.optim.SGD(parameters, lr=0.1)

        with pytest.warns(DivergenceWarning, match=r"l2 1e\+04 \(4/4 folds\)"):
            result = tuned(ts.L2, strengths=[1e-3, 1e4], optimizer=fast, epochs=40, **LANES)
        assert result.points[-1].diverged


class TestWhere:
    def used(self, monkeypatch, **settings):
        sent = []
        monkeypatch.setattr(
            parallel, "PackedTask", lambda *given, real=parallel.PackedTask: sent.append(given[1]) or real(*given)
        )
        tuned(**settings)
        return sent

    def test_here_without_a_config(self, monkeypatch):
        assert self.used(monkeypatch) == []

    def test_here_with_one_job(self, monkeypatch):
        with joblib.parallel_config("loky", n_jobs=1):
            assert self.used(monkeypatch) == []

    @pytest.mark.parametrize("jobs", [2, 5])
    def test_every_job_has_a_stack(self, monkeypatch, jobs):
        monkeypatch.setattr(parallel, "_results", lambda each, *_: (task() for task, _, _ in each))
        with joblib.parallel_config("loky", n_jobs=jobs):
            assert len(self.used(monkeypatch, engine="lanes")) >= jobs
            assert len(self.used(monkeypatch, **LANES)) == 3

    @pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
    def test_threads_and_forks_are_refused_aloud(self, backend):
        local = plain(tuned(**LANES))
        warned = pytest.warns(TasksWarning, match="take backend='loky'")
        with joblib.parallel_config(backend, n_jobs=2), warned:
            assert plain(tuned(**LANES)) == local

    def test_what_cannot_be_sent_is_done_here_aloud(self, two_processes):
        lock = threading.Lock()

        def locked():
            with lock:
                return small()

        with pytest.warns(TasksWarning, match="cannot be sent to another .*lock"):
            result = tuned(build=locked, **LANES)
        assert plain(result) == plain(tuned(**LANES))

    def test_the_plan_says_so(self, two_processes, capsys):
        tuned(progress=True, **LANES)
        assert "l1: up to 5 lanes at once in each of 2 processes: as asked" in capsys.readouterr().err


class Noisy(nn.Linear):
    def forward(self, x):
        if self.training:
            warnings.warn("a word from the model", RuntimeWarning, stacklevel=1)
        return super().forward(x)


class TestTrouble:
    def test_a_warning_there_is_a_warning_here(self, two_processes):
        import cloudpickle

        me = __import__(__name__)
        cloudpickle.register_pickle_by_value(me)
        try:
            with pytest.warns(RuntimeWarning, match="a word from the model"):
                tuned(build=lambda: Noisy(4, 3), engine="sequential")
        finally:
            cloudpickle.unregister_pickle_by_value(me)

    def test_a_stack_that_fails_there_is_trained_plainly(self, two_processes):
        parent = os.getpid()
        given = mlp(4, 3, hidden=(8,))

        class Picky(type(given)):
            def forward(self, x):
                if os.getpid() != parent and torch._C._functorch.is_batchedtensor(x):
                    raise ValueError("not in a stack")
                return super().forward(x)

        with pytest.warns(LanesWarning, match="l1: one training after another: ValueError: not in a stack"):
            result = tuned(build=lambda: Picky(*small()), **LANES)
        with joblib.parallel_config(n_jobs=1):
            assert plain(result) == plain(tuned(build=lambda: Picky(*small()), engine="sequential"))

    def test_a_worker_without_the_callers_module(self):
        class Gone:
            def __reduce__(self):
                return __import__, ("no_such_module",)

        sent = parallel._packed(Gone(), (), ())
        with pytest.raises(InputError, match=r"a worker cannot load .*no_such_module.*install it there"):
            parallel.PackedTask(sent, None)()

    def test_tasks_of_one_process_wait_for_each_other(self):
        """A worker may have several threads, and they share the random number generators."""
        sent = parallel._packed(1, (), ())
        inside, seen = [], []

        def do(*_):
            inside.append(1)
            time.sleep(0.05)
            seen.append(len(inside))
            inside.clear()
            return {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel, "do", do)
            patch.setattr(parallel.pickle, "loads", lambda _: (parallel.TorchSettings.now(), (1, 2, 3)))
            threads = [threading.Thread(target=parallel.PackedTask(sent, None)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert seen == [1, 1, 1]


class TestDropout:
    def test_stacks_of_one_fold_draw_apart(self, monkeypatch):
        def build():
            return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))

        drawn = []
        train = Stack.train

        def recorded(self, after_epoch):
            found = train(self, after_epoch)
            drawn.append(next(iter(self.parameters.values())).detach()[0, 0])
            return found

        monkeypatch.setattr(Stack, "train", recorded)
        same = {"strengths": [1e-12, 2e-12], "folds": [[0, 50, 100], [1, 51, 101]], "engine": "lanes", "lanes": 1}
        tuned(build=build, **same)
        assert len(drawn) == 6
        assert (drawn[0] - drawn[1]).abs().max() > 1e-4
        assert (drawn[1] - drawn[2]).abs().max() > 1e-4
        again, drawn[:] = list(drawn), []
        tuned(build=build, **same)
        assert all(torch.equal(a, b) for a, b in zip(again, drawn, strict=True))


class TestStopped:
    """At the end, as joblib's processes have to be started again after each of these."""

    def test_a_killed_process_is_said_and_what_was_finished_stays(self, tmp_path):
        parent, once = os.getpid(), tmp_path / "once"

        def build():
            kept = list(tmp_path.glob("journal/*.safetensors"))
            if os.getpid() != parent and kept and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return small()

        with joblib.parallel_config("loky", n_jobs=2):
            with pytest.raises(WorkerLostError, match=r"a worker process was lost.*kept in .*journal; run it again"):
                tuned(build=build, folder=tmp_path, epochs=20, **(LANES | {"lanes": 2}))
            assert list(tmp_path.glob("journal/*.safetensors"))
        resumed = tuned(build=build, folder=tmp_path, epochs=20, **(LANES | {"lanes": 2}))
        assert plain(resumed) == plain(tuned(epochs=20, **(LANES | {"lanes": 2})))

    def test_interrupted_it_keeps_what_has_arrived(self, tmp_path, monkeypatch):
        done = []
        real = Journal.write

        def interrupted(self, *given):
            done.append(1)
            if len(done) == 8:
                raise KeyboardInterrupt
            return real(self, *given)

        monkeypatch.setattr(Journal, "write", interrupted)
        with joblib.parallel_config("loky", n_jobs=2), pytest.raises(KeyboardInterrupt):
            tuned(folder=tmp_path, engine="sequential")
        assert len(list(tmp_path.glob("journal/*.safetensors"))) == 7
        monkeypatch.setattr(Journal, "write", real)
        assert plain(tuned(folder=tmp_path, engine="sequential")) == plain(tuned(engine="sequential"))

    def test_an_error_there_is_an_error_here(self):
        parent = os.getpid()

        def build():
            if os.getpid() != parent:
                raise LookupError("not on this side")
            return small()

        raised = pytest.raises(LookupError, match="not on this side")
        with joblib.parallel_config("loky", n_jobs=2), raised:
            tuned(build=build, engine="sequential")
