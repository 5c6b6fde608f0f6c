"""Strengths between libraries: what λ, alpha, C or weight_decay here is the same problem as what there.

Everything goes through torchshrink's own convention, F = mean loss + penalty: the source's settings become strengths
of F, and these become the destination's settings. `torchshrink.conversions.tools` holds one entry per tool. Nothing
here needs torch, or the other libraries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torchshrink.conversions.optimizers import loss_of
from torchshrink.conversions.tools import FACTS, REFUSED, TOOLS, Parameter, Strengths, Tool, Values
from torchshrink.errors import InputError, NoEquivalentError
from torchshrink.support.text import near, shortened, suggestion

__all__ = ["REFUSED", "TOOLS", "Conversion", "NoEquivalentError", "convert"]


@dataclass(frozen=True)
class Conversion:
    """One tool's settings as another's, with what to know before trusting them. `str` gives the one-line equation.

    Args:
        source: The tool converted from.
        given: Its settings, and what else was taken into account, defaults included.
        source_objective: What it minimises.
        destination: The tool converted to.
        settings: The destination's settings.
        assumed: What else the destination's settings depend on, defaults included.
        expression: They as the destination's own code.
        objective: What the destination minimises.
        exact: Whether both minimise the same function of the weights, up to a factor, as the notes have it.
        notes: What differs around it: intercepts, standardisation, batches; the reasons first where it is not exact.
    """

    source: str
    given: Mapping[str, float | str | bool]
    source_objective: str
    destination: str
    settings: Mapping[str, float]
    assumed: Mapping[str, float | str | bool]
    expression: str
    objective: str
    exact: bool
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold."""
        return asdict(self) | {"notes": list(self.notes)}

    def __repr__(self) -> str:
        return f"<Conversion: {shortened(str(self), 180)}>"

    def __str__(self) -> str:
        return f"{self.source}({_listed(self.given)}) {'=' if self.exact else '≈'} {self.expression}"


def convert(source: str, *, to: str = "torchshrink", **parameters: float | str | bool) -> Conversion:
    """The settings of one tool as the settings of another that minimises the same function.

    torchshrink's own side is F(w) = mean loss + l1·Σ|w| + l2·Σw² + group·Σ√p_g·‖w_g‖, with torch's mean losses:
    ``nn.MSELoss``, which has no ½ and averages over outputs too, and the log loss averaged over rows.

    A parameter goes to ``source`` if that takes it, else to ``to``. ``rows``, ``outputs``, ``batch_size`` and ``y_sd``
    are facts of the data and go to both. With ``to_`` before its name a parameter is the destination's:
    ``to_solver="lbfgs"``.

    Args:
        source: The tool to convert from, such as ``"sklearn.Ridge"``, ``"torch.SGD"``, ``"keras.L2"``,
            ``"glmnet.binomial"`` or ``"torchshrink"``; `TOOLS` lists them.
        to: The tool to convert to.
        **parameters: The source's strengths (``alpha``, ``C``, ``weight_decay``, ``lambda_``, …) and what else the
            conversion depends on; a missing one is named, with why it is needed.

    Returns:
        The conversion, with its ``settings``, ``expression``, ``exact`` and ``notes``.

    Raises:
        NoEquivalentError: No setting of ``to`` has the same solution, such as for AdamW's decay; the message says why.
        InputError: A tool is unknown; a parameter is missing, unknown or out of its range.

    Example:
        >>> conversion = convert("sklearn.LogisticRegression", C=1.0, rows=500)
        >>> conversion.expression
        'ts.L2(0.001)'
        >>> convert("sklearn.Ridge", to="torch.SGD", alpha=1.0, rows=500).settings
        {'weight_decay': 0.004}
        >>> convert("torchshrink", to="sklearn.ElasticNet", l1=0.5, l2=0.75).settings
        {'alpha': 1.0, 'l1_ratio': 0.25}
    """
    origin, destination = _find(source), _find(to)
    # lambda is a word of Python's own, so that lambda_ is taken for it
    theirs, ours = _share_out(origin, destination, {name.rstrip("_"): value for name, value in parameters.items()})
    given = _complete(origin, (*origin.settings, *origin.needs), theirs)
    needed = _complete(destination, destination.needs, ours)
    _same_loss(origin, given, destination, needed)

    strengths = origin.read(given)
    _holds(destination, strengths, origin)
    settings = destination.write(strengths, needed)
    if not all(math.isfinite(value) for value in (*asdict(strengths).values(), *settings.values())):
        raise InputError(f"{origin.name} with {_listed(given)}: the result is beyond what a float can hold")

    caveats = _intercepts(origin, given, destination, needed)
    caveats += (*origin.caveats(given), *destination.caveats(needed))
    notes = (*caveats, *_bias_advice(origin, given, destination, needed), *origin.notes, *destination.notes)
    return Conversion(
        source=origin.name,
        given=_known(given),
        source_objective=origin.objective,
        destination=destination.name,
        settings=settings,
        assumed=_known(needed),
        expression=destination.expression({**needed, **settings}),
        objective=destination.objective,
        exact=not caveats,
        notes=tuple(dict.fromkeys(notes)),
    )


