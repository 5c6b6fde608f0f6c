"""Cold paths: every training starts from initial weights, so that all of a call's can be done in any order."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import final

import torch
from torch import Tensor

from torchshrink.errors import InputError, LanesWarning
from torchshrink.paths.engines.optimum import OptimumTask
from torchshrink.paths.engines.parallel import Task, run_tasks
from torchshrink.paths.engines.planner import Plan, stack_tasks
from torchshrink.paths.engines.training_store import TrainingStore
from torchshrink.paths.folds import Fold, Splits
from torchshrink.paths.grid import MOST_PROBES, Grid, automatic_grid
from torchshrink.paths.null_model import NullLoss, losses_of, null_losses, null_output
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.paths.training_spec import WHOLE, TrainingSpec
from torchshrink.support.randomness import seeded
from torchshrink.training import evaluating

PROBES = 1 + MOST_PROBES  # trainings in search of a grid, strength 0 among them, at most


@final
class Trainings:
    """The trainings of one call: each trained once, kept, and counted."""

    def __init__(
        self,
        spec: TrainingSpec,
        splits: Splits,
        compared: Sequence[PenaltyFamily],
        store: TrainingStore,
        *,
        jobs: int = 1,
    ) -> None:
        self.spec, self.folds, self.families = spec, splits.first, compared
        self._every = splits.every
        self._jobs = jobs
        self._store, self._progress = store, store.progress
        self._alone: dict[TrainingKey, TrainingResult] = {}
        self._together: dict[TrainingKey, TrainingResult] = {}  # trained in stacks
        self._plans: list[Plan] = []

    def follow(self, plan: Plan, *, asked: bool) -> None:
        """Train the next family's table by this plan, and say so."""
        family = self.families[len(self._plans)].name
        self._plans.append(plan)
        if (plan.refused and asked) or plan.idle:
            warnings.warn(f"{family}: {plan}", LanesWarning, stacklevel=3)
        elif plan.refused or plan.engine != "sequential" or plan.hint or plan.jobs > 1:
            self._progress.say(f"{family}: {plan}")

    def train_alone(self, keys: Sequence[TrainingKey]) -> list[TrainingResult]:
        """What comes out of these, each trained alone, in their order; only if they have not been before."""
        self._train([key for key in keys if key not in self._alone])
        return [self._alone[key] for key in keys]

    def grid(self, family: int, count: int) -> Grid:
        """An automatic grid, probed on the first fold where no formula gives its top."""
        targets = self.spec.y[self.folds[0].train.to(self.spec.device)]

        probed: set[float] = set()

        def probe(strength: float) -> float:
            key = TrainingKey(family, strength, 0)
            if self.spec.solved:
                self._train([OptimumTask(family, 0, (strength,))])
                result = self._together[key]
            else:
                (result,) = self.train_alone([key])
            probed.add(strength)
            return result.train_loss / self.spec.target_scale.of_loss  # as trained on

        null_loss = null_losses(self.spec.in_float64().loss, targets, targets, self._output_shape()).mean().item()
        found = automatic_grid(self.spec, self.families[family], count, null_loss=null_loss, probe=probe)
        self._progress.spare(PROBES - len(probed))
        return found

    def tables(self, grids: Sequence[Grid]) -> list[list[list[TrainingResult]]]:
        """Per family, per strength, per fold."""
        tasks: list[Task] = []
        for family, (plan, grid) in enumerate(zip(self._plans, grids, strict=True)):
            if plan.engine == "lanes":
                tasks += stack_tasks(plan, self.spec, dict(enumerate(self.folds)), family, grid.strengths)
            elif plan.engine == "optimum":
                tasks += [OptimumTask(family, fold, grid.strengths) for fold in range(len(self.folds))]
            else:
                keys = [
                    TrainingKey(family, strength, fold)
                    for strength in grid.strengths
                    for fold in range(len(self.folds))
                ]
                tasks += [key for key in keys if key not in self._alone]
        table = sum(len(grid.strengths) * len(self.folds) for grid in grids)
        self._progress.spare(table - sum(len(_keys(task)) for task in tasks))
        self._train(tasks)
        # Trained with others, a model has other last bits than alone: what was trained in search of the grid stays out
        # of a stacked table, and the table depends on its own grid alone.
        found = self._alone | self._together
        return [
            [
                [found[TrainingKey(family, strength, fold)] for fold in range(len(self.folds))]
                for strength in grid.strengths
            ]
            for family, grid in enumerate(grids)
        ]

    def later(self, wanted: Mapping[int, Sequence[tuple[int, float]]]) -> dict[TrainingKey, TrainingResult]:
        """What comes out of the trainings that later repeats need: of each fold, by its number, (family, strength)s.

        In lanes, the folds of one choice are a stack: their lanes are those strengths and no others.
        """
        tasks: list[Task] = []
        for family, plan in enumerate(self._plans):
            alike: dict[tuple[float, ...], dict[int, Fold]] = {}
            for number, pairs in wanted.items():
                strengths = tuple(sorted({strength for each, strength in pairs if each == family}))
                if strengths:
                    alike.setdefault(strengths, {})[number] = self._every[number]
            for strengths, folds in alike.items():
                if plan.engine == "lanes":
                    tasks += stack_tasks(plan, self.spec, folds, family, strengths)
                elif plan.engine == "optimum":
                    tasks += [OptimumTask(family, fold, strengths) for fold in folds]
                else:
                    tasks += [TrainingKey(family, strength, fold) for strength in strengths for fold in folds]
        self._progress.remain(sum(len(_keys(task)) for task in tasks))
        self._train(tasks)
        return self._alone | self._together

    def _train(self, tasks: Sequence[Task]) -> None:
        """Do what an earlier run has not done, and keep it; one after another where it cannot be stacked."""
        missing = []
        for task in tasks:
            known = self._store.find(_keys(task), _stack_name(task))
            if known is None:
                missing.append(task)
            else:
                self._take(task, known)
        refused: list[TrainingKey] = []
        epochs = self.spec.epochs
        done = run_tasks(
            missing,
            self.spec,
            self._every,
            self.families,
            jobs=self._jobs,
            after_epoch=lambda lanes, alive, epoch: self._progress.stack(lanes, alive, epoch, epochs),
            advice=self._store.advice,
        )
        with closing(done):
            for task, found in done:
                if isinstance(found, str):
                    self._store.give_up_stack(_keys(task)[0].family, found)
                    refused += _keys(task)
                    continue
                self._store.save(found, _stack_name(task))
                self._take(task, found)
        if refused:
            self._progress.spare(sum(key in self._alone for key in refused))
            self.train_alone(refused)

    def _take(self, task: Task, found: Mapping[TrainingKey, TrainingResult]) -> None:
        (self._alone if isinstance(task, TrainingKey) else self._together).update(found)
        self._store.count(found)

    def null_loss(self) -> NullLoss:
        """The losses of the best constant output, over all folds."""
        loss, y, shape = self.spec.in_float64().loss, self.spec.y, self._output_shape()

        def mean(parts: list[Tensor]) -> float | None:
            value = self.spec.target_scale.of_loss * torch.cat(parts).mean()
            return value.item() if bool(value.isfinite()) else None

        try:
            trained, held_out = [], []
            for fold in self._on_device():
                constant = null_output(loss, y[fold.train], shape)
                trained.append(fold.counts[0] * losses_of(loss, constant, y[fold.train]))
                held_out.append(fold.counts[1] * losses_of(loss, constant, y[fold.validation]))
            return NullLoss(mean(trained), mean(held_out))
        except (InputError, RuntimeError):
            return NullLoss(None, None)  # it is a line in a picture; a loss that takes no constant output has none

    def _on_device(self) -> list[Fold]:
        device = self.spec.device
        return [Fold(fold.train.to(device), fold.validation.to(device), fold.counts) for fold in self.folds]

    def _output_shape(self) -> tuple[int, ...]:
        with seeded(self.spec.part_seed(WHOLE)), torch.no_grad(), evaluating(self.spec.fresh()) as model:
            return tuple(model(self.spec.X[:2]).shape[1:])


def _keys(task: Task) -> tuple[TrainingKey, ...]:
    return (task,) if isinstance(task, TrainingKey) else task.keys


def _stack_name(task: Task) -> str:
    return "" if isinstance(task, TrainingKey) else task.name
