"""What a value on the command line must be, in one line if it is not; neither torch nor the data are needed."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from torchshrink.errors import InputError
from torchshrink.support.text import suggestion

SEEDS = 2**32  # as many as numpy has
COUNT = 2**31 - 1
# What no machine has or no path needs; beyond, libraries below fail in ways of their own.
MOST = {"--threads": 1024, "--jobs": 1024, "--strengths": 10_000, "--hidden": 2**20, "--folds": 2**20}
MOST_GAMMA = 1e6  # where mcp and scad are l1 already
LARGEST = 1e30  # of a number: its square is still a float32's


def one_of(option: str, given: str, allowed: Sequence[str]) -> str:
    """``given``, if it is one of ``allowed``."""
    if given in allowed:
        return given
    raise InputError(f"{option} {given}: expected one of {', '.join(allowed)}{suggestion(given, allowed)}")


def at_least(option: str, given: int, least: int) -> int:
    """``given``, if it is a whole number ≥ ``least`` that can be counted to."""
    if given < least:
        raise InputError(f"{option} {given}: expected a whole number of {least} or more")
    most = MOST.get(option, COUNT)
    if given > most:
        raise InputError(f"{option} {_short(given)}: expected a whole number of at most {most}")
    return given


def _short(given: object) -> str:
    text = str(given)
    return text if len(text) <= 40 else f"{text[:39]}…"


def seed_of(option: str, given: int) -> int:
    """``given``, if it is a whole number that every generator takes as a seed."""
    if 0 <= given < SEEDS:
        return given
    raise InputError(f"{option} {given}: expected a whole number from 0 to {SEEDS - 1}")


def not_negative(option: str, given: float) -> float:
    """``given``, if it is a finite number ≥ 0."""
    if 0 <= given <= LARGEST:
        return given
    expected = "finite number of 0 or more" if not 0 <= given < math.inf else f"number from 0 to {LARGEST:g}"
    raise InputError(f"{option} {given:g}: expected a {expected}")


def keep_of(option: str, given: str | None) -> int | float | None:
    """How many weights, ``100``, or which share of them, ``0.1``; None where nothing is given.

    >>> keep_of("--keep", "100"), keep_of("--keep", "1"), keep_of("--keep", "1.0")
    (100, 1, 1.0)
    """
    if given is None:
        return None
    try:
        found: int | float = int(given) if re.fullmatch(r"\+?[0-9]{1,18}", given) else float(given)
    except ValueError:
        found = math.nan
    if (isinstance(found, int) and found >= 1) or (isinstance(found, float) and 0 < found <= 1):
        return found
    raise InputError(
        f"{option} {_short(given)}: expected how many weights stay, such as 100, or which share of them, such as 0.1"
    )


def positive(option: str, given: float) -> float:
    """``given``, if it is a finite number above 0."""
    if 0 < given <= LARGEST:
        return given
    expected = "finite number above 0" if not 0 < given < math.inf else f"number above 0, up to {LARGEST:g}"
    raise InputError(f"{option} {given:g}: expected a {expected}")


def between(option: str, given: float, low: float, high: float, advice: str) -> float:
    """``given``, if low ≤ given < high."""
    if low <= given < high:
        return given
    raise InputError(f"{option} {given:g}: expected a number from {low:g} to below {high:g}, {advice}")


def strengths(option: str, given: str) -> int | tuple[float, ...]:
    """A count of strengths, or the strengths themselves, ascending.

    >>> strengths("--strengths", "32")
    32
    >>> strengths("--strengths", "0.1,1e-3")
    (0.001, 0.1)
    """
    if re.fullmatch(r"[+-]?\d+", given.strip()):
        if len(given) > 100:
            raise InputError(f"{option} {_short(given)}: expected a whole number of at most {MOST['--strengths']}")
        return at_least(option, int(given), 1)
    values = []
    for word in filter(None, (part.strip() for part in given.split(","))):
        try:
            values.append(not_negative(option, float(word)))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{option} {given}: {word!r} is not a number; expected a count (32) or strengths (1e-4,1e-3,0.01)"
            ) from None
    if not values:
        raise InputError(f"{option} {given!r}: expected a count (32) or strengths (1e-4,1e-3,0.01)")
    if len(set(values)) < len(values):
        raise InputError(f"{option} {given}: a strength is given twice; give each once")
    return tuple(sorted(values))


def widths(option: str, given: str) -> tuple[int, ...]:
    """Hidden widths, such as ``64,64``.

    >>> widths("--hidden", "64,32")
    (64, 32)
    """
    try:
        values = tuple(int(word) for word in given.split(","))
    except ValueError:
        raise InputError(
            f"{option} {_short(given)}: expected whole numbers with commas between, such as 64,64"
        ) from None
    made = tuple(at_least(option, value, 1) for value in values)
    weights = sum(a * b for a, b in itertools.pairwise(made))
    if len(made) > 100 or weights > COUNT:
        raise InputError(
            f"{option} {_short(given)}: {len(made)} layers with {weights} weights between them; "
            f"expected at most 100 and {COUNT}"
        )
    return made


def default_folder(verb: str, data: str) -> Path:
    """Where a run writes unless told otherwise: ``runs/VERB-DATA``.

    >>> default_folder("train", "tables/sales.csv").as_posix()
    'runs/train-sales'
    """
    name = Path(data).stem if data.endswith((".csv", ".parquet", ".npz")) else data
    return Path("runs") / f"{verb}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-') or 'data'}"
