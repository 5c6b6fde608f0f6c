"""How a run ends that is told to, or cannot write, in processes of its own; and where nobody takes what it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forking import until

from torchshrink.support.storage import read_json, read_tensors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and file descriptors of POSIX")

MANY = ",".join(f"{1.1**-k:.5g}" for k in range(40))  # there is more to do when the first training is finished
PATH = (
    "path", "iris", "--hidden", "8", "--batch-size", "8", "--folds", "3", "--strengths", MANY, "--epochs", "20",
    "--engine", "sequential", "--quiet", "--jobs", "2", "--out", "out",
)  # fmt: skip
TRAIN = (
    "train", "iris", "--epochs", "100000", "--hidden", "8", "--penalty", "l1", "--strength", "0.01", "--out", "out",
)  # fmt: skip
CHECKPOINT = Path("out/checkpoint.safetensors")


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # the state, the parent …
            found += [int(stat.parent.name)] if int(fields[1]) == pid else []
    return found


def alive(pids: list[int], seconds: float = 60) -> list[int]:
    """Those that are still there after so long; a zombie is not."""
    end = time.monotonic() + seconds
    while True:
        states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
        left = [pid for pid, stat in states.items() if stat.exists() and ") Z" not in stat.read_text()]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_training_that_is_told_to_end_says_how_to_go_on(server, here, name):
    number = getattr(signal, name)
    child = server.start(*TRAIN, here=here)
    until(CHECKPOINT.exists, child.ended)
    os.kill(child.pid, number)
    assert (child.wait(), child.out) == (128 + number, "")
    assert re.fullmatch(
        r"interrupted: \d+ of 100000 epochs are saved in out; to go on: torchshrink train .*--resume",
        child.err.splitlines()[-1],
    )
    assert [path.name for path in Path("out").iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a process's children in /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_workers_end_with_a_path_that_is_told_to_end(here, name):
    """In a process that is not forked, as joblib starts no workers in one that is."""
    command, pipe = [sys.executable, "-m", "torchshrink", *PATH], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        until(lambda: list(Path("out/journal").glob("*.safetensors")), process.poll)
        workers = children(process.pid)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert len(workers) >= 2
    assert not alive(workers)
    assert list(Path("out/journal").glob("*.safetensors"))
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert (process.returncode, out) == (143, "")
        assert re.fullmatch(
            r"interrupted: \d+ trainings are saved in out; to go on: torchshrink path .* --resume\n", err
        )


def test_a_second_signal_ends_it_at_once_and_says_how_to_go_on_too(server, here):
    (here / "slow.py").write_text(
        "import pathlib, time\n"
        "def rows():\n"
        "    try:\n"
        "        pathlib.Path('begun').touch()\n"
        "        time.sleep(600)\n"
        "    finally:\n"
        "        pathlib.Path('ending').touch()\n"
        "        time.sleep(600)\n"
    )
    child = server.start("train", "slow:rows", "--out", "out", here=here)
    until(Path("begun").exists, child.ended)
    os.kill(child.pid, signal.SIGTERM)
    until(Path("ending").exists, child.ended)
    os.kill(child.pid, signal.SIGHUP)
    assert child.wait() == 143
    assert child.err == "interrupted; to go on: torchshrink train slow:rows --out out --resume\n"


def test_what_is_ignored_stays_ignored(server, here):
    child = server.start(*TRAIN, here=here, ignored=[signal.SIGHUP])  # as under nohup
    until(CHECKPOINT.exists, child.ended)
    os.kill(child.pid, signal.SIGHUP)
    for _ in range(2):  # checkpoints more: it goes on
        before = CHECKPOINT.stat().st_ino, CHECKPOINT.stat().st_mtime_ns
        until(lambda: (CHECKPOINT.stat().st_ino, CHECKPOINT.stat().st_mtime_ns) != before, child.ended)  # noqa: B023
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 143


SHORT = {
    "train": ("train", "iris", "--epochs", "3", "--hidden", "2", "--quiet", "--out", "out"),
    "path": (
        "path", "iris", "--epochs", "1", "--hidden", "2", "--folds", "2", "--repeats", "1", "--strengths", "0.1",
        "--engine", "sequential", "--quiet", "--out", "out",
    ),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_whole(folder: Path) -> None:
    """Every file that is there under its name is a whole one."""
    for name, content in contents(folder).items():
        path = folder / name
        if path.suffix in (".safetensors", ".weights"):
            read_tensors(path)
        elif path.suffix == ".json":
            read_json(path)
        elif not path.name.endswith(".partial"):
            assert content.endswith(b"\x00IEND\xaeB`\x82") or b"</html>" in content[-20:]


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What undisturbed runs leave."""
    found = {}
    for verb, argv in SHORT.items():
        folder = tmp_path_factory.mktemp(verb)
        assert server.start(*argv, here=folder).wait() == 0
        found[verb] = contents(folder / "out")
    return found


