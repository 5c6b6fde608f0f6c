"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.table import Table


class Interrupted(Exception):
    """Ctrl-C, after what was done has been saved; the message says how to go on."""


def say(line: str) -> None:
    """One line on stderr; a bar of tqdm that is being drawn stays whole."""
    from torchshrink.streams import say

    say(line)


def emit(text: str) -> None:
    """A result, on stdout."""
    print(text, flush=True)


def emit_json(result: Mapping[str, Any]) -> None:
    """A result as exactly one JSON object, on stdout."""
    emit(json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False))


def emit_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and what is to be said under them, on stdout: wrapped to a terminal, one line each where there is none."""
    for name, text in pairs:
        emit_wrapped(f"{name:<12} {text}", indent=13)


def emit_wrapped(line: str, *, indent: int = 0) -> None:
    """A line, on stdout: wrapped to a terminal, as it is where there is none. Paths and options are not broken."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        line = textwrap.fill(
            line, columns, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
        )
    emit(line)


def in_folder(files: Sequence[str]) -> str:
    """Where files of one folder are.

    >>> in_folder(["runs/a/x.json", "runs/a/y.json"])
    'runs/a: x.json, y.json'
    """
    return f"{Path(files[0]).parent}: {', '.join(Path(name).name for name in files)}"


def emit_table(table: Table) -> None:
    """A table, on stdout: as wide as the terminal, or as it needs where there is none to fit into."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else max(shutil.get_terminal_size().columns, 160)
    console = Console(file=sys.stdout, width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    emit("\n".join(line.rstrip() for line in captured.get().splitlines()))


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
