"""From a penalty's name, as people type it, to the penalty. BUILTIN says which names there are."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchshrink.cli.option_checks import MOST_GAMMA, one_of, positive
from torchshrink.cli.options import GROUPS
from torchshrink.errors import InputError
from torchshrink.penalties import BUILTIN, Penalty
from torchshrink.penalties.names import penalty_suggestion

NO_PENALTY = "none"
DEFAULT_RATIO = 0.5
_MADE_OF = {  # what a constraint is made of, instead of strengths: the option that says it, and an example
    "radius": ("radius", "3"),
    "keep": ("keep", "0.1"),
    "low": ("low", "-1"),
    "high": ("high", "1"),
    "n": ("pattern", "2:4"),
    "m": ("pattern", "2:4"),
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a penalty is made of: its strengths, which must be given, and its other settings, which need not be."""

    strengths: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.strengths + self.settings


def signature(name: str) -> Signature:
    """What the penalty called ``name`` is made of.

    >>> signature("sparse_group_lasso")
    Signature(strengths=('l1', 'group'), settings=('dim', 'weights', 'labels', 'size'))
    """
    required: list[str] = []
    optional: list[str] = []
    for field in dataclasses.fields(penalty_class(name)):  # type: ignore[arg-type]
        (required if field.default is dataclasses.MISSING else optional).append(field.name)
    return Signature(tuple(required), tuple(optional))


def penalty_class(name: str, given_as: str = "--penalty", *, offered: Sequence[str] = tuple(BUILTIN)) -> type[Penalty]:
    """The class called ``name``; ``offered`` are the words that the caller takes."""
    if name in BUILTIN:
        return BUILTIN[name]
    raise InputError(f"{given_as} {name}: expected one of {', '.join(offered)}{penalty_suggestion(name, offered)}")


def build_penalty(name: str, values: Mapping[str, Any]) -> Penalty:
    """The penalty called ``name`` with ``values`` for what its class takes by these names."""
    make: Any = penalty_class(name)
    penalty: Penalty = make(**values)
    return penalty


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the options say of a penalty beside its strength; None where they say nothing."""

    l1_ratio: float | None = None
    dim: int | None = None
    gamma: float | None = None
    epsilon: float | None = None
    radius: float | None = None
    keep: int | float | None = None
    low: float | None = None
    high: float | None = None
    pattern: str | None = None
    groups: str | None = None

    def part_for(self, name: str) -> Shape:
        """The part of it that the penalty called ``name`` takes."""
        return Shape(**{
            option: value
            for option, value in dataclasses.asdict(self).items()
            if name != NO_PENALTY and name in _takers(option)
        })  # fmt: skip

    def check(self, *names: str) -> None:
        """Raise unless each thing given is taken by one of the penalties called ``names``, and can be.

        Raises:
            InputError: it is not; the message says which penalties would take it.
        """
        for option, value in dataclasses.asdict(self).items():
            flag, takers = f"--{option.replace('_', '-')}", _takers(option)
            if value is not None and not set(names) & set(takers):
                given = value if isinstance(value, str) else f"{value:g}"
                raise InputError(
                    f"{flag} {given}: {' and '.join(names)} {'do' if len(names) > 1 else 'does'} not take it; "
                    f"{', '.join(takers)} would; leave it out"
                )
        if self.l1_ratio is not None and not 0 <= self.l1_ratio <= 1:
            raise InputError(f"--l1-ratio {self.l1_ratio:g}: expected a number from 0 to 1")
        for option in ("radius", "epsilon"):
            if getattr(self, option) is not None:
                positive(f"--{option}", getattr(self, option))
        if self.gamma is not None:
            positive("--gamma", self.gamma)
            if self.gamma > MOST_GAMMA:
                raise InputError(
                    f"--gamma {self.gamma:g}: expected at most {MOST_GAMMA:g}, where mcp and scad are l1 already"
                )
        if self.dim is not None and not -64 <= self.dim < 64:
            raise InputError(f"--dim {self.dim}: expected a dimension of a weight, such as 0 or 1")
        if self.pattern is not None and not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", self.pattern):
            raise InputError(f"--pattern {self.pattern[:40]}: expected how many of how many, such as 2:4")
        if self.groups is not None:
            one_of("--groups", self.groups, GROUPS)
            if self.dim is not None:
                raise InputError(f"--groups {self.groups} with --dim {self.dim}: features are columns; leave one out")

    def of_constraint(self, name: str) -> dict[str, Any]:
        """What the constraint called ``name`` must be given, by its class's names.

        Raises:
            InputError: it is not given; the message says which options are missing.
        """
        values: dict[str, Any] = {}
        for word in signature(name).strengths:
            option, example = _MADE_OF[word]
            value = getattr(self, option)
            if option == "pattern" and value is not None:
                value = int(value.split(":")[word == "m"])
            if option in ("low", "high") and value is None and (self.low, self.high) != (None, None):
                value = -math.inf if option == "low" else math.inf
            if value is None:
                raise InputError(
                    f"--penalty {name}: it is a constraint and its --{option} is missing; give one, such as "
                    f"--{option} {example}"
                )
            values[word] = value
        return values


def penalty_of(name: str, strength: float, shape: Shape) -> Penalty:
    """The penalty called ``name``; of two strengths the first gets its share, the second the rest.

    >>> penalty_of("elastic_net", 0.01, Shape(l1_ratio=0.9))
    ElasticNet(l1=0.009, l2=0.001)
    """
    parts = signature(name)
    values: dict[str, Any] = {}
    if penalty_class(name).constraint:
        values = shape.of_constraint(name)
    elif len(parts.strengths) == 1:
        values[parts.strengths[0]] = strength
    else:
        ratio = DEFAULT_RATIO if shape.l1_ratio is None else shape.l1_ratio
        # Rounded to 12 digits so that 0.01·(1−0.9) reads 0.001 and not 0.0009999999999999998.
        for word, share in zip(parts.strengths, (ratio, 1 - ratio), strict=True):
            values[word] = float(f"{strength * share:.12g}")
    if shape.dim is not None:
        values["dim"] = shape.dim
    if shape.groups is not None:
        values["dim"] = 1  # of weights whose inputs are no features too
    if shape.gamma is not None:
        values["gamma"] = shape.gamma
    if shape.epsilon is not None:
        values["epsilon"] = shape.epsilon
    return build_penalty(name, values)


def _takers(option: str) -> list[str]:
    """The penalties that an option is for."""
    takes: dict[str, Callable[[Signature], bool]] = {
        "l1_ratio": lambda parts: len(parts.strengths) == 2 and not set(parts.strengths) & set(_MADE_OF),
        "dim": lambda parts: "dim" in parts.settings,
        "groups": lambda parts: "labels" in parts.settings,
        "gamma": lambda parts: "gamma" in parts.settings,
        "epsilon": lambda parts: "epsilon" in parts.settings,
        "radius": lambda parts: "radius" in parts.strengths,
        "keep": lambda parts: "keep" in parts.strengths,
        "low": lambda parts: "low" in parts.strengths,
        "high": lambda parts: "high" in parts.strengths,
        "pattern": lambda parts: parts.strengths == ("n", "m"),
    }
    return [name for name in BUILTIN if takes[option](signature(name))]
