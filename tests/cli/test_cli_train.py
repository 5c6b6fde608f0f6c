"""``train``: what it writes and says, and that what is killed or interrupted ends as if it had not been."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from forking import until

from torchshrink.cli import train_epochs
from torchshrink.data import load
from torchshrink.models import load_model
from torchshrink.penalties import BUILTIN
from torchshrink.regularizer.certificate import Certificate

FILES = {"model.safetensors", "model.json", "train.json"}
BASE = ("train", "small.csv", "--target", "kind", "--hidden", "8", "--epochs", "4", "--batch-size", "16")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_it_says_and_writes(run, small_csv):
    ran = run(*BASE, "--penalty", "l1", "--strength", "0.003", "--out", "out")
    assert ran.status == 0, ran.err
    assert len(ran.lines) == 2 * 4
    for line in ran.lines[::2]:
        assert re.search(r"Train Loss: \d+\.\d{3} \| Accuracy: \d+\.\d{3}$", line)
    for line in ran.lines[1::2]:
        assert re.search(r"Validation Loss: \d+\.\d{3} \| Accuracy: \d+\.\d{3}$", line)
    for word in ("rows", "loss", "accuracy", "gap", "sparsity", "certificate", "out: model.safetensors"):
        assert word in ran.out
    assert all(len(line) <= 80 for line in ran.out.splitlines() if not line.startswith("certificate"))
    assert {path.name for path in Path("out").iterdir()} == FILES
    saved = json.loads(Path("out/train.json").read_text())
    assert [epoch["epoch"] for epoch in saved["history"]] == [1, 2, 3, 4]
    assert saved["settings"]["penalty"]["strength"] == 0.003
    figures = saved["result"]
    assert figures["gap"] == pytest.approx(figures["validation_loss"] - figures["train_loss"])
    assert figures["sparsity"]["total"] == 8 * 4 + 2 * 8
    assert figures["certificate"]["ok"] is False


def test_json_is_one_object_and_the_file_with_the_files(run, small_csv):
    ran = run(*BASE, "--json", "--quiet")
    assert (ran.status, ran.err) == (0, "")
    printed = json.loads(ran.out)
    folder = Path("runs/train-small")
    assert printed.pop("files") == [str(folder / name) for name in ("model.safetensors", "model.json", "train.json")]
    assert printed == json.loads((folder / "train.json").read_text())


def test_the_saved_model_takes_raw_rows_and_gives_the_figures(run, small_csv):
    assert run(*BASE, "--validation", "0", "--quiet", "--out", "out").status == 0
    figures = json.loads(Path("out/train.json").read_text())["result"]
    assert figures["validation_loss"] is None
    assert figures["gap"] is None
    data = load("small.csv", target="kind")
    with torch.no_grad():
        output = load_model("out")(data.X)
    assert torch.nn.functional.cross_entropy(output, data.y).item() == pytest.approx(figures["train_loss"], rel=1e-5)
    assert (output.argmax(1) == data.y).double().mean().item() == pytest.approx(figures["train_accuracy"])


def test_numbers_have_no_accuracy(run, here):
    ran = run("train", "diabetes", "--model", "linear", "--epochs", "2", "--out", "out")
    assert ran.status == 0, ran.err
    assert re.search(r"Train Loss: \d+\.\d{3}$", ran.lines[0])
    assert "ccuracy" not in ran.out + ran.err


def test_equal_runs_give_equal_bytes_and_the_seed_matters(run, small_csv):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(*BASE, "--quiet", "--out", out, "--seed", seed).status == 0
    assert contents(Path("a")) == contents(Path("b"))
    assert contents(Path("a"))["model.safetensors"] != contents(Path("c"))["model.safetensors"]


@pytest.mark.parametrize(
    ("options", "acts"),
    [
        (("--penalty", "none"), False),
        (("--penalty", "l2", "--strength", "0.1", "--method", "loss"), True),
        (("--penalty", "l2", "--strength", "0.1", "--method", "gradient", "--on", "all"), True),
        (("--penalty", "l2", "--strength", "0.1", "--optimizer", "adamw", "--method", "decoupled"), True),
        (("--penalty", "elastic_net", "--strength", "0.1", "--l1-ratio", "0.9", "--optimizer", "sgd"), True),
        (("--penalty", "group_lasso", "--strength", "0.01", "--optimizer", "sgd", "--momentum", "0.9"), True),
        (("--rules", "rules.yaml"), True),
    ],
)
@pytest.mark.filterwarnings("ignore::torchshrink.errors.ObjectiveWarning")
def test_each_penalty_method_and_optimizer(run, small_csv, options, acts):
    Path("rules.yaml").write_text(
        "on: all\nrules:\n  hidden1.*: {l1: 1e-1}\n  output.weight: {l2: 1e-1}\n  '*': none\n"
    )
    assert run(*BASE, "--quiet", "--out", "plain", "--penalty", "none", "--optimizer", "sgd").status == 0
    ran = run(*BASE, "--quiet", "--out", "out", *options)
    assert ran.status == 0, ran.err
    figures = json.loads(Path("out/train.json").read_text())["result"]
    assert (figures["certificate"]["penalty"] > 0) is acts


def test_method_loss_and_gradient_end_at_the_same_weights(run, small_csv):
    for method in ("loss", "gradient"):
        ran = run(*BASE, "--quiet", "--penalty", "l2", "--strength", "0.05", "--method", method, "--out", method)
        assert ran.status == 0, ran.err
    for (name, a), (_, b) in zip(
        load_model("loss").state_dict().items(), load_model("gradient").state_dict().items(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


def test_a_long_training_is_certified(run, small_csv):
    ran = run(
        "train", "iris", "--model", "logistic", "--penalty", "l2", "--strength", "0.05", "--optimizer", "sgd",
        "--lr", "0.5", "--batch-size", "1000", "--epochs", "400", "--quiet", "--out", "out",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    certificate = json.loads(Path("out/train.json").read_text())["result"]["certificate"]
    assert certificate["ok"] is True
    assert certificate["relative"] < 1e-4
    assert set(Certificate.__dataclass_fields__) <= set(certificate) | {"parameters"}


def test_a_divergence_is_told_and_is_no_bad_input(run, small_csv):
    ran = run("train", "diabetes", "--model", "linear", "--optimizer", "sgd", "--lr", "1e4", "--out", "out", "--quiet")
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.lines) == 1
    assert "learning rate" in ran.err
    assert not (Path("out") / "train.json").exists()


def test_force_overwrites_this_runs_files_and_no_other(run, small_csv):
    assert run(*BASE, "--quiet", "--out", "out").status == 0
    Path("out/notes.txt").write_text("mine")
    before = contents(Path("out"))
    assert run(*BASE, "--quiet", "--out", "out").status == 2
    assert contents(Path("out")) == before
    assert run(*BASE, "--quiet", "--out", "out", "--force", "--seed", "9").status == 0
    after = contents(Path("out"))
    assert set(after) == set(before)
    assert after["notes.txt"] == b"mine"
    assert after["model.safetensors"] != before["model.safetensors"]


# --- interrupted ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dropout_model(here):
    """A model that draws from torch's global generator while it trains, and keeps statistics."""
    Path("zoo.py").write_text(
        "from torch import nn\nfrom torchshrink.models import Preprocess\n"
        "def noisy():\n"
        "    hidden = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout()\n"
        "    return nn.Sequential(Preprocess([0, 0, 2]), *hidden, nn.Linear(8, 2))\n"
    )


