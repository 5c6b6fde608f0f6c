"""A saved path whose content is another than was written, sealed or not: one line that says where, and what."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.paths.comparison import PathComparison
from torchshrink.paths.path_files import LOSSES, RESULT, losses_of
from torchshrink.paths.result import PathResult
from torchshrink.support.storage import read_json, read_tensors, seal_of, write_json, write_tensors

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One path with test rows, and a comparison of two."""
    places = {}
    for name, penalty in (("one", ts.L1), ("two", {"a": ts.L1, "b": ts.L2})):
        folder = places[name] = tmp_path_factory.mktemp(name)
        ts.path(
            lambda: nn.Linear(3, 2),
            (X, (X[:, 0] > 0).long()),
            penalty,
            strengths=[0.01, 0.1],
            epochs=2,
            folds=2,
            repeats=2,
            test=0.25,
            progress=False,
        ).save(folder)
    return places


def resealed(source, target, change):
    """Write what ``change`` makes of the two files' contents, sealed as if it had been written so."""
    plain = read_json(source / RESULT, what="path")
    tensors, _ = read_tensors(source / LOSSES, what=losses_of(seal_of(plain, what="path")))
    change(plain, tensors)
    write_tensors(target / LOSSES, tensors, what=losses_of(seal_of(plain, what="path")))
    write_json(target / RESULT, plain, what="path")


def at(*place, put):
    def change(plain, _):
        for key in place[:-1]:
            plain = plain[key]
        plain[place[-1]] = put

    return change


def without(*place):
    def change(plain, _):
        for key in place[:-1]:
            plain = plain[key]
        del plain[place[-1]]

    return change


def tensor(name, make):
    return lambda _, tensors: tensors.update({name: make(tensors[name])})


WRONG = {
    "points: none, at least one expected": at("points", put=[]),
    "points: 3, a list expected": at("points", put=3),
    "points[1]: null, an object expected": at("points", 1, put=None),
    "points: the strengths must ascend from 0": lambda plain, _: plain["points"].reverse(),
    "points: 1 to 2 folds": lambda plain, _: plain["points"][2]["folds"].pop(),
    'points[0].strength: "a", a number expected': at("points", 0, "strength", put="a"),
    "points[0].strength: -1, a finite number ≥ 0": at("points", 0, "strength", put=-1),
    "points[0].strength: true, a number": at("points", 0, "strength", put=True),
    "points[0].strength: null, a number": at("points", 0, "strength", put=None),
    "points[0].strength: missing": without("points", 0, "strength"),
    "points[0].colour: unknown": at("points", 0, "colour", put="red"),
    "points[1].nonzero: -5, a finite number ≥ 0": at("points", 1, "nonzero", put=-5),
    "points[1].nonzero: 1000000000000": at("points", 1, "nonzero", put=10**400),
    "points[1].accuracy: 1.5, a finite number from 0 to 1": at("points", 1, "accuracy", put=1.5),
    "points[1].validation_se: -0.1": at("points", 1, "validation_se", put=-0.1),
    "points[1].validation_loss: []": at("points", 1, "validation_loss", put=[]),
    "points[1].folds: none": at("points", 1, "folds", put=[]),
    "points[1].folds[0].nonzero: 2.5, a whole number": at("points", 1, "folds", 0, "nonzero", put=2.5),
    "points[1].folds[0].diverged: 0, true or false": at("points", 1, "folds", 0, "diverged", put=0),
    "verdict: null, an object": at("verdict", put=None),
    "verdict.interval: [1], a list of 2": at("verdict", "interval", put=[1]),
    "verdict.interval: [2, 1], the lower end first": at("verdict", "interval", put=[2, 1]),
    'verdict.interval[0]: "a", a number': at("verdict", "interval", put=["a", 1]),
    "verdict.level: 95": at("verdict", "level", put=95),
    'verdict.over: "cells", one of folds, rows': at("verdict", "over", put="cells"),
    "verdict.over: [], one of": at("verdict", "over", put=[]),
    "verdict.better: -1": at("verdict", "better", put=-1),
    "verdict.words: 3, text": at("verdict", "words", put=3),
    "verdict.helps: 1, true or false": at("verdict", "helps", put=1),
    "settings: 7, an object": at("settings", put=7),
    "penalty: 3, text": at("penalty", put=3),
    'null_loss: "a", a number': at("null_loss", put="a"),
    "best: 77, the strength of a point": at("best", put=77),
    "grid.strengths: none": at("grid", "strengths", put=[]),
    'grid.how: "guessed"': at("grid", "how", put="guessed"),
    "grid.probes[0]: [1], a list of 2": at("grid", "probes", put=[[1]]),
    "test.rows: 0": at("test", "rows", put=0),
    "test.verdict.change: false": at("test", "verdict", "change", put=False),
    "test.tuned_accuracy: -1": at("test", "tuned_accuracy", put=-1),
    "test: missing": without("test"),
    "losses: torch.float64 in 2 dimensions": tensor("losses", lambda t: t.float()),
    "losses: shape (30, 2), (30, 3) expected": tensor("losses", lambda t: t[:, :2]),
    "fold: torch.int64 in 1 dimensions": tensor("fold", lambda t: t.double()),
    "losses: torch.float64": lambda _, tensors: tensors.pop("losses"),
}
WRONG_COMPARISON = {
    "results: none": at("results", put={}),
    "results: [], an object": at("results", put=[]),
    "results.b.points: none, at least one": at("results", "b", "points", put=[]),
    "results.b: 3, an object": at("results", "b", put=3),
    "results.a.points: the strengths must": lambda plain, _: plain["results"]["a"]["points"].reverse(),
    "against: null": at("against", put=None),
    "against.c: 1, an object": at("against", "c", put=1),
    "best: 'c', one of a, b": at("best", put="c"),
    "verdict: missing": without("verdict"),
    "losses.b: torch.float64": lambda _, tensors: tensors.pop("losses.b"),
}


