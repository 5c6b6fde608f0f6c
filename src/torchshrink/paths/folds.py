"""Which rows each fold trains on and which it holds out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.paths.settings import Folds
from torchshrink.support.optional import needed
from torchshrink.support.randomness import mix_seed


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers (int64, ascending): what one fold trains on, and what it is judged on."""

    train: Tensor
    validation: Tensor


def make_folds(y: Tensor, folds: Folds, *, seed: int, ignored: int | None = None) -> tuple[Fold, ...]:
    """Split the rows into folds: with each class spread evenly where the targets are class codes, else at random.

    Args:
        y: the targets (n, …); classes if int64 of shape (n,).
        folds: how many, from 2 to n; or, for each, the row numbers that it holds out, all others being trained on, or a
            pair of row numbers (trained on, held out), as scikit-learn's splitters make them. No row is held out twice.
        seed: decides the draw.
        ignored: the code of targets that the loss leaves out; no class.

    Raises:
        InputError: fewer than two folds, more than rows, a class with fewer rows than folds; given rows that are
            none, out of range, or in two folds; folds that hold out a class which they do not train on, or that train
            on or hold out no target that counts.
    """
    y = y.cpu()
    if isinstance(folds, bool) or not isinstance(folds, int):
        made = _given(folds, rows=len(y))
    else:
        made = _drawn(y, folds, seed=seed, ignored=ignored)
    if not y.is_floating_point():
        _check_classes(y, made, ignored)
    return made


def _check_classes(y: Tensor, folds: Sequence[Fold], ignored: int | None) -> None:
    for number, fold in enumerate(folds):
        train, held_out = (part[part != ignored] for part in (y[fold.train], y[fold.validation]))
        if not len(train) or not len(held_out):
            what = "trains on" if not len(train) else "holds out"
            raise InputError(f"folds[{number}] {what} no target that counts, only {ignored} (ignore_index)")
        unknown = held_out[~torch.isin(held_out, train)]
        if y.ndim == 1 and len(unknown):
            raise InputError(
                f"folds[{number}] holds out class {int(unknown[0])}, of which it trains on no row: shuffle the rows, "
                "or give folds=a number, which spreads each class over all folds"
            )


def _drawn(y: Tensor, folds: int, *, seed: int, ignored: int | None) -> tuple[Fold, ...]:
    if folds < 2:
        raise InputError(f"folds={folds}: at least 2 expected, as each row is judged by models that did not see it")
    if folds > len(y):
        raise InputError(f"folds={folds} and only {len(y)} rows: at most one fold per row, so give fewer folds")
    # Imported here: scikit-learn takes a second to load, and this module is loaded with the public names.
    with needed("drawing folds"):
        from sklearn.model_selection import KFold, StratifiedKFold

    draw = {"n_splits": folds, "shuffle": True, "random_state": mix_seed(seed)}
    if y.is_floating_point() or y.ndim > 1:
        parts = KFold(**draw).split(np.empty(len(y)))
    else:
        codes, counts = torch.unique(y[y != ignored], return_counts=True)
        rare = int(counts.argmin())
        if counts[rare] < folds:
            raise InputError(
                f"folds={folds} and only {int(counts[rare])} rows of class {int(codes[rare])}: every fold needs one, "
                "so give fewer folds, or merge or leave out the class"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of ignored targets that are fewer than the folds
            parts = list(StratifiedKFold(**draw).split(np.empty(len(y)), y.numpy()))
    return tuple(Fold(torch.from_numpy(train), torch.from_numpy(validation)) for train, validation in parts)


def _given(folds: object, *, rows: int) -> tuple[Fold, ...]:
    if not isinstance(folds, Iterable) or isinstance(folds, str | bytes):
        raise InputError(f"folds={folds!r}: a number expected, or for each fold the row numbers that it holds out")
    made = []
    for number, given in enumerate(folds):
        if isinstance(given, tuple) and len(given) == 2 and not any(isinstance(part, int) for part in given):
            train = _row_numbers(f"folds[{number}][0]", given[0], rows=rows)
            held_out = _row_numbers(f"folds[{number}][1]", given[1], rows=rows)
            if bool(torch.isin(train, held_out).any()):
                raise InputError(f"folds[{number}]: a row is both trained on and held out")
        else:
            held_out = _row_numbers(f"folds[{number}]", given, rows=rows)
            whole = torch.arange(rows)
            train = whole[~torch.isin(whole, held_out)]
        made.append(Fold(train, held_out))
    if len(made) < 2:
        raise InputError(f"folds: {len(made)} given, at least 2 expected")
    if any(len(fold.train) == 0 for fold in made):
        raise InputError("folds: one holds out every row and leaves none to train on")
    every = torch.cat([fold.validation for fold in made])
    if len(torch.unique(every)) < len(every):
        raise InputError("folds: a row is held out twice; give each row to one fold at most")
    return tuple(made)


def _row_numbers(name: str, given: object, *, rows: int) -> Tensor:
    try:
        part = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: {type(given).__name__} given, row numbers expected") from error
    if part.ndim != 1 or part.numel() == 0 or part.is_floating_point() or part.dtype == torch.bool:
        raise InputError(f"{name}: {part.dtype} of shape {tuple(part.shape)} given, row numbers expected")
    numbers: Tensor = torch.unique(part.cpu().long())
    if numbers[0] < 0 or numbers[-1] >= rows:
        raise InputError(f"{name}: rows {int(numbers[0])} to {int(numbers[-1])} given, 0 to {rows - 1} expected")
    return numbers