@pytest.mark.filterwarnings("ignore::torchshrink.errors.SelectionWarning")
@pytest.mark.parametrize("when", [0, 1, 3])
def test_ctrl_c_saves_and_resume_ends_at_the_same_bytes(run, small_csv, dropout_model, monkeypatch, when):
    command = ("train", "small.csv", "--target", "kind", "--epochs", "4", "--model", "zoo:noisy", "--penalty", "l1")
    assert run(*command, "--out", "whole", "--quiet").status == 0

    real, calls = train_epochs.train_epoch, []

    def interrupted(*arguments, **options):
        calls.append(options["epoch"])
        stats = real(*arguments, **options)  # the epoch is done, but not yet saved
        if len(calls) == when + 1:
            raise KeyboardInterrupt
        return stats

    monkeypatch.setattr(train_epochs, "train_epoch", interrupted)
    ran = run(*command, "--out", "broken", "--quiet", "--force")
    assert (ran.status, ran.out) == (130, "")
    (line,) = ran.lines
    assert line == (
        f"interrupted: {when} of 4 epochs are saved in broken; to go on: "
        f"torchshrink {' '.join(command)} --out broken --quiet --resume"
    )
    assert set(contents(Path("broken"))) == {"checkpoint.safetensors"}

    ran = run(*line.split("torchshrink ")[1].split())
    assert ran.status == 0, ran.err
    assert f"resuming after epoch {when} of 4" in ran.err
    assert calls[when + 1 :] == list(range(when, 4))  # nothing that was done is done again
    assert contents(Path("broken")) == contents(Path("whole"))


