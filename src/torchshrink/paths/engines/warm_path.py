"""Warm paths: each strength starts from the weights with which the one before it ended, from dense to sparse.

In each fold the strengths ascend from 0. A training starts from the parameters and buffers (batch normalisation's
running statistics, too) of the one before it, with a fresh optimizer: moments and step counts are reset. It takes all
the epochs, and the same batches at every strength, epoch for epoch, as on a cold path; so strengths and folds are
compared on the same draws. A penalty towards the initial weights (`L2SP`) means those of the fold, at every strength.

The steps of a path wait for each other, so what can be trained side by side is its folds: a stack of one lane per
fold, or the plain engine, fold after fold, which is the specification. Both end with the same weights but for rounding.

A training that diverges has no end to start from: the next strength starts where the diverged one did, from the last
sound weights of its fold. So what one strength does to a fold does not end the path.

**The control.** The k-th strength above 0 has been trained k + 1 times as long as strength 0, all in all, so what it
gains over strength 0 may be no more than longer training; a penalty that does nothing would seem to help wherever
trainings are short. So strength 0 goes on training, in restarts, for as long as the strongest of the strengths that
any fold chooses was trained, and the verdict uses whichever of its restarts is best.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from torchshrink.errors import DivergenceError
from torchshrink.paths.engines.planner import Plan, stack_tasks
from torchshrink.paths.engines.sequential import train_one
from torchshrink.paths.engines.stack import CANNOT_STACK, Stack
from torchshrink.paths.engines.training_store import TrainingStore
from torchshrink.paths.folds import Splits
from torchshrink.paths.grid import Grid
from torchshrink.paths.model_weights import Weights, weights_of
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import Candidate, TrainingKey, TrainingResult
from torchshrink.paths.training_spec import WHOLE, TrainingSpec
from torchshrink.regularizer import Regularizer
from torchshrink.support.storage import brief

Table = list[list[TrainingResult]]
"""Per strength, ascending, per fold."""
FarthestOf = Callable[[Sequence[float], Table], int]
"""(strengths, their table) -> the farthest step of it that may be chosen."""
Step = Callable[[float, Mapping[int, Weights]], tuple[dict[int, TrainingResult], Mapping[int, Weights]]]
"""(strength, what each fold starts from) -> each fold's result, and the weights it ended with."""


