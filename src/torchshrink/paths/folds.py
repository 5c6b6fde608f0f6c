"""Which rows each fold trains on and which it holds out, in every repeat, and which rows take no part in any choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.paths.dealing import dealt, dealt_by_class
from torchshrink.paths.settings import Folds
from torchshrink.support.optional import needed
from torchshrink.support.randomness import mix_seed, seeded
from torchshrink.support.storage import brief


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers (int64, ascending): what one fold trains on, and what it is judged on.

    ``counts``: how much a row of either counts in the loss's mean, on average over them, where one of all rows is 1.
    """

    train: Tensor
    validation: Tensor
    counts: tuple[float, float] = (1.0, 1.0)

    def weighed(self, weights: Tensor) -> Fold:
        """The same, where the rows count by these ``weights`` (n,).

        Raises:
            InputError: all the weights of either part are 0.
        """
        mean = float(weights.mean())
        trained, held_out = (float(weights[rows.to(weights.device)].mean()) for rows in (self.train, self.validation))
        if not (trained > 0 and held_out > 0):
            what = "trained on" if not trained > 0 else "held out"
            raise InputError(f"folds: all rows that a fold has {what} have the weight 0: shuffle the rows")
        return replace(self, counts=(trained / mean, held_out / mean))


@dataclass(frozen=True, eq=False)
class Splits:
    """The folds of all repeats; a fold's number is its place in ``every``, and decides its initial weights.

    Args:
        first: those of the first repeat, in which every strength is trained.
        later: those of each repeat after it, as many.
    """

    first: tuple[Fold, ...]
    later: tuple[tuple[Fold, ...], ...] = ()

    @property
    def every(self) -> tuple[Fold, ...]:
        """All folds, the first repeat's first."""
        return self.first + tuple(fold for folds in self.later for fold in folds)

    @property
    def repeats(self) -> tuple[tuple[Fold, ...], ...]:
        """The folds of each repeat."""
        return (self.first, *self.later)

    def weighed(self, weights: Tensor) -> Splits:
        """The same, where the rows count by these ``weights`` (n,)."""
        if bool((weights == weights[:1]).all()):
            return self
        first, *later = (tuple(fold.weighed(weights) for fold in folds) for folds in self.repeats)
        return Splits(first, tuple(later))


def make_splits(
    y: Tensor,
    folds: Folds,
    *,
    repeats: int,
    seed: int,
    numbers: Tensor | None = None,
    ignored: int | None = None,
) -> Splits:
    """The folds of a path: ``repeats`` times drawn anew, or once as they are given.

    Args:
        y: the targets of the rows that take part (n, …).
        folds: as in `make_folds`; in the caller's numbering where they are row numbers.
        repeats: how often folds are drawn.
        seed: decides the draws.
        numbers: the caller's numbers of the rows that take part (n,), if not all do.
        ignored: the code of targets that the loss leaves out; no class.
    """
    first = make_folds(y, folds, seed=seed, numbers=numbers, ignored=ignored)
    if isinstance(folds, bool) or not isinstance(folds, int):
        return Splits(first)
    later = (make_folds(y, folds, seed=mix_seed(seed, 1, number), ignored=ignored) for number in range(1, repeats))
    return Splits(first, tuple(later))


def make_folds(
    y: Tensor, folds: Folds, *, seed: int, numbers: Tensor | None = None, ignored: int | None = None
) -> tuple[Fold, ...]:
    """Split the rows into folds: with each class spread evenly where the targets are class codes, else at random.

    Args:
        y: the targets (n, …); classes if int64 of shape (n,).
        folds: how many, from 2 to n; or a splitter, such as scikit-learn's ``RepeatedKFold`` or ``ShuffleSplit``, any
            object with ``split(X, y)``; or, for each fold, the row numbers that it holds out, all others being trained
            on, or a pair of row numbers (trained on, held out), as a splitter yields them. A row may be held out
            several times, or never. A single pair is one fixed split.
        seed: decides the draw.
        numbers: the caller's numbers of the n rows, if they are some of all; row numbers are then the caller's.
        ignored: the code of targets that the loss leaves out; no class.

    Raises:
        InputError: fewer than two folds, more than rows, a class with fewer rows than folds; given rows that are
            none, a mask, out of range, given twice in one place, or both trained on and held out; folds that hold out
            a class which they do not train on, or that train on or hold out no target that counts.
    """
    y = y.cpu()
    if isinstance(folds, bool) or not isinstance(folds, int):
        made = _given(y, folds, seed=seed, numbers=numbers)
    else:
        made = _drawn(y, folds, seed=seed, ignored=ignored)
    for number, fold in enumerate(made):
        _check_classes(y, fold, f"folds[{number}]", ignored)
    return made


