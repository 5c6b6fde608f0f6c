"""Penalties are computed in the dtype of the weights, also where ``torch.autocast`` is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from torchshrink.support.private_torch import any_autocast

_KINDS = ("cpu", "cuda", "xpu", "mps")


def without_autocast() -> contextlib.AbstractContextManager[object]:
    """Switch ``torch.autocast`` off inside: it would run the matrix products of a penalty in half precision."""
    if not any_autocast():
        return _NOTHING
    return _without([kind for kind in _KINDS if torch.is_autocast_enabled(kind)])


@contextlib.contextmanager
def _without(kinds: list[str]) -> Iterator[None]:
    if not kinds:
        yield
    else:  # one inside the other: torch 2.14 compiles no ExitStack of them
        with torch.autocast(kinds[0], enabled=False), _without(kinds[1:]):
            yield


_NOTHING = contextlib.nullcontext()
