"""The command line that is being run, as one that makes the same again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_FLAGS = ("--force", "--resume", "--json", "--quiet", "--debug")  # where and how it was run, and not what was made
_WITH_VALUE = ("--out", "--jobs")

_now: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """These follow the program's name."""
    _now[:] = arguments


def again() -> str:
    """What makes the same again: without what says where to write and how to go on."""
    return shlex.join(["torchshrink", *_kept(_now)])


def _kept(arguments: Sequence[str]) -> list[str]:
    """The others.

    >>> _kept(["path", "digits", "--out", "here", "--force", "--seed=1", "--out=there"])
    ['path', 'digits', '--seed=1']
    """
    kept: list[str] = []
    skip = False
    for word in arguments:
        if skip or word in _FLAGS or word.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            skip = False
            continue
        skip = word in _WITH_VALUE
        if not skip:
            kept.append(word)
    return kept
