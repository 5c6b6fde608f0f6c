"""Folds are scikit-learn's, without it."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedKFold

from torchshrink.paths.dealing import dealt, dealt_by_class

seeds = st.integers(0, 2**32 - 1)


@given(rows=st.integers(2, 60), folds=st.integers(2, 12), seed=seeds)
def test_rows_are_dealt_as_kfold_deals_them(rows, folds, seed):
    folds = min(folds, rows)
    fold_of = dealt(rows, folds, seed=seed)
    for fold, (_, held_out) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(np.empty(rows))):
        assert np.array_equal(np.flatnonzero(fold_of == fold), held_out)


@pytest.mark.filterwarnings("ignore:The least populated class")
@given(codes=st.lists(st.integers(-2, 3), min_size=4, max_size=60), folds=st.integers(2, 6), seed=seeds)
def test_classes_are_dealt_as_stratified_kfold_deals_them(codes, folds, seed):
    y = np.array(codes)
    folds = min(folds, int(np.unique(y, return_counts=True)[1].max()))
    if folds < 2:
        return
    fold_of = dealt_by_class(y, folds, seed=seed)
    theirs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.empty(len(y)), y)
    for fold, (_, held_out) in enumerate(theirs):
        assert np.array_equal(np.flatnonzero(fold_of == fold), held_out)


FIRST_PATH = """
import sys, torch, torchshrink as ts
from torch import nn
build = lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
data = torch.rand(30, 4), torch.arange(30) % 2
ts.path(build, data, ts.L1, strengths=2, folds=2, epochs=1, repeats=1, progress=False)
print(*sorted({name.partition(".")[0] for name in sys.modules} | {n for n in sys.modules if n.startswith("scipy.")}))
"""


def test_a_first_path_loads_nothing_that_it_does_not_need():
    """Each of these takes up to a second. The compiler is there, since an optimizer's first step loads it in torch."""
    loaded = subprocess.run(
        [sys.executable, "-c", FIRST_PATH], capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()
    unneeded = {"sklearn", "pandas", "matplotlib", "rich", "narwhals", "pyarrow", "IPython", "scipy.stats"}
    assert "torchshrink" in loaded
    assert "scipy.special" in loaded  # the verdict's quantiles
    assert unneeded.isdisjoint(loaded)
