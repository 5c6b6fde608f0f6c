"""A shrunk model on disk: its plan as JSON, its tensors as safetensors, and no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.shrinking.plan import Fold, Plan
from torchshrink.shrinking.raw_rows import apply_to_chain, begins_with_preprocess
from torchshrink.shrinking.surgery import replace
from torchshrink.shrinking.trace import copy_model, tensor_names
from torchshrink.support.storage import (
    PathLike,
    brief,
    claim_folder,
    digest_of,
    folder_path,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)

_PLAN, _WEIGHTS = "shrunk.json", "shrunk.safetensors"
_FORMAT = 1
_DIGEST = "weights"  # the plan's entry with the sha256 of the tensors' file


def save(model: nn.Module, plan: Plan, folder: PathLike, *, force: bool = False) -> None:
    """Write a shrunk model's plan and tensors to ``folder``.

    Raises:
        InputError: the folder has files in it and ``force`` is not given, or it cannot be written; or the model's
            ``state_dict`` has something else than parameters and buffers.
    """
    tensors = _tensors(model)
    known = {id(tensor) for tensor in tensors.values()}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in known:
            raise InputError(
                f"save: state_dict has {name}, which is {type(value).__name__} and no parameter or buffer, and these "
                "alone are saved without code: take export, or torch.save"
            )
    place = folder_path(folder)
    if not force and place.is_dir() and any(place.iterdir()):
        raise InputError(f"{place} exists and is not empty: save(force=True) writes over what an earlier one left")
    claim_folder(place, force=force)
    # The plan last, and bound to the tensors: where both are, they are of one model.
    write_tensors(place / _WEIGHTS, tensors, what="shrunk weights")
    whose = {_DIGEST: digest_of(place / _WEIGHTS)}
    write_json(place / _PLAN, {"format": _FORMAT, **plan.to_dict(), **whose}, what="shrunk plan")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers under all their names, also the buffers that ``state_dict`` leaves out."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def load_shrunk(folder: PathLike, build: Callable[[], nn.Module]) -> nn.Module:
    """The small model that `Shrunk.save` wrote, bit for bit, in evaluation mode. Nothing in the files can run code.

    Args:
        folder: where it was saved.
        build: makes the model as it was before it shrank. The numbers in its parameters and buffers do not matter; what
            else its code reads does, as it is in no file: settings, and tensors that are plain attributes.

    Raises:
        InputError: a file is missing, or not as it was written, or ``build`` makes another model.

    >>> import tempfile, torch, torchshrink as ts
    >>> def build():
    ...     return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> model = build()
    >>> with torch.no_grad():
    ...     _ = model[0].weight[2:].zero_()
    >>> folder = tempfile.mkdtemp()
    >>> ts.shrink(model, torch.randn(5, 4)).save(folder)
    >>> ts.load_shrunk(folder, build)[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    place = folder_path(folder)
    written = read_json(place / _PLAN, what="shrunk plan")
    tensors, _ = read_tensors(place / _WEIGHTS, what="shrunk weights")
    if written.get(_DIGEST) != digest_of(place / _WEIGHTS):
        raise InputError(f"{place / _WEIGHTS} holds the weights of another model than its {_PLAN}: save both again")
    model = build()
    if not isinstance(model, nn.Module):
        raise InputError(f"load_shrunk: build returned {type(model).__name__}, a torch.nn.Module expected")
    plan = _checked(written, copy_model(model), f"{place / _PLAN}")
    try:
        small = apply_to_chain(model, plan)
    except InputError as error:
        raise InputError(f"{place / _PLAN} does not fit the model that build makes: {error}") from error
    except (RuntimeError, ValueError, AttributeError, TypeError, LookupError) as error:
        raise InputError(f"{place / _PLAN} does not fit the model that build makes: {brief(error)}") from error
    _check_groups(model, small, f"{place / _PLAN}")
    own = _tensors(small)
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "the model that build makes" if name in tensors else str(place / _WEIGHTS)
            raise InputError(f"load_shrunk: {side} has no {name}: give the build of the model that was shrunk")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"load_shrunk: {name} has shape {tuple(tensors[name].shape)} in {place / _WEIGHTS}, "
                f"{tuple(own[name].shape)} expected: give the build of the model that was shrunk"
            )
        kinds = [(one.is_floating_point(), one.is_complex()) for one in (own[name], tensors[name])]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"load_shrunk: {name} is {tensors[name].dtype} in {place / _WEIGHTS}, {own[name].dtype} expected: "
                "give the build of the model that was shrunk"
            )
    return replace(small, {name: _beside(own[name], tensors[name]) for name in tensor_names(small).values()}).eval()


def _beside(old: Tensor, new: Tensor) -> Tensor:
    """The numbers of the file on the device that ``build`` chose, if that can hold numbers."""
    return new if old.device.type == "meta" else new.to(old.device)


