"""What the commands print: results on stdout, everything else on stderr.

If stderr cannot be written to, the message is dropped and the run goes on. A result that cannot be printed is an error,
after all that was to be saved is saved. Neither fails for want of a character: what an encoding lacks is written as an
escape.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torchshrink.support.tables import Table, paired
from torchshrink.support.text import write_escaped

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Interrupted(Exception):
    """Ctrl-C, after what was done has been saved; the message says how to go on."""


class Unprinted(Exception):
    """A result could not be written to stdout; ``error`` says why."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(error.strerror or str(error))


class Escaping(io.TextIOBase):
    """A stream that takes every character: what its encoding lacks is written as an escape.

    Args:
        stream: where to.
        forgiven: errors with which what is written is lost, and nothing else happens.
    """

    def __init__(self, stream: TextIO, *, forgiven: tuple[type[Exception], ...] = ()) -> None:
        self._stream, self._forgiven = stream, forgiven
        self.lost = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's."""
        return getattr(self._stream, "encoding", None) or "ascii"

    def write(self, text: str) -> int:
        """As the stream does."""
        try:
            write_escaped(self._stream, text)
        except self._forgiven:
            self.lost = True
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        try:
            self._stream.flush()
        except self._forgiven:
            self.lost = True

    def isatty(self) -> bool:
        """Whether somebody may be looking."""
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """The stream's."""
        return self._stream.fileno()


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Inside, stdout and stderr are there, take every character, and stderr never fails."""
    before = sys.stdout, sys.stderr
    _fill_descriptors()
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(open(os.devnull, "w", encoding="utf-8")) if stream is None or stream.closed else stream
            for stream in before
        )
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(_forget, stream, stream.errors)
                stream.reconfigure(errors="backslashreplace")
        forgiving = Escaping(err, forgiven=(OSError, ValueError))  # the latter of a stream that is closed
        sys.stdout, sys.stderr = out if isinstance(out, io.TextIOWrapper) else Escaping(out), forgiving
        try:
            yield
        finally:
            forgiving.flush()
            sys.stdout, sys.stderr = before
            if forgiving.lost:
                silence(sys.stderr)


def _forget(stream: io.TextIOWrapper, errors: str | None) -> None:
    with contextlib.suppress(OSError, ValueError):  # it may have been closed, or be full
        stream.reconfigure(errors=errors)


def _fill_descriptors() -> None:
    """Where one of the three standard files is closed, the next file that is opened would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def silence(stream: TextIO | None) -> None:
    """Point a stream at nowhere, so that the interpreter's own flush at its end stays quiet as well."""
    try:
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except (OSError, ValueError):  # it is closed, or is no file at all
        return


def say(line: str) -> None:
    """One line on stderr; a bar of tqdm that is being drawn stays whole."""
    from torchshrink.support.progress_bar import say

    say(line)


def emit(text: str) -> None:
    """A result, on stdout.

    Raises:
        Unprinted: stdout does not take it.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise Unprinted(error) from error


def emit_json(result: Mapping[str, Any]) -> None:
    """A result as exactly one JSON object, on stdout."""
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:  # JSON has escapes of its own, which say the same
        text = json.dumps(result, indent=2, allow_nan=False)
    emit(text)


def emit_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and what is to be said under them, on stdout: wrapped to a terminal, one line each where there is none."""
    emit("\n".join(paired(pairs, columns())))


def emit_wrapped(line: str) -> None:
    """A line, on stdout: wrapped to a terminal, as it is where there is none. Paths and options are not broken."""
    emit("\n".join(paired([("", line)], columns(), indent=0)))


def columns() -> int | None:
    """How many characters fit on a line of stdout; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def in_folder(files: Sequence[str]) -> str:
    """Where files of one folder are.

    >>> in_folder(["runs/a/x.json", "runs/a/y.json"])
    'runs/a: x.json, y.json'
    """
    return f"{Path(files[0]).parent}: {', '.join(Path(name).name for name in files)}"


def emit_table(table: Table) -> None:
    """A table, on stdout: on a terminal no wider than that, and the rows that matter stand out."""
    lines, width = table.lines(columns()), columns()
    if width is None or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        emit("\n".join(lines))
        return
    first = len(lines) - len(table.rows)
    strong = {first + row for row in table.marked}
    emit("\n".join(f"{_BOLD}{line}{_PLAIN}" if at in strong else line for at, line in enumerate(lines)))


def one_line(message: str) -> str:
    """``message`` with every run of blanks and line ends made one blank."""
    return " ".join(message.split())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line without the place in the code: for people who only type commands."""
    say(f"warning: {one_line(str(message))}")
