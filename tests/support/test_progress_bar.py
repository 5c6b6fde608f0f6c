"""Progress: totals never rise, a bar on a terminal and lines elsewhere, and no failing stderr ends a training."""

import errno
import io
import os
import pty
import select
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from torch import nn

import torchshrink as ts
from path_cases import Normalised, iris, small
from torchshrink.support import progress_bar
from torchshrink.support.progress_bar import Bar, Steady, say


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = isatty = fileno = lambda self: self.write("")


FAILURES = {
    "full": lambda: Failing(OSError(errno.ENOSPC, "no space left")),
    "nobody reads": lambda: Failing(BrokenPipeError()),
    "closed": lambda: _closed(),
    "none": lambda: None,
}


def _closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_stderr_stops_nothing(name, monkeypatch):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)  # a line at every training
    settings = {"strengths": 2, "folds": 2, "epochs": 1, "progress": False}
    quiet = ts.path(small, iris(), ts.L1, **settings)
    monkeypatch.setattr(sys, "stderr", FAILURES[name]())
    loud = ts.path(small, iris(), ts.L1, **(settings | {"progress": True}))
    say("a line")
    assert not Steady().isatty()
    bar = Bar("on", "step", total=2)
    bar.update()
    bar.close()
    monkeypatch.undo()
    assert torch.equal(loud.losses, quiet.losses)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", ["closed", "full"])
def test_a_bar_on_a_terminal_that_goes_away(name, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Bar("on", "step", total=100)
    monkeypatch.setattr(sys, "stderr", FAILURES[name]())
    for _ in range(100):
        bar.note("on it goes")
        bar.update()
    bar.close()
    assert bar.done == 100


def test_lines_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    bar = Bar("path", "training", total=100)
    for _ in range(100):
        now[0] += 1.0
        bar.note("all is well")
        bar.update()
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"path: {n}/100 trainings, all is well" for n in (30, 60, 90, 100)]


def test_no_line_for_what_does_nothing_or_is_not_shown(capsys):
    Bar("path", "training", total=3).close()
    bar = Bar("path", "training", total=3, shown=False)
    bar.update()
    bar.close()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar():
    code = "from torchshrink.support.progress_bar import Bar; b = Bar('on', 'step', total=2); b.update(2); b.close()"
    main, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True)
    written, _, _ = select.select([main], [], [], 0)  # so that a bar that writes nothing is a failure, and no wait
    assert written
    assert "on:" in os.read(main, 10_000).decode()
    os.close(terminal)
    os.close(main)


class Watched:
    """Stands for the bar, and keeps what it showed."""

    shown: ClassVar[list] = []

    def __init__(self, *_, total=0, done=0, **__):
        self.total, self.done = total, done

    def expect(self, total):
        self.total = total
        self.keep()

    def update(self, count=1):
        self.done += count
        self.keep()

    def keep(self):
        self.shown.append((self.done, self.total))

    def note(self, text):
        pass

    def close(self):
        pass


class Late(nn.Module):
    """Cannot be stacked from its 5th pass on."""

    def __init__(self):
        super().__init__()
        self.layers, self.calls = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)), 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += self.training
        if self.calls > 5 and self.training:
            self.seen = self.seen + 1
        return self.layers(x)


CALLS = {
    "probed": (small, {"strengths": 3}),
    "probed, several": (small, {"strengths": 3, "penalty": [ts.L1, ts.L2]}),
    "exact": (lambda: nn.Linear(4, 3), {"strengths": 3}),
    "given": (small, {"strengths": [0.1, 0.2]}),
    "lanes, probed": (Normalised, {"strengths": 3, "engine": "lanes"}),
    "warm": (small, {"strengths": 3, "order": "warm"}),
    "warm, lanes": (Normalised, {"strengths": [0.1, 0.2], "order": "warm", "engine": "lanes"}),
    "refused late": (Late, {"strengths": [0.1, 0.2], "engine": "lanes"}),
    "refused late, warm": (Late, {"strengths": [0.1, 0.2], "engine": "lanes", "order": "warm"}),
}


@pytest.mark.filterwarnings("ignore:.*one training after another")
@pytest.mark.parametrize("name", CALLS)
def test_totals_do_not_jump(name, monkeypatch):
    build, settings = CALLS[name]
    settings = {"penalty": ts.L1, "folds": 2, "epochs": 2, "batch_size": 25} | settings
    monkeypatch.setattr(sys.modules["torchshrink.paths.progress"], "Bar", Watched)
    monkeypatch.setattr(Watched, "shown", [])
    ts.path(build, iris(), settings.pop("penalty"), progress=True, **settings)
    shown = Watched.shown
    totals = [total for _, total in shown]
    assert totals[1:] == sorted(totals[1:], reverse=True)
    assert shown[-1][0] == shown[-1][1] > 0
    shares = [done / total for done, total in shown]
    if "refused" not in name:  # what a stack came to nothing of is done again
        assert shares == sorted(shares)
        assert shares.count(1) <= 2  # the last training, and that none remains


def test_what_stderr_has_no_character_for_is_written_as_an_escape(monkeypatch):
    binary = io.BytesIO()
    stderr = io.TextIOWrapper(binary, encoding="cp1252", errors="strict")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        say("λ of Größe")
    assert binary.getvalue().decode("cp1252").splitlines() == [r"\u03bb of Größe"]
