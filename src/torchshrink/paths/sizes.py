"""How many parameters are left after shrinking at each point of a path: counted when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchshrink.data.lazy import readers_alive
from torchshrink.errors import InputError
from torchshrink.paths.training_spec import WHOLE, TrainingSpec
from torchshrink.paths.zero_pattern import apply_pattern
from torchshrink.support.randomness import seeded
from torchshrink.support.storage import brief

Pattern = bytes | None
"""A training's `zero_pattern`; None where it diverged or is not kept."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a path's trainings left of their weights.

    Args:
        spec: how they were trained.
        patterns: by point and fold.
    """

    spec: TrainingSpec
    patterns: Sequence[Sequence[Pattern]]

    def __repr__(self) -> str:
        return f"<Trained: zeros of {len(self.patterns)} strengths, sizes not counted yet>"

    def sizes(self) -> tuple[float, ...]:
        """At each point the mean over its folds that did not diverge; infinite where all did.

        The plan of `torchshrink.shrink` is made for each, from one trace; its proof is left to ``refit(shrink=True)``.

        Raises:
            InputError: the model cannot be traced.
        """
        try:
            return self._sizes()
        except InputError:
            raise
        except Exception as error:  # a path's result is saved all the same, whatever the model's code is
            raise InputError(f"the model cannot be analysed as it is trained: {brief(error)}") from error

    def _sizes(self) -> tuple[float, ...]:
        from torchshrink.shrinking.sizes import Sizes  # it takes a second or two to import

        rows = self.spec.X[:2].cpu()
        with torch.inference_mode(False), readers_alive(self.spec.X), seeded(self.spec.part_seed(WHOLE)):
            model = self.spec.fresh().cpu().eval()
            with torch.no_grad():
                model(rows)  # which shapes what torch builds lazily
            counter = Sizes(model, rows)
            known: dict[bytes, int] = {}
            for pattern in dict.fromkeys(each for row in self.patterns for each in row if each is not None):
                apply_pattern(counter.model, pattern)
                known[pattern] = counter.parameters()
        means = []
        for row in self.patterns:
            sound = [known[each] for each in row if each is not None]
            means.append(sum(sound) / len(sound) if sound else math.inf)
        return tuple(means)


@dataclass(frozen=True, eq=False)
class Known:
    """Sizes that were counted before, and read from a file."""

    counted: Sequence[float]

    def __repr__(self) -> str:
        return f"<Known: sizes of {len(self.counted)} strengths>"

    def sizes(self) -> tuple[float, ...]:
        """At each point."""
        return tuple(self.counted)


@dataclass(frozen=True, eq=False)
class Unknown:
    """That there are none, and why."""

    why: str

    def sizes(self) -> tuple[float, ...]:
        """Raises.

        Raises:
            InputError: always, with the reason.
        """
        raise InputError(self.why)
