"""--polish at the end of train and path: what it says, and that it holds."""

import json
from pathlib import Path


def test_a_polished_linear_training_is_certified_with_its_gap(run, small_csv):
    base = ("train", small_csv, "--target", "kind", "--model", "logistic", "--epochs", 2, "--penalty", "l1")
    ran = run(*base, "--strength", 0.02, "--polish", "--out", "out")
    assert ran.status == 0, ran.err
    assert "polish       converged in" in ran.out
    assert "duality gap" in ran.out
    saved = json.loads(Path("out/train.json").read_text())
    certificate = saved["result"]["certificate"]
    assert saved["settings"]["polish"] is True
    assert saved["polish"]["converged"] is True
    assert certificate["ok"] is True
    assert 0 <= certificate["gap"] <= 1e-6
    assert saved["result"]["sparsity"]["zeros"] > 0
    plain = run(*base, "--strength", 0.02, "--out", "plain")
    unpolished = json.loads(Path("plain/train.json").read_text())
    assert unpolished["polish"] is None
    assert unpolished["result"]["certificate"]["gap"] > 1e-3  # reported without polish as well
    assert "--polish" in plain.out  # and the way on
    other = run(*base, "--strength", 0.02, "--out", "plain", "--resume", "--polish")
    assert other.status == 2
    assert "polish" in other.err


def test_a_polished_path_refits_to_stationarity(run, small_csv):
    ran = run(
        "path", small_csv, "--target", "kind", "--model", "logistic", "--epochs", 2, "--folds", 2,
        "--strengths", "0.01,0.1", "--polish", "--out", "out", "--quiet",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    refit = json.loads(Path("out/refit.json").read_text())
    assert refit["certificate"]["ok"] is True or refit["strength"] == 0
    assert json.loads(Path("out/settings.json").read_text())["polish"] is True


def test_what_has_not_arrived_is_said(run, small_csv, monkeypatch):
    import torchshrink.cli.train_results as results

    monkeypatch.setattr(results, "STEPS_AT_THE_END", 2)
    ran = run("train", small_csv, "--target", "kind", "--epochs", 1, "--penalty", "l1", "--polish", "--out", "out")
    assert ran.status == 0, ran.err
    assert "2 steps, which was the budget; more would go on" in ran.out
    assert json.loads(Path("out/train.json").read_text())["polish"]["converged"] is False
