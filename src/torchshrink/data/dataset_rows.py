"""Rows of a map-style Dataset, read when they are asked for: here, or ahead of time in a DataLoader's workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset

from torchshrink.errors import InputError, ReadError, TorchshrinkError
from torchshrink.support.private_torch import end_workers
from torchshrink.support.storage import brief

Item = tuple[Any, Any]


@dataclass(frozen=True)
class Failure:
    """An exception as a worker sends it: its message, and where it came from."""

    message: str
    trace: str


@final
class Taken(MapDataset[Any]):
    """What ``take`` makes of the items with some numbers, in the process in which it is asked.

    Args:
        dataset: gives the pairs (x, y).
        take: (numbers, pairs) -> what is wanted of them.
    """

    def __init__(self, dataset: MapDataset[Any], take: Callable[[Sequence[int], Iterable[Item]], Any]) -> None:
        self._dataset, self._take = dataset, take

    def of(self, numbers: Sequence[int]) -> Any:
        """What is wanted of these items."""
        return self._take(numbers, map(self._item, numbers))

    def __getitems__(self, numbers: Sequence[int]) -> Any:
        """The same, or a `Failure`, for a DataLoader: an exception would reach another process as many lines."""
        try:
            return self.of(numbers)
        except InputError as error:
            return Failure(str(error), traceback.format_exc())

    def _item(self, number: int) -> Item:
        try:
            item = self._dataset[number]
        except Exception as error:  # anything may come of the user's code
            raise InputError(f"data[{number}] cannot be read: {brief(error)}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            many = f" of {len(item)}" if isinstance(item, tuple | list) else ""
            raise InputError(f"data[{number}] is a {type(item).__name__}{many}: a pair (x, y) expected")
        return item[0], item[1]


def loader(source: Taken, requests: Iterable[Sequence[int]], workers: int) -> DataLoader[Any]:
    """Reads one request after another; its workers, if any, live until it is closed."""
    if multiprocessing.current_process().daemon:
        workers = 0  # such a process, as a worker of Dask's, may have none of its own
    known = multiprocessing.get_all_start_methods()
    # In a worker of joblib's, processes start in a way of joblib's own, which a DataLoader's cannot.
    foreign = multiprocessing.get_start_method(allow_none=True) not in (None, *known)
    return DataLoader(
        source,
        batch_sampler=requests,  # type: ignore[arg-type]  # lists are named, sequences are taken
        num_workers=workers,
        multiprocessing_context=known[0] if workers and foreign else None,
        collate_fn=_same,
        persistent_workers=workers > 0,
        # Its own, for it draws the workers' seeds: a training's draws stay what they are without workers.
        generator=torch.Generator().manual_seed(0),
    )


def close(loading: DataLoader[Any] | None) -> None:
    """End the workers now: torch's way waits for the last reference, which a traceback may hold."""
    if loading is not None:
        end_workers(loading)


def checked(found: Any, kind: type[TorchshrinkError]) -> Any:
    """What was read, if it is no `Failure`; else an exception of this kind."""
    if isinstance(found, Failure):
        error = kind(found.message)
        error.add_note(found.trace)
        raise error
    return found


@final
class Filling:
    """The items' x, or y, as one tensor (n, …), filled item by item: of many large ones, one is there besides.

    NumPy's arrays and numbers keep their width.

    Args:
        name: ``x`` or ``y``.
        numbers: of the items that are to come.
    """

    def __init__(self, name: str, numbers: Sequence[int]) -> None:
        self._name, self._numbers, self._at = name, numbers, 0
        self._kind: tuple[Any, ...] = ()
        self._first = ""
        self.made = torch.empty(0)
        self._array: NDArray[Any] = np.empty(0)

    def add(self, value: Any) -> None:
        """The next item's.

        Raises:
            InputError: it is no number, array or tensor, or has another shape or dtype than the first.
        """
        number = self._numbers[self._at]
        try:
            part = value.detach() if isinstance(value, Tensor) else np.asarray(value)
        except ValueError as error:  # lists of lists of different lengths
            raise InputError(f"data[{number}]: {self._name} is no array: {brief(error)}") from error
        kind = isinstance(part, Tensor), part.shape, part.dtype
        if not self._kind:
            self._allocate(number, part, type(value).__name__)
            self._kind, self._first = kind, _kind(part)
        elif kind != self._kind:
            raise unlike(self._name, number, _kind(part), self._numbers[0], self._first)
        if isinstance(part, Tensor):
            self.made[self._at].copy_(part)
        else:
            self._array[self._at] = part
        self._at += 1

    def _allocate(self, number: int, part: Any, given: str) -> None:
        shape = (len(self._numbers), *part.shape)
        if isinstance(part, Tensor):
            self.made = torch.empty(shape, dtype=part.dtype, device=part.device)
            return
        try:
            dtype = torch.from_numpy(np.empty(0, part.dtype)).dtype
        except (TypeError, ValueError) as error:
            raise InputError(
                f"data[{number}]: {self._name} is a {given} of {part.dtype}: a number, an array or a tensor expected"
            ) from error
        # Torch's own memory, which is aligned as that of any other tensor.
        self.made = torch.empty(shape, dtype=dtype)
        self._array = self.made.numpy()


