"""Every file that a run writes, changed in every way: the run ends as an untouched one does, or with status 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from torchshrink.cli import main, train_epochs
from torchshrink.errors import InputError
from torchshrink.models import load_model
from torchshrink.paths import load_path
from torchshrink.paths.journal import Journal
from torchshrink.support.storage import read_tensors, write_tensors

PATH = (
    "path", "small.csv", "--target", "kind", "--penalty", "l1", "--hidden", "2", "--epochs", "1", "--folds", "2",
    "--repeats", "1", "--strengths", "0.01,0.1", "--engine", "sequential", "--quiet",
)  # fmt: skip
TRAIN = ("train", "small.csv", "--target", "kind", "--hidden", "2", "--epochs", "2", "--quiet")


def truncated(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def flipped_late(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(bytes(content))


def swapped(path: Path, other: Path) -> None:
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


def replaced(path: Path, other: Path) -> None:
    path.write_text('{"format": 1, "points": [-5, null, 1e999, {}]}')


def retyped(path: Path, other: Path) -> None:
    """Each value of the JSON, and of the metadata, is of another type; the tensors are as they were."""
    if path.suffix == ".json":
        path.write_text(json.dumps({key: [value] for key, value in json.loads(path.read_text()).items()}))
    elif path.suffix in (".safetensors", ".weights"):
        tensors, metadata = read_tensors(path)
        numbers = {key: text.replace('"nonzero": ', '"nonzero": -') + " " for key, text in metadata.items()}
        write_tensors(path, tensors, numbers)
    else:
        path.write_text("something else")


WAYS = [truncated, emptied, flipped, flipped_late, swapped, replaced, retyped]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}


def every_file_in_every_way(run, command, stopped: Path, whole: Path, ways=WAYS) -> tuple[int, int]:
    """How many ended as ``whole``, and how many were refused."""
    expected, same, refused = contents(whole), 0, 0
    for number, file in enumerate(files(stopped)):
        for way in ways:
            shutil.rmtree("tried", ignore_errors=True)
            shutil.copytree(stopped, "tried")
            mine = files(Path("tried"))
            alike = [other for other in mine if other.suffix == file.suffix and other.parent.name == file.parent.name]
            others = [other for other in alike if other != mine[number]] or mine[number - 1 :][:1]
            way(mine[number], others[0])
            ran = run(*command, "--resume", "--out", "tried")
            said = f"{file} {way.__name__}: {ran.err}"
            assert ran.status in (0, 2), said
            if ran.status == 0:
                assert contents(Path("tried")) == expected, said
                same += 1
            else:
                assert ran.lines[-1].startswith("error: "), said
                assert ran.out == ""
                refused += 1
    return same, refused


def interrupt(monkeypatch: pytest.MonkeyPatch, run, command: tuple[str, ...], folder: str, after: int) -> Path:
    """A run that was interrupted after so many trainings of a path."""
    written, write = [], Journal.write

    def interrupting(*given, **named):
        write(*given, **named)
        written.append(1)
        if len(written) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", interrupting)
        assert run(*command, "--out", folder).status == 130
    return Path(folder)


@pytest.mark.parametrize("order", ["cold", "warm"])
def test_an_interrupted_path(run, small_csv, monkeypatch, order):
    command = (*PATH, "--order", order)
    stopped = interrupt(monkeypatch, run, command, "stopped", 4)
    assert run(*command, "--out", "whole").status == 0
    ways = {"cold": WAYS, "warm": [flipped, swapped, retyped]}[order]
    same, refused = every_file_in_every_way(run, command, stopped, Path("whole"), ways)
    assert same >= 4 * len(ways) - 2  # what the journal kept is trained again
    assert refused >= len(ways) - 1  # the run's own settings


def test_a_finished_path(run, small_csv):
    assert run(*PATH, "--out", "whole").status == 0
    same, refused = every_file_in_every_way(run, PATH, Path("whole"), Path("whole"))
    assert refused > 40 > same


def test_an_interrupted_training(run, small_csv, monkeypatch):
    real = train_epochs.train_epoch

    def interrupted(*arguments, **options):
        if options["epoch"] == 1:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train_epochs, "train_epoch", interrupted)
        assert run(*TRAIN, "--out", "stopped").status == 130
    assert run(*TRAIN, "--out", "whole").status == 0
    _, refused = every_file_in_every_way(run, TRAIN, Path("stopped"), Path("whole"))
    assert refused >= 6


def test_a_finished_training(run, small_csv):
    assert run(*TRAIN, "--out", "whole").status == 0
    _, refused = every_file_in_every_way(run, TRAIN, Path("whole"), Path("whole"))
    assert refused >= 18


@pytest.fixture(scope="module")
def two_paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished paths that differ in their seed alone."""
    place = tmp_path_factory.mktemp("paths")
    X, y = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    np.savez(place / "small.npz", X=X.numpy(), y=y.numpy())
    options = [word for word in PATH if word not in ("small.csv", "--target", "kind", "path")]
    for seed in ("0", "1"):
        argv = ["path", str(place / "small.npz"), *options, "--seed", seed, "--out", str(place / seed)]
        assert main(argv) == 0
    return place / "0", place / "1"


@pytest.mark.parametrize("way", WAYS)
def test_reading_them_from_python(here, two_paths, way):
    readers = {
        "path.json": load_path, "losses.safetensors": load_path, "model.json": load_model,
        "model.safetensors": load_model,
    }  # fmt: skip
    for name, read in readers.items():
        for folder, path in zip(("tried", "other"), two_paths, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(path, folder)
        read("tried")
        way(Path("tried", name), Path("other", name))
        with pytest.raises(InputError) as caught:
            read("tried")
        assert "\n" not in str(caught.value)