def _find(name: str) -> Tool:
    """The tool of that name; the modules between the library and the class may be there or not."""
    short = ".".join(dict.fromkeys((name.split(".")[0], name.split(".")[-1])))
    if short in TOOLS:
        return TOOLS[short]
    if short in REFUSED:
        raise NoEquivalentError(f"{short} has no equivalent in any other tool: {REFUSED[short]}")
    every = [*TOOLS, *REFUSED]
    bare = {key.split(".")[-1].lower(): key for key in reversed(every)}  # of two with one class name, the first
    spellings = bare | {key.lower(): key for key in every}
    for spelled in (short.lower(), short.split(".")[-1].lower()):
        found = near(spelled, spellings)
        if found:
            raise InputError(f"tool {name!r} is unknown; did you mean {spellings[found]!r}?")
    raise InputError(f"tool {name!r} is unknown: expected one of {', '.join(TOOLS)}")


def _share_out(origin: Tool, destination: Tool, parameters: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which parameters are the source's and which the destination's."""
    first = {p.name for p in (*origin.settings, *origin.needs)}
    second = {p.name for p in destination.needs}
    theirs: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    for name, value in parameters.items():
        bare = name.removeprefix("to_")
        if bare != name and bare in second:
            ours[bare] = value
        elif name in first:
            theirs[name] = value
            if name in FACTS and name in second:
                ours.setdefault(name, value)
        elif name in second:
            if f"to_{name}" in parameters:
                raise InputError(f"{name} and to_{name} are one parameter here: {origin.name} has none; give one")
            ours[name] = value
        elif name not in FACTS:
            raise InputError(_unknown(name, origin, destination, first | second))
    return theirs, ours


def _unknown(name: str, origin: Tool, destination: Tool, takes: set[str]) -> str:
    if name.removeprefix("to_") in {p.name for p in destination.settings}:
        return f"{name} is what a conversion to {destination.name} computes: leave it out"
    hint = suggestion(name, takes)
    return f"{name} is no parameter of {origin.name} to {destination.name}, which takes {_names(takes)}{hint}"


def _complete(tool: Tool, takes: tuple[Parameter, ...], values: Values) -> dict[str, Any]:
    """Every parameter that ``tool`` takes, checked, the defaults filled in."""
    missing = [p for p in takes if p.default is ... and p.name not in values]
    if missing:
        names = " and ".join(p.name for p in missing)
        why = "; ".join(f"{p.name} is {p.meaning}" for p in missing)
        raise InputError(f"{tool.name} needs {names}, not given: {why}")
    return {p.name: p.checked(values[p.name], tool.name) if p.name in values else p.default for p in takes}


def _same_loss(origin: Tool, given: Values, destination: Tool, needed: Values) -> None:
    first, second = loss_of(origin, given), loss_of(destination, needed)
    if {first, second} == {"squared", "log"}:
        raise NoEquivalentError(
            f"{origin.name} to {destination.name}: the one minimises {_LOSSES[first]}, the other {_LOSSES[second]}, "
            "and no strength makes these the same problem"
        )


_LOSSES = {"squared": "squared errors", "log": "the log loss"}
_TERMS = {"l1": "L1", "l2": "L2", "group": "group lasso"}


def _holds(destination: Tool, strengths: Strengths, origin: Tool) -> None:
    """Refuse a destination that lacks a term, and name those that have it."""
    lacking = [_TERMS[term] for term in strengths.terms() if term not in destination.terms]
    if lacking:
        able = [
            tool.name
            for tool in TOOLS.values()
            if set(strengths.terms()) <= set(tool.terms) and {tool.loss, origin.loss} != {"squared", "log"}
        ]
        raise NoEquivalentError(
            f"{destination.name} has no {' or '.join(lacking)} penalty; these have all that is needed: {_names(able)}"
        )


def _intercepts(origin: Tool, given: Values, destination: Tool, needed: Values) -> tuple[str, ...]:
    first, second = origin.penalises_intercept(given), destination.penalises_intercept(needed)
    if {first, second} != {True, False}:
        return ()
    name, other = (origin.name, destination.name) if first else (destination.name, origin.name)
    return (f"{name} penalises the intercept too with this solver, {other} leaves it free",)


def _bias_advice(origin: Tool, given: Values, destination: Tool, needed: Values) -> tuple[str, ...]:
    """What to do about the bias where one side has decided and the other is the user's to decide."""
    decided = {origin.penalises_intercept(given), destination.penalises_intercept(needed)} - {None}
    if decided == {True}:
        return ("the intercept is penalised too, which here means all parameters: bind the penalty with on=ts.ALL",)
    if decided == {False}:
        return ("the intercept is free: keep biases out of the penalty",)
    return ()


def _names(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _known(values: Values) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _listed(values: Values) -> str:
    return ", ".join(f"{name}={value}" for name, value in _known(values).items())
