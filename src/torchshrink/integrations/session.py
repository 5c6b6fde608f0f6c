"""A penalty in one training of a framework's, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MethodType
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchshrink.errors import AttachmentError, InputError, SelectionWarning
from torchshrink.integrations.callbacks import Settings, attached, held_by, tell
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import stepping

_CARRIED = "torchshrink"  # the entry of an optimizer's first group of parameters that states are saved in


@final
class Session:
    """Attached from construction until `end`.

    What an earlier training has left in these optimizers when it ended in an exception is taken out first.

    Args:
        settings: the callback's.
        regularizer: bound to the model that is trained.
        optimizers: all of this training.
        run: what the callbacks of one training have in common, and those of another have not: told by identity.
        place: of this callback among those of the training, from 1.
        carried: whether the optimizer's ``state_dict()`` is to carry the state of this.

    Raises:
        AttachmentError: no optimizer holds a penalised parameter.
    """

    def __init__(
        self,
        settings: Settings,
        regularizer: Regularizer,
        optimizers: Sequence[Any],
        *,
        run: object,
        place: int = 1,
        carried: bool = False,
    ) -> None:
        self.settings, self.regularizer, self.run = settings, regularizer, run
        self._carries = carried
        self._handles: list[Any] = []
        self._waiting: dict[str, dict[str, Any]] = {}  # saved of parameters that are frozen now
        self._told: tuple[str, ...] = ()
        for other in _sessions_in(optimizers):
            if other.run is not run:
                other.end()
        same = [other for other in _sessions_in(optimizers) if other.settings.key == settings.key]
        self.key = settings.key + (f" ({len(same) + 1})" if same else "")
        self.label = "torchshrink" if place == 1 else f"torchshrink-{place}"
        self._optimizers = self._attach(optimizers)

    # --- while it trains ---

    def figures(self) -> dict[str, float | Tensor]:
        """The share of penalised weights that are exactly 0, and the penalty where none is a constraint."""
        figures: dict[str, float | Tensor] = {f"{self.label}/sparsity": self.regularizer.sparsity().fraction}
        if not any(term.penalty.constraint for term in self.regularizer.terms):
            with torch.no_grad():
                figures[f"{self.label}/penalty"] = self.regularizer.value()
        return figures

    def follow(self, optimizers: Sequence[Any]) -> None:
        """Other optimizers may step now, and weights may have been unfrozen or added: penalise with them, too.

        Warns:
            SelectionWarning: no optimizer holds them.
        """
        grown = self._grown()
        new = grown or self.regularizer
        if grown is not None:
            held = {id(p) for each in optimizers for p in held_by(each)}
            loose = [term.name for term in grown.terms if id(term.parameter) not in held]
            if loose:
                self._tell_missed(loose, "in no optimizer")
                new = self.regularizer
        if new is self.regularizer and {*map(id, self._optimizers)} >= {*map(id, _relevant(new, optimizers))}:
            return
        state = self.regularizer.state_dict()
        if new is not self.regularizer:
            state = self._joined(state, new)
        self._take_out()
        self.regularizer = new
        self._optimizers = self._attach(optimizers)
        self._load(state)

    def _grown(self) -> Regularizer | None:
        """Bound again, where rules find more parameters now."""
        if not self.regularizer.missed():
            return None
        again = self.settings.bound(self.regularizer.model)
        return again if len(again.terms) > len(self.regularizer.terms) else None

    def _tell_missed(self, names: Sequence[str], why: str) -> None:
        message = f"no penalty acts on {', '.join(names)}: trainable since the penalty was bound, and {why}"
        if message not in self._told:
            self._told = (*self._told, message)
            tell(message, SelectionWarning)

    def _attach(self, optimizers: Sequence[Any]) -> list[Optimizer]:
        attached(self.regularizer, optimizers, self.settings.method)
        inner = _relevant(self.regularizer, optimizers)
        self._handles = [each.register_state_dict_post_hook(self._carry) for each in inner]
        return inner

    def _take_out(self) -> None:
        self.regularizer.detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def end(self) -> dict[str, Any]:
        """Detach. Returns what another training needs to go on: latent weights are forgotten once it is detached."""
        if not self._handles:
            return {}
        state = self.state()
        self._take_out()
        return state

    def say_what_is_left(self) -> None:
        """When training ends well: what was missed, and that nothing is left.

        Warns:
            SelectionWarning: rules find more parameters than were penalised.
            UserWarning: all LoRA adapters are off.
        """
        grown = self._grown()
        if grown is not None:
            known = {term.name for term in self.regularizer.terms}
            self._tell_missed([t.name for t in grown.terms if t.name not in known], "not until the last steps")
        sparsity = self.regularizer.sparsity()
        if _adapters_are_off([(each.name, each.zeros == each.total) for each in sparsity.by_parameter]):
            tell(
                "every LoRA adapter ends with lora_A or lora_B at zero, so that the model is the pretrained one: "
                "lora_B begins at zero, where a penalty keeps it; penalise on='*lora_A*' alone, or take a smaller λ",
                UserWarning,
            )

    # --- what is saved ---

    def state(self) -> dict[str, Any]:
        """What a resumed training needs, in plain values and tensors."""
        kinds = {c.name: type(c.penalty).__name__ for c in self.regularizer.choices if c.penalty is not None}
        return {"terms": kinds, **self.regularizer.state_dict()}

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, at the scale of now.

        Raises:
            InputError: it was saved under other rules, or with another model.
        """
        theirs, mine = dict(saved["terms"]), self.state()["terms"]
        frozen = {c.name for c in self.regularizer.choices if not c.parameter.requires_grad}
        for name, kind in theirs.items():
            if mine.get(name, kind if name in frozen else "no penalty") != kind:
                raise InputError(
                    f"{self.settings}: the saved state is of other rules or another model: {name} was under {kind} "
                    f"there, and is under {mine.get(name, 'none')} here; resume with the same rules, or begin a new "
                    "training from the saved weights"
                )
        state = {key: value for key, value in saved.items() if key != "terms"}
        self._waiting = {part: _without(state.get(part, {}), mine) for part in ("bound", "latent")}
        bound = {
            name: each for name, each in self.regularizer.state_dict().get("bound", {}).items() if name not in theirs
        }
        for part, fresh in (("bound", bound), ("latent", {})):
            saved_here = {name: each for name, each in state.pop(part, {}).items() if name in mine}
            if fresh or saved_here:
                state[part] = {**fresh, **saved_here}
        self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        self.regularizer.load_state_dict(state)
        self.settings.set_scale(self.regularizer)

    def _joined(self, old: dict[str, Any], new: Regularizer) -> dict[str, Any]:
        """The old state, with what terms that have come since start from."""
        names = {term.name for term in new.terms}
        fresh = new.state_dict()
        state = dict(old)
        for part in ("bound", "latent"):
            waiting = {name: each for name, each in self._waiting.get(part, {}).items() if name in names}
            if joined := {**fresh.get(part, {}), **waiting, **old.get(part, {})}:
                state[part] = joined
        return state

    def forgotten(self, where: str) -> str | None:
        """What it means that training goes on from ``where`` without a saved state; None where it means nothing."""
        reasons = []
        if kinds := sorted({str(t.penalty) for t in self.regularizer.terms if t.penalty.state()}):
            reasons.append(f"{', '.join(kinds)} would refer to the weights of now, not to those of the beginning")
        if callable(self.settings.scale) or any(term.penalty.scheduled for term in self.regularizer.terms):
            reasons.append("its schedule would begin again at step 0")
        if "latent" in self.regularizer.methods.values():
            reasons.append("latent weights would begin again")
        if not reasons:
            return None
        return f"{where}, with which no state of {self.settings} was saved: {'; '.join(reasons)}"

    def begin_here(self) -> None:
        """What is forgotten has been told: the optimizer's hooks need not tell it again."""
        self.regularizer.steps = self.regularizer.steps

    # --- carried by the optimizer ---
    # An entry of a group of parameters goes wherever the optimizer's state goes, into its state_dict and back.

    def carried(self) -> dict[str, Any] | None:
        """The state that the optimizer has brought along, taken out of it."""
        for group in self._optimizers[0].param_groups:
            states = group.get(_CARRIED)
            if states is not None:
                found: dict[str, Any] | None = states.pop(self.key, None)
                if not states:
                    del group[_CARRIED]
                if found is not None:
                    return found
        return None

    def leave(self, state: dict[str, Any]) -> None:
        """Let the optimizer carry this on, when the training is over."""
        self._optimizers[0].param_groups[0].setdefault(_CARRIED, {})[self.key] = state

    def _carry(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        if self._carries and optimizer is self._optimizers[0]:
            group = state_dict["param_groups"][0]
            group[_CARRIED] = {**group.get(_CARRIED, {}), self.key: self.state()}


def _relevant(regularizer: Regularizer, optimizers: Iterable[Any]) -> list[Optimizer]:
    """The optimizers whose own steps move penalised parameters."""
    penalised = {id(term.parameter) for term in regularizer.terms}
    return [stepping(each) for each in optimizers if penalised & {id(p) for p in held_by(each)}]


def _sessions_in(optimizers: Iterable[Any]) -> list[Session]:
    found: dict[int, Session] = {}
    for given in optimizers:
        try:
            inner = stepping(given)
        except (AttachmentError, InputError):  # nothing can be attached to it, nor has been
            continue
        hooks = vars(inner).get("_optimizer_state_dict_post_hooks", {}).values()
        owners = (hook.__self__ for hook in hooks if isinstance(hook, MethodType))
        found |= {id(owner): owner for owner in owners if isinstance(owner, Session)}
    return [*found.values()]


def _without(states: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in states.items() if name not in names}


def _adapters_are_off(zero: Iterable[tuple[str, bool]]) -> bool:
    """Whether in each pair of LoRA's matrices one is wholly zero, and there is a pair."""
    pairs: dict[str, bool] = {}
    for name, is_zero in zero:
        for half in ("lora_A", "lora_B"):
            if half in name:
                pair = name.replace(half, "lora_")
                pairs[pair] = pairs.get(pair, False) or is_zero
    return bool(pairs) and all(pairs.values())


def place_of(callback: object, callbacks: Iterable[object]) -> int:
    """Which of its class's it is among a training's callbacks, from 1."""
    alike = [each for each in callbacks if type(each) is type(callback)]
    return 1 + next((i for i, each in enumerate(alike) if each is callback), 0)


def place_of_next(optimizers: Iterable[Any], run: object) -> int:
    """The place of a callback that comes after those that are at work in this training already."""
    return 1 + sum(each.run is run for each in _sessions_in(optimizers))


def regularizer_of(session: Session | None, last: Regularizer | None) -> Regularizer | None:
    """The one at work, or that of the last training."""
    return last if session is None else session.regularizer
