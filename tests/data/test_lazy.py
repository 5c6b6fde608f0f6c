"""Rows of a Dataset that are read when they are asked for."""

import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from torchshrink.data import lazy
from torchshrink.data.first_pass import opened
from torchshrink.data.lazy import LazyRows, batches_of, readers_alive, split, subset, with_gaps
from torchshrink.errors import DataWarning, InputError, ReadError

# Said where a machine has fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def readers():
    """The processes that read rows; joblib's own live on for its next call."""
    return [child for child in multiprocessing.active_children() if type(child).__name__ != "LokyProcess"]


class Served(Dataset):
    """Rows from memory, with a count of those that this process was asked for."""

    def __init__(self, X, y):
        self.X, self.y, self.asked = X, y, []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, number):
        self.asked.append(number)
        return self.X[number], self.y[number]


class Given(Dataset):
    """Items as they are given."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class Restless(Served):
    """Augmented anew whenever it is read."""

    def __getitem__(self, number):
        return self.X[number] + torch.randn(()), self.y[number]


class Mortal(Served):
    """Ends the process that reads row 7, unless it is the one that made it."""

    home = os.getpid()

    def __getitem__(self, number):
        if number == 7 and os.path.exists(self.X) and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(number), self.y[number]

    def __len__(self):
        return len(self.y)


def rows(*shape):
    return torch.randn(*shape, dtype=torch.float64), torch.arange(shape[0]) % 2


def test_rows_are_those_of_the_tensor_in_any_arrangement():
    X, y = rows(20, 3, 2)
    found, targets = opened(Served(X, y))
    numbers = torch.tensor([[3, 1, 3], [0, 19, 1]])
    assert isinstance(found, LazyRows)
    assert (len(found), found.shape, found.ndim, found.dtype) == (20, X.shape, 3, torch.float64)
    assert torch.equal(targets, y)
    assert torch.equal(found[numbers], X[numbers])
    assert torch.equal(found[:2], X[:2])
    assert torch.equal(found.subset(numbers[1])[torch.tensor([2, 0])], X[[1, 0]])
    narrow = found.to(torch.device("cpu"), torch.float32)
    assert narrow[numbers].dtype == torch.float32
    assert torch.equal(narrow.double()[numbers], X.float().double()[numbers])


def test_a_row_that_is_asked_for_several_times_is_read_once():
    served = Served(*rows(20, 3))
    found, _ = opened(served)
    served.asked.clear()
    assert found[torch.tensor([[3, 1, 5], [3, 5, 8]])].shape == (2, 3, 3)
    assert sorted(served.asked) == [1, 3, 5, 8]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.float32(1), torch.float32),
        (1.5, torch.float64),
        (3, torch.int64),
        (True, torch.bool),
        (np.zeros((2, 3), np.uint8), torch.uint8),
        ([1.0, 2.0], torch.float64),
        (torch.zeros(2, dtype=torch.bfloat16), torch.bfloat16),
    ],
)
def test_numbers_arrays_and_tensors_keep_their_width(value, dtype):
    found, y = opened(Given((value, 0), (value, 1), (value, 1)))
    assert found.dtype == dtype == found[:].dtype
    assert found.shape == (3, *np.shape(value))
    assert y.tolist() == [0, 1, 1]


def test_workers_read_ahead_what_is_asked_for_and_end():
    X, y = rows(30, 3)
    served = Served(X, y)
    found, _ = opened(served, workers=2)
    requests = [torch.tensor([[2 * k, 1], [k, 2 * k]]) for k in range(5)]
    served.asked.clear()
    with readers_alive(found):
        for _ in range(2):
            for request, batch in batches_of(found, requests):
                assert torch.equal(batch, X[request])
            pids = {process.pid for process in readers()}
            assert len(pids) == 2
        assert served.asked == []  # in this process
        assert torch.equal(found[:2], X[:2])
        assert served.asked == [0, 1]
        assert {process.pid for process in readers()} == pids  # the same for both passes
    assert not readers()


def test_what_is_read_within_a_pass_is_right_too():
    X, y = rows(30, 3)
    found, _ = opened(Served(X, y), workers=1)
    for request, batch in batches_of(found, [torch.arange(4), torch.arange(4, 8)]):
        other = torch.tensor([20, 21])
        assert torch.equal(found[other], X[other])
        assert torch.equal(batch, X[request])
        within = [part for (part,) in split(found.subset(other), most=1)]
        assert torch.equal(torch.cat(within), X[other])
    assert not readers()


def test_workers_end_where_a_pass_is_left_in_the_middle():
    found, _ = opened(Served(*rows(30, 3)), workers=2)

    def interrupted():
        with readers_alive(found):
            for _ in batches_of(found, torch.arange(30).split(3)):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert not readers()
    assert caught.tb  # its frames, which hold the pass, are still there
    with readers_alive(found):
        assert [len(batch) for _, batch in batches_of(found, torch.arange(30).split(20))] == [20, 10]
    assert not readers()


def test_a_worker_that_is_killed_and_a_row_that_is_gone_are_said_in_one_line(tmp_path):
    mark = tmp_path / "mark"
    mortal = Mortal(str(mark), torch.arange(30) % 2)
    found, _ = opened(mortal, workers=1)
    mark.touch()
    # Torch's own handler of the signal says so wherever this process is just then: mostly, where it waits for rows.
    with readers_alive(found):
        with pytest.raises((ReadError, RuntimeError), match="worker"):
            list(batches_of(found, torch.arange(30).split(3)))
        mark.unlink()
        assert len(list(batches_of(found, torch.arange(30).split(3)))) == 10
    assert not readers()

    served = Served(*rows(30, 3))
    found, _ = opened(served, workers=1)
    served.X = served.X[:5]
    with pytest.raises(ReadError, match=r"^data\[5\] cannot be read: IndexError: index 5 is out of bounds") as caught:
        list(batches_of(found, torch.arange(30).split(3)))
    assert "in __getitem__" in caught.value.__notes__[0]
    with pytest.raises(ReadError, match=r"data\[9\] cannot be read"):
        found[torch.tensor([9])]
    assert not readers()


def test_large_rows_are_evaluated_a_few_at_a_time(monkeypatch):
    X, y = rows(20, 8)
    found, _ = opened(Served(X, y))
    monkeypatch.setattr(lazy, "AT_ONCE", 3 * 8 * 8 + 1)
    assert [len(part) for part, _ in split(found, y, most=4096)] == [3, 3, 3, 3, 3, 3, 2]
    assert [len(part) for part, _ in split(X, y, most=8)] == [8, 8, 4]
    assert torch.equal(torch.cat(list(found.parts())), X)


def test_missing_values_are_known_before_they_are_read_again():
    X, y = rows(10, 3)
    X[[2, 7], 1] = torch.nan
    found, _ = opened(Served(X, y))
    assert with_gaps(found).tolist() == with_gaps(X).tolist() == [2, 7]
    assert with_gaps(subset(found, torch.tensor([7, 1]))).tolist() == [0]


def test_the_digest_is_of_rows_targets_and_their_order():
    X, y = rows(70, 3)
    digest = opened(Served(X, y))[0].digest
    assert opened(Served(X.clone(), y), workers=1)[0].digest == digest
    for other, targets in ((X.flip(0), y), (X + 1e-9, y), (X, 1 - y), (X.float(), y)):
        assert opened(Served(other, targets))[0].digest != digest


def test_a_copy_in_another_process_reads_for_itself():
    X, y = rows(20, 3)
    found, _ = opened(Served(X, y), workers=1)
    with readers_alive(found):
        list(batches_of(found, [torch.arange(3)]))
        copied = pickle.loads(pickle.dumps(found))
    assert torch.equal(copied[torch.arange(4)], X[:4])
    assert copied.reader.workers == 1


def test_the_callers_tensors_and_those_of_a_tensor_dataset_stay_what_they_are():
    X, y = rows(5, 3)
    assert opened((X, y)) == (X, y) == opened(TensorDataset(X, y))


def test_items_that_change_are_warned_of():
    with pytest.warns(DataWarning, match=r"^data\[0\] is another one when it is read again, as random augmentation"):
        opened(Restless(*rows(10, 3)))


def test_progress_counts_rows_on_stderr(capsys):
    opened(Served(*rows(100, 3)), progress=True)
    said = capsys.readouterr()
    assert "data:" in said.err
    assert "0/100" in said.err
    assert not said.out


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(0.0, 0)])


class Nameless(Dataset):
    def __getitem__(self, number):
        return 0.0, 0


X, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("data", "workers", "message"),
    [
        ((X, y), 1, "workers=1: the data are in memory, so there is nothing to read: leave it out"),
        (TensorDataset(X, y), 2, "workers=2: the data are in memory, so there is nothing to read: leave it out"),
        (Given((1.0, 0), (2.0, 1)), -1, "workers=-1: expected a whole number ≥ 0"),
        (Given((1.0, 0), (2.0, 1)), True, "workers=True: expected a whole number ≥ 0"),
        (TensorDataset(X), 0, "data: a TensorDataset of 1 tensors given, one of (X, y) expected"),
        (
            DataLoader(TensorDataset(X, y)),
            0,
            "data: a DataLoader given, its dataset expected: loader.dataset, with workers= and batch_size=",
        ),
        (
            Endless(),
            0,
            "data: Endless given, a pair (X, y) or a map-style torch.utils.data.Dataset expected, whose rows can be "
            "asked for by number",
        ),
        (
            "digits",
            0,
            "data: str given, a pair (X, y) or a map-style torch.utils.data.Dataset expected, whose rows can be "
            "asked for by number",
        ),
        (Nameless(), 0, "data: Nameless has no length: give it a __len__"),
        (Given((1.0, 0)), 0, "data has 1 rows: at least 2 expected"),
        (Given({"x": 1.0}, {"x": 2.0}), 0, "data[0] is a dict: a pair (x, y) expected"),
        (Given((1.0, 0), (1.0, 0, 3)), 0, "data[1] is a tuple of 3: a pair (x, y) expected"),
        (Given(("cat", 0), ("dog", 1)), 0, "data[0]: x is a str of <U3: a number, an array or a tensor expected"),
        (
            Given((X[0], 0), (X[0], 1), (X[0, :1], 1)),
            0,
            "data[2]: x is float32 of shape (1,), and that of data[0] is float32 of shape (2,): one shape and dtype "
            "for all rows expected",
        ),
        (
            Given((X[0], 0), (X[0], 1.5)),
            0,
            "data[1]: y is float64 of shape (), and that of data[0] is int64 of shape (): one shape and dtype for "
            "all rows expected",
        ),
        (
            Given(*[(X[0], 0)] * 64, (X[0].double(), 0)),
            0,
            "data[64]: x is float64 of shape (2,), and that of data[0] is float32 of shape (2,): one shape and dtype "
            "for all rows expected",
        ),
        (Given((X[0], 0), (X[0] + torch.inf, 1)), 0, "data[1]: x has infinite values: clip them"),
    ],
)
def test_other_data_are_refused_in_one_line(data, workers, message):
    with pytest.raises(InputError) as caught:
        opened(data, workers=workers)
    assert str(caught.value).replace("torch.", "") == message.replace("torch.", "")


def test_a_row_that_cannot_be_read_is_named_from_a_worker_too():
    class Broken(Served):
        def __getitem__(self, number):
            if number == 3:
                raise KeyError("label")
            return super().__getitem__(number)

    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^data\[3\] cannot be read: KeyError: 'label'"):
            opened(Broken(*rows(10, 3)), workers=workers)
    assert not readers()
