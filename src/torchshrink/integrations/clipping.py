"""Clipped gradients: the penalty is outside the clip, so that in such a step another λ acts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import final

import torch
from torch import Tensor

from torchshrink.integrations.callbacks import tell

_ALMOST = 0.999  # gradients that have been clipped are at the limit but for rounding


@final
class Clipping:
    """Watches whether gradients are clipped.

    Args:
        limit: where they are clipped.
        setting: what the user has set to have them clipped, such as ``TrainingArguments(max_grad_norm=)``.
        order: of the norm that is limited; ∞ for clipping by value.

    Warns:
        ObjectiveWarning: at once, that they are clipped.
    """

    def __init__(self, limit: float, setting: str, order: float = 2.0) -> None:
        self._setting = setting
        self._active: Tensor | float = 0.0
        self._steps = 0
        self._last: dict[Hashable, tuple[Tensor, float]] = {}
        self.limit, self.order = limit, order
        tell(
            f"gradients are clipped at {limit:g} ({setting}): in a step in which that happens, the loss is scaled "
            "down and the penalty is not, so that another, larger λ acts; when training ends this will say whether "
            "it still did"
        )

    @torch.no_grad()
    def look(self, parameters: Iterable[Tensor], key: Hashable = None) -> None:
        """Before or after they are clipped; only before can it be told by how much. Nothing is waited for.

        Args:
            parameters: whose gradients are clipped together.
            key: of which optimizer, where several step in turn.
        """
        norms = [torch.linalg.vector_norm(p.grad, self.order).float() for p in parameters if p.grad is not None]
        if norms:
            there = torch.stack([norm.to(norms[0].device) for norm in norms])
            norm = torch.linalg.vector_norm(there, math.inf if self.order == math.inf else 2)
            self._active = self._active + (norm >= _ALMOST * self.limit)
            self._steps += 1
            self._last[key] = norm, self.limit

    def end(self, norm: float | None = None) -> None:
        """Training has ended.

        Args:
            norm: the last one known from before the gradients were clipped.

        Warns:
            ObjectiveWarning: they were clipped in the last step, too.
        """
        still = [(float(last), limit) for last, limit in self._last.values() if float(last) >= _ALMOST * limit]
        if not still:
            return
        factor = max(max(last, norm or 0.0) / limit for last, limit in still)
        known = factor > 1.01
        times = f", by a factor of {factor:.3g}" if known else ""
        what = "a λ larger than the one given" + (", by that factor" if known else "; by how much cannot be told here")
        tell(
            f"gradients were clipped at {self.limit:g} in {int(self._active)} of {self._steps} steps, and still when "
            f"training ended{times}: what was solved for is {what}; switch {self._setting} off, or raise it until the "
            "last steps are free of it"
        )
