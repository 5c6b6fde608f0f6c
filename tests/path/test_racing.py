"""Dropping early: the rule by itself, on curves that mislead, and inside a path."""

import io
import json
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import nn

import torchshrink as ts
from torchshrink.cli.tables import points_table
from torchshrink.errors import InputError
from torchshrink.models import mlp
from torchshrink.path import LanesWarning, load_path
from torchshrink.path.family import families
from torchshrink.path.folds import Fold, make_folds
from torchshrink.path.lanes import Stack
from torchshrink.path.racing import NEIGHBOURS, Race, looks_of
from torchshrink.path.recipe import prepare
from torchshrink.path.sequential import Unit, train_units
from torchshrink.selection import WEIGHTS

FOLDS = {k: Fold(torch.arange(80), torch.arange(20 * k, 20 * k + 20)) for k in range(5)}
STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def losses(curve, *, own=0.02, luck=0.0, seed=0):
    """Rows whose difficulty all strengths share (S, 100), around a mean loss for each strength."""
    generator = np.random.default_rng(seed)
    curve = np.array(curve, dtype=np.float64)[:, None]
    rows = np.random.default_rng(0).normal(size=100) * 0.1
    of_folds = np.repeat(generator.normal(size=(len(curve), 5)) * luck, 20, axis=1)
    return curve + rows + generator.normal(size=(len(curve), 100)) * own + of_folds


def leaving(*curves, race=None, seed=0, **settings):
    """Who leaves at each look, by number, for mean losses per look."""
    race = race or Race(STRENGTHS, FOLDS, 60)
    left, gone = [], np.zeros(len(STRENGTHS), dtype=bool)
    for number, (epoch, curve) in enumerate(zip(race.looks, curves, strict=False)):
        now = np.where(gone[:, None], np.nan, losses(curve, seed=seed + number, **settings))
        leaves = race.look(epoch, now)
        gone |= leaves
        left.append(np.flatnonzero(leaves).tolist())
    return left


FLAT = [0.5, 0.5, 0.5, 0.4, 0.5, 0.5, 0.9, 0.9]  # strength number 3 leads


