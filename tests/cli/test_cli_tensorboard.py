"""``train --tensorboard``: what is in the curves, read back by TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from torchshrink.models import load_model

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

BASE = ("train", "small.csv", "--target", "kind", "--hidden", "4", "--lr", "0.02", "--batch-size", "20", "--quiet")
SPARSE = ("--penalty", "group_lasso", "--strength", "0.1")


def curves(folder: str) -> dict[str, list[tuple[int, float]]]:
    events = read(folder)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read(folder: str):
    return reader.EventAccumulator(
        str(Path(folder, "tensorboard")), size_guidance={"scalars": 0, "histograms": 0}
    ).Reload()


def saved(folder: str) -> dict:
    return json.loads(Path(folder, "train.json").read_text())


def test_the_curves_are_the_history_and_the_end(run, small_csv):
    ran = run(*BASE, *SPARSE, "--epochs", "6", "--tensorboard", "--out", "out")
    assert ran.status == 0, ran.err
    found, told = curves("out"), saved("out")
    for part in ("train", "validation"):
        for what in ("loss", "accuracy"):
            expected = [(each["epoch"], each[f"{part}_{what}"]) for each in told["history"]]
            assert found[f"{what}/{part}"] == pytest.approx(np.array(expected), rel=1e-6)
    assert found["learning_rate"] == [(epoch, pytest.approx(0.02)) for epoch in range(1, 7)]
    end, counts = told["result"], told["result"]["sparsity"]
    assert found["penalty"][-1] == (6, pytest.approx(end["certificate"]["penalty"], rel=1e-5))
    assert found["sparsity"][-1] == (6, pytest.approx(counts["zeros"] / counts["total"]))
    assert 0 < counts["zeros"] < counts["total"]
    assert found["sparsity_of_groups"][-1] == (6, pytest.approx(counts["groups_zero"] / counts["groups"]))
    model, events = load_model("out"), read("out")
    for each in counts["by_parameter"]:
        assert found[f"sparsity_of/{each['name']}"][-1] == (6, pytest.approx(each["zeros"] / each["total"]))
        histograms = events.Histograms(f"weights/{each['name']}")
        assert [event.step for event in histograms] == [1, 2, 3, 4, 5, 6]
        last, weight = histograms[-1].histogram_value, model.get_parameter(each["name"]).detach().double()
        assert (last.num, last.min, last.max) == (weight.numel(), weight.min().item(), weight.max().item())
        assert last.sum_squares == pytest.approx(weight.square().sum().item())
    assert set(events.Tags()["histograms"]) == {f"weights/{each['name']}" for each in counts["by_parameter"]}


@pytest.mark.parametrize(
    ("options", "there", "missing"),
    [
        (("--penalty", "none"), {"loss/train", "loss/validation", "accuracy/train"}, {"penalty", "sparsity"}),
        (("--validation", "0", "--penalty", "l1"), {"loss/train", "penalty", "sparsity"}, {"loss/validation"}),
        (("--penalty", "max_norm", "--radius", "0.1"), {"loss/train", "sparsity"}, {"penalty"}),
        (("--method", "loss", "--optimizer", "sgd"), {"penalty", "sparsity_of/output.weight"}, {"sparsity_of_groups"}),
    ],
)
def test_what_there_is_not_has_no_curve(run, small_csv, options, there, missing):
    assert run(*BASE, *options, "--epochs", "2", "--tensorboard", "--out", "out").status == 0
    found = curves("out")
    assert there <= found.keys()
    assert not missing & found.keys()
    assert all(np.isfinite(value) for points in found.values() for _, value in points)


def test_losses_of_numbers_and_their_penalty_are_in_the_targets_unit(run, here):
    ran = run("train", "diabetes", "--model", "linear", "--penalty", "l2", "--strength", "0.1", "--epochs", "2",
              "--quiet", "--tensorboard", "--out", "out")  # fmt: skip
    assert ran.status == 0, ran.err
    found = curves("out")
    assert "accuracy/train" not in found
    assert found["loss/train"][-1][1] > 1000
    # In the standardised unit it is below 1: the loss of the best constant is 1 there, and the strength 0.1.
    own = saved("out")["result"]["certificate"]
    unit = found["penalty"][-1][1] / own["penalty"]
    assert unit == pytest.approx(saved("out")["result"]["train_loss"] / own["loss"], rel=1e-4)


@pytest.mark.parametrize("lost", [1, 3])
def test_what_is_interrupted_goes_on_in_the_same_curves(run, small_csv, monkeypatch, lost):
    command = (*BASE, *SPARSE, "--epochs", "5", "--tensorboard")
    assert run(*command, "--out", "whole").status == 0
    save, calls = "torchshrink.cli.train_epochs.save_checkpoint", []
    with monkeypatch.context() as patch:
        from torchshrink.training.checkpoint import save_checkpoint

        def interrupted(*arguments, **named):  # after the curves of an epoch are written, before its checkpoint is
            calls.append(1)
            if len(calls) == lost + 1:
                raise KeyboardInterrupt
            save_checkpoint(*arguments, **named)

        patch.setattr(save, interrupted)
        ran = run(*command, "--out", "out")
    assert ran.status == 130
    assert f"{lost - 1} of 5 epochs are saved" in ran.err
    assert [step for step, _ in curves("out")["loss/train"]] == list(range(1, lost + 1))
    ran = run(*command, "--out", "out", "--resume")
    assert ran.status == 0, ran.err
    assert curves("out") == curves("whole")
    events = [read("out"), read("whole")]
    for tag in events[1].Tags()["histograms"]:
        both = [[(e.step, e.histogram_value) for e in each.Histograms(tag)] for each in events]
        assert both[0] == both[1]
    for name in ("model.safetensors", "train.json"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_run_that_goes_on_with_it_begins_its_curves_with_the_epochs_before(run, small_csv, monkeypatch):
    from torchshrink.cli.train_epochs import Fit

    command, epoch = (*BASE, *SPARSE, "--epochs", "4", "--out", "out"), Fit._epoch

    def stopped(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_epoch", stopped)
        assert run(*command).status == 130
    assert run(*command, "--resume", "--tensorboard").status == 0
    found = curves("out")
    assert [step for step, _ in found["loss/train"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["penalty"]] == [3, 4]


def test_another_run_in_the_folder_starts_its_curves_anew(run, small_csv):
    for epochs, strength in ((3, 0.1), (2, 0.2)):
        command = (*BASE, "--epochs", epochs, "--penalty", "l1", "--strength", strength, "--tensorboard")
        assert run(*command, "--out", "out", "--force").status == 0
    assert [step for step, _ in curves("out")["loss/train"]] == [1, 2]
    assert len(list(Path("out/tensorboard").iterdir())) == 1
    Path("out/tensorboard/notes.txt").write_text("mine")
    assert run(*command, "--out", "out", "--force").status == 0
    assert Path("out/tensorboard/notes.txt").read_text() == "mine"


def test_nothing_else_changes_and_nothing_is_imported_without_it(run, small_csv, monkeypatch):
    assert run(*BASE, "--epochs", "2", "--tensorboard", "--out", "with").status == 0
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails from here on
    assert run(*BASE, "--epochs", "2", "--out", "without").status == 0
    names = {path.name for path in Path("without").iterdir()}
    assert {path.name for path in Path("with").iterdir()} == names | {"tensorboard"}
    for name in names:
        assert Path("with", name).read_bytes() == Path("without", name).read_bytes()


def test_where_it_is_not_installed_that_is_one_line(run, small_csv, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name, *a))
    ran = run(*BASE, "--tensorboard", "--out", "out")
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert "--tensorboard needs tensorboard, which is not installed" in ran.err
    assert not Path("out").exists()
