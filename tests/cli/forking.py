"""The command line in processes of its own, quickly: forked from one that has imported everything and waits."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SERVER = """
import json, os, resource, signal, sys
from torchshrink.cli import main

os.chdir(sys.argv[1])
small = ["--hidden", "2", "--epochs", "1", "--quiet"]
main(["train", "iris", *small, "--out", "train"])  # so that all is imported, and nothing is left to be by a child
main(["path", "iris", *small, "--folds", "2", "--strengths", "1", "--engine", "sequential", "--out", "path"])
sys.stdout.flush()
answers = os.fdopen(int(sys.argv[2]), "w")
print("ready", file=answers, flush=True)
for line in sys.stdin:
    wish = json.loads(line)
    pid = os.fork()
    if not pid:
        break
    print(pid, file=answers, flush=True)
    print(os.waitpid(pid, 0)[1], file=answers, flush=True)
else:
    os._exit(0)

answers.close()
os.setsid()
os.chdir(wish["here"])
for number, name in enumerate(("stdin", "stdout", "stderr")):
    os.close(number)
    if wish[name] is None:  # as a shell's >&-
        setattr(sys, name, None)
    else:
        opened = os.open(wish[name], os.O_RDWR | os.O_CREAT, 0o666)
        if opened != number:  # a lower one is closed
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, open(number, "r" if number == 0 else "w"))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever the tests themselves were started with
    signal.signal(number, signal.SIG_DFL)
for number in wish["ignored"]:
    signal.signal(number, signal.SIG_IGN)
if wish["largest"]:  # bytes of a file: a disk that is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (wish["largest"], wish["largest"]))
if wish["killed_at"]:  # in the middle of which write
    left, fsync = [wish["killed_at"]], os.fsync
    def killing(descriptor):
        left[0] -= 1
        if not left[0]:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)
    os.fsync = killing
status = main(wish["argv"])
if wish["whole_exit"]:
    sys.exit(status)
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        stream.flush()
os._exit(status)  # a whole exit takes torch over a second
"""


def until(there: Callable[[], Any], gone: Callable[[], Any] = lambda: False, seconds: float = 120) -> None:
    """Wait until something is there."""
    end = time.monotonic() + seconds
    while not there():
        assert not gone(), "it has ended"
        assert time.monotonic() < end
        time.sleep(0.005)


class Child:
    """A run of the command line in ``here``."""

    def __init__(self, server: Server, pid: int, here: Path) -> None:
        self._server, self.pid, self._here = server, pid, here

    def ended(self) -> bool:
        """Whether it is no longer running."""
        return self._server.answered()

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        code = int(self._server.answer())
        return code >> 8 if code & 0x7F == 0 else -(code & 0x7F)

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._read(".stdout")

    @property
    def err(self) -> str:
        """What it has said on stderr."""
        return self._read(".stderr")

    def _read(self, name: str) -> str:
        file = self._here / name  # which it makes when it begins
        return file.read_text() if file.exists() else ""


class Server:
    """Forks one child after another."""

    def __init__(self, folder: Path) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(folder), str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[writing],
            text=True,
        )
        os.close(writing)
        self._answers, self._read = reading, b""
        assert self.answer() == "ready"

    def start(self, *argv: str, here: Path, **wishes: Any) -> Child:
        """Start one.

        Args:
            argv: what it is told.
            here: its working directory.
            wishes: ``stdin``, ``stdout``, ``stderr`` (a file's name, or None: closed), ``ignored`` signals, the
                ``largest`` file it can write, ``killed_at`` which write, and whether the interpreter has its
                ``whole_exit``.
        """
        wish = {
            "argv": argv, "here": str(here), "stdin": "/dev/null", "stdout": ".stdout", "stderr": ".stderr",
            "ignored": [], "largest": None, "killed_at": None, "whole_exit": False,
        } | wishes  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return Child(self, int(self.answer()), here)

    def answered(self) -> bool:
        """Whether there is a line to read."""
        return b"\n" in self._read or bool(select.select([self._answers], [], [], 0)[0])

    def answer(self, seconds: float = 120) -> str:
        """The next line."""
        while b"\n" not in self._read:
            assert select.select([self._answers], [], [], seconds)[0], "no answer"
            more = os.read(self._answers, 4096)
            assert more, "the server is gone"
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        os.close(self._answers)
