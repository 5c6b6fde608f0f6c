"""What a parameter group's settings do besides its step size: weight decay, and the direction."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import ASGD, Optimizer

from torchshrink.step_sizes.registry import DecayKind, Group, decay_of


@dataclass(frozen=True)
class WeightDecay:
    """Decay that a parameter group already has on.

    Attributes:
        setting: the group's key, such as ``"weight_decay"``.
        rate: its value, above 0.
        kind: how it acts (see `weight_decay_kind`).
    """

    setting: str
    rate: float
    kind: DecayKind


def weight_decays(optimizer: Optimizer, group: Group) -> tuple[WeightDecay, ...]:
    """The decays that a group has on: its ``weight_decay``, and ASGD's ``lambd``, which is added to the gradient too.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], weight_decay=0.01)
        >>> weight_decays(optimizer, optimizer.param_groups[0])
        (WeightDecay(setting='weight_decay', rate=0.01, kind='decoupled'),)
    """
    kinds: dict[str, DecayKind] = {"weight_decay": weight_decay_kind(optimizer, group)}
    if isinstance(optimizer, ASGD):
        kinds["lambd"] = "coupled"
    rates = {setting: float(group.get(setting, 0)) for setting in kinds}
    return tuple(WeightDecay(setting, rate, kinds[setting]) for setting, rate in rates.items() if rate)


def weight_decay_kind(optimizer: Optimizer, group: Group) -> DecayKind:
    """How a group's ``weight_decay`` acts.

    "coupled": added to the gradient, so that a decay d is L2(d/2) in F. "decoupled": shrinks the weights beside the
    gradient step, which is the gradient of no term in F. "unknown": nobody has said for this class.
    """
    decay = decay_of(type(optimizer))
    return decay(group) if callable(decay) else decay


def climbs(optimizer: Optimizer, group: Group) -> bool:
    """Whether an optimizer maximises: a setting of the group, or in pytorch_optimizer of the optimizer itself.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, maximize=True)
        >>> climbs(optimizer, optimizer.param_groups[0])
        True
    """
    return bool(group.get("maximize", vars(optimizer).get("maximize", False)))
