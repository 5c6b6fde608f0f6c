"""Files that are written whole or not at all, and folders that are not overwritten by accident.

A file is written under a temporary name beside its own, flushed to the disk, and renamed over it: a reader, and a run
killed at any moment, sees the old content or the new one, never a part. Reading runs no code (JSON and safetensors),
and a truncated or foreign file is an InputError of one line.

A file that says *what* it is carries a seal: the sha256 of its content and of that name. Read as the same again, a file
that was changed, cut short, or put in another's place is an InputError. That finds accidents, not forgers: the seal is
no secret.
"""

from __future__ import annotations

import hashlib
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
_SEAL = "sha256"
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    safetensors.SafetensorError,
)


def brief(error: BaseException) -> str:
    r"""An exception as one line: its type and its message, shortened where it is long.

    >>> brief(ValueError("two\nlines"))
    'ValueError: two lines'
    """
    message = " ".join(str(error).split())
    if len(message) > 300:
        message = message[:299] + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def folder_path(given: object, name: str = "folder") -> Path:
    """A path as it may be given: text, bytes, or whatever is ``os.PathLike``.

    Raises:
        InputError: it is something else.
    """
    try:
        return Path(os.fsdecode(given))  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{name}: {type(given).__name__} given, a path expected, as text or a pathlib.Path") from error


def write_bytes(path: PathLike, *parts: bytes | memoryview) -> None:
    """Write the ``parts``, one after another, to ``path``, whole or not at all.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full; what was at ``path`` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_LEFTOVER}")
    try:
        try:
            # Not tempfile: its files are private (0600), and the rename would keep that.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        raise InputError(f"{path} cannot be written: {_reason(error)}") from error


def write_text(path: PathLike, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all. Raises as `write_bytes`."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file's name may hold what is no text


def write_json(path: PathLike, value: Mapping[str, Any], *, what: str | None = None) -> None:
    """Write ``value`` as JSON to ``path``, whole or not at all, its keys in their own order.

    Args:
        path: the file.
        value: its keys are texts.
        what: what the file is, if it is to be sealed as that; the seal is its last entry.

    Raises:
        InputError: as `write_bytes`.
        ValueError: a NaN or an infinity is in ``value``: JSON has neither.
    """
    sealed = value if what is None else {**value, _SEAL: seal_of(value, what=what)}
    text = json.dumps(sealed, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        content = text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, as Python has it for a file's name that is no text
        content = (json.dumps(sealed, indent=2, allow_nan=False) + "\n").encode()
    write_bytes(path, content)


def write_tensors(
    path: PathLike,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    what: str | None = None,
) -> None:
    """Write named tensors (any shape, dtype and device) as safetensors to ``path``, whole or not at all.

    Equal tensors and metadata give equal bytes. Tensors that share memory are each written in full.

    Args:
        path: the file.
        tensors: by name.
        metadata: what to keep beside them, text by name.
        what: what the file is, if it is to be sealed as that.
    """
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(plain)
    header, data = _parts(content)
    if metadata is not None or what is not None:
        beside = dict(metadata or {})
        if what is not None:
            beside[_SEAL] = _tensors_seal(header, data, beside, what)
        # safetensors writes its metadata in an order that changes from run to run: one entry has no order.
        header = {"__metadata__": {_METADATA: json.dumps(beside, sort_keys=True)}, **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little"), text, data)


def read_json(path: PathLike, *, what: str | None = None) -> dict[str, Any]:
    """The JSON object in ``path``, without its seal.

    Args:
        path: the file.
        what: what it was written as; None: whatever it is.

    Raises:
        InputError: there is no such file, or it is truncated, no JSON object, or not as it was written.
    """
    return read_sealed(path, what=what)[0]


def read_sealed(path: PathLike, *, what: str | None) -> tuple[dict[str, Any], str]:
    """`read_json` and the seal, to which another file may be bound."""
    try:
        value = json.loads(_read(path))
        if not isinstance(value, dict):
            raise InputError(f"{path} holds a JSON {type(value).__name__}, an object expected: write it again")
        seal = value.pop(_SEAL, None) if what is not None else None
        sound = what is None or seal == seal_of(value, what=what)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file, or a truncated one ({brief(error)}): write it again") from error
    if not sound:
        raise _other(path, what, sealed=seal is not None)
    return value, seal or ""


def read_tensors(path: PathLike, *, what: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file, on the CPU, and its metadata (empty where it has none) without its seal.

    Args:
        path: the file.
        what: what it was written as; None: whatever it is.

    Raises:
        InputError: there is no such file, or it is truncated, not safetensors, or not as it was written.
    """
    content = _read(path)
    try:
        tensors = safetensors.torch.load(content)
        header, data = _parts(content)
        metadata = json.loads(header.pop("__metadata__", {}).get(_METADATA, "{}"))
        seal = metadata.pop(_SEAL, None)
        sound = what is None or seal == _tensors_seal(header, data, metadata, what)
    except _UNREADABLE as error:
        raise InputError(
            f"{path} is not a safetensors file, or a truncated one ({brief(error)}): write it again"
        ) from error
    if not sound:
        raise _other(path, what, sealed=seal is not None)
    return tensors, metadata


def digest_of(path: PathLike) -> str | None:
    """The sha256 of a file's bytes, or None where there is no such file.

    Raises:
        InputError: it cannot be read.
    """
    return hashlib.sha256(_read(path)).hexdigest() if os.path.lexists(path) else None


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


def seal_of(value: Mapping[str, Any], *, what: str) -> str:
    """The seal of a JSON object as `write_json` gives it."""
    return hashlib.sha256(json.dumps([what, value]).encode()).hexdigest()


def _tensors_seal(header: Mapping[str, Any], data: memoryview, metadata: Mapping[str, str], what: str) -> str:
    hashed = hashlib.sha256(json.dumps([what, dict(metadata), dict(header)], sort_keys=True).encode())
    hashed.update(data)
    return hashed.hexdigest()


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """A safetensors file's header, and the bytes behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), memoryview(content)[end:]


def _other(path: PathLike, what: str | None, *, sealed: bool) -> InputError:
    name = str(what).split()[0]
    if not sealed:
        return InputError(f"{path} is not a {name} of this version (it has no sha256 of its content): write it again")
    return InputError(
        f"{path} is not the {name} that was written there (it was changed, or is another file): write it again"
    )


def _read(path: PathLike) -> bytes:
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe or a device might have no end
            raise InputError(f"{path} cannot be read: not a file")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    """What the system says, without the number and the temporary file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
