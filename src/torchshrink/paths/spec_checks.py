"""What the caller of a path gives, held against what it must be: one line that says what was expected."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchshrink.data.dense import check_dense
from torchshrink.data.lazy import LazyRows, Rows
from torchshrink.errors import InputError, ObjectiveWarning, TorchshrinkError
from torchshrink.paths.shared_state import SharedState
from torchshrink.support.storage import brief
from torchshrink.training import Loss, WeightedLoss, train_step


def ignored_target(loss: object) -> int:
    """The code of the targets that the loss leaves out, as padding is."""
    given = loss if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) else nn.CrossEntropyLoss()
    return given.ignore_index


def built_model(build: Callable[[], object]) -> nn.Module:
    """The model that ``build()`` returns."""
    name = build.__name__ if isinstance(build, type) else "build"
    try:
        inspect.signature(build).bind()
    except TypeError as error:
        raise InputError(
            f"build: {name} cannot be called without arguments ({error}): give a function that needs none, such as "
            f"lambda: {'Net' if name == 'build' else name}(…)"
        ) from error
    except ValueError:  # a callable that does not tell what it takes
        pass
    try:
        model = build()
    except TorchshrinkError:
        raise
    except Exception as error:
        raise InputError(f"build() raised {brief(error)}") from error
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise InputError(f"build() returned {what}, an nn.Module expected")
    return model


def made_optimizer(make_optimizer: Callable[[Any], object], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that is made of the model's parameters, and of no others."""
    try:
        made = make_optimizer(model.parameters())
    except TorchshrinkError:
        raise
    except Exception as error:
        raise InputError(f"optimizer(parameters) raised {brief(error)}") from error
    if not isinstance(made, torch.optim.Optimizer):
        what = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise InputError(f"optimizer(parameters) returned {what}, a torch.optim.Optimizer expected")
    mine = {id(p) for p in model.parameters()}
    if any(id(p) not in mine for group in made.param_groups for p in group["params"]):
        raise InputError(
            f"optimizer(parameters) returned {type(made).__name__} over other parameters than the model's: make a new "
            "one of the parameters that it is given, in each call"
        )
    return made


def check_step(model: nn.Module, X: Tensor, y: Tensor, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
    """Try a step of a model that is thrown away, so that what fails in training only is told before any training.

    Warns:
        ObjectiveWarning: the step changes a tensor that is no part of the model, so that trainings are not independent.
    """
    model.train()
    shared = SharedState(model, loss)
    try:
        mean = loss(model(X), y)
        if not mean.requires_grad:
            raise InputError(
                "the loss has no gradient: all that is trainable is detached from it, or it counts, as an accuracy does"
            )
        train_step(model, X, y, loss=loss, optimizer=optimizer)
    except TorchshrinkError:
        raise
    except Exception as error:
        takes = inspect.signature(optimizer.step).parameters
        hint = "; its step() is called without a closure" if "closure" in takes else ""
        raise InputError(
            f"a training step of {type(optimizer).__name__} on {len(X)} rows raised {brief(error)}{hint}"
        ) from error
    if (place := shared.changed()) is not None:
        warnings.warn(
            f"a training step changes {place}, which is no part of the model: each training of the path goes on with "
            "what those before it left there, held-out rows among it; keep it in a buffer of the model",
            ObjectiveWarning,
            stacklevel=5,
        )
    shared.put_back()


def checked_data(X: Any, y: Any, loss: object) -> tuple[Rows, Tensor]:
    """Rows and targets (n, …) that can be trained on, by this loss or, if it is None, the default one."""
    ignored = ignored_target(loss)
    X, y = X if isinstance(X, LazyRows) else _tensor("X", X), _tensor("y", y)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise InputError(f"X has shape {tuple(X.shape)} and y {tuple(y.shape)}: one target for each row expected")
    if len(X) < 2:
        raise InputError(f"X has {len(X)} rows: at least 2 expected")
    if isinstance(X, Tensor) and X.is_floating_point() and bool(X.isinf().any()):
        raise InputError("X has infinite values: remove or clip them")
    if y.is_floating_point():
        if not bool(y.isfinite().all()):
            raise InputError(f"y has {int((~y.isfinite()).sum())} values that are NaN or infinite: remove their rows")
        # Whoever gives rows weights has looked at the targets; what comes of constant ones is a constant.
        if bool((y == y[:1]).all()) and not isinstance(loss, WeightedLoss):
            raise InputError(
                f"y is the same in all {len(y)} rows ({float(y.flatten()[0]):g}): there is nothing to learn"
            )
        return X, y
    y = y.long()
    counted = y[y != ignored]
    if bool((counted < 0).any()):
        raise InputError(
            f"y has the class code {int(counted.min())}: codes from 0 expected, or floats for numbers; "
            f"what the loss is to leave out is coded {ignored} (ignore_index)"
        )
    if len(torch.unique(counted)) < 2:
        only = f"one class only ({int(counted.max())})" if len(counted) else f"no class, only {ignored} (ignore_index)"
        raise InputError(f"y has {only}: at least two expected, or floats for numbers")
    return X, y


def _tensor(name: str, part: Any) -> Tensor:
    if isinstance(part, Tensor):
        check_dense(name, part)
        return part.clone() if part.is_inference() else part.detach()
    try:
        array = np.array(part)  # a copy: the caller's may change, or be read-only
        text = array.dtype.kind in "OUS" and all(isinstance(each, str) for each in array.flat)
        if not text:
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {type(part).__name__} given, a tensor or an array of numbers expected") from error
    raise InputError(f"{name}: text given, numbers expected: np.unique(labels, return_inverse=True)[1] makes codes")


def checked_device(wanted: torch.device | str | None, built_on: torch.device) -> torch.device:
    """The device that is wanted, or else the one that the model was built on."""
    if wanted is None:
        return built_on
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"device={str(wanted)!r} cannot be used: {brief(error)}") from error
    return device
