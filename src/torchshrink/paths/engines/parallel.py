"""Trainings as tasks: done in this process, or wherever joblib sends them.

``joblib.parallel_config`` around a call decides, and nothing here schedules: with ``backend="loky"`` tasks go to other
processes of this machine, with Dask's or Ray's backend to a cluster. With no such config they are done here.

A task trains on one thread wherever it is sent, so its result is bit for bit the same whichever worker does it and
however many there are; what is left for this process to do is done on one thread too. A task has everything with it
that it needs and leaves nothing behind, so it can be done again where its worker was lost. Only this process keeps a
journal.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from torchshrink.data.lazy import readers_alive
from torchshrink.errors import InputError, TasksWarning, WorkerLostError
from torchshrink.paths.engines.optimum import OptimumTask, solve_fold
from torchshrink.paths.engines.planner import StackTask
from torchshrink.paths.engines.sequential import train_each
from torchshrink.paths.engines.stack import CANNOT_STACK, Stack
from torchshrink.paths.folds import Fold
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.support.optional import needed
from torchshrink.support.storage import brief

with needed("ts.path"):
    import cloudpickle
    import joblib
    from joblib.parallel import BACKENDS, LokyBackend, MultiprocessingBackend, ThreadingBackend, get_active_backend

Task = StackTask | OptimumTask | TrainingKey
"""What one task does: a stack's trainings, a fold's optima, or a single training."""
Found = dict[TrainingKey, TrainingResult] | str
"""What came out of it; or, in words, why it could not be stacked."""
AfterEpoch = Callable[[int, int, int], None]
"""(lanes, lanes alive, epochs done)."""

SLICE = 2  # tasks per worker in one go, where joblib returns results only all together
_ONE_AT_A_TIME = threading.Lock()  # a worker may have several threads, but only one set of random number generators
_warned: dict[Any, Any] = {}  # what has been said already


@contextlib.contextmanager
def jobs_at_once(asked: int | None = None) -> Iterator[int]:
    """How many tasks are done at once in other processes, by joblib's active config; 1: none, they are done here.

    Args:
        asked: in so many processes of this machine, whatever the config says.
    """
    with contextlib.ExitStack() as stack:
        if asked is not None:
            stack.enter_context(joblib.parallel_config("loky", n_jobs=asked))
        backend, _ = get_active_backend()
        count = joblib.effective_n_jobs(joblib.Parallel().n_jobs)
        refused = {
            ThreadingBackend: "joblib's threads share one set of random number generators",
            MultiprocessingBackend: "a process that is forked beside torch's threads may wait for ever",
        }
        if count > 1 and type(backend) in refused:
            warnings.warn(
                f"{refused[type(backend)]}, so trainings are done one after another; take backend='loky'",
                TasksWarning,
                stacklevel=5,
            )
            count = 1
        stack.enter_context(in_jobs(asked, count))
        yield count


@contextlib.contextmanager
def in_jobs(asked: int | None, count: int) -> Iterator[None]:
    """Inside, ``count`` tasks are done at once; where that is more than 1, torch computes on one thread here too."""
    with contextlib.ExitStack() as stack:
        if asked is not None:
            stack.enter_context(joblib.parallel_config("loky", n_jobs=asked))
        if count > 1:
            stack.enter_context(_one_thread())
        yield


def run_tasks(
    tasks: Sequence[Task],
    spec: TrainingSpec,
    folds: Sequence[Fold],
    families: Sequence[PenaltyFamily],
    *,
    jobs: int,
    after_epoch: AfterEpoch,
    advice: str,
) -> Generator[tuple[Task, Found], None, None]:
    """Do all tasks, and yield each with its results when it is done, in any order.

    Args:
        tasks: what to do.
        spec: how each model is trained.
        folds: all of them.
        families: all of them.
        jobs: how many tasks at once in other processes; 1: one after another in this one.
        after_epoch: called as a stack in this process trains.
        advice: what to do when a worker is lost, as a clause.

    Raises:
        WorkerLostError: a worker was killed and the backend does not make up for it.

    Warns:
        TasksWarning: what the trainings need cannot be sent to another process, so they are done in this one.
    """
    sent = None if jobs == 1 or len(tasks) < 2 else _packed(spec, folds, families)
    if sent is None:
        for task in tasks:
            yield task, do(task, spec, folds, families, after_epoch)
        return
    # A stack is a batch of its own; single trainings may be short, and joblib puts as many together as is good.
    batch = "auto" if all(isinstance(task, TrainingKey) for task in tasks) else 1
    parent = os.getpid() if os.name == "posix" and type(get_active_backend()[0]) is LokyBackend else None
    try:
        with contextlib.closing(
            _results([joblib.delayed(PackedTask(sent, task, parent))() for task in tasks], jobs, batch)
        ) as results:
            for each in results:
                task, found, warned = pickle.loads(each)
                for message, category, filename, line in warned:
                    warnings.warn_explicit(message, category, filename, line, registry=_warned)
                yield task, found
    except _lost_worker() as error:
        raise WorkerLostError(f"a worker process was lost, perhaps for lack of memory: {advice}") from error


def do(
    task: Task,
    spec: TrainingSpec,
    folds: Sequence[Fold],
    families: Sequence[PenaltyFamily],
    after_epoch: AfterEpoch = lambda lanes, alive, epoch: None,
) -> Found:
    """One task, in this process."""
    if isinstance(task, TrainingKey):
        with readers_alive(spec.X):
            return dict(train_each(spec, folds, families, [task]))
    if isinstance(task, OptimumTask):
        return solve_fold(spec, folds, families, task)
    lanes = len(task.keys)
    try:
        own = {number: folds[number] for number in task.folds}
        stack = Stack(spec, own, families[task.family], task.strengths, compiled=task.compiled)
        with readers_alive(spec.X):
            diverged = stack.train(lambda epoch, alive: after_epoch(lanes, alive, epoch))
            return {TrainingKey(task.family, s, fold): result for fold, s, result in stack.results(diverged)}
    except CANNOT_STACK as error:
        return brief(error)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent has ended, however that was: nobody would take what it does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="torchshrink-parent").start()


@dataclass(frozen=True)
class TorchSettings:
    """What the caller has set for all of torch, and a training depends on."""

    dtype: torch.dtype
    matmul_precision: str
    deterministic: bool
    warn_only: bool

    @classmethod
    def now(cls) -> TorchSettings:
        """As they are."""
        return cls(
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def apply(self) -> None:
        """Set them."""
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside they are set; after it what was before."""
        before = TorchSettings.now()
        self.apply()
        try:
            yield
        finally:
            before.apply()


