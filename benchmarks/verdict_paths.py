"""The verdict of real trainings: `ts.path` from end to end, on data of a known kind, and what is true on fresh rows."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

import torchshrink as ts
from torchshrink.errors import ObjectiveWarning
from torchshrink.paths import PathComparison
from torchshrink.paths.statistics.verdict import Verdict
from verdict_fresh import Witness

FRESH = 10_000
Rows = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator], tuple[Rows, Rows]]
"""(draws) -> the rows that the path has, and fresh ones."""


def line(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 1), nn.Flatten(0))


def net(*widths: int, dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    end = [nn.Flatten(0)] if widths[-1] == 1 else []
    return nn.Sequential(*layers[:-2], *end)


def _parted(X: np.ndarray, y: np.ndarray, rows: int) -> tuple[Rows, Rows]:
    X, y = X.astype("f4"), y if y.dtype.kind == "i" else y.astype("f4")
    return (X[:rows], y[:rows]), (X[rows:], y[rows:])


def genes(rng: np.random.Generator) -> tuple[Rows, Rows]:
    X = rng.normal(size=(150 + FRESH, 100))
    return _parted(X, X[:, :5] @ [3, -2, 1.5, 1, 0.8] + rng.normal(size=len(X)), 150)


def dense(rows: int, inputs: int) -> Draw:
    """A linear truth in which all inputs matter alike."""

    def draw(rng: np.random.Generator) -> tuple[Rows, Rows]:
        X = rng.normal(size=(rows + FRESH, inputs))
        return _parted(X, X @ rng.choice([-1.0, 1.0], size=inputs) + rng.normal(size=len(X)), rows)

    return draw


def waves(rows: int, inputs: int = 5) -> Draw:
    """A truth that takes a net, in the first three inputs."""

    def draw(rng: np.random.Generator) -> tuple[Rows, Rows]:
        X = rng.normal(size=(rows + FRESH, inputs))
        return _parted(X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=len(X)), rows)

    return draw


def digits(rows: int, wrong: float) -> Draw:
    """Real images, of which a share has any label; the fresh rows are the other images, with labels as noisy."""

    def draw(rng: np.random.Generator) -> tuple[Rows, Rows]:
        X, y = load_digits(return_X_y=True)
        order = rng.permutation(len(y))
        any_label = np.where(rng.random(len(y)) < wrong, rng.integers(10, size=len(y)), y[order])
        return _parted(X[order] / 16, any_label.astype("i8"), rows)

    return draw


def cancer(rng: np.random.Generator) -> tuple[Rows, Rows]:
    """120 patients with 30 measurements and 300 columns of noise; the fresh rows are the other patients."""
    X, y = load_breast_cancer(return_X_y=True)
    order = rng.permutation(len(y))
    X = X[order]
    X = (X - X[:120].mean(0)) / X[:120].std(0)
    return _parted(np.column_stack([X, rng.normal(size=(len(y), 300))]), y[order].astype("i8"), 120)


@dataclass(frozen=True)
class Real:
    """A setting: data, model, and how it is tuned.

    Args:
        null: whether penalising can change nothing, or nothing for the better, so that a claim is a false one.
    """

    name: str
    data: Draw
    build: Callable[[], nn.Module]
    penalty: Any
    rate: float
    settings: dict[str, Any] = field(default_factory=dict)
    null: bool = False


TINY = tuple(1e-7 * 10 ** (k / 4) for k in range(8))  # strengths that change nothing but the rounding
SIX = {"strengths": 8, "epochs": 60}
LUCK = {"strengths": TINY, "epochs": 40}
FOUR = (1e-3, 3e-3, 1e-2, 3e-2)
THREE = [ts.L1, ts.L2, ts.ElasticNet(0.5, 0.5)]


def lucky() -> nn.Module:
    """Half of its units are dropped in each step, so that no training ends as the next does."""
    return net(5, 16, 1, dropout=0.5)


def reader() -> nn.Module:
    return net(64, 32, 10)


SETTINGS = [
    Real("genes, L1", genes, lambda: line(100), ts.L1, 0.05, SIX),
    Real("genes, L1, K = 2", genes, lambda: line(100), ts.L1, 0.05, SIX | {"folds": 2}),
    Real("genes, L1, K = 10", genes, lambda: line(100), ts.L1, 0.05, SIX | {"folds": 10}),
    Real("genes, L1, warm", genes, lambda: line(100), ts.L1, 0.05, {"strengths": 8, "epochs": 20, "order": "warm"}),
    Real("genes, three penalties", genes, lambda: line(100), THREE, 0.05, SIX),
    Real("breast cancer, 120 × 330, L2", cancer, lambda: nn.Linear(330, 2), ts.L2, 0.02, SIX),
    Real("digits, a tenth wrong, 40 epochs, L2", digits(250, 0.1), reader, ts.L2, 0.01,
         {"strengths": FOUR, "epochs": 40}),
    Real("digits, a tenth wrong, 100 epochs, L2", digits(250, 0.1), reader, ts.L2, 0.01,
         {"strengths": FOUR, "epochs": 100}),
    Real("digits, a fifth wrong, 40 epochs, L2", digits(250, 0.2), reader, ts.L2, 0.01,
         {"strengths": FOUR, "epochs": 40}),
    Real("digits, a fifth wrong, 100 epochs, L2", digits(250, 0.2), reader, ts.L2, 0.01,
         {"strengths": FOUR, "epochs": 100}),
    Real("net on waves, 200 × 20, L2", waves(200, 20), lambda: net(20, 32, 1), ts.L2, 0.01, SIX | {"epochs": 40}),
    Real("null: dropout", waves(200), lucky, ts.L2, 0.02, LUCK, null=True),
    Real("null: dropout, K = 2", waves(200), lucky, ts.L2, 0.02, LUCK | {"folds": 2}, null=True),
    Real("null: dropout, K = 10", waves(200), lucky, ts.L2, 0.02, LUCK | {"folds": 10}, null=True),
    Real("null: dropout, warm", waves(200), lucky, ts.L2, 0.02, LUCK | {"epochs": 10, "order": "warm"}, null=True),
    Real("null: dropout, three penalties", waves(200), lucky, THREE, 0.02, LUCK, null=True),
    Real("null: line, all inputs alike, L1", dense(1000, 5), lambda: line(5), ts.L1, 0.05, SIX | {"epochs": 40},
         null=True),
    Real("null: digits, stopped early, L2", digits(250, 0.2), reader, ts.L2, 1e-3,
         {"strengths": (1e-5, 1e-4, 1e-3), "epochs": 8}, null=True),
]  # fmt: skip


COLUMNS = (
    "setting",
    "paths",
    "old rule",  # in how many it claims a benefit
    "R = 1",
    "R = 3",
    "denied",  # claims of three repeats although this path's own models are no better on fresh rows
    "harms",
    "better in",
    "change stated %",
    "true change %",  # the mean over all paths
    "covered, R = 1",  # that mean
    "R = 3",
    "its own, R = 3",  # the change of this path's own models
    "s",
)


def paths(seeds: int, only: str, kept: Path | None) -> None:
    """Print a row for each setting, and one more for what its penalties are worth against each other.

    Args:
        seeds: how many data sets.
        only: settings whose names have this in them.
        kept: a file with a line for each path that is done; those in it are not run again.
    """
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    done = _read(kept)
    for real in (each for each in SETTINGS if only in each.name):
        start, found = time.perf_counter(), []
        for seed in range(seeds):
            if (real.name, seed) not in done:
                done[real.name, seed] = _path(real, seed)
                if kept is not None:
                    with kept.open("a") as file:
                        file.write(json.dumps([real.name, seed, done[real.name, seed]]) + "\n")
            found.append(done[real.name, seed])
        seconds = time.perf_counter() - start
        print(_row(real.name, [each["verdict"] for each in found], seconds), flush=True)
        against = [one for each in found for one in each["against"]]
        # Who is best differs from data set to data set; in a null they are all alike.
        for other in ["the others"] if real.null else dict.fromkeys(one["other"] for one in against):
            some = [one for one in against if real.null or one["other"] == other]
            if some:
                print(_row(f"{real.name}: the best against {other}", some), flush=True)


def _read(kept: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    if kept is None or not kept.exists():
        return {}
    return {(name, seed): found for name, seed, found in map(json.loads, kept.read_text().splitlines())}


def _path(real: Real, seed: int) -> dict[str, Any]:
    mine, fresh = real.data(np.random.default_rng([seed, sum(map(ord, real.name))]))
    witness = Witness(*fresh)
    with witness.watching(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        result = ts.path(
            real.build, mine, real.penalty, seed=seed, progress=False, engine="lanes",
            optimizer=partial(torch.optim.Adam, lr=real.rate), **real.settings,
        )  # fmt: skip
    verdict, against = _said(witness, result.verdict, witness.penalising(), seed), []
    if isinstance(result, PathComparison):
        for number, name in enumerate(result.results):
            if name in result.against:
                said = _said(witness, result.against[name], witness.evidence.against(number), seed)
                against.append(said | {"other": name})
    return {"verdict": verdict, "against": against}


def _said(witness: Witness, verdict: Verdict, sides: Any, seed: int) -> dict[str, Any]:
    """What the verdict says, what it would say otherwise, and what is true."""
    return {
        "R = 3": _numbers(verdict),
        "R = 1": _numbers(witness.with_one_repeat(sides)),
        "old": witness.old_rule(sides, seed=seed),
        "true": witness.true(sides),
    }


def _numbers(verdict: Verdict) -> dict[str, Any]:
    names = ("helps", "harms", "change", "interval", "better", "compared")
    return {name: value for name, value in verdict.to_dict().items() if name in names}


def _row(name: str, found: Sequence[dict[str, Any]], seconds: float | None = None) -> str:
    three, one = [each["R = 3"] for each in found], [each["R = 1"] for each in found]
    own = np.expm1([each["true"] for each in found])
    true = float(np.expm1(np.mean([each["true"] for each in found])))
    stated = float(np.expm1(np.mean([np.log1p(each["change"]) for each in three])))
    better, compared = np.mean([each["better"] for each in three]), three[0]["compared"]
    cells = [
        name,
        len(found),
        sum(each["old"] for each in found),
        sum(each["helps"] for each in one),
        sum(each["helps"] for each in three),
        sum(each["helps"] and mine >= 0 for each, mine in zip(three, own, strict=True)),
        sum(each["harms"] for each in three),
        f"{better:.1f} of {compared}",
        f"{100 * stated:.2g}",
        f"{100 * true:.2g}",
        *(sum(_within(each["interval"], true) for each in some) for some in (one, three)),
        sum(_within(each["interval"], mine) for each, mine in zip(three, own, strict=True)),
        "" if seconds is None else f"{seconds:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _within(interval: Sequence[float] | None, true: float) -> bool:
    return interval is not None and interval[0] - 1e-12 <= true <= interval[1] + 1e-12
