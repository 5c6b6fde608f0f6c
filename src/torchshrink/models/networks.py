"""The default models, and the plain settings that any model of a run is made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from torchshrink.errors import InputError
from torchshrink.models.preprocessing import Preprocess, Rescale
from torchshrink.support.text import suggestion
from torchshrink.support.user_code import call_function

FORMAT = 1  # of model.json; a reader refuses what it does not know
_ENCODED = "encoded"  # the setting that a model has which was shrunk
_BUILTIN_SETTINGS = ("inputs", "outputs", "hidden", "regression")
BUILTIN_MODELS = ("mlp", "logistic", "linear")


def mlp(
    inputs: int | Sequence[int],
    outputs: int,
    *,
    hidden: Sequence[int] = (64, 64),
    regression: bool = False,
    encoded: Sequence[int] | None = None,
) -> nn.Sequential:
    """A multi-layer perceptron with ReLU that takes raw rows; without hidden layers, logistic or linear regression.

    Initial weights are torch's default, drawn from its global generator: seed it before.

    Args:
        inputs: how many numbers a raw row has, or the size of each column as `Preprocess` takes them.
        outputs: how many classes; 1 for numbers.
        hidden: the width of each hidden layer.
        regression: whether the target is a number. The model then returns (B,) in the target's units; else (B,
            outputs).
        encoded: which of the encoded columns are used, as `Preprocess` takes them; by default all.

    >>> [name for name, _ in mlp(4, 3, hidden=(8,)).named_children()]
    ['preprocess', 'hidden1', 'relu1', 'output']
    """
    if outputs < 1 or (regression and outputs != 1):
        raise InputError(f"outputs={outputs}: expected {'1 for regression' if regression else 'at least 1'}")
    if any(width < 1 for width in hidden):
        raise InputError(f"hidden={list(hidden)}: expected widths of at least 1")
    preprocess = Preprocess((0,) * inputs if isinstance(inputs, int) else inputs, encoded)
    layers: OrderedDict[str, nn.Module] = OrderedDict(preprocess=preprocess)
    width = preprocess.outputs
    for number, next_width in enumerate(hidden, start=1):
        layers[f"hidden{number}"] = nn.Linear(width, next_width)
        layers[f"relu{number}"] = nn.ReLU()
        width = next_width
    layers["output"] = nn.Linear(width, outputs)
    if regression:
        layers["rescale"] = Rescale()
    return nn.Sequential(layers)


def model_settings(
    model: str, *, inputs: Sequence[int], outputs: int, hidden: Sequence[int] = (64, 64), regression: bool = False
) -> dict[str, Any]:
    """What `build` needs to make a model, as plain JSON.

    Args:
        model: ``mlp``, ``logistic`` or ``linear`` (no hidden layers), or ``module:function``, called without arguments.
        inputs: as `mlp`, per column.
        outputs: as `mlp`.
        hidden: as `mlp`; ``logistic``, ``linear`` and ``module:function`` have their own.
        regression: as `mlp`.

    Raises:
        InputError: there is no such model, or it is ``logistic`` for regression.
    """
    if ":" in model:
        return {"format": FORMAT, "model": model}
    if model not in BUILTIN_MODELS:
        expected = f"{', '.join(BUILTIN_MODELS)} or module:function"
        raise InputError(f"model {model!r}: expected {expected}{suggestion(model, BUILTIN_MODELS)}")
    if model == "logistic" and regression:
        raise InputError("model 'logistic' is for classes and the target is numbers: take 'linear' or 'mlp'")
    widths = list(hidden) if model == "mlp" else []
    return {
        "format": FORMAT,
        "model": model,
        "inputs": list(inputs),
        "outputs": outputs,
        "hidden": widths,
        "regression": regression,
    }


def build(settings: Mapping[str, Any]) -> nn.Module:
    """A new model, with new initial weights, from the settings of `model_settings`; further entries are ignored.

    Raises:
        InputError: the settings are of another format or incomplete, or the user's function fails (see `call_function`)
            or returns no module.
    """
    if is_users(settings):
        built = call_function(settings["model"])
        if not isinstance(built, nn.Module):
            raise InputError(
                f"{settings['model']} returned an object of type {type(built).__name__}, a torch.nn.Module expected"
            )
        return built
    inputs, outputs, hidden, regression = _parsed(settings)
    return mlp(inputs, outputs, hidden=hidden, regression=regression, encoded=settings.get(_ENCODED))


def settings_of(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a model of these sizes: those of ``settings``, where ``model`` became smaller, its own.

    Args:
        model: what `build` makes of ``settings``, shrunk since.
        settings: of a built-in model.
    """
    preprocess = next(module for module in model.children() if isinstance(module, Preprocess))
    widths = [module.out_features for module in model.children() if isinstance(module, nn.Linear)][:-1]
    own: dict[str, Any] = {"inputs": list(preprocess.sizes), "hidden": widths}
    if preprocess.encoded is not None:
        own[_ENCODED] = list(preprocess.encoded)
    return {name: value for name, value in settings.items() if name != _ENCODED} | own


def is_users(settings: Mapping[str, Any]) -> bool:
    """Whether the model of these settings is made by a function of the user's.

    Raises:
        InputError: the settings are of another format, or name no model.
    """
    if settings.get("format") != FORMAT:
        raise InputError(f"model settings of format {settings.get('format')!r} given, format {FORMAT} expected")
    model = settings.get("model")
    if isinstance(model, str) and ":" in model:
        return True
    if model not in BUILTIN_MODELS:
        raise InputError(f"model settings name the model {model!r}: expected {', '.join(BUILTIN_MODELS)}")
    return False


def sizes(settings: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of each tensor whose size follows from the settings, one after another; nothing is made.

    Raises:
        InputError: the settings are incomplete, or not of their types.
    """
    inputs, outputs, hidden, _ = _parsed(settings)
    encoded = settings.get(_ENCODED)
    width = sum(max(size, 1) for size in inputs) if encoded is None else len(encoded)
    for name in ("mean", "scale", "seen"):
        yield f"preprocess.{name}", (width,)
    names = [*(f"hidden{number}" for number in range(1, len(hidden) + 1)), "output"]
    for name, next_width in zip(names, [*hidden, outputs], strict=True):
        yield f"{name}.weight", (next_width, width)
        yield f"{name}.bias", (next_width,)
        width = next_width


def _parsed(settings: Mapping[str, Any]) -> tuple[list[int], int, list[int], bool]:
    """``inputs``, ``outputs``, ``hidden`` and ``regression`` of a built-in model."""
    inputs, outputs, hidden, regression = (settings.get(name) for name in _BUILTIN_SETTINGS)
    if (
        not _whole_numbers(inputs)
        or not _whole_numbers(hidden)
        or type(outputs) is not int
        or type(regression) is not bool
    ):
        given = ", ".join(f"{name} {str(settings.get(name, 'missing'))[:40]}" for name in _BUILTIN_SETTINGS)
        raise InputError(
            f"model settings are incomplete or not of their types: {given}; "
            "lists of whole numbers, a whole number, such a list, and true or false expected"
        )
    encoded = settings.get(_ENCODED)
    if encoded is not None and not _whole_numbers(encoded):
        raise InputError(f"model settings: encoded is {str(encoded)[:40]}, a list of whole numbers expected")
    return inputs, outputs, hidden, regression  # type: ignore[return-value]


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)
