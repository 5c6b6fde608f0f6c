"""What is penalised at each of several strengths: l1·|w| + l2·w² of each weight and intercept of a linear layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchshrink.penalties.base import Strength

Pair = tuple[Tensor, Tensor]
Given = tuple[Strength, Strength]


@dataclass(frozen=True, eq=False)
class Strengths:
    """The penalties Σ l1·|w| + l2·w² of one linear layer at S strengths, in float64.

    Attributes:
        l1: on the weights (S, k, d), at least 0; infinite where a weight is to stay 0.
        l2: likewise, finite.
        intercept: (l1, l2) on the intercepts, (S, k) each; zeros where they are free; None where there are none.
    """

    l1: Tensor
    l2: Tensor
    intercept: Pair | None

    @classmethod
    def of(cls, weight: Tensor, weights: Sequence[Given], intercepts: Sequence[Given] | None) -> Strengths:
        """Of each strength's (l1, l2) on the weights of a layer, and on its intercepts where there are any."""
        on_intercept = None if intercepts is None else _spread(intercepts, weight[:, 0])
        return cls(*_spread(weights, weight), on_intercept)

    def __len__(self) -> int:
        return len(self.l1)

    def __getitem__(self, numbers: list[int]) -> Strengths:
        intercept = None if self.intercept is None else (self.intercept[0][numbers], self.intercept[1][numbers])
        return Strengths(self.l1[numbers], self.l2[numbers], intercept)

    def joined(self, number: int) -> Pair:
        """(l1, l2) on weights and intercepts at one strength, (k, d) or (k, d + 1) each."""
        if self.intercept is None:
            return self.l1[number], self.l2[number]
        l1, l2 = self.intercept[0][number], self.intercept[1][number]
        return (
            torch.cat([self.l1[number], l1.unsqueeze(1)], 1),
            torch.cat([self.l2[number], l2.unsqueeze(1)], 1),
        )

    @functools.cached_property
    def on_intercept(self) -> list[bool]:
        """Whether any intercept is penalised."""
        if self.intercept is None:
            return [False] * len(self)
        l1, l2 = self.intercept
        return _some(l1 + l2 > 0)

    @functools.cached_property
    def free(self) -> list[bool]:
        """Whether nothing is penalised."""
        weights = _some(self.l1 + self.l2 > 0)
        return [not (one or other) for one, other in zip(weights, self.on_intercept, strict=True)]

    @functools.cached_property
    def uniform(self) -> list[tuple[float, float] | None]:
        """The one l1 > 0 and the one l2 of all weights, where there are such, and free intercepts if any."""
        l1, l2 = self.l1[:, :1, :1], self.l2[:, :1, :1]
        same = ~((self.l1 != l1) | (self.l2 != l2)).flatten(1).any(1)
        pairs = zip(same.tolist(), l1.flatten().tolist(), l2.flatten().tolist(), self.on_intercept, strict=True)
        return [(a, b) if alike and 0 < a < torch.inf and not more else None for alike, a, b, more in pairs]

    @functools.cached_property
    def bounded(self) -> list[bool]:
        """Whether each weight is penalised, and so is each intercept, or none of them: then F has a dual here."""
        weights = (self.l1 + self.l2 > 0).flatten(1).all(1).tolist()
        if self.intercept is None:
            return weights
        l1, l2 = self.intercept
        intercepts = (l1 + l2 > 0).all(1).tolist()
        return [
            one and (other or not more) for one, other, more in zip(weights, intercepts, self.on_intercept, strict=True)
        ]


def _some(there: Tensor) -> list[bool]:
    return there.flatten(1).any(1).tolist()


def _spread(pairs: Sequence[Given], like: Tensor) -> Pair:
    """(S, …) each, of numbers or of what broadcasts to ``like`` (…)."""
    l1, l2 = (_spread_one([pair[which] for pair in pairs], like) for which in (0, 1))
    return l1, l2


def _spread_one(values: Sequence[Strength], like: Tensor) -> Tensor:
    if all(isinstance(value, float | int) for value in values):
        numbers = torch.tensor(values, dtype=torch.float64, device=like.device)
        return numbers.reshape(-1, *[1] * like.ndim).expand(-1, *like.shape)
    each = [torch.as_tensor(value, dtype=torch.float64, device=like.device).expand(like.shape) for value in values]
    return torch.stack(each)
