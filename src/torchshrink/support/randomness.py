"""Seeds, and the state of every global random number generator that a training may draw from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from torchshrink.errors import InputError


def mix_seed(*parts: int) -> int:
    """One seed from several whole numbers ≥ 0, such as (seed, fold, epoch), so that no two places share a stream.

    >>> mix_seed(0, 1) == mix_seed(0, 1), mix_seed(0, 1) == mix_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def checked_seed(seed: int) -> int:
    """``seed`` if it is a whole number ≥ 0.

    Raises:
        InputError: it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed={seed!r}: expected a whole number ≥ 0")
    return seed


def rng_state() -> dict[str, Any]:
    """The state of the global generators of torch (CPU, and CUDA where it is in use), NumPy and Python."""
    algorithm, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        # Not asked for where CUDA is unused so far: the question alone would initialise it.
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
        "numpy": (algorithm, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    algorithm, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every global generator seeded with ``seed`` inside, and put back as it was outside."""
    before = rng_state()
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        set_rng_state(before)
