"""Where the results of one call's trainings go, whichever way they are trained: counted, and into its journal."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from torch import Tensor

from torchshrink.errors import LanesWarning
from torchshrink.paths.folds import Splits
from torchshrink.paths.journal import Journal
from torchshrink.paths.model_weights import Weights
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.progress import Progress
from torchshrink.paths.training_result import TrainingKey, TrainingResult

Results = Mapping[TrainingKey, TrainingResult]


@final
class TrainingStore:
    """The journal, if there is one, and the progress of one call.

    Args:
        splits: the folds of all repeats; only the first repeat's results are shown as the best so far.
        families: for their names.
        journal: what outlives the call.
        progress: where trainings are counted.
    """

    def __init__(
        self, splits: Splits, families: Sequence[PenaltyFamily], journal: Journal | None, progress: Progress
    ) -> None:
        self.progress = progress
        self._first, self._families, self._journal = len(splits.first), families, journal

    def find(self, keys: Iterable[TrainingKey], stack: str = "") -> dict[TrainingKey, TrainingResult] | None:
        """What the journal has of these trainings, if it has them all: else a stack is trained as a whole.

        Args:
            keys: which trainings.
            stack: the name of the stack that trained them; "": each was trained alone.
        """
        if self._journal is None:
            return None
        found = {key: self._journal.read(key, stack) for key in keys}
        return None if None in found.values() else {key: each for key, each in found.items() if each is not None}

    def save(self, results: Results, stack: str = "") -> None:
        """Write them into the journal."""
        if self._journal is not None:
            for key, result in results.items():
                self._journal.write(key, result, stack)

    def count(self, results: Results, *, aside: bool = False) -> None:
        """They are done; ``aside``: they take no part in the choice, as those of later repeats never do."""
        for key, result in results.items():
            if aside or key.fold >= self._first:
                self.progress.aside(key)
            else:
                self.progress.done(key, result)

    def give_up_stack(self, family: int, reason: str) -> None:
        """A stack came to nothing, so that its trainings are done one after another."""
        self.progress.give_up()
        name = self._families[family].name
        warnings.warn(f"{name}: one training after another: {reason}", LanesWarning, stacklevel=5)

    def find_weights(self, stack: str) -> dict[int, dict[str, Tensor]] | None:
        """The weights that a stack of a warm path ended with, by fold."""
        return None if self._journal is None else self._journal.read_weights(stack)

    def save_weights(self, stack: str, weights: Mapping[int, Weights]) -> None:
        """Write them into the journal, for the next strength to start from."""
        if self._journal is not None:
            self._journal.write_weights(stack, weights)

    def drop_weights(self, stack: str) -> None:
        """No strength is to start from these any more."""
        if self._journal is not None:
            self._journal.drop_weights(stack)

    @property
    def advice(self) -> str:
        """What to do when a worker is lost, as a clause."""
        if self._journal is None:
            return "give a folder, in which every finished training is kept, and fewer jobs"
        return (
            f"what was finished is kept in {self._journal.folder}; run it again (on the command line with --resume) to "
            "go on from there, perhaps with fewer jobs"
        )
