"""What concerns ``torch.compile``, without loading the compiler."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.disable``, which loads the compiler (more than a second) only once somebody else has."""
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return called


@functools.cache
def cannot_compile() -> str | None:
    """Why ``torch.compile`` does nothing here, or None; most often there is no C++ compiler, or it is switched off."""
    from torchshrink.support.storage import brief  # only here: it loads safetensors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled = torch.compile(_tells_whether_compiled)(torch.zeros(8))
        except Exception as error:  # of many kinds, none of which torch documents
            return brief(error)
    return None if bool(compiled.all()) else "it is switched off, and leaves functions as they are"


def _tells_whether_compiled(x: Tensor) -> Tensor:
    return x + 1 if torch.compiler.is_compiling() else x


def program_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with a code object of its own.

    What is compiled is kept by code object, and torch gives up after eight programs of one: functions that are made by
    one ``def``, each to be compiled once, would count together.
    """
    assert isinstance(function, FunctionType)
    return FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
