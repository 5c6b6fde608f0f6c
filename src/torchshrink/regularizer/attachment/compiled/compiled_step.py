"""Which parameters a compiled step moves, and how the optimizer is kept from moving them again.

The programs run as the last thing before the optimizer's own update. What they have moved has no gradient meanwhile, so
that the optimizer passes it over like any parameter without one; all others it moves as ever. Its state, which it has
made by itself in a parameter's first step, is read and written in place. So schedulers, checkpoints and whoever else
calls ``step()`` or looks at the state notice nothing; and whatever is not compiled, in any step, goes the plain way.
"""

from __future__ import annotations

import warnings
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchshrink.errors import CompileWarning
from torchshrink.regularizer.attachment.bundling import Bundle
from torchshrink.regularizer.attachment.compiled.programs import Form, Program, program_of
from torchshrink.regularizer.attachment.compiled.slots import (
    NO_STATE,
    Slot,
    is_ordinary,
    kind_of,
    made_slot,
    numbers_of,
)
from torchshrink.regularizer.attachment.latent import LatentWeights
from torchshrink.regularizer.attachment.offsets import Offset
from torchshrink.regularizer.attachment.rho import coupled_decay
from torchshrink.regularizer.terms import Schedule
from torchshrink.step_sizes import climbs
from torchshrink.step_sizes.updates import Advance, Update, advance, update_of
from torchshrink.support.compiling import cannot_compile
from torchshrink.support.private_torch import version_of
from torchshrink.support.storage import brief

MOST = 16
"""Parameters in a program: each costs the compiler time, and each call of a program takes some 50 µs."""

SMALL = 1 << 14
"""In a model of more, parameters of fewer elements, without a penalty, are not worth a program."""

ONE = torch.ones(())
"""To count steps with: torch would turn a Python number into a tensor once per parameter."""


@dataclass
class _Part:
    """The parameters of one program, in its order."""

    form: Form
    slots: list[Slot]
    program: Program


