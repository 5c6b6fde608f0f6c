import base64
import re
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

import torchshrink as ts
from path_cases import spec_for
from torchshrink.errors import InputError
from torchshrink.paths.assemble import Layout, compare, make_result, penalising
from torchshrink.paths.engines.warm_path import WarmTables
from torchshrink.paths.folds import make_splits
from torchshrink.paths.grid import given_grid
from torchshrink.paths.null_model import NullLoss
from torchshrink.paths.penalty_family import family
from torchshrink.paths.refit import Source
from torchshrink.paths.training_result import TrainingResult
from torchshrink.paths.verdict_evidence import Evidence
from torchshrink.regularizer.selection import WEIGHTS
from torchshrink.report.page import page, write_report
from torchshrink.report.picture import draw, png


def made(penalty=ts.L1, **settings):
    """A result without any training: losses in a valley, weights that vanish."""
    return made_with_ways(penalty, **settings)[0]


def compared(*penalties):
    results, splits, ways = zip(*(made_with_ways(penalty) for penalty in penalties), strict=True)
    return compare(results, Evidence(splits[0], ways, seed=0), ways, NullLoss(None, None))


def made_with_ways(penalty, *, strengths=(1e-4, 1e-3, 1e-2), diverged=(), scale=1.0):
    y = torch.arange(24) % 2
    tuned = family(penalty)
    spec = spec_for(
        lambda: torch.nn.Linear(2, 2),
        (torch.zeros(24, 2), y),
        [tuned],
        epochs=3,
        batch_size=8,
        loss=None,
        optimizer=None,
        seed=0,
        device=None,
        on=WEIGHTS,
        method="auto",
    )
    grid = given_grid((0.0, *strengths))
    splits = make_splits(y, 3, repeats=1, seed=0)
    generator = torch.Generator().manual_seed(0)
    table = []
    for number, strength in enumerate(grid.strengths):
        level = scale * (0.3 + 0.1 * (number - 2) ** 2)
        table.append(
            [
                TrainingResult(
                    0.8 * level,
                    level + 0.05 * torch.randn(8, generator=generator, dtype=torch.float64),
                    0.75,
                    100 - 30 * number,
                    diverged=2 if strength in diverged else None,
                )
                for _ in splits.first
            ]
        )
    ways = WarmTables(table, table[:1])
    result = make_result(
        Source(spec, tuned),
        grid,
        ways,
        layout=Layout(splits, torch.arange(24), 24),
        verdict=penalising(Evidence(splits, [ways], seed=0), [0]),
        null=NullLoss(0.69 * scale, 0.69 * scale),
    )
    return result, splits, ways


def lines(axis, label):
    (line,) = (line for line in axis.get_lines() if line.get_label() == label)
    return line


def test_shows_what_the_points_say():
    result = made()
    upper = result.plot()
    (top,) = upper.child_axes
    for label, values in (
        ("validation", [p.validation_loss for p in result.points]),
        ("training", [p.train_loss for p in result.points]),
    ):
        np.testing.assert_allclose(lines(upper, label).get_ydata(), values)
    x = lines(upper, "validation").get_xdata()
    np.testing.assert_allclose(x[1:], [1e-4, 1e-3, 1e-2])
    assert 0 < x[0] < 1e-4
    assert upper.get_xscale() == "log"
    assert upper.get_xticks()[0] == x[0]
    assert upper.get_xticklabels()[0].get_text() == "0"
    counts = dict(zip(top.get_xticks(), (label.get_text() for label in top.get_xticklabels()), strict=True))
    assert counts == {place: str(100 - 30 * k) for k, place in enumerate(x)}
    marked = {each.get_label(): each.get_offsets()[0] for each in upper.collections if len(each.get_offsets())}
    assert marked["best"][1] == pytest.approx(result.best.validation_loss)
    assert marked["one SE"][0] == pytest.approx(result.one_se.strength)


def test_one_column_per_penalty_on_the_same_scale():
    comparison = compared(ts.L1, ts.L2)
    figure = draw(comparison.view())
    assert len(figure.axes) == 2
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert [axis.get_title().split(":")[0] for axis in figure.axes[:2]] == ["l1", "l2"]