@dataclass(frozen=True)
class FoldGroup:
    """Folds that go along a path together: side by side in a stack, or one by itself."""

    family: int
    folds: tuple[int, ...]
    stacked: bool
    compiled: bool

    def name(self, steps: Sequence[float]) -> str:
        """A digest of who they are and of the strengths that they have gone through: the results depend on both."""
        return hashlib.sha256(repr((self, tuple(steps))).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class WarmTables:
    """The tables of a warm path.

    Args:
        up: the path itself.
        unpenalised: strength 0 again and again, as many times as it takes to the farthest choice: what longer training
            does by itself. Its first row is the path's.
    """

    up: Table
    unpenalised: Table


class _StackFailedError(Exception):
    """A stack came to nothing; the message says why."""


@final
class WarmTrainings:
    """The warm paths of one call, each strength trained once.

    Args:
        spec: how each is trained.
        splits: the folds of all repeats.
        compared: the families.
        store: where results go.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        splits: Splits,
        compared: Sequence[PenaltyFamily],
        store: TrainingStore,
    ) -> None:
        self.spec, self.families = spec, compared
        self._first, self.folds = splits.first, splits.every
        self._store, self._progress = store, store.progress
        self._stacks: dict[FoldGroup, Step] = {}

    def ways(self, plans: Sequence[Plan], grids: Sequence[Grid], farthest_of: FarthestOf) -> list[WarmTables]:
        """Each family's; ``farthest_of`` says to which step strength 0 is trained for comparison."""
        made = []
        for family, (plan, grid) in enumerate(zip(plans, grids, strict=True)):
            strengths = grid.strengths
            numbers = range(len(self._first))
            by_fold = self._along(plan, family, strengths, numbers, aside=False)
            up = [[by_fold[fold][step] for fold in numbers] for step in range(len(strengths))]
            farthest = farthest_of(strengths, up)
            self._progress.spare((len(strengths) - (farthest + 1 if farthest else 0)) * len(self._first))
            if farthest:
                by_fold = self._along(plan, family, (0.0,) * (farthest + 1), numbers)
            made.append(WarmTables(up, [[by_fold[fold][step] for fold in numbers] for step in range(farthest + 1)]))
        return made

    def later(
        self, plans: Sequence[Plan], grids: Sequence[Grid], wanted: Mapping[int, Sequence[Candidate]]
    ) -> dict[tuple[int, Candidate], TrainingResult]:
        """What later repeats need, of each fold by its number: the way up to the farthest choice, and a control."""
        last: dict[tuple[int, bool], int] = {}  # the farthest step of each family's path and control
        for each in (each for some in wanted.values() for each in some):
            last[each.family, each.control] = max(each.step, last.get((each.family, each.control), 0))
        self._progress.remain(sum(step + 1 for step in last.values()) * len(wanted))
        found: dict[tuple[int, Candidate], TrainingResult] = {}
        for (family, control), step in sorted(last.items()):
            steps = (0.0,) * (step + 1) if control else grids[family].strengths[: step + 1]
            for fold, results in self._along(plans[family], family, steps, list(wanted)).items():
                found |= {(fold, Candidate(family, k, control)): each for k, each in enumerate(results)}
        return found

    def _along(
        self, plan: Plan, family: int, steps: Sequence[float], numbers: Sequence[int], *, aside: bool = True
    ) -> dict[int, list[TrainingResult]]:
        """Per fold, per step; what is trained ``aside`` takes no part in the choice."""
        by_fold: dict[int, list[TrainingResult]] = {}
        for group in self._groups(plan, family, steps[0], numbers):
            by_fold |= self._go(group, steps, control=aside)
        return by_fold

    def _groups(self, plan: Plan, family: int, strength: float, numbers: Sequence[int]) -> list[FoldGroup]:
        if plan.engine == "sequential":
            return self._alone(family, numbers)
        found = stack_tasks(plan, self.spec, {number: self.folds[number] for number in numbers}, family, (strength,))
        return [FoldGroup(family, task.folds, True, task.compiled) for task in found]

    def _alone(self, family: int, folds: Sequence[int]) -> list[FoldGroup]:
        return [FoldGroup(family, (fold,), False, False) for fold in folds]

    def _go(self, group: FoldGroup, steps: Sequence[float], *, control: bool) -> dict[int, list[TrainingResult]]:
        """What comes out of each step, by fold."""
        if not group.stacked:
            return self._walk(group, steps, self._plain(group), [], control=control)
        done: list[dict[int, TrainingResult]] = []
        try:
            if group not in self._stacks:  # which may have been compiled
                self._stacks[group] = self._side_by_side(group)
            return self._walk(group, steps, self._stacks[group], done, control=control)
        except _StackFailedError as error:
            self._store.give_up_stack(group.family, str(error))
            self._progress.again(len(done) * len(group.folds))
        found: dict[int, list[TrainingResult]] = {}
        for each in self._alone(group.family, group.folds):
            found |= self._go(each, steps, control=control)
        return found

    def _walk(
        self,
        group: FoldGroup,
        steps: Sequence[float],
        train: Step,
        done: list[dict[int, TrainingResult]],
        *,
        control: bool,
    ) -> dict[int, list[TrainingResult]]:
        names = [group.name(steps[: k + 1]) for k in range(len(steps))]
        known, weights = self._known(group, steps, names)
        for k, strength in enumerate(steps):
            if k < len(known):
                found = known[k]
            else:
                found, ends = train(strength, weights)
                weights = dict(weights) | {f: ends[f] for f, each in found.items() if each.diverged is None}
                # In this order: whenever a run is killed, the last step with all its results has its weights.
                self._store.save_weights(names[k], weights)
                self._store.save(_by_key(group, strength, found), names[k])
                if k:
                    self._store.drop_weights(names[k - 1])
            done.append(found)
            self._store.count(_by_key(group, strength, found), aside=control)
        return {fold: [found[fold] for found in done] for fold in group.folds}

    def _plain(self, group: FoldGroup) -> Step:
        (fold,) = group.folds

        def train(
            strength: float, weights: Mapping[int, Weights]
        ) -> tuple[dict[int, TrainingResult], Mapping[int, Weights]]:
            result, model = train_one(
                self.spec,
                self.folds[fold],
                self.families[group.family],
                TrainingKey(group.family, strength, fold),
                start=weights.get(fold),
            )
            return {fold: result}, {} if model is None else {fold: weights_of(model)}

        return train

    def _side_by_side(self, group: FoldGroup) -> Step:
        folds = {number: self.folds[number] for number in group.folds}
        epochs, lanes = self.spec.epochs, len(folds)
        stack: Stack | None = None
        initial: Mapping[int, Weights] = {}

        def train(
            strength: float, weights: Mapping[int, Weights]
        ) -> tuple[dict[int, TrainingResult], Mapping[int, Weights]]:
            nonlocal stack, initial
            try:
                if stack is None:  # not before something is to be trained
                    family = self.families[group.family]
                    stack = Stack(self.spec, folds, family, (strength,), compiled=group.compiled)
                    initial = stack.weights()
                stack.restart((strength,), {**initial, **weights})
                diverged = stack.train(lambda epoch, alive: self._progress.stack(lanes, alive, epoch, epochs))
                return {fold: result for fold, _, result in stack.results(diverged)}, stack.weights()
            except CANNOT_STACK as error:
                raise _StackFailedError(brief(error)) from error

        return train

    def _known(
        self, group: FoldGroup, steps: Sequence[float], names: Sequence[str]
    ) -> tuple[list[dict[int, TrainingResult]], Mapping[int, Weights]]:
        """The results of the steps that need no training, and the weights from which to go on."""
        known: list[dict[int, TrainingResult]] = []
        for strength, name in zip(steps, names, strict=True):
            found = self._store.find((TrainingKey(group.family, strength, fold) for fold in group.folds), name)
            if found is None:
                break
            known.append({key.fold: each for key, each in found.items()})
        if len(known) == len(steps):
            return known, {}
        while known:
            weights = self._store.find_weights(names[len(known) - 1])
            if weights is not None:
                return known, weights
            known.pop()
        return known, {}


def _by_key(
    group: FoldGroup, strength: float, results: Mapping[int, TrainingResult]
) -> dict[TrainingKey, TrainingResult]:
    return {TrainingKey(group.family, strength, fold): result for fold, result in results.items()}


def train_along(spec: TrainingSpec, family: PenaltyFamily, strengths: Sequence[float]) -> tuple[nn.Module, Regularizer]:
    """Train on all rows along a warm path; the model and the (detached) regularizer of its last strength.

    Raises:
        DivergenceError: the last training diverged. One before it is passed over, as on the folds.
    """
    start: Weights | None = None
    for strength in strengths[:-1]:
        try:
            model, _ = spec.train(family.make(strength), spec.X, spec.y, part=WHOLE, start=start)
        except DivergenceError:
            continue
        start = weights_of(model)
    return spec.train(family.make(strengths[-1]), spec.X, spec.y, part=WHOLE, start=start)
