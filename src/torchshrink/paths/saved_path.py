"""What ``path.json`` must hold: the types and ranges of everything that `PathResult.to_dict` writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.paths.path_weights import check_path_weights
from torchshrink.support.json_checks import (
    anything,
    flag,
    interval,
    items,
    mapping,
    number,
    one_of,
    optional,
    record,
    several,
    text,
    whole,
)

_SHARE = number(0, 1)
_LOSS = optional(number())  # null for what is infinite, or has nothing to compare

_VERDICT = record(
    {
        "helps": flag,
        "harms": flag,
        "relative": flag,
        "change": _LOSS,
        "interval": optional(interval),
        "before": _LOSS,
        "after": _LOSS,
        "better": whole(0),
        "compared": whole(0),
        "over": one_of("folds", "rows"),
        "level": _SHARE,
        "words": text,
    }
)
_TEST = record(
    {
        "penalty": text,
        "strength": number(0),
        "rows": whole(1),
        "trained": whole(1),
        "unpenalised_loss": _LOSS,
        "tuned_loss": _LOSS,
        "unpenalised_accuracy": optional(_SHARE),
        "tuned_accuracy": optional(_SHARE),
        "accuracy_interval": optional(interval),
        "verdict": _VERDICT,
        "words": text,
    }
)
_GRID = record(
    {
        "strengths": several(number(0), least=1),
        "how": one_of("given", "exact", "probed"),
        "words": text,
        "probes": several(items(number(0), optional(number()))),
    }
)
_FOLD = record(
    {
        "train_loss": _LOSS,
        "validation_loss": _LOSS,
        "accuracy": optional(_SHARE),
        "nonzero": whole(0),
        "diverged": flag,
    }
)
_POINT = record(
    {
        "strength": number(0),
        "train_loss": _LOSS,
        "validation_loss": _LOSS,
        "validation_se": optional(number(0)),
        "gap": _LOSS,
        "accuracy": optional(_SHARE),
        "nonzero": optional(number(0)),
        "folds": several(_FOLD, least=1),
    }
)
_WEIGHTS = record(
    {
        "layers": several(record({"name": text, "shape": several(whole(1))}), least=1),
        "first": text,
        "kind": one_of("coefficients", "norms", "units"),
        "row": several(whole(0)),
        "total": whole(0),
    }
)
_RESULT = {
    "format": text,
    "penalty": text,
    "settings": mapping(anything),
    "grid": _GRID,
    "null_loss": optional(number()),
    "best": number(0),
    "one_se": number(0),
    "verdict": _VERDICT,
    "test": optional(_TEST),
    "points": several(_POINT, least=1),
    "sizes": optional(several(optional(number(0)), least=1)),
    "weights": optional(_WEIGHTS),
}
_COMPARISON = {
    "format": text,
    "best": text,
    "verdict": _VERDICT,
    "test": optional(_TEST),
    "against": mapping(_VERDICT),
    "results": mapping(record(_RESULT), least=1),
}


def check_saved(saved: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Check one path, or a comparison of several, and that the rows' losses are of it.

    Raises:
        InputError: the message begins with the place in the file.
    """
    if "results" not in saved:
        record(_RESULT)(saved, "")
        _check_points(saved, "", tensors, "losses")
        _check_weights(saved, tensors, "weights.")
        return
    record(_COMPARISON)(saved, "")
    if saved["best"] not in saved["results"]:
        raise InputError(f"best: {saved['best']!r}, one of {', '.join(saved['results'])} expected")
    for name, result in saved["results"].items():
        _check_points(result, f"results.{name}.", tensors, f"losses.{name}")
        _check_weights(result, tensors, f"weights.{name}.")


def _check_weights(saved: dict[str, Any], tensors: dict[str, Tensor], prefix: str) -> None:
    if saved["weights"] is not None:
        check_path_weights(saved["weights"], tensors, prefix, points=len(saved["points"]))


def _check_points(saved: dict[str, Any], place: str, tensors: dict[str, Tensor], losses: str) -> None:
    """That what is said of the points agrees with them."""
    strengths = [point["strength"] for point in saved["points"]]
    if strengths != sorted({0.0, *strengths}):
        raise InputError(f"{place}points: the strengths must ascend from 0")
    if saved["sizes"] is not None and len(saved["sizes"]) != len(strengths):
        raise InputError(f"{place}sizes: {len(saved['sizes'])}, one for each of {len(strengths)} points expected")
    folds = {len(point["folds"]) for point in saved["points"]}
    if len(folds) > 1:
        raise InputError(f"{place}points: {min(folds)} to {max(folds)} folds, as many at each strength expected")
    for name in ("best", "one_se"):
        if saved[name] not in strengths:
            raise InputError(f"{place}{name}: {saved[name]:g}, the strength of a point expected")
    for name, dtype, sizes in ((losses, torch.float64, (strengths,)), ("fold", torch.int64, ())):
        found = tensors.get(name)
        if found is None or found.dtype != dtype or found.ndim != 1 + len(sizes):
            raise InputError(f"{name}: {dtype} in {1 + len(sizes)} dimensions expected")
    if tensors[losses].shape != (len(tensors["fold"]), len(strengths)):
        raise InputError(
            f"{losses}: shape {tuple(tensors[losses].shape)}, ({len(tensors['fold'])}, {len(strengths)}) expected"
        )
