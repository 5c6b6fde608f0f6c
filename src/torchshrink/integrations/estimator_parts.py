"""What the scikit-learn estimators are made of: models built for some data, folds, and the way back to its units.

Between a caller's arrays and a path's tensors stand the rows' weights, as a last column, and the targets' scale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import check_cv
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.integrations.estimator_checks import number_of, plain, whole
from torchshrink.integrations.sample_weights import WeightedStandardise
from torchshrink.models import mlp
from torchshrink.paths.settings import PathSettings
from torchshrink.training import WeightedLoss

Module = Callable[[int, int], nn.Module]
Array = np.ndarray[Any, Any]


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
            made: object = self.module(self.inputs, self.outputs)
            if not isinstance(made, nn.Module):
                raise InputError(
                    f"module({self.inputs}, {self.outputs}) returned {type(made).__name__}, an nn.Module expected"
                )
            return nn.Sequential(OrderedDict(rows=WithoutWeight(), module=made)) if self.weighted else made
        network = mlp(self.inputs, self.outputs, hidden=self.hidden)
        if self.weighted:
            network.preprocess = WeightedStandardise(self.inputs)
        return network.to(self.dtype)


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
class Standardised:
    """Targets z (n, k) = (y − mean)/scale by the rows' weights, and the way back to y, (n,) or (n, k)."""

    z: Array
    mean: Array
    scale: Array
    flat: bool

    @classmethod
    def of(cls, y: Array, weights: Array) -> Standardised:
        """Of targets y (n,) or (n, k) whose rows have weights (n,) > 0; a constant column becomes 0."""
        wide = y.reshape(len(y), -1).astype(np.float64)
        mean = np.average(wide, axis=0, weights=weights)
        scale = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=weights))
        constant = (wide == wide[:1]).all(0)
        mean, scale = np.where(constant, wide[0], mean), np.where(constant | (scale == 0), 1.0, scale)
        return cls((wide - mean) / scale, mean, scale, flat=y.ndim == 1)

    def restore(self, model: nn.Module) -> nn.Module:
        """A model of z as one of y."""
        like = next(model.parameters())
        middle, unit = (torch.from_numpy(np.array(each)).to(like) for each in (self.mean, self.scale))
        return nn.Sequential(OrderedDict(network=model, targets=Unstandardise(middle, unit, flat=self.flat)))


@dataclass(frozen=True)
class Targets:
    """What a model is trained on, and by which loss.

    Args:
        values: codes (n,), int64, or numbers (n, k).
        outputs: how many a model has.
        loss: the mean loss of unweighted rows.
        finish: from the model that was trained to one in the caller's units.
    """

    values: Array
    outputs: int
    loss: nn.modules.loss._Loss
    finish: Callable[[nn.Module], nn.Module]

    @property
    def constant(self) -> bool:
        """Whether they are the same in all rows."""
        return bool((self.values == self.values[:1]).all())


@dataclass(frozen=True)
class Task:
    """What is trained on: rows and targets as a path takes them, and how to undo what was done to them.

    ``labels`` are the caller's targets (n, …), classes as codes, and ``counted`` says which of his rows are trained on
    (n,): those of weight 0 are left out.
    """

    X: Tensor
    y: Tensor
    labels: Array
    counted: Array
    build: Build
    settings: PathSettings
    finish: Callable[[nn.Module], nn.Module]


def make_tensors(
    X: Array, targets: Targets, weights: Array | None
) -> tuple[Tensor, Tensor, nn.modules.loss._Loss | WeightedLoss]:
    """Rows, targets and the loss as a path takes them: weights, if there are any, as a last column of both."""
    rows, wanted = torch.from_numpy(np.array(X)), torch.from_numpy(targets.values)
    if wanted.is_floating_point():
        wanted = wanted.to(rows.dtype)
    if weights is None:
        return rows, wanted, targets.loss
    column = torch.from_numpy(weights).to(rows.dtype).unsqueeze(1)
    wide = wanted.reshape(len(wanted), -1).to(rows.dtype)
    return torch.cat([rows, column], 1), torch.cat([wide, column], 1), WeightedLoss(targets.loss)


def make_folds(cv: Any, y: Array, groups: Any, counted: Array, *, classes: bool) -> Any:
    """What `torchshrink.path` takes for ``folds``, from what scikit-learn takes for ``cv``.

    Args:
        cv: a number, which is given on, so that a path draws; None for 5; a splitter, or pairs of row numbers.
        y: the caller's targets, of all rows.
        groups: the caller's, or None.
        counted: which rows take part.
        classes: whether y is of classes.
    """
    if cv is None:
        return 5
    if number_of(cv, Integral) is not None:
        return whole("cv", cv, least=2)
    if isinstance(plain(cv), bool | float | str | bytes):
        raise InputError(f"cv={cv!r}: how many folds expected, a splitter, or pairs of row numbers")
    pairs = check_cv(cv, y, classifier=classes).split(np.empty(len(y)), y, groups)
    return [tuple(each) for each in pairs] if counted.all() else list(_counted_only(pairs, counted))


def _counted_only(pairs: Any, counted: Array) -> Iterator[tuple[Array, Array]]:
    """The same folds among the rows that count, by their numbers there."""
    place = counted.cumsum() - 1
    for number, pair in enumerate(pairs):
        train, held_out = (np.asarray(part) for part in pair)
        kept = place[train[counted[train]]], place[held_out[counted[held_out]]]
        if not all(map(len, kept)):
            what = "trained on" if not len(kept[0]) else "held out"
            raise InputError(f"cv: all rows that fold {number} has {what} have the weight 0: shuffle the rows")
        yield kept
