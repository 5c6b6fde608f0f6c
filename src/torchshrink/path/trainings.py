"""The trainings of one call of `path`: what is trained, by which engine, and what an earlier run has kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import final

import torch

from torchshrink.errors import InputError
from torchshrink.path.family import Family
from torchshrink.path.folds import Fold
from torchshrink.path.grid import Grid, automatic_grid, null_losses
from torchshrink.path.journal import Journal
from torchshrink.path.lanes import CANNOT_STACK, LanesWarning, Stack
from torchshrink.path.plan import Chunk, Plan, chunks
from torchshrink.path.progress import Progress
from torchshrink.path.racing import Race
from torchshrink.path.recipe import WHOLE, Recipe
from torchshrink.path.sequential import Outcome, Unit, train_units
from torchshrink.randomness import seeded
from torchshrink.storage import brief
from torchshrink.training import evaluating


@final
class Trainings:
    """The trainings of one call: each trained once, kept, and counted."""

    def __init__(
        self,
        recipe: Recipe,
        folds: Sequence[Fold],
        compared: Sequence[Family],
        journal: Journal | None,
        progress: Progress,
        *,
        drop_early: bool = False,
    ) -> None:
        self.recipe, self.folds, self.families = recipe, folds, compared
        self._drop_early = drop_early
        self._journal, self._progress = journal, progress
        self._outcomes: dict[Unit, Outcome] = {}
        self._plans: list[Plan] = []

    def follow(self, plan: Plan, *, asked: bool) -> None:
        """Train the next family's table by this plan, and say so."""
        family = self.families[len(self._plans)].name
        self._plans.append(plan)
        if plan.engine == "sequential" and self._drop_early:
            warnings.warn(f"{family}: drop_early has no effect, as it needs lanes: {plan}", LanesWarning, stacklevel=3)
        elif plan.refused and asked:
            warnings.warn(f"{family}: {plan}", LanesWarning, stacklevel=3)
        elif plan.refused or plan.engine == "lanes":
            self._progress.say(f"{family}: {plan}")

    def outcomes(self, units: Sequence[Unit]) -> list[Outcome]:
        """What comes out of the units, trained one after another, in their order; only if they have not been before."""
        wanted = [unit for unit in units if unit not in self._outcomes]
        self._progress.expect(len(wanted))
        missing = []
        for unit in wanted:
            known = None if self._journal is None else self._journal.read(unit)
            if known is None:
                missing.append(unit)
            else:
                self._take(unit, known)
        for unit, outcome in train_units(self.recipe, self.folds, self.families, missing):
            if self._journal is not None:
                self._journal.write(unit, outcome)
            self._take(unit, outcome)
        return [self._outcomes[unit] for unit in units]

    def _take(self, unit: Unit, outcome: Outcome) -> None:
        self._outcomes[unit] = outcome
        self._progress.done(unit, outcome)

    def grid(self, family: int, count: int) -> Grid:
        """An automatic grid, probed on the first fold where no formula gives its top."""
        targets = self.recipe.y[self.folds[0].train.to(self.recipe.device)]

        def probe(strength: float) -> float:
            (outcome,) = self.outcomes([Unit(family, strength, 0)])
            return outcome.train_loss

        null_loss = null_losses(self.recipe.in_float64().loss, targets, targets, self._output_shape()).mean().item()
        return automatic_grid(self.recipe, self.families[family], count, null_loss=null_loss, probe=probe)

    def tables(self, grids: Sequence[Grid]) -> list[list[list[Outcome]]]:
        """Per family, per strength, per fold."""
        stacks = {
            family: chunks(plan, self.recipe, self.folds, family, grids[family].strengths, drop_early=self._drop_early)
            for family, plan in enumerate(self._plans)
            if plan.engine == "lanes"
        }
        self._progress.expect(sum(len(chunk.units) for each in stacks.values() for chunk in each))
        tables = []
        for family, grid in enumerate(grids):
            units = [Unit(family, strength, fold) for strength in grid.strengths for fold in range(len(self.folds))]
            if family in stacks:
                # Trained with others, a unit has other last bits than alone: what was trained in search of the grid
                # stays out of the table, and the table depends on its own grid alone.
                together = {unit: each for chunk in stacks[family] for unit, each in self._stacked(chunk).items()}
                found = iter([together[unit] for unit in units])
            else:
                found = iter(self.outcomes(units))
            tables.append([[next(found) for _ in self.folds] for _ in grid.strengths])
        return tables

    def _stacked(self, chunk: Chunk) -> dict[Unit, Outcome]:
        """What comes out of one stack's trainings; all of them are trained again where one of them is not known."""
        known = self._known(chunk)
        if known is not None:
            for unit, outcome in known.items():
                self._progress.done(unit, outcome)
            return known
        epochs, lanes = self.recipe.epochs, len(chunk.units)
        folds = {number: self.folds[number] for number in chunk.folds}
        try:
            family, race = self.families[chunk.family], None
            if chunk.drop_early:
                race = Race(chunk.strengths, folds, epochs)
            stack = Stack(self.recipe, folds, family, chunk.strengths, compiled=chunk.compiled, race=race)
            diverged = stack.train(lambda epoch, alive: self._progress.stack(lanes, alive, epoch, epochs))
            found = {Unit(chunk.family, s, fold): outcome for fold, s, outcome in stack.outcomes(diverged)}
        except CANNOT_STACK as error:
            self._progress.give_up()
            self._progress.expect(-lanes)
            name = self.families[chunk.family].name
            warnings.warn(f"{name}: one training after another: {brief(error)}", LanesWarning, stacklevel=4)
            return dict(zip(chunk.units, self.outcomes(chunk.units), strict=True))
        for unit, outcome in found.items():
            if self._journal is not None:
                self._journal.write(unit, outcome, chunk.name)
            self._progress.done(unit, outcome)
        return found

    def _known(self, chunk: Chunk) -> dict[Unit, Outcome] | None:
        """What an earlier run has kept of this very stack, if it is all there."""
        if self._journal is None:
            return None
        found = {unit: self._journal.read(unit, chunk.name) for unit in chunk.units}
        return None if None in found.values() else {unit: each for unit, each in found.items() if each is not None}

    def null_loss(self) -> float | None:
        """The validation loss of the best constant output, over all folds."""
        loss, y, shape = self.recipe.in_float64().loss, self.recipe.y, self._output_shape()
        try:
            parts = [null_losses(loss, y[fold.train], y[fold.validation], shape) for fold in self._on_device()]
        except (InputError, RuntimeError):
            return None  # it is a line in a picture; a loss that takes no constant output has none
        value = torch.cat(parts).mean()
        return value.item() if bool(value.isfinite()) else None

    def _on_device(self) -> list[Fold]:
        device = self.recipe.device
        return [Fold(fold.train.to(device), fold.validation.to(device)) for fold in self.folds]

    def _output_shape(self) -> tuple[int, ...]:
        with seeded(self.recipe.part_seed(WHOLE)), torch.no_grad(), evaluating(self.recipe.fresh()) as model:
            return tuple(model(self.recipe.X[:2]).shape[1:])
