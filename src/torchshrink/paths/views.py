"""Results as the plain values that pages and pictures are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torchshrink.paths.path_weights import PathWeights
from torchshrink.report.view import About, Part, View, Weights

if TYPE_CHECKING:
    from torchshrink.paths.comparison import PathComparison
    from torchshrink.paths.result import PathResult


def view_of_result(result: PathResult, about: About) -> View:
    """One penalty's path."""
    return View((part_of(result),), 0, result.verdict, {}, result.test, _completed(about, result))


def view_of_comparison(comparison: PathComparison, about: About) -> View:
    """Several penalties' paths."""
    results = list(comparison.results.values())
    return View(
        parts=tuple(part_of(result) for result in results),
        best=results.index(comparison.best),
        verdict=comparison.verdict,
        against=comparison.against,
        test=comparison.test,
        about=_completed(about, comparison.best),
    )


def part_of(result: PathResult) -> Part:
    """One penalty's part of a view."""
    return Part(
        result.penalty,
        result.points,
        result.best,
        result.one_se,
        result.null_loss,
        verdict=result.verdict.words,
        grid=result.grid.words,
        settings=result.settings,
        sizes=result.sizes,
        weights=None if result.weights is None else _weights(result.weights),
        folds=tuple(point.folds for point in result.points),
    )


def _completed(about: About, result: PathResult) -> About:
    """With what the path itself knows: model, versions, and, while it has the data, a DataFrame's columns."""
    versions = result.settings.get("versions", {})
    model = about.model or str(result.settings.get("model", ""))
    columns = about.columns or (() if result.source is None else result.source.spec.names)
    known = about.versions or (versions if isinstance(versions, Mapping) else {})
    return replace(about, model=model, versions=known, columns=columns)


def _weights(kept: PathWeights) -> Weights:
    return Weights(
        layers=[(layer.name, layer.shape) for layer in kept.looked.layers],
        kind=kept.looked.kind,
        first=kept.looked.first,
        row=kept.row,
        total=kept.total,
        places=kept.places.tolist(),
        counts=kept.counts.tolist(),
        units=kept.units.tolist(),
        inputs=kept.inputs.tolist(),
        used=kept.used.tolist(),
        reading=kept.reading.tolist(),
        curves=kept.curves.tolist(),
        epochs=kept.epochs.tolist(),
    )
