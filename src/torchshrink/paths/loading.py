"""Paths from their files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.paths.comparison import PathComparison
from torchshrink.paths.final_test import final_test_from_dict
from torchshrink.paths.grid import grid_from_dict
from torchshrink.paths.path_files import FORMAT, LOSSES, RESULT, WHAT, losses_of
from torchshrink.paths.path_weights import PathWeights, path_weights_from
from torchshrink.paths.result import PathResult
from torchshrink.paths.saved_path import check_saved
from torchshrink.paths.sizes import Known, Unknown
from torchshrink.paths.statistics.points import point_from_dict
from torchshrink.paths.statistics.verdict import verdict_from_dict
from torchshrink.support.storage import PathLike, folder_path, read_sealed, read_tensors


def load_path(folder: PathLike) -> PathResult | PathComparison:
    """What `PathResult.save` or `PathComparison.save` wrote; all but ``refit``, which needs the data and the code.

    Raises:
        InputError: a file is missing, truncated, changed, another program's, or the two are not of one path; or a value
            is of another type than is written there, or out of its range.
    """
    place = folder_path(folder)
    saved, seal = read_sealed(place / RESULT, what=WHAT)
    tensors, _ = read_tensors(place / LOSSES, what=losses_of(seal))
    if saved.get("format") != FORMAT:
        raise InputError(f"{place / RESULT} is not a path of this version: format {FORMAT!r} expected")
    try:
        check_saved(saved, tensors)
    except InputError as error:
        raise InputError(f"{place / RESULT}: {error}: run it again") from error
    if "results" not in saved:
        return _loaded(
            saved, tensors["losses"], tensors["fold"], path_weights_from(saved["weights"], tensors, "weights.")
        )
    results = {
        name: _loaded(
            each,
            tensors[f"losses.{name}"],
            tensors["fold"],
            path_weights_from(each["weights"], tensors, f"weights.{name}."),
        )
        for name, each in saved["results"].items()
    }
    against = {name: verdict_from_dict(each) for name, each in saved["against"].items()}
    test = final_test_from_dict(saved["test"])
    return PathComparison(results, verdict_from_dict(saved["verdict"]), against, test)


def _loaded(saved: Mapping[str, Any], losses: Tensor, fold: Tensor, weights: PathWeights | None) -> PathResult:
    return PathResult(
        penalty=saved["penalty"],
        points=tuple(point_from_dict(point) for point in saved["points"]),
        verdict=verdict_from_dict(saved["verdict"]),
        grid=grid_from_dict(saved["grid"]),
        null_loss=saved["null_loss"],
        settings=saved["settings"],
        losses=losses,
        fold=fold,
        test=final_test_from_dict(saved["test"]),
        counts=Unknown("this path was saved without sizes: its penalty has no groups, or its model cannot be traced")
        if saved["sizes"] is None
        else Known([math.inf if size is None else size for size in saved["sizes"]]),
        weights=weights,
    )
