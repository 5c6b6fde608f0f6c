"""The application: which verbs there are, and how each ending becomes one line and an exit status.

==== =============================================================================================
0    done
1    a training that diverged, a disk that is full, or a fault of this program (``internal error``)
2    bad usage or bad input
130  interrupted; what was done is saved
141  the reader of stdout went away (``| head``); nothing is said, and what was to be saved is saved
==== =============================================================================================
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from torchshrink.cli import audit, console, convert, options, path, train
from torchshrink.errors import AttachmentError, InputError, MissingDependencyError, TorchshrinkError

DONE, FAILED, MISUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

app = typer.Typer(
    name="torchshrink",
    help="Regularization for PyTorch whose strength means what it says.",
    epilog="The main job: torchshrink path digits --penalty l1",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _global_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and leave.")] = False,
    debug: options.Debug = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        console.emit(f"torchshrink {version_of('torchshrink')}")
    elif context.invoked_subcommand is None:
        raise InputError(f"no command given: expected one of {', '.join(VERBS)}; see torchshrink --help")


VERBS: dict[str, Callable[..., None]] = {
    "path": path.path,
    "train": train.train,
    "audit": audit.audit,
    "convert": convert.convert,
}
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; never raises, and never leaves by ``sys.exit``.

    Args:
        argv: What follows the program's name; ``sys.argv[1:]`` by default. With nothing, the help is printed.

    >>> run(["--version"])  # doctest: +ELLIPSIS
    torchshrink ...
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments  # wherever it stands; parsing may fail before an option is read
    with warnings.catch_warnings():
        warnings.showwarning = console.show_warning
        try:
            status = app(arguments or ["--help"], prog_name="torchshrink", standalone_mode=False)
            sys.stdout.flush()  # a reader that went away shows here rather than at the interpreter's end
        except console.Interrupted as interruption:
            console.say(f"interrupted: {interruption}; to go on: {_resuming(arguments)}")
            return INTERRUPTED
        except (BrokenPipeError, SystemExit):  # typer turns a broken pipe into SystemExit
            _silence_stdout()
            return UNREAD
        except Exception as error:
            if debug:
                traceback.print_exc()
            status, line = _verdict(error, arguments)
            console.say(line)
            return status
    if status == INTERRUPTED:  # typer's word for Ctrl-C outside of what the verbs save
        console.say("interrupted: nothing had been started, so nothing was saved")
    return int(status or DONE)


def _verdict(error: Exception, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit status and the one line for what went wrong."""
    if isinstance(error, typer.TyperException):
        verb = next((word for word in arguments if word in VERBS), "")
        usage = " ".join(filter(None, ["torchshrink", verb, "--help"]))
        message = error.format_message().rstrip(".")
        return MISUSED, _error_line(f"{message}{'' if message.endswith('?') else '.'} See {usage}")
    if isinstance(error, InputError | AttachmentError | MissingDependencyError):
        return MISUSED, _error_line(str(error))
    if isinstance(error, TorchshrinkError):
        return FAILED, _error_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        return FAILED, _error_line(f"{error.filename or 'input or output'}: {error.strerror}")
    if isinstance(error, MemoryError):
        return FAILED, _error_line("out of memory: fewer rows, a smaller model or a smaller --batch-size may fit")
    return FAILED, f"internal error: {console.one_line(f'{type(error).__name__}: {error}')}; run again with --debug"


def _resuming(arguments: Sequence[str]) -> str:
    """The command that goes on where this one stopped."""
    kept = [word for word in arguments if word not in ("--force", "--resume")]
    return shlex.join(["torchshrink", *kept, "--resume"])


def _error_line(message: str) -> str:
    return f"error: {console.one_line(message)}"


def _silence_stdout() -> None:
    """Point stdout at nowhere, so that the interpreter's own flush at its end stays quiet as well."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is closed, or is no file at all
        return
