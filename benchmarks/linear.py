"""Claim: a path of a linear model costs no more than scikit-learn's, and each of its points is proved an optimum.

Processor time on one thread, in one process, in turns; medians. `path` is all of `ts.path`: folds, points, null loss
and verdict. Budget: 1 × the other's time, at a duality gap of 1e-6 of F or less.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LassoCV, LogisticRegressionCV
from torch import nn

import torchshrink as ts
from timing import table


def regression(rows: int, inputs: int) -> tuple[Any, Any]:
    """Ten of the inputs matter; the noise is as large as what they say."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(rows, inputs))
    signal = X[:, :10] @ generator.normal(size=10)
    return X, signal + 2 * generator.normal(size=rows)


def lasso(rows: int, inputs: int) -> dict[str, Callable[[], Any]]:
    """The two ways to 32 strengths in 5 folds."""
    X, y = regression(rows, inputs)
    data = torch.tensor(X), torch.tensor(y)
    return {
        "path": lambda: ts.path(
            lambda: nn.Sequential(nn.Linear(inputs, 1, dtype=torch.float64), nn.Flatten(0)), data, ts.L1, **PATH
        ),
        "LassoCV": lambda: LassoCV(alphas=32, cv=5, tol=1e-6, max_iter=100_000).fit(X, y),
    }


def logistic(rows: int, inputs: int) -> dict[str, Callable[[], Any]]:
    """The same of two classes; scikit-learn's faster solver for it, at its own tolerance."""
    X, y = regression(rows, inputs)
    classes = (y > 0).astype(int)
    data = torch.tensor(X), torch.tensor(classes, dtype=torch.float64).unsqueeze(1)
    top = np.abs(X.T @ (classes - classes.mean())).max() / rows
    strengths = np.geomspace(top * 1e-3, top, 32)
    peer = {"solver": "liblinear", "l1_ratios": (1.0,), "scoring": "neg_log_loss", "use_legacy_attributes": False}
    return {
        "path": lambda: ts.path(
            lambda: nn.Linear(inputs, 1, dtype=torch.float64),
            data,
            ts.L1,
            **PATH | {"strengths": strengths, "loss": nn.BCEWithLogitsLoss()},
        ),
        "LogisticRegressionCV": lambda: LogisticRegressionCV(Cs=1 / (strengths * rows * 0.8), cv=5, **peer).fit(
            X, classes
        ),
    }


PATH: dict[str, Any] = {"strengths": 32, "folds": 5, "repeats": 1, "progress": False}
TASKS: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    "lasso, 1000 × 100": lambda: lasso(1000, 100),
    "lasso, 2000 × 1000": lambda: lasso(2000, 1000),
    "logistic, 1000 × 100": lambda: logistic(1000, 100),
    "logistic, 2000 × 500": lambda: logistic(2000, 500),
}


def main() -> None:
    """Print a row for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.tasks:
        ways = TASKS[name]()
        (peer,) = ways.keys() - {"path"}
        spent: dict[str, list[float]] = {way: [] for way in ways}
        proof = ""
        for number in range(arguments.rounds + 1):
            for way, run in ways.items():
                before = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of scikit-learn's convergence
                    result = run()
                if number:  # the first loads what the others find loaded
                    spent[way].append(time.process_time() - before)
                if way == "path":
                    proof = result.settings["proof"].split("at most ")[1].split()[0]
        ratio = statistics.median(a / b for a, b in zip(spent["path"], spent[peer], strict=True))
        rows.append([name, peer, f"{ratio:.2f}", proof])
    print(table("Paths of linear models, one thread", ["task", "against", "time ×", "gap ÷ F, at most"], rows))


if __name__ == "__main__":
    main()