@pytest.mark.parametrize("said", [*WRONG, *WRONG_COMPARISON])
def test_wrong_content_is_refused_where_it_is(said, saved, tmp_path):
    source, change = (saved["one"], WRONG[said]) if said in WRONG else (saved["two"], WRONG_COMPARISON[said])
    if said.startswith("losses: shape"):
        rows = len(ts.load_path(source).fold)
        said = said.replace("30", str(rows))
    resealed(source, tmp_path, change)
    with pytest.raises(InputError) as raised:
        ts.load_path(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / RESULT}: {said}")
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 160


def test_every_value_of_another_type_is_refused(saved, tmp_path):
    """By every place in the file: no value is left unlooked at, the settings' own excepted."""
    whole = json.loads((saved["one"] / RESULT).read_text())
    seen = 0
    for place in _places(whole):
        if "settings" in place[:-1] or place == ("sha256",):
            continue
        resealed(saved["one"], tmp_path, at(*place, put={"another": [None]}))
        if place == ("settings",):
            assert ts.load_path(tmp_path).settings == {"another": [None]}
            continue
        with pytest.raises(InputError):
            ts.load_path(tmp_path)
        seen += 1
    assert seen > 100


def _places(value, place=()):
    if place:
        yield place
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(each, (*place, key))


def test_as_it_was_written_it_loads(saved, tmp_path):
    for source, kind in ((saved["one"], PathResult), (saved["two"], PathComparison)):
        resealed(source, tmp_path, lambda plain, _: copy.deepcopy(plain))
        assert isinstance(ts.load_path(tmp_path), kind)


@pytest.mark.parametrize("given", [3, None, ["a"], 2.5, Path])
def test_what_is_no_path_is_said_to_be_none(given, saved):
    for use in (
        ts.load_path,
        ts.load_model,
        ts.load_path(saved["one"]).save,
        ts.load_path(saved["two"]).save,
        ts.load_path(saved["one"]).report,
    ):
        with pytest.raises(InputError, match=rf"^(folder|path): {type(given).__name__} given, a path expected"):
            use(given)


def test_a_path_may_be_bytes(saved):
    assert ts.load_path(str(saved["one"]).encode()).points == ts.load_path(saved["one"]).points