@pytest.mark.parametrize("count", [2, 3, 8, 26])
def test_several_penalties_are_in_one_picture_and_can_be_told_apart(count):
    results = [made() for _ in range(count)]
    for number, result in enumerate(results):
        object.__setattr__(result, "penalty", f"_p${number}")
    comparison = compared(ts.L1, ts.L2)
    object.__setattr__(comparison, "results", {result.penalty: result for result in results})
    axes = comparison.plot()
    drawn = [line for line in axes.get_lines() if len(line.get_ydata()) == 4]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn}) == min(count, 24)
    told = [text.get_text().replace("\\", "") for text in axes.get_legend().get_texts()]
    assert told == [*(f"p${number}" for number in range(count)), "best constant output"]
    for line, result in zip(drawn, results, strict=True):
        np.testing.assert_allclose(line.get_ydata(), [point.validation_loss for point in result.points])
    starred = [each.get_offsets()[0][1] for each in axes.collections if isinstance(each, PathCollection)]
    np.testing.assert_allclose(starred, [result.best.validation_loss for result in results])


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_counts_along_the_top_do_not_overlap_and_have_both_ends(count):
    axes = made(strengths=tuple(np.geomspace(1e-4, 1e-2, count))).plot()
    (top,) = axes.child_axes
    places = sorted(np.log10(top.get_xticks()))
    low, high = np.log10(axes.get_xlim())
    assert len(places) == min(count + 1, len(places)) <= 9
    assert all(np.diff(places) >= (high - low) / 9 - 1e-9)
    assert places[-1] == pytest.approx(-2 if count > 1 else -4)
    assert places[0] < -4


@pytest.mark.parametrize("given", [Figure(), np.empty(2, dtype=object), "axes", 3])
def test_what_is_no_axes_is_refused_in_one_line(given):
    with pytest.raises(InputError, match=r"ax: \w+ given, one matplotlib Axes expected") as caught:
        made().plot(given)
    assert "\n" not in str(caught.value)


def test_is_a_png_that_depends_on_the_result_alone():
    first = png(made().view())
    assert first.startswith(b"\x89PNG")
    assert first == png(made().view())
    assert first != png(made(strengths=(1e-4, 1e-3, 2e-2)).view())


def test_several_files_share_one_picture(tmp_path, monkeypatch):
    first, drawn = png(made().view()), []
    monkeypatch.setattr("torchshrink.report.picture.png", lambda view: drawn.append(view) or png(view))
    write_report(made().view(), tmp_path / "path.png", tmp_path / "report.HTML")
    assert len(drawn) == 1
    assert (tmp_path / "path.png").read_bytes() == first
    assert base64.b64encode(first).decode() in (tmp_path / "report.HTML").read_text()
    with pytest.raises(InputError, match="expected"):
        write_report(made().view(), tmp_path / "another.png", tmp_path / "another.txt")
    assert not (tmp_path / "another.png").exists()


@pytest.mark.parametrize(
    "result",
    [
        made(strengths=(0.0,)),
        made(strengths=(0.5,)),
        made(strengths=(1e-30, 1e30)),
        made(strengths=tuple(np.geomspace(1e-4, 1e-2, 64))),
        made(scale=1e-9),
        made(scale=-1.0),
        made(scale=1e12),
        made(scale=0.0),
    ],
    ids=["0 alone", "one", "far apart", "many", "tiny", "negative", "huge", "none"],
)
def test_draws_whatever_comes(result):
    assert png(result.view(), dpi=30).startswith(b"\x89PNG")
    assert "<table>" in page(result.view())


@pytest.mark.parametrize("name", ["重さ", "$a_{$", "\\alpha", "<b>", "two\nlines", "\N{SNOWMAN}\udcff"])
def test_whatever_a_penalty_is_called(name, tmp_path):
    result = made()
    object.__setattr__(result, "penalty", name)
    write_report(result.view(), tmp_path / "report.png", tmp_path / "report.html")


def test_diverged_points_are_left_out():
    result = made(diverged=(1e-2,))
    upper = result.plot()
    assert len(lines(upper, "validation").get_ydata()) == 3
    assert "diverged" in page(result.view())


def test_draws_where_it_is_told_and_leaves_no_global_state_and_no_pyplot(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = mpl.rcParams.copy()  # not dict(...): to read the backend is to choose one
    for result in (made(), compared(ts.L1, ts.L2)):
        axes = result.plot()
        assert isinstance(axes, Axes)
        axes.figure.savefig(tmp_path / "own.png", dpi=30)
        own = Figure()
        given = own.subplots(1, 2)
        assert result.plot(given[1]) is given[1]
        assert result.plot(ax=given[0]).figure is own
        assert own.axes == list(given)  # no figure, and no axes, beside those given
        own.savefig(tmp_path / "given.png", dpi=30)
    assert mpl.rcParams.copy() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_the_page_is_one_file_with_everything_in_it(tmp_path):
    comparison = compared(ts.L1, ts.L2)
    comparison.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    assert text.replace("\u00a0", " ").count(comparison.verdict.words[1:]) == 1  # said once
    assert "Adam" in text


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.png.txt"])
def test_other_endings_are_refused_in_one_line(name, tmp_path):
    with pytest.raises(InputError, match=r"\.html or \.png expected"):
        made().report(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
