import numpy as np
import pytest
import torch
from sklearn.model_selection import RepeatedKFold, ShuffleSplit

from torchshrink.errors import InputError
from torchshrink.paths.folds import make_folds

CLASSES = torch.tensor([0] * 30 + [1] * 12 + [2] * 6)


def test_each_row_is_held_out_once_and_never_trained_on_there():
    folds = make_folds(CLASSES, 4, seed=0)
    assert torch.cat([fold.validation for fold in folds]).sort().values.tolist() == list(range(48))
    for fold in folds:
        assert sorted(fold.train.tolist() + fold.validation.tolist()) == list(range(48))


def test_classes_are_spread_evenly():
    for fold in make_folds(CLASSES, 3, seed=5):
        assert CLASSES[fold.validation].bincount().tolist() == [10, 4, 2]


def test_numbers_are_drawn_at_random_and_by_the_seed():
    y = torch.arange(20.0)
    once, again, other = (make_folds(y, 4, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a.validation, b.validation) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a.validation, b.validation) for a, b in zip(once, other, strict=True))
    assert once[0].validation.tolist() != [0, 1, 2, 3, 4]


def test_given_rows_are_held_out_and_all_others_trained_on():
    first, second = make_folds(torch.zeros(6), [[4, 0], np.array([1])], seed=0)
    assert first.validation.tolist() == [0, 4]
    assert first.train.tolist() == [1, 2, 3, 5]
    assert second.train.tolist() == [0, 2, 3, 4, 5]


def test_given_pairs_are_taken_as_they_are():
    (first, second) = make_folds(torch.zeros(6), [([1, 0], [4, 3]), (np.array([3]), torch.tensor([5]))], seed=0)
    assert (first.train.tolist(), first.validation.tolist()) == ([0, 1], [3, 4])
    assert (second.train.tolist(), second.validation.tolist()) == ([3], [5])


def test_two_row_numbers_in_a_tuple_are_rows_and_no_pair():
    first, _ = make_folds(torch.zeros(6), [(1, 2), (3, 4)], seed=0)
    assert first.validation.tolist() == [1, 2]
    assert first.train.tolist() == [0, 3, 4, 5]


class Bootstrap:
    def split(self, X, y):
        yield [0, 0, 1], [2, 3]


@pytest.mark.parametrize("splitter", [RepeatedKFold(n_splits=2, n_repeats=3), ShuffleSplit(4, test_size=0.5)])
def test_folds_of_a_splitter_may_overlap(splitter):
    folds = make_folds(torch.zeros(12), splitter, seed=0)
    held_out = torch.cat([fold.validation for fold in folds])
    assert len(held_out.unique()) < len(held_out)


@pytest.mark.parametrize(
    ("y", "folds", "message"),
    [
        (CLASSES, 1, "at least 2"),
        (CLASSES, 0, "at least 2"),
        (CLASSES, True, "a number expected"),
        (CLASSES, 49, "only 48 rows"),
        (CLASSES, 7, "only 6 rows of class 2"),
        (CLASSES, "5", "a number expected"),
        (CLASSES, 2.0, "a number expected"),
        (CLASSES, [], "none given"),
        (CLASSES, [list(range(30))], "holds out class 0, of which it trains on no row"),
        (CLASSES, [[0, 1], [48]], "0 to 47 expected"),
        (CLASSES, [[0, 1], [-1]], "0 to 47 expected"),
        (CLASSES, [[0, 1], []], r"folds\[1\]"),
        (CLASSES, [[0.5], [1]], r"folds\[0\]: torch.float32"),
        (CLASSES, [["a"], [1]], "row numbers expected"),
        (CLASSES, [([0, 1], [1, 2]), ([0], [3])], "both trained on and held out"),
        (torch.zeros(3), [[0, 1, 2], [0]], "none to train on"),
        (
            CLASSES,
            [CLASSES == 0, CLASSES == 1],
            r"folds\[0\]: a mask of shape \(48,\) given.*: mask.nonzero\(\)\[:, 0\]",
        ),
        (CLASSES, [(CLASSES != 0).numpy()], r"folds\[0\]: a mask .*: np.flatnonzero\(mask\)"),
        (CLASSES, [(CLASSES.numpy() != 0, [1])], r"folds\[0\]\[0\]: a mask"),
        (CLASSES, CLASSES == 0, r"folds: a mask given.*: mask.nonzero"),
        (CLASSES, [[0, 1], [4, 5, 7, 5, 4]], r"folds\[1\]: row 4 is given twice"),
        (CLASSES, [([0, 1, 2, 1], [3])], r"folds\[0\]\[0\]: row 1 is given twice"),
        (CLASSES, [([0, 1], [3]), ([0, 1], [3, 3])], r"folds\[1\]\[1\]: row 3 is given twice"),
        (CLASSES, Bootstrap(), r"folds\[0\]\[0\]: row 0 is given twice"),
        (CLASSES, [([], [3])], r"folds\[0\]\[0\]: none given"),
    ],
)
def test_what_is_no_fold_is_refused_in_one_line(y, folds, message):
    with pytest.raises(InputError, match=message) as raised:
        make_folds(y, folds, seed=0)
    assert "\n" not in str(raised.value)
