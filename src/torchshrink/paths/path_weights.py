"""What a path's trainings left of their weights, over its strengths: what a report draws, and a file keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.paths.training_result import TrainingResult
from torchshrink.paths.weight_summary import (
    BINS,
    MOST_INPUTS,
    Looked,
    WeightSummary,
    epochs_shown,
    layers_to_dict,
    looked_from_dict,
)

MOST_KEPT = 256  # inputs, of more than a summary keeps all of
_SHAPES = {"counts": 3, "units": 2, "inputs": 2, "used": 2, "reading": 1, "curves": 2, "places": 1, "epochs": 1}


@dataclass(frozen=True, eq=False)
class PathWeights:
    """Of each point of a path, over the folds whose training did not diverge.

    Args:
        looked: which weights.
        row: the shape of one row of the data.
        total: how many inputs (or units) the first layer has.
        places: (k,) int64: which of these are kept; all, unless they are very many.
        counts: (P, L, 1 + BINS) int64: the folds' weights by layer and size, exact zeros first, as in `WeightSummary`.
        units: (P, L) float32: rows of each layer with a weight that is not zero, the folds' mean.
        inputs: (P, k) float32: coefficients or norms of the first layer, the folds' mean; NaN where it is not known.
        used: (P, k) int16: in how many folds that is not zero.
        reading: (P,) float32: how many inputs have a weight that is not zero, the folds' mean.
        curves: (P, E) float32: the training loss by epoch, the folds' mean; E is 0 where nothing was trained.
        epochs: (E,) int64: which epochs, from 1.
    """

    looked: Looked
    row: tuple[int, ...]
    total: int
    places: Tensor
    counts: Tensor
    units: Tensor
    inputs: Tensor
    used: Tensor
    reading: Tensor
    curves: Tensor
    epochs: Tensor

    def __repr__(self) -> str:
        return f"<PathWeights: {len(self.counts)} strengths, {self.looked!r}>"

    def to_dict(self) -> dict[str, Any]:
        """What is no tensor, as JSON takes it."""
        return layers_to_dict(self.looked) | {"row": list(self.row), "total": self.total}

    def tensors(self) -> dict[str, Tensor]:
        """The rest, by name."""
        return {name: getattr(self, name) for name in _SHAPES}


def path_weights(
    looked: Looked, row: Sequence[int], epochs: int, table: Sequence[Sequence[TrainingResult]]
) -> PathWeights | None:
    """Over the folds of each strength; None where a training has no summary, or there is nothing to look at.

    Args:
        looked: which weights.
        row: the shape of one row of the data.
        epochs: how many passes a training has.
        table: per strength, per fold.
    """
    found = [[each.weights for each in point if each.diverged is None] for point in table]
    first = next((each for point in found for each in point if each is not None), None)
    if first is None or not looked.layers or any(each is None for point in found for each in point):
        return None
    sound = [[each for each in point if each is not None] for point in found]
    places, layers = _kept(sound, first.total), len(looked.layers)
    dense = [_placed(point, places) for point in sound]
    none = torch.full((1, len(places)), torch.nan)

    def means(of: Sequence[Sequence[Tensor]], width: int) -> Tensor:
        empty = torch.full((width,), torch.nan)
        return torch.stack([torch.stack([*point]).float().mean(0) if point else empty for point in of])

    drawn = len(first.curve)
    return PathWeights(
        looked=looked,
        row=tuple(row),
        total=first.total,
        places=places,
        counts=torch.stack(
            [sum((each.counts.long() for each in point), torch.zeros(layers, 1 + BINS).long()) for point in sound]
        ),
        units=means([[each.units for each in point] for point in sound], layers),
        inputs=torch.stack([(each if len(each) else none).mean(0) for each in dense]),
        used=torch.stack([((each != 0) & ~each.isnan()).sum(0) for each in dense]).to(torch.int16),
        reading=means([[_reading(each) for each in point] for point in sound], 1).squeeze(1),
        curves=means([[each.curve for each in point if len(each.curve) == drawn] for point in sound], drawn),
        epochs=torch.tensor(epochs_shown(epochs)[:drawn] if drawn else [], dtype=torch.int64),
    )


def path_weights_from(
    saved: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], prefix: str
) -> PathWeights | None:
    """What was saved with `PathWeights.to_dict` and, under names that begin with ``prefix``, `PathWeights.tensors`."""
    if saved is None:
        return None
    own = {name: tensors[prefix + name] for name in _SHAPES}
    return PathWeights(looked_from_dict(saved), tuple(saved["row"]), saved["total"], **own)


def check_path_weights(saved: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str, *, points: int) -> None:
    """Raise unless the tensors are there and of one another's sizes."""
    for name, dimensions in _SHAPES.items():
        if prefix + name not in tensors or tensors[prefix + name].ndim != dimensions:
            raise InputError(f"{prefix}{name}: a tensor in {dimensions} dimensions expected")
        if tensors[prefix + name].is_complex() or tensors[prefix + name].isinf().any():
            raise InputError(f"{prefix}{name}: finite numbers expected")
    sizes = {name: tuple(tensors[prefix + name].shape) for name in _SHAPES}
    layers, (kept,), (drawn,) = len(saved["layers"]), sizes["places"], sizes["epochs"]
    wanted: dict[str, tuple[int, ...]] = {
        "counts": (points, layers, 1 + BINS),
        "units": (points, layers),
        "inputs": (points, kept),
        "used": (points, kept),
        "reading": (points,),
        "curves": (points, drawn),
    }
    for name, shape in wanted.items():
        if sizes[name] != shape:
            raise InputError(f"{prefix}{name}: shape {sizes[name]}, {shape} expected")
    if (
        kept
        and not 0 <= int(tensors[prefix + "places"].min()) <= int(tensors[prefix + "places"].max()) < saved["total"]
    ):
        raise InputError(f"{prefix}places: numbers from 0 to {saved['total'] - 1} expected")


def _kept(sound: Sequence[Sequence[WeightSummary]], total: int) -> Tensor:
    """Which inputs: all, or those that are largest over all trainings."""
    if total <= MOST_INPUTS:
        return torch.arange(total)
    sums = torch.zeros(total, dtype=torch.float64)
    for point in sound:
        for each in point:
            sums[each.places.long()] += each.inputs.abs().double()
    return sums.topk(MOST_KEPT).indices.sort().values


def _placed(point: Sequence[WeightSummary], places: Tensor) -> Tensor:
    """Each fold's values (K, k) at these places; 0 where a summary that has all its nonzeros has none there."""
    rows = []
    for each in point:
        if len(each.inputs) == each.total:
            rows.append(each.inputs[places])
            continue
        # What is left out is less than the least that is kept: zero, if that is.
        known = torch.full((each.total,), 0.0 if bool((each.inputs == 0).any()) else torch.nan)
        known[each.places.long()] = each.inputs
        rows.append(known[places])
    return torch.stack(rows) if rows else torch.zeros(0, len(places))


def _reading(each: WeightSummary) -> Tensor:
    return each.reading.reshape(1)
