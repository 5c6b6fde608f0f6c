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
trainings are short. So strength 0 is trained on from its own weights, restart by restart, for as long as the best
strength of the path was, and the verdict lets it stop wherever that is best.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from torchshrink.errors import DivergenceError, LanesWarning
from torchshrink.paths.engines.one_by_one import train_unit
from torchshrink.paths.engines.planner import Plan, chunks
from torchshrink.paths.engines.stack import CANNOT_STACK, Stack
from torchshrink.paths.family import Family
from torchshrink.paths.folds import Splits
from torchshrink.paths.grid import Grid
from torchshrink.paths.journal import Journal
from torchshrink.paths.outcome import Candidate, Outcome, Unit
from torchshrink.paths.progress import Progress
from torchshrink.paths.recipe import WHOLE, Recipe
from torchshrink.paths.weights import Weights, weights_of
from torchshrink.regularizer import Regularizer
from torchshrink.support.storage import brief

Table = list[list[Outcome]]
"""Per strength, ascending, per fold."""
BestOf = Callable[[Sequence[float], Table], int]
"""(strengths, their table) -> which step of it is best."""
Step = Callable[[float, Mapping[int, Weights]], tuple[dict[int, Outcome], Mapping[int, Weights]]]
"""(strength, what each fold starts from) -> each fold's outcome, and the weights it ended with."""


