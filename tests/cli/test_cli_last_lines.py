"""What a normal end says of itself: nothing that reads like a failure, and nothing that its numbers do not bear out."""

import json
import re
from pathlib import Path

import pytest

ALARM = re.compile(
    r"not stationary|did not|fail|relative [\d.]|stalled|diverge|\bnan\b|\binf\b|warning:|error:", re.IGNORECASE
)
FEW = ("--epochs", "3", "--quiet")
SHORT = (*FEW, "--folds", "2", "--repeats", "1", "--strengths", "0.003,0.03")
SOLVED = ("--repeats", "1", "--strengths", "4", "--quiet")
TRAININGS = {
    "network, l1": ("digits", "--hidden", "16", "--penalty", "l1", "--strength", "1e-3", *FEW),
    "network, no penalty": ("digits", "--hidden", "16", "--penalty", "none", *FEW),
    "network, group lasso, polished": ("iris", "--hidden", "4", "--penalty", "group_lasso", *FEW, "--polish"),
    "network, mcp": ("wine", "--hidden", "16", "--penalty", "mcp", "--strength", "1e-2", *FEW),
    "network, all rows a step": ("diabetes", "--hidden", "8", "--penalty", "l2", *FEW, "--batch-size", "500"),
    "linear, l1": ("diabetes", "--model", "linear", "--penalty", "l1", "--strength", "0.1", *FEW),
    "logistic, l2": ("breast_cancer", "--model", "logistic", "--penalty", "l2", "--strength", "0.01", *FEW),
    "logistic, l1, polished": ("wine", "--model", "logistic", "--penalty", "l1", *FEW, "--polish"),
    "a constraint": ("wine", "--hidden", "8", "--penalty", "max_norm", "--radius", "1", *FEW),
}  # fmt: skip
PATHS = {
    "linear, solved": ("diabetes", "--model", "linear", "--penalty", "l1", *SOLVED),
    "linear, mcp, one_se": ("diabetes", "--model", "linear", "--penalty", "mcp", "--choose", "one_se", *SOLVED),
    "linear, relaxed": ("diabetes", "--model", "linear", "--penalty", "l1", "--relaxed", *SOLVED),
    "linear, trained": ("diabetes", "--model", "linear", "--penalty", "l1", *SHORT),
    "network, group lasso, shrunk": ("wine", "--hidden", "8", "--penalty", "group_lasso", "--shrink", *SHORT),
    "network, l1 and l2, test rows": ("iris", "--hidden", "8", "--penalty", "l1,l2", "--test", "0.3", *SHORT),
}  # fmt: skip


def borne_out(words, numbers):
    """What the sentence claims, which its certificate's numbers have to say too."""
    slope, error = numbers["residual"], numbers["standard_error"]
    if numbers["gap"] is not None:
        assert f"at most {numbers['gap']:.2g} above its minimum" in words
    if words.startswith("the optimum, proved"):
        assert numbers["ok"] or numbers["gap"] <= 1e-4 * numbers["objective"]
        return "optimum"
    if words.startswith("a stationary point"):
        assert numbers["ok"]
        return "stationary"
    assert not numbers["ok"]
    assert f"a slope of {slope:.2g}" in words
    if "the normal end of a training" in words:
        assert slope <= error
        assert f"({error:.2g})" in words
        return "normal end"
    if "trained for its epochs, not to the end" in words:
        assert slope > error
        assert f"{slope / error:.2g} times" in words
        return "before the end"
    assert "the line above says why" in words
    return "polished, not at the end"


def line(out, name):
    (found,) = re.findall(rf"^{name} +(.*)$", out, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_says_where_it_ended(run, name):
    ran = run("train", *TRAININGS[name], "--out", "out")
    assert ran.status == 0, ran.err
    assert ALARM.findall(ran.out + ran.err) == []
    numbers = json.loads(Path("out/train.json").read_text())["result"]["certificate"]
    words = line(ran.out, "certificate")
    found = borne_out(words, numbers)
    assert ("--polish goes on" in words) == (found in ("normal end", "before the end"))
    expected = {
            "network, all rows a step": {"before the end"}, "linear, l1": {"before the end"},
    }  # fmt: skip
    assert found in expected.get(name, {found})


@pytest.mark.parametrize("name", PATHS)
def test_a_path_says_where_its_model_ended(run, name):
    ran = run("path", *PATHS[name], "--out", "out")
    assert ran.status == 0, ran.err
    assert ALARM.findall(ran.out + ran.err) == []
    found = borne_out(line(ran.out, "certificate"), json.loads(Path("out/refit.json").read_text())["certificate"])
    expected = {"linear, solved": {"optimum"}, "linear, mcp, one_se": {"stationary", "optimum"}}
    assert found in expected.get(name, {found})


def test_more_epochs_do_lower_what_was_not_trained_to_the_end(run):
    """And the other way round: after a hundred times as many, the slope is lost in the rows' own noise."""
    base = (
        "train",
        "breast_cancer",
        "--model",
        "logistic",
        "--penalty",
        "l1",
        "--strength",
        "0.01",
        "--lr",
        "0.02",
        "--quiet",
    )
    ends = []
    for epochs in (1, 100):
        ran = run(*base, "--epochs", epochs, "--out", f"out{epochs}")
        numbers = json.loads(Path(f"out{epochs}/train.json").read_text())["result"]["certificate"]
        ends.append((borne_out(line(ran.out, "certificate"), numbers), numbers["objective"]))
    (first, before), (second, after) = ends
    assert (first, second) == ("before the end", "normal end")
    assert after < before


def test_what_keeps_a_training_from_its_optimum_is_said_in_place_of_more_epochs(run, recwarn):
    ran = run("train", "wine", "--penalty", "l2", "--method", "decoupled", "--optimizer", "adamw", *FEW, "--out", "out")
    assert ran.status == 0, ran.err
    words = line(ran.out, "certificate")
    assert "does not end at a stationary point" in words
    assert "more epochs" not in words
    assert "--polish" not in words