def _drawn(y: Tensor, folds: int, *, seed: int, ignored: int | None) -> tuple[Fold, ...]:
    if folds < 2:
        raise InputError(
            f"folds={folds}: at least 2 expected, as each row is judged by models that did not see it; one fixed split "
            "is folds=[(trained on, held out)]"
        )
    if folds > len(y):
        raise InputError(f"folds={folds} and only {len(y)} rows: at most one fold per row, so give fewer folds")
    if y.is_floating_point() or y.ndim > 1:
        fold_of = dealt(len(y), folds, seed=mix_seed(seed))
    else:
        codes, counts = torch.unique(y[y != ignored], return_counts=True)
        rare = int(counts.argmin())
        if counts[rare] < folds:
            raise InputError(
                f"folds={folds} and only {int(counts[rare])} rows of class {int(codes[rare])}: every fold needs one, "
                "so give fewer folds, or merge or leave out the class"
            )
        fold_of = dealt_by_class(y.numpy(), folds, seed=mix_seed(seed))
    held_out = [torch.from_numpy(fold_of == fold) for fold in range(folds)]
    return tuple(Fold((~out).nonzero().view(-1), out.nonzero().view(-1)) for out in held_out)


def held_back(y: Tensor, test: object, *, seed: int, ignored: int | None = None) -> Tensor:
    """The numbers (ascending) of the rows that are set aside for the end.

    Args:
        y: the targets (n, …). Of classes, each side has its share of each.
        test: a share of the rows, between 0 and 1, drawn at random; or their numbers.
        seed: decides the draw.
        ignored: the code of targets that the loss leaves out; no class.

    Raises:
        InputError: neither; a side would have too few rows, or no row of a class.
    """
    y = y.cpu()
    if isinstance(test, bool) or (isinstance(test, int | float) and not 0 < test < 1):
        raise InputError(f"test={test}: a share between 0 and 1 expected, such as 0.25, or row numbers")
    if not isinstance(test, float):
        chosen = _row_numbers("test", test, rows=len(y))
        rest = _others(chosen, len(y))
        if len(rest) < 2:
            raise InputError(f"test: {len(chosen)} of {len(y)} rows given, which leaves {len(rest)} to train on")
        _check_classes(y, Fold(rest, chosen), "test", ignored)
        return chosen
    return draw_rows(y, math.ceil(test * len(y)), seed=seed, what=f"test={test:g}", ignored=ignored)


def draw_rows(y: Tensor, count: int, *, seed: int, what: str, ignored: int | None = None) -> Tensor:
    """So many row numbers, drawn at random, with each class's share; ``what`` begins an error's message."""
    with needed("drawing test rows"):
        from sklearn.model_selection import train_test_split

    y = y.cpu()
    classes = not y.is_floating_point() and y.ndim == 1
    if classes and ignored is not None:
        y = y.masked_fill(y.eq(ignored), int(y[y.ne(ignored)].mode().values))  # they may fall on either side
    least = len(torch.unique(y)) if classes else 1
    if not (least <= count and max(2, least) <= len(y) - count):
        each = ", one of each class" if classes else ""
        raise InputError(
            f"{what}: of {len(y)} rows {len(y) - count} would tune and {count} test, at least {max(2, least)} and "
            f"{least} needed{each}"
        )
    if classes and int(torch.unique(y, return_counts=True)[1].min()) < 2:
        raise InputError(f"{what}: a class has one row only, and each side needs one; leave out the class")
    _, chosen = train_test_split(
        np.arange(len(y)), test_size=count, random_state=mix_seed(seed, 2), stratify=y.numpy() if classes else None
    )
    return torch.from_numpy(np.sort(chosen))


def _given(y: Tensor, folds: object, *, seed: int, numbers: Tensor | None) -> tuple[Fold, ...]:
    made = tuple(_split(y, folds, seed=seed) if _splits(folds) else _listed(folds, rows=len(y), numbers=numbers))
    if not made:
        raise InputError("folds: none given, at least one expected")
    for number, fold in enumerate(made):
        if len(fold.train) == 0:
            raise InputError(f"folds[{number}] holds out every row and leaves none to train on")
    return made


