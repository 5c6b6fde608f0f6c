"""``audit``: what a penalty would act on, without any training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torchshrink import L1, Regularizer
from torchshrink.models import mlp


def test_it_prints_the_summary(run):
    ran = run("audit", "digits", "--penalty", "l1", "--strength", "0.5", "--method", "loss")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == Regularizer(mlp(64, 10), L1(0.5)).summary() + "\n"
    assert not Path("runs").exists()


def test_it_says_how_each_term_would_act(run):
    for penalty, method in (("l1", "prox"), ("l2", "gradient")):
        ran = run("audit", "iris", "--penalty", penalty)
        assert sum(method in line for line in ran.out.splitlines()) == 3


def test_json_has_every_parameter_and_why_not(run):
    Path("rules.yaml").write_text(
        "rules:\n  hidden1.weight: {group_lasso: 1e-3}\n  'hidden*': none\n  '*.weight': {l2: 1}\n"
    )
    ran = run("audit", "iris", "--rules", "rules.yaml", "--json")
    assert ran.status == 0, ran.err
    table = json.loads(ran.out)
    by_name = {each["name"]: each for each in table["parameters"]}
    assert list(by_name) == [
        f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "output") for kind in ("weight", "bias")
    ]
    first = by_name["hidden1.weight"]
    assert (first["penalty"], first["method"], first["groups"]) == ("GroupLasso(0.001, dim=0)", "prox", 64)
    assert (by_name["hidden2.weight"]["penalty"], by_name["hidden2.weight"]["method"]) == (None, None)
    assert by_name["hidden2.weight"]["reason"]
    assert (by_name["output.weight"]["rule"], by_name["output.weight"]["method"]) == ("*.weight", "gradient")
    assert by_name["output.bias"]["reason"] == "no rule matches"
    assert table["sparsity"]["total"] == 64 * 4 + 3 * 64
    assert table["penalising"]["on"] == "weights"


def test_a_model_of_ones_own_needs_no_data(run, here):
    (here / "zoo.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4))\n"
    )
    ran = run("audit", "--model", "zoo:net")
    assert ran.status == 0, ran.err
    assert "1.weight_hh_l0" in ran.out
    assert "1.bias_hh_l0" in ran.out.split("exempt:")[1]


@pytest.mark.parametrize("name", ["none", "mcp", "l2sp", "orthogonal", "nuclear_norm"])
def test_any_penalty(run, name):
    assert run("audit", "iris", "--penalty", name).status == 0


def test_a_constraint(run):
    ran = run("audit", "iris", "--penalty", "max_norm", "--radius", "2")
    assert ran.status == 0, ran.err
    assert "MaxNorm(radius=2, dim=0)" in ran.out
