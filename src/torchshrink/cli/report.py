"""``torchshrink report``: the report of a path, written again from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchshrink.cli import console, options
from torchshrink.errors import InputError

if TYPE_CHECKING:
    from torchshrink.report.view import About, Refit

PATH, SETTINGS, REFIT, MODEL = "path.json", "settings.json", "refit.json", "model.json"
SHRUNK, REPORT = "shrunk", "report.html"  # the folder of the smaller model, with --shrink
RUN, REFITTED = "run", "refit"  # what settings and refit are sealed as

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", show_default=False, help="What torchshrink path or result.save wrote.")
]
Target = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", show_default=False, help="Another .html, or .png for the picture alone, to write."
    ),
]


def report(
    folder: Folder,
    out: Target = None,
    force: options.Force = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the report of a path again, from the folder that torchshrink path or result.save left.

    Nothing is trained. It replaces FOLDER/report.html, or writes the file that --out names.
    """
    try:
        found, there = (folder / PATH).exists(), folder.exists()
    except (OSError, ValueError) as error:  # a name that no folder can have
        raise InputError(f"FOLDER {str(folder)[:100]!r}: {error}; the folder of torchshrink path expected") from None
    if not found:
        why = f"there is no {PATH} in it" if there else "there is no such folder"
        raise InputError(f"{folder}: {why}; the folder of torchshrink path, or of result.save, expected")
    from torchshrink.paths import load_path
    from torchshrink.report.page import write_report

    target = folder / REPORT if out is None else out
    own = target.absolute() == (folder / REPORT).absolute()
    if not own and target.exists() and not force:
        raise InputError(f"--out {target}: exists already; another name expected, or --force")
    write_report(load_path(folder).view(about_of(folder)), target)
    if own:
        _known_again(folder)
    if json:
        console.emit_json({"files": [str(target)]})
    else:
        console.emit(f"{target}")


def _known_again(folder: Path) -> None:
    """The run is told of its new report, or --resume would take it for a changed one."""
    from torchshrink.support.storage import digest_of, read_json, write_json

    if (folder / SETTINGS).exists():
        settings = read_json(folder / SETTINGS, what=RUN)
        if isinstance(settings.get("digests"), dict):
            settings["digests"] = settings["digests"] | {REPORT: digest_of(folder / REPORT)}
            write_json(folder / SETTINGS, settings, what=RUN)


def about_of(folder: Path) -> About:
    """What the files beside a path say of its run; of a path that was saved without them, nothing.

    Raises:
        InputError: a file is there and is not as it was written.
    """
    from torchshrink.cli.features import columns_encoded
    from torchshrink.cli.shrink_results import RESULT, in_a_sentence, shrunk_result
    from torchshrink.report.view import About
    from torchshrink.support.storage import read_json

    settings = read_json(folder / SETTINGS, what=RUN) if (folder / SETTINGS).exists() else {}
    model = read_json(folder / MODEL, what="model") if (folder / MODEL).exists() else {}
    refit = read_json(folder / REFIT, what=REFITTED) if (folder / REFIT).exists() else None
    data = _mapping(model.get("data"))
    shrunk = settings.get("shrink") and (folder / SHRUNK / RESULT).exists()
    sizes = model.get("inputs")
    return About(
        data=str(data.get("name", "")),
        rows=data["rows"] if isinstance(data.get("rows"), int) else 0,
        target=str(data.get("target", "")),
        classes=[str(each) for each in data.get("classes", [])],
        columns=[str(each["name"]) for each in data.get("columns", [])],
        sources=columns_encoded(sizes) if isinstance(sizes, list) else (),
        command=str(settings.get("command", "")),
        date=str(settings.get("date", "")),
        versions={str(key): str(value) for key, value in _mapping(settings.get("versions")).items()},
        refit=None if refit is None else _refit(refit),
        notes=[in_a_sentence(shrunk_result(folder / SHRUNK))] if shrunk else [],
    )


def _refit(saved: Mapping[str, Any]) -> Refit:
    from torchshrink.report.view import Refit

    sparsity = saved["sparsity"]
    return Refit(
        strength=saved["strength"],
        choice=saved["choice"],
        relaxed=saved["relaxed"],
        zeros=sparsity["zeros"],
        total=sparsity["total"],
        certificate=str(_mapping(saved.get("words")).get("certificate", "")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