def _checked(written: Mapping[str, Any], model: nn.Module, file: str) -> Plan:
    """The part of a plan that makes sizes, with every name and index looked at."""

    def wrong(what: str) -> InputError:
        return InputError(f"{file}: {what}: it is not the plan of the model that build makes, or was changed")

    if written.get("format") != _FORMAT:
        raise wrong(f"format is {str(written.get('format'))[:40]}, {_FORMAT} expected")
    names = set(tensor_names(model).values())
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, dims in _mapping(written.get("kept"), wrong, "kept").items():
        if name not in names:
            raise wrong(f"kept names {name[:80]!r}, which is no parameter or buffer")
        for dim, places in _mapping(dims, wrong, f"kept of {name}").items():
            rank = tensors[name].ndim
            if not dim.isascii() or not dim.isdigit() or len(dim) > 2 or int(dim) >= rank:
                raise wrong(f"dimension {dim[:40]!r} of {name}, which has {rank}")
            kept.setdefault(name, {})[int(dim)] = _places(places, tensors[name].shape[int(dim)], wrong, name)
    groups = _mapping(written.get("groups") or {}, wrong, "groups")
    modules = dict(model.named_modules())
    for path, count in groups.items():
        module = modules.get(path)
        if not isinstance(module, nn.GroupNorm | nn.modules.conv._ConvNd | nn.modules.instancenorm._InstanceNorm):
            raise wrong(f"groups names {path[:80]!r}, which is no module with groups")
        most = next(vars(module)[name] for name in ("num_groups", "groups", "num_features") if name in vars(module))
        if type(count) is not int or not 1 <= count <= most:
            raise wrong(f"groups of {path} is {str(count)[:40]}, a whole number from 1 to {most} expected")
    inputs = written.get("inputs")
    if inputs is not None and begins_with_preprocess(model):
        inputs = _places(inputs, len(model[0].sizes), wrong, "the input")  # type: ignore[arg-type]
    else:
        inputs = None  # what is given to the model is its caller's to choose
    return Plan(kept, _made(written.get("folds"), modules, wrong), (), groups, inputs=inputs)


def _check_groups(model: nn.Module, small: nn.Module, file: str) -> None:
    """Whole groups go: those that stay have as many channels as they had.

    Raises:
        InputError: another number, with which a module computes something else, or does not run.
    """
    for (path, before), after in zip(model.named_modules(), small.modules(), strict=True):
        expected, found = _channels_per_group(before), _channels_per_group(after)
        one = isinstance(before, nn.modules.conv._ConvNd) and before.groups == 1  # whose channels go one by one
        if not one and expected != found:
            raise InputError(
                f"{file}: groups of {path} would have {' and '.join(map(str, found))} channels each, "
                f"{' and '.join(map(str, expected))} expected: it is not the plan of the model that build makes, "
                "or was changed"
            )


def _channels_per_group(module: nn.Module) -> tuple[Fraction, ...]:
    if isinstance(module, nn.GroupNorm):
        return (Fraction(module.num_channels, module.num_groups),)
    if isinstance(module, nn.modules.conv._ConvNd):
        return Fraction(module.in_channels, module.groups), Fraction(module.out_channels, module.groups)
    return ()


_Wrong = Callable[[str], InputError]


def _mapping(value: object, wrong: _Wrong, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(f"{what} is {type(value).__name__}, an object expected")
    return value


def _places(value: object, size: int, wrong: _Wrong, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(type(place) is not int for place in value):
        raise wrong(f"the places kept of {name} are no list of whole numbers")
    if any(after <= before for before, after in pairwise(value)) or not 0 <= value[0] <= value[-1] < size:
        raise wrong(f"the places kept of {name} are not growing, or not between 0 and {size - 1}")
    return tuple(value)


def _made(value: object, modules: Mapping[str, nn.Module], wrong: _Wrong) -> tuple[Fold, ...]:
    if not isinstance(value, list):
        raise wrong(f"folds is {type(value).__name__}, a list expected")
    found = []
    for entry in value:
        fold = _mapping(entry, wrong, "a fold")
        if fold.get("made") is not True:
            continue
        name = fold.get("bias")
        path, _, key = name.rpartition(".") if isinstance(name, str) else ("", "", "")
        module = modules.get(path) if key == "bias" else None
        if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or module.bias is not None or name is None:
            raise wrong(f"a bias is to be made as {str(name)[:80]!r}, where none can be")
        rows: Any = module.out_features if isinstance(module, nn.Linear) else module.out_channels  # type: ignore[unreachable]
        found.append(Fold(name, (0.0,) * rows, made=True))
    if len({fold.bias for fold in found}) < len(found):
        raise wrong("a bias is to be made twice")
    return tuple(found)
