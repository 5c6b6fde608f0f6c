"""What is looked at: the plain values that pages and pictures are made from. Results make these of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torchshrink.support.text import shortened


class Point(Protocol):
    """One strength: see `torchshrink.paths.PathPoint`, which is one."""

    @property
    def strength(self) -> float: ...  # noqa: D102
    @property
    def train_loss(self) -> float: ...  # noqa: D102
    @property
    def validation_loss(self) -> float: ...  # noqa: D102
    @property
    def validation_se(self) -> float: ...  # noqa: D102
    @property
    def gap(self) -> float: ...  # noqa: D102
    @property
    def accuracy(self) -> float | None: ...  # noqa: D102
    @property
    def nonzero(self) -> float: ...  # noqa: D102
    @property
    def diverged(self) -> bool: ...  # noqa: D102


class Fold(Protocol):
    """One fold at one strength: see `torchshrink.paths.FoldValue`."""

    @property
    def validation_loss(self) -> float: ...  # noqa: D102
    @property
    def diverged(self) -> bool: ...  # noqa: D102


class Verdict(Protocol):
    """Whether one choice beats another: see `torchshrink.paths.Verdict`, which is one."""

    @property
    def helps(self) -> bool: ...  # noqa: D102
    @property
    def harms(self) -> bool: ...  # noqa: D102
    @property
    def relative(self) -> bool: ...  # noqa: D102
    @property
    def change(self) -> float | None: ...  # noqa: D102
    @property
    def interval(self) -> tuple[float, float] | None: ...  # noqa: D102
    @property
    def before(self) -> float | None: ...  # noqa: D102
    @property
    def after(self) -> float | None: ...  # noqa: D102
    @property
    def better(self) -> int: ...  # noqa: D102
    @property
    def compared(self) -> int: ...  # noqa: D102
    @property
    def over(self) -> str: ...  # noqa: D102
    @property
    def level(self) -> float: ...  # noqa: D102
    @property
    def words(self) -> str: ...  # noqa: D102


class Test(Protocol):
    """Two models on rows that chose nothing: see `torchshrink.paths.FinalTest`, which is one."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def unpenalised_loss(self) -> float | None: ...  # noqa: D102
    @property
    def tuned_loss(self) -> float | None: ...  # noqa: D102
    @property
    def unpenalised_accuracy(self) -> float | None: ...  # noqa: D102
    @property
    def tuned_accuracy(self) -> float | None: ...  # noqa: D102
    @property
    def verdict(self) -> Verdict: ...  # noqa: D102


@dataclass(frozen=True)
class Weights:
    """What the folds' trainings left of their weights, by strength (P of them): plain lists.

    Args:
        layers: each layer's name and shape.
        kind: what ``inputs`` are: ``coefficients``, ``norms`` of the first layer's columns, or norms of its ``units``.
        first: the name of that layer.
        row: the shape of one row of the data.
        total: how many inputs there are; ``places``: which of these are kept.
        counts: by strength and layer, how many weights are exactly 0, and how many of each size: a quarter of a decade,
            from 10^``lowest``.
        units: by strength and layer, how many of its rows are not all zero.
        inputs: by strength, of each kept place; NaN where it is not known.
        used: by strength, in how many folds that is not zero.
        reading: by strength, how many inputs are not zero.
        curves: by strength, the training loss at ``epochs``; empty where nothing was trained.
    """

    layers: Sequence[tuple[str, tuple[int, ...]]]
    kind: str
    first: str
    row: tuple[int, ...]
    total: int
    places: Sequence[int]
    counts: Sequence[Sequence[Sequence[int]]]
    units: Sequence[Sequence[float]]
    inputs: Sequence[Sequence[float]]
    used: Sequence[Sequence[int]]
    reading: Sequence[float]
    curves: Sequence[Sequence[float]]
    epochs: Sequence[int]
    lowest: int = -6
    per_decade: int = 4

    def __repr__(self) -> str:
        return f"<Weights: {len(self.layers)} layers, {self.kind} of {self.total} inputs>"


@dataclass(frozen=True)
class Part:
    """One penalty's path.

    Args:
        penalty: its name.
        points: per strength, ascending, 0 first.
        best: the one of least validation loss.
        one_se: the strongest within one standard error of it.
        null_loss: the validation loss of the best constant output, if there is one.
        verdict: in words.
        grid: where the strengths come from, in words.
        settings: how each model was trained.
        sizes: how many parameters are left after shrinking at each point, where that is known.
        weights: what is left of the weights, where that is kept.
        folds: per point, per fold.
    """

    penalty: str
    points: Sequence[Point]
    best: Point
    one_se: Point
    null_loss: float | None
    verdict: str
    grid: str
    settings: Mapping[str, Any]
    sizes: Sequence[float] | None = None
    weights: Weights | None = None
    folds: Sequence[Sequence[Fold]] = ()

    def __repr__(self) -> str:
        return f"<Part: {shortened(self.penalty)}, {len(self.points)} strengths>"


@dataclass(frozen=True)
class Refit:
    """The model at the end: trained on all rows at the strength chosen, as ``refit.json`` has it.

    Args:
        strength: at which.
        choice: ``best`` or ``one_se``; empty where neither is said.
        relaxed: whether it was trained on without the penalty.
        zeros: penalised weights that are exactly zero; ``total``: of how many.
        certificate: where its weights are, as `Certificate.in_words` says it.
    """

    strength: float
    choice: str
    relaxed: bool
    zeros: int
    total: int
    certificate: str

    def __repr__(self) -> str:
        return f"<Refit at {self.strength:.4g}: {self.zeros:,} of {self.total:,} weights zero>"


@dataclass(frozen=True)
class About:
    """What is known of a run beyond its path; whatever is not known is empty.

    Args:
        data: what the data set is called.
        rows: how many rows it has; 0: not known.
        target: what is predicted.
        classes: the names of the classes; none where the target is a number.
        columns: the names of the columns.
        sources: of each input of the first layer, the number of its column; empty: each its own.
        model: what it is, in words.
        command: what makes this again.
        date: when it was run, as text.
        versions: by name.
        refit: the model at the end.
        notes: further sentences.
    """

    data: str = ""
    rows: int = 0
    target: str = ""
    classes: Sequence[str] = ()
    columns: Sequence[str] = ()
    sources: Sequence[int] = ()
    model: str = ""
    command: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    refit: Refit | None = None
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        given = (f"{name}={shortened(repr(value), 30)}" for name, value in vars(self).items() if value)
        return f"About({shortened(', '.join(given), 150)})"


NOT_SAID = About()
"""Of a run of which nothing is known but its path."""


@dataclass(frozen=True)
class View:
    """One path or several, and what is said of them.

    Args:
        parts: each penalty's path.
        best: the number of the best part.
        verdict: whether penalising helps.
        against: of each other penalty by name, whether the best is better.
        test: on rows that chose nothing.
        about: the run.
    """

    parts: Sequence[Part]
    best: int
    verdict: Verdict
    against: Mapping[str, Verdict] = field(default_factory=dict)
    test: Test | None = None
    about: About = NOT_SAID

    def __repr__(self) -> str:
        return f"<View of {shortened(', '.join(part.penalty for part in self.parts), 80)}>"