def _splits(folds: object) -> bool:
    return callable(getattr(folds, "split", None)) and not isinstance(folds, str | bytes | Tensor | np.ndarray)


def _split(y: Tensor, splitter: Any, *, seed: int) -> Iterator[Fold]:
    """What a splitter makes of the rows; one without a seed of its own draws by ours."""
    place = np.zeros((len(y), 1))
    try:
        with seeded(mix_seed(seed)):
            pairs = list(splitter.split(place, y.numpy()))
    except Exception as error:  # whatever a splitter of anybody's raises
        raise InputError(
            f"folds={splitter}: its split(X, y) failed ({brief(error)}); if it needs groups, give "
            "list(splitter.split(X, y, groups))"
        ) from error
    yield from _listed(pairs, rows=len(y), numbers=None)


def _listed(folds: object, *, rows: int, numbers: Tensor | None) -> Iterator[Fold]:
    if not isinstance(folds, Iterable) or isinstance(folds, str | bytes):
        raise InputError(
            f"folds={folds!r}: a number expected, a splitter, or for each fold the row numbers that it holds out"
        )
    everyone = rows if numbers is None else int(numbers.max()) + 1
    place = torch.full((everyone,), -1)
    place[torch.arange(rows) if numbers is None else numbers] = torch.arange(rows)

    def among(name: str, given: object) -> Tensor:
        found = _row_numbers(name, given, rows=everyone)
        if bool((place[found] < 0).any()):
            raise InputError(f"{name}: row {int(found[place[found] < 0][0])} is one of the test rows")
        return place[found]

    if isinstance(folds, Tensor | np.ndarray) and folds.ndim == 1 and folds.dtype in (torch.bool, np.bool_):
        raise InputError(
            f"folds: a mask given, for each fold the row numbers that it holds out expected: {_cure(folds)}"
        )
    for number, given in enumerate(folds):
        if isinstance(given, tuple) and len(given) == 2 and not any(isinstance(part, int) for part in given):
            train, held_out = among(f"folds[{number}][0]", given[0]), among(f"folds[{number}][1]", given[1])
            if bool(torch.isin(train, held_out).any()):
                raise InputError(f"folds[{number}]: a row is both trained on and held out")
        else:
            held_out = among(f"folds[{number}]", given)
            train = _others(held_out, rows)
        yield Fold(train, held_out)


def _others(chosen: Tensor, rows: int) -> Tensor:
    whole = torch.arange(rows)
    return whole[~torch.isin(whole, chosen)]


def _check_classes(y: Tensor, fold: Fold, name: str, ignored: int | None) -> None:
    if y.is_floating_point():
        return
    train, held_out = (part[part != ignored] for part in (y[fold.train], y[fold.validation]))
    if not len(train) or not len(held_out):
        what = "trains on" if not len(train) else "holds out"
        raise InputError(f"{name} {what} no target that counts, only {ignored} (ignore_index)")
    unknown = held_out[~torch.isin(held_out, train)]
    if y.ndim == 1 and len(unknown):
        raise InputError(
            f"{name} holds out class {int(unknown[0])}, of which it trains on no row: shuffle the rows, or give "
            "folds=a number, which spreads each class over all folds"
        )


def _row_numbers(name: str, given: object, *, rows: int) -> Tensor:
    try:
        part = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: {type(given).__name__} given, row numbers expected") from error
    if part.numel() == 0:
        raise InputError(f"{name}: none given, at least one row number expected")
    if part.dtype == torch.bool:
        raise InputError(f"{name}: a mask of shape {tuple(part.shape)} given, row numbers expected: {_cure(given)}")
    if part.ndim != 1 or part.is_floating_point() or part.is_complex():
        raise InputError(f"{name}: {part.dtype} of shape {tuple(part.shape)} given, row numbers expected")
    found: Tensor
    found, counts = torch.unique(part.cpu().long(), return_counts=True)
    if found[0] < 0 or found[-1] >= rows:
        raise InputError(f"{name}: rows {int(found[0])} to {int(found[-1])} given, 0 to {rows - 1} expected")
    if bool((counts > 1).any()):
        raise InputError(f"{name}: row {int(found[counts > 1][0])} is given twice, each row once expected")
    return found


def _cure(mask: object) -> str:
    return "mask.nonzero()[:, 0]" if isinstance(mask, Tensor) else "np.flatnonzero(mask)"
