"""A training's whole state in one file: weights, optimizer, regularizer, generators. Reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.support.randomness import rng_state, set_rng_state
from torchshrink.support.storage import PathLike, read_tensors, write_tensors

if TYPE_CHECKING:
    from torchshrink.regularizer import Regularizer

_FORMAT = "torchshrink-checkpoint-1"
_WHAT = "checkpoint"  # what the file is sealed as
_PARTS = {"model", "optimizer", "regularizer", "rng", "progress"}


def save_checkpoint(
    path: PathLike,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    regularizer: Regularizer | None = None,
    progress: Mapping[str, Any],
) -> None:
    """Write everything that the rest of a training depends on to one file, whole or not at all.

    Args:
        path: the file.
        model: its parameters and buffers.
        optimizer: its state and settings.
        regularizer: its scale and step count.
        progress: whatever the caller's loop needs to go on, such as epoch and history: what JSON takes, and tensors.
    """
    tree = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "regularizer": None if regularizer is None else dict(regularizer.state_dict()),
        "rng": rng_state(),
        "progress": dict(progress),
    }
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(pack(tree, tensors))
    write_tensors(path, tensors, {"format": _FORMAT, "structure": structure}, what=_WHAT)


def load_checkpoint(
    path: PathLike,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    regularizer: Regularizer | None = None,
) -> dict[str, Any]:
    """Read `save_checkpoint`'s file into a model, optimizer and regularizer built and attached as they were then.

    The global random number generators are put back as well, so the training goes on bit for bit.

    Returns:
        The ``progress`` that was saved.

    Raises:
        InputError: the file is missing, truncated, changed or another program's, or does not fit the model or the
            optimizer.
    """
    tree = _read(path)
    if (tree["regularizer"] is None) != (regularizer is None):
        raise InputError(f"{path} was saved {'without' if regularizer else 'with'} a penalty: give the same options")
    try:
        _check_fit(tree, model, optimizer)
        if regularizer is not None:
            regularizer.load_state_dict(tree["regularizer"])
        optimizer.load_state_dict(tree["optimizer"])
        model.load_state_dict(tree["model"])
        set_rng_state(tree["rng"])
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} does not fit this model and optimizer: {reason}") from error
    progress: dict[str, Any] = tree["progress"]
    return progress


def _check_fit(tree: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where anything would not fit, before anything is changed."""
    here = {name: tuple(t.shape) for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    there = {name: tuple(t.shape) for name, t in tree["model"].items() if isinstance(t, Tensor)}
    for name in (*here, *there):
        if here.get(name) != there.get(name):
            raise ValueError(f"{name} is {there.get(name, 'missing')} in the file and {here.get(name, 'missing')} here")
    groups = [len(group["params"]) for group in optimizer.param_groups]
    saved = [len(group["params"]) for group in tree["optimizer"]["param_groups"]]
    if groups != saved:
        raise ValueError(f"the optimizer has parameter groups of {groups}, and the file of {saved}")


def read_progress(path: PathLike) -> dict[str, Any]:
    """The ``progress`` in `save_checkpoint`'s file alone, to be looked at before anything is built.

    Raises:
        InputError: the file is missing, truncated, changed or another program's.
    """
    progress: dict[str, Any] = _read(path)["progress"]
    return progress


def _read(path: PathLike) -> dict[str, Any]:
    tensors, metadata = read_tensors(path, what=_WHAT)
    foreign = f"{path} is not a checkpoint of this version: start over without resuming"
    if metadata.get("format") != _FORMAT:
        raise InputError(foreign)
    try:
        tree: dict[str, Any] = unpack(json.loads(metadata["structure"]), tensors)
        missing = _PARTS - set(tree)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(foreign) from error
    if missing:
        raise InputError(f"{foreign} ({', '.join(sorted(missing))} missing)")
    return tree


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """``value`` as what JSON takes, its tensors moved into ``tensors`` under their place's name.

    >>> tensors = {}
    >>> pack({"state": {0: torch.ones(2)}, "betas": (0.9, 0.99)}, tensors)
    {'state': {'$items': [[0, {'$tensor': 'state.0'}]]}, 'betas': {'$tuple': [0.9, 0.99]}}
    >>> list(tensors)
    ['state.0']
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, Mapping):
        packed = [[key, pack(item, tensors, f"{name}.{key}" if name else str(key))] for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(packed)
        return {"$items": packed}  # JSON would turn an optimizer's numbered parameters into text
    if isinstance(value, list | tuple):
        items = [pack(item, tensors, f"{name}.{number}") for number, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{name} is {type(value).__name__}, which a checkpoint cannot hold: numbers, text and tensors can")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given, from what it returned."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$tensor": name}:
            return tensors[name]
        case {"$tuple": items}:
            return tuple(unpack(item, tensors) for item in items)
        case {"$items": pairs}:
            return {key: unpack(item, tensors) for key, item in pairs}
    return {key: unpack(item, tensors) for key, item in value.items()}