class TestRule:
    def test_what_stays_behind_leaves_at_the_second_look(self):
        assert leaving(FLAT, FLAT, FLAT) == [[], [6, 7], []]

    def test_looks(self):
        assert looks_of(60) == (10, 20, 30, 40)
        assert looks_of(4) == (1, 2, 3)
        assert looks_of(1) == looks_of(2) == ()

    def test_neighbours_of_the_leader_and_strength_0_stay(self):
        curve = [0.9, 0.9, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9]
        assert leaving(curve, curve)[1] == [1, 2]  # 3, 4, 6 and 7 are within two of the leader

    def test_neighbours_are_those_of_the_leader_of_now(self):
        before = [0.4, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.9]
        now = [0.4, 0.9, 0.9, 0.9, 0.9, 0.9, 0.3, 0.9]
        assert leaving(before, now)[1] == [1, 2, 3]

    def test_what_still_learns_fast_enough_stays(self):
        # 20 of 60 epochs are done, and the last 10 gained 0.15: the 40 to come may gain 0.6 more.
        before = [*FLAT[:7], 0.98]
        assert leaving(before, [*FLAT[:7], 0.83])[1] == [6]
        assert leaving(before, [*FLAT[:7], 0.95])[1] == [6, 7]  # may gain 0.12, and is 0.55 behind

    def test_the_leader_is_credited_with_nothing_more(self):
        # All gain 0.15, so 6 and 7 stay as far behind; but if the leader stopped here, they might pass it.
        assert leaving([loss + 0.15 for loss in FLAT], FLAT)[1] == []

    def test_a_leader_that_gets_worse_is_expected_to_go_on(self):
        before = [0.7, 0.7, 0.7, 0.25, 0.7, 0.7, 0.9, 0.9]
        now = [0.7, 0.7, 0.7, 0.40, 0.7, 0.7, 0.9, 0.9]  # in 40 epochs more, 1.0
        assert leaving(before, now)[1] == []
        assert leaving(now, now)[1] == [6, 7]

    def test_what_was_not_behind_before_stays(self):
        before = [*FLAT[:7], 0.4]
        assert leaving(before, FLAT, FLAT) == [[], [6], [7]]

    def test_the_noise_of_the_rows_protects(self):
        close = [0.41, 0.41, 0.41, 0.4, 0.41, 0.41, 0.43, 0.43]
        assert leaving(close, close, own=0.002)[1] == [6, 7]
        assert leaving(close, close, own=0.2)[1] == []

    def test_the_luck_of_the_trainings_protects_however_calm_the_rows(self):
        assert leaving(FLAT, FLAT, own=0.001, luck=0.01)[1] == [6, 7]
        assert leaving(FLAT, FLAT, own=0.001, luck=0.6)[1] == []

    def test_folds_that_share_training_rows_need_more_evidence(self):
        means = np.repeat(1.6 + np.array([-1.0, -1.0, 0.0, 1.0, 1.0]), 20)[None]  # t = 3.6, or 2.4 with the correction
        shared = {k: Fold(torch.arange(80), fold.validation) for k, fold in FOLDS.items()}
        apart = {k: Fold(torch.arange(10**6), fold.validation) for k, fold in FOLDS.items()}
        assert not Race(STRENGTHS, shared, 60)._above_zero(means).any()
        assert Race(STRENGTHS, apart, 60)._above_zero(means).all()

    def test_more_strengths_need_more_evidence(self):
        rows = np.tile([-1.0, 1.0], 50)[None]  # without luck: the folds' means are equal
        few, many = Race(STRENGTHS[:2], FOLDS, 60), Race(tuple(float(k) for k in range(1000)), FOLDS, 60)
        assert few._above_zero(rows + 0.3).all()
        assert not many._above_zero(rows + 0.3).any()

    def test_one_fold_says_nothing_of_luck(self):
        race = Race(STRENGTHS, {0: Fold(torch.arange(80), torch.arange(100))}, 60)
        assert leaving(FLAT, FLAT, race=race)[1] == []

    def test_what_diverged_neither_leads_nor_leaves(self):
        race = Race(STRENGTHS, FOLDS, 60)
        for epoch in race.looks[:2]:
            now = losses(FLAT, seed=epoch)
            now[3, 5] = np.nan  # the leader, in one row
            now[6] = np.inf
            leaves = race.look(epoch, now)
        assert not leaves[[3, 6]].any()

    def test_of_equals_hardly_any_leaves(self):
        equal = [[0.5] * len(STRENGTHS)] * 4
        races = [leaving(*equal, seed=10 * k, own=0.05, luck=0.01) for k in range(200)]
        assert sum(any(race) for race in races) <= 10  # LEVEL, though any of eight counts here


def prepared(build, data, *, epochs, optimizer, batch_size=32, penalty=ts.L2, folds=5, seed=0):
    (family,) = families(penalty)
    recipe = prepare(
        build, data, [family], epochs=epochs, batch_size=batch_size, loss=None, optimizer=optimizer, seed=seed,
        device=None, on=WEIGHTS, method="auto",
    )  # fmt: skip
    return recipe, dict(enumerate(make_folds(recipe.y, folds, seed=0))), family


class Watched:
    """Nobody leaves; the losses at each look are kept."""

    def __init__(self, looks):
        self.looks, self.seen = looks, {}

    def look(self, epoch, losses):
        self.seen[epoch] = losses.copy()
        return np.zeros(len(losses), dtype=bool)


class Given:
    """Those listed leave after that epoch."""

    def __init__(self, leaves):
        self.looks, self._leaves = tuple(leaves), leaves

    def look(self, epoch, losses):
        leaves = np.zeros(len(losses), dtype=bool)
        leaves[self._leaves[epoch]] = True
        return leaves


