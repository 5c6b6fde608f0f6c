"""A path as a person sees it: the tables, the choice, the verdict, what is left, where the report is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torchshrink.cli import console
from torchshrink.cli.features import features_in_words
from torchshrink.paths import PathComparison, PathResult
from torchshrink.paths.table import sections
from torchshrink.report.numbers import short


def show_path(result: PathResult | PathComparison, refit: Mapping[str, Any], files: Sequence[str]) -> None:
    """The end of a path, on stdout."""
    parts = list(result.results.values()) if isinstance(result, PathComparison) else [result]
    best = result.best if isinstance(result, PathComparison) else result
    for title, table in sections(parts, (best, refit["strength"])):
        console.emit_wrapped(title)
        console.emit_table(table)
        console.emit("")
    against = result.against.values() if isinstance(result, PathComparison) else ()
    columns = refit["words"].get("columns")
    rows = "rows" if result.test is None else "but the test rows"
    report = [name for name in files if name.endswith(".html")]
    pairs = [
        *([] if result.test is None else [("test", result.test.words)]),
        *([("columns", columns)] if columns else []),
        ("choice", _choice(best, refit)),
        ("verdict", result.verdict.words),
        *(("", verdict.words) for verdict in against),
        ("refit", f"on all {rows}{', relaxed' if refit['relaxed'] else ''}: {refit['words']['sparsity']}"),
        *([("features", features_in_words(refit["features"]))] if "features" in refit else []),
        ("certificate", refit["words"]["certificate"]),
        *([("report", report[0])] if report else []),
        ("saved in", console.in_folder([name for name in files if name not in report])),
    ]
    console.emit_pairs(pairs)


_CHOICE = {
    "best": "strength of least validation loss",
    "one_se": "strongest within one standard error of the least validation loss",
}


def _choice(result: PathResult, refit: Mapping[str, Any]) -> str:
    """What was taken, why, and what that does to the loss on unseen rows."""
    what = f"{refit['penalty'] if refit['strength'] else 'no penalty'}, the {_CHOICE[refit['choice']]}"
    losses = {point.strength: point.validation_loss for point in result.points}
    before, after = losses[0.0], losses[refit["strength"]]
    if not refit["strength"] or not math.isfinite(before):
        return f"{what}: {short(after, 4)}"
    return f"{what}: {short(after, 4)}, without penalty {short(before, 4)}, in the table"
