"""Running the command line as a user does: the same entry point, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from forking import Server

from torchshrink.cli import main


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what it defines as modules is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def pictures() -> None:
    """Asked for by the tests that look at them: pictures are drawn as they are for a user."""


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw one takes most of a small run; in its place stands all that it would have been drawn from."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(
            "torchshrink.report.picture.png", lambda view: b"\x89PNG" + repr(view).encode(errors="backslashreplace")
        )


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("train", "digits", …)`` -> its status and what it printed."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        status = main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs the command line in processes of its own: ``server.start("train", …, here=here)``."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def small_csv(here: Path) -> Path:
    """60 rows, two informative columns, a category, and a target of two classes."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 2))
    kind = np.where(x[:, 0] + 0.3 * generator.normal(size=60) > 0, "yes", "no")
    rows = [f"{a:.4f},{b:.4f},{'red' if b > 0 else 'blue'},{k}" for (a, b), k in zip(x, kind, strict=True)]
    path = here / "small.csv"
    path.write_text("\n".join(["a,b,colour,kind", *rows]) + "\n")
    return path