class Far(nn.Module):
    """A linear model that begins far from the solution, which strong penalties leave sooner."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(10, 1).double()
        nn.init.constant_(self.linear.weight, 2.0)

    def forward(self, x):
        return self.linear(x).squeeze(1)


def far_data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(150, 10, generator=generator, dtype=torch.float64)
    w = torch.randn(10, generator=generator, dtype=torch.float64) / 10**0.5
    return X, X @ w + 0.7 * torch.randn(150, generator=generator, dtype=torch.float64)


class TestCurvesThatCross:
    """Strong penalties lead early, and a weak one wins: after half of the epochs the winner is significantly behind."""

    GRID = (0.0, *(float(s) for s in np.geomspace(0.003, 20, 25)))

    def test_a_naive_rule_drops_the_winner_and_this_one_does_not(self):
        settings = {"epochs": 60, "batch_size": 120, "optimizer": partial(torch.optim.SGD, lr=0.04)}
        recipe, folds, family = prepared(Far, far_data(), **settings)
        watched = Watched((*looks_of(60), 60))
        Stack(recipe, folds, family, self.GRID, race=watched).train()
        winner = int(watched.seen[60].mean(1).argmin())
        half = watched.seen[30]
        leader = int(half.mean(1).argmin())
        behind = [(each[winner] - each[leader]).mean() for each in np.split(half, 5, axis=1)]
        assert 0 < winner < leader - NEIGHBOURS  # protected by nothing but the rule's look ahead
        assert ttest_1samp(behind, 0, alternative="greater").pvalue < 0.005
        assert Race(self.GRID, folds, 60)._above_zero((half[winner] - half[leader])[None]).all()

        whole, raced = (
            ts.path(
                Far,
                far_data(),
                ts.L2,
                strengths=self.GRID,
                engine="lanes",
                progress=False,
                drop_early=drop,
                **settings,
            )
            for drop in (False, True)
        )
        assert whole.best.strength == raced.best.strength == self.GRID[winner]
        assert raced.best.validation_loss == pytest.approx(whole.best.validation_loss, rel=1e-12)
        assert any(point.dropped for point in raced.points)
        assert all(point.finished for point in raced.points[: leader + 1])


def chain():
    return mlp(16, 3, hidden=(6, 5)).double()


class Normed(nn.Module):
    """Without a bias that the normalisation takes out again: its gradient would be rounding, which Adam scales up."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Dropout(0.3)
        self.head = nn.Linear(12, 3)
        self.double()

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x.view(-1, 1, 4, 4)))).flatten(1)))


class Calm(Normed):
    def __init__(self):
        super().__init__()
        self.drop.p = 0.0


