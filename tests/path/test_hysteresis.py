"""Whether the direction of a warm path matters: nothing where there is one minimum, said where there are several."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine

import torchshrink as ts
from torchshrink.models import mlp
from torchshrink.path.choose import make_point
from torchshrink.path.folds import Fold
from torchshrink.path.hysteresis import compare_ways, hysteresis_from_dict
from torchshrink.path.sequential import Outcome
from torchshrink.storage import read_tensors

SGD = partial(torch.optim.SGD, lr=0.5, momentum=0.9)


def logistic(order, **settings):
    X, y = load_breast_cancer(return_X_y=True)
    fixed = {"strengths": [1e-3, 1e-2, 5e-2], "folds": 3, "epochs": 150, "batch_size": 600, "progress": False}
    return ts.path(
        lambda: mlp(4, 2, hidden=()).double(),
        (X[:, [1, 4, 8, 9]], y),  # four of the columns, which no plane separates: strength 0 has a minimum, too
        ts.L1,
        optimizer=SGD,
        order=order,
        **(fixed | settings),
    )


@pytest.fixture(scope="module")
def convex():
    torch.set_num_threads(1)
    return logistic("cold"), logistic("warm", hysteresis=True)


@pytest.fixture(scope="module")
def dead():
    torch.set_num_threads(1)
    X, y = load_wine(return_X_y=True)
    return ts.path(
        lambda: mlp(13, 3, hidden=(6,)).double(),
        (X, y),
        ts.L1,
        strengths=[3e-3, 3e-2, 1.0],
        folds=3,
        epochs=60,
        batch_size=200,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        order="warm",
        hysteresis=True,
        progress=False,
    )


class TestConvex:
    def test_warm_and_cold_end_at_the_same_objective(self, convex):
        cold, warm = convex
        for one, other in zip(cold.points, warm.points, strict=True):
            assert other.train_loss == pytest.approx(one.train_loss, abs=1e-4)
            assert other.validation_loss == pytest.approx(one.validation_loss, abs=1e-4)
            assert other.nonzero == one.nonzero
        for strength in (1e-3, 5e-2):
            one, other = (each.refit(strength)[1].objective for each in convex)
            assert other == pytest.approx(one, abs=1e-6)

    def test_there_is_no_hysteresis(self, convex):
        found = convex[1].hysteresis
        assert not found.depends
        assert found.largest < 0.01
        assert found.words.startswith("the path does not depend on its direction")
        for point in found.points:
            assert point.down_objective == pytest.approx(point.up_objective, abs=1e-5)
            assert point.down_nonzero == point.up_nonzero

    def test_trainings_that_were_stopped_early_are_not_passed_off_as_other_minima(self):
        found = logistic("warm", hysteresis=True, epochs=2, strengths=[1e-3]).hysteresis
        assert found.depends
        assert found.points[0].down_objective < found.points[0].up_objective
        assert "or was too short, which more epochs tell" in found.words


class TestDeadNetwork:
    """At the sparse end all weights are zero, and so are all their gradients."""

    def test_hysteresis_is_found_and_said(self, dead):
        found = dead.hysteresis
        assert dead.points[-1].nonzero == 0
        assert found.depends
        assert found.largest > 10
        worst = next(point for point in found.points if point.strength == found.at)
        assert worst.down_nonzero == 0 < worst.up_nonzero
        assert worst.down_objective > worst.up_objective + 0.5
        assert found.words.startswith("the path depends on its direction: at 0.03 the mean validation loss is")
        assert "caught elsewhere" in found.words
        assert ", 0 back" in found.words
        assert "\n" not in found.words

    def test_the_up_values_are_the_points(self, dead):
        for both, point in zip(dead.hysteresis.points, dead.points, strict=True):
            assert (both.strength, both.up_validation_loss, both.up_nonzero) == (
                point.strength, point.validation_loss, point.nonzero,
            )  # fmt: skip
            if point.strength == 0:
                assert both.up_objective == pytest.approx(point.train_loss)
            else:
                assert both.up_objective > point.train_loss or point.nonzero == 0

    def test_at_the_turn_both_ways_are_one(self, dead):
        turn = dead.hysteresis.points[-1]
        assert turn.up_objective == turn.down_objective
        assert turn.standard_errors == 0

    def test_json_and_back(self, dead):
        plain = json.loads(json.dumps(dead.hysteresis.to_dict(), allow_nan=False))
        assert hysteresis_from_dict(plain) == dead.hysteresis
        assert hysteresis_from_dict(None) is None


def test_the_objective_is_loss_and_penalty(tmp_path):
    """From the weights that the journal keeps: the turn's, at the strongest."""
    X, y = load_wine(return_X_y=True)
    result = ts.path(
        lambda: mlp(13, 3, hidden=()).double(), (X, y), ts.L1, strengths=[0.01], folds=3, epochs=5, order="warm",
        progress=False, engine="sequential", folder=tmp_path, hysteresis=False,
    )  # fmt: skip
    for k in range(3):
        (path,) = (tmp_path / "journal").glob(f"0-{k}-0.01-*.safetensors")
        penalty = json.loads(read_tensors(path)[1]["outcome"])["penalty"]
        weights, _ = read_tensors(tmp_path / "journal" / f"{path.stem.split('-')[-1]}.weights")
        assert penalty == pytest.approx(0.01 * weights[f"{k}:output.weight"].abs().sum().item(), rel=1e-12)
    assert result.hysteresis is None


