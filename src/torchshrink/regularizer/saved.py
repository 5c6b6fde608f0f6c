"""What a regularizer's terms and schedule have to save, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchshrink import distributed
from torchshrink.errors import InputError
from torchshrink.regularizer.attachment import Offsets, read_offsets
from torchshrink.regularizer.terms import Schedule, Term


def saved_state(terms: Sequence[Term], schedule: Schedule, offsets: Offsets) -> dict[str, Any]:
    """The step count, the scale (None where it is a callable), and what binding and latent weights keep, if any."""
    scale = schedule.scale
    state: dict[str, Any] = {"steps": schedule.steps, "scale": None if callable(scale) else scale}
    states = {term.name: term.penalty.state() for term in terms}
    bound = {name: {key: t.clone() for key, t in tensors.items()} for name, tensors in states.items() if tensors}
    latent = offsets.state()
    return {**state, **({"bound": bound} if bound else {}), **({"latent": latent} if latent else {})}


@torch.no_grad()
def restore(terms: Sequence[Term], schedule: Schedule, offsets: Offsets, state: Mapping[str, Any]) -> None:
    """Put back what `saved_state` returned. Nothing is changed where it does not fit.

    Raises:
        InputError: keys are missing or unknown, or what was bound there does not fit the terms here.
    """
    if set(state) - {"bound", "latent"} != {"steps", "scale"}:
        raise InputError(f"load_state_dict: keys {sorted(state)} given, ['scale', 'steps'] expected")
    bound = {(term.name, key): t for term in terms for key, t in term.penalty.state().items()}
    saved: dict[tuple[str, str], Tensor] = {
        (name, key): t for name, tensors in state.get("bound", {}).items() for key, t in tensors.items()
    }
    if {at: t.shape for at, t in bound.items()} != {at: t.shape for at, t in saved.items()}:
        given, expected = ({f"{n}.{k}": tuple(t.shape) for (n, k), t in each.items()} for each in (saved, bound))
        raise InputError(f"load_state_dict: {given} bound in the state, {expected} expected; use the same rules")
    latent = read_offsets(state.get("latent", {}), {term.name: term.parameter for term in terms})
    for each in (Schedule(), schedule):  # the first is a trial
        each.steps = state["steps"]
        if state["scale"] is not None:
            each.scale = state["scale"]
    offsets.of = latent
    for at, tensor in bound.items():
        # In place: an attached term and its scaled copies share it.
        tensor.copy_(distributed.shard_like(saved[at], tensor))
