"""Files that are written whole or not at all, and folders that are not overwritten by accident.

A file is written under a temporary name beside its own, flushed to the disk, and renamed over it: a reader, and a run
killed at any moment, sees the old content or the new one, never a part. Reading runs no code (JSON and safetensors),
and a truncated or foreign file is an InputError of one line.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from torchshrink.errors import InputError

PathLike = str | os.PathLike[str]

_LEFTOVER = ".partial"  # the ending of temporary names; only a killed run leaves one behind
_METADATA = "torchshrink"


def brief(error: BaseException) -> str:
    r"""An exception as one line: its type and its message, shortened where it is long.

    >>> brief(ValueError("two\nlines"))
    'ValueError: two lines'
    """
    message = " ".join(str(error).split())
    if len(message) > 300:
        message = message[:299] + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full; what was at ``path`` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_LEFTOVER}")
    try:
        # Not tempfile: its files are private (0600), and the rename would keep that.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path} cannot be written: {_reason(error)}") from error


def write_text(path: PathLike, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all. Raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: PathLike, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON to ``path``, whole or not at all, its keys in their own order.

    Raises:
        InputError: as `write_bytes`.
        ValueError: a NaN or an infinity is in ``value``: JSON has neither.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (any shape, dtype and device) as safetensors to ``path``, whole or not at all.

    Equal tensors and metadata give equal bytes. Tensors that share memory are each written in full.

    Args:
        path: the file.
        tensors: by name.
        metadata: what to keep beside them, text by name.
    """
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    # safetensors writes its metadata in an order that changes from run to run: one entry has no order.
    header = None if metadata is None else {_METADATA: json.dumps(dict(metadata), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(plain, header))


def read_json(path: PathLike) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        InputError: there is no such file, or it is truncated, or not a JSON object.
    """
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file, or a truncated one ({brief(error)}): write it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, an object expected: write it again")
    return value


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file, on the CPU, and its metadata (empty where it has none).

    Raises:
        InputError: there is no such file, or it is truncated, or not safetensors.
    """
    content = _read(path)
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header.get("__metadata__", {}).get(_METADATA, "{}"))
    except (safetensors.SafetensorError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a safetensors file, or a truncated one ({brief(error)}): write it again"
        ) from error
    return tensors, metadata


def claim_folder(path: PathLike, *, force: bool = False, resume: bool = False) -> Path:
    """Make ``path`` a folder to write a run's files to, without overwriting another run's by accident.

    Nothing in it is deleted, except temporary files that a killed run left behind.

    Args:
        path: the folder; made where it is missing, with its parents.
        force: accept a folder that has files in it, to overwrite them.
        resume: accept a folder that has files in it, to go on from them; it may also be missing or empty.

    Raises:
        InputError: it has files in it and neither is given, both are, it is a file, or it cannot be written.
    """
    path = Path(path)
    if force and resume:
        raise InputError("--force starts over and --resume goes on: give one of them")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, a folder to write to expected: choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        entries = list(path.iterdir())
        leftovers = [entry for entry in entries if entry.name.startswith(".") and entry.name.endswith(_LEFTOVER)]
        if len(entries) > len(leftovers) and not (force or resume):
            raise InputError(
                f"{path} exists and is not empty: "
                "--resume goes on from it, --force overwrites it, --out chooses another folder"
            )
        probe = path / f".probe.{secrets.token_hex(4)}{_LEFTOVER}"
        probe.touch()
        for leftover in [*leftovers, probe]:
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {_reason(error)}: choose another --out") from error
    return path


def _read(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """What the system says, without the number and the temporary file's name."""
    return error.strerror or str(error)
