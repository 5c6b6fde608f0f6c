"""Paths whose rows count by weights of their own, or whose classes are told by one logit: engines, folds, means."""

from functools import partial

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.models import mlp
from torchshrink.paths.folds import Fold, Splits
from torchshrink.training import WeightedLoss


def data(name):
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    weights = torch.where(torch.arange(60) % 10 == 0, 8.0, 1.0).double()[:, None]
    values = X[:, :1] + 0.5 * noise
    bits = (values > 1.0).double()
    y, loss = {
        "numbers": (values, nn.MSELoss()),
        "bits": (bits, nn.BCEWithLogitsLoss()),
        "weighted numbers": (torch.cat([values, weights], 1), WeightedLoss(nn.MSELoss())),
        "weighted bits": (torch.cat([bits, weights], 1), WeightedLoss(nn.BCEWithLogitsLoss())),
        "weighted codes": (torch.cat([bits, weights], 1), WeightedLoss(nn.CrossEntropyLoss())),
    }[name]
    return X, y, loss, 2 if "codes" in name else 1


NAMES = ["numbers", "bits", "weighted numbers", "weighted bits", "weighted codes"]


@pytest.mark.parametrize("name", NAMES)
def test_lanes_end_where_single_trainings_end(name):
    X, y, loss, outputs = data(name)
    settings = {"strengths": [1e-2, 0.1], "folds": 3, "repeats": 1, "epochs": 4, "batch_size": 8, "progress": False}
    optimizer = partial(torch.optim.Adam, lr=0.03)
    alone, lanes = (
        ts.path(
            lambda: mlp(4, outputs, hidden=(5,)).double(), (X, y), ts.L1, loss=loss, engine=engine,
            optimizer=optimizer, **settings,
        )
        for engine in ("sequential", ts.Engine("lanes", lanes=9))
    )  # fmt: skip
    torch.testing.assert_close(lanes.losses, alone.losses, rtol=1e-9, atol=1e-12)
    for one, other in zip(alone.points, lanes.points, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-9)
        assert other.nonzero == one.nonzero
        assert other.accuracy == (None if "numbers" in name else pytest.approx(one.accuracy))
        assert one.accuracy is None or 0.5 < one.accuracy <= 1


@pytest.mark.parametrize("name", ["bits", "weighted bits", "weighted codes"])
def test_classes_are_spread_over_the_folds_however_they_are_told(name):
    X, y, loss, outputs = data(name)
    order = y[:, 0].argsort()
    result = ts.path(
        lambda: nn.Linear(4, outputs).double(), (X[order], y[order]), ts.L1, loss=loss, strengths=[0.1], folds=4,
        repeats=1, epochs=1, progress=False,
    )  # fmt: skip
    shares = [y[order][result.fold == k, 0].mean().item() for k in range(4)]
    assert max(shares) - min(shares) < 0.1


def test_a_point_is_the_weighted_mean_over_all_rows_held_out():
    X, y, loss, _ = data("weighted numbers")
    folds = [torch.arange(10), torch.arange(10, 60)]
    y[:10, -1] = 6.0
    result = ts.path(
        lambda: nn.Linear(4, 1).double(), (X, y), ts.L1, loss=loss, strengths=[0.1], folds=folds, epochs=2,
        progress=False,
    )  # fmt: skip
    for number, point in enumerate(result.points):
        each = result.losses[:, number]  # each a weighted share of its fold's mean
        means = torch.stack([each[part].mean() for part in folds])
        sizes = torch.stack([y[part, -1].sum() for part in folds])
        assert point.validation_loss == pytest.approx(float(means @ sizes / sizes.sum()), rel=1e-9)
        assert [fold.validation_loss for fold in point.folds] == pytest.approx(means.tolist(), rel=1e-9)


def test_a_part_of_weight_0_is_refused():
    weights = torch.tensor([0.0, 0, 1, 2])
    fold = Fold(torch.tensor([2, 3]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="all rows that a fold has held out have the weight 0"):
        Splits((fold,)).weighed(weights)
    assert fold.weighed(torch.tensor([1.0, 1, 2, 4])).counts == (1.5, 0.5)
    assert Splits((fold,)).weighed(torch.ones(4)).first[0].counts == (1.0, 1.0)


def test_test_rows_have_their_share_of_the_classes_that_one_logit_tells():
    X, y, loss, _ = data("bits")
    result = ts.path(
        lambda: nn.Linear(4, 1).double(), (X, y), ts.L1, loss=loss, strengths=[0.1], folds=2, repeats=1, epochs=1,
        test=0.5, progress=False,
    )  # fmt: skip
    assert abs(y[result.fold == -1].mean().item() - y.mean().item()) < 1 / 30
