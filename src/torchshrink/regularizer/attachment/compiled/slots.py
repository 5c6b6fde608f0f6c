"""What a program is given of each parameter: tensors, the same from step to step, and numbers, which are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchshrink.penalties import L1, L2, MCP, SCAD, ElasticNet, GroupLasso, Penalty, SparseGroupLasso
from torchshrink.regularizer.attachment.bundling import Bundle
from torchshrink.regularizer.attachment.compiled import programs
from torchshrink.regularizer.attachment.compiled.programs import Form, Kind
from torchshrink.regularizer.attachment.offsets import Offset
from torchshrink.step_sizes import State
from torchshrink.step_sizes.updates import Advance, Update

NO_STATE: State = {}
"""Of a parameter of which the optimizer keeps nothing."""


@dataclass
class Slot:
    """A parameter's place in a program.

    Attributes:
        p: the parameter.
        group: the index of its parameter group.
        bundle: what acts on it; None: nothing does.
        state: the optimizer's, of this parameter.
        owned: what the program overwrites besides the parameter: what the optimizer keeps, and latent weights' offset.
        address: where the parameter's elements are.
        form: the program's.
        x: the parameter's values.
        place: shape and strides of these and of what is owned, for which a program is compiled.
        prox_follows: whether the plain prox is still to act on it.
    """

    p: nn.Parameter
    group: int
    bundle: Bundle | None
    state: State
    owned: list[Tensor]
    address: int
    form: Form
    x: Tensor
    place: tuple[torch.Size, tuple[int, ...]]
    prox_follows: bool

    def stands(self, state: State, update: Update, offset: Offset | None) -> bool:
        """Whether all tensors are those of the last step, and lie as they did."""
        if state is not self.state or self.p.data_ptr() != self.address or not self.p.requires_grad:
            return False
        for mine, key in zip(self.owned, update.keys, strict=False):
            if mine is not state.get(key):
                return False
        if self.form.latent and (offset is None or offset.u is not self.owned[-1]):
            return False
        return all(self._is_alike(each) for each in (self.p, *self.owned))

    def gradient(self) -> Tensor | None:
        """As the program takes it; None: this step's is not as its parameter is."""
        grad = self.p.grad
        if type(grad) is not Tensor or grad.layout is not torch.strided or not self._is_alike(grad):
            return None
        return grad

    def _is_alike(self, each: Tensor) -> bool:
        """Whether a program compiled for this place may take a tensor; whoever sets ``.data`` may change it."""
        return (each.shape, each.stride()) == self.place and each.dtype is self.form.dtype


def made_slot(
    p: nn.Parameter, group: int, bundle: Bundle | None, state: State, update: Update, offset: Offset | None
) -> Slot | None:
    """A parameter's place, or None where it goes the plain way: nothing is kept of it yet, or it is no ordinary one."""
    if not is_ordinary(p) or p.numel() == 0 or not p.requires_grad or not all(key in state for key in update.keys):
        return None
    counts = [state[key] for key in ("step", "mu_product") if key in state]
    if any(isinstance(count, Tensor) and count.device.type != "cpu" for count in counts):
        return None  # reading it would wait for the device
    kind: Kind = "none"
    latent = rest = follows = limited = False
    if bundle is not None:
        found = kind_of(bundle)
        latent, rest, rule = bundle.method == "latent", bundle.has_rest, bundle.rule
        if found is None or (latent and offset is None):
            return None
        if found == "groups":
            # They have to be read twice in any case, and the compiler would keep all that the first reading makes.
            follows = True
        elif bundle.method != "gradient":
            kind = found
            limited = rule is not None and rule.reach is not None
    owned = [state[key] for key in update.keys]
    if latent and offset is not None:
        owned.append(offset.u)
    if not all(_is_like(each, p) for each in owned):
        return None
    form = Form(
        move=update.move,
        kept=len(update.keys),
        signed=False,
        coupled=bundle is not None and bundle.method == "gradient",
        kind=kind,
        latent=latent,
        limited=limited,
        rest=rest,
        dtype=p.dtype,
        device=p.device,
    )
    return Slot(p, group, bundle, state, owned, p.data_ptr(), form, p.detach(), (p.shape, p.stride()), follows)


def numbers_of(
    slot: Slot, step: Advance, penalty: Penalty | None, offset: Offset | None, loss_scale: float
) -> list[float]:
    """A slot's numbers in this step, under the penalty that is in force."""
    numbers = [0.0] * programs.OWN
    numbers[programs.SIGN], numbers[programs.COUPLED] = step.sign / loss_scale, step.coupled
    numbers[programs.LIMIT] = step.limit
    if slot.form.latent and offset is not None:
        numbers[programs.RHO], numbers[programs.STEP] = offset.rho, 1 / offset.rho
    if penalty is not None and slot.bundle is not None and slot.bundle.method == "gradient":  # as coupled decay
        numbers[programs.COUPLED] += 2 * float(penalty.strength)
    elif penalty is not None and slot.form.kind != "none":
        factor = 1.0 if slot.form.latent else step.weight
        first, second = _strengths(penalty)
        numbers[programs.FIRST], numbers[programs.SECOND] = first * factor, second * factor
    if isinstance(penalty, MCP | SCAD):
        strength, mcp = float(penalty.strength), isinstance(penalty, MCP)
        numbers[programs.REST], numbers[programs.BEGIN] = strength, 0.0 if mcp else strength
        numbers[programs.SLOPE] = 1 / (penalty.gamma if mcp else penalty.gamma - 1)
    return numbers + step.numbers


# --- what a program can do ---


def kind_of(bundle: Bundle) -> Kind | Literal["groups"] | None:
    """Whose prox acts for a bundle, in a program; "groups": after it; None: no program does what it does."""
    penalty = bundle.penalty
    if isinstance(penalty.strength, Tensor):
        return None
    if bundle.method == "gradient":
        return "elastic" if isinstance(penalty, L2) and penalty.weights is None else None
    if bundle.method not in ("prox", "latent"):
        return None
    if isinstance(penalty, L1 | MCP | SCAD):
        return "l1" if penalty.weights is None else None
    if isinstance(penalty, L2 | ElasticNet):
        return "elastic" if penalty.weights is None else None
    return "groups" if isinstance(penalty, GroupLasso | SparseGroupLasso) and bundle.method == "prox" else None


def _strengths(penalty: Penalty) -> tuple[float, float]:
    """The numbers of a kind: of Σ|w| and of Σw²."""
    if isinstance(penalty, ElasticNet):
        return float(penalty.l1), float(penalty.l2)
    return (0.0, float(penalty.strength)) if isinstance(penalty, L2) else (float(penalty.strength), 0.0)


def is_ordinary(p: Tensor) -> bool:
    """Whether it is a tensor that programs take."""
    return type(p) in (Tensor, nn.Parameter) and p.dtype in (torch.float32, torch.float64)


def _is_like(each: object, p: Tensor) -> bool:
    return (
        type(each) is Tensor
        and each.layout is torch.strided
        and each.dtype is p.dtype
        and each.device == p.device
        and each.shape == p.shape
        and each.stride() == p.stride()
    )
