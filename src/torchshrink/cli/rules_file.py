"""Rules files: which parameters get which penalty, in YAML.

    on: weights                 # or: all
    rules:
      "encoder.*": {l2: 1e-4}
      "type:Embedding": none
      "head.weight": {elastic_net: {l1: 1e-3, l2: 1e-4}}

The first rule that matches a parameter wins. The file is read as a tree of texts with their line numbers and never as
objects, for three reasons: YAML takes the key ``on`` for the truth value and ``1e-4`` for a text; it silently keeps the
last of two equal keys; and a message can name the line.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from torchshrink.cli.console import one_line
from torchshrink.cli.option_checks import LARGEST, MOST_GAMMA
from torchshrink.cli.options import SELECTIONS
from torchshrink.cli.penalty_names import build_penalty, signature
from torchshrink.errors import InputError
from torchshrink.penalties import BUILTIN, Penalty
from torchshrink.penalties.names import penalty_suggestion
from torchshrink.regularizer.selection import Pattern
from torchshrink.support.text import suggestion

KEYS = ("on", "rules")
_EXAMPLES = {"keep": "0.1", "low": "-1", "high": "1", "n": "2", "m": "4"}  # what constraints take beside a radius
NOTHING = ("", "~", "null", "Null", "NULL", "none", "None")


@dataclass(frozen=True)
class RulesFile:
    """What a rules file says: ``on`` is "weights", "all" or None (nothing said); the rules in the file's order."""

    on: str | None
    rules: dict[Pattern, Penalty | None]


