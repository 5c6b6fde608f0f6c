"""A model on disk: safetensors for its tensors, JSON for its settings; reading it runs no code but the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.models.networks import build
from torchshrink.support.storage import PathLike, read_json, read_tensors, write_json, write_tensors


def save_model(folder: PathLike, model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` (parameters and buffers) and ``model.json`` (the settings), each whole or not at all.

    Args:
        folder: an existing folder.
        model: what `build` made of ``settings``, trained.
        settings: those of `model_settings`; add what else should travel with the model.

    Raises:
        InputError: the folder cannot be written, or the model's state has something that is not a tensor.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"the model's state has {name!r}, a {type(value).__name__}: only tensors can be saved")
    write_tensors(Path(folder) / "model.safetensors", state)
    write_json(Path(folder) / "model.json", settings)


def load_model(folder: PathLike) -> nn.Module:
    """The model that `save_model` wrote to ``folder``, in evaluation mode. It takes raw rows.

    A model from ``module:function`` is made by calling that function again. The global random state is left as it was.

    Raises:
        InputError: a file is missing, truncated or foreign, or the tensors do not fit the model.
    """
    settings = read_json(Path(folder) / "model.json")
    tensors, _ = read_tensors(Path(folder) / "model.safetensors")
    with torch.random.fork_rng(devices=[]):
        model = build(settings)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:  # a model trained in float64 stays one
        model.to(dtypes.pop())
    _check_fit(model, tensors, Path(folder) / "model.safetensors")
    model.load_state_dict(tensors)
    return model.eval()


def _check_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise an InputError of one line at the first tensor that ``model`` lacks, misses, or has in another form."""
    state = model.state_dict()
    for name in [*state, *tensors]:
        if name not in tensors:
            raise InputError(f"{path} does not fit its model.json: {name!r} is missing")
        if name not in state:
            raise InputError(f"{path} does not fit its model.json: the model has no {name!r}")
        saved, expected = tensors[name], state[name]
        if saved.shape != expected.shape or saved.dtype != expected.dtype:
            raise InputError(
                f"{path} does not fit its model.json: {name!r} is {saved.dtype} {tuple(saved.shape)}, "
                f"{expected.dtype} {tuple(expected.shape)} expected"
            )
