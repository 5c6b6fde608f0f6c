"""Claim: a whole path for about the cost of a few trainings. Folds × strengths as lanes, against one at a time.

Budgets: 128 lanes of a 64-32-32-10 network ≥ 20 × a one-process loop and ≥ 10 × a two-process loop, whole calls; ≥ 60 %
of the machine's own GEMM rate from hidden width 128; ≥ 3 × scikit-learn's GridSearchCV end to end on 24 strengths × 5
folds of digits. Opponents run on the same data with the same hidden layers, epochs, batches, folds and strengths.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import torchshrink as ts
from timing import table
from torchshrink.models import mlp
from torchshrink.paths.engines.sequential import train_each
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import Fold, make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.paths.settings import PathSettings
from torchshrink.paths.training_result import TrainingKey
from torchshrink.paths.training_spec import TrainingSpec, make_training_spec

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "lanes.png"

X, y = load_digits(return_X_y=True)
X = X.astype(np.float32)


def strengths_of(count: int) -> list[float]:
    return [float(s) for s in np.geomspace(1e-5, 1e-2, count)]


def spec_of(hidden: tuple[int, ...], *, epochs: int, batch: int = 64) -> tuple[TrainingSpec, tuple[Fold, ...]]:
    spec = make_training_spec(
        lambda: mlp(64, 10, hidden=hidden), (X, y), families(ts.L1),
        PathSettings(epochs=epochs, batch_size=batch, device=device),
    )  # fmt: skip
    return spec, make_folds(spec.y, 4, seed=0)


def path_call(engine: str, *, strengths: int, folds: int, epochs: int, hidden: tuple[int, ...], **more: object) -> None:
    ts.path(
        lambda: mlp(64, 10, hidden=hidden), (X, y), ts.L1, strengths=strengths_of(strengths), folds=folds,
        epochs=epochs, progress=False, engine=ts.Engine(engine, **more), device=device,
    )  # fmt: skip


def _some(strengths: list[float], fold: int, epochs: int, hidden: tuple[int, ...]) -> None:
    """One process's share of a loop."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spec, folds = spec_of(hidden, epochs=epochs)
    for _ in train_each(spec, folds, families(ts.L1), [TrainingKey(0, s, fold) for s in strengths]):
        pass


def two_processes(strengths: int, epochs: int, hidden: tuple[int, ...]) -> None:
    jobs = [(strengths_of(strengths)[half::2], fold) for fold in range(4) for half in (0, 1)]
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        joblib.Parallel(n_jobs=2)(joblib.delayed(_some)(s, fold, epochs, hidden) for s, fold in jobs)


def grid_search(strengths: int, epochs: int, hidden: tuple[int, ...]) -> None:
    """scikit-learn's penalty is L2, (α/2)‖W‖² over the batch's size; the work is the same for any strength."""
    alphas = [2 * 64 * s for s in strengths_of(strengths)]
    model = make_pipeline(
        StandardScaler(), MLPClassifier(hidden, max_iter=epochs, batch_size=64, n_iter_no_change=10**6)
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(
            model, {"mlpclassifier__alpha": alphas}, scoring="neg_log_loss", cv=folds, n_jobs=2, refit=False
        )
        search.fit(X, y)


clock = time.perf_counter  # or the process's own time, on a machine that is shared: see --shared
device = "cpu"


def seconds(call: Callable[[], object]) -> float:
    start = clock()
    call()
    if device != "cpu":
        torch.accelerator.synchronize()
    return clock() - start


def versus(mine: Callable[[], object], other: Callable[[], object], *, rounds: int, share: float = 1.0) -> str:
    """The median ratio of pairs taken back to back; ``share``: of the work that ``other`` does."""
    found = []
    for number in range(rounds):
        pair = [seconds(call) for call in ((mine, other) if number % 2 else (other, mine))]
        ours, theirs = pair if number % 2 else pair[::-1]
        found.append(theirs / share / ours)
    return f"{statistics.median(found):.1f} ×"


def whole_calls(rounds: int, epochs: int, threads: int) -> str:
    """All lanes, everything included; the loops do a part of the trainings and are scaled up."""
    hidden, few = (32, 32), 4
    strengths = 32 if device == "cpu" else 128  # in 4 folds each

    def lanes() -> None:
        torch.set_num_threads(threads)
        path_call("lanes", strengths=strengths - 1, folds=4, epochs=epochs, hidden=hidden, lanes=4 * strengths)
        torch.set_num_threads(1)

    def loop() -> None:
        torch.set_num_threads(1)
        path_call("sequential", strengths=few - 1, folds=4, epochs=epochs, hidden=hidden)

    rows = [["one process, one after another", versus(lanes, loop, rounds=rounds, share=few / strengths)]]
    if clock is time.perf_counter and device == "cpu":  # other processes' time is not this one's
        two_processes(2, 1, hidden)  # start the workers
        ratio = versus(lanes, lambda: two_processes(2 * few, epochs, hidden), rounds=rounds, share=2 * few / strengths)
        rows.append(["two processes (joblib)", ratio])
    rows.append(["one model, steady steps alone", steady_steps(strengths, hidden, threads)])
    return table(
        f"{4 * strengths} lanes of 64-32-32-10, {epochs} epochs, whole calls, {threads} threads, {device}",
        ["lanes against", "faster"], rows,
    )  # fmt: skip


def steady_steps(strengths: int, hidden: tuple[int, ...], threads: int) -> str:
    """How many models' steps fit in the time of one, once everything is set up."""
    spec, folds = spec_of(hidden, epochs=1)
    stack = Stack(spec, dict(enumerate(folds)), families(ts.L1)[0], strengths_of(strengths))
    model = spec.fresh()
    optimizer = spec.make_optimizer(model.parameters())
    ts.Regularizer(model, ts.L1(1e-3)).attach(optimizer)
    first, weights = next(iter(stack._batches(0)))
    X, y = spec.X[first[0]], spec.y[first[0]]

    def one() -> None:
        optimizer.zero_grad()
        spec.loss(model(X), y).backward()
        optimizer.step()

    def lanes() -> None:
        torch.set_num_threads(threads)
        for _ in range(20):
            stack.step(first, weights, stack.spec.X[first])
        torch.set_num_threads(1)

    lanes()
    return versus(lanes, lambda: [one() for _ in range(200)], rounds=15, share=200 / (20 * 4 * strengths))


def against_scikit_learn(rounds: int, epochs: int, threads: int) -> str:
    def lanes() -> None:
        torch.set_num_threads(threads)
        path_call("auto", strengths=23, folds=5, epochs=epochs, hidden=(32, 32))

    ratio = versus(lanes, lambda: grid_search(24, epochs, (32, 32)), rounds=rounds)
    return table(
        f"24 strengths × 5 folds of digits, {epochs} epochs, end to end", ["lanes against", "faster"],
        [["GridSearchCV(MLPClassifier, n_jobs=2)", ratio]],
    )  # fmt: skip


def step_seconds(stack: Stack, repeats: int) -> float:
    first, weights = next(iter(stack._batches(0)))
    stack.step(first, weights, stack.spec.X[first])
    return min(
        seconds(lambda: [stack.step(first, weights, stack.spec.X[first]) for _ in range(repeats)]) / repeats
        for _ in range(15)
    )


def gemm_rate() -> float:
    size = 1024 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: a @ a) for _ in range(8))


