"""The benchmark of the verdict's real trainings: what it calls true is what the very models lose on fresh rows."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_of(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.parametrize("order", ["cold", "warm"])
def test_every_model_is_judged_on_the_fresh_rows(benchmark_of, order):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(61, 40)).astype("f4")
    y = (X @ rng.normal(size=40) * 0.2 + rng.normal(size=61)).astype("f4")
    witness = benchmark_of("verdict_fresh").Witness(X, y)  # the path's own rows, of which all losses are known
    with witness.watching():
        found = ts.path(
            lambda: nn.Sequential(nn.Linear(40, 1), nn.Flatten(0)), (X, y), ts.L2, strengths=(0.1, 1e3), epochs=100,
            folds=3, order=order, engine="lanes", progress=False, optimizer=lambda p: torch.optim.Adam(p, lr=0.1),
        )  # fmt: skip
    gains = []
    for row in (row for folds in witness._compared for row in folds):
        lost = [None if result is None else witness._fresh[result] for result in row]
        for result, fresh in zip(row, lost, strict=True):
            if result is not None:
                held_out = result.row_losses.sum().item()
                trained = result.train_loss * (61 - len(result.row_losses))
                assert fresh == pytest.approx((trained + held_out) / 61, rel=1e-5)
        controls = lost[3:]  # after strengths 0, 0.1 and 1000; a warm path may have several
        assert found.best.strength == 0.1
        gains.append([np.log(lost[1] / each) for each in controls if each is not None])
    assert len(gains) == 9
    ends = np.mean([min(each) for each in gains]), np.mean([max(each) for each in gains])
    assert ends[0] - 1e-9 <= witness.true(witness.penalising()) <= ends[1] + 1e-9
    assert witness.with_one_repeat(witness.penalising()).compared == 3


def test_a_row_of_its_table(benchmark_of):
    paths = benchmark_of("verdict_paths")
    real = next(each for each in paths.SETTINGS if each.name == "genes, three penalties")
    said = paths._path(replace(real, settings={"strengths": (1e-2, 1e-1), "epochs": 2, "folds": 2}), 0)
    assert len(said["against"]) == 2
    assert said["verdict"]["true"] != said["against"][0]["true"]
    cells = paths._row("genes", [said["verdict"]] * 3).split("|")[1:-1]
    assert [cell.strip() for cell in cells[:2]] == ["genes", "3"]
    assert len(cells) == len(paths.COLUMNS)
