"""Rows dealt out to folds at random: the draws of scikit-learn's ``KFold`` and ``StratifiedKFold``, shuffled.

Written out, and held to scikit-learn's by the tests, since loading that takes longer than many a path.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def dealt(rows: int, folds: int, *, seed: int) -> Rows:
    """For each row (n,) the fold that holds it out; the folds' sizes differ by one at most.

    >>> dealt(5, 2, seed=0)
    array([0, 0, 0, 1, 1])
    """
    order = np.arange(rows)
    np.random.RandomState(seed).shuffle(order)
    fold_of = np.empty(rows, dtype=np.int64)
    fold_of[order] = np.repeat(np.arange(folds), [len(part) for part in np.array_split(order, folds)])
    return fold_of


def dealt_by_class(codes: Rows, folds: int, *, seed: int) -> Rows:
    """For each row (n,) the fold that holds it out, with each class's share of it.

    Args:
        codes: (n,), each row's class.
        folds: how many.
        seed: decides the draw.
    """
    _, first, of_row = np.unique(codes, return_index=True, return_inverse=True)
    classes = np.argsort(np.argsort(first))[of_row]  # numbered as they come
    ordered, random = np.sort(classes), np.random.RandomState(seed)
    # Every k-th of the ordered rows: what of each class goes to a fold, its size and its share as even as can be.
    shares = np.stack([np.bincount(ordered[fold::folds], minlength=len(first)) for fold in range(folds)])
    fold_of = np.empty(len(codes), dtype=np.int64)
    for each in range(len(first)):
        of_class = np.repeat(np.arange(folds), shares[:, each])
        random.shuffle(of_class)
        fold_of[classes == each] = of_class
    return fold_of