@dataclass(frozen=True)
class Party:
    """Folds that go along a path together: side by side in a stack, or one by itself."""

    family: int
    folds: tuple[int, ...]
    stacked: bool
    compiled: bool

    def name(self, steps: Sequence[float]) -> str:
        """A digest of who they are and of the strengths that they have gone through: the outcome depends on both."""
        return hashlib.sha256(repr((self, tuple(steps))).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Ways:
    """The tables of a warm path.

    Args:
        up: the path itself.
        unpenalised: strength 0 again and again, as many times as it takes to the best of the path: what longer training
            does by itself. Its first row is the path's.
    """

    up: Table
    unpenalised: Table


class _StackFailedError(Exception):
    """A stack came to nothing; the message says why."""


@final
class WarmTrainings:
    """The warm paths of one call, each strength trained once, kept, and counted.

    Args:
        recipe: how each is trained.
        splits: the folds of all repeats.
        compared: the families.
        journal: where what is finished is kept.
        progress: where it is counted.
    """

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        compared: Sequence[Family],
        journal: Journal | None,
        progress: Progress,
    ) -> None:
        self.recipe, self.families = recipe, compared
        self._first, self.folds = splits.first, splits.every
        self._journal, self._progress = journal, progress
        self._stacks: dict[Party, Step] = {}

    def ways(self, plans: Sequence[Plan], grids: Sequence[Grid], best_of: BestOf) -> list[Ways]:
        """Each family's; ``best_of`` chooses the step up to which strength 0 is trained for comparison."""
        made = []
        for family, (plan, grid) in enumerate(zip(plans, grids, strict=True)):
            strengths = grid.strengths
            numbers = range(len(self._first))
            by_fold = self._along(plan, family, strengths, numbers, aside=False)
            up = [[by_fold[fold][step] for fold in numbers] for step in range(len(strengths))]
            best = best_of(strengths, up)
            self._progress.spare((len(strengths) - (best + 1 if best else 0)) * len(self._first))
            if best:
                by_fold = self._along(plan, family, (0.0,) * (best + 1), numbers)
            made.append(Ways(up, [[by_fold[fold][step] for fold in numbers] for step in range(best + 1)]))
        return made

    def later(
        self, plans: Sequence[Plan], grids: Sequence[Grid], wanted: Mapping[int, Sequence[Candidate]]
    ) -> dict[tuple[int, Candidate], Outcome]:
        """What later repeats need, of each fold by its number: the way up to the farthest choice, and a control."""
        last: dict[tuple[int, bool], int] = {}  # the farthest step of each family's path and control
        for each in (each for some in wanted.values() for each in some):
            last[each.family, each.control] = max(each.step, last.get((each.family, each.control), 0))
        self._progress.remain(sum(step + 1 for step in last.values()) * len(wanted))
        found: dict[tuple[int, Candidate], Outcome] = {}
        for (family, control), step in sorted(last.items()):
            steps = (0.0,) * (step + 1) if control else grids[family].strengths[: step + 1]
            for fold, outcomes in self._along(plans[family], family, steps, list(wanted)).items():
                found |= {(fold, Candidate(family, k, control)): each for k, each in enumerate(outcomes)}
        return found

    def _along(
        self, plan: Plan, family: int, steps: Sequence[float], numbers: Sequence[int], *, aside: bool = True
    ) -> dict[int, list[Outcome]]:
        """Per fold, per step; what is trained ``aside`` takes no part in the choice."""
        by_fold: dict[int, list[Outcome]] = {}
        for party in self._parties(plan, family, steps[0], numbers):
            by_fold |= self._go(party, steps, control=aside)
        return by_fold

    def _parties(self, plan: Plan, family: int, strength: float, numbers: Sequence[int]) -> list[Party]:
        if plan.engine == "sequential":
            return self._alone(family, numbers)
        found = chunks(plan, self.recipe, {number: self.folds[number] for number in numbers}, family, (strength,))
        return [Party(family, chunk.folds, True, chunk.compiled) for chunk in found]

    def _alone(self, family: int, folds: Sequence[int]) -> list[Party]:
        return [Party(family, (fold,), False, False) for fold in folds]

    def _go(self, party: Party, steps: Sequence[float], *, control: bool) -> dict[int, list[Outcome]]:
        """What comes out of each step, by fold."""
        if not party.stacked:
            return self._walk(party, steps, self._plain(party), [], control=control)
        done: list[dict[int, Outcome]] = []
        try:
            if party not in self._stacks:  # which may have been compiled
                self._stacks[party] = self._side_by_side(party)
            return self._walk(party, steps, self._stacks[party], done, control=control)
        except _StackFailedError as error:
            self._progress.give_up()
            self._progress.again(len(done) * len(party.folds))
            name = self.families[party.family].name
            warnings.warn(f"{name}: one training after another: {error}", LanesWarning, stacklevel=4)
        found: dict[int, list[Outcome]] = {}
        for each in self._alone(party.family, party.folds):
            found |= self._go(each, steps, control=control)
        return found

    def _walk(
        self, party: Party, steps: Sequence[float], train: Step, done: list[dict[int, Outcome]], *, control: bool
    ) -> dict[int, list[Outcome]]:
        names = [party.name(steps[: k + 1]) for k in range(len(steps))]
        known, weights = self._kept(party, steps, names)
        for k, strength in enumerate(steps):
            if k < len(known):
                found = known[k]
            else:
                found, ends = train(strength, weights)
                weights = dict(weights) | {f: ends[f] for f, each in found.items() if each.diverged is None}
                self._keep(party, strength, found, weights, names[k], names[k - 1] if k else None)
            done.append(found)
            for fold, outcome in found.items():
                unit = Unit(party.family, strength, fold)
                if control:
                    self._progress.aside(unit)
                else:
                    self._progress.done(unit, outcome)
        return {fold: [found[fold] for found in done] for fold in party.folds}

    def _plain(self, party: Party) -> Step:
        (fold,) = party.folds

        def train(strength: float, weights: Mapping[int, Weights]) -> tuple[dict[int, Outcome], Mapping[int, Weights]]:
            outcome, model = train_unit(
                self.recipe,
                self.folds[fold],
                self.families[party.family],
                Unit(party.family, strength, fold),
                start=weights.get(fold),
            )
            return {fold: outcome}, {} if model is None else {fold: weights_of(model)}

        return train

    def _side_by_side(self, party: Party) -> Step:
        folds = {number: self.folds[number] for number in party.folds}
        epochs, lanes = self.recipe.settings.epochs, len(folds)
        stack: Stack | None = None
        initial: Mapping[int, Weights] = {}

        def train(strength: float, weights: Mapping[int, Weights]) -> tuple[dict[int, Outcome], Mapping[int, Weights]]:
            nonlocal stack, initial
            try:
                if stack is None:  # not before something is to be trained
                    family = self.families[party.family]
                    stack = Stack(self.recipe, folds, family, (strength,), compiled=party.compiled)
                    initial = stack.weights()
                stack.restart((strength,), {**initial, **weights})
                diverged = stack.train(lambda epoch, alive: self._progress.stack(lanes, alive, epoch, epochs))
                return {fold: outcome for fold, _, outcome in stack.outcomes(diverged)}, stack.weights()
            except CANNOT_STACK as error:
                raise _StackFailedError(brief(error)) from error

        return train

    # --- what an earlier run has kept ---

    def _kept(
        self, party: Party, steps: Sequence[float], names: Sequence[str]
    ) -> tuple[list[dict[int, Outcome]], Mapping[int, Weights]]:
        """The outcomes of the steps that need no training, and the weights from which to go on."""
        known: list[dict[int, Outcome]] = []
        if self._journal is None:
            return known, {}
        for strength, name in zip(steps, names, strict=True):
            read = {fold: self._journal.read(Unit(party.family, strength, fold), name) for fold in party.folds}
            if None in read.values():
                break
            known.append({fold: each for fold, each in read.items() if each is not None})
        if len(known) == len(steps):
            return known, {}
        while known:
            weights = self._journal.read_weights(names[len(known) - 1])
            if weights is not None:
                return known, weights
            known.pop()
        return known, {}

    def _keep(
        self,
        party: Party,
        strength: float,
        found: Mapping[int, Outcome],
        weights: Mapping[int, Weights],
        name: str,
        before: str | None,
    ) -> None:
        if self._journal is None:
            return
        # In this order: whenever a run is killed, the last step with all its outcomes has its weights.
        self._journal.write_weights(name, weights)
        for fold, outcome in found.items():
            self._journal.write(Unit(party.family, strength, fold), outcome, name)
        if before is not None:
            self._journal.drop_weights(before)


def climb(recipe: Recipe, family: Family, strengths: Sequence[float]) -> tuple[nn.Module, Regularizer]:
    """Train on all rows along a warm path; the model and the (detached) regularizer of its last strength.

    Raises:
        DivergenceError: the last training diverged. One before it is passed over, as on the folds.
    """
    start: Weights | None = None
    for strength in strengths[:-1]:
        try:
            model, _ = recipe.train(family.make(strength), recipe.X, recipe.y, part=WHOLE, start=start)
        except DivergenceError:
            continue
        start = weights_of(model)
    return recipe.train(family.make(strengths[-1]), recipe.X, recipe.y, part=WHOLE, start=start)