@pytest.mark.parametrize(
    ("verb", "write"), [("train", 1), ("train", 3), ("train", 5), ("path", 1), ("path", 4), ("path", 7)]
)
def test_killed_in_the_middle_of_a_write(server, here, whole, verb, write):
    child = server.start(*SHORT[verb], here=here, killed_at=write)
    assert child.wait() == -signal.SIGKILL
    assert list(Path("out").rglob("*.partial"))  # what was being written
    all_whole(Path("out"))
    child = server.start(*SHORT[verb], "--resume", here=here)
    assert child.wait() == 0, child.err
    assert contents(Path("out")) == whole[verb]


@pytest.mark.parametrize("verb", SHORT)
@pytest.mark.parametrize("largest", [100, 5000])
def test_a_full_disk(server, here, whole, verb, largest):
    child = server.start(*SHORT[verb], here=here, largest=largest)
    if max(len(content) for content in whole[verb].values()) <= largest:
        assert child.wait() in (0, 2)  # a checkpoint is larger than all that stays
    else:
        assert child.wait() == 2
        assert re.fullmatch(r"error: \S+ cannot be written: File too large.*\n", child.err)
    assert not list(here.rglob("*.partial"))
    all_whole(Path("out"))
    child = server.start(*SHORT[verb], "--resume", here=here)
    assert child.wait() == 0, child.err
    assert contents(Path("out")) == whole[verb]


def test_a_signal_in_the_middle_of_a_write(run, here, monkeypatch):
    """SIGTERM at each write in turn: what is there is whole, and the run goes on to the same files."""
    fsync, argv = os.fsync, SHORT["train"]
    assert run(*argv).status == 0
    expected = contents(Path("out"))
    for write in range(1, 20):
        Path("out").rename(f"out{write}")
        left = [write]

        def told(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGTERM)
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", told)
            ran = run(*argv)
        if left[0] > 0:  # so many writes there are not
            break
        assert ran.status == 143
        assert not list(here.rglob("*.partial"))
        all_whole(Path("out"))
        assert run(*argv, "--resume").status == 0
        assert contents(Path("out")) == expected
    assert write > 4


CONVERT = "convert --from sklearn.Ridge --alpha 1 --rows 50"


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
    ],
)
def test_nobody_takes_what_is_said(here, command, status, lines):
    shell = f"{sys.executable} -m torchshrink {command}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.splitlines() == lines


@pytest.mark.parametrize(
    ("streams", "status"),
    [
        ({"stdout": "/dev/full", "stderr": "/dev/full"}, 2),
        ({"stdout": None, "stderr": None, "stdin": None}, 0),
        ({"stderr": "/dev/full"}, 0),
    ],
)
@pytest.mark.parametrize("verb", SHORT)
def test_what_is_to_be_saved_is_saved_where_nobody_takes_what_is_said(server, here, whole, verb, streams, status):
    argv = [word for word in SHORT[verb] if word != "--quiet"]
    whole_exit = "/dev/full" in streams.values()  # whose last flush may fail, and must not change the status
    assert server.start(*argv, here=here, whole_exit=whole_exit, **streams).wait() == status
    assert contents(Path("out")) == whole[verb]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_stops_it(here, encoding):
    for command in (f"{CONVERT} --json", CONVERT, f"{CONVERT} --to λ"):
        done = subprocess.run(
            [sys.executable, "-m", "torchshrink", *command.split()],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
        )
        assert done.returncode == (2 if "λ" in command else 0), done.stderr
        if "--json" in command:  # JSON's own escapes say what the encoding lacks
            assert "\u2016" in json.loads(done.stdout.decode(encoding))["source_objective"]
