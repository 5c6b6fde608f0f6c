"""How often the verdict claims a benefit where there is none to have.

20,000 rows of a linear model with 5 weights of like size, and a linear model to fit them: with 4,000 rows for each
weight nothing is overfitted, and no strength can help by more than the noise. Each seed draws its own data and is a
real path: automatic grid, folds, trainings, bootstrap. The verdict's level is 95 %, so a share up to 5 % is as stated.

    python benchmarks/verdict.py [--seeds 40]
    python benchmarks/verdict.py --simulate     # the two intervals apart, where trainings are noisy; minutes
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import torchshrink as ts
from torchshrink.paths import PathResult
from torchshrink.paths.statistics.verdict import judge

ROWS, WEIGHTS = 20_000, 5

# As people would train it, and with a learning rate so high that no two trainings end in the same place.
SETTINGS = {
    "L1, calm": (ts.L1, {"epochs": 12, "batch_size": 1000}, {"lr": 0.03}),
    "L2, calm": (ts.L2, {"epochs": 12, "batch_size": 1000}, {"lr": 0.03}),
    "L2, noisy": (ts.L2, {"epochs": 2, "batch_size": 250}, {"lr": 0.2}),
}


def data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(ROWS, WEIGHTS, generator=generator)
    w = 0.5 + torch.rand(WEIGHTS, generator=generator)
    return X, X @ w + torch.randn(ROWS, generator=generator)


def one(setting: str, seed: int) -> PathResult:
    penalty, recipe, optimizer = SETTINGS[setting]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ts.path(
            lambda: nn.Sequential(nn.Linear(WEIGHTS, 1), nn.Flatten(0)),
            data(seed),
            penalty,
            strengths=8,
            folds=5,
            optimizer=partial(torch.optim.Adam, **optimizer),
            seed=seed,
            progress=False,
            **recipe,
        )


def simulated(seed: int, rows: int, folds: int, luck: float, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold losses of least squares at 12 strengths of ridge, each training ending off by its own luck.

    Args:
        seed: of data and luck.
        rows: n.
        folds: how many.
        luck: the standard deviation by which a training's weights miss their optimum.
        shared: the share of its variance that all strengths of a fold have in common.
    """
    generator = np.random.default_rng(seed)
    X, noise = generator.normal(size=(rows, WEIGHTS)), generator.normal(size=rows)
    fold, w, losses = np.arange(rows) % folds, np.ones(WEIGHTS), np.empty((rows, 12))
    for k in range(folds):
        train, held_out = fold != k, fold == k
        gram = X[train].T @ X[train] / train.sum()
        moment = X[train].T @ (X[train] @ w + noise[train]) / train.sum()
        common = generator.normal(size=WEIGHTS) * luck * shared**0.5
        for number in range(12):
            ridge = 0 if number == 0 else 1e-6 * 10 ** (number / 4)
            error = np.linalg.solve(gram + ridge * np.eye(WEIGHTS), moment) - w
            error += common + generator.normal(size=WEIGHTS) * luck * (1 - shared) ** 0.5
            losses[held_out, number] = (noise[held_out] - X[held_out] @ error) ** 2
    return losses, fold


def simulate() -> None:
    print(f"{'rows':>6} {'folds':>5} {'luck':>5} {'shared':>6} {'claims':>7}   by rows alone   by folds alone")
    for rows, seeds in ((200, 400), (2000, 200), (20_000, 100)):
        for folds in (3, 5, 10):
            for luck, shared in ((0.01, 0.0), (0.05, 0.0), (0.05, 0.9)):
                found = []
                for seed in range(seeds):
                    losses, fold = simulated(seed, rows, folds, luck, shared)
                    found.append(judge(losses, losses[:, :1], fold, seed=seed, words=("", ""), resamples=200))
                claims = sum(verdict.helps for verdict in found) / seeds
                by_rows = sum(verdict.by_rows[1] < 0 for verdict in found) / seeds
                by_folds = sum(verdict.by_folds[1] < 0 for verdict in found) / seeds
                print(
                    f"{rows:6} {folds:5} {luck:5} {shared:6} {claims:7.1%} {by_rows:15.1%} {by_folds:16.1%}", flush=True
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--simulate", action="store_true")
    asked = parser.parse_args()
    if asked.simulate:
        return simulate()
    seeds = asked.seeds
    torch.set_num_threads(1)
    print(f"{'trainings':12} {'paths':>6} {'claims':>7} {'share':>7}   by rows alone   by folds alone   best is not 0")
    for setting in SETTINGS:
        found = [one(setting, seed) for seed in range(seeds)]
        claims = sum(result.verdict.helps for result in found)
        rows = sum(result.verdict.by_rows[1] < 0 for result in found)
        folds = sum(result.verdict.by_folds[1] < 0 for result in found)
        moved = sum(result.best.strength > 0 for result in found)
        print(
            f"{setting:12} {seeds:6} {claims:7} {claims / seeds:7.1%}   {rows / seeds:13.1%} {folds / seeds:16.1%}"
            f" {moved / seeds:15.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
