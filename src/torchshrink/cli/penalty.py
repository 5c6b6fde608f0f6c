"""From a penalty's name, as people type it, to the penalty. BUILTIN says which names there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torchshrink.cli.options import suggestion
from torchshrink.errors import InputError
from torchshrink.penalties import BUILTIN, Penalty

NO_PENALTY = "none"
DEFAULT_RATIO = 0.5


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
    Signature(strengths=('l1', 'group'), settings=('dim',))
    """
    required: list[str] = []
    optional: list[str] = []
    for field in dataclasses.fields(penalty_class(name)):  # type: ignore[arg-type]
        (required if field.default is dataclasses.MISSING else optional).append(field.name)
    return Signature(tuple(required), tuple(optional))


def penalty_class(name: str, given_as: str = "--penalty", also: tuple[str, ...] = ()) -> type[Penalty]:
    """The class called ``name``; ``also`` are words that the caller would have taken instead."""
    if name in BUILTIN:
        return BUILTIN[name]
    names = (*BUILTIN, *also)
    raise InputError(f"{given_as} {name}: expected one of {', '.join(names)}{suggestion(name, names)}")


def build_penalty(name: str, values: Mapping[str, Any]) -> Penalty:
    """The penalty called ``name`` with ``values`` for what its class takes by these names."""
    make: Any = penalty_class(name)
    penalty: Penalty = make(**values)
    return penalty


@dataclasses.dataclass(frozen=True)
class Family:
    """A penalty with everything settled but its strength: what ``--penalty``, ``--l1-ratio`` and ``--dim`` say.

    >>> Family.of("elastic_net", l1_ratio=0.9)(0.01)
    ElasticNet(l1=0.009, l2=0.001)
    """

    name: str
    l1_ratio: float | None
    dim: int | None

    @classmethod
    def of(cls, name: str, *, l1_ratio: float | None = None, dim: int | None = None, none: bool = False) -> Family:
        """The family, if the penalty exists and takes what is given; ``none``: also the word for no penalty."""
        if none and name == NO_PENALTY:
            parts = Signature((), ())
        else:
            penalty_class(name, also=(NO_PENALTY,) if none else ())
            parts = signature(name)
        if l1_ratio is not None:
            if len(parts.strengths) < 2:
                have = _who_takes("l1_ratio")
                raise InputError(f"--l1-ratio {l1_ratio:g}: {name} has no second strength; {have} have; leave it out")
            if not 0 <= l1_ratio <= 1:
                raise InputError(f"--l1-ratio {l1_ratio:g}: expected a number from 0 to 1")
        if dim is not None and "dim" not in parts.settings:
            raise InputError(f"--dim {dim}: {name} has no groups; {_who_takes('dim')} have; leave it out")
        ratio = DEFAULT_RATIO if l1_ratio is None and len(parts.strengths) == 2 else l1_ratio
        return cls(name, ratio, dim)

    def __call__(self, strength: float) -> Penalty:
        """The penalty at ``strength``; of two strengths the first gets its share, the second the rest."""
        parts = signature(self.name)
        values: dict[str, Any] = {} if self.dim is None else {"dim": self.dim}
        if len(parts.strengths) == 1:
            values[parts.strengths[0]] = strength
        else:
            first, second = parts.strengths
            ratio = DEFAULT_RATIO if self.l1_ratio is None else self.l1_ratio
            # Rounded to 12 digits so that 0.01·(1−0.9) reads 0.001 and not 0.0009999999999999998.
            values[first] = float(f"{strength * ratio:.12g}")
            values[second] = float(f"{strength * (1 - ratio):.12g}")
        return build_penalty(self.name, values)


def _who_takes(what: str) -> str:
    names = [
        name
        for name in BUILTIN
        if (len(signature(name).strengths) == 2 if what == "l1_ratio" else what in signature(name).settings)
    ]
    return " and ".join(names)
