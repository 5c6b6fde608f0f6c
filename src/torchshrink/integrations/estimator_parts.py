"""What the scikit-learn estimators are made of: models built for some data, and the way back to its units.

Between a caller's arrays and a path's tensors stand the rows' weights, as a last column, and the targets' scale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from torchshrink.integrations.sample_weights import WeightedStandardise
from torchshrink.models import mlp
from torchshrink.paths.settings import PathSettings

Module = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Build:
    """() -> a new model of so many inputs and outputs; a class, so that it can be pickled."""

    inputs: int
    outputs: int
    hidden: tuple[int, ...]
    module: Module | None
    weighted: bool
    dtype: torch.dtype

    def __call__(self) -> nn.Module:
        """A new one."""
        if self.module is not None:
            made = self.module(self.inputs, self.outputs)
            return nn.Sequential(OrderedDict(rows=WithoutWeight(), module=made)) if self.weighted else made
        made = mlp(self.inputs, self.outputs, hidden=self.hidden)
        if self.weighted:
            made.preprocess = WeightedStandardise(self.inputs)
        return made.to(self.dtype)


class WithoutWeight(nn.Module):
    """Rows (…, d + 1) without their weight, (…, d)."""

    def forward(self, rows: Tensor) -> Tensor:
        """All columns but the last."""
        return rows[..., :-1]


class Unstandardise(nn.Module):
    """Outputs (…, k) in the targets' own units: mean + scale · f; (…) where there was one column of none."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, *, flat: bool) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.flat = flat

    def forward(self, output: Tensor) -> Tensor:
        """In the targets' units."""
        wide = self.mean + self.scale * output
        return wide.squeeze(-1) if self.flat else wide


@dataclass(frozen=True)
class Task:
    """What is trained on: rows and targets as a path takes them, and how to undo what was done to them."""

    X: Tensor
    y: Tensor
    codes: np.ndarray
    build: Build
    loss: nn.Module | None
    settings: PathSettings
    finish: Callable[[nn.Module], nn.Module]
