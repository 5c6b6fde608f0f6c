"""`path`: from a model, data and penalties to cross-validated points, a choice and a verdict."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Unpack, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchshrink.data.lazy import readers_alive, subset
from torchshrink.errors import CannotSolveError, DivergenceWarning, TasksWarning
from torchshrink.paths.assemble import Layout, compare, control_of, make_result, penalising
from torchshrink.paths.comparison import PathComparison
from torchshrink.paths.engines.cold_path import PROBES, Trainings
from torchshrink.paths.engines.optimum import why_not
from torchshrink.paths.engines.parallel import in_jobs, jobs_at_once
from torchshrink.paths.engines.planner import make_plan
from torchshrink.paths.engines.training_store import TrainingStore
from torchshrink.paths.engines.warm_path import Table, WarmTables, WarmTrainings
from torchshrink.paths.final_test import SetAside
from torchshrink.paths.folds import Fold, held_back, make_splits
from torchshrink.paths.grid import Grid, given_grid
from torchshrink.paths.identity import digest
from torchshrink.paths.journal import Journal
from torchshrink.paths.penalty_family import PenaltyFamily, PenaltySpec, families
from torchshrink.paths.progress import Progress
from torchshrink.paths.refit import Source
from torchshrink.paths.result import PathResult
from torchshrink.paths.settings import PathKeywords, PathSettings, settings_from
from torchshrink.paths.statistics.points import best_of, least, make_point
from torchshrink.paths.training_result import Candidate, TrainingKey, TrainingResult
from torchshrink.paths.training_spec import Build, TrainingSpec, make_training_spec
from torchshrink.paths.verdict_evidence import Evidence
from torchshrink.support.storage import PathLike
from torchshrink.training import class_codes, row_weights

Data = tuple[Any, Any] | Dataset[Any]
Penalties = PenaltySpec | Mapping[str, PenaltySpec] | Sequence[PenaltySpec]


@overload
def path(
    build: Build,
    data: Data,
    penalty: PenaltySpec,
    *,
    folder: PathLike | None = None,
    progress: bool = True,
    **settings: Unpack[PathKeywords],
) -> PathResult: ...


@overload
def path(
    build: Build,
    data: Data,
    penalty: Mapping[str, PenaltySpec] | Sequence[PenaltySpec],
    *,
    folder: PathLike | None = None,
    progress: bool = True,
    **settings: Unpack[PathKeywords],
) -> PathComparison: ...


def path(
    build: Build,
    data: Data,
    penalty: Penalties,
    *,
    folder: PathLike | None = None,
    progress: bool = True,
    **settings: Unpack[PathKeywords],
) -> PathResult | PathComparison:
    """Cross-validate a penalty over a range of strengths, and say whether it helps.

    In each fold every strength starts from the same weights (unless ``order="warm"``) and sees the same batches, so
    that strengths are compared in pairs. No loss that is reported contains the penalty. The caller's random number
    generators are left as they were; the same seed gives the same bits.

    Inside ``joblib.parallel_config`` with more than one job, the trainings are tasks in other processes, or on a
    cluster; with none they are done in this process. A task trains on one thread, so the bits are those of a local call
    on one thread (``torch.set_num_threads(1)``), if the engine's ``lanes`` are given or it is sequential: by default a
    stack is cut into at least as many as there are jobs.

    Args:
        build: () -> nn.Module, a new one in each call, with fresh initial weights. Called under a seed, and the same
            seed is to give the same weights.
        data: (X, y), tensors or arrays: n rows of any shape, raw; n class codes (whole numbers) or numbers (floats).
            What the model fits to the data before training (`models.Preprocess`) is fitted on each fold's training
            rows only. Or a map-style ``torch.utils.data.Dataset`` of pairs (x, y), for rows that do not fit in memory:
            each is read when a batch needs it, and only the targets are kept. An item is to be the same whenever it is
            read. Random augmentation that its number does not seed is seen by evaluations too, differs between engines
            and counts of workers, and is warned of.
        penalty: what is tuned: a class of one strength (``ts.L1``), a penalty whose other settings are kept
            (``ts.ElasticNet(0.9, 0.1)``), or a callable strength -> penalty or rules. Several, as a mapping from
            names or as a sequence, are compared over the same folds, initial weights and batches.
        folder: a working folder. Every finished training is kept in its ``journal``, and a call with the same
            settings goes on from there; `clear_journal` deletes it.
        progress: whether to count trainings on stderr.
        settings: what is said in `torchshrink.paths.PathSettings`, by the names of its fields.

    Returns:
        A `PathResult`; for several penalties a `PathComparison`.

    Raises:
        InputError: an argument is not usable.
        ReadError: an item of a Dataset could be read at first, and now cannot be.
        DivergenceError: every strength diverged.
        WorkerLostError: a process that trained was killed; what was finished is in the ``folder``.

    Warns:
        DivergenceWarning: some trainings diverged; their strengths take no part in the choice.
        LanesWarning: lanes were asked for and cannot be had, so the trainings are done one after another; or
            ``compile=True`` does nothing.
        TasksWarning: trainings cannot be sent to another process; they are done in this one.
        DataWarning: an item of a Dataset is another one when it is read again.

    Example:
        >>> import torch, torchshrink as ts
        >>> X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> y = (X[:, 0] > 0).long()
        >>> result = ts.path(lambda: torch.nn.Linear(4, 2), (X, y), ts.L1, strengths=3, epochs=5, progress=False)
        >>> len(result.points), result.points[0].strength
        (4, 0.0)
    """
    return prepare(build, data, penalty, settings_from(settings), progress=progress).run(folder, progress=progress)


def _with_settings(signature: inspect.Signature) -> inspect.Signature:
    """What `help` shows: each setting by name, with its default."""
    first = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields(PathSettings)]
    return signature.replace(parameters=[*first, *own])


path.__signature__ = _with_settings(inspect.signature(path))  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class PathJob:
    """Everything that a path needs, checked and brought into form: what is left is to train.

    Args:
        spec: how each model is trained.
        layout: which rows are held out, in every repeat.
        families: what is tuned.
        several: whether a comparison was asked for, and not a single result.
        jobs: how many processes are to train at once.
        aside: the test rows, if there are any.
    """

    spec: TrainingSpec
    layout: Layout
    families: Sequence[PenaltyFamily]
    several: bool
    jobs: int
    aside: SetAside | None = None

    @property
    def settings(self) -> PathSettings:
        """As the caller gave them."""
        return self.spec.settings

    def taken_over(self, saved: PathResult | PathComparison) -> PathResult | PathComparison:
        """What an equal job has run and saved, with what a refit needs: nothing is trained."""
        if isinstance(saved, PathComparison):
            return replace(saved, results={name: self._with_source(each) for name, each in saved.results.items()})
        return self._with_source(saved)

    def _with_source(self, saved: PathResult) -> PathResult:
        family = next(family for family in self.families if family.name == saved.penalty)
        climbed = saved.grid.strengths if self.settings.order == "warm" else ()
        return replace(saved, source=Source(self.spec, family, climbed))

    def run(self, folder: PathLike | None = None, *, progress: bool = True) -> PathResult | PathComparison:
        """All trainings, those excepted that the folder's journal has; see `path` for the rest."""
        spec, splits, compared, settings = self.spec, self.layout.splits, self.families, self.settings
        given = None if isinstance(settings.strengths, int) else given_grid(settings.strengths)
        points = len(given.strengths) if given else 1 + int(settings.strengths)  # type: ignore[arg-type]
        plan_for = partial(make_plan, spec, splits.first, strengths=points, jobs=self.jobs)
        with (
            torch.inference_mode(False),  # gradients, whatever the caller has off
            in_jobs(settings.engine.jobs, self.jobs),
            readers_alive(spec.X),
            Progress(compared, len(splits.first), shown=progress) as bar,
        ):
            # In here, as the number of threads is a part of what tells a journal's trainings apart.
            journal = None if folder is None else Journal(folder, self._fingerprint())
            bar.expect(len(compared) * self._most(points, probes=0 if given else PROBES))
            store = TrainingStore(splits, compared, journal, bar)
            trainings = Trainings(spec, splits, compared, store, jobs=self.jobs)
            plans = [plan_for(family) for family in compared]
            for plan in plans:
                trainings.follow(plan, asked=settings.engine.name == "lanes")
            grids = [given or trainings.grid(number, points - 1) for number in range(len(compared))]
            null = trainings.null_loss()
            warm = WarmTrainings(spec, splits, compared, store) if settings.order == "warm" else None
            if warm is not None:
                ways = warm.ways(plans, grids, partial(_farthest_choice, splits.first))
            else:
                ways = [WarmTables(table, table[:1]) for table in trainings.tables(grids)]
            evidence = Evidence(splits, ways, seed=settings.seed)
            wanted = evidence.wanted()
            evidence.add(warm.later(plans, grids, wanted) if warm else _later(trainings, grids, wanted))
            bar.remain(0)
        sources = [
            Source(spec, family, grid.strengths if warm is not None else ())
            for family, grid in zip(compared, grids, strict=True)
        ]
        results = [
            make_result(
                source,
                grid,
                each,
                layout=self.layout,
                verdict=penalising(evidence, [number]),
                null=null,
            )
            for number, (source, grid, each) in enumerate(zip(sources, grids, ways, strict=True))
        ]
        _warn_of_lost(results)
        best = results.index(best_of(results))
        test = None
        if self.aside is not None:
            test = self.aside.compare(
                sources[best], results[best].best.strength, control=control_of(ways[best], splits.first)
            )
        if self.several:
            return replace(compare(results, evidence, ways, null), test=test)
        return replace(results[0], test=test)

    def _most(self, points: int, *, probes: int) -> int:
        """How many trainings of one family there may be: known exactly only when its grid and choices are."""
        first, later = len(self.layout.splits.first), sum(map(len, self.layout.splits.later))
        if self.settings.order == "warm":  # a control is at most as long as the path
            return probes + 2 * points * (first + later)
        return probes + points * first + 2 * later

    def _fingerprint(self) -> dict[str, Any]:
        every = self.layout.splits.every
        return self.spec.fingerprint | {
            "folds": f"{len(every)} folds, {digest(rows for fold in every for rows in (fold.train, fold.validation))}",
            # In their order, which the journal's files go by; at a strength at which another function of it shows.
            "penalties": [[family.name, family.describe(0.37)] for family in self.families],
        }


