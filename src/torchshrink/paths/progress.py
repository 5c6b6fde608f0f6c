"""One bar on stderr that counts trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.support.progress_bar import Bar, say


class Progress:
    """Counts trainings, and shows the current one and the best mean validation loss so far.

    Args:
        families: for their names.
        folds: how many there are.
        shown: whether to write anything at all.
    """

    def __init__(self, families: Sequence[PenaltyFamily], folds: int, *, shown: bool) -> None:
        self._families = families
        self._folds = folds
        self._rows: dict[tuple[int, float], dict[int, tuple[float, int]]] = {}  # by fold: a probe's comes twice
        self._best = (math.inf, "")
        self._ahead = 0  # trainings that the bar counts already, by the share of their epochs that is done
        self._shown = shown
        self._bar = Bar("path", "training", shown=shown, leave=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def expect(self, trainings: int) -> None:
        """So many are to come, at most: it is said once, before the first, as a total that rises would jump."""
        self._bar.expect(self._bar.total + trainings)

    def spare(self, trainings: int) -> None:
        """So many fewer are to come than was expected."""
        self._bar.expect(self._bar.total - trainings)

    def remain(self, trainings: int) -> None:
        """So many are still to come, and no more than was expected."""
        self._bar.expect(min(self._bar.total, self._bar.done + trainings))

    def again(self, trainings: int) -> None:
        """So many that were done are to be done again."""
        self._bar.update(-trainings)

    def done(self, key: TrainingKey, result: TrainingResult) -> None:
        """One is finished."""
        label = f"{self._families[key.family].name} {key.strength:.3g}"
        seen = self._rows.setdefault((key.family, key.strength), {})
        loss = result.validation_loss if result.diverged is None else math.inf
        seen[key.fold] = (loss, len(result.row_losses))
        if len(seen) == self._folds:
            mean = sum(value * rows for value, rows in seen.values()) / sum(rows for _, rows in seen.values())
            if mean < self._best[0]:
                self._best = (mean, label)
        self._bar.note(f"{label}, fold {key.fold + 1}{self._so_far()}")
        self._count()

    def aside(self, key: TrainingKey) -> None:
        """One is finished that takes no part in the choice."""
        label = f"{self._families[key.family].name} {key.strength:.3g}"
        self._bar.note(f"{label}, fold {key.fold + 1}, for comparison{self._so_far()}")
        self._count()

    def stack(self, lanes: int, alive: int, epoch: int, epochs: int) -> None:
        """A stack has done so many epochs: the bar moves by as many trainings as that comes to."""
        share = lanes * epoch // epochs
        self._bar.note(f"{alive} of {lanes} lanes alive, epoch {epoch}/{epochs}{self._so_far()}")
        self._bar.update(share - self._ahead)
        self._ahead = share

    def give_up(self) -> None:
        """A stack came to nothing: what it had done no longer counts."""
        self._bar.update(-self._ahead)
        self._ahead = 0

    def _count(self) -> None:
        if self._ahead:
            self._ahead -= 1
        else:
            self._bar.update()

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._shown:
            say(line)

    def _so_far(self) -> str:
        return f" | best {self._best[0]:.4g} at {self._best[1]}" if self._best[1] else ""
