"""Whether a run may write where it is told to; asked before anything else, so that nobody waits for a refusal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torchshrink.cli import console
from torchshrink.errors import InputError


def refuse_taken(out: Path, *, force: bool, resume: bool | None = None) -> None:
    """Raise unless ``out`` can become, or is, the folder of this run. Nothing is made yet.

    ``resume`` is None where there is nothing to go on from.

    Raises:
        InputError: it is a file, cannot be written, or has files in it and neither ``force`` nor ``resume`` is given.
    """
    if force and resume:
        raise InputError("--force starts over and --resume goes on: give one of them")
    place = out
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
    except (OSError, ValueError) as error:  # a name that is too long, or that no folder can have
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--out {str(out)[:100]}: {reason}; choose another --out") from None
    if not place.is_dir():
        raise InputError(f"--out {out}: {place} is a file, a folder expected; choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: {place} cannot be written to; choose another --out")
    if place == out and any(out.iterdir()) and not (force or resume):
        raise InputError(
            f"--out {out}: exists and is not empty; {'' if resume is None else '--resume goes on from it, '}"
            "--force overwrites it, or choose another --out"
        )


def refuse_changed(settings: Mapping[str, Any], saved: Mapping[str, Any], where: Path) -> None:
    """Raise unless a run is resumed with the very settings that it was started with.

    Raises:
        InputError: they differ; the message names what, there and here.
    """
    there, here = _flat(saved), _flat(settings)
    differing = [name for name in dict.fromkeys([*there, *here]) if there.get(name) != here.get(name)]
    if differing:
        what = "; ".join(f"{name} was {_show(there.get(name))}, now {_show(here.get(name))}" for name in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"--resume: {where} was started otherwise ({what}{more}); give the same options, or start over with --force"
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _show(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def start_afresh(folder: Path, missing: str, what: str) -> None:
    """Say that there is nothing to resume in ``folder``; an error where the files in it are of something else."""
    if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise InputError(
            f"--resume: {folder} has files in it but no {missing} of a {what}; "
            "choose another --out, or start over with --force"
        )
    console.say(f"nothing to resume in {folder}: starting from the beginning")


@contextlib.contextmanager
def said_how_to_start_over() -> Iterator[None]:
    """What is wrong with a file that is to be gone on from ends with what can be done."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--resume: {error}, or start over with --force") from error


def digests(folder: Path, names: Iterable[str]) -> dict[str, str | None]:
    """The sha256 of each file of a run that is finished, to be kept in one that is sealed."""
    from torchshrink.support.storage import digest_of

    return {name: digest_of(folder / name) for name in names}


def are_there(folder: Path, files: object, names: Iterable[str]) -> bool:
    """Whether every file of a finished run is there; `digests` gave ``files``.

    Raises:
        InputError: one of them is not what the run wrote.
    """
    if not isinstance(files, Mapping):
        return False
    now = digests(folder, names)
    for name, digest in now.items():
        if digest is not None and digest != files.get(name):
            raise InputError(
                f"--resume: {folder / name} is not what this run wrote there: put it back, or delete it to have the "
                "run done again"
            )
    return None not in now.values()
