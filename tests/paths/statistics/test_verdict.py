import json
import time

import numpy as np
import pytest
from scipy import stats

from torchshrink.paths.statistics.verdict import bootstrap, judge, over_folds, verdict_from_dict

WORDS = ("it helps", "it does not")


def verdict(losses, fold, **settings):
    return judge(losses, losses[:, :1], fold, seed=0, words=WORDS, **settings)


def noise(seed, rows=200, columns=20, folds=5):
    """No column is better than the first, each has luck of its own, and the best of them looks better."""
    generator = np.random.default_rng(seed)
    return generator.normal(1.0, 0.3, size=(rows, columns)), np.arange(rows) % folds


def test_a_real_effect_is_found_and_its_size():
    generator = np.random.default_rng(0)
    hard = generator.exponential(size=(500, 1))
    losses = hard + generator.normal(0, 0.1, size=(500, 6)) + np.array([0, 0.1, -0.1, -0.2, 0, 0.3])
    found = verdict(losses, np.arange(500) % 5)
    assert found.helps
    assert found.difference == pytest.approx(-0.2, abs=0.02)
    assert found.interval[0] < -0.2 < found.interval[1] < 0
    assert found.words.startswith("it helps: the loss on unseen rows changes by -0.2")


def test_luck_alone_is_not_claimed_as_a_benefit():
    naive, claimed = 0, 0
    for seed in range(100):
        losses, fold = noise(seed)
        claimed += verdict(losses, fold, resamples=200).helps
        best = losses.mean(0).argmin()
        naive += stats.ttest_rel(losses[:, best], losses[:, 0]).pvalue < 0.05
    assert naive > 10  # the winner's curse: the best of 20, tested on the rows that chose it
    assert claimed <= 5


def test_the_luck_of_a_training_is_not_claimed_however_many_the_rows():
    by_rows, claimed = 0, 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        fold = np.arange(5000) % 5
        luck = generator.normal(0, 0.02, size=(5, 12))  # one draw per training, shared by all its rows
        losses = generator.normal(1, 0.1, size=(5000, 1)) + luck[fold] + generator.normal(0, 0.01, size=(5000, 12))
        found = verdict(losses, fold, resamples=200)
        by_rows += found.by_rows[1] < 0
        claimed += found.helps
    assert by_rows > 10  # rows alone would be fooled
    assert claimed <= 2


def test_the_bootstrap_is_the_plain_loop():
    losses, fold = noise(1, rows=30, columns=4, folds=3)
    gained = bootstrap(losses, losses[:, :1], fold, seed=3, resamples=50)
    order = np.argsort(fold, kind="stable")
    generator = np.random.default_rng(3)
    draws = np.concatenate([generator.integers(10, size=(50, 10)) + 10 * k for k in range(3)], axis=1)
    for gain, draw in zip(gained, draws, strict=True):
        drawn, left_out = order[draw], np.setdiff1d(order, order[draw])
        chosen = losses[drawn].mean(0).argmin()
        assert gain == pytest.approx((losses[left_out, chosen] - losses[left_out, 0]).mean(), abs=1e-12)


def test_the_folds_interval_is_the_corrected_t_interval_of_nested_choices():
    losses, fold = noise(2, rows=50)
    gains = []
    for k in range(5):
        chosen = losses[fold != k].mean(0).argmin()
        gains.append((losses[fold == k, chosen] - losses[fold == k, 0]).mean())
    low, high = stats.t.interval(0.9, 4, np.mean(gains), np.std(gains, ddof=1) * np.sqrt(1 / 5 + 1 / 4))
    assert over_folds(losses, losses[:, :1], fold, level=0.9) == pytest.approx((low, high))


def test_the_interval_covers_both():
    losses, fold = noise(3)
    found = verdict(losses, fold)
    assert found.interval == (
        min(found.by_rows[0], found.by_folds[0]),
        max(found.by_rows[1], found.by_folds[1]),
    )


def test_strength_0_alone_gains_nothing():
    losses, fold = noise(4, columns=1)
    found = verdict(losses, fold)
    assert (found.helps, found.difference, found.interval) == (False, 0.0, (0.0, 0.0))


def test_diverged_columns_are_left_out_and_a_diverged_baseline_is_said():
    losses, fold = noise(5)
    losses[:, 3] = np.nan
    assert verdict(losses, fold) == verdict(np.delete(losses, 3, axis=1), fold)
    losses[:, 0] = np.nan
    found = verdict(losses, fold)
    assert not found.helps
    assert found.interval is None
    assert "nothing to compare" in found.words


def test_two_rows_are_no_evidence():
    assert not verdict(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).helps


def test_same_seed_same_bits_and_json():
    losses, fold = noise(6)
    found = verdict(losses, fold)
    assert found == verdict(losses, fold)
    assert verdict_from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_many_rows_take_seconds():
    losses = np.random.default_rng(0).random((20_000, 33))
    start = time.perf_counter()
    verdict(losses, np.arange(20_000) % 5)
    assert time.perf_counter() - start < 20