class TestByHand:
    FOLDS = (Fold(torch.arange(4, 8), torch.arange(4)), Fold(torch.arange(4), torch.arange(4, 8)))

    @staticmethod
    def outcome(value, *, nonzero=3, diverged=None, penalty=0.5):
        if diverged is not None:
            return Outcome(math.nan, torch.full((4,), math.nan), None, 0, diverged=diverged)
        return Outcome(value, torch.full((4,), value, dtype=torch.float64), None, nonzero, penalty=penalty)

    def compared(self, up, down):
        points = [make_point(float(k), row, self.FOLDS) for k, row in enumerate(up)]
        return compare_ways(points, up, down, self.FOLDS)

    def test_units_are_the_standard_errors_of_the_way_up(self):
        up = [[self.outcome(1.0), self.outcome(3.0)], [self.outcome(2.0), self.outcome(4.0)]]
        down = [[self.outcome(1.5), self.outcome(3.5)], [self.outcome(4.0), self.outcome(6.0, nonzero=5)]]
        found = self.compared(up, down)
        assert [point.standard_errors for point in found.points] == pytest.approx([0.5, 2.0])  # se: 2/2 = 1
        assert (found.largest, found.at, found.depends) == (pytest.approx(2.0), 1.0, True)
        assert found.points[0].up_objective == pytest.approx(2.5)
        assert "at 1: 3 up, 4 back" in found.words

    def test_less_than_a_standard_error_is_nothing(self):
        up, down = [[self.outcome(1.0), self.outcome(3.0)]], [[self.outcome(1.9), self.outcome(3.9)]]
        found = self.compared(up, down)
        assert not found.depends
        assert "at most 0.9 standard errors apart" in found.words

    def test_diverged_one_way_only_is_infinitely_far(self):
        sound, lost = [self.outcome(1.0), self.outcome(3.0)], [self.outcome(1.0), self.outcome(0.0, diverged=2)]
        found = self.compared([sound, sound], [sound, lost])
        assert found.largest == math.inf
        assert "diverged one way and not the other" in found.words
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert plain["largest"] is None
        assert hysteresis_from_dict(plain) == found

    def test_diverged_both_ways_is_no_difference(self):
        lost = [self.outcome(1.0), self.outcome(0.0, diverged=2)]
        sound = [self.outcome(1.0), self.outcome(3.0)]
        found = self.compared([sound, lost], [sound, lost])
        assert found.largest == 0
        assert not found.depends

    def test_equal_folds_have_no_standard_error_to_measure_with(self):
        same, other = [self.outcome(1.0), self.outcome(1.0)], [self.outcome(2.0), self.outcome(2.0)]
        assert self.compared([same], [same]).largest == 0
        found = self.compared([same], [other])
        assert np.isinf(found.largest)
        assert "diverged" not in found.words
