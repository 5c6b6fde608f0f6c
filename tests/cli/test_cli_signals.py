"""How a run ends that is told to, in processes of its own: by signals, and where nobody takes what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and file descriptors of POSIX")

PATH = (
    "path", "iris", "--hidden", "8", "--batch-size", "8", "--folds", "3", "--strengths", "1e-5,1e-4,1e-3,1e-2",
    "--engine", "sequential", "--quiet", "--out", "out",
)  # fmt: skip
TRAIN = (
    "train",
    "iris",
    "--epochs",
    "100000",
    "--hidden",
    "8",
    "--penalty",
    "l1",
    "--strength",
    "0.01",
    "--out",
    "out",
)


def start(*arguments: str, ignored: int | None = None) -> subprocess.Popen[str]:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    command = [sys.executable, "-m", "torchshrink", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare, start_new_session=True)


def wait_for(process: subprocess.Popen[str], pattern: str, count: int = 1) -> None:
    until = time.monotonic() + 60
    while len(list(Path("out").glob(pattern))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def alive(pids: list[int], seconds: float = 10) -> list[int]:
    """Those that are still there after so long; a zombie is not."""
    until = time.monotonic() + seconds
    while True:
        states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
        left = [pid for pid, stat in states.items() if stat.exists() and ") Z" not in stat.read_text()]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_training_that_is_told_to_end_says_how_to_go_on(here, name):
    number = getattr(signal, name)
    with start(*TRAIN) as process:
        wait_for(process, "checkpoint.safetensors")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"interrupted: \d+ of 100000 epochs are saved in out; to go on: torchshrink train .*--resume", last
    )
    assert [path.name for path in Path("out").iterdir()] == ["checkpoint.safetensors"]


def test_workers_end_with_a_path_that_is_told_to_end(here):
    with start(*PATH, "--epochs", "20", "--jobs", "2") as process:
        wait_for(process, "journal/*.safetensors")
        workers = children(process.pid)
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert re.fullmatch(r"interrupted: \d+ trainings are saved in out; to go on: torchshrink path .* --resume\n", err)
    assert len(workers) >= 2
    assert not alive(workers)
    assert list(Path("out/journal").glob("*.safetensors"))


def test_workers_end_soon_after_a_parent_that_is_killed(here):
    with start(*PATH, "--epochs", "100000", "--jobs", "2") as process:
        until = time.monotonic() + 60
        while len(workers := children(process.pid)) < 3 and time.monotonic() < until:  # and one that tracks resources
            time.sleep(0.05)
        time.sleep(3)  # they have begun
        process.kill()
        process.communicate(timeout=30)
    assert len(workers) >= 3
    assert not alive(workers)


def test_a_second_signal_ends_it_at_once_and_says_how_to_go_on_too(here):
    (here / "slow.py").write_text(
        "import time\n"
        "def rows():\n"
        "    try:\n"
        "        print('here', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        time.sleep(60)\n"
    )
    with start("train", "slow:rows", "--out", "out") as process:
        assert process.stdout.readline() == "here\n"
        process.terminate()
        time.sleep(0.3)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 143
    assert err == "interrupted; to go on: torchshrink train slow:rows --out out --resume\n"


def test_what_is_ignored_stays_ignored(here):
    with start(*TRAIN, ignored=signal.SIGHUP) as process:
        wait_for(process, "checkpoint.safetensors")
        process.send_signal(signal.SIGHUP)  # as under nohup
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143


CONVERT = "convert --from sklearn.Ridge --alpha 1 --rows 50"
SMALL = "path iris --hidden 2 --folds 2 --strengths 1 --epochs 1 --out out"


@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        (f"{CONVERT} >/dev/full", 2, ["error: output: No space left on device"]),
        ("--help >/dev/full", 2, ["error: output: No space left on device"]),
        (f"{CONVERT} >&-", 0, []),
        (f"{CONVERT} 2>&-", 0, []),
        (f"{CONVERT} 2>/dev/full", 0, []),
        (f"{CONVERT} --rows 0 2>/dev/full", 2, []),
        (f"{CONVERT} --rows 0 >&- 2>&- <&-", 2, []),
        (f"{SMALL} >/dev/full 2>&1", 2, []),
        (f"{SMALL} >&- 2>&- <&-", 0, []),
        (f"{SMALL} 2>/dev/full", 0, []),
    ],
)
def test_nobody_takes_what_is_said(here, command, status, lines):
    shell = f"{sys.executable} -m torchshrink {command}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.splitlines() == lines
    if "--out" in command:  # and what was to be saved is saved
        assert Path("out/path.json").exists()
        assert not Path("out/journal").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_stops_it(here, encoding):
    for command in (f"{CONVERT} --json", CONVERT, "convert --list", "--help", f"{CONVERT} --to λ"):
        done = subprocess.run(
            [sys.executable, "-m", "torchshrink", *command.split()],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
        )
        assert done.returncode == (2 if "λ" in command else 0), done.stderr
        if "--json" in command:  # JSON's own escapes say what the encoding lacks
            assert "\u2016" in json.loads(done.stdout.decode(encoding))["source_objective"]
