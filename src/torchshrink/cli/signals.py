"""Ctrl-C, SIGTERM and SIGHUP alike: what was done is saved, workers end, and the last line says how to go on.

The first signal interrupts wherever the program is, as Ctrl-C does. A second one, while the first is being dealt with,
ends the process at once, its workers first: files are written whole or not at all, so nothing is lost by that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """What came while they were listened to.

    Args:
        last_words: said, on stderr, when a second signal ends the process.
    """

    def __init__(self, last_words: Callable[[], str]) -> None:
        self._last_words = last_words
        self.first: int | None = None

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended, as shells give it: 130, 143 or 129."""
        return 128 + (self.first or signal.SIGINT)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What runs when a signal comes."""
        if self.first is None:
            self.first = number
            raise KeyboardInterrupt
        end_workers()
        with contextlib.suppress(OSError):
            os.write(2, f"{self._last_words()}\n".encode(errors="backslashreplace"))
        os._exit(self.status)


@contextlib.contextmanager
def listening(last_words: Callable[[], str]) -> Iterator[Signals]:
    """Inside, the signals interrupt; in a thread that gets none, or where they mean something already, nothing changes.

    What is ignored (SIGHUP under nohup, Ctrl-C in the background of a script) stays so.
    """
    signals = Signals(last_words)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {}
    try:
        for name in NAMES:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, signals)
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_workers() -> None:
    """Kill the processes that joblib and torch have started and that are still there."""
    import multiprocessing

    for process in multiprocessing.active_children():  # a DataLoader's, and joblib's
        with contextlib.suppress(OSError, ValueError):
            process.kill()
