"""Paths over Datasets, against the same paths over tensors."""

import multiprocessing
import weakref

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import torchshrink as ts
from path_cases import flat, spec_for
from torchshrink.data import dataset_rows, first_pass, lazy
from torchshrink.errors import DataWarning, InputError
from torchshrink.models import mlp
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.paths.run import path
from torchshrink.regularizer.selection import WEIGHTS

# Said where a machine has fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

ROWS = 90


def readers():
    """The processes that read rows; joblib's own live on for its next call."""
    return [child for child in multiprocessing.active_children() if type(child).__name__ != "LokyProcess"]


class OnDisk(Dataset):
    """Images (1, 16, 16) in a file, each read from there."""

    def __init__(self, path, y):
        self.path, self.y = path, y
        self.X = None  # opened by each process that reads

    def __len__(self):
        return len(self.y)

    def __getitem__(self, number):
        if self.X is None:
            self.X = np.load(self.path, mmap_mode="r")
        return self.X[number], self.y[number]


class Served(Dataset):
    """Rows as copies; counts those asked for, and those that are alive."""

    def __init__(self, X, y):
        self.X, self.y, self.asked, self.alive, self.most = X, y, 0, 0, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, number):
        row = self.X[number].clone()
        self.asked += 1
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(row, self._gone)
        return row, self.y[number]

    def _gone(self):
        self.alive -= 1


def images():
    X = torch.randn(ROWS, 1, 16, 16)
    return X, (X[:, 0, :8].mean((1, 2)) > X[:, 0, 8:].mean((1, 2))).long()


def table():
    X = torch.randn(ROWS, 4)
    X[::7, 1] = torch.nan
    X[:, 3] = torch.randint(3, (ROWS,))
    return X.double(), X[:, 0].double() * 2 + torch.randn(ROWS).double()


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),  # whose draws are to be the same, whoever reads the rows
        nn.Linear(4 * 49, 2),
    )


def numbers():
    return mlp([0, 0, 0, 3], 1, hidden=(6,), regression=True).double()


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))


def run(build, data, **settings):
    plain = {"strengths": [1e-3, 1e-2], "folds": 4, "epochs": 2, "batch_size": 16, "repeats": 1, "progress": False}
    return ts.path(build, data, ts.L1, **flat(plain | settings))


def assert_same(found, wanted):
    assert [point.to_dict() for point in found.points] == [point.to_dict() for point in wanted.points]
    assert torch.equal(found.losses, wanted.losses)
    assert found.grid == wanted.grid
    assert found.null_loss == wanted.null_loss
    assert found.settings == wanted.settings


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
def test_rows_on_disk_end_with_the_bits_of_rows_in_memory(engine, tmp_path):
    X, y = images()
    np.save(tmp_path / "X.npy", X.numpy())
    dataset = OnDisk(tmp_path / "X.npy", y.numpy())
    wanted = run(conv, (X, y), engine=engine)
    for workers in (0, 2):
        found = run(conv, dataset, engine=engine, workers=workers)
        assert_same(found, wanted)
        assert not readers()
    model, certificate = found.refit()
    reference, known = wanted.refit()
    assert all(map(torch.equal, model.state_dict().values(), reference.state_dict().values()))
    assert certificate == known
    assert not readers()


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
def test_preprocessing_and_folds_of_different_sizes_as_in_memory(engine):
    X, y = table()
    folds = [range(20), range(20, 55), range(55, 90)]
    wanted = run(numbers, (X, y), engine=engine, folds=folds)
    assert_same(run(numbers, Served(X, y), engine=engine, folds=folds), wanted)


def test_rows_that_come_in_many_parts_give_the_same_but_for_rounding(monkeypatch):
    X, y = table()
    wanted = run(numbers, (X, y), engine="sequential")
    monkeypatch.setattr(lazy, "AT_ONCE", 7 * 4 * 8)
    found = run(numbers, Served(X, y), engine="sequential")
    assert torch.allclose(found.losses, wanted.losses, rtol=1e-10, atol=0)
    certificate, known = found.refit()[1], wanted.refit()[1]
    assert certificate.distance == pytest.approx(known.distance, rel=1e-8)
    assert certificate.objective == pytest.approx(known.objective, rel=1e-10)


@pytest.mark.parametrize("at_once", [lazy.AT_ONCE, 7 * 256 * 4])
def test_the_top_of_a_grid_and_the_certificate_of_a_linear_model(at_once, monkeypatch):
    X, y = images()
    wanted = run(linear, (X, y), strengths=3)
    monkeypatch.setattr(lazy, "AT_ONCE", at_once)
    found = run(linear, Served(X, y), strengths=3)
    assert found.grid.how == "exact"
    assert found.grid.strengths == pytest.approx(wanted.grid.strengths, rel=1e-9)
    certificate, known = found.refit(0.01)[1], wanted.refit(0.01)[1]
    assert known.gap is not None
    assert certificate.gap is None
    assert certificate.distance == pytest.approx(known.distance, rel=1e-8)
    assert certificate.notes == ("no duality gap: it needs all rows in memory, and these are read from a Dataset",)


