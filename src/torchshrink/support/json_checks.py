"""Checks that say what a JSON value must be: types, ranges and names, once, when a file is loaded.

A check is a function of the value and of its place in the file, and raises an InputError of one line: where, what is
there, and what is expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import cast

from torchshrink.errors import InputError

Check = Callable[[object, str], None]

_SHOWN = 40  # characters of a wrong value


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number in this range."""

    def check(value: object, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(place, value, "a number")
        try:
            fits = math.isfinite(value) and least <= value <= most
        except OverflowError:  # an int that no float is as large as
            fits = False
        if not fits:
            raise _wrong(place, value, f"a finite number{_between(least, most)}")

    return check


def whole(least: int) -> Check:
    """A whole number of at least this."""

    def check(value: object, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _wrong(place, value, f"a whole number ≥ {least}")

    return check


def flag(value: object, place: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(place, value, "true or false")


def text(value: object, place: str) -> None:
    """Text."""
    if not isinstance(value, str):
        raise _wrong(place, value, "text")


def one_of(*known: str) -> Check:
    """One of these texts."""

    def check(value: object, place: str) -> None:
        if value not in known:
            raise _wrong(place, value, f"one of {', '.join(known)}")

    return check


def optional(sound: Check) -> Check:
    """Null, or that."""

    def check(value: object, place: str) -> None:
        if value is not None:
            sound(value, place)

    return check


def several(sound: Check, *, least: int = 0) -> Check:
    """A list of at least so many."""

    def check(value: object, place: str) -> None:
        if not isinstance(value, list):
            raise _wrong(place, value, "a list")
        if len(value) < least:
            many = "at least one" if least == 1 else f"at least {least}"
            raise InputError(f"{place}: {len(value) or 'none'}, {many} expected")
        for at, each in enumerate(value):
            sound(each, f"{place}[{at}]")

    return check


def items(*sound: Check) -> Check:
    """A list of as many, each by its own check."""

    def check(value: object, place: str) -> None:
        if not isinstance(value, list) or len(value) != len(sound):
            raise _wrong(place, value, f"a list of {len(sound)}")
        for at, each in enumerate(value):
            sound[at](each, f"{place}[{at}]")

    return check


def interval(value: object, place: str) -> None:
    """Two finite numbers, the lower one first."""
    items(number(), number())(value, place)
    low, high = cast("list[float]", value)
    if low > high:
        raise _wrong(place, value, "the lower end first")


def mapping(sound: Check, *, least: int = 0) -> Check:
    """An object of any names, at least so many."""

    def check(value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place, value, "an object")
        if len(value) < least:
            raise InputError(f"{place}: {len(value) or 'none'}, at least {least} expected")
        for name, each in value.items():
            sound(each, f"{place}.{name}")

    return check


def anything(value: object, place: str) -> None:
    """Whatever JSON has."""


def record(entries: Mapping[str, Check]) -> Check:
    """An object of these names and no others."""

    def check(value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place or "the whole", value, "an object")
        for name, sound in entries.items():
            where = f"{place}.{name}" if place else name
            if name not in value:
                raise InputError(f"{where}: missing")
            sound(value[name], where)
        unknown = next((name for name in value if name not in entries), None)
        if unknown is not None:
            raise InputError(f"{f'{place}.{unknown}' if place else unknown}: unknown")

    return check


def _wrong(place: str, value: object, expected: str) -> InputError:
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except ValueError:  # more digits than Python writes
        shown = "a number of very many digits"
    return InputError(f"{place}: {shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + '…'}, {expected} expected")


def _between(least: float, most: float) -> str:
    if math.isfinite(least) and math.isfinite(most):
        return f" from {least:g} to {most:g}"
    return f" ≥ {least:g}" if math.isfinite(least) else f" ≤ {most:g}" if math.isfinite(most) else ""