class Restless(nn.Module):
    """Draws numbers and counts its calls in evaluation mode too, and both show in what it returns."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3).double()
        self.register_buffer("calls", torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (1 + 0.01 * self.calls + random.random())


def classes(rows=60):
    X = torch.randn(rows, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return X, X[:, :3].argmax(1)


def weights(stack):
    """All that a lane has learned (F, S, n)."""
    return torch.cat([t.reshape(*stack.shape, -1) for t in (*stack.parameters.values(), *stack.own.values())], dim=2)


class TestCompaction:
    @pytest.mark.parametrize("penalty", [ts.L1, ts.L2, ts.GroupLasso])
    @pytest.mark.parametrize(
        "optimizer",
        [
            partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            partial(torch.optim.Adam, lr=0.02, amsgrad=True),
            partial(torch.optim.Adam, lr=0.02, fused=True),
            partial(torch.optim.NAdam, lr=0.02),
            torch.optim.Adagrad,
            torch.optim.RMSprop,
        ],
    )
    @pytest.mark.parametrize("build", [chain, Calm])
    def test_who_stays_ends_as_without_the_others(self, build, optimizer, penalty):
        recipe, folds, family = prepared(build, classes(), epochs=8, optimizer=optimizer, penalty=penalty, batch_size=9)
        stack = Stack(recipe, folds, family, (0.0, 1e-3, 1e-2, 0.1, 1.0), race=Given({2: [1], 5: [3, 4]}))
        alive = []
        stack.train(lambda epoch, lanes: alive.append(lanes))
        assert alive == [25, 20, 20, 20, 10, 10, 10, 10]
        alone = Stack(recipe, folds, family, (0.0, 1e-2))
        alone.train()
        assert stack.shape == alone.shape == (5, 2)
        torch.testing.assert_close(weights(stack), weights(alone), rtol=0, atol=1e-12)

    def test_memory_of_the_lanes_that_left_is_given_up(self):
        recipe, folds, family = prepared(chain, classes(), epochs=2, optimizer=torch.optim.Adam, batch_size=60)
        stack = Stack(recipe, folds, family, (0.0, 1e-2, 0.1), race=Given({1: [1]}))
        stack.train()
        assert {len(kept) for kept in stack._dense._memory.values()} <= {5, 5 * 2}  # folds, or lanes

    def test_an_optimizer_of_some_parameters(self):
        def few(parameters):
            return torch.optim.Adam(list(parameters)[:2], lr=0.02)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recipe, folds, family = prepared(
                chain, classes(), epochs=4, optimizer=few, penalty=lambda s: {"hidden1.weight": ts.L1(s)}
            )
        stack = Stack(recipe, folds, family, (0.0, 1e-2, 0.1), race=Given({2: [1]}))
        stack.train()
        alone = Stack(recipe, folds, family, (0.0, 0.1))
        alone.train()
        torch.testing.assert_close(weights(stack), weights(alone), rtol=0, atol=1e-12)

    def test_what_comes_out(self):
        recipe, folds, family = prepared(chain, classes(), epochs=4, optimizer=torch.optim.Adam)
        stack = Stack(recipe, folds, family, (0.0, 1e-2, 0.1), race=Given({2: [1]}))
        found = {Unit(0, s, fold): outcome for fold, s, outcome in stack.outcomes(stack.train())}
        assert len(found) == 15
        for unit, plain in train_units(recipe, list(folds.values()), [family], found):
            outcome = found[unit]
            assert outcome.finished is (unit.strength != 1e-2)
            if outcome.finished:
                torch.testing.assert_close(outcome.row_losses, plain.row_losses, rtol=1e-9, atol=1e-10)
                assert outcome.nonzero == plain.nonzero
            else:
                assert (outcome.dropped, outcome.diverged) == (2, None)
                assert outcome.row_losses.isnan().all()

    def test_a_strength_that_diverged_in_every_fold_leaves_too(self):
        recipe, folds, family = prepared(chain, classes(), epochs=12, optimizer=partial(torch.optim.SGD, lr=0.1))
        stack = Stack(recipe, folds, family, (0.0, 1e4, 1e-2))
        diverged = stack.train()
        assert stack.columns == [0, 2]
        alone = Stack(recipe, folds, family, (0.0, 1e-2))
        alone.train()
        torch.testing.assert_close(weights(stack), weights(alone), rtol=0, atol=1e-12)
        for fold, strength, outcome in stack.outcomes(diverged):
            assert (outcome.diverged is None) is (strength != 1e4)
            assert outcome.diverged is None or outcome.diverged == int(diverged[fold, 1])

    def test_where_all_diverge_it_ends(self):
        recipe, folds, family = prepared(chain, classes(), epochs=50, optimizer=partial(torch.optim.SGD, lr=0.1))
        stack, epochs = Stack(recipe, folds, family, (1e4, 1e5)), []
        diverged = stack.train(lambda epoch, alive: epochs.append((epoch, alive)))
        assert epochs[-1][1] == 0
        assert len(epochs) < 50
        assert all(outcome.diverged for _, _, outcome in stack.outcomes(diverged))


class TestLooks:
    @pytest.mark.parametrize(
        "build",
        [
            Normed,
            lambda: nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 3)).double(),
            Restless,
        ],
        ids=["batch normalisation", "chain", "restless"],
    )
    def test_change_no_bit(self, build):
        ends = []
        for looks in ((), (1, 2, 4)):
            recipe, folds, family = prepared(build, classes(), epochs=5, optimizer=torch.optim.Adam)
            watched = Watched(looks)
            stack = Stack(recipe, folds, family, (0.0, 1e-2), race=watched)
            stack.train()
            assert tuple(watched.seen) == looks
            ends.append(weights(stack))
        assert torch.equal(*ends)

    def test_show_the_rows_losses_as_they_are(self):
        recipe, folds, family = prepared(chain, classes(), epochs=3, optimizer=torch.optim.Adam)
        watched = Watched((3,))
        stack = Stack(recipe, folds, family, (0.0, 1e-2), race=watched)
        outcomes = {(fold, s): outcome for fold, s, outcome in stack.outcomes(stack.train())}
        for s, strength in enumerate((0.0, 1e-2)):
            ends = torch.cat([outcomes[fold, strength].row_losses for fold in folds])
            np.testing.assert_allclose(watched.seen[3][s], ends, rtol=1e-12)


def raced(**settings):
    """A path with three strengths that are dropped."""
    fixed = {"strengths": (1e-3, 1e-2, 0.1, 10.0, 20.0), "engine": "lanes", "progress": False, "drop_early": True}
    optimizer = partial(torch.optim.Adam, lr=0.02)
    return ts.path(chain, classes(300), ts.L2, epochs=12, optimizer=optimizer, **(fixed | settings))


class TestPath:
    def test_what_was_dropped_is_said_and_takes_no_part(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = raced()
        dropped = [point for point in result.points if point.dropped is not None]
        assert [point.strength for point in dropped] == [0.1, 10.0, 20.0]
        assert all(point.dropped in looks_of(12) and not point.diverged and not point.finished for point in dropped)
        assert result.best.finished
        assert result.one_se.finished
        assert result.losses[:, -3:].isnan().all()
        assert not result.losses[:, :-3].isnan().any()
        whole = raced(drop_early=False)
        assert result.best == whole.best
        np.testing.assert_allclose(result.losses[:, :-3], whole.losses[:, :-3], rtol=1e-9)

        result.save(tmp_path)
        assert load_path(tmp_path).points == result.points
        assert f"dropped after epoch {dropped[0].dropped}" in _table(result)
        result.report(tmp_path / "report.html")
        assert f"dropped after epoch {dropped[0].dropped}" in (tmp_path / "report.html").read_text()

    def test_files_from_before_are_read(self, tmp_path):
        raced(drop_early=False).save(tmp_path)
        saved = json.loads((tmp_path / "path.json").read_text())
        for point in saved["points"]:
            for fold in point["folds"]:
                assert fold.pop("dropped") is None
        (tmp_path / "path.json").write_text(json.dumps(saved))
        assert all(point.finished for point in load_path(tmp_path).points)

    def test_goes_on_where_it_was_and_with_no_others(self, tmp_path):
        first = raced(folder=tmp_path)
        kept = sorted((tmp_path / "journal").iterdir())
        before = [(each, each.stat().st_mtime_ns) for each in kept]
        again = raced(folder=tmp_path)
        assert [(each, each.stat().st_mtime_ns) for each in kept] == before
        assert again.points == first.points
        assert torch.equal(again.losses, first.losses) or torch.equal(again.losses.isnan(), first.losses.isnan())
        with pytest.raises(InputError, match="drop_early was True"):
            raced(folder=tmp_path, drop_early=False)

    def test_without_lanes_it_says_that_it_has_no_effect(self):
        with pytest.warns(
            LanesWarning, match=r"^l2: drop_early has no effect, as it needs lanes: one training"
        ) as said:
            result = raced(engine="sequential", strengths=(1e-2, 10.0))
        assert len(said) == 1
        assert "\n" not in str(said[0].message)
        assert all(point.finished for point in result.points)


def _table(result):
    from rich.console import Console

    console = Console(width=200, file=io.StringIO())
    console.print(points_table(result))
    return console.file.getvalue()
