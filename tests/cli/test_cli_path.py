"""``path``: what it writes and says, and that what is killed or interrupted ends as if it had not been."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from forking import until

from torchshrink import load_path
from torchshrink.data import load
from torchshrink.models import load_model
from torchshrink.report.numbers import short

FILES = {
    "path.json", "losses.safetensors", "model.safetensors", "model.json", "refit.json", "path.png", "report.html",
    "settings.json",
}  # fmt: skip
BASE = (
    "path", "small.csv", "--target", "kind", "--hidden", "4", "--epochs", "3", "--batch-size", "20", "--folds", "3",
    "--repeats", "1", "--strengths", "1e-3,0.03,1", "--lr", "0.02",
)  # fmt: skip


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_what_it_says_and_writes(run, small_csv, pictures):
    ran = run(*BASE, "--penalty", "l1", "--out", "out")
    assert ran.status == 0, ran.err
    assert set(contents("out")) == FILES
    rows = [line.split() for line in ran.out.splitlines()]
    assert [row[0] for row in rows[2:6]] == ["0", "0.001", "0.03", "1"]
    result = load_path("out")
    point = result.points[1]
    assert rows[3][1:6] == [
        f"{point.train_loss:.4g}", f"{point.validation_loss:.4g}", f"{point.validation_se:.2g}", f"{point.gap:+.2g}",
        f"{100 * point.accuracy:.2f}",
    ]  # fmt: skip
    marked = {row[0]: " ".join(row) for row in rows[2:6]}
    assert re.search("best.* chosen", marked[f"{result.best.strength:.3g}"])
    assert "one_se" in marked[f"{result.one_se.strength:.3g}"]
    assert result.verdict.words in ran.out
    for word in ("choice", "refit", "certificate", "out: path.json"):
        assert word in ran.out
    assert "path" in ran.err  # the progress


def test_json_is_one_object(run, small_csv):
    ran = run(*BASE, "--penalty", "l1", "--json", "--quiet", "--out", "out")
    assert (ran.status, ran.err) == (0, "")
    printed = json.loads(ran.out)
    assert {Path(name).name for name in printed.pop("files")} == FILES - {"settings.json"}
    assert printed.pop("refit") == json.loads(Path("out/refit.json").read_text())
    assert printed == json.loads(Path("out/path.json").read_text())


def test_several_penalties_share_everything_but_the_penalty(run, small_csv, pictures):
    command = (*BASE, "--penalty", "l2,group_lasso", "--penalty", "elastic_net", "--dim", "1", "--l1-ratio", "0.9")
    ran = run(*command, "--quiet", "--out", "out")
    assert ran.status == 0, ran.err
    results = load_path("out").results
    assert list(results) == ["l2", "group_lasso", "elastic_net"]
    assert len({json.dumps([part.points[0].to_dict()]) for part in results.values()}) == 1  # strength 0 is strength 0
    assert "GroupLasso(1, dim=1)" in json.dumps(results["group_lasso"].to_dict())
    assert "0.9" in json.dumps(results["elastic_net"].to_dict()["settings"])
    for words in (verdict.words for verdict in load_path("out").against.values()):
        assert words in ran.out


def test_the_refitted_model_is_the_one_chosen(run, small_csv):
    for choose in ("best", "one_se"):
        ran = run(*BASE, "--penalty", "l1", "--choose", choose, "--quiet", "--out", choose)
        assert ran.status == 0
        result, refit = load_path(choose), json.loads(Path(choose, "refit.json").read_text())
        chosen = result.one_se if choose == "one_se" else result.best
        (told,) = (line for line in ran.out.splitlines() if line.startswith("choice "))
        assert told.split()[1] == (f"L1({chosen.strength:g})," if chosen.strength else "no")
        before = (
            f", without penalty {short(result.points[0].validation_loss, 4)}, in the table" if chosen.strength else ""
        )
        assert told.endswith(f": {short(chosen.validation_loss, 4)}{before}")
        assert refit["strength"] == chosen.strength
        model, data = load_model(choose), load("small.csv", target="kind")
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(data.X), data.y).item()
        assert loss == pytest.approx(refit["certificate"]["loss"], rel=1e-5)
        zeros = sum(int((w == 0).sum()) for name, w in model.named_parameters() if name.endswith("weight"))
        assert zeros == refit["sparsity"]["zeros"]


def test_a_relaxed_refit_has_the_zeros_and_no_penalty(run, small_csv):
    command = (*BASE, "--strengths", "1e-3", "--penalty", "log_sum", "--epsilon", "0.05", "--epochs", "20", "--quiet")
    command += ("--choose", "one_se")
    assert run(*command, "--out", "plain").status == 0
    ran = run(*command, "--relaxed", "--out", "relaxed")
    assert ran.status == 0, ran.err
    assert "on all rows, relaxed: " in ran.out
    plain, relaxed = (json.loads(Path(folder, "refit.json").read_text()) for folder in ("plain", "relaxed"))
    assert relaxed["strength"] == plain["strength"] == 1e-3
    assert relaxed["penalty"] == "LogSum(0.001, epsilon=0.05)"
    assert (plain["relaxed"], relaxed["relaxed"]) == (False, True)
    assert relaxed["certificate"]["penalty"] == 0 < plain["certificate"]["penalty"]
    assert relaxed["certificate"]["loss"] < plain["certificate"]["loss"]
    assert relaxed["sparsity"] == plain["sparsity"]
    assert relaxed["sparsity"]["zeros"] > 0


@pytest.mark.parametrize(("order", "compared"), [("cold", "l1"), ("warm", "l1,l2")])
def test_another_end_takes_over_the_path_that_is_there(run, small_csv, monkeypatch, order, compared):
    command = (*BASE, "--penalty", compared, "--order", order, "--epochs", "1")
    assert run(*command, "--out", "out").status == 0
    path, ends = Path("out/path.json").read_bytes(), {"relaxed": ("--relaxed",), "one_se": ("--choose", "one_se")}
    for name, end in ends.items():
        assert run(*command, *end, "--out", name).status == 0
    monkeypatch.setattr("torchshrink.paths.run.PathJob.run", None)  # nothing is cross-validated from here on
    for name, end in ends.items():
        ran = run(*command, *end, "--out", "out", "--resume")
        assert ran.status == 0, ran.err
        assert "the path in out is finished; the model alone is trained anew" in ran.err
        assert contents("out") == contents(name)
        assert Path("out/path.json").read_bytes() == path
        again = run(*command, *end, "--out", "out", "--resume")
        assert "is finished; this is its result" in again.err
    Path("out/model.safetensors").unlink()  # what is lost of the model is made again, too
    assert run(*command, *end, "--out", "out", "--resume").status == 0
    assert contents("out") == contents(name)
    refused = run(*command, "--relaxed", "--seed", "7", "--out", "out", "--resume")
    assert (refused.status, "relaxed was" in refused.err) == (2, False)


def test_numbers_have_no_accuracy(run, here):
    ran = run("path", "diabetes", "--model", "linear", "--epochs", "2", "--strengths", "2", "--folds", "2", "--quiet")
    assert ran.status == 0, ran.err
    assert "accuracy" not in ran.out
    assert Path("runs/path-diabetes/path.json").exists()


def test_equal_runs_give_equal_bytes(run, small_csv, pictures):
    for out in ("a", "b"):
        assert run(*BASE, "--penalty", "l1", "--quiet", "--out", out).status == 0
    assert contents("a") == contents("b")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--penalty", "none"), "strength 0 is among the points anyway"),
        (("--penalty", "max_norm"), "a constraint has no strength to tune"),
        (("--penalty", "l1,l1"), "given twice"),
        (("--penalty", ","), "expected one or more of"),
        (("--penalty", "l1,elastic"), "did you mean 'elastic_net'?"),
        (("--penalty", "l1,l2", "--dim", "0"), "--dim 0: l1 and l2 do not take it; group_lasso"),
        (("--penalty", "l1", "--gamma", "2"), "mcp, scad, group_mcp, group_scad would"),
        (("--strengths", "0.1,x"), "'x' is not a number"),
        (("--strengths", "0.1,nan"), "--strengths nan"),
        (("--strengths", "-0.1,1"), "--strengths -0.1"),
        (("--strengths", "0"), "--strengths 0"),
        (("--folds", "1"), "--folds 1"),
        (("--folds", "61"), "folds"),
        (("--choose", "least"), "--choose least"),
        (("--threads", "0"), "--threads 0"),
        (("--method", "prox", "--penalty", "orthogonal"), "Orthogonal"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, small_csv, options, expected):
    ran = run(*BASE, *options)
    assert (ran.status, ran.out) == (2, ""), ran.err
    assert len(ran.lines) == 1
    assert ran.err.startswith("error: ")
    assert expected in ran.err
    assert not Path("runs").exists()


# --- interrupted ------------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_done(run, small_csv, monkeypatch):
    from torchshrink.paths import training_spec

    assert run(*BASE, "--penalty", "l1", "--quiet", "--out", "whole").status == 0
    real, calls = training_spec.train_epoch, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 14:  # in the fifth training
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(training_spec, "train_epoch", interrupted)
    ran = run(*BASE, "--penalty", "l1", "--quiet", "--out", "broken")
    assert (ran.status, ran.out) == (130, "")
    (line,) = ran.lines
    assert line.startswith("interrupted: 4 trainings are saved in broken; to go on: torchshrink path small.csv")
    before = len(calls)
    ran = run(*line.split("torchshrink ")[1].split())
    assert ran.status == 0, ran.err
    assert ran.lines == ["resuming in broken"]
    assert len(calls) - before == (4 * 3 - 4 + 1) * 3  # what was not done, and the refit
    assert contents("broken") == contents("whole")


def test_resume_with_other_settings_names_what_differs(run, small_csv):
    assert run(*BASE, "--penalty", "l1", "--quiet", "--out", "out").status == 0
    before = contents("out")
    ran = run(*BASE, "--penalty", "l2", "--out", "out", "--resume", "--seed", "5")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert "seed was 0, now 5" in ran.err
    assert "l1" in ran.err
    assert contents("out") == before


def test_resume_of_what_is_finished_shows_it_again(run, small_csv):
    first = run(*BASE, "--penalty", "l1", "--quiet", "--out", "out")
    before = contents("out")
    again = run(*BASE, "--penalty", "l1", "--out", "out", "--resume")
    assert (again.status, again.out) == (0, first.out)
    assert again.lines == ["out is finished; this is its result"]
    assert contents("out") == before


def test_resume_of_what_is_no_path(run, small_csv):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    ran = run(*BASE, "--out", "out", "--resume")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert contents("out") == {"notes.txt": b"mine"}


LONG = (
    "path", "iris", "--hidden", "8", "--epochs", "12", "--batch-size", "30", "--folds", "3", "--repeats", "2",
    "--strengths", "5", "--penalty", "l1",
)  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torchshrink", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores interrupts, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def trainings(folder: str) -> int:
    return len(list(Path(folder, "journal").glob("*.safetensors")))


def test_killed_in_the_middle_and_interrupted_once_more(server, run, here):
    child = server.start(*LONG, "--out", "broken", here=here)
    until(lambda: trainings("broken") >= 2, child.ended)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not Path("broken/path.json").exists()

    child = server.start(*LONG, "--out", "broken", "--resume", "--quiet", here=here)
    until(lambda: trainings("broken") >= 6, child.ended)
    os.kill(child.pid, signal.SIGINT)
    assert (child.wait(), child.out) == (130, "")
    lines = child.err.splitlines()
    assert lines[0] == "resuming in broken"
    assert len(lines) == 2
    assert re.fullmatch(r"interrupted: \d+ trainings are saved in broken; to go on: torchshrink .* --resume", lines[1])

    assert run(*LONG, "--out", "broken", "--resume", "--quiet").status == 0
    assert run(*LONG, "--out", "whole", "--quiet").status == 0
    assert contents("broken") == contents("whole")


STRENGTHS = ",".join(str(10.0 ** (k / 2 - 5)) for k in range(11))
LANES = (
    *LONG,
    "--repeats",
    "1",
    "--epochs",
    "12",
    "--strengths",
    STRENGTHS,
    "--engine",
    "lanes",
    "--lanes",
    "3",
)  # 12 stacks


def complete_stacks(folder: str) -> int:
    stacks = Counter(path.stem.rsplit("-", 1)[1] for path in Path(folder, "journal").glob("*.safetensors"))
    return list(stacks.values()).count(3)


def test_lanes_killed_in_the_middle_and_interrupted_in_two_processes(server, run, here, monkeypatch):
    from torchshrink.paths.engines.stack import Stack

    child = server.start(*LANES, "--out", "broken", here=here, killed_at=6)  # so at least one stack is complete
    assert child.wait() == -signal.SIGKILL
    assert not Path("broken/path.json").exists()
    killed_with = complete_stacks("broken")
    assert 1 <= killed_with < 12

    with start(*LANES, "--jobs", "2", "--out", "broken", "--resume", "--quiet") as process:
        until(lambda: trainings("broken") >= 3 * killed_with + 4, process.poll)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"resuming in broken\ninterrupted: \d+ trainings are saved in broken; to go on: .*\n", err)
    complete = complete_stacks("broken")
    assert killed_with < complete <= 12

    trained, train = [], Stack.train
    monkeypatch.setattr(Stack, "train", lambda *given: trained.append(1) or train(*given))
    assert run(*LANES, "--out", "broken", "--resume", "--quiet").status == 0
    assert len(trained) == 12 - complete  # and what had been finished was not trained again
    assert run(*LANES, "--out", "whole", "--quiet").status == 0
    assert contents("broken") == contents("whole")


@pytest.mark.parametrize("verb", ["path", "train"])
@pytest.mark.parametrize("wrong", [("--drop", "prise"), ("--penalty", "lasso"), ("--optimizer", "adamm")])
def test_a_folder_that_is_taken_hides_no_other_mistake(run, here, verb, wrong):
    folder = here / "runs" / f"{verb}-iris"
    folder.mkdir(parents=True)
    (folder / "mine").write_text("kept")
    ran = run(verb, "iris", *wrong)
    assert ran.status == 2
    assert wrong[1] in ran.err
    assert "exists and is not empty" not in ran.err
    assert "exists and is not empty" in run(verb, "iris").err
