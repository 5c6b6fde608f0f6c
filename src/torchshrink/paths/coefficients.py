"""What a model reads of each input, at each strength: coefficients, or the norms of a network's first layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchshrink.errors import DivergenceError, InputError
from torchshrink.models import Preprocess, Rescale
from torchshrink.paths.refit import Source
from torchshrink.support.optional import needed
from torchshrink.support.progress_bar import Bar

if TYPE_CHECKING:
    from pandas import DataFrame, Index

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def coefficients(
    source: Source, strengths: Sequence[float], names: Sequence[str] | None, *, progress: bool
) -> DataFrame:
    """`torchshrink.paths.PathResult.coefficients`, of what the path was made from."""
    with needed("coefficients()"):
        import pandas as pd

    read: list[_Read | None] = []
    bar = Bar("coefficients", "strength", total=len(strengths), shown=progress)
    try:
        for model in source.models(strengths):
            read.append(None if model is None else _read(model))
            bar.update()
    finally:
        bar.close()
    known = next((each for each in read if each is not None), None)
    if known is None:
        raise DivergenceError(math.nan, 0)
    index = _index(known, _names(known, source, names))
    missing = torch.full_like(known.values, torch.nan)
    values = torch.stack([(missing if each is None else each.values).flatten() for each in read], dim=1)
    return pd.DataFrame(values.numpy(), index=index, columns=pd.Index(list(strengths), name="strength"))


@dataclass(frozen=True, eq=False)
class _Read:
    """What a layer reads.

    Args:
        values: (d,), or of a linear model with several outputs (k, d); float64, on the CPU.
        preprocess: what encodes the inputs before it, if that is known.
        channels: whether these are channels of an image rather than single inputs.
    """

    values: Tensor
    preprocess: Preprocess | None
    channels: bool


@torch.no_grad()
def _read(model: nn.Module) -> _Read:
    weighted = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    layer = next((module for module in weighted if isinstance(module, _LAYERS)), None)
    if layer is None:
        raise InputError(
            f"coefficients() of a {type(model).__name__}: it has no linear and no convolutional layer whose weights "
            "say what is read of an input; refit() gives the model itself"
        )
    weight = layer.weight.detach().double().cpu()
    if not isinstance(layer, nn.Linear):
        return _Read(torch.linalg.vector_norm(weight.transpose(0, 1).flatten(1), dim=1), None, channels=True)
    before = [each for each in model.modules() if isinstance(each, Preprocess) and each.outputs == weight.shape[1]]
    preprocess = before[0] if len(before) == 1 else None
    if len(weighted) > 1:
        return _Read(torch.linalg.vector_norm(weight, dim=0), preprocess, channels=False)
    if preprocess is not None:
        numbers = torch.tensor([preprocess.sizes[column] == 0 for column in preprocess.sources])
        weight = weight / torch.where(numbers, preprocess.scale.cpu(), 1.0)
    for rescale in (each for each in model.modules() if isinstance(each, Rescale)):
        weight = weight * rescale.scale.cpu()
    return _Read(weight.squeeze(0) if len(weight) == 1 else weight, preprocess, channels=False)


def _names(read: _Read, source: Source, given: Sequence[str] | None) -> list[str]:
    """What the inputs are called; a category has a row for each of its levels, by its code."""
    count = read.values.shape[-1]
    if read.channels:
        raw = [f"channel {number}" for number in range(count)]
    elif read.preprocess is not None:
        raw = list(source.spec.names) or [f"x{number}" for number in range(len(read.preprocess.sizes))]
    else:
        raw = list(source.spec.names) if len(source.spec.names) == count else list(_places(source, count))
    if given is not None:
        if len(given) != len(raw):
            raise InputError(f"names: {len(given)} given, {len(raw)} expected: one for each input")
        raw = [str(name) for name in given]
    return raw if read.preprocess is None or read.channels else list(_encoded(read.preprocess, raw))


def _places(source: Source, count: int) -> Iterator[str]:
    """Of inputs without names: their numbers, or their places in a row of several dimensions."""
    row = tuple(source.spec.X.shape[1:])
    if len(row) < 2 or math.prod(row) != count:
        yield from (f"x{number}" for number in range(count))
        return
    for number in range(count):
        place = torch.unravel_index(torch.tensor(number), row)
        yield f"x[{', '.join(str(int(each)) for each in place)}]"


def _encoded(preprocess: Preprocess, names: Sequence[str]) -> Iterator[str]:
    starts = list(itertools.accumulate((max(size, 1) for size in preprocess.sizes), initial=0))
    places = preprocess.encoded or range(starts[-1])
    for place, column in zip(places, preprocess.sources, strict=True):
        yield f"{names[column]}={place - starts[column]}" if preprocess.sizes[column] else names[column]


def _index(read: _Read, names: Sequence[str]) -> Index[Any]:
    import pandas as pd

    if read.values.ndim == 1:
        return pd.Index(names, name="channel" if read.channels else "input")
    outputs = range(len(read.values))
    return pd.MultiIndex.from_product([outputs, names], names=["output", "input"])
