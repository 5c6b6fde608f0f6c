"""What a program is given of each parameter: tensors, which stay the same from step to step, and numbers, which do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.penalties import L1, L2, MCP, SCAD, ElasticNet, GroupLasso, Penalty, SparseGroupLasso
from torchshrink.penalties.layouts import checked_dims
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
        rows: how its tensors are seen.
        seen: those that stay, so seen.
        prox_follows: whether the plain prox is still to act on it.
    """

    p: nn.Parameter
    group: int
    bundle: Bundle | None
    state: State
    owned: list[Tensor]
    address: int
    form: Form
    rows: Rows
    seen: list[Tensor]
    prox_follows: bool

    @property
    def latent(self) -> bool:
        """Whether the penalty acts by latent weights."""
        return self.form.latent

    def stands(self, state: State, update: Update, offset: Offset | None) -> bool:
        """Whether all tensors are those of the last step."""
        if state is not self.state:
            return False
        owned = [self.state.get(key) for key in update.keys]
        if self.latent:
            owned.append(None if offset is None else offset.u)
        same = all(mine is theirs for mine, theirs in zip(self.owned, owned, strict=True))
        return same and self.p.data_ptr() == self.address and self.p.requires_grad

    def tensors(self) -> list[Tensor] | None:
        """What the program takes, in its order; None: this step's gradient is not as its parameter is."""
        grad = self.p.grad
        if grad is None or not _is_like(grad, self.p):
            return None
        found = _seen([grad], self.rows, like=self.p)
        return None if found is None else [self.seen[0], found[0], *self.seen[1:]]


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
    rows: Rows | None = FLAT
    if bundle is not None:
        found = kind_of(bundle)
        latent, rest, rule = bundle.method == "latent", bundle.has_rest, bundle.rule
        if found is None or (latent and offset is None):
            return None
        if found == "groups" and rule is not None and rule.coordinatewise:
            follows = True
        elif bundle.method != "gradient":
            kind = found
            limited = rule is not None and rule.reach is not None
            rows = rows_of(bundle.penalty, p.shape) if kind == "groups" else FLAT
    owned = [state[key] for key in update.keys]
    if latent and offset is not None:
        owned.append(offset.u)
    seen = None if rows is None else _seen([p.detach(), *owned], rows, like=p)
    if rows is None or seen is None or not all(_is_like(each, p) for each in owned):
        return None
    form = Form(
        move=update.move,
        kept=len(update.keys),
        kind=kind,
        latent=latent,
        limited=limited,
        rest=rest,
        dims=rows.dims,
        dtype=p.dtype,
        device=p.device,
    )
    return Slot(p, group, bundle, state, owned, p.data_ptr(), form, rows, seen, follows)


def numbers_of(slot: Slot, step: Advance, penalty: Penalty | None, offset: Offset | None, loss_scale: float) -> list[float]:
    """A slot's numbers in this step, under the penalty that is in force."""
    numbers = [0.0] * programs.OWN
    numbers[programs.SIGN], numbers[programs.COUPLED] = step.sign / loss_scale, step.coupled
    numbers[programs.LIMIT] = step.limit
    if slot.latent and offset is not None:
        numbers[programs.RHO], numbers[programs.STEP] = offset.rho, 1 / offset.rho
    if penalty is not None and slot.bundle is not None and slot.bundle.method == "gradient":  # as coupled decay
        numbers[programs.COUPLED] += 2 * float(penalty.strength)
    elif penalty is not None and slot.form.kind != "none":
        factor = 1.0 if slot.latent else step.weight
        first, second = _strengths(penalty, slot.rows)
        numbers[programs.FIRST], numbers[programs.SECOND] = first * factor, second * factor
    if isinstance(penalty, MCP | SCAD):
        strength, mcp = float(penalty.strength), isinstance(penalty, MCP)
        numbers[programs.REST], numbers[programs.BEGIN] = strength, 0.0 if mcp else strength
        numbers[programs.SLOPE] = 1 / (penalty.gamma if mcp else penalty.gamma - 1)
    return numbers + step.numbers


# --- what a program can do ---


def kind_of(bundle: Bundle) -> Kind | None:
    """Whose prox acts for a bundle, in a program; None: no program does what it does."""
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
    if isinstance(penalty, GroupLasso | SparseGroupLasso):
        return "groups" if penalty.weights is None else None
    return None


@dataclass(frozen=True)
class Rows:
    """How a tensor with groups is seen: its shape, which dimensions number the groups, and how many each has."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]
    members: int


FLAT = Rows((-1,), (), 1)


def rows_of(penalty: Penalty, shape: Sequence[int]) -> Rows | None:
    """How the groups of a penalty are seen in two dimensions or three, where they are numbered by one of a tensor's.

    None: they are others, or there is only one, or each is one coordinate.
    """
    if not isinstance(penalty, GroupLasso | SparseGroupLasso) or penalty.labels is not None or len(shape) < 2:
        return None
    dims = checked_dims(penalty.dim)
    size = penalty.size[0] if isinstance(penalty.size, tuple) else penalty.size or 1
    if len(dims) != 1:
        return None
    dim = dims[0] % len(shape)
    before, count, after = math.prod(shape[:dim]), shape[dim] // size, size * math.prod(shape[dim + 1 :])
    if count < 2 or before * after < 2:
        return None
    if before == 1:
        return Rows((count, after), (0,), after)
    if after == 1:
        return Rows((before, count), (1,), before)
    return Rows((before, count, after), (1,), before * after)


def _strengths(penalty: Penalty, rows: Rows) -> tuple[float, float]:
    """The numbers of a kind: of Σ|w|, and of Σw² or of each group's norm."""
    if isinstance(penalty, GroupLasso):
        return 0.0, float(penalty.strength) * math.sqrt(rows.members)
    if isinstance(penalty, SparseGroupLasso):
        return float(penalty.l1), float(penalty.group) * math.sqrt(rows.members)
    if isinstance(penalty, ElasticNet):
        return float(penalty.l1), float(penalty.l2)
    return (0.0, float(penalty.strength)) if isinstance(penalty, L2) else (float(penalty.strength), 0.0)


def _seen(tensors: Sequence[Tensor], rows: Rows, *, like: Tensor) -> list[Tensor] | None:
    """The tensors in one or a few dimensions, without a copy; None where their elements do not lie alike and densely."""
    if like.is_contiguous():
        return [each.view(rows.shape) for each in tensors] if all(each.is_contiguous() for each in tensors) else None
    last = torch.channels_last
    if like.ndim == 4 and len(rows.shape) == 1 and all(each.is_contiguous(memory_format=last) for each in [like, *tensors]):
        return [each.permute(0, 2, 3, 1).view(-1) for each in tensors]
    return None


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
    )
