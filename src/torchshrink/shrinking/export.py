"""A model as one file for programs without torchshrink: torch.export's .pt2, or ONNX; left there only once compared."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.errors import DataWarning, InputError
from torchshrink.shrinking.comparison import allowed, difference
from torchshrink.shrinking.program import exported, quiet
from torchshrink.shrinking.trace import copy_model
from torchshrink.support.optional import needed
from torchshrink.support.private_torch import pytree
from torchshrink.support.storage import PathLike, brief, folder_path, write_bytes

_Example = tuple[tuple[Any, ...], Mapping[str, Any]]
_Run = Callable[[tuple[Any, ...], dict[str, Any]], list[Tensor]]
_MOST = 2**31 - 2**20  # an ONNX file is one protocol buffer


def export(model: nn.Module, example: _Example, path: PathLike, *, force: bool = False) -> None:
    """Write ``model``, in evaluation mode, to ``path``, which ends in .pt2 or .onnx; compare first, leave it then.

    Args:
        model: as it is now.
        example: its arguments, of two rows or more.
        path: the file.
        force: write over what is there.

    Raises:
        InputError: another ending, a file that is there, a model that cannot be exported, or other outputs.
        MissingDependencyError: a package that .onnx needs is not installed.

    Warns:
        DataWarning: the file takes no other number of rows than the example's, though the model does.
    """
    place = _checked_path(path, force=force)
    args, kwargs = example
    model = copy_model(model).eval().cpu()
    args, kwargs = pytree.tree_map(lambda one: one.cpu() if isinstance(one, Tensor) else one, (args, dict(kwargs)))
    program = _program(model, args, kwargs)
    content, run = _FORMATS[place.suffix](program)
    refused = _compare(model, run, args, kwargs, name=place.name)
    write_bytes(place, content)
    if refused:
        rows = _rows(args, kwargs)
        warnings.warn(
            f"{place.name} takes {rows} rows only, where the model takes {' or '.join(map(str, refused))} too: the "
            "model's code makes a Python number of their number, as len(x) does; x.shape[0] stays open",
            DataWarning,
            stacklevel=3,
        )


def _checked_path(path: PathLike, *, force: bool = False) -> Path:
    """``path``, if a model can be written there.

    Raises:
        InputError: it has another ending, its folder is missing, or something is there and ``force`` is not given.
        MissingDependencyError: a package that .onnx needs is not installed.
    """
    place = folder_path(path, "path")
    if place.suffix not in _FORMATS:
        raise InputError(f"{place}: a name that ends in {' or '.join(_FORMATS)} expected")
    if place.is_dir() or not place.parent.is_dir():
        raise InputError(f"{place}: {'is a folder' if place.is_dir() else f'there is no folder {place.parent}'}")
    if place.exists() and not force:
        raise InputError(f"{place} exists: force=True writes over it")
    require(place.suffix)
    return place


def require(ending: str) -> None:
    """Raise where a file with this ending needs a package that is not installed.

    Raises:
        MissingDependencyError: the message says which.
    """
    if ending == ".onnx":
        with needed("export to .onnx"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401


def _program(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Sizes stay open: all that can, else the rows, else none."""
    failure: Exception | None = None
    for open_dims in (None, 1, 0):

        def shape(value: Any, dims: int | None = open_dims) -> Any:
            if not isinstance(value, Tensor):
                return None
            count = value.ndim if dims is None else min(dims, value.ndim)
            return {dim: torch.export.Dim.AUTO for dim in range(count) if value.shape[dim] != 1}

        shapes: Any = pytree.tree_map(shape, {**kwargs} if kwargs else args)
        try:
            return exported(model, args, kwargs, shapes)
        except Exception as error:  # whatever the model's code or torch.export raises
            failure = failure or error
    assert failure is not None
    raise InputError(f"export: torch.export cannot trace {type(model).__name__}: {brief(failure)}") from failure


def _as_pt2(program: torch.export.ExportedProgram) -> tuple[bytes, _Run]:
    buffer = io.BytesIO()
    with quiet("onnxscript", "onnx_ir"):
        torch.export.save(program, buffer)
        content = buffer.getvalue()
        module = torch.export.load(io.BytesIO(content)).module()

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        return [one for one in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(one, Tensor)]

    return content, run


def _as_onnx(program: torch.export.ExportedProgram) -> tuple[bytes, _Run]:
    import onnxruntime

    try:
        with quiet("onnxscript", "onnx_ir"):
            made: Any = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
            if made.model_proto.ByteSize() > _MOST:
                raise InputError("export: an .onnx file holds at most 2 GiB, and this model has more: take .pt2")
            content: bytes = made.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except InputError:
        raise
    except Exception as error:  # of torch.onnx's, onnx's or onnxruntime's many kinds
        raise InputError(f"export: this model cannot be written as ONNX ({brief(error)}): take .pt2") from error
    names = [each.name for each in session.get_inputs()]

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        found = session.run(None, {name: one.numpy() for name, one in zip(names, given, strict=True)})
        return [torch.as_tensor(one) for one in found]

    return content, run


_FORMATS: dict[str, Callable[[torch.export.ExportedProgram], tuple[bytes, _Run]]] = {
    ".pt2": _as_pt2,
    ".onnx": _as_onnx,
}


def _compare(model: nn.Module, run: _Run, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str) -> list[int]:
    """The file's outputs against the model's, on the example and on other numbers of rows; which it does not take."""
    refused = []
    for number, (some, named) in enumerate(_trials(args, kwargs)):
        try:
            with quiet(), torch.no_grad():
                leaves = pytree.tree_leaves(model(*some, **named))
        except Exception:  # these sizes are not the model's
            continue
        expected = [one for one in leaves if isinstance(one, Tensor)]
        try:
            with quiet("onnxscript", "onnx_ir"), redirect_stderr(io.StringIO()), torch.no_grad():
                found = run(some, named)
        except Exception as error:
            if number:
                refused.append(_rows(some, named))
                continue
            raise InputError(f"export: {name} does not run on the example ({brief(error)})") from error
        worst = max((_in_units_of_rounding(a, b) for a, b in zip(expected, found, strict=False)), default=0.0)
        if len(expected) != len(found) or not worst <= 1:
            raise InputError(
                f"export: {name} was not written: its outputs differ by {worst:.1e} times what rounding explains"
            )
    return refused


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return next(len(one) for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.ndim)


def _trials(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    generator = torch.Generator().manual_seed(0)

    def other(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        more = torch.cat([value, value[:1]])
        noise = torch.randn(more.shape, generator=generator).to(more.dtype) if more.is_floating_point() else 0
        return more + noise

    yield args, kwargs
    yield pytree.tree_map(other, (args, kwargs))
    yield pytree.tree_map(lambda one: one[:1] if isinstance(one, Tensor) and one.ndim else one, (args, kwargs))


def _in_units_of_rounding(expected: Tensor, found: Tensor) -> float:
    """The largest difference in units of what rounding explains: √ε of the largest output, or of 1."""
    if not expected.is_floating_point():
        return 0.0 if expected.dtype == found.dtype and torch.equal(expected, found) else float("inf")
    return difference(expected, found) / allowed(expected.dtype, exact=False)
