"""What ``torchshrink path`` says of its evidence: the issue's genes, and test rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchshrink.paths import load_path


def test_of_genes_penalising_helps_and_the_words_say_by_how_much(run, here):
    g = np.random.default_rng(0)
    X = g.normal(size=(150, 100))
    frame = pd.DataFrame(X).add_prefix("g")
    frame["response"] = X[:, :5] @ [3, -2, 1.5, 1, 0.8] + g.normal(size=150)
    frame.to_csv("genes.csv", index=False)
    ran = run(
        *[
            "path",
            "genes.csv",
            "--target",
            "response",
            "--penalty",
            "l1,l2",
            "--strengths",
            "5",
            "--epochs",
            "50",
            "--model",
            "linear",
        ],
        *["--lr", "0.05", "--polish", "--out", "out"],
    )
    assert ran.status == 0
    verdict = load_path("out").verdict
    assert verdict.helps
    assert verdict.change < -0.7
    assert (verdict.better, verdict.compared) == (15, 15)
    assert "penalising helps: the loss on unseen rows falls by" in " ".join(ran.out.split())


@pytest.mark.parametrize(("given", "rows"), [(("--test", "0.2"), 30), (("--rows", "110"), 40)])
def test_test_rows_come_first_and_are_in_the_file(run, given, rows):
    ran = run(
        *[
            "path",
            "iris",
            "--model",
            "logistic",
            "--penalty",
            "l2",
            "--strengths",
            "0.001,0.01",
            "--epochs",
            "4",
            "--lr",
            "0.1",
            "--repeats",
            "1",
        ],
        *["--folds", "3", "--out", "out"],
        *given,
    )
    assert ran.status == 0
    out = " ".join(ran.out.split())
    assert out.index("this speaks of these two models") < out.index(" choice ") < out.index(" verdict ")
    assert "on all but the test rows" in out
    saved = json.loads(Path("out/path.json").read_text())
    assert (saved["test"]["rows"], saved["test"]["trained"]) == (rows, 150 - rows)
    assert saved["settings"]["rows"] == 150 - rows
    page = Path("out/report.html").read_text()
    assert page.index("On rows that nobody looked at?") < page.index("What each strength does")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--test", "1.5"), "--test 1.5: expected a share between 0 and 1"),
        (("--test", "0"), "--test 0: expected a share between 0 and 1"),
        (("--rows", "150"), "--rows 150: of 150 rows 150 would tune and 0 test"),
        (("--rows", "1"), "--rows 1: expected a whole number of 2 or more"),
        (("--rows", "9", "--test", "0.5"), "both say how many rows are test rows"),
        (("--repeats", "0"), "--repeats 0: expected a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(run, here, given, message):
    ran = run("path", "iris", "--out", "out", *given)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not (here / "out").exists()
