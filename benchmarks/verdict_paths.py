"""The verdict of real trainings: `ts.path` from end to end, on data of a known kind."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

import torchshrink as ts
from torchshrink.errors import ObjectiveWarning
from verdict_old import old_interval


def line(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 1), nn.Flatten(0))


def genes(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(150, 100))
    return X.astype("f4"), (X[:, :5] @ [3, -2, 1.5, 1, 0.8] + rng.normal(size=150)).astype("f4")


def calm(rows: int) -> Callable[[np.random.Generator], tuple[Any, Any]]:
    def draw(rng: np.random.Generator) -> tuple[Any, Any]:
        X = rng.normal(size=(rows, 5))
        return X.astype("f4"), (X @ rng.normal(size=5) + rng.normal(size=rows)).astype("f4")

    return draw


def noisy_digits(rng: np.random.Generator) -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    rows = rng.permutation(len(y))[:250]
    wrong = rng.random(250) < 0.1
    return (X[rows] / 16).astype("f4"), np.where(wrong, rng.integers(10, size=250), y[rows])


def cancer(rng: np.random.Generator) -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    rows = rng.permutation(len(y))[:120]
    X = (X[rows] - X[rows].mean(0)) / X[rows].std(0)
    return np.column_stack([X, rng.normal(size=(120, 300))]).astype("f4"), y[rows]


@dataclass(frozen=True)
class Real:
    """A setting: data, model, and how it is tuned."""

    name: str
    data: Callable[[np.random.Generator], tuple[Any, Any]]
    build: Callable[[], nn.Module]
    penalty: Any
    rate: float
    settings: dict[str, Any] = field(default_factory=dict)


TINY = (1e-7, 1e-6, 1e-5)
SETTINGS = [
    Real("genes, L1", genes, lambda: line(100), ts.L1, 0.05, {"strengths": 8, "epochs": 60}),
    Real("breast cancer, 120 rows, 330 features, L2", cancer, lambda: nn.Linear(330, 2), ts.L2, 0.02,
         {"strengths": 8, "epochs": 60}),
    Real("digits, 250 rows, noisy labels, L2",
         noisy_digits, lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), ts.L2, 0.01,
         {"strengths": (1e-3, 3e-3, 1e-2, 3e-2), "epochs": 40}),
    Real("null: linear, L1", calm(1000), lambda: line(5), ts.L1, 0.05, {"strengths": TINY, "epochs": 10}),
    Real("null: linear, a high rate, L2", calm(1000), lambda: line(5), ts.L2, 0.3, {"strengths": TINY, "epochs": 2}),
    Real("null: linear, K = 2", calm(400), lambda: line(5), ts.L2, 0.3, {"strengths": TINY, "epochs": 2, "folds": 2}),
    Real("null: linear, K = 10", calm(400), lambda: line(5), ts.L2, 0.3, {"strengths": TINY, "epochs": 2, "folds": 10}),
    Real("null: warm, short trainings", calm(400), lambda: line(5), ts.L2, 0.02,
         {"strengths": TINY, "epochs": 2, "order": "warm"}),
    Real("null: L1 and L2", calm(400), lambda: line(5), [ts.L1, ts.L2], 0.3, {"strengths": TINY, "epochs": 2}),
]  # fmt: skip


def paths(seeds: int, only: str) -> None:
    """Print a row for each setting."""
    torch.set_num_threads(1)
    print(
        "| paths | seeds | old rule | it helps | it harms | against | s |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for real in SETTINGS:
        if only not in real.name:
            continue
        start, found, old = time.perf_counter(), [], 0
        for seed in range(seeds):
            rng = np.random.default_rng([seed, len(real.name)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ObjectiveWarning)
                result = ts.path(
                    real.build, real.data(rng), real.penalty, seed=seed, progress=False,
                    optimizer=partial(torch.optim.Adam, lr=real.rate), **real.settings,
                )  # fmt: skip
            found.append(result)
            old += _old(result, seed)
        against = [each for result in found for each in getattr(result, "against", {}).values()]
        print(
            f"| {real.name} | {seeds} | {old} | {sum(each.verdict.helps for each in found)} "
            f"| {sum(each.verdict.harms for each in found)} "
            f"| {sum(each.helps for each in against) if against else ''} | {time.perf_counter() - start:.0f} |",
            flush=True,
        )


def _old(result: Any, seed: int) -> bool:
    """Whether the rule that was before claims a benefit; of a comparison and a warm path it is not asked."""
    if not isinstance(result, ts.PathResult) or result.settings["order"] == "warm":
        return False
    losses = result.losses.numpy()
    ends = old_interval(losses, result.fold.numpy(), ours=list(range(losses.shape[1])), theirs=[0], seed=seed)
    return bool(ends[1] < 0)
