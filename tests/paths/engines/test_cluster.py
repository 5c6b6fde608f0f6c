"""Trainings on a cluster: two workers, one of which is killed in the middle, and the bytes of a local call."""

import contextlib
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_iris

import torchshrink as ts
from path_cases import contents, flat
from torchshrink.errors import WorkerLostError
from torchshrink.models import mlp

distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
SECONDS = 60
TRAININGS = 8 * 3


SMALL = partial(mlp, 4, 3, hidden=(8,))


@pytest.fixture(scope="module", autouse=True)
def _imported_once():
    """Workers are forked from a process that has imported what they need: most of what a worker costs."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "torchshrink.paths"])
        yield


def tuned(folder, build=SMALL):
    X, y = load_iris(return_X_y=True)
    settings = {"folds": 3, "epochs": 20, "batch_size": 16, "engine": "lanes", "lanes": 3, "progress": False}
    strengths = [10.0**-k for k in range(7)]
    ts.path(build, (X.astype("f4"), y), ts.L1, strengths=strengths, folder=folder, **flat(settings)).save(folder)


@contextlib.contextmanager
def two_workers():
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=None,
        ) as cluster,
        distributed.Client(cluster, timeout=SECONDS) as client,
    ):
        client.wait_for_workers(2, timeout=SECONDS)
        yield client


def kill_one_in_the_middle(client, folder: Path, pids: dict[str, int], killed: list[int]):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        finished = len(list(folder.glob("journal/*.safetensors")))
        busy = [address for address, tasks in client.processing().items() if tasks]
        if finished and busy:
            os.kill(pids[busy[0]], signal.SIGKILL)
            killed += [pids[busy[0]], finished]
            return
        time.sleep(0.01)


def test_a_killed_worker_costs_nothing(tmp_path):
    local, away = tmp_path / "local", tmp_path / "away"
    tuned(local)
    with two_workers() as client:
        pids = client.run(os.getpid)
        killed: list[int] = []
        killer = threading.Thread(target=kill_one_in_the_middle, args=(client, away, pids, killed))
        killer.start()
        with joblib.parallel_config("dask"):
            tuned(away)
        killer.join()
        pid, finished = killed
        assert 0 < finished < TRAININGS
        client.wait_for_workers(2, timeout=SECONDS)
        assert pid not in client.run(os.getpid).values()
    assert contents(away) == contents(local)
    assert len(contents(away)) > TRAININGS


def test_a_training_that_kills_every_worker_is_given_up(tmp_path):
    parent = os.getpid()

    def build():
        if os.getpid() != parent and list(tmp_path.glob("journal/*.safetensors")):
            os.kill(os.getpid(), signal.SIGKILL)
        return SMALL()

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        two_workers(),
        joblib.parallel_config("dask"),
        pytest.raises(WorkerLostError, match=r"a worker process was lost.*run it again"),
    ):
        tuned(tmp_path, build)
    assert list(tmp_path.glob("journal/*.safetensors"))
