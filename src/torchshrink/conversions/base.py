"""What a tool's convention consists of, and what a conversion may be told: the types that the entries are made of."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torchshrink.errors import InputError

Values = Mapping[str, Any]
Loss = Literal["squared", "log", "any"]
Kind = Literal["strength", "positive", "share", "below one", "count"] | tuple[str | bool | int, ...]

EXPECTED = {
    "strength": "a finite number ≥ 0",
    "positive": "a finite number > 0",
    "share": "a number from 0 to 1",
    "below one": "a number from 0 to below 1",
    "count": "a whole number ≥ 1",
}


@dataclass(frozen=True)
class Strengths:
    """A penalty in torchshrink's convention: l1·Σ|w| + l2·Σw² + group·Σ√p_g‖w_g‖, added to the mean loss."""

    l1: float = 0.0
    l2: float = 0.0
    group: float = 0.0

    def terms(self) -> tuple[str, ...]:
        """The terms that are not 0."""
        return tuple(name for name in ("l1", "l2", "group") if getattr(self, name))


@dataclass(frozen=True)
class Parameter:
    """A number or a choice that a conversion takes. ``meaning`` says what it is and why it matters.

    ``default`` is ``...`` for a parameter that must be given, and None for one that only some cases need.
    """

    name: str
    kind: Kind
    meaning: str
    default: Any = ...

    def checked(self, value: Any, tool: str) -> Any:
        """``value`` as a plain float, int, string or bool; InputError if it is none that this parameter takes."""
        if isinstance(self.kind, tuple):
            if type(value) is type(self.kind[0]) and value in self.kind:
                return value
            expected = "one of " + ", ".join(map(str, self.kind))
        else:
            expected = EXPECTED[self.kind]
            number = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
            if self._fits(number):
                return int(number) if self.kind == "count" else number
        raise InputError(f"{self.name}={value!r} for {tool}: expected {expected}")

    def _fits(self, value: float) -> bool:
        if not math.isfinite(value) or value < 0:
            return False
        return {
            "strength": True,
            "positive": value > 0,
            "share": value <= 1,
            "below one": value < 1,
            "count": value >= 1 and value.is_integer(),
        }[str(self.kind)]


@dataclass(frozen=True)
class Tool:
    """One tool's convention.

    Args:
        name: As users write it.
        objective: What it minimises, in a line.
        loss: The loss that is its own; ``"any"`` where the user brings it.
        terms: Which of l1, l2 and group it can hold.
        settings: Its strengths: what is given where it is the source, and computed where it is the destination.
        needs: What else the conversion depends on.
        read: Settings and needs → strengths.
        write: Strengths and needs → settings.
        expression: Settings and needs → the line of code that has them.
        notes: What to know before trusting two numbers to mean the same.
        caveats: Needs → why the conversion is only approximate; nothing where it is exact.
        penalises_intercept: Needs → whether the intercept is penalised too; None where the user decides.
    """

    name: str
    objective: str
    loss: Loss
    terms: tuple[str, ...]
    settings: tuple[Parameter, ...]
    read: Callable[[Values], Strengths]
    write: Callable[[Strengths, Values], dict[str, float]]
    expression: Callable[[Values], str]
    needs: tuple[Parameter, ...] = ()
    notes: tuple[str, ...] = ()
    caveats: Callable[[Values], tuple[str, ...]] = lambda values: ()
    penalises_intercept: Callable[[Values], bool | None] = lambda values: False


def known(values: Values, name: str, why: str) -> Any:
    """A value that only some cases need; InputError, with the reason, where it was not given."""
    if values[name] is None:
        raise InputError(f"{name} is missing: {why}")
    return values[name]


def mixed(l1: float, ridge: float) -> tuple[float, float]:
    """α and ρ of α·(ρ·‖w‖₁ + (1−ρ)/2·‖w‖²) = l1·‖w‖₁ + ridge/2·‖w‖²."""
    total = l1 + ridge
    return total, (l1 / total if total else 1.0)


# Parameters that more than one tool takes.
SOME_ROWS = Parameter("rows", "count", "the number of training rows", default=None)
OUTPUTS = Parameter(
    "outputs", "count", "the number of targets: nn.MSELoss averages over them, most others add", default=1
)
LOGITS = Parameter(
    "outputs", "count", "the outputs of the torch classifier: 1 for one logit, else the number of classes", default=1
)
FACTS = ("rows", "outputs", "batch_size", "y_sd")  # facts of the data and the training: true for both tools

TWO_LOGITS = (
    "two classes as two logits (nn.CrossEntropyLoss) need twice the l2 that one logit (nn.BCEWithLogitsLoss) needs: "
    "say outputs=2 for a model with two"
)


def logit_share(values: Values) -> float:
    """How many times the l2 of one logit two logits need.

    Rows w₁ and w₀ act only through w = w₁−w₀. The least ‖w₁‖₁+‖w₀‖₁ with that difference is ‖w‖₁, as with one logit;
    the least ‖w₁‖²+‖w₀‖² is ½‖w‖², and the even split w/2, −w/2 attains both.
    """
    return 2.0 if values["outputs"] == 2 else 1.0
