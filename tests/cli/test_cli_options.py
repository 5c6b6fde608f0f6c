"""The checks behind the options, and the families that penalty options name."""

from __future__ import annotations

import math

import pytest

from torchshrink.cli import option_checks
from torchshrink.cli.penalty_names import Shape, penalty_of
from torchshrink.errors import InputError
from torchshrink.penalties import (
    BUILTIN,
    L1,
    MCP,
    NM,
    SCAD,
    Box,
    ElasticNet,
    GroupLasso,
    L0Ball,
    LogSum,
    MaxNorm,
    NonNegative,
    SparseGroupLasso,
    UnitNorm,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("32", 32), (" 7 ", 7), ("0.1", (0.1,)), ("1e-3,0", (0.0, 1e-3)), ("2,1,", (1.0, 2.0)), ("1, 0.5", (0.5, 1.0))],
)  # fmt: skip
def test_strengths(given, expected):
    assert option_checks.strengths("--strengths", given) == expected


@pytest.mark.parametrize("given", ["", ",", "0", "-3", "a", "0.1,b", "0.1,nan", "0.1,inf", "0.1,-1", "0.1,0.1", "1;2"])
def test_strengths_that_are_none(given):
    with pytest.raises(InputError, match="--strengths"):
        option_checks.strengths("--strengths", given)


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf, -1.0])
def test_numbers_that_are_none(given):
    for check in (option_checks.not_negative, option_checks.positive):
        with pytest.raises(InputError, match=r"--x .*expected a finite number"):
            check("--x", given)
    with pytest.raises(InputError, match=r"--x .*expected a number from 0"):
        option_checks.between("--x", given, 0, 1, "such as 0.2")


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("digits", "runs/path-digits"),
        ("/a/b/sales 2024.csv", "runs/path-sales-2024"),
        ("openml:adult", "runs/path-openml-adult"),
        ("package.module:function", "runs/path-package.module-function"),
        ("..", "runs/path-.."),
        ("///", "runs/path-data"),
    ],
)
def test_default_folders(data, folder):
    assert option_checks.default_folder("path", data).as_posix() == folder


def test_penalties_by_name():
    assert penalty_of("l1", 0.5, Shape()) == L1(0.5)
    assert penalty_of("elastic_net", 0.5, Shape()) == ElasticNet(0.25, 0.25)
    assert penalty_of("elastic_net", 0.5, Shape(l1_ratio=1.0)) == ElasticNet(0.5, 0.0)
    assert penalty_of("group_lasso", 0.5, Shape(dim=1)) == GroupLasso(0.5, dim=1)
    assert penalty_of("sparse_group_lasso", 1.0, Shape(l1_ratio=0.2, dim=1)) == SparseGroupLasso(0.2, 0.8, dim=1)
    assert penalty_of("mcp", 0.5, Shape(gamma=2.0)) == MCP(0.5, gamma=2.0)
    assert penalty_of("scad", 0.5, Shape(gamma=4.0)) == SCAD(0.5, gamma=4.0)
    assert penalty_of("log_sum", 0.5, Shape(epsilon=0.2)) == LogSum(0.5, 0.2)
    assert penalty_of("max_norm", 0.5, Shape(radius=2.0)) == MaxNorm(2.0)
    assert penalty_of("unit_norm", 0.5, Shape(dim=1)) == UnitNorm(dim=1)
    assert penalty_of("non_negative", 0.5, Shape()) == NonNegative()
    assert penalty_of("box", 0.5, Shape(low=-1.0, high=2.0)) == Box(-1.0, 2.0)
    assert penalty_of("box", 0.5, Shape(high=2.0)) == Box(-math.inf, 2.0)
    assert penalty_of("l0_ball", 0.5, Shape(keep=7)) == L0Ball(7)
    assert penalty_of("nm", 0.5, Shape(pattern="1:16")) == NM(1, 16)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_penalty_can_be_named(name):
    penalty = penalty_of(name, 0.25, Shape(radius=0.25, keep=3, low=-1.0, pattern="2:4").part_for(name))
    assert type(penalty) is BUILTIN[name]
    assert penalty.strength == (0.0 if penalty.constraint else 0.25)