def test_a_probed_grid_as_in_memory():
    X, y = images()
    found, wanted = (run(conv, data, strengths=1, folds=2, epochs=1) for data in (Served(X, y), (X, y)))
    assert found.grid.how == "probed"
    assert_same(found, wanted)


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
def test_no_more_rows_at_a_time_than_a_step_takes(engine, monkeypatch):
    X, y = images()
    served = Served(X, y)
    folds, batch = 3, 10
    monkeypatch.setattr(lazy, "AT_ONCE", batch * 256 * 4)
    monkeypatch.setattr(first_pass, "PER_REQUEST", batch)
    requests, rows = [], dataset_rows._rows
    monkeypatch.setattr(
        dataset_rows, "_rows", lambda numbers, items: requests.append(len(numbers)) or rows(numbers, items)
    )
    run(conv, served, engine=engine, folds=folds, batch_size=batch)
    assert batch <= max(requests) <= batch * (folds if engine == "lanes" else 1)
    assert served.alive == 0
    assert served.most == 2  # the next is read while the last one's name still stands for it


def test_what_a_stacks_folds_share_in_a_batch_is_read_once():
    X, y = images()
    served = Served(X, y)
    (family,) = families(ts.L1)
    settings = {"loss": None, "optimizer": None, "seed": 0, "device": None, "on": WEIGHTS, "method": "auto"}
    spec = spec_for(conv, served, [family], epochs=3, batch_size=ROWS, **settings)
    folds = make_folds(spec.y, 3, seed=0)
    stack = Stack(spec, dict(enumerate(folds)), family, (0.0, 0.1))
    served.asked = 0
    stack.train()
    assert served.asked == 3 * ROWS  # whose 3 · 2/3 trainings on each row take one batch an epoch


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
def test_workers_read_what_trainings_and_evaluations_take(engine):
    here = []
    for workers in (0, 1):
        served = Served(*images())
        run(conv, served, workers=workers, engine=engine, folds=3)
        here.append(served.asked)
    assert here[0] > 5 * ROWS
    assert here[1] < 3 * ROWS  # a few rows to check with, and the planner's trial


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
def test_a_jobs_workers_read_ahead_too(engine, tmp_path):
    X, y = images()
    np.save(tmp_path / "X.npy", X.numpy())
    wanted = run(conv, (X, y), engine=engine)
    with joblib.parallel_config("loky", n_jobs=2):
        assert_same(run(conv, OnDisk(tmp_path / "X.npy", y.numpy()), engine=engine, workers=1), wanted)


def test_a_journal_goes_on_with_the_same_rows_and_with_no_others(tmp_path):
    X, y = images()
    served = Served(X, y)
    wanted = run(conv, served, folder=tmp_path, engine="sequential")
    served.asked = 0
    assert_same(run(conv, served, folder=tmp_path, engine="sequential"), wanted)
    assert served.asked < 2 * ROWS  # looked at, and not trained on
    changed = X.clone()
    changed[50] += 1
    with pytest.raises(InputError, match=r"is of other trainings \(X was .* and is "):
        run(conv, Served(changed, y), folder=tmp_path, engine="sequential")


def test_the_callers_draws_are_not_touched():
    served = Served(*images())
    before = torch.get_rng_state()
    run(conv, served, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tensor_dataset_is_its_tensors():
    X, y = images()
    found = run(linear, TensorDataset(X, y))
    assert_same(found, run(linear, (X, y)))
    assert found.refit(0.01)[1].gap is not None


def test_workers_end_with_what_goes_wrong():
    def stop(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        steps = []

        def stopped(*_):
            steps.append(readers())
            if len(steps) == 3:
                assert len(steps[-1]) == 1
                raise KeyboardInterrupt

        optimizer.register_step_pre_hook(stopped)
        return optimizer

    with pytest.raises(KeyboardInterrupt):
        run(conv, Served(*images()), optimizer=stop, workers=1, engine="sequential")
    assert not readers()


def test_bad_settings_are_known_before_the_rows_are_read():
    for settings in ({"epochs": 0}, {"optimizer": "sgd"}, {"method": "magic"}, {"engine": "magic"}):
        served = Served(*images())
        with pytest.raises(InputError):
            run(conv, served, **settings)
        assert served.asked == 0


def test_one_line_says_what_cannot_be_done():
    X, y = images()
    with pytest.raises(InputError, match=r"^workers=2: the data are in memory, so there is nothing to read"):
        run(conv, (X, y), workers=2)
    with pytest.raises(InputError, match=r"^polish=True needs the rows in memory"):
        run(conv, Served(X, y)).refit(polish=True)
    with pytest.raises(InputError, match=r"^y has one class only"):
        run(conv, Served(X, torch.zeros_like(y)))
    with pytest.raises(InputError, match=r"^the model does not take rows of shape \(3,\)"):
        run(conv, Served(torch.zeros(ROWS, 3), y))


def test_augmentation_that_does_not_repeat_is_warned_of_where_path_was_called():
    class Restless(Served):
        def __getitem__(self, number):
            return self.X[number] + torch.randn(()), self.y[number]

    with pytest.warns(DataWarning, match="is another one when it is read again") as caught:
        path(conv, Restless(*images()), ts.L1, strengths=[0.1], folds=2, epochs=1, progress=False)
    assert caught[0].filename == __file__