def prepare(build: Build, data: Data, penalty: Penalties, settings: PathSettings, *, progress: bool = False) -> PathJob:
    """Check everything that can be checked before any training, and draw the folds.

    Raises:
        InputError: an argument is not usable, in one line that says why.
        AttachmentError: the penalty cannot act in this optimizer.
    """
    compared = families(penalty)
    with torch.inference_mode(False), jobs_at_once(settings.engine.jobs) as jobs:
        if settings.order == "warm" and jobs > 1:
            warnings.warn(
                "order='warm': each strength waits for the one before it, so the trainings are done in this process",
                TasksWarning,
                stacklevel=3,
            )
            jobs = 1
        solvable = partial(_solved, compared=compared)
        spec = make_training_spec(build, data, compared, settings, progress=progress, solvable=solvable)
        rows, numbers, aside = len(spec.y), torch.arange(len(spec.y)), None
        if settings.test is not None:
            tested = held_back(_classes(spec), settings.test, seed=settings.seed, ignored=spec.ignored)
            numbers = numbers[~torch.isin(numbers, tested)]
            aside = SetAside(subset(spec.X, tested), spec.y[tested])
            spec = replace(spec, X=subset(spec.X, numbers), y=spec.y[numbers])
        splits = make_splits(
            _classes(spec),
            settings.folds,
            repeats=settings.repeats,
            seed=settings.seed,
            numbers=None if aside is None else numbers,
            ignored=spec.ignored,
        ).weighed(row_weights(spec.loss, spec.y))
    several = isinstance(penalty, Mapping | Sequence)
    return PathJob(spec, Layout(splits, numbers, rows), compared, several, jobs, aside)


