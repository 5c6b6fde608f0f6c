"""A path as a person sees it: the tables, the choice, the verdict, the certificate, where the files are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from torchshrink.cli import console
from torchshrink.cli.features import features_in_words
from torchshrink.paths import PathComparison, PathPoint, PathResult


def show_path(result: PathResult | PathComparison, refit: Mapping[str, Any], files: Sequence[str]) -> None:
    """The end of a path, on stdout."""
    parts = list(result.results.values()) if isinstance(result, PathComparison) else [result]
    for part in parts:
        console.emit_wrapped(f"{part.penalty}: {part.grid.words}")
        console.emit_table(points_table(part))
        console.emit("")
    against = result.against.values() if isinstance(result, PathComparison) else ()
    columns = refit["words"].get("columns")
    rows = "rows" if result.test is None else "but the test rows"
    pairs = [
        *([] if result.test is None else [("test", result.test.words)]),
        *([("columns", columns)] if columns else []),
        ("choice", f"{refit['penalty'] if refit['strength'] else 'no penalty'}, the {_CHOICE[refit['choice']]}"),
        ("verdict", result.verdict.words),
        *(("", verdict.words) for verdict in against),
        ("refit", f"on all {rows}{', relaxed' if refit['relaxed'] else ''}: {refit['words']['sparsity']}"),
        *([("features", features_in_words(refit["features"]))] if "features" in refit else []),
        ("certificate", refit["words"]["certificate"]),
        ("saved in", console.in_folder(files)),
    ]
    console.emit_pairs(pairs)


_CHOICE = {
    "best": "strength of least validation loss",
    "one_se": "strongest within one standard error of the least validation loss",
}


def points_table(result: PathResult) -> Table:
    """One row per strength, 0 first; marks at the best and at the strongest within one standard error of it.

    ``parameters`` is how many are left after shrinking, where that is known.
    """
    table = Table(box=None, pad_edge=False)
    classes = any(point.accuracy is not None for point in result.points)
    for name in ("strength", "train", "validation", "± se", "gap", *(["accuracy"] if classes else []), "nonzero"):
        table.add_column(name, justify="right", no_wrap=True)
    if result.sizes is not None:
        table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for place, point in enumerate(result.points):
        size = [_whole(result.sizes[place])] if result.sizes is not None else []
        table.add_row(*_cells(point, classes), *size, _marks(point, result))
    return table


def _cells(point: PathPoint, classes: bool) -> list[str]:
    cells = [f"{point.strength:.3g}"]
    if point.diverged:
        cells += ["diverged", "", "", "", *([""] if classes else [])]
    else:
        cells += [f"{point.train_loss:.4g}", f"{point.validation_loss:.4g}", f"{point.validation_se:.2g}"]
        cells += [f"{point.gap:+.3g}"]
        if classes:
            cells += ["" if point.accuracy is None else f"{100 * point.accuracy:.2f} %"]
    return [*cells, _whole(point.nonzero)]


def _whole(size: float) -> str:
    return f"{size:,.0f}" if math.isfinite(size) else ""


def _marks(point: PathPoint, result: PathResult) -> str:
    marks = (("best", result.best), ("one_se", result.one_se))
    return " ".join(name for name, marked in marks if marked.strength == point.strength)
