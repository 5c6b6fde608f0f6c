"""The application: which verbs there are, and how each ending becomes one line and an exit status.

==== =============================================================================================
0    done
1    a fault of this program (``internal error``)
2    bad usage or bad input; a training that diverged, a full disk, too little memory
129  ended by SIGHUP, 143 by SIGTERM, 130 by Ctrl-C: what was done is saved, and how to go on is said
141  the reader of stdout went away (``| head``); nothing is said, and what was to be saved is saved
==== =============================================================================================
"""

from __future__ import annotations

import errno
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from torchshrink.cli import audit, command_line, console, convert, path, report, shrink, train
from torchshrink.cli.examples import EXAMPLES, help_of
from torchshrink.cli.signals import listening
from torchshrink.errors import InputError, JournalWarning, TorchshrinkError

DONE, FAILED, MISUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

app = typer.Typer(
    name="torchshrink",
    help="Regularization for PyTorch whose strength means what it says.",
    epilog=f"The main job: torchshrink {EXAMPLES['path'][0]}",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _global_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,  # each verb has it too, and its help tells
) -> None:
    if version:
        from importlib.metadata import version as version_of

        console.emit(f"torchshrink {version_of('torchshrink')}")
    elif context.invoked_subcommand is None:
        raise InputError(f"no command given: expected one of {', '.join(VERBS)}; see torchshrink --help")


VERBS: dict[str, Callable[..., None]] = {
    "path": path.path,
    "train": train.train,
    "shrink": shrink.shrink,
    "report": report.report,
    "audit": audit.audit,
    "convert": convert.convert,
}
for _name, _verb in VERBS.items():
    app.command(_name, help=help_of(_name, _verb))(_verb)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; never raises, and never leaves by ``sys.exit``.

    Args:
        argv: What follows the program's name; ``sys.argv[1:]`` by default. With nothing, the help is printed.

    >>> run(["--version"])  # doctest: +ELLIPSIS
    torchshrink ...
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command_line.remember(arguments)
    debug = "--debug" in arguments  # wherever it stands; parsing may fail before an option is read
    with console.streams(), listening(lambda: f"interrupted{_to_go_on(arguments)}") as signals:
        try:
            status = _run(arguments, debug=debug)
            if signals.first is not None and status != INTERRUPTED:  # a worker, say, may have had the signal as well
                console.say(f"interrupted{_to_go_on(arguments)}")
        except KeyboardInterrupt:  # where even the last words were interrupted
            status = INTERRUPTED
        return signals.status if signals.first is not None else status


def _run(arguments: list[str], *, debug: bool) -> int:
    """Run one command line, say how it ended, and return that as a status."""
    with warnings.catch_warnings():
        warnings.showwarning = console.show_warning
        warnings.simplefilter("always", JournalWarning)  # also where other warnings are errors: it tells what is mended
        try:
            status = app(arguments or ["--help"], prog_name="torchshrink", standalone_mode=False)
            sys.stdout.flush()  # a reader that went away shows here rather than at the interpreter's end
        except console.Interrupted as interruption:
            console.say(f"interrupted: {interruption}{_to_go_on(arguments)}")
            return INTERRUPTED
        except SystemExit:  # typer's word for a broken pipe
            console.silence(sys.stdout)
            return UNREAD
        except Exception as error:
            failed = error.error if isinstance(error, console.Unprinted) else error
            if isinstance(error, console.Unprinted) or (isinstance(error, OSError) and error.filename is None):
                console.silence(sys.stdout)
                if isinstance(failed, OSError) and failed.errno == errno.EPIPE:
                    return UNREAD
            if debug:
                traceback.print_exc()
            status, line = _verdict(failed, arguments)
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
    if isinstance(error, TorchshrinkError):
        return MISUSED, _error_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        return MISUSED, _error_line(f"{error.filename or 'output'}: {error.strerror}")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's is a RuntimeError
        return MISUSED, _error_line("out of memory: fewer rows, a smaller model or a smaller --batch-size may fit")
    return FAILED, f"internal error: {console.one_line(f'{type(error).__name__}: {error}')}; run again with --debug"


def _to_go_on(arguments: Sequence[str]) -> str:
    """The command that goes on where this one stopped, as the end of a line."""
    if not {"path", "train"} & set(arguments):
        return ""
    kept = [word for word in arguments if word not in ("--force", "--resume")]
    return f"; to go on: {shlex.join(['torchshrink', *kept, '--resume'])}"


def _error_line(message: str) -> str:
    return f"error: {console.one_line(message)}"
