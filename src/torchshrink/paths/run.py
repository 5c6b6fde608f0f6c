"""`path`: from a model, data and penalties to cross-validated points, a choice and a verdict."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict, Unpack, overload

import torch
from torch.utils.data import Dataset

from torchshrink.data.lazy import kept
from torchshrink.errors import (
    DivergenceWarning,
    InputError,
    TasksWarning,
)
from torchshrink.paths.assemble import compare, make_result
from torchshrink.paths.engines.cold_path import Trainings
from torchshrink.paths.engines.parallel import jobs_at_once
from torchshrink.paths.engines.planner import Engine, Order, check_engine, make_plan
from torchshrink.paths.engines.warm_path import WarmTrainings, Ways, check_order
from torchshrink.paths.family import Family, PenaltySpec, families
from torchshrink.paths.folds import Fold, Folds, make_folds
from torchshrink.paths.grid import given_grid
from torchshrink.paths.identity import digest
from torchshrink.paths.journal import Journal
from torchshrink.paths.progress import Progress
from torchshrink.paths.recipe import Acting, Build, MakeOptimizer, Recipe, prepare
from torchshrink.paths.refit import Source
from torchshrink.paths.result import PathComparison, PathResult
from torchshrink.regularizer.selection import WEIGHTS, Selection
from torchshrink.support.storage import PathLike
from torchshrink.training import Loss

Data = tuple[Any, Any] | Dataset[Any]


class _Settings(TypedDict, total=False):
    strengths: int | Iterable[float]
    folds: Folds
    epochs: int
    batch_size: int
    loss: Loss | None
    optimizer: MakeOptimizer | None
    seed: int
    device: torch.device | str | None
    progress: bool
    method: Acting
    on: Selection
    folder: PathLike | None
    engine: Engine
    lanes: int | None
    compile: bool | None
    order: Order
    workers: int


@overload
def path(build: Build, data: Data, penalty: PenaltySpec, **settings: Unpack[_Settings]) -> PathResult: ...


@overload
def path(
    build: Build,
    data: Data,
    penalty: Mapping[str, PenaltySpec] | Sequence[PenaltySpec],
    **settings: Unpack[_Settings],
) -> PathComparison: ...


def path(
    build: Build,
    data: Data,
    penalty: PenaltySpec | Mapping[str, PenaltySpec] | Sequence[PenaltySpec],
    *,
    strengths: int | Iterable[float] = 32,
    folds: Folds = 5,
    epochs: int = 50,
    batch_size: int = 64,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    method: Acting = "auto",
    on: Selection = WEIGHTS,
    folder: PathLike | None = None,
    engine: Engine = "auto",
    lanes: int | None = None,
    compile: bool | None = None,
    order: Order = "cold",
    workers: int = 0,
) -> PathResult | PathComparison:
    """Cross-validate a penalty over a range of strengths, and say whether it helps.

    In each fold every strength starts from the same weights (unless ``order="warm"``) and sees the same batches, so
    that strengths are compared in pairs. No loss that is reported contains the penalty. The caller's random number
    generators are left as they were; the same seed gives the same bits.

    Inside ``joblib.parallel_config`` with more than one job, the trainings are tasks in other processes, or on a
    cluster; with none they are done in this process. A task trains on one thread, so the bits are those of a local call
    on one thread (``torch.set_num_threads(1)``), if ``lanes`` is given or the engine is sequential: by default a stack
    is cut into at least as many as there are jobs.

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
        strengths: how many, on an automatic geometric grid, or the strengths themselves. 0 is always added.
        folds: how many, stratified by class; or for each the row numbers that it holds out, or a pair of row numbers
            (trained on, held out), as scikit-learn's splitters make them.
        epochs: passes over the rows, per training.
        batch_size: rows per step.
        loss: a mean loss; by default cross entropy for classes, mean squared error for numbers.
        optimizer: parameters -> Optimizer; by default Adam with learning rate 1e-3.
        seed: decides folds, initial weights, batches, dropout and the verdict's resamples.
        device: where to train; by default where ``build`` puts the model.
        progress: whether to count trainings on stderr.
        method: how the penalty acts: as in `Regularizer.attach`, or ``"loss"``: as a part of the loss.
        on: which parameters: ``ts.WEIGHTS`` or ``ts.ALL``.
        folder: a working folder. Every finished training is kept in its ``journal``, and a call with the same
            settings goes on from there; `clear_journal` deletes it.
        engine: ``"lanes"``: strengths and folds are trained as one stacked program, a lane each; ``"sequential"``: one
            after another, the plain way; ``"auto"``: lanes where they pay, by counted work and never by a clock, so
            that the same call always does the same. Both end with the same weights but for rounding; dropout's draws
            are shared by the strengths of a fold one after another, and each lane's own in a stack.
        lanes: how many at once, at most; by default as many as pay and fit in a quarter of the machine's memory, and
            no more than leave every job a stack.
        compile: whether stacked programs go through ``torch.compile``, which takes 5 to 16 seconds at first (of chains
            of linear layers the prox alone does); by default where counted work says that it pays, which is seldom.
        order: ``"cold"``: each strength is trained from the initial weights; ``"warm"``: the strengths ascend, and each
            is trained from the weights with which the one before it ended, with a fresh optimizer, for ``epochs`` on
            the same batches; folds go side by side. That takes fewer epochs where there is one minimum to arrive at.
            But the strengths are then not independent, and the k-th above 0 has had k + 1 times the ``epochs`` of
            strength 0 in all. So that this is not taken for the penalty's doing, strength 0 is trained on for as long
            as the best strength was, and the verdict compares with it wherever on that way it is best; the points are
            the path's alone. After a warm path ``refit`` trains a warm path.
        workers: processes that read a Dataset's items ahead of the training, as a DataLoader's ``num_workers``; 0: they
            are read when they are needed.

    Returns:
        A `PathResult`; for several penalties a `PathComparison`.

    Raises:
        InputError: an argument is not usable.
        ReadError: an item of a Dataset could be read at first, and now cannot be.
        DivergenceError: every strength diverged.
        WorkerLostError: a process that trained was killed; what was finished is in the ``folder``.

    Warns:
        DivergenceWarning: some trainings diverged; their strengths take no part in the choice.
        LanesWarning: lanes were asked for and cannot be had; the trainings are done one after another.
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
    with jobs_at_once() as jobs:
        compared = families(penalty)
        check_engine(engine, lanes, compile)
        check_order(order)
        if order == "warm" and jobs > 1:
            warnings.warn(
                "order='warm': each strength waits for the one before it, so the trainings are done in this process",
                TasksWarning,
                stacklevel=2,
            )
            jobs = 1
        recipe = prepare(
            build,
            data,
            compared,
            epochs=epochs,
            batch_size=batch_size,
            loss=loss,
            optimizer=optimizer,
            seed=seed,
            device=device,
            on=on,
            method=method,
            workers=workers,
            progress=progress,
        )
        count = _count(strengths)
        given = None if count is not None else given_grid(strengths)  # type: ignore[arg-type]
        drawn = make_folds(recipe.y, folds, seed=seed)
        fingerprint = _fingerprint(recipe, drawn, compared, order)
        journal = None if folder is None else Journal(folder, fingerprint)
        points = 1 + count if count is not None else len(given.strengths)  # type: ignore[union-attr]
        plan_for = partial(
            make_plan, recipe, drawn, strengths=points, engine=engine, lanes=lanes, order=order, jobs=jobs
        )
        with kept(recipe.X), Progress(compared, len(drawn), shown=progress) as bar:
            trainings = Trainings(recipe, drawn, compared, journal, bar, jobs=jobs)
            plans = [plan_for(family, compiled=compile) for family in compared]
            for plan in plans:
                trainings.follow(plan, asked=engine == "lanes")
            grids = [given or trainings.grid(number, count or 1) for number in range(len(compared))]
            if order == "warm":
                ways = WarmTrainings(recipe, drawn, compared, journal, bar).ways(plans, grids)
            else:
                ways = [Ways(table, table[:1]) for table in trainings.tables(grids)]
            null_loss = trainings.null_loss()
        results = [
            make_result(
                Source(recipe, family, grid.strengths if order == "warm" else ()),
                drawn,
                grid,
                each,
                null_loss=null_loss,
            )
            for family, grid, each in zip(compared, grids, ways, strict=True)
        ]
        _warn_of_lost(results)
        return compare(results, drawn, ways, seed=seed) if isinstance(penalty, Mapping | Sequence) else results[0]


def _count(strengths: object) -> int | None:
    """How many strengths are asked for, or None if they are given."""
    if isinstance(strengths, bool) or (isinstance(strengths, int) and strengths < 1):
        raise InputError(f"strengths={strengths}: how many expected, at least 1, or the strengths themselves")
    return strengths if isinstance(strengths, int) else None


def _fingerprint(recipe: Recipe, folds: Sequence[Fold], compared: Sequence[Family], order: Order) -> dict[str, Any]:
    return recipe.fingerprint | {
        "order": order,
        "folds": f"{len(folds)} folds, {digest(fold.validation for fold in folds)}",
        # In their order, which the journal's files go by; at a strength at which another function of it shows.
        "penalties": [[family.name, family.describe(0.37)] for family in compared],
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
            stacklevel=3,
        )