def _classes(spec: TrainingSpec) -> Tensor:
    """The targets as rows are drawn by: class codes where they are classes, however the loss takes these."""
    codes = class_codes(spec.loss, spec.y)
    return spec.y if codes is None else codes


def _solved(spec: TrainingSpec, compared: Sequence[PenaltyFamily]) -> bool:
    """Whether each optimum is computed.

    Raises:
        CannotSolveError: it is to be, and cannot.
    """
    engine, training = spec.settings.engine.name, spec.settings.asks_for_training
    if engine not in ("auto", "optimum") or (engine == "auto" and training):
        return False
    reason = f"{training} says how to train, and nothing is trained: leave it out" if training else ""
    reason = reason or why_not(spec, compared)
    if reason and engine == "optimum":
        raise CannotSolveError(f"engine='optimum': {reason}")
    return not reason


def _farthest_choice(folds: Sequence[Fold], strengths: Sequence[float], table: Table) -> int:
    """The last step that is best: over all folds, or over those but one, by which that one is judged."""

    def best(some: Sequence[int]) -> int:
        rows = zip(strengths, table, strict=True)
        points = [make_point(strength, [row[k] for k in some], [folds[k] for k in some]) for strength, row in rows]
        return points.index(least(points))

    every = range(len(folds))
    return max(best(some) for some in [every, *([k for k in every if k != left] for left in every if len(folds) > 1)])


def _later(
    trainings: Trainings, grids: Sequence[Grid], wanted: Mapping[int, Sequence[Candidate]]
) -> dict[tuple[int, Candidate], TrainingResult]:
    """What later repeats of a cold path need, of each fold by its number."""

    def strength(candidate: Candidate) -> float:
        return 0.0 if candidate.control else grids[candidate.family].strengths[candidate.step]

    pairs = {number: [(each.family, strength(each)) for each in some] for number, some in wanted.items()}
    found = trainings.later(pairs)
    return {
        (number, each): found[TrainingKey(each.family, strength(each), number)]
        for number, some in wanted.items()
        for each in some
    }


def _warn_of_lost(results: Sequence[PathResult]) -> None:
    lost = [
        f"{result.penalty} {point.strength:.3g} ({sum(fold.diverged for fold in point.folds)}/{len(point.folds)} folds)"
        for result in results
        for point in result.points
        if point.diverged
    ]
    if lost:
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        warnings.warn(
            f"trainings diverged at {', '.join(lost[:5])}{more}: these strengths take no part in the choice; "
            "a lower learning rate may save them",
            DivergenceWarning,
            stacklevel=4,
        )