def unlike(name: str, number: int, kind: str, first: int, first_kind: str) -> InputError:
    """The rows' x, or y, are not of one kind."""
    return InputError(
        f"data[{number}]: {name} is {kind}, and that of data[{first}] is {first_kind}: "
        "one shape and dtype for all rows expected"
    )


def _kind(part: Any) -> str:
    return f"{str(part.dtype).removeprefix('torch.')} of shape {tuple(part.shape)}"


def _same(found: Any) -> Any:
    return found


def _rows(numbers: Sequence[int], items: Iterable[Item]) -> Tensor:
    rows = Filling("x", numbers)
    for x, _ in items:
        rows.add(x)
    return rows.made


class _Requests:
    """What one pass asks for, as a DataLoader takes it; the next pass's are put in its place."""

    numbers: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (_distinct(numbers)[0] for numbers in self.numbers)


@final
class Reader:
    """The x of a Dataset's items by their numbers; in workers, if there are any and requests are known ahead.

    Args:
        dataset: gives the pairs (x, y).
        workers: how many processes read ahead; 0: what is asked for is read when it is asked for.
    """

    def __init__(self, dataset: MapDataset[Any], workers: int) -> None:
        self.dataset, self.workers = dataset, workers
        self._source = Taken(dataset, _rows)
        self._requests = _Requests()
        self._loader: DataLoader[Any] | None = None
        self._held = 0
        self._pass: object | None = None  # the pass that the workers read ahead for

    def __getstate__(self) -> tuple[MapDataset[Any], int]:
        return self.dataset, self.workers  # processes stay where they are

    def __setstate__(self, state: tuple[MapDataset[Any], int]) -> None:
        self.__init__(*state)

    def read(self, numbers: Tensor) -> Tensor:
        """The rows (*, …) with the numbers (*), in the dataset's own dtype; one that is asked for twice is read once.

        Raises:
            ReadError: the dataset does not give them.
        """
        wanted, places = _distinct(numbers)
        try:
            rows = self._source.of(wanted)
        except InputError as error:
            raise ReadError(str(error)) from error
        return _placed(rows, numbers, places)

    def batches(self, requests: Sequence[Tensor]) -> Iterator[Tensor]:
        """What `read` gives for each of the requests, while the workers read for the following ones."""
        if not self.workers or self._pass is not None or not requests:
            yield from map(self.read, requests)
            return
        mine = self._pass = object()
        self._requests.numbers = requests
        if self._loader is None:
            self._loader = loader(self._source, self._requests, self.workers)
        finished = False
        try:
            for found, numbers in zip(_from_workers(self._loader), requests, strict=True):
                yield _placed(checked(found, ReadError), numbers, _distinct(numbers)[1])
            finished = True
        finally:
            if self._pass is mine:  # and not left behind by an exception, and another begun since
                self._pass = None
                if not (finished and self._held):
                    self.close()

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Inside, the workers that one pass has started go on to the next; outside, they end with each pass."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._pass = None
                self.close()

    def close(self) -> None:
        """End the workers, if there are any now."""
        loading, self._loader = self._loader, None  # first: an interrupt may come while they end
        close(loading)


def _distinct(numbers: Tensor) -> tuple[list[int], Tensor | None]:
    """Each number once, and the place of each of the numbers asked for among them; None where none is there twice."""
    once, places = torch.unique(numbers, return_inverse=True)
    return (numbers.flatten().tolist(), None) if len(once) == numbers.numel() else (once.tolist(), places)


def _placed(rows: Tensor, numbers: Tensor, places: Tensor | None) -> Tensor:
    return rows.view(*numbers.shape, *rows.shape[1:]) if places is None else rows[places]


def _from_workers(loading: DataLoader[Any]) -> Iterator[Any]:
    try:
        yield from loading
    except (RuntimeError, OSError, EOFError) as error:  # of a worker that was killed: torch's, or of what it sent
        raise ReadError(f"a worker that was reading rows is gone: {brief(error)}") from error