@final
@dataclass(frozen=True, eq=False, repr=False)
class PackedTask:
    """A task with everything that it needs.

    A callable of no arguments, since Dask's backend leaves large arguments with one worker only, and they are gone
    with it.

    Args:
        sent: spec, folds and families, pickled: bytes as an array, which joblib puts into memory that the
            processes of one machine share.
        task: what to do.
        parent: the process whose child does it, and is to end with it; None where it is no child's.
    """

    sent: np.ndarray[Any, np.dtype[np.uint8]]
    task: Task
    parent: int | None = None

    def __call__(self) -> bytes:
        """(task, found, warnings), pickled."""
        if self.parent is not None and self.parent != os.getpid():
            _end_with(self.parent)
        with (
            _ONE_AT_A_TIME,
            _one_thread(),
            warnings.catch_warnings(record=True) as caught,
            contextlib.ExitStack() as stack,
        ):
            warnings.simplefilter("default")
            try:
                settings, (spec, folds, families) = pickle.loads(self.sent.data)
                stack.enter_context(settings.in_force())
            except (ImportError, AttributeError) as error:
                raise InputError(
                    f"a worker cannot load what the trainings need ({brief(error)}): install it there too, or define "
                    "it in the script that is run"
                ) from error
            found = do(self.task, spec, folds, families)
        warned = [(each.message, each.category, each.filename, each.lineno) for each in caught]
        sent_back: bytes = cloudpickle.dumps((self.task, found, warned))
        return sent_back


def _packed(
    spec: TrainingSpec, folds: Sequence[Fold], families: Sequence[PenaltyFamily]
) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    try:
        everything = TorchSettings.now(), (spec, tuple(folds), tuple(families))
        return np.frombuffer(cloudpickle.dumps(everything), np.uint8)
    except Exception as error:  # whatever an object of the caller's raises
        warnings.warn(
            f"trainings are done in this process, one after another: what they need cannot be sent to another "
            f"({brief(error)}); make it inside build, or pass it as plain data",
            TasksWarning,
            stacklevel=6,
        )
        return None


def _results(tasks: Sequence[Any], jobs: int, batch: int | str) -> Generator[bytes, None, None]:
    if not get_active_backend()[0].supports_return_generator:  # such as Ray's
        with joblib.Parallel(batch_size=batch) as parallel:
            for start in range(0, len(tasks), SLICE * jobs):
                yield from parallel(tasks[start : start + SLICE * jobs])
        return
    with _told_of_what_is_given_up(get_active_backend()[0]):
        results = joblib.Parallel(return_as="generator_unordered", batch_size=batch)(tasks)
        try:
            for each in results:  # noqa: UP028 – `yield from` would close it outside of the filter below
                yield each
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of what an interrupted call leaves unused
                results.close()


@contextlib.contextmanager
def _told_of_what_is_given_up(backend: Any) -> Iterator[None]:
    """joblib's backend for Dask keeps it to itself that Dask has given up a task, and joblib would wait for ever."""
    if not isinstance(backend, BACKENDS.get("dask", ())):
        yield
        return
    submit = backend.submit

    def telling(batch: Any, callback: Callable[[Any], None]) -> Future[Any]:
        def tell(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                callback(error)

        sent: Future[Any] = submit(batch, callback)
        sent.add_done_callback(tell)
        return sent

    backend.submit = telling
    try:
        yield
    finally:
        del backend.submit


def _lost_worker() -> tuple[type[BaseException], ...]:
    """What joblib's backends raise where a worker was killed; Dask's only after several."""
    kinds: list[type[BaseException]] = [BrokenExecutor]
    if "distributed" in sys.modules:
        kinds.append(sys.modules["distributed"].KilledWorker)
    if "ray" in sys.modules:
        kinds.append(sys.modules["ray"].exceptions.RayActorError)
    return tuple(kinds)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
