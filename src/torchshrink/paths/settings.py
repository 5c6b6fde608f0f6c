"""The settings of a path: one frozen value, checked when it is made, held by whatever needs it, and written as it is.

A new setting is a field of `PathSettings`, its line in `PathKeywords` beside it, and, for the command line, one option.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, SupportsIndex, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import WEIGHTS, Selection
from torchshrink.support.randomness import checked_seed
from torchshrink.support.text import listed, shortened, suggestion

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Acting = Method | Literal["loss"]
Order = Literal["cold", "warm"]
EngineName = Literal["auto", "lanes", "sequential", "optimum"]
Folds = int | Iterable[object] | object
"""How many folds to draw; a splitter of scikit-learn's; or, for each, its row numbers (see `make_folds`)."""
TestRows = float | Sequence[int] | Tensor | None
"""The share of the rows, or the numbers of the rows, that take no part in any choice."""


def _whole(name: str, value: Any, least: int) -> int:
    """``value``, a whole number of Python's or numpy's, as Python's."""
    number = None if isinstance(value, bool) or not isinstance(value, SupportsIndex) else operator.index(value)
    if number is None or number < least:
        raise InputError(f"{name}={value!r}: expected a whole number ≥ {least}")
    return number


@dataclass(frozen=True)
class Engine:
    """How the trainings of a path are done. The results of trainings are the same but for rounding.

    Args:
        name: ``"lanes"``: strengths and folds are trained as one stacked program, a lane each; ``"sequential"``: one
            after another, the plain way; ``"optimum"``: nothing is trained, and each optimum is computed: of linear and
            logistic regression under L1, L2 and elastic nets; ``"auto"``: the optimum where it can be computed and
            neither optimizer, epochs nor batch_size is given; else lanes where they pay, by counted work and never by
            a clock, so that the same call always does the same. Dropout's draws are shared by the strengths of a fold
            one after another, and each lane's own in a stack.
        lanes: how many at once, at most; by default as many as pay and fit in a quarter of the machine's memory, and
            no more than leave every job a stack.
        compile: whether stacked programs go through ``torch.compile``, which takes 5 to 16 seconds at first (of chains
            of linear layers the prox alone does); by default where counted work says that it pays, which is seldom.
            Where nothing is stacked, and where a chain has no prox, True does nothing and warns so.
        workers: processes that read a Dataset's items ahead of the training, as a DataLoader's ``num_workers``; 0: they
            are read when they are needed.
        jobs: processes that train; None: what ``joblib.parallel_config`` around the call says, by default none.

    Raises:
        InputError: no such engine, or settings that it does not have.
    """

    name: EngineName = "auto"
    lanes: int | None = None
    compile: bool | None = None
    workers: int = 0
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(EngineName):
            raise InputError(f"engine={self.name!r}: expected one of {listed(get_args(EngineName))}, or a ts.Engine")
        for name, least in (("lanes", 1), ("jobs", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None or name == "workers":
                object.__setattr__(self, name, _whole(name, value, least))
        if self.name in ("sequential", "optimum") and (self.lanes is not None or self.compile):
            given = f"lanes={self.lanes}" if self.lanes is not None else "compile=True"
            raise InputError(f"engine={self.name!r} has no lanes: leave out {given}, or take engine='lanes'")

    def __repr__(self) -> str:
        return _given_repr("Engine", asdict(self), {f.name: f.default for f in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class PathSettings:
    """What a path depends on beside model, data and penalty.

    Args:
        strengths: how many, on an automatic geometric grid, or the strengths themselves. 0 is always added.
        folds: how many, stratified by class (codes, or 0 and 1 for ``nn.BCEWithLogitsLoss``); or a splitter such as
            scikit-learn's ``RepeatedKFold`` or ``ShuffleSplit``; or for each fold the row numbers that it holds out, or
            a pair of row numbers (trained on, held out), as a splitter yields them. ``[(trained on, held out)]`` is one
            fixed split.
        repeats: how often folds are drawn, with other initial weights each time. All strengths are trained in the first
            repeat, which makes the points and the choice; the later ones train strength 0 and what was chosen, for the
            verdict alone: 2 trainings a fold. With one repeat, luck that all folds share cannot be told from a benefit.
            Folds that are given are taken once.
        test: a share of the rows, drawn at random (of classes, its share of each), or row numbers, that take no part in
            any choice: the model tuned and the one unpenalised are compared on them (``result.test``).
        epochs: passes over the rows, per training; by default 50.
        batch_size: rows per step; by default 64.
        loss: a mean loss; by default cross entropy for classes, mean squared error for numbers.
        optimizer: parameters -> Optimizer; by default Adam with learning rate 1e-3.
        seed: decides folds, initial weights, batches and dropout.
        device: where to train; by default where ``build`` puts the model.
        on: which parameters: ``ts.WEIGHTS`` or ``ts.ALL``.
        method: how the penalty acts: as in `Regularizer.attach`, or ``"loss"``: as a part of the loss.
        order: ``"cold"``: each strength is trained from the initial weights; ``"warm"``: the strengths ascend, and each
            is trained from the weights with which the one before it ended, with a fresh optimizer, for ``epochs`` on
            the same batches; folds go side by side. That takes fewer epochs where there is one minimum to arrive at.
            But the strengths are then not independent, and the k-th above 0 has had k + 1 times the ``epochs`` of
            strength 0 in all. So that this is not taken for the penalty's doing, strength 0 is trained on for as long
            as the strongest that any fold chooses was, and the verdict compares with it wherever on that way it is
            best; the points are the path's alone. After a warm path ``refit`` trains a warm path.
        engine: how the trainings are done: a name or an `Engine`.

    Raises:
        InputError: a setting is not usable.
    """

    strengths: int | tuple[float, ...] = 32
    folds: Folds = 5
    repeats: int = 3
    test: TestRows = None
    epochs: int | None = None
    batch_size: int | None = None
    loss: Loss | None = None
    optimizer: MakeOptimizer | None = None
    seed: int = 0
    device: torch.device | str | None = None
    on: Selection = WEIGHTS
    method: Acting = "auto"
    order: Order = "cold"
    engine: Engine = Engine()

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise InputError(f"order={self.order!r}: expected one of {listed(get_args(Order))}")
        for name in ("repeats", "epochs", "batch_size"):
            if name == "repeats" or getattr(self, name) is not None:
                object.__setattr__(self, name, _whole(name, getattr(self, name), 1))
        if self.method not in (*get_args(Method), "loss"):
            raise InputError(f"method={self.method!r}: expected one of {listed((*get_args(Method), 'loss'))}")
        given: object = self.optimizer
        if isinstance(given, str | torch.optim.Optimizer):
            given = repr(given) if isinstance(given, str) else f"an instance of {type(given).__name__}"
            raise InputError(
                f"optimizer: {given} given, a function of a model's parameters expected: "
                "lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
            )
        if given is not None and not callable(given):
            raise InputError(f"optimizer: {type(given).__name__} given, a function of a model's parameters expected")
        for what, value in (("loss", self.loss), ("folds", self.folds)):
            if isinstance(value, type):
                name = value.__name__
                raise InputError(f"{what}={name}: the class itself, an instance expected: {name}()")
        if self.loss is not None and not callable(self.loss):
            raise InputError(
                f"loss={self.loss!r}: a callable (output, target) -> mean expected, such as nn.CrossEntropyLoss()"
            )
        checked_seed(self.seed)
        # Frozen, but what was given is brought into one form here: the setter of a frozen value is its base's.
        object.__setattr__(self, "strengths", _strengths(self.strengths))
        if isinstance(self.folds, Iterator):  # it can be gone through once
            object.__setattr__(self, "folds", tuple(self.folds))
        object.__setattr__(self, "engine", self.engine if isinstance(self.engine, Engine) else Engine(self.engine))

    def __repr__(self) -> str:
        return _given_repr("PathSettings", self.to_dict(), PathSettings().to_dict())

    @property
    def asks_for_training(self) -> str:
        """Which of the settings that only a training has is given; empty where none is."""
        named = ("optimizer", "epochs", "batch_size")
        return next((name for name in named if getattr(self, name) is not None), "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; what cannot be written as it is, such as a function, by its name."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "strengths": self.strengths if isinstance(self.strengths, int) else list(self.strengths),
            "folds": self.folds if isinstance(self.folds, int) else "given",
            "test": self.test if self.test is None or isinstance(self.test, int | float) else "given",
            "loss": None if self.loss is None else named(self.loss),
            "optimizer": None if self.optimizer is None else named(self.optimizer),
            "device": None if self.device is None else str(self.device),
            "on": str(self.on),
            "engine": asdict(self.engine),
        }


class PathKeywords(TypedDict, total=False):
    """The keywords of `ts.path`, for type checkers: `PathSettings`' fields, as they may be given."""

    strengths: int | Iterable[float]
    folds: Folds
    repeats: int
    test: TestRows
    epochs: int | None
    batch_size: int | None
    loss: Loss | None
    optimizer: MakeOptimizer | None
    seed: int
    device: torch.device | str | None
    on: Selection
    method: Acting
    order: Order
    engine: EngineName | Engine


def settings_from(keywords: PathKeywords) -> PathSettings:
    """The settings that these keywords stand for.

    Raises:
        TypeError: there is no such keyword.
        InputError: a setting is not usable.
    """
    known = [field.name for field in fields(PathSettings)]
    unknown = next((name for name in keywords if name not in known), None)
    if unknown is not None:
        raise TypeError(f"path() got an unexpected keyword argument {unknown!r}{suggestion(unknown, known)}")
    return PathSettings(**keywords)  # type: ignore[arg-type]  # __post_init__ brings them into one form


def _strengths(given: object) -> int | tuple[float, ...]:
    """How many, or the strengths themselves: ascending, with 0 among them."""
    if isinstance(given, SupportsIndex) and not isinstance(given, np.ndarray | Tensor):
        count = operator.index(given)
        if isinstance(given, bool) or count < 1:
            raise InputError(f"strengths={given}: how many expected, at least 1, or the strengths themselves")
        return count
    if isinstance(given, float):
        raise InputError(f"strengths={given:g}: how many expected, or the strengths, such as [{given:g}]")
    try:
        found = [float(each) for each in given]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise InputError(f"strengths={given!r}: a number of strengths expected, or the strengths") from error
    if not found:
        raise InputError("strengths: none given, at least one expected")
    wrong = next((each for each in found if not (math.isfinite(each) and each >= 0)), None)
    if wrong is not None:
        raise InputError(f"strengths: {wrong:g} given, finite numbers ≥ 0 expected")
    if len(set(found)) < len(found):
        twice = next(each for each in found if found.count(each) > 1)
        raise InputError(f"strengths: {twice:g} is given twice")
    return tuple(sorted({0.0, *found}))


def _given_repr(name: str, values: Mapping[str, object], defaults: Mapping[str, object]) -> str:
    """What differs from the defaults."""
    given = [f"{key}={shortened(repr(value))}" for key, value in values.items() if value != defaults[key]]
    return f"{name}({', '.join(given)})"


def named(function: object) -> str:
    """A loss or a function as text."""
    if isinstance(function, nn.Module):
        return str(function)
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__
