"""Which parameters a penalty acts on, and why not on the others.

What a parameter is to its module, and so what ``WEIGHTS`` leaves out, is told by `parameter_roles`.
"""

from __future__ import annotations

import enum
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeGuard

from torch import nn

from torchshrink.errors import InputError, SelectionError, SelectionWarning
from torchshrink.penalties.base import Penalty
from torchshrink.regularizer.parameter_roles import EMBEDDINGS, Kind, Place, class_names, role_of, tensors_of
from torchshrink.support.text import near, shortened

Pattern = str | type[nn.Module]
Rules = Penalty | Mapping[Pattern, Penalty | None]

_TYPE = "type:"


class Selection(enum.Enum):
    """What a penalty without a parameter's exact name may act on: ``WEIGHTS`` or ``ALL``."""

    WEIGHTS = "weights"
    ALL = "all"

    def __repr__(self) -> str:
        return f"ts.{self.name}"

    __str__ = __repr__


WEIGHTS = Selection.WEIGHTS
"""Every trainable tensor but biases, normalisation weights, raw 1-d parameters and reparametrised quantities."""
ALL = Selection.ALL
"""Every trainable parameter, as in ``model.parameters()``."""

On = Selection | Pattern | Sequence[Pattern]


@dataclass(frozen=True, eq=False)
class Choice:
    """What was decided for one parameter tensor, and why.

    Args:
        name: its qualified name, the first in model order.
        aliases: its further qualified names, where it is tied.
        parameter: the tensor itself, of any shape.
        owner: the module whose parameter it is under ``name``.
        kind: what it is to its owner.
        penalty: what acts on it; None where nothing does.
        rule: the rule that decided, as written (``type:Linear`` for a class, ``default`` for a single penalty);
            empty where none did.
        reason: why nothing acts on it; empty where something does.
    """

    name: str
    aliases: tuple[str, ...]
    parameter: nn.Parameter
    owner: nn.Module
    kind: Kind
    penalty: Penalty | None
    rule: str
    reason: str

    def __repr__(self) -> str:
        why = f"exempt: {self.reason}" if self.penalty is None else f"{self.penalty} by {self.rule}"
        return f"<Choice for {shortened(self.name, 60)}: {shortened(why, 100)}>"


