"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.table import Table


class Interrupted(Exception):
    """Ctrl-C, after what was done has been saved; the message says how to go on."""


def say(line: str) -> None:
    """One line on stderr; a bar of tqdm that is being drawn stays whole."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def emit(text: str) -> None:
    """A result, on stdout."""
    print(text, flush=True)


def emit_json(result: Mapping[str, Any]) -> None:
    """A result as exactly one JSON object, on stdout."""
    emit(json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False))


def emit_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and what is to be said under them, on stdout: wrapped to a terminal, one line each where there is none."""
    indent = " " * 13
    for name, text in pairs:
        line = f"{name:<12} {text}"
        if sys.stdout.isatty():
            line = textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent=indent)
        emit(line)


def emit_table(table: Table) -> None:
    """A table, on stdout: as wide as the terminal, or as it needs where there is none to fit into."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else max(shutil.get_terminal_size().columns, 160)
    Console(file=sys.stdout, width=width, highlight=False).print(table)
    sys.stdout.flush()


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
