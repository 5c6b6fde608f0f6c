"""Progress on stderr: a bar on a terminal, a line now and then elsewhere, and never the end of a training."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any, final

from tqdm import tqdm

from torchshrink.support.text import write_escaped

SECONDS = 30.0  # between two lines of progress, where there is no terminal

_FAILURES = (OSError, ValueError, AttributeError)  # a full disk, a reader that is gone, a closed file, none at all


@final
class Steady:
    """Stderr, whichever it is at the moment; what it cannot take is left out.

    A disk that is full, a pipe whose reader is gone or a stream that is closed would otherwise end what is only
    reporting on itself.
    """

    @property
    def encoding(self) -> str:
        """As stderr's, so that a bar knows which characters it may draw."""
        return getattr(sys.stderr, "encoding", None) or "ascii"

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(*_FAILURES):
            write_escaped(sys.stderr, text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with contextlib.suppress(*_FAILURES):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return sys.stderr.isatty()
        except _FAILURES:
            return False

    def columns(self) -> int:
        """How wide its terminal is; 0 if it does not say, in which case tqdm alone would draw nothing."""
        try:
            return os.get_terminal_size(self.fileno()).columns
        except OSError:
            return 0

    def fileno(self) -> int:
        """As stderr's, for the width of its terminal."""
        try:
            return sys.stderr.fileno()
        except (ValueError, AttributeError) as error:
            raise OSError("stderr is no file") from error


def say(line: str) -> None:
    """One line on stderr, if it takes one; a bar that is being drawn there stays whole."""
    file = Steady()
    tqdm.write(line, file=file)
    file.flush()


@final
class Bar:
    """How much of something is done: a bar of tqdm on a terminal; elsewhere a line at times, and one at its end.

    Its total may fall, and never rises once something is done, so that what is shown does not go back.

    Args:
        what: the name in front.
        unit: of what is counted.
        total: how many are to come.
        done: how many of these are done already.
        shown: whether to show anything.
        leave: whether it stays on the terminal when it is closed.
        lines: whether there are lines where there is no terminal.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        *,
        total: int = 0,
        done: int = 0,
        shown: bool = True,
        leave: bool = False,
        lines: bool = True,
    ) -> None:
        self._what, self._unit, self._note = what, unit, ""
        self.total, self.done = total, done
        self._file = Steady()
        drawn = shown and self._file.isatty()
        self._lines = shown and lines and not drawn
        self._last = time.monotonic()
        size: dict[str, Any] = {"dynamic_ncols": True} if self._file.columns() else {"ncols": 79, "nrows": 24}
        self._tqdm: tqdm[Any] = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=unit,
            leave=leave,
            disable=not drawn,
            file=self._file,
            **size,
        )

    def expect(self, total: int) -> None:
        """So many in all."""
        self.total = self._tqdm.total = total
        self._tqdm.refresh()

    def name(self, what: str) -> None:
        """Another name in front."""
        self._what = what
        self._tqdm.set_description(what, refresh=False)

    def note(self, text: str) -> None:
        """What is said behind the count from now on."""
        self._note = text
        self._tqdm.set_postfix_str(text, refresh=False)

    def update(self, count: int = 1) -> None:
        """So many more are done, or fewer if below 0."""
        self.done += count
        self._tqdm.update(count)
        if self._lines and time.monotonic() - self._last >= SECONDS:
            self._line()

    def close(self) -> None:
        """It is over."""
        if self._lines and self.done:
            self._line()
        self._lines = False
        self._tqdm.close()

    def _line(self) -> None:
        self._last = time.monotonic()
        note = f", {self._note}" if self._note else ""
        say(f"{self._what}: {self.done}/{self.total} {self._unit}s{note}")
