"""When a training may end early: at rest, further steps would change nothing that is looked at."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class AtRest:
    """Called after each step: whether no number has moved by more than ``within`` in the last hundred steps."""

    def __init__(self, parameters: Iterable[Tensor], within: float = 1e-12) -> None:
        self._parameters, self._within = list(parameters), within
        self._steps, self._last = 0, self._now()

    def _now(self) -> Tensor:
        return torch.cat([p.detach().double().flatten() for p in self._parameters])

    def __call__(self) -> bool:
        self._steps += 1
        if self._steps % 100:
            return False
        now = self._now()
        moved, self._last = float((now - self._last).abs().max()), now
        return moved < self._within
