"""The table of a path as a person reads it."""

import dataclasses

import pytest
from torch import nn

import torchshrink as ts
from path_cases import iris
from torchshrink.paths.statistics.points import FoldValue, PathPoint
from torchshrink.paths.table import MOST_ROWS, path_table


@pytest.fixture(scope="module")
def result():
    return ts.path(
        lambda: nn.Linear(4, 3), iris(), ts.L1, strengths=[0.1], folds=2, epochs=1, repeats=1, progress=False
    )


def with_losses(result, losses, *, train=0.2, nonzero=5.0, accuracy=None):
    points = tuple(
        PathPoint(k / 10, train, loss, 0.1, loss - train, accuracy, nonzero, (FoldValue(train, loss, None, 5, False),))
        for k, loss in enumerate(losses)
    )
    return dataclasses.replace(result, points=points)


def column(table, name):
    return [row[[each.head for each in table.columns].index(name)] for row in table.rows]


@pytest.mark.parametrize(
    ("losses", "chosen", "marks", "bold"),
    [
        ((0.50, 0.30, 0.31, 0.39, 0.50), None, ["no penalty", "best", "", "one_se", ""], [1, 3]),
        ((0.50, 0.30, 0.31, 0.39, 0.50), 0.1, ["no penalty", "best, chosen", "", "one_se", ""], [1, 3]),
        ((0.50, 0.30, 0.31, 0.39, 0.50), 0.4, ["no penalty", "best", "", "one_se", "chosen"], [1, 3, 4]),
        ((0.50, 0.39, 0.31, 0.30, 0.50), 0.3, ["no penalty", "", "", "best, one_se, chosen", ""], [3]),
        ((0.30, 0.60, 0.60, 0.60, 0.60), 0.0, ["best, one_se, chosen", "", "", "", ""], [0]),
    ],
)
def test_the_rows_that_matter_are_marked(result, losses, chosen, marks, bold):
    table = path_table(with_losses(result, losses), chosen)
    assert column(table, "") == marks
    assert list(table.marked) == bold
    assert column(table, "strength") == ["0", "0.1", "0.2", "0.3", "0.4"]


@pytest.mark.parametrize("count", [1, 2, MOST_ROWS, MOST_ROWS + 1, 33, 500])
@pytest.mark.parametrize("where", [0, 1, 0.37, 1.0])
def test_of_many_strengths_it_shows_the_marked_the_last_and_some_between(result, count, where):
    at = min(round(where * (count - 1)) if where != 1 else 1, count - 1)
    told = with_losses(result, [0.3 if k == at else 0.6 for k in range(count)])
    table = path_table(told, chosen=told.points[-1].strength)
    assert len(table.rows) <= MOST_ROWS + 2
    assert len(table.rows) >= min(count, MOST_ROWS)
    shown = column(table, "strength")
    assert sorted(shown, key=float) == shown
    assert len(set(shown)) == len(shown)
    for point in (told.points[0], told.best, told.one_se, told.points[-1]):
        assert f"{point.strength:.3g}" in shown
    assert (f"{len(shown)} of {count} shown" in str(told)) == (len(shown) < count)


@pytest.mark.parametrize("scale", [1e-7, 1.0, -3.0, 1e12])
@pytest.mark.parametrize("accuracy", [None, 0.999])
def test_what_is_printed_fits_eighty_columns(result, scale, accuracy):
    told = with_losses(result, [scale * loss for loss in (0.5, 0.3, 0.39)], train=0.123456 * scale, accuracy=accuracy)
    told = dataclasses.replace(told, penalty="a very long name of a penalty " * 5)
    lines = str(told).splitlines()
    assert max(map(len, lines)) <= 80
    assert told.verdict.words in " ".join(" ".join(lines).split())
    head = next(line for line in lines if line.split()[:1] == ["strength"])
    assert "validation" in head
    assert "nonzero" in head


def test_a_diverged_strength_says_so_at_any_width(result):
    lost = dataclasses.replace(with_losses(result, (0.5, 0.3)).points[1], folds=(FoldValue(1, 1, None, 5, True),))
    told = dataclasses.replace(result, points=(result.points[0], lost))
    for width in (30, 80, None):
        assert "diverged" in path_table(told).lines(width)[-1]
