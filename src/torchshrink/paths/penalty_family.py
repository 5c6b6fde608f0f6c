"""What is tuned: a family of penalties, one for each strength."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchshrink.errors import InputError
from torchshrink.penalties import BUILTIN, Penalty
from torchshrink.penalties.names import our_name
from torchshrink.regularizer.selection import Rules

PenaltySpec = type[Penalty] | Penalty | Callable[[float], Rules]
"""A class of one strength, a penalty as a template for `with_strength`, or a callable strength -> penalty or rules."""


@dataclass(frozen=True, eq=False)
class PenaltyFamily:
    """A name, and what makes the penalty or the rules of a strength."""

    name: str
    make: Callable[[float], Rules]

    def describe(self, strength: float) -> Any:
        """What acts at ``strength``, as text or as pattern → text: for settings files and reports."""
        rules = self.make(strength)
        if isinstance(rules, Mapping):
            return {_pattern(pattern): None if rule is None else str(rule) for pattern, rule in rules.items()}
        return str(rules)


def family(penalty: PenaltySpec, name: str | None = None) -> PenaltyFamily:
    """The family that one specification stands for.

    Raises:
        InputError: it is none, or a class that takes two strengths.
    """
    if (isinstance(penalty, Penalty) or (isinstance(penalty, type) and issubclass(penalty, Penalty))) and (
        penalty.constraint
    ):
        what = penalty.__name__ if isinstance(penalty, type) else str(penalty)
        raise InputError(
            f"penalty={what}: a constraint, whose radius is no strength, and which has no strength 0 to compare with: "
            "take a penalty, or train at each radius"
        )
    if isinstance(penalty, Penalty):
        return PenaltyFamily(name or _name(type(penalty)), penalty.with_strength)
    if isinstance(penalty, type) and issubclass(penalty, Penalty):
        if not _takes_one(penalty):
            raise InputError(
                f"penalty={penalty.__name__}: it takes more than one strength; give a template, such as "
                f"{penalty.__name__}(1, 1), whose proportion is kept, or a callable strength -> penalty"
            )
        return PenaltyFamily(name or _name(penalty), _checked(penalty))
    if callable(penalty) and not isinstance(penalty, type):
        plain = penalty.__name__ if inspect.isfunction(penalty) and penalty.__name__ != "<lambda>" else "penalty"
        return PenaltyFamily(name or plain, _checked(penalty))
    raise InputError(
        f"penalty={penalty!r}: a penalty class, a penalty, or a callable strength -> penalty or rules expected"
    )


def families(penalty: PenaltySpec | Mapping[str, PenaltySpec] | Sequence[PenaltySpec]) -> tuple[PenaltyFamily, ...]:
    """The families to compare: of one specification, of a mapping name → specification, or of a sequence.

    Raises:
        InputError: as `family`; nothing to compare; two of one name; names that look like rules' patterns.
    """
    given: object = penalty
    if isinstance(given, str):  # a sequence of letters otherwise
        known = BUILTIN.get(our_name(given))
        meant = f": ts.{known.__name__}" if known else ", such as ts.L1"
        raise InputError(f"penalty={given!r}: a penalty class expected{meant}")
    if isinstance(penalty, Mapping):
        for name, each in penalty.items():
            if not isinstance(name, str) or not name or each is None or any(mark in name for mark in "*?[.:/\\"):
                raise InputError(
                    f"penalty: {_pattern(name)!r} is not a name for a penalty to compare; for rules, which penalise "
                    "some parameters and not others, give a callable: lambda strength: {pattern: penalty}"
                )
        found = tuple(family(each, name) for name, each in penalty.items())
    elif isinstance(penalty, Sequence):
        found = tuple(family(each) for each in penalty)
    else:
        found = (family(penalty),)
    if not found:
        raise InputError("penalty: none given, at least one expected")
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"penalty: two are called {twice!r}; give a mapping name -> penalty instead")
    return found


def _name(penalty: type[Penalty]) -> str:
    return next((name for name, builtin in BUILTIN.items() if builtin is penalty), penalty.__name__)


def _takes_one(penalty: type[Penalty]) -> bool:
    try:
        inspect.signature(penalty).bind(1.0)
    except TypeError:
        return False
    return True


def _checked(make: Callable[[float], Any]) -> Callable[[float], Rules]:
    def made(strength: float) -> Rules:
        rules = make(strength)
        if not isinstance(rules, Penalty | Mapping):
            raise InputError(
                f"penalty: for strength {strength:g} the callable returned {type(rules).__name__}, "
                "a penalty or rules expected"
            )
        return rules

    return made


def _pattern(pattern: object) -> str:
    return f"type:{pattern.__name__}" if isinstance(pattern, type) else str(pattern)
