"""The user's own functions, named ``module:function``: the only thing torchshrink loads that may run code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torchshrink.errors import InputError
from torchshrink.support.storage import brief
from torchshrink.support.text import suggestion


def import_function(spec: str) -> Callable[..., Any]:
    """The function that ``spec``, ``module:function``, names. Modules of the working directory are found too.

    Raises:
        InputError: ``spec`` is malformed, there is no such module, it fails to import, or it has no such function.

    >>> import_function("math:sqrt")(4.0)
    2.0
    """
    with _working_directory_importable():
        return _import(spec)


def call_function(spec: str) -> Any:
    """What the function that ``spec`` names returns when called without arguments.

    Raises:
        InputError: as `import_function`, or the function raised.
    """
    with _working_directory_importable():  # also while it runs: functions import too
        function = _import(spec)
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise InputError(f"{spec} was called without arguments and raised {brief(error)}") from error


def _import(spec: str) -> Callable[..., Any]:
    module_name, colon, name = spec.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"{spec!r} is not of the form module:function, for example package.module:build")
    importlib.invalidate_caches()  # the file may be seconds old
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        # Missing itself, or one of its parents; a module that it imports in turn is its own failure.
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{spec}: no module {error.name!r} is installed or in {Path.cwd()}: check its name, or change folder"
            ) from error
        raise InputError(f"{spec}: importing {module_name} raised {brief(error)}") from error
    try:
        function = getattr(module, name)
    except AttributeError as error:
        public = [other for other in vars(module) if not other.startswith("_")]
        raise InputError(f"{spec}: {module_name} has no {name!r}{suggestion(name, public)}") from error
    if not callable(function):
        raise InputError(f"{spec} is of type {type(function).__name__}, a function to call without arguments expected")
    return function  # type: ignore[no-any-return]


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    """The working directory first on ``sys.path``, as with ``python -m``, and off it again afterwards."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have removed it
            sys.path.remove(here)