def of_the_gemm_rate(threads: int) -> str:
    torch.set_num_threads(threads)
    rows = []
    for width, lanes in ((32, 128), (128, 64), (512, 16)):
        layers = [(64, width), (width, width), (width, 10)]
        row = [str(width), str(lanes)]
        for batch in (64, 256):
            # Forward and both backward products; the first layer's input needs no gradient.
            work = 2 * batch * lanes * (3 * sum(a * b for a, b in layers) - 64 * width)
            spec, folds = spec_of((width, width), epochs=1, batch=batch)
            for compiled in (False, True):
                stack = Stack(
                    spec, dict(enumerate(folds)), families(ts.L1)[0], strengths_of(lanes // 4), compiled=compiled
                )
                shares = [work / step_seconds(stack, 3) / gemm_rate() for _ in range(5)]
                row.append(f"{statistics.median(shares):.0%}")
        rows.append(row)
    header = ["hidden", "lanes", "batch 64", "batch 64, compiled", "batch 256", "batch 256, compiled"]
    return table(
        f"Whole steps, update and penalty included, as a share of the GEMM rate, {threads} threads", header, rows
    )


def peak_memory() -> float:
    """Of this process, in MiB; Linux. `getrusage` would count the parent's too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _alone(lanes: int, threads: int) -> tuple[float, float]:
    """A step's seconds and the peak memory in MiB beyond the imports', in a process of its own."""
    torch.set_num_threads(threads)
    spec, folds = spec_of((32, 32), epochs=1)
    before = peak_memory()
    used = {k: folds[k] for k in range(min(4, lanes))}
    stack = Stack(spec, used, families(ts.L1)[0], strengths_of(lanes // len(used)))
    spent = step_seconds(stack, 5)
    return spent, peak_memory() - before


def by_lanes(threads: int) -> str:
    lanes = [2**k for k in range(10)]
    context = multiprocessing.get_context("spawn")
    found = []
    for count in lanes:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(_alone, count, threads).result())
    times = np.array([spent for spent, _ in found]) / found[0][0]
    memory = np.array([more for _, more in found])
    rows = [[str(n), f"{t:.1f}", f"{t / n:.3f}", f"{m:.0f}"] for n, t, m in zip(lanes, times, memory, strict=True)]
    fits = {"step, × one lane's": times, "peak memory, MiB": memory}
    header = ["lanes", "step, × one lane's", "per lane", "peak memory, MiB"]
    printed = table(f"Time and memory against lanes, {threads} threads", header, rows)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, (name, values) in zip(axes, fits.items(), strict=True):
        slope, start = np.polyfit(lanes, values, 1)
        off = np.abs(values - start - slope * np.array(lanes)).max() / values.max()
        printed += f"\n\n{name}: {start:.3g} + {slope:.3g} × lanes; off by at most {off:.1%} of the largest"
        axis.plot(lanes, values, "o", label="measured")
        axis.plot([0, 512], [start, start + 512 * slope], label="straight line")
        axis.set(xlabel="lanes", ylabel=name, ylim=(0, None))
    axes[0].legend()
    figure.savefig(PICTURE, dpi=110)
    return printed


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "loops": lambda given: whole_calls(given.rounds, given.epochs, given.threads),
    "sklearn": lambda given: against_scikit_learn(given.rounds, given.epochs, given.threads),
    "gemm": lambda given: of_the_gemm_rate(given.threads),
    "lanes": lambda given: by_lanes(given.threads),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument(
        "--shared", action="store_true", help="one thread and the process's own time: for a machine that others use too"
    )
    parser.add_argument("--device", default="cpu", help="cuda: 512 lanes against one model at a time there")
    given = parser.parse_args()
    global clock, device
    device = given.device
    if given.shared:
        clock, given.threads = time.process_time, 1
    for name in given.only or PARTS:
        print(PARTS[name](given), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