@final
class CompiledStep:
    """Moves what it can in place of the optimizer.

    Args:
        optimizer: whose update it takes over.
        bundles: what acts in it.
        schedule: the scale.
        latent: the terms that act by latent weights.

    Warns:
        CompileWarning: there is no compiler, or something goes the plain way in every step.
    """

    def __init__(
        self, optimizer: Optimizer, bundles: Sequence[Bundle], *, schedule: Schedule, latent: LatentWeights | None
    ) -> None:
        self._optimizer, self._schedule, self._latent = optimizer, schedule, latent
        self._bundle_of = {id(p): bundle for bundle in bundles for p in bundle.parameters}
        self._groups = sorted({bundle.group for bundle in bundles})
        self._updates: dict[int, Update | None] = {}  # by group, in this step
        self._known: dict[bool, tuple[tuple[Any, ...], list[_Part]]] = {}  # by whether there are latent weights
        self._hidden: list[tuple[nn.Parameter, Tensor]] = []
        self._for_prox: list[tuple[nn.Parameter, Tensor]] = []
        problem = cannot_compile()
        self._works = problem is None
        lines = self._obstacles(bundles) if problem is None else [f"torch.compile does not work here ({problem})"]
        for line in lines:
            warnings.warn(f"compile=True: {line}; the plain path goes on", CompileWarning, stacklevel=5)

    def _obstacles(self, bundles: Sequence[Bundle]) -> list[str]:
        found = []
        for bundle in bundles:
            kind = kind_of(bundle)
            if update_of(self._optimizer, self._optimizer.param_groups[bundle.group]) is None:
                found.append(f"the update of {type(self._optimizer).__name__} is not among those that are compiled")
            elif kind is None:
                found.append(f"{bundle.penalty} by method {bundle.method!r} is not among what is compiled")
            else:
                for name, p in zip(bundle.names, bundle.parameters, strict=True):
                    if not is_ordinary(p):
                        found.append(f"{name} is no ordinary tensor of float32 or float64")
        return [*dict.fromkeys(found)]

    # --- around the optimizer's update ---

    def run(self, loss_scale: float | Tensor) -> None:
        """Move what can be moved, and hide its gradient from the optimizer. Under ``torch.no_grad()``."""
        if not self._works or torch.compiler.is_compiling() or isinstance(loss_scale, Tensor):
            return
        offsets = {} if self._latent is None else self._latent.lent(loss_scale)
        advances: dict[Any, Advance] = {}
        for part in self._parts(offsets, signed=loss_scale != 1.0):
            if self._works:
                self._move(part, advances, offsets, loss_scale)

    def _move(
        self, part: _Part, advances: dict[Any, Advance], offsets: Mapping[int, Offset], loss_scale: float
    ) -> None:
        rows: dict[Any, list[float]] = {}
        numbers = array("d" if part.form.dtype is torch.float64 else "f")
        steps, tensors = [], []
        for slot in part.slots:
            grad = slot.gradient()
            if grad is None:
                return  # in this step all go the plain way
            tensors += [slot.x, grad, *slot.owned]
            step = self._advance(slot, advances)
            steps.append(step)
            offset = offsets.get(id(slot.p)) if part.form.latent else None
            key = (id(step), id(slot.bundle), None if offset is None else offset.rho)
            if key not in rows:
                penalty = None if slot.bundle is None else self._schedule.scaled(slot.bundle.penalty)
                rows[key] = numbers_of(slot, step, penalty, offset, loss_scale)
            numbers.extend(rows[key])
        table = torch.frombuffer(numbers, dtype=part.form.dtype).view(len(part.slots), -1)
        try:
            part.program(table.to(part.form.device), *tensors)
        except Exception as error:  # of many kinds, none of which torch documents
            self._works = False
            warnings.warn(
                f"compile=True: torch.compile fails on this step ({brief(error)}); the plain path goes on",
                CompileWarning,
                stacklevel=6,
            )
            return
        for slot, step in zip(part.slots, steps, strict=True):
            self._leave_state(slot, step, offsets, loss_scale)
        counted = [slot.state["step"] for slot in part.slots if "step" in slot.state]
        if counted:
            torch._foreach_add_(counted, ONE, alpha=1.0)

    def _leave_state(self, slot: Slot, step: Advance, offsets: Mapping[int, Offset], loss_scale: float) -> None:
        """What a step leaves besides what the program has written, but for the count of steps."""
        if "mu_product" in step.counts:
            slot.state["mu_product"].fill_(step.counts["mu_product"])
        if slot.form.latent:
            offsets[id(slot.p)].version = version_of(slot.p)
        grad = slot.p.grad
        if grad is not None:
            if loss_scale != 1.0:  # as a fused optimizer leaves it
                grad.mul_(1 / loss_scale)
            (self._for_prox if slot.prox_follows else self._hidden).append((slot.p, grad))
            slot.p.grad = None

    def show_for_prox(self) -> None:
        """Give those their gradients back on which the plain prox is still to act."""
        self._show(self._for_prox)

    def show(self) -> None:
        """Give all parameters their gradients back, also after a step that has ended in an exception."""
        self._show(self._for_prox)
        self._show(self._hidden)

    @staticmethod
    def _show(hidden: list[tuple[nn.Parameter, Tensor]]) -> None:
        for p, grad in hidden:
            if p.grad is None:
                p.grad = grad
        hidden.clear()

    # --- of which parameters, with which numbers ---

    def _advance(self, slot: Slot, advances: dict[Any, Advance]) -> Advance:
        """The next step of a parameter; the same object for all of one group that have taken as many."""
        state = slot.state
        counts = tuple(state[key].item() for key in ("step", "mu_product") if key in state)
        key = (slot.group, *counts)
        if key not in advances:
            update = self._updates[slot.group]
            assert update is not None
            advances[key] = advance(self._optimizer, self._optimizer.param_groups[slot.group], state, update)
        return advances[key]

    def _parts(self, offsets: Mapping[int, Offset], *, signed: bool) -> list[_Part]:
        """All parameters that have a gradient now, by program: as in the last step, where nothing has changed."""
        groups, states = self._optimizer.param_groups, self._optimizer.state
        updates = self._updates = {index: update_of(self._optimizer, groups[index]) for index in self._groups}
        signs = [signed or climbs(self._optimizer, groups[index]) for index in self._groups]
        decays = [coupled_decay(self._optimizer, groups[index]) != 0 for index in self._groups]
        live = [
            (id(p), len(states.get(p, NO_STATE)))
            for index in self._groups
            for p in groups[index]["params"]
            if p.grad is not None
        ]
        key = (live, updates, signs, decays, [*offsets], torch.get_num_threads())
        known, parts = self._known.get(bool(offsets), (None, []))
        if known == key and all(self._stands(slot, updates, offsets) for part in parts for slot in part.slots):
            return parts
        made: list[Slot] = []
        for index, signs_here, decays_here in zip(self._groups, signs, decays, strict=True):
            update = updates[index]
            if update is not None:
                made += self._made(index, update, offsets, signed=signs_here, coupled=decays_here)
        parts = _by_program(made)
        self._known[bool(offsets)] = key, parts
        return parts

    def _stands(self, slot: Slot, updates: Mapping[int, Update | None], offsets: Mapping[int, Offset]) -> bool:
        update, offset = updates[slot.group], offsets.get(id(slot.p)) if slot.form.latent else None
        return update is not None and slot.stands(self._optimizer.state.get(slot.p, NO_STATE), update, offset)

    def _made(
        self, index: int, update: Update, offsets: Mapping[int, Offset], *, signed: bool, coupled: bool
    ) -> list[Slot]:
        made = []
        for p in self._optimizer.param_groups[index]["params"]:
            if p.grad is not None:
                state = self._optimizer.state.get(p, NO_STATE)
                slot = made_slot(p, index, self._bundle_of.get(id(p)), state, update, offsets.get(id(p)))
                if slot is not None:
                    slot.form = replace(slot.form, signed=signed, coupled=coupled or slot.form.coupled)
                    made.append(slot)
        # What has no penalty goes through a penalty's program at strength 0, rather than through one of its own.
        elementwise = [slot.form for slot in made if slot.bundle is not None and not slot.prox_follows]
        shared = next((form for form in elementwise if not form.latent), None)
        for slot in made:
            ours = (slot.p.dtype, slot.p.device)
            if slot.bundle is None and shared is not None and (shared.dtype, shared.device) == ours:
                slot.form = shared
        return made


def _by_program(slots: list[Slot]) -> list[_Part]:
    """What goes into one program each: all of one form, or if these are many, those of one shape, and no small ones."""
    by_form: dict[Form, list[Slot]] = defaultdict(list)
    for slot in slots:
        by_form[slot.form].append(slot)
    together: list[list[Slot]] = []
    for alike in by_form.values():
        if len(alike) <= MOST:
            together.append(alike)
            continue
        by_place: dict[Any, list[Slot]] = defaultdict(list)
        for slot in alike:
            if slot.bundle is not None or slot.p.numel() >= SMALL:
                by_place[slot.place].append(slot)
        together += [some[i : i + MOST] for some in by_place.values() for i in range(0, len(some), MOST)]
    threads = torch.get_num_threads()
    return [
        _Part(some[0].form, some, program_of(some[0].form, tuple(slot.place for slot in some), threads))
        for some in together
    ]
