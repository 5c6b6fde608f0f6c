"""What a prompt and a notebook show of a result: a line or a small table, and never every number in it."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.data import Column, load
from torchshrink.paths import PathSettings
from torchshrink.penalties import BUILTIN
from torchshrink.regularizer.summary import Summary
from torchshrink.support.tables import Column as Head
from torchshrink.support.tables import Table, html_of_details, html_of_pairs, paired, printable

MOST = 200
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "two\nlines",
    "\x1b[31mred\x1b[0m",
    "\u202egnirts",  # what follows would run from right to left
    "\u2066isolated",
    "&amp;",
    "half \udcff of a pair",
    "x" * 300,
]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def values():
    X, y = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    quick = {"epochs": 2, "progress": False, "repeats": 1}
    result = ts.path(net, (X, y), [ts.L1, ts.GroupLasso], strengths=5, test=0.2, **quick)
    linear = ts.path(lambda: nn.Linear(20, 3), (X, y), ts.L1, strengths=40, folds=3, repeats=1, progress=False)
    model, certificate = linear.refit()
    regularizer = ts.Regularizer(model, ts.L1(0.01))
    polished = ts.polish(model, (X, y), regularizer, max_steps=3)
    large = net()
    with torch.no_grad():
        large[0].weight[:5] = 0.0
    grouped = ts.Regularizer(large, ts.GroupLasso(0.01))
    return [
        result, linear, linear.grid, certificate, polished, regularizer, regularizer.summary(), regularizer.sparsity(),
        regularizer.choices, regularizer.terms, grouped, grouped.summary(), grouped.sparsity(), ts.shrink(large, X),
        ts.duality_gap(model, (X, y), regularizer), load("digits"), Column("kind", tuple(map(str, range(1000)))),
        ts.Engine("lanes", lanes=4), PathSettings(strengths=tuple(range(1, 99)), folds=[([1], [2])] * 50),
        ts.Activations(large, {"1": ts.L1(0.1)}), ts.WEIGHTS, ts.convert("sklearn.Ridge", alpha=1.0, rows=99),
        *(ts.L1(0.1, weights=torch.rand(3, 20)), ts.GroupLasso(0.1, dim=1, labels=[0, 1] * 10)),
        linear.source, result.best.counts, linear.counts, linear.weights, result.view(), linear.weights.looked.layers,
    ]  # fmt: skip


def inside(value: object, seen: set[int]) -> Iterator[object]:
    """``value``, if it is torchshrink's, and all of torchshrink's that hangs on it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif dataclasses.is_dataclass(value) and type(value).__module__.startswith("torchshrink."):
        yield value
        parts = [getattr(value, each.name) for each in dataclasses.fields(value) if each.repr]
    else:
        if type(value).__module__.startswith("torchshrink."):
            yield value
        return
    for part in parts[:50]:
        yield from inside(part, seen)


def test_it_is_one_short_line(values):
    seen: set[int] = set()
    found = {type(each).__name__: repr(each) for value in values for each in inside(value, seen)}
    assert {"PathComparison", "PathPoint", "FoldValue", "ParameterDistance", "Shrunk", "Plan", "Term"} <= found.keys()
    assert {name: text for name, text in found.items() if len(text) > MOST or "\n" in text or "tensor(" in text} == {}
    assert {name for name, text in found.items() if " object at 0x" in text} == set()


@pytest.mark.parametrize("name", BUILTIN)
def test_a_penalty_is_the_code_that_makes_it(name):
    made = {"l0_ball": "(10)", "nm": "(2, 4)", "box": "(-1, 1)", "non_negative": "()", "unit_norm": "()"}
    two = {"elastic_net": "(0.1, 0.2)", "sparse_group_lasso": "(0.1, 0.2)"}
    penalty = eval(f"BUILTIN[name]{(made | two).get(name, '(0.1)')}")
    assert eval(repr(penalty), vars(ts) | {type(penalty).__name__: type(penalty)}) == penalty
    assert len(repr(penalty)) < 80


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PathComparison", "of l1, group_lasso: best <PathResult of "),
        ("PathResult", "of l1: 41 strengths, best <PathPoint "),
        ("PathPoint", ": validation loss "),
        ("Verdict", "95 % interval"),
        ("FinalTest", "on 12 rows"),
        ("Certificate", "a convex problem: F is at most"),
        ("Polished", "3 steps, which was the budget"),
        ("Sparsity", " weights are exactly zero"),
        ("Summary", "1 parameters penalised, 1 exempt"),
        ("Shrunk", "195 → "),
        ("DualityGap", "gap="),
        ("Conversion", "sklearn.Ridge(alpha=1.0"),
        ("Engine", "Engine(name='lanes', lanes=4)"),
        ("PathSettings", "strengths=[0.0, 1.0, 2.0"),
        ("Dataset", "digits: 1797 rows, 64 columns, classification of"),
        ("Regularizer", "1 term over 60 weights"),
    ],
)
def test_it_says_what_matters(values, name, said):
    seen: set[int] = set()
    shown = [repr(each) for value in values for each in inside(value, seen) if type(each).__name__ == name]
    assert any(said in text for text in shown), shown


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("Certificate", {"objective", "distance", "worst at", "gap", "that is"}),
        ("FinalTest", {"test", "loss", "accuracy", "strength 0"}),
        ("Verdict", {"verdict", "change", "better in"}),
        ("Shrunk", {"0.weight", "parameters", "before", "after", "stayed"}),
        ("PathComparison", {"penalty", "strength", "l1", "group_lasso", "best", "verdict", "test"}),
        ("PathResult", {"strength", "validation", "nonzero", "verdict"}),
    ],
)
def test_a_notebook_labels_what_it_shows(values, name, labels):
    seen: set[int] = set()
    shown = [each._repr_html_() for value in values for each in inside(value, seen) if type(each).__name__ == name]
    heads = [set(re.findall(r"<(?:th|summary)[^>]*>(?:<strong>)?([^<]*)", text)) for text in shown]
    assert any(labels <= found for found in heads), heads