def test_resume_with_other_settings_names_what_differs(run, small_csv, monkeypatch):
    real = train_epochs.train_epoch

    def interrupted(*arguments, **options):
        if options["epoch"] == 1:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train_epochs, "train_epoch", interrupted)
        assert run(*BASE, "--out", "out", "--quiet").status == 130
    before = contents(Path("out"))
    ran = run(*BASE, "--out", "out", "--resume", "--lr", "0.01", "--strength", "0.5")
    assert (ran.status, ran.out) == (2, "")
    assert "penalty strength was 0.0001, now 0.5" in ran.err
    assert "optimizer lr was 0.001, now 0.01" in ran.err
    assert len(ran.lines) == 1
    small_csv.write_text(small_csv.read_text().replace("red", "blue"))
    ran = run(*BASE, "--out", "out", "--resume")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert "data sha256 was" in ran.err
    assert contents(Path("out")) == before


def test_resume_of_what_is_finished_shows_it_again(run, small_csv):
    first = run(*BASE, "--out", "out")
    before = contents(Path("out"))
    again = run(*BASE, "--out", "out", "--resume")
    assert (again.status, again.out) == (0, first.out)
    assert again.lines == ["out is finished; this is its result"]
    assert contents(Path("out")) == before


def test_resume_of_nothing_starts(run, small_csv):
    ran = run(*BASE, "--out", "out", "--resume")
    assert ran.status == 0
    assert ran.lines[0] == "nothing to resume in out: starting from the beginning"


LONG = (
    "train",
    "iris",
    "--epochs",
    "60",
    "--penalty",
    "l1",
    "--hidden",
    "16",
    "--batch-size",
    "8",
    "--strength",
    "0.01",
)


def test_killed_in_the_middle_and_interrupted_once_more(server, run, here):
    child = server.start(*LONG, "--out", "broken", here=here)
    until(lambda: "[4/" in child.err.replace(" ", ""), child.ended)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not Path("broken/train.json").exists()

    child = server.start(*LONG, "--out", "broken", "--resume", here=here)
    until(lambda: "[12/" in child.err.replace(" ", ""), child.ended)
    os.kill(child.pid, signal.SIGINT)
    assert (child.wait(), child.out) == (130, "")
    assert "Traceback" not in child.err
    assert re.search(
        r"interrupted: \d+ of 60 epochs are saved in broken; to go on: torchshrink .*--resume\n$", child.err
    )

    assert run(*LONG, "--out", "broken", "--resume", "--quiet").status == 0
    assert run(*LONG, "--out", "whole", "--quiet").status == 0
    assert contents(Path("broken")) == contents(Path("whole"))


@pytest.mark.parametrize("name", BUILTIN)
def test_every_penalty_trains_and_resumes(run, small_csv, monkeypatch, name):
    real = train_epochs.train_epoch

    def interrupted(*arguments, **options):
        if options["epoch"] == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    made_of = {"max_norm": "--radius 1", "l1_ball": "--radius 1", "box": "--low -0.1", "l0_ball": "--keep 0.3", "nm":
               "--pattern 2:4"}  # fmt: skip
    options = tuple(made_of.get(name, "").split()) if BUILTIN[name].constraint else ("--strength", "0.01")
    if BUILTIN[name].prox_steps == "scalar":  # a prox with one step only: adam's auto has no use for it
        options += ("--optimizer", "sgd")
    command = (*BASE, "--penalty", name, *options, "--quiet", "--out")
    ran = run(*command, "whole")
    assert ran.status == 0, ran.err
    with monkeypatch.context() as patch:
        patch.setattr(train_epochs, "train_epoch", interrupted)
        assert run(*command, "broken").status == 130
    assert run(*command, "broken", "--resume").status == 0
    assert contents(Path("broken")) == contents(Path("whole"))


@pytest.mark.parametrize(("options", "said"), [(("--lr", "1e-9"), True), ((), False)])
@pytest.mark.parametrize("data", ["digits", "diabetes"])
@pytest.mark.parametrize("validation", ["0.2", "0"])
def test_says_where_nothing_was_learnt(run, here, data, validation, options, said):
    ran = run("train", data, "--epochs", "20", "--quiet", "--validation", validation, *options, "--json")
    words = json.loads(ran.out)["words"]["learnt"]
    assert (words or "").startswith("nothing was learnt: the training loss is" if said else "")
    assert bool(words) is said
