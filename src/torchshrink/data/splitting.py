"""Which rows train and which validate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchshrink.data.dataset import Dataset
from torchshrink.errors import InputError


def require_rows_per_class(y: Tensor, least: int, *, classes: tuple[str, ...] = (), purpose: str) -> None:
    """Raise an InputError that names the smallest class if it has fewer than ``least`` rows.

    Args:
        y: (n,) int64, codes.
        least: how many rows of each class there must be; a class with none is not counted.
        classes: their names by code, for the message.
        purpose: what needs so many, for the message: "to have some on either side of the split".

    >>> require_rows_per_class(torch.tensor([0, 0, 1]), 2, classes=("a", "b"), purpose="for 2 folds")
    Traceback (most recent call last):
    ...
    torchshrink.errors.InputError: class 'b' has 1 row, at least 2 expected for 2 folds: add rows or drop the class
    """
    codes, counts = torch.unique(y, return_counts=True)
    place = int(counts.argmin())
    count, code = int(counts[place]), int(codes[place])
    if count < least:
        label = classes[code] if classes else str(code)
        given = f"{count} row{'s' if count > 1 else ''}"
        raise InputError(
            f"class {label!r} has {given}, at least {least} expected {purpose}: add rows or drop the class"
        )


def split(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Training and validation rows, drawn at random; of classes, each side has its share of each.

    Args:
        dataset: n rows.
        fraction: of the rows, that validate.
        seed: the same seed draws the same rows.

    Returns:
        The indices of the training and of the validation rows, int64, ascending; together, each row once.

    Raises:
        InputError: ``fraction`` is not between 0 and 1, a side would have no row, or not one of each class.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < fraction < 1:
        raise InputError(f"validation fraction {fraction}: a number between 0 and 1 expected")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed}: a whole number from 0 to {2**32 - 1} expected")
    rows = np.arange(dataset.rows)
    validating = int(np.ceil(fraction * dataset.rows))  # as scikit-learn rounds
    least = 1
    stratify = None
    if dataset.classes:
        purpose = "to have one on either side of the split"
        require_rows_per_class(dataset.y, 2, classes=dataset.classes, purpose=purpose)
        stratify = dataset.y.numpy()
        least = len(np.unique(stratify))
    if min(validating, dataset.rows - validating) < least:
        raise InputError(
            f"{dataset.name}: a validation fraction of {fraction} of {dataset.rows} rows leaves "
            f"{dataset.rows - validating} to train and {validating} to validate, at least {least} each needed"
        )
    train, validation = train_test_split(rows, test_size=validating, random_state=seed, stratify=stratify)
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(validation))