def select(model: nn.Module, rules: Rules, on: On = WEIGHTS) -> tuple[Choice, ...]:
    """Decide for every parameter of ``model`` which penalty acts on it, if any.

    A pattern is one of

    - a glob on the qualified parameter name, matched case by case; ``*`` crosses dots: ``encoder.*`` is everything
      under ``encoder``;
    - a module class, or its name as ``"type:Linear"``: the parameters that modules of this class, or of one derived
      from it, own themselves (not those of their children).

    The first rule that matches a parameter, under any of its names, wins; None exempts. Within ``WEIGHTS``, a penalty's
    pattern passes over the parameters that ``WEIGHTS`` leaves out, unless it is a parameter's exact name.

    Args:
        model: any module. Only names, shapes and identities are looked at, never values.
        rules: one penalty for all that ``on`` names, or pattern → penalty or None.
        on: ``WEIGHTS`` or ``ALL``, or their names ``"weights"`` and ``"all"``; or, for one penalty, a pattern or
            several, which is short for a rule for each.

    Returns:
        One choice per distinct tensor, in model order, the exempt ones included.

    Raises:
        SelectionError: a rule that matches nothing or changes nothing; nothing to penalise; a tensor that cannot be.
        InputError: an argument of the wrong type.

    Example:
        >>> from torchshrink.penalties import L1
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> for choice in select(model, L1(0.1)):
        ...     print(choice.name, choice.rule or choice.reason)
        0.weight default
        0.bias bias
        1.weight normalisation weight
        1.bias bias
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {_given(model)} given, an nn.Module expected")
    rules, on = _spelled_out(rules, on)
    parsed = _parsed(rules)
    verdicts = [_verdict(places, parsed, on) for places in tensors_of(model)]
    notes: list[str] = []
    if isinstance(rules, Mapping):
        notes += [note for rule in parsed for note in _diagnosis(rule, verdicts, model, on)]
    meant = any(rule.penalty is not None for rule in parsed)
    if meant and all(verdict.choice.penalty is None for verdict in verdicts):
        raise SelectionError(f"nothing to penalise: {'; '.join(notes)}" if notes else _nothing(verdicts, on))
    for verdict in verdicts:
        _refuse_impossible(verdict)
    notes += _reparametrised_note(verdicts)
    for note in notes:
        warnings.warn(note, SelectionWarning, stacklevel=3)  # the line that made the Regularizer
    return tuple(verdict.choice for verdict in verdicts)


@dataclass(frozen=True, eq=False)
class _Rule:
    pattern: Pattern
    penalty: Penalty | None
    text: str

    def matches(self, place: Place) -> bool:
        if not isinstance(self.pattern, str):
            return isinstance(place.owner, self.pattern) or isinstance(place.holder, self.pattern)
        if self.pattern.startswith(_TYPE):
            name = self.pattern.removeprefix(_TYPE)
            return name in class_names(place.owner) or name in class_names(place.holder)
        return self.names(place) or fnmatchcase(place.name, self.pattern)

    def names(self, place: Place) -> bool:
        return self.pattern == place.name

    def names_one_of(self, places: Iterable[Place]) -> bool:
        return any(map(self.names, places))


@dataclass(frozen=True, eq=False)
class _Verdict:
    """A choice with what is needed to judge the rules by it."""

    choice: Choice
    places: tuple[Place, ...]
    matching: tuple[_Rule, ...]
    decider: _Rule | None
    left_out: str  # why `on` leaves it out; empty where it does not

    def within_reach(self, rule: _Rule) -> bool:
        """Whether a penalty under ``rule`` may act here: ``on`` admits it, or the rule has its exact name."""
        return rule in self.matching and (not self.left_out or rule.names_one_of(self.places))


def _given(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    line = " ".join(repr(value).split())
    return f"{type(value).__name__} {line if len(line) < 60 else line[:59] + '…'}"


def _spelled_out(rules: Rules, on: object) -> tuple[Rules, Selection]:
    """Rules, and one of the two selections, where ``on`` is the name of one or has patterns."""
    words = {each.value: each for each in Selection}
    if isinstance(on, Selection):
        return rules, on
    if isinstance(on, str) and on in words:
        return rules, words[on]
    given = [*on] if isinstance(on, Sequence) and not isinstance(on, str) else [on]
    patterns = [each for each in given if isinstance(each, str) or _is_module_class(each)]
    if not given or len(patterns) < len(given):
        raise InputError(
            f"on: {_given(on)} given, ts.WEIGHTS or ts.ALL expected, 'weights' or 'all', or a pattern (a glob of "
            "parameter names, a module class), or several"
        )
    if not isinstance(rules, Penalty):
        _parsed(rules)  # what is wrong with them is said first
        raise InputError(
            f"on={on!r} with rules: the rules say themselves what they are for; patterns in `on` are for one penalty"
        )
    return dict.fromkeys(patterns, rules), WEIGHTS


def _is_module_class(pattern: object) -> TypeGuard[type[nn.Module]]:
    return isinstance(pattern, type) and issubclass(pattern, nn.Module)


def _parsed(rules: object) -> tuple[_Rule, ...]:
    if isinstance(rules, Penalty):
        return (_Rule("*", rules, "default"),)
    if isinstance(rules, type) and issubclass(rules, Penalty):
        raise InputError(f"rules: the class {rules.__name__} given; give it a strength, as in {rules.__name__}(1e-4)")
    if not isinstance(rules, Mapping):
        raise InputError(
            f"rules: {_given(rules)} given, a penalty such as ts.L2(1e-4) "
            "or a mapping pattern → penalty or None expected"
        )
    if not rules:
        raise SelectionError(
            "rules: an empty mapping; expected at least one pattern → penalty, as in {'*': ts.L2(1e-4)}"
        )
    return tuple(_parsed_rule(pattern, penalty) for pattern, penalty in rules.items())


def _parsed_rule(pattern: object, penalty: object) -> _Rule:
    if _is_module_class(pattern):
        text = _TYPE + pattern.__name__
    elif isinstance(pattern, str):
        text = pattern
    else:
        raise InputError(f"rules: pattern {_given(pattern)}; expected a glob, a module class or 'type:ClassName'")
    if isinstance(penalty, type) and issubclass(penalty, Penalty):
        raise InputError(
            f"rule {text!r}: the class {penalty.__name__}; give it a strength, as in {penalty.__name__}(1e-4)"
        )
    if penalty is not None and not isinstance(penalty, Penalty):
        raise InputError(
            f"rule {text!r}: {_given(penalty)} given, a penalty such as ts.L2(1e-4) or None (exempt) expected"
        )
    return _Rule(pattern, penalty, text)


def _verdict(places: tuple[Place, ...], rules: tuple[_Rule, ...], on: Selection) -> _Verdict:
    roles = [role_of(place) for place in places]
    kind, left_out = next((role for role in roles if not role[1]), roles[0])  # a weight somewhere is a weight
    if on is ALL:
        left_out = ""
    matching = tuple(rule for rule in rules if any(map(rule.matches, places)))
    first = places[0]
    decider: _Rule | None = None
    if not first.parameter.requires_grad:
        reason = "frozen"
    else:
        admitted = (rule for rule in matching if not left_out or rule.penalty is None or rule.names_one_of(places))
        decider = next(admitted, None)
        if decider is not None:
            reason = "" if decider.penalty is not None else "exempted by rule"
        else:
            reason = left_out if matching else "no rule matches"
    choice = Choice(
        name=first.name,
        aliases=tuple(place.name for place in places[1:]),
        parameter=first.parameter,
        owner=first.owner,
        kind=kind,
        penalty=decider.penalty if decider else None,
        rule=decider.text if decider else "",
        reason=reason,
    )
    return _Verdict(choice, places, matching, decider, left_out)


def _diagnosis(rule: _Rule, verdicts: Sequence[_Verdict], model: nn.Module, on: Selection) -> list[str]:
    """What to warn of in ``rule``; raises where it changes nothing, which its author cannot have meant."""
    hits = [verdict for verdict in verdicts if rule in verdict.matching]
    if not hits:
        raise SelectionError(f"rule {rule.text!r} matches no parameter: {_near_miss(rule, verdicts, model)}")
    trainable = [hit for hit in hits if hit.choice.parameter.requires_grad]
    reached = [hit for hit in trainable if hit.within_reach(rule)]
    # Exempting what `on` leaves out anyway is no contradiction, unless an earlier rule has named it; and a penalty that
    # may act nowhere is told so below, whatever rules there are beside it.
    meant = reached if rule.penalty is not None else reached or trainable
    rivals = {hit.decider.text: hit.decider for hit in meant if hit.decider and hit.decider is not rule}
    mine = any(hit.decider is rule for hit in meant)
    at_odds = any(rival.penalty is not None for rival in rivals.values())
    if rivals and not mine and (rule.penalty is not None or at_odds):
        raise SelectionError(
            f"rule {rule.text!r} comes too late: {_listed(rivals)} already took all that it matches "
            f"({_listed(hit.choice.name for hit in meant)}); "
            "the first rule that matches wins, so put it earlier"
        )
    if rule.penalty is None or reached:
        return []
    frozen = [hit.choice.name for hit in hits if hit not in trainable and hit.within_reach(rule)]
    if frozen:
        return [
            f"rule {rule.text!r} penalises nothing: {_listed(frozen)} {'is' if len(frozen) == 1 else 'are'} frozen "
            "(requires_grad=False); unfreeze before binding, or drop the rule"
        ]
    raise SelectionError(
        f"rule {rule.text!r} matches only what on={on} leaves out "
        f"({_listed((f'{hit.choice.name}: {hit.left_out}' for hit in hits), quoted=False)}); "
        "pass on=ts.ALL, or write a parameter's exact name"
    )


def _near_miss(rule: _Rule, verdicts: Sequence[_Verdict], model: nn.Module) -> str:
    classes = sorted({name for module in model.modules() for name in class_names(module)} - {"Module"})
    if rule.text.startswith(_TYPE):
        return _near_miss_of_class(rule, classes, model)
    names = [place.name for verdict in verdicts for place in verdict.places]
    guess = _closest_pattern(rule.text, names, classes)
    if guess is not None:
        return f"did you mean {guess!r}?"
    return f"the model's parameters are {_listed(names)}" if names else "the model has no parameters"


def _near_miss_of_class(rule: _Rule, classes: Sequence[str], model: nn.Module) -> str:
    wanted = rule.text.removeprefix(_TYPE).rpartition(".")[2]
    for name, module in model.named_modules():
        if isinstance(rule.pattern, str):
            found = rule.pattern == _TYPE + wanted and wanted in class_names(module)
        else:
            found = isinstance(module, rule.pattern)
        if found:  # or it would have matched the parameters that the module owns
            return f"a {wanted} owns none itself; its children's are {f'{name}.*' if name else '*'!r}"
    if not isinstance(rule.pattern, str) and wanted in classes:
        return f"the model's {wanted} is another class of that name; by name it is {rule.text!r}"
    guess = near(wanted, classes)
    return f"did you mean {_TYPE + guess!r}?" if guess else f"the model's classes are {_listed(classes)}"


def _closest_pattern(pattern: str, names: Sequence[str], classes: Sequence[str]) -> str | None:
    modules = {name[:at] for name in names for at, letter in enumerate(name) if letter == "."}
    parts = sorted({part for name in names for part in name.split(".")})

    def repaired(part: str) -> str:
        if any(letter in part for letter in "*?["):
            return part
        return near(part, parts) or part

    if pattern in modules:
        return f"{pattern}.*"
    if pattern in classes:
        return _TYPE + pattern
    for guess in (f"*.{pattern}", ".".join(map(repaired, pattern.split(".")))):
        if guess in modules:
            return f"{guess}.*"
        if any(fnmatchcase(name, guess) for name in names):
            return guess
    known = [*names, *(f"{module}.*" for module in sorted(modules))]
    return near(pattern, known)


def _nothing(verdicts: Sequence[_Verdict], on: Selection) -> str:
    if not verdicts:
        return "nothing to penalise: the model has no parameters"
    why = Counter(verdict.choice.reason.partition(":")[0] for verdict in verdicts)
    counts = ", ".join(f"{count} {reason}" for reason, count in why.items())
    remedy = "pass on=ts.ALL, or write a parameter's exact name" if on is WEIGHTS else "unfreeze what is to shrink"
    if set(why) == {"frozen"}:
        remedy = "unfreeze what is to shrink (requires_grad_(True))"
    return f"nothing to penalise with on={on}: the model's parameters are {counts}; {remedy}"


def _refuse_impossible(verdict: _Verdict) -> None:
    choice = verdict.choice
    if choice.penalty is None:
        return
    what = f"{choice.name!r} {tuple(choice.parameter.shape)}"
    exempt = f"exempt it with {{{choice.name!r}: None, …}}"
    if choice.parameter.is_complex():
        raise SelectionError(
            f"{what} is complex ({choice.parameter.dtype}), and penalties are of real tensors; {exempt}"
        )
    if any(isinstance(place.owner, EMBEDDINGS) and place.owner.sparse for place in verdict.places):
        raise SelectionError(
            f"{what} is an embedding with sparse=True, whose gradient cannot hold a penalty on every row; "
            f"build it with sparse=False, or {exempt}"
        )


def _reparametrised_note(verdicts: Sequence[_Verdict]) -> list[str]:
    """The quantities that a rule reaches for, but that are not the weights that its author had in mind."""
    names = [
        verdict.choice.name
        for verdict in verdicts
        if verdict.choice.kind == "reparametrised" and verdict.choice.reason == verdict.left_out != ""
    ]
    if not names:
        return []
    return [
        f"not penalised, since weights are only computed from them: {_listed(names, most=8)}; "
        "exempt them by a rule (None), penalise them as parameters by their exact names or on=ts.ALL, "
        "or remove the parametrization"
    ]


def _listed(names: Iterable[str], *, most: int = 3, quoted: bool = True) -> str:
    shown = [repr(name) if quoted else name for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
