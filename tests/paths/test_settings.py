import inspect
import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.paths import Engine, PathSettings
from torchshrink.paths.settings import PathKeywords

FIELDS = [field.name for field in fields(PathSettings)]


def test_the_keywords_for_type_checkers_are_the_fields():
    assert list(PathKeywords.__annotations__) == FIELDS


def test_the_call_shows_every_setting_with_its_default():
    shown = inspect.signature(ts.path).parameters
    assert list(shown)[-len(FIELDS) :] == FIELDS
    assert shown["epochs"].default == PathSettings().epochs


def test_a_keyword_that_is_none_is_refused_with_a_near_miss():
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'; did you mean 'epochs'"):
        ts.path(nn.Linear, (1, 2), ts.L1, epoch=3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strengths": [0.1, 1], "folds": [[0], [1]], "loss": nn.MSELoss(), "optimizer": torch.optim.SGD},
        {"device": torch.device("cpu"), "engine": Engine("lanes", lanes=3), "on": ts.ALL, "order": "warm"},
    ],
)
def test_written_as_json_with_every_field(settings):
    plain = PathSettings(**settings).to_dict()
    assert list(plain) == FIELDS
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_an_engine_may_be_given_by_its_name():
    assert PathSettings(engine="lanes").engine == Engine("lanes")
    assert PathSettings().engine == Engine() == Engine("auto")


def test_given_strengths_are_sorted_and_have_zero():
    assert PathSettings(strengths=[0.1, 0.01]).strengths == (0.0, 0.01, 0.1)
    assert PathSettings(strengths=(s for s in (1, 0))).strengths == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strengths": []}, "none given"),
        ({"strengths": [-0.1]}, "-0.1 given, finite numbers ≥ 0"),
        ({"strengths": [math.nan]}, "nan given"),
        ({"strengths": [math.inf]}, "inf given"),
        ({"strengths": [0.1, 0.1]}, "0.1 is given twice"),
        ({"strengths": ["a"]}, "or the strengths"),
        ({"strengths": 0.5}, "or the strengths"),
        ({"strengths": None}, "or the strengths"),
        ({"strengths": 0}, "at least 1"),
        ({"strengths": True}, "at least 1"),
        ({"epochs": 0}, "epochs=0: expected a whole number ≥ 1"),
        ({"batch_size": 1.5}, "batch_size=1.5: expected a whole number ≥ 1"),
        ({"seed": -1}, "seed=-1: expected a whole number ≥ 0"),
        ({"method": "proximal"}, "method='proximal': expected one of 'auto'"),
        ({"order": "hot"}, "order='hot': expected one of 'cold', 'warm'"),
        ({"optimizer": "adam"}, "optimizer: 'adam' given, a function of a model's parameters expected"),
        (
            {"engine": "stacked"},
            "engine='stacked': expected one of 'auto', 'lanes', 'sequential', 'optimum', or a ts.Engine",
        ),
    ],
)
def test_bad_ones_are_refused_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as raised:
        PathSettings(**settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": 0}, "lanes=0: expected a whole number ≥ 1"),
        ({"lanes": True}, "lanes=True"),
        ({"jobs": 0}, "jobs=0"),
        ({"workers": -1}, "workers=-1: expected a whole number ≥ 0"),
        ({"workers": None}, "workers=None"),
        ({"name": "sequential", "lanes": 3}, "leave out lanes=3"),
        ({"name": "sequential", "compile": True}, "leave out compile=True"),
    ],
)
def test_engines_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Engine(**settings)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "repeats", "strengths"])
def test_whole_numbers_of_numpy_are_whole_numbers(name):
    made = PathSettings(**{name: np.int64(3)})
    assert getattr(made, name) == 3
    assert type(getattr(made, name)) is int
    for bad in (np.float64(3.0), 3.0, True, np.int64(0)):
        with pytest.raises(InputError, match=rf"^{name}="):
            PathSettings(**{name: bad})


def test_a_single_strength_is_told_how():
    with pytest.raises(InputError, match=r"^strengths=0\.01: how many expected, or the strengths, such as \[0\.01\]"):
        PathSettings(strengths=1e-2)
