"""What is looked at: the plain values that pages and pictures are made from. Results make these of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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


@dataclass(frozen=True)
class View:
    """One path or several, and what is said of them first, a sentence each."""

    parts: Sequence[Part]
    said: Sequence[str]
