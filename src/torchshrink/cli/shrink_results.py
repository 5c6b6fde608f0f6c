"""Shrinks the model in a run's folder, and shows what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.cli import console
from torchshrink.cli.options import FORMATS
from torchshrink.errors import InputError
from torchshrink.models import Preprocess, load_model, save_model, settings_of
from torchshrink.models.networks import is_users
from torchshrink.shrinking import Shrunk, shrink
from torchshrink.shrinking.export import require
from torchshrink.shrinking.raw_rows import random_rows
from torchshrink.support.storage import claim_folder, read_json, write_json
from torchshrink.support.tables import Column, Table
from torchshrink.support.user_code import call_function

RESULT = "shrink.json"
_WHAT = "shrinking"  # what the result is sealed as
_OWN, _USERS = ("model.safetensors", "model.json"), ("shrunk.safetensors", "shrunk.json")
_ROWS = 64


def shrink_folder(
    folder: Path, out: Path, *, inputs: bool, formats: Sequence[str] = (), model: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Shrink the model in ``folder``, and write the small one to ``out``: its files, and last the result.

    Args:
        folder: of a path, a training or a shrinking.
        out: another folder.
        inputs: whether the small model takes only the columns that it reads.
        formats: files beside: ``pt2``, ``onnx``.
        model: ``module:function``, where the model is made by that; its code is run.
        force: overwrite what an earlier run left in ``out``.

    Raises:
        InputError: there is no model in ``folder``, it is the user's own and ``model`` is not given, or it cannot be
            shrunk or written.
    """
    if not (folder / _OWN[1]).exists():
        there = "there is no such folder" if not folder.exists() else f"there is no {_OWN[1]} in it"
        raise InputError(f"{folder}: {there}; the folder of torchshrink path or torchshrink train expected")
    if out.exists() and out.resolve() == folder.resolve():
        raise InputError(f"--out {out}: the folder of the model itself, which stays as it is; choose another --out")
    for word in formats:
        require(f".{word}")
    settings = read_json(folder / _OWN[1], what="model")
    large = _loaded(folder, settings, model)
    columns = _columns(settings)
    shrunk = shrink(large, _example(large, columns), inputs=inputs and not is_users(settings))
    if inputs and is_users(settings):
        raise InputError(f"--inputs with a model of {settings['model']}: only mlp, logistic and linear are known")
    new = not out.exists()
    claim_folder(out, force=force)
    clear(out)
    try:
        files = _written(shrunk, settings, out, columns)
        for word in formats:
            shrunk.export(out / f"model.{word}")
            files.append(f"model.{word}")
        result = _result(shrunk, folder, out, columns, files)
        write_json(out / RESULT, result | {"files": [*files, RESULT]}, what=_WHAT)
    except BaseException:  # all of it is there or none
        clear(out)
        if new:
            out.rmdir()
        raise
    return shrunk_result(out)


def shrunk_result(out: Path) -> dict[str, Any]:
    """What was written to ``out``, from the disk."""
    result = read_json(out / RESULT, what=_WHAT)
    return result | {"files": [str(out / name) for name in result["files"]]}


def files_of(model: str) -> tuple[str, ...]:
    """What a shrinking writes, by the model's name."""
    return (*(_USERS if ":" in model else _OWN), RESULT)


def clear(out: Path) -> None:
    """Delete what an earlier shrinking wrote to ``out``."""
    for name in (RESULT, *_OWN, *_USERS, *(f"model.{word}" for word in FORMATS)):
        (out / name).unlink(missing_ok=True)


def _loaded(folder: Path, settings: Mapping[str, Any], model: str | None) -> nn.Module:
    if not is_users(settings):
        if model is not None:
            raise InputError(f"--model {model}: {folder} holds torchshrink's own {settings['model']}; leave it out")
        return load_model(folder)
    named = settings["model"]
    if model != named:
        raise InputError(
            f"{folder} holds a model that {named} makes, which is code, and no file may have code run: "
            f"give --model {named}, if you trust it"
        )
    return load_model(folder, build=lambda: call_function(named))


