"""What is kept beside the tensors whose penalties act by latent weights, and how it is saved."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from torchshrink import distributed
from torchshrink.errors import InputError
from torchshrink.penalties import Penalty


@dataclass
class Look:
    """A step whose displacement is measured.

    Attributes:
        gradient: ∇L + ρu's norm, as the optimizer was given it.
        pull: ρu's norm.
        before: the latent weights.
        evaluations: of the gradient, until now.
    """

    gradient: Tensor
    pull: Tensor
    evaluations: int = 0
    before: Tensor | None = None


@dataclass
class Offset:
    """What is kept beside one tensor z.

    Attributes:
        u: latent weights minus the model's, shaped like the tensor, in float32 at least.
        unit_rho: ρ at scale 1 by `default_rho`.
        held: ρ at scale 1 as it is taken, which the optimizer's steps may limit.
        rho: ρ as u has it now.
        scale: the regularizer's scale as u has it now.
        most: the most that ρ may be, as far as the optimizer's steps have shown (`stepped_limit`).
        penalty: whose prox z is; None where u comes from another process.
        version: of the tensor when u was made; None likewise.
        latent: z + u, while a tensor of less precision holds its rounded values; else None.
        look: what is known so far of the step that is being looked at; else None.
    """

    u: Tensor
    unit_rho: float
    held: float
    rho: float
    scale: float
    most: float = math.inf
    penalty: Penalty | None = None
    version: int | None = None
    latent: Tensor | None = None
    look: Look | None = None

    def fit(self, p: Tensor) -> None:
        """Follow a tensor that has been moved to another device, or given another dtype."""
        self.u = self.u.to(p.device, torch.promote_types(p.dtype, torch.float32))


_NUMBERS = ("unit_rho", "held", "rho", "scale", "most")


@final
class Offsets:
    """The offsets of a regularizer's terms, by name: made in the first step."""

    def __init__(self) -> None:
        self.of: dict[str, Offset] = {}

    def state(self) -> dict[str, dict[str, Any]]:
        """Copies, to save."""
        return {
            name: {"offset": each.u.clone(), **{key: getattr(each, key) for key in _NUMBERS}}
            for name, each in self.of.items()
        }

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget the others, which another method acts on."""
        wanted = set(names)
        self.of = {name: offset for name, offset in self.of.items() if name in wanted}


def read_offsets(state: object, parameters: Mapping[str, nn.Parameter]) -> dict[str, Offset]:
    """What `Offsets.state` returned, for these parameters.

    Raises:
        InputError: it is of other tensors, or no such state.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"load_state_dict: 'latent' is a {type(state).__name__}, a mapping by names expected")
    found = {}
    for name, saved in state.items():
        p = parameters.get(name)
        fits = isinstance(saved, Mapping) and set(saved) == {"offset", *_NUMBERS}
        if p is None or not fits or not isinstance(saved["offset"], Tensor) or saved["offset"].shape != p.shape:
            raise InputError(
                f"load_state_dict: latent weights of {name!r} in the state, which fit no penalised parameter here; "
                "use the same model and rules"
            )
        for key in _NUMBERS:
            value = saved[key]
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not real or not float(value) > 0 or (key != "most" and float(value) == math.inf):
                raise InputError(f"load_state_dict: {key}={value!r} of {name!r}: a finite number > 0 expected")
        u = torch.empty_like(p, requires_grad=False, dtype=torch.promote_types(p.dtype, torch.float32))
        u.copy_(distributed.shard_like(saved["offset"], p))
        unit_rho, held, rho, scale, most = (float(saved[key]) for key in _NUMBERS)
        found[name] = Offset(u, unit_rho, held, rho, scale, most)
    return found
