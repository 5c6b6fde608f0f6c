"""Which features a model still reads, for ``--groups features``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from torchshrink.data import Dataset

_MOST = 20  # names in one line


def first_layer(model: Mapping[str, Any]) -> str:
    """The name of the weight that reads the features, in the models that the command line makes."""
    return "hidden1.weight" if model["hidden"] else "output.weight"


def encoded_from(data: Dataset) -> list[int]:
    """For each column of that weight, the raw column that it is made of, as in `Preprocess`."""
    return columns_encoded(data.sizes)


def columns_encoded(sizes: Sequence[int]) -> list[int]:
    """The same from each column's count of categories, 0 for a number."""
    return [column for column, size in enumerate(sizes) for _ in range(max(size, 1))]


@torch.no_grad()
def features_of(model: nn.Module, data: Dataset, layer: str) -> dict[str, list[str]]:
    """The names of the features with a weight in ``layer`` that is not zero, ``left``, and of the others, ``gone``."""
    weight = model.get_parameter(layer)
    read = {column for column, on in zip(encoded_from(data), (weight != 0).any(0).tolist(), strict=True) if on}
    names = {column: each.name for column, each in enumerate(data.columns)}
    return {
        "left": [name for column, name in names.items() if column in read],
        "gone": [name for column, name in names.items() if column not in read],
    }


def features_in_words(features: Mapping[str, Sequence[str]]) -> str:
    """How many are left, and which.

    >>> features_in_words({"left": ["age", "size"], "gone": ["city"]})
    '2 of 3 are left: age, size; gone: city'
    """
    left, gone = features["left"], features["gone"]
    parts = [f": {_listed(left)}" if left else "", f"; gone: {_listed(gone)}" if gone else ""]
    return f"{len(left)} of {len(left) + len(gone)} are left" + "".join(parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
