"""A model on disk: safetensors for its tensors, JSON for its settings; reading it runs no code but the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.models.networks import build as build_from
from torchshrink.models.networks import is_users, sizes
from torchshrink.support.storage import (
    PathLike,
    brief,
    digest_of,
    folder_path,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)

TENSORS, SETTINGS = "model.safetensors", "model.json"
_WHAT, _WEIGHTS = "model", "weights"  # what the two are sealed as
_DIGEST = "weights"  # the settings' entry with the sha256 of the tensors' file


def save_model(folder: PathLike, model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` (parameters and buffers) and ``model.json`` (the settings), each whole or not at all.

    Args:
        folder: an existing folder.
        model: what `build` made of ``settings``, trained.
        settings: those of `model_settings`; add what else should travel with the model.

    Raises:
        InputError: the folder cannot be written, or the model's state has something that is not a tensor.
    """
    place = folder_path(folder)
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"the model's state has {name!r}, a {type(value).__name__}: only tensors can be saved")
    # The JSON last, and bound to the tensors: where both are, they are of one model.
    tensors = place / TENSORS
    write_tensors(tensors, state, what=_WEIGHTS)
    write_json(place / SETTINGS, {**settings, _DIGEST: digest_of(tensors)}, what=_WHAT)


def load_model(folder: PathLike, *, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The model that `save_model` wrote to ``folder``, in evaluation mode. It takes raw rows.

    The files hold no code, and none that they name is run: a model of the user's own, from ``module:function``, needs
    that function as ``build``. The global random state is left as it was.

    Args:
        folder: where it was written.
        build: () -> nn.Module, which makes the model; by default one of torchshrink's own from its settings.

    Raises:
        InputError: a file is missing, truncated, changed or foreign, the two are not of one model, the tensors do not
            fit, or the model is the user's own and no ``build`` is given.

    Example:
        >>> model = load_model("runs/train-digits")                                       # doctest: +SKIP
        >>> model = load_model("runs/train-images", build=my_models.convolutional)        # doctest: +SKIP
    """
    place = folder_path(folder)
    settings = read_json(place / SETTINGS, what=_WHAT)
    if build is None and is_users(settings):
        named = settings["model"]
        raise InputError(
            f"{place} holds a model that {named} makes, which is code, and no file may have code run: "
            f"load_model(folder, build={named.replace(':', '.')}), if you trust it"
        )
    tensors, _ = read_tensors(place / TENSORS, what=_WEIGHTS)
    if settings.get(_DIGEST) != digest_of(place / TENSORS):
        raise InputError(f"{place / TENSORS} holds the weights of another model than its {SETTINGS}: write both again")
    if build is None:
        # Before anything is made: what is allocated is then no more than the file has.
        _check_sizes(sizes(settings), tensors, place / TENSORS)
    with torch.random.fork_rng(devices=[]):
        model = build_from(settings) if build is None else _built(build)
    mine = dict(model.named_parameters())
    dtypes = {t.dtype for name, t in tensors.items() if name in mine and t.is_floating_point()}
    if len(dtypes) == 1:  # a model trained in float64 stays one
        model.to(dtypes.pop())
    _check_fit(model, tensors, place / TENSORS)
    model.load_state_dict(tensors)
    return model.eval()


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        model = build()
    except Exception as error:  # anything may come of the user's code
        raise InputError(f"build() raised {brief(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"build() returned an object of type {type(model).__name__}, a torch.nn.Module expected")
    return model


def _check_sizes(expected: Iterator[tuple[str, tuple[int, ...]]], tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, shape in expected:
        if name not in tensors:
            raise InputError(f"{path} does not fit its model.json: {name!r} is missing")
        if tuple(tensors[name].shape) != shape:
            kind, given = tensors[name].dtype, tuple(tensors[name].shape)
            raise InputError(f"{path} does not fit its model.json: {name!r} is {kind} {given}, {kind} {shape} expected")


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
