"""The trainings of one call of `path`: what is trained, by which engine, and what an earlier run has kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import final

import torch

from torchshrink.errors import InputError, LanesWarning
from torchshrink.paths.engines.parallel import Work, finished
from torchshrink.paths.engines.planner import Plan, chunks
from torchshrink.paths.family import Family
from torchshrink.paths.folds import Fold, Splits
from torchshrink.paths.grid import MOST_PROBES, Grid, automatic_grid, null_losses
from torchshrink.paths.journal import Journal
from torchshrink.paths.outcome import Outcome, Unit
from torchshrink.paths.progress import Progress
from torchshrink.paths.recipe import WHOLE, Recipe
from torchshrink.support.randomness import seeded
from torchshrink.training import evaluating

PROBES = 1 + MOST_PROBES  # trainings in search of a grid, strength 0 among them, at most


@final
class Trainings:
    """The trainings of one call: each trained once, kept, and counted."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        compared: Sequence[Family],
        journal: Journal | None,
        progress: Progress,
        *,
        jobs: int = 1,
    ) -> None:
        self.recipe, self.folds, self.families = recipe, splits.first, compared
        self._every = splits.every
        self._jobs = jobs
        self._journal, self._progress = journal, progress
        self._alone: dict[Unit, Outcome] = {}
        self._together: dict[Unit, Outcome] = {}  # trained in stacks
        self._plans: list[Plan] = []

    def follow(self, plan: Plan, *, asked: bool) -> None:
        """Train the next family's table by this plan, and say so."""
        family = self.families[len(self._plans)].name
        self._plans.append(plan)
        if (plan.refused and asked) or plan.idle:
            warnings.warn(f"{family}: {plan}", LanesWarning, stacklevel=3)
        elif plan.refused or plan.engine == "lanes" or plan.hint or plan.jobs > 1:
            self._progress.say(f"{family}: {plan}")

    def outcomes(self, units: Sequence[Unit]) -> list[Outcome]:
        """What comes out of the units, each trained alone, in their order; only if they have not been before."""
        self._train([unit for unit in units if unit not in self._alone])
        return [self._alone[unit] for unit in units]

    def grid(self, family: int, count: int) -> Grid:
        """An automatic grid, probed on the first fold where no formula gives its top."""
        targets = self.recipe.y[self.folds[0].train.to(self.recipe.device)]

        def probe(strength: float) -> float:
            (outcome,) = self.outcomes([Unit(family, strength, 0)])
            return outcome.train_loss / self.recipe.target_scale.of_loss  # as trained on

        null_loss = null_losses(self.recipe.in_float64().loss, targets, targets, self._output_shape()).mean().item()
        before = len(self._alone)
        found = automatic_grid(self.recipe, self.families[family], count, null_loss=null_loss, probe=probe)
        self._progress.spare(PROBES - (len(self._alone) - before))
        return found

    def tables(self, grids: Sequence[Grid]) -> list[list[list[Outcome]]]:
        """Per family, per strength, per fold."""
        works: list[Work] = []
        for family, (plan, grid) in enumerate(zip(self._plans, grids, strict=True)):
            if plan.engine == "lanes":
                works += chunks(plan, self.recipe, dict(enumerate(self.folds)), family, grid.strengths)
            else:
                units = [Unit(family, strength, fold) for strength in grid.strengths for fold in range(len(self.folds))]
                works += [unit for unit in units if unit not in self._alone]
        table = sum(len(grid.strengths) * len(self.folds) for grid in grids)
        self._progress.spare(table - sum(len(_units(work)) for work in works))
        self._train(works)
        # Trained with others, a unit has other last bits than alone: what was trained in search of the grid stays out
        # of a stacked table, and the table depends on its own grid alone.
        found = self._alone | self._together
        return [
            [[found[Unit(family, strength, fold)] for fold in range(len(self.folds))] for strength in grid.strengths]
            for family, grid in enumerate(grids)
        ]

    def later(self, wanted: Mapping[int, Sequence[tuple[int, float]]]) -> dict[Unit, Outcome]:
        """What comes out of the trainings that later repeats need: of each fold, by its number, (family, strength)s.

        In lanes, the folds of one choice are a stack: their lanes are those strengths and no others.
        """
        works: list[Work] = []
        for family, plan in enumerate(self._plans):
            alike: dict[tuple[float, ...], dict[int, Fold]] = {}
            for number, pairs in wanted.items():
                strengths = tuple(sorted({strength for each, strength in pairs if each == family}))
                if strengths:
                    alike.setdefault(strengths, {})[number] = self._every[number]
            for strengths, folds in alike.items():
                if plan.engine == "lanes":
                    works += chunks(plan, self.recipe, folds, family, strengths)
                else:
                    works += [Unit(family, strength, fold) for strength in strengths for fold in folds]
        self._progress.remain(sum(len(_units(work)) for work in works))
        self._train(works)
        return self._alone | self._together

    def _train(self, works: Sequence[Work]) -> None:
        """Do what an earlier run has not done, and keep it; one after another where it cannot be stacked."""
        missing = []
        for work in works:
            known = self._known(work)
            if known is None:
                missing.append(work)
            else:
                self._take(work, known)
        refused: list[Unit] = []
        epochs = self.recipe.settings.epochs
        results = finished(
            missing,
            self.recipe,
            self._every,
            self.families,
            jobs=self._jobs,
            after_epoch=lambda lanes, alive, epoch: self._progress.stack(lanes, alive, epoch, epochs),
            advice=self._advice(),
        )
        with closing(results):
            for work, found in results:
                if isinstance(found, str):
                    self._progress.give_up()
                    name = self.families[_units(work)[0].family].name
                    warnings.warn(f"{name}: one training after another: {found}", LanesWarning, stacklevel=4)
                    refused += _units(work)
                    continue
                if self._journal is not None:
                    for unit, outcome in found.items():
                        self._journal.write(unit, outcome, _stack_name(work))
                self._take(work, found)
        if refused:
            self._progress.spare(sum(unit in self._alone for unit in refused))
            self.outcomes(refused)

    def _known(self, work: Work) -> dict[Unit, Outcome] | None:
        """What an earlier run has kept of this very work, if it is all there: else a stack is trained as a whole."""
        if self._journal is None:
            return None
        found = {unit: self._journal.read(unit, _stack_name(work)) for unit in _units(work)}
        return None if None in found.values() else {unit: each for unit, each in found.items() if each is not None}

    def _take(self, work: Work, found: Mapping[Unit, Outcome]) -> None:
        (self._alone if isinstance(work, Unit) else self._together).update(found)
        for unit, outcome in found.items():
            if unit.fold < len(self.folds):
                self._progress.done(unit, outcome)
            else:
                self._progress.aside(unit)

    def _advice(self) -> str:
        if self._journal is None:
            return "give a folder, in which every finished training is kept, and fewer jobs"
        return (
            f"what was finished is kept in {self._journal.folder}; run it again (on the command line with --resume) to "
            "go on from there, perhaps with fewer jobs"
        )

    def null_loss(self) -> float | None:
        """The validation loss of the best constant output, over all folds."""
        loss, y, shape = self.recipe.in_float64().loss, self.recipe.y, self._output_shape()
        try:
            parts = [null_losses(loss, y[fold.train], y[fold.validation], shape) for fold in self._on_device()]
        except (InputError, RuntimeError):
            return None  # it is a line in a picture; a loss that takes no constant output has none
        value = self.recipe.target_scale.of_loss * torch.cat(parts).mean()
        return value.item() if bool(value.isfinite()) else None

    def _on_device(self) -> list[Fold]:
        device = self.recipe.device
        return [Fold(fold.train.to(device), fold.validation.to(device)) for fold in self.folds]

    def _output_shape(self) -> tuple[int, ...]:
        with seeded(self.recipe.part_seed(WHOLE)), torch.no_grad(), evaluating(self.recipe.fresh()) as model:
            return tuple(model(self.recipe.X[:2]).shape[1:])


def _units(work: Work) -> tuple[Unit, ...]:
    return (work,) if isinstance(work, Unit) else work.units


def _stack_name(work: Work) -> str:
    return "" if isinstance(work, Unit) else work.name