def _columns(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns that the model's rows have, by name and categories, as the run's data had them."""
    data = settings.get("data")
    found = data.get("columns") if isinstance(data, dict) else None
    sizes = settings.get("inputs")
    named = isinstance(found, list) and all(isinstance(each, dict) and "name" in each for each in found)
    if found and named and (sizes is None or len(found) == len(sizes)):
        return list(found)
    if sizes is None:
        raise InputError("model.json does not say which columns the model's rows have: ts.shrink takes an example")
    return [{"name": f"column {place}", "categories": [""] * size} for place, size in enumerate(sizes)]


def _example(model: nn.Module, columns: Sequence[Mapping[str, Any]]) -> Tensor:
    """Random rows of the kinds of the columns, some values of them missing where the model takes that."""
    first = next(iter(model.children()), None)
    if isinstance(first, Preprocess):
        return random_rows(first, _ROWS)
    sizes = [len(column.get("categories", ())) for column in columns]
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    return random_rows(Preprocess(sizes), _ROWS, missing=0.0).to(dtype)


def _written(shrunk: Shrunk, settings: Mapping[str, Any], out: Path, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the small model; which files."""
    if is_users(settings):
        shrunk.save(out, force=True)
        return list(_USERS)
    kept = range(len(columns)) if shrunk.plan.inputs is None else shrunk.plan.inputs
    about = {name: value for name, value in settings.items() if name not in ("data", "weights")}
    data = settings.get("data")
    if isinstance(data, dict):
        about["data"] = data | {"columns": [columns[place] for place in kept]}
    about["not read"] = _names(shrunk, columns)
    save_model(out, shrunk.model, settings_of(shrunk.model, about))
    return list(_OWN)


def _names(shrunk: Shrunk, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(columns[place]["name"]) for place in shrunk.unread_inputs]


def _result(
    shrunk: Shrunk, folder: Path, out: Path, columns: Sequence[Mapping[str, Any]], files: Sequence[str]
) -> dict[str, Any]:
    """What shrink.json says."""
    kept = shrunk.plan.inputs
    return {
        "from": str(folder),
        "layers": {name: [list(before), list(after)] for name, (before, after) in shrunk.kept.items()},
        "parameters": list(shrunk.parameters),
        "operations": list(shrunk.operations),
        "bytes": [os.path.getsize(folder / _OWN[0]), os.path.getsize(out / files[0])],
        "latency": shrunk.latency,
        "difference": shrunk.difference,
        "compared in": shrunk.dtype,
        "stayed": dict(shrunk.pinned),
        "columns": len(columns),
        "not read": _names(shrunk, columns),
        "taken": None if kept is None else [str(columns[place]["name"]) for place in kept],
        "holds for": list(shrunk.ranges),
    }


def show_shrunk(result: Mapping[str, Any]) -> None:
    """The end of a shrinking, on stdout."""
    rows = [
        [name, *(" × ".join(map(str, shape)) for shape in shapes), ""]
        for name, shapes in result["layers"].items()
        if name.endswith("weight")
    ]
    for name, label in (
        ("parameters", "parameters"),
        ("operations", f"operations, {_ROWS} rows"),
        ("bytes", "bytes of the file"),
    ):
        before, after = result[name]
        rows.append([label, f"{before:,}", f"{after:,}", f"{after / before if before else 1:.2f}"])
    table = Table([Column("", left=True), Column("before"), Column("after"), Column("share")], rows)
    console.emit_table(table)
    console.emit("")
    console.emit_pairs([*_pairs(result), ("saved in", console.in_folder(result["files"]))])


def in_a_sentence(result: Mapping[str, Any]) -> str:
    """What came of it, for a report."""
    before, after = result["parameters"]
    return f"shrunk, the refitted model has {after:,} of {before:,} parameters, and the same outputs" + (
        f"; {_not_read(result)}" if result["not read"] else ""
    )


def _not_read(result: Mapping[str, Any]) -> str:
    unread = result["not read"]
    shown = ", ".join(repr(name) for name in unread[:20]) + (f" and {len(unread) - 20} more" * (len(unread) > 20))
    return f"{len(unread)} of {result['columns']} columns are not read by the model: {shown}"


def _pairs(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    difference = f"at most {result['difference']:.1e} apart in {result['compared in']}, in evaluation mode"
    pairs = [("outputs", difference)]
    if result["layers"]:
        pairs.append(("latency", f"{result['latency']:.2f} of what it was, {_ROWS} rows"))
    else:
        pairs.append(("layers", "nothing could go: only whole units and columns go, which group penalties make zero"))
    if result["not read"]:
        fewer = result["taken"] is not None
        end = "the model takes the others only" if fewer else "the model still takes them, whatever they hold"
        pairs.append(("not read", f"{_not_read(result)}; {end}"))
    stayed = [f"{count} units, {reason}" for reason, count in result["stayed"].items()]
    if stayed:
        pairs.append(("stayed", "; ".join(stayed)))
    return pairs