class Checked(HTMLParser):
    """Which tags there are, that each is closed by its own, and that no attribute does or loads anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.cells.append("")
        assert dict(attrs).keys() <= {"scope", "style"}
        assert dict(attrs).get("style", "text-align:left") in ("text-align:left", "text-align:right")  # no colours

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells[-1] += data


PLAIN = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "details", "summary"}


@pytest.mark.parametrize(
    "name",
    [
        "PathComparison", "PathResult", "Verdict", "FinalTest", "Certificate", "Polished", "Sparsity", "Summary",
        "Shrunk", "DualityGap",
    ],
)  # fmt: skip
def test_a_notebook_shows_small_tables_of_plain_text(values, name):
    show = pytest.importorskip("IPython.core.formatters").HTMLFormatter()  # which a notebook asks
    seen: set[int] = set()
    shown = [show(each) for value in values for each in inside(value, seen) if type(each).__name__ == name]
    assert shown
    for text in shown:
        checked = Checked(text)
        assert set(checked.tags) <= PLAIN
        assert "table" in checked.tags
        assert text.count("<tr>") < 60
        assert all(re.match(r"scope=\"(row|col)\"", each) for each in re.findall(r"<th ([^>]*)>", text))


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_name_is_it_is_shown_and_does_nothing(name):
    table = Table([Head(name, left=True), Head("value")], [[name, "1"]], [0])
    for html in (table.html(name), html_of_pairs([(name, name)], name), html_of_details(name, "")):
        assert set(Checked(html).tags) <= PLAIN
        html.encode("utf-8")
        assert not re.search(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    assert Checked(table.html()).cells.count(printable(name)) == 2
    lines = table.lines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_a_models_names_go_through_it(values):
    tagged = nn.ModuleDict({"<b>\n": nn.Linear(2, 2)})
    regularizer = ts.Regularizer(tagged, ts.L1(0.1))
    for shown in (regularizer.summary(), regularizer.sparsity()):
        assert set(Checked(shown._repr_html_()).tags) <= PLAIN
    assert "<b>\\n.weight" in regularizer.summary()


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_table_too_wide_leaves_out_columns_and_never_wraps(width):
    heads = [Head("name", left=True), Head("a" * 30, rank=2), Head("b" * 30, rank=1), Head("c")]
    lines = Table(heads, [["重さ", "1", "2", "3"], ["e\u0301", "10", "20", "30"]]).lines(width)
    assert max(map(len, lines)) <= width
    assert ("a" * 30 in lines[0], "b" * 30 in lines[0]) == (width > 70, width > 40)
    assert [line.split()[-1] for line in lines] == ["c", "3", "30"]


@pytest.mark.parametrize("width", [20, 30, 31, 32, 33, 80])
def test_wrapped_words_keep_numbers_with_their_unit_and_break_no_option(width):
    words = "37.2 % of all, and --a-long-option-name stays whole, 5 % too"
    lines = paired([("label", words)], width)
    assert " ".join(" ".join(lines).split()) == f"label {words}"
    assert all(len(line) <= width or "--a-long-option-name" in line for line in lines)
    assert not any(line.lstrip().startswith("%") or line.endswith("--a") for line in lines)
    assert all(line.startswith(" " * 13) for line in lines[1:])
    assert paired([("label", words), ("", "two")]) == [f"label        {words}", "             two"]


def test_a_summary_is_its_text(values):
    (summary,) = (each for each in values if isinstance(each, Summary) and "GroupLasso" in each)
    assert summary.splitlines()[0].split() == ["parameter", "shape", "rule", "penalty", "method", "groups", "zeros"]
    assert max(map(len, summary.fitted(50).split("\n\n")[0].splitlines())) <= 50
    assert "method" not in summary.fitted(50)
    assert summary.fitted(500) == summary
