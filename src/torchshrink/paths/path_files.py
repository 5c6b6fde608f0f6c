"""The two files of a path: values as JSON, and tensors that are bound to it."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.support.storage import PathLike, folder_path, seal_of, write_json, write_tensors

RESULT = "path.json"
LOSSES = "losses.safetensors"
FORMAT = "torchshrink-path-3"
WHAT = "path"  # what the JSON is sealed as


def write_path(folder: PathLike, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both, over such files of before.

    Raises:
        InputError: the folder cannot be written.
    """
    place = folder_path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror}") from error
    whole = json.loads(json.dumps(plain, allow_nan=False))
    # The JSON last, and the losses bound to it: where both are, they are of one path.
    own = {name: tensor.to(torch.device("cpu")) for name, tensor in tensors.items()}
    write_tensors(place / LOSSES, own, what=losses_of(seal_of(whole, what=WHAT)))
    write_json(place / RESULT, whole, what=WHAT)


def losses_of(seal: str) -> str:
    """What the losses are sealed as."""
    return f"losses of path {seal}"
