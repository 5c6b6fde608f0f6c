"""``--groups features``: the columns that a feature has in the first layer are one group."""

import json
import random
from pathlib import Path

import pytest
import torch

from torchshrink import load_path
from torchshrink.models import load_model

TABLE = "mixed.csv"
NAMES = ["colour", "size", "noise", "city"]
LABELS = torch.tensor([0, 0, 0, 1, 2, 3, 3, 3, 3, 3])  # colour, size, noise, city


@pytest.fixture
def mixed(here):
    """Two categories and two numbers, of which ``colour`` and ``size`` count."""
    draw = random.Random(0)
    lines = ["colour,size,noise,city,y"]
    for _ in range(120):
        colour, size, noise = draw.choice(("red", "green", "blue")), draw.gauss(0, 1), draw.gauss(0, 1)
        y = {"red": 1.5, "green": -1.0, "blue": 0.0}[colour] + size + draw.gauss(0, 0.3)
        lines.append(f"{colour},{size:.3f},{noise:.3f},{draw.choice('abcde')},{y:.3f}")
    Path(TABLE).write_text("\n".join(lines) + "\n")


def zero_features(model):
    zero = (next(p for name, p in model.named_parameters() if name.endswith("weight")) == 0).all(0)
    groups = [zero[label == LABELS] for label in range(4)]
    assert all(bool(group.all()) or not bool(group.any()) for group in groups)  # wholly or not at all
    return [bool(group.all()) for group in groups]


def test_a_path_selects_features(run, mixed):
    ran = run(
        "path", TABLE, "--target", "y", "--model", "linear", "--penalty", "group_lasso", "--groups", "features",
        "--strengths", "0.1", "--folds", "2", "--repeats", "1", "--epochs", "15", "--lr", "0.1", "--polish",
        "--quiet", "--out", "out",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    result, refit = load_path("out"), json.loads(Path("out/refit.json").read_text())
    assert result.penalty == "group_lasso"
    assert result.settings["at strength 1"] == {"output.weight": f"GroupLasso(1, dim=1, labels=<10 {digest_of()}>)"}
    assert refit["penalty"].startswith("output.weight: GroupLasso(")
    if refit["strength"]:
        assert zero_features(load_model("out")) == [False, False, True, True]
        assert (refit["sparsity"]["groups_zero"], refit["sparsity"]["groups"]) == (2, 4)
    assert result.best.strength == 0.1
    assert refit["features"] == {"left": ["colour", "size"], "gone": ["noise", "city"]}
    assert "2 of 4 are left: colour, size; gone: noise, city" in " ".join(ran.out.split())


def digest_of():
    from torchshrink.penalties import GroupLasso

    return str(GroupLasso(1.0, dim=1, labels=LABELS)).partition("<10 ")[2].rstrip(">)")


def test_a_training_groups_the_columns_of_later_layers_one_by_one(run, mixed):
    command = ("--target", "y", "--penalty", "sparse_group_lasso", "--groups", "features", "--hidden", "6,5")
    ran = run("train", TABLE, *command, "--strength", "0.1", "--epochs", "2", "--quiet", "--out", "out")
    assert ran.status == 0, ran.err
    saved = json.loads(Path("out/train.json").read_text())
    assert saved["settings"]["penalty"]["groups"] == "features"
    weight = load_model("out").hidden1.weight
    read = [name for at, name in enumerate(NAMES) if bool((weight[:, at == LABELS] != 0).any())]
    assert saved["result"]["features"] == {"left": read, "gone": [name for name in NAMES if name not in read]}
    assert f"features {saved['words']['features']}" in " ".join(ran.out.split())
    audited = json.loads(run("audit", TABLE, *command, "--json").out)
    groups = {each["name"]: each["groups"] for each in audited["parameters"] if each["penalty"]}
    assert groups == {"hidden1.weight": 4, "hidden2.weight": 6, "output.weight": 5}


def test_in_a_comparison_it_is_for_those_that_have_groups(run, mixed):
    ran = run(
        "path", TABLE, "--target", "y", "--model", "linear", "--penalty", "l1,group_lasso", "--groups", "features",
        "--strengths", "0.1", "--folds", "2", "--repeats", "1", "--epochs", "2", "--quiet", "--out", "out",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    at_one = {name: each.settings["at strength 1"] for name, each in load_path("out").results.items()}
    assert at_one["l1"] == "L1(1)"
    assert list(at_one["group_lasso"]) == ["output.weight"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--penalty", "l1", "--groups", "features"), "--groups features: l1 does not take it; group_lasso, sparse"),
        (("--penalty", "group_lasso", "--groups", "feature"), "--groups feature: expected one of features"),
        (("--penalty", "group_lasso", "--groups", "features", "--dim", "1"), "features are columns; leave one out"),
    ],
)
@pytest.mark.parametrize("verb", ["path", "train", "audit"])
def test_what_cannot_be_grouped_is_refused_in_one_line(run, mixed, verb, options, said):
    ran = run(verb, TABLE, "--target", "y", *options)
    assert ran.status == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_model_of_the_user_s_has_a_first_layer_that_nobody_knows(run, mixed):
    for verb in ("path", "train", "audit"):
        theirs = ("--model", "torch.nn:Identity", "--penalty", "group_lasso", "--groups", "features")
        ran = run(verb, TABLE, "--target", "y", *theirs)
        assert ran.status == 2
        assert "--groups features with --model torch.nn:Identity: only mlp, logistic and linear are known" in ran.err


def test_rules_and_groups_contradict_each_other(run, mixed):
    Path("rules.yaml").write_text("rules: {'*': {l1: 1}}")
    ran = run("train", TABLE, "--target", "y", "--rules", "rules.yaml", "--groups", "features")
    assert ran.status == 2
    assert "--rules with --groups" in ran.err
