"""What is kept of each training for a reader's eyes: few numbers, however large the model.

Of each layer's weights how many are exactly zero and how large the others are, counted in quarters of a decade; of the
first layer what it reads of each input; and the training loss, epoch by epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchshrink.models import Preprocess
from torchshrink.support.text import shortened

PER_DECADE, LOWEST, HIGHEST = 4, -6, 2  # the bins of sizes: quarters of a decade, from 1e-6 to 100
BINS = PER_DECADE * (HIGHEST - LOWEST)
MOST_LAYERS = 64  # the largest of more
MOST_INPUTS = 4096  # of more, the largest `FEW_INPUTS` of each training are kept
FEW_INPUTS = 1024
MOST_EPOCHS = 60  # of a curve

Kind = Literal["coefficients", "norms", "units"]


@dataclass(frozen=True)
class Layer:
    """A weight that is looked at."""

    name: str
    shape: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Looked:
    """Which weights of a model are looked at.

    Args:
        layers: those with two dimensions or more, and whatever else is penalised; the largest where there are many.
        first: the weight that reads the inputs, where it is known; else the first weight.
        kind: what is kept of it: ``coefficients`` (d,), with their signs, where it has one output; the ``norms``
            ‖W[:, j]‖ (d,) of what reads each input; or, where it does not read the inputs one by one, the norms
            ‖W[i]‖ of its ``units``.
    """

    layers: tuple[Layer, ...] = ()
    first: str = ""
    kind: Kind = "norms"

    def __repr__(self) -> str:
        return f"<Looked: {len(self.layers)} layers, {self.kind} of {shortened(self.first, 80)}>"


NOTHING = Looked()
"""No weight."""


@dataclass(frozen=True, eq=False)
class WeightSummary:
    """What is kept of one training.

    Args:
        counts: (L, 1 + BINS) int32: of each layer, exact zeros first, then the others by size.
        units: (L,) int32: of each layer, how many of its rows have a weight that is not zero.
        inputs: (k,) float32: what `Looked.kind` says of the first layer.
        places: (k,) int32: of which inputs; ascending.
        reading: () int32: how many inputs have a weight that is not zero.
        total: how many inputs there are.
        curve: (E,) float32: the mean training loss of each epoch, as seen while training; of many epochs, some, the
            last among them; none where nothing was trained.
    """

    counts: Tensor
    units: Tensor
    inputs: Tensor
    places: Tensor
    reading: Tensor
    total: int
    curve: Tensor

    def __repr__(self) -> str:
        return f"<WeightSummary: {len(self.counts)} layers, {self.total} inputs>"

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        total = torch.tensor([self.total], dtype=torch.int64)
        own = {"counts": self.counts, "units": self.units, "inputs": self.inputs, "places": self.places}
        own |= {"reading": self.reading.reshape(1)}
        return {f"weights.{name}": tensor for name, tensor in (own | {"curve": self.curve, "total": total}).items()}


def summary_from_tensors(tensors: Mapping[str, Tensor]) -> WeightSummary | None:
    """What `WeightSummary.tensors` was called on; None where the file has none."""
    if "weights.counts" not in tensors:
        return None
    own = {name: tensors[f"weights.{name}"] for name in ("counts", "units", "inputs", "places", "curve")}
    return WeightSummary(**own, reading=tensors["weights.reading"].reshape(()), total=int(tensors["weights.total"]))


def looked_at(model: nn.Module, inputs: Iterable[int], penalised: Iterable[Tensor]) -> Looked:
    """What to look at in a model.

    Args:
        model: any.
        inputs: the shape of one row.
        penalised: tensors that some penalty acts on.
    """
    acted = {id(tensor) for tensor in penalised}
    weights = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and parameter.numel() and (parameter.ndim >= 2 or id(parameter) in acted)
    ]
    largest = sorted(weights, key=lambda pair: -pair[1].numel())[:MOST_LAYERS]
    kept = {name for name, _ in largest}
    layers = tuple(Layer(name, tuple(weight.shape)) for name, weight in weights if name in kept)
    if not layers:
        return NOTHING
    first = next(((name, weight) for name, weight in weights if name in kept and weight.ndim >= 2), None)
    if first is None:
        return Looked(layers)
    name, weight = first
    encoded = next((module.outputs for module in model.modules() if isinstance(module, Preprocess)), None)
    owner = model.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, nn.Linear) and owner.in_features in (encoded, math.prod(inputs)):
        return Looked(layers, name, "coefficients" if weight.shape[0] == 1 else "norms")
    return Looked(layers, name, "units")


@torch.no_grad()
def summaries(
    looked: Looked, tensors: Mapping[str, Tensor], curves: Sequence[Sequence[float]] | None = None
) -> list[WeightSummary]:
    """What is kept of several trainings at once.

    Args:
        looked: which weights.
        tensors: each layer's, stacked (S, …), by name; what is missing counts as if it had no weights.
        curves: each training's loss by epoch (S, epochs), if it was trained.
    """
    count = len(next(iter(tensors.values())))
    counts = torch.zeros((count, len(looked.layers), 1 + BINS), dtype=torch.int32)
    units = torch.zeros((count, len(looked.layers)), dtype=torch.int32)
    for at, layer in enumerate(looked.layers):
        if layer.name in tensors:
            weight = tensors[layer.name].detach()
            counts[:, at] = sizes_counted(weight.flatten(1)).to("cpu", torch.int32)
            units[:, at] = (weight.flatten(2) != 0).any(2).sum(1).to("cpu", torch.int32) if weight.ndim > 2 else 0
    first = _first(looked, tensors)
    first = torch.zeros((count, 0)) if first is None else first
    total = first.shape[1]
    reading = (first != 0).sum(1).to(torch.int32)
    everywhere, nothing = torch.arange(total, dtype=torch.int32), torch.zeros(0)
    found = []
    for each in range(count):
        # Copies: a part of a tensor goes to another process with the whole.
        places, inputs = everywhere, first[each].clone()
        if total > MOST_INPUTS:
            places = inputs.abs().topk(FEW_INPUTS).indices.sort().values.to(torch.int32)
            inputs = inputs[places.long()]
        curve = torch.tensor(thinned(curves[each]), dtype=torch.float32) if curves is not None else nothing
        own = counts[each].clone(), units[each].clone()
        found.append(WeightSummary(*own, inputs, places, reading[each].clone(), total, curve))
    return found


def sizes_counted(weights: Tensor) -> Tensor:
    """Of each row of (S, n): how many are exactly zero, and how many of each size, (S, 1 + BINS).

    >>> counts = sizes_counted(torch.tensor([[0.0, 0.0, 1e-6, -0.15]]))
    >>> int(counts[0, 0]), int(counts[0, 1]), int(counts[0, 1 + 4 * 5])
    (2, 1, 1)
    """
    place = ((weights.abs().double().log10() - LOWEST) * PER_DECADE + 1e-9).floor().clamp(0, BINS - 1)
    place = torch.where(weights == 0, torch.zeros_like(place), place + 1).nan_to_num(0.0).long()
    row = torch.arange(len(weights), device=weights.device).unsqueeze(1) * (1 + BINS)
    return torch.bincount((place + row).flatten(), minlength=len(weights) * (1 + BINS)).view(len(weights), 1 + BINS)


def epochs_shown(epochs: int) -> list[int]:
    """Which epochs a curve has, counted from 1: all of few, else some at even distances, the last among them."""
    shown = min(epochs, MOST_EPOCHS)
    return [round((at + 1) * epochs / shown) for at in range(shown)]


def thinned(curve: Sequence[float]) -> list[float]:
    """The values at `epochs_shown`."""
    return [float(curve[epoch - 1]) for epoch in epochs_shown(len(curve))]


def _first(looked: Looked, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """What is kept of the first layer (S, d), on the CPU."""
    if looked.first not in tensors:
        return None
    weight = tensors[looked.first].detach()
    if looked.kind == "coefficients":
        found = weight.flatten(1)
    elif looked.kind == "norms":
        found = torch.linalg.vector_norm(weight.flatten(2), dim=1)
    else:
        found = torch.linalg.vector_norm(weight.flatten(2), dim=2)
    return found.to("cpu", torch.float32)


def layers_to_dict(looked: Looked) -> dict[str, Any]:
    """As JSON takes it."""
    layers = [{"name": layer.name, "shape": list(layer.shape)} for layer in looked.layers]
    return {"layers": layers, "first": looked.first, "kind": looked.kind}


def looked_from_dict(saved: Mapping[str, Any]) -> Looked:
    """What `layers_to_dict` was called on."""
    layers = tuple(Layer(each["name"], tuple(each["shape"])) for each in saved["layers"])
    return Looked(layers, saved["first"], saved["kind"])
