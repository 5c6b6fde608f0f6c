"""The table of a path as a person reads it."""

import dataclasses

import pytest
from torch import nn

import torchshrink as ts
from path_cases import iris
from torchshrink.cli.path_tables import points_table
from torchshrink.paths.statistics.points import FoldValue, PathPoint


@pytest.fixture(scope="module")
def result():
    return ts.path(
        lambda: nn.Linear(4, 3), iris(), ts.L1, strengths=[0.1], folds=2, epochs=1, repeats=1, progress=False
    )


@pytest.mark.parametrize(
    ("losses", "marks"),
    [
        ((0.50, 0.30, 0.31, 0.39, 0.50), ["", "best", "", "one_se", ""]),
        ((0.50, 0.39, 0.31, 0.30, 0.50), ["", "", "", "best one_se", ""]),
        ((0.30, 0.60, 0.60, 0.60, 0.60), ["best one_se", "", "", "", ""]),
    ],
)
def test_the_best_and_the_strongest_within_one_standard_error_are_marked(result, losses, marks):
    points = tuple(
        PathPoint(k / 10, 0.2, loss, 0.1, loss - 0.2, None, 5.0, (FoldValue(0.2, loss, None, 5, False),))
        for k, loss in enumerate(losses)
    )
    table = points_table(dataclasses.replace(result, points=points))
    assert list(table.columns[-1].cells) == marks
    assert list(table.columns[0].cells) == ["0", "0.1", "0.2", "0.3", "0.4"]