def read_rules(path: Path) -> RulesFile:
    """The rules in the file at ``path``. Whether they fit a model is for the Regularizer to say.

    Raises:
        InputError: the file is missing, is not YAML, or says something that is not a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"--rules {path}: no such file; expected a YAML file of rules") from None
    except (OSError, ValueError) as error:  # the latter of what is no UTF-8, and of a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"--rules {path}: cannot be read ({reason}); expected a YAML file of rules") from None
    return parse_rules(text, str(path))


def parse_rules(text: str, where: str) -> RulesFile:
    """The rules in ``text``; ``where`` names the file in messages.

    >>> parse_rules("rules: {'*.weight': {l1: 1e-4}, 'type:Embedding': none}", "rules.yaml").rules
    {'*.weight': L1(strength=0.0001), 'type:Embedding': None}
    """
    return _Reader(where).read(text)


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def read(self, text: str) -> RulesFile:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except RecursionError:
            raise InputError(f"{self.where}: nested too deep; expected one pattern on each line") from None
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            reason = error.problem or error.context
            raise InputError(f"{self.where}{line}: not YAML ({reason}); correct it there") from None
        except yaml.YAMLError as error:
            raise InputError(
                f"{self.where}: not YAML ({one_line(str(error))}); expected a text file of rules"
            ) from None
        if root is None:
            raise InputError(f"{self.where}: empty; expected `rules:` with lines such as '*.weight': {{l1: 1e-4}}")
        on: str | None = None
        rules: dict[Pattern, Penalty | None] | None = None
        for key, node in self.pairs(root, "`on:` and `rules:`"):
            if key.value == "on":
                on = self.selection(node)
            elif key.value == "rules":
                rules = {
                    self.pattern(pattern): self.penalty(value)
                    for pattern, value in self.pairs(node, "pattern: {penalty: strength}")
                }
            else:
                hint = suggestion(key.value, KEYS) or "; a pattern goes under `rules:`"
                self.fail(key, f"unknown key {key.value!r}: expected `on:` or `rules:`{hint}")
        if not rules:
            raise InputError(f"{self.where}: no rules; expected `rules:` with lines such as '*.weight': {{l1: 1e-4}}")
        return RulesFile(on, rules)

    def selection(self, node: yaml.Node) -> str:
        value = self.text(node, " or ".join(SELECTIONS))
        if value not in SELECTIONS:
            self.fail(node, f"on: {value}: expected {' or '.join(SELECTIONS)}{suggestion(value, SELECTIONS)}")
        return value

    def pattern(self, node: yaml.ScalarNode) -> str:
        value: str = node.value
        if not value:
            self.fail(node, "an empty pattern: expected a parameter's name, with * for any part of it")
        return value

    def penalty(self, node: yaml.Node) -> Penalty | None:
        expected = "{penalty: strength}, or none to exempt"
        if isinstance(node, yaml.ScalarNode):
            if node.value in NOTHING:
                return None
            if node.value in BUILTIN and not signature(node.value).strengths:
                return build_penalty(node.value, {})
            extra = f"; a strength is missing: {{{node.value}: 1e-4}}" if node.value in BUILTIN else ""
            self.fail(node, f"{node.value!r}: expected {expected}{extra or penalty_suggestion(node.value, BUILTIN)}")
        parts = [self.one_penalty(key, value) for key, value in self.pairs(node, expected)]
        if not parts:
            self.fail(node, f"{{}}: expected {expected}")
        try:
            return functools.reduce(operator.add, parts)
        except TypeError as error:
            self.fail(node, str(error))

    def one_penalty(self, key: yaml.ScalarNode, node: yaml.Node) -> Penalty:
        name: str = key.value
        if name not in BUILTIN:
            self.fail(
                key,
                f"unknown penalty {name!r}: expected one of {', '.join(BUILTIN)}{penalty_suggestion(name, BUILTIN)}",
            )
        parts = signature(name)
        example = ", ".join(f"{word}: {_EXAMPLES.get(word, '1e-4')}" for word in parts.strengths)
        if isinstance(node, yaml.ScalarNode):
            if not parts.strengths:
                self.fail(node, f"{name}: {node.value}: it has no strength; write {name} alone")
            if len(parts.strengths) > 1:
                self.fail(node, f"{name}: {node.value}: expected its strengths by name, {{{example}}}")
            values: dict[str, Any] = {parts.strengths[0]: self.value(node, parts.strengths[0], name)}
        else:
            values = {}
            for word, value in self.pairs(node, f"a strength, or {{{example}}}"):
                if word.value not in parts.names:
                    self.fail(
                        word,
                        f"{name} has no {word.value!r}: expected {', '.join(parts.names)}"
                        f"{suggestion(word.value, parts.names)}",
                    )
                values[word.value] = self.value(value, word.value, f"{name}: {word.value}")
        missing = [word for word in parts.strengths if word not in values]
        if missing:
            self.fail(key, f"{name}: {' and '.join(missing)} missing; expected {{{example}}}")
        return self.guarded(key, lambda: build_penalty(name, values))

    def value(self, node: yaml.Node, word: str, what: str) -> Any:
        """What a penalty takes by the name ``word``; what is checked no further here, its class checks."""
        if word in ("dim", "size", "labels"):
            return self.whole(node, what, "dimension" if word == "dim" else "whole number")
        if word == "weights" and isinstance(node, yaml.SequenceNode):
            return tuple(self.number(item, what) for item in node.value)
        if word not in _EXAMPLES:
            return self.number(node, what)
        text = self.text(node, f"a number for {what}")
        try:
            return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
        except ValueError:
            self.fail(node, f"{what}: {text!r} is not a number; expected one such as {_EXAMPLES[word]}")

    def number(self, node: yaml.Node, what: str) -> float:
        text = self.text(node, f"a number for {what}")
        try:
            value = float(text)
        except ValueError:
            self.fail(node, f"{what}: {text!r} is not a number; expected a strength such as 1e-4")
        if not (math.isfinite(value) and value >= 0):
            self.fail(node, f"{what}: {text}: expected a finite number of 0 or more")
        most = MOST_GAMMA if what.endswith((": gamma", ": a")) else LARGEST
        if value > most:
            self.fail(node, f"{what}: {text}: expected at most {most:g}")
        return value

    def whole(self, node: yaml.Node, what: str, kind: str) -> int | tuple[int, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        texts = [self.text(item, f"a {kind} for {what}") for item in nodes]
        try:
            numbers = tuple(int(text) for text in texts)
        except ValueError:
            self.fail(
                node, f"{what}: {', '.join(texts)!r}: expected a {kind} such as {0 if kind == 'dimension' else 1}"
            )
        return numbers if isinstance(node, yaml.SequenceNode) else numbers[0]

    def pairs(self, node: yaml.Node, expected: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            given = f"{node.value!r}" if isinstance(node, yaml.ScalarNode) else "a list"
            self.fail(node, f"{given}: expected {expected}")
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, f"a key that is no text: expected {expected}")
            if key.value in seen:
                self.fail(key, f"{key.value!r} stands twice; give each key once")
            seen.add(key.value)
            yield key, value

    def text(self, node: yaml.Node, expected: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"expected {expected}, not a list or a mapping")
        value: str = node.value
        return value

    def guarded(self, node: yaml.Node, make: Callable[[], Penalty]) -> Penalty:
        try:
            return make()
        except (InputError, TypeError) as error:
            self.fail(node, str(error))

    def fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise InputError(f"{self.where}, line {node.start_mark.line + 1}: {message}")
