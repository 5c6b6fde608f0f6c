import json
import math

import pytest
import torch

from torchshrink.paths.folds import Fold
from torchshrink.paths.statistics.points import least, make_point, one_standard_error, point_from_dict
from torchshrink.paths.training_result import TrainingResult

FOLDS = [
    Fold(torch.arange(4, 10), torch.arange(0, 4)),
    Fold(torch.arange(0, 8), torch.arange(8, 10)),
    Fold(torch.arange(0, 6), torch.arange(4, 8)),
]


def outcome(losses, train=0.5, accuracy=0.5, nonzero=3, diverged=None):
    return TrainingResult(train, torch.tensor(losses, dtype=torch.float64), accuracy, nonzero, diverged)


def point(strength, means):
    """A point whose folds of 4, 2 and 4 rows have these means."""
    rows = [[mean] * len(fold.validation) for mean, fold in zip(means, FOLDS, strict=True)]
    return make_point(strength, [outcome(losses) for losses in rows], FOLDS)


def test_means_weigh_each_fold_by_its_rows():
    made = make_point(
        0.1,
        [
            outcome([1.0, 2.0, 3.0, 4.0], train=1.0, accuracy=0.25, nonzero=1),
            outcome([5.0, 5.0], train=2.0, accuracy=0.5, nonzero=2),
            outcome([0.0, 0.0, 0.0, 10.0], train=3.0, accuracy=1.0, nonzero=6),
        ],
        FOLDS,
    )
    assert made.validation_loss == pytest.approx((10 + 10 + 10) / 10)  # the mean over all rows
    assert made.train_loss == pytest.approx((6 * 1 + 8 * 2 + 6 * 3) / 20)
    assert made.gap == pytest.approx(3.0 - 2.0)
    assert made.accuracy == pytest.approx((4 * 0.25 + 2 * 0.5 + 4 * 1.0) / 10)
    assert made.nonzero == 3
    assert [fold.validation_loss for fold in made.folds] == [2.5, 5.0, 2.5]


def test_the_standard_error_is_glmnets():
    # By hand: weights .4 .2 .4, mean .4 + .4 + 1.6 = 2.4; deviations -1.4 -.4 1.6, weighted squares .784 .032 1.024.
    assert point(0.1, [1.0, 2.0, 4.0]).validation_se == pytest.approx(math.sqrt((0.784 + 0.032 + 1.024) / 2))


def test_the_standard_error_of_one_split_is_over_its_rows():
    losses = [1.0, 2.0, 4.0, 5.0]
    made = make_point(0.1, [outcome(losses)], FOLDS[:1])
    assert made.validation_loss == pytest.approx(3.0)
    assert made.validation_se == pytest.approx(torch.tensor(losses).std().item() / 2)
    assert make_point(0.1, [outcome([3.0])], [Fold(torch.arange(1, 4), torch.arange(1))]).validation_se == 0.0


def test_best_is_the_least_and_of_equals_the_strongest():
    points = [point(s, [m, m, m]) for s, m in ((0.0, 3.0), (0.1, 2.0), (0.2, 2.0), (0.4, 2.5))]
    assert least(points).strength == 0.2


def test_one_se_is_the_strongest_within_one_error_of_the_best():
    best = point(0.1, [1.0, 2.0, 4.0])  # 2.4 ± 0.959
    rest = [point(s, [m, m, m]) for s, m in ((0.0, 5.0), (0.2, 3.2), (0.3, 3.4), (0.4, 3.3))]
    assert one_standard_error([best, *rest]).strength == 0.4
    assert one_standard_error([best, *rest[:3]]).strength == 0.2


def test_a_diverged_point_is_left_out():
    bad = make_point(0.5, [outcome([1.0] * 4), outcome([math.nan] * 2, diverged=3), outcome([1.0] * 4)], FOLDS)
    good = point(0.1, [2.0, 2.0, 2.0])
    assert bad.diverged
    assert bad.validation_loss == math.inf
    assert bad.nonzero == 3
    assert least([bad, good]) is good
    assert one_standard_error([bad, good]) is good


def test_a_point_survives_json():
    for made in (
        point(0.1, [1.0, 2.0, 4.0]),
        make_point(0.5, [outcome([math.nan] * n, diverged=1) for n in (4, 2, 4)], FOLDS),
    ):
        assert point_from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made
