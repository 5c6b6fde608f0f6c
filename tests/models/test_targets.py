"""Targets in any unit, rows whose numbers are large, and targets that do not count."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import DataWarning, InputError
from torchshrink.models import Preprocess, Rescale, TargetScale, load_model, mlp, model_settings, rows_dtype, save_model
from torchshrink.paths.folds import make_folds
from torchshrink.training import evaluate, train_epoch

generator = np.random.default_rng(0)
X = generator.normal(size=(90, 4))
y = X @ [3.0, -2.0, 0.0, 0.0] + generator.normal(size=90)
SETTINGS = {"strengths": [0.01, 0.1, 10.0], "folds": 3, "repeats": 1, "epochs": 25, "batch_size": 30, "progress": False}


def linear() -> nn.Module:
    return mlp(4, 1, hidden=(), regression=True)


@functools.cache
def path(unit=1.0, engine="lanes"):
    return ts.path(
        linear, (X, y * unit), ts.L1, engine=engine, optimizer=lambda p: torch.optim.Adam(p, lr=0.05), **SETTINGS
    )


@pytest.mark.parametrize("engine", ["lanes", "sequential"])
@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9])
def test_the_targets_unit_changes_nothing_but_the_losses_unit(unit, engine):
    plain, other = path(1.0, engine), path(unit, engine)
    for mine, theirs in zip(plain.points, other.points, strict=True):
        assert theirs.validation_loss == pytest.approx(mine.validation_loss * unit**2, rel=1e-3)
        assert (theirs.strength, theirs.nonzero) == (mine.strength, mine.nonzero)
    assert other.best.strength == plain.best.strength
    assert other.best.validation_loss < 0.5 * other.null_loss
    model, certificate = other.refit(polish=True)
    assert certificate.ok(1e-5)
    rows, target = torch.tensor(X), torch.tensor(y * unit)
    again = ts.certify(model, (rows, target), ts.Regularizer(model, ts.L1(other.best.strength)))
    assert again.relative < 1e-4  # the default loss of a model that rescales is the one that it was trained on
    assert again.loss == pytest.approx(certificate.loss, rel=1e-4)
    with torch.no_grad():
        error = ((model(rows).double() - target) / unit).square().mean().item()
    assert error == pytest.approx(certificate.loss * y.var(), rel=1e-3)


def test_a_loss_that_is_given_is_meant_as_it_is():
    given = ts.path(linear, (X, y), ts.L1, loss=nn.MSELoss(), **(SETTINGS | {"epochs": 1}))
    assert given.settings["loss"] == "MSELoss()"
    assert path().settings["loss"] == "MSELoss() of the standardised target"
    assert TargetScale.of(nn.Linear(4, 1), torch.tensor(y)) == TargetScale()


def test_rows_stay_float64_until_they_are_standardised(tmp_path):
    rows = torch.tensor(X) * 0.1 + 5e6
    model = mlp(4, 2, hidden=(3,))
    assert rows_dtype(model, rows) == torch.float64
    assert rows_dtype(nn.Linear(4, 2), rows) == torch.float32
    model[0].fit(rows)
    encoded = model[0](rows)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, torch.tensor(X / X.std(0) - (X / X.std(0)).mean(0)).float(), atol=1e-4, rtol=0)
    for brought in (model.half().float(), model.double()):
        torch.testing.assert_close(brought[0](rows).float(), encoded, atol=1e-6, rtol=0)
    settings = model_settings("mlp", inputs=[0] * 4, outputs=2, hidden=(3,))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        save_model(tmp_path, model.to(dtype), settings)
        loaded = load_model(tmp_path)
        assert loaded[1].weight.dtype == dtype
        assert torch.equal(loaded(rows), model.eval()(rows))


def test_rounding_that_makes_values_the_same_is_said():
    far, labels = 5e6 + X, (X[:, 0] > 0).astype(int)
    cheap = {"strengths": [0.1], "folds": 2, "epochs": 1, "progress": False}
    with pytest.warns(DataWarning, match=r"column \d of X: the model's float32 keeps \d+ of 90 different"):
        ts.path(lambda: nn.Linear(4, 2), (far, labels), ts.L1, **cheap)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        ts.path(lambda: nn.Linear(4, 2), (X, labels), ts.L1, **cheap)
        ts.path(lambda: mlp(4, 2, hidden=()), (far, labels), ts.L1, **cheap)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, 3) -> (B, 2, T)
        return self.linear(x).transpose(1, 2)


def padded(ignored: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randn(40, 5, 3, generator=torch.Generator().manual_seed(0))
    codes = (rows[..., 0] > 0).long()
    codes[::2, 2:] = ignored
    codes[7] = ignored
    return rows, codes


@pytest.mark.parametrize("engine", ["lanes", "sequential"])
@pytest.mark.parametrize("ignored", [-100, 9])
def test_padding_counts_neither_in_losses_nor_in_accuracies(ignored, engine):
    rows, codes = padded(ignored)
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    # Batches of one row: that of row 7 has nothing that counts.
    settings = {"strengths": [0.001], "folds": 2, "repeats": 1, "epochs": 30, "batch_size": 2, "progress": False}
    settings |= {"engine": engine, "optimizer": lambda p: torch.optim.Adam(p, lr=0.05)}
    result = ts.path(Tagger, (rows, codes), ts.L1, loss=loss, **settings)
    assert result.points[0].accuracy > 0.9
    model, _ = result.refit(0.0)
    found = evaluate(model, rows, codes, loss=loss)
    keep = codes != ignored
    with torch.no_grad():
        output = model(rows)
    assert found.accuracy == pytest.approx((output.argmax(1) == codes)[keep].double().mean().item())
    assert found.loss == pytest.approx(loss(output, codes).item(), rel=1e-6)


def test_a_batch_without_a_target_that_counts_moves_nothing():
    rows, codes = padded(-100)
    model = Tagger()
    before = model.linear.weight.detach().clone()
    settings = {"loss": nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(model.parameters(), lr=1.0)}
    stats = train_epoch(model, rows[6:8], codes[6:8], batch_size=1, seed=0, epoch=0, **settings)
    assert stats.accuracy is not None
    assert model.linear.weight.isfinite().all()
    assert not torch.equal(model.linear.weight, before)


def test_what_cannot_be_learnt_is_refused():
    plain = lambda target: ts.path(lambda: nn.Linear(4, 2), (X, target), ts.L1, progress=False)  # noqa: E731
    labels = np.arange(90) % 2
    for target, says in (
        (np.full(90, 0.5), "the same in all 90 rows"),
        (np.zeros(90, dtype=int), "one class only"),
        (np.full(90, -100), "no class, only -100"),
        (np.where(labels, -5, 0), "class code -5"),
    ):
        with pytest.raises(InputError, match=says):
            plain(target)


def test_folds_spread_ignored_rows_and_do_not_hold_out_unknown_classes():
    codes = torch.arange(60) % 3
    codes[::20] = -100
    folds = make_folds(codes, 5, seed=0, ignored=-100)
    assert all(set(codes[fold.train].tolist()) >= {0, 1, 2} for fold in folds)
    ordered = torch.arange(60) // 20
    blocks = [list(range(0, 20)), list(range(20, 40)), list(range(40, 60))]
    with pytest.raises(InputError, match=r"folds\[0\] holds out class 0, of which it trains on no row"):
        make_folds(ordered, blocks, seed=0)
    make_folds(ordered.double(), blocks, seed=0)  # numbers have no classes
    with pytest.raises(InputError, match=r"folds\[0\] holds out no target that counts"):
        make_folds(torch.tensor([-100, -100, 0, 1, 0, 1]), [[0, 1], [2, 3]], seed=0, ignored=-100)


def test_a_target_far_from_zero_keeps_its_digits():
    rescale = Rescale()
    unit = TargetScale(5e6, 0.5)
    far = torch.tensor([5e6 - 0.5, 5e6 + 0.5], dtype=torch.float64)
    rescale.fit(unit.inward(far))
    model = nn.Sequential(Preprocess([0]), rescale).double()
    unit.restore(model)
    torch.testing.assert_close(model(torch.tensor([[-1.0], [1.0]])), far, atol=1e-9, rtol=0)
