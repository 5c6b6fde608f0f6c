"""Weights that are spread over processes: DDP, FSDP2 (``fully_shard``) and tensor parallelism (``DTensor``).

What a penalty does to a ``DTensor`` is what it does to the whole tensor; each process then keeps its own shard of it.
Three ways lead there, and the cheapest that is exact is taken:

- the shards alone suffice: a penalty that is a sum over coordinates (``Penalty.elementwise``), or one of groups none
  of which is cut by the sharding, such as the rows of a tensor that is sharded by rows. No communication, but for one
  number per value;
- a group is cut, or the penalty is of the whole tensor: the tensor is gathered, one at a time, every process computes
  the same, and keeps its shard. Uneven and empty shards make no difference;
- every process has everything already, as under DDP: nothing to do.

So everything here that looks at values is *collective*: every process must call it, in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from torchshrink.errors import SelectionError
from torchshrink.penalties import Penalty, multitensor
from torchshrink.penalties.multitensor import Step
from torchshrink.support.private_torch import fsdp_parameters

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor, Placement


# --- tensors ---


def is_spread(tensor: object) -> TypeGuard[DTensor]:
    """Whether a tensor is a ``DTensor``.

    Asked without importing ``torch.distributed.tensor``, which takes seconds: where nobody has, there is none.
    """
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all its shards, the same in every process; differentiable. A plain tensor is whole."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def shard_like(full: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has whole, placed as ``like`` is, without communication; a spread one, where not."""
    if not is_spread(like):
        return whole(full)
    if is_spread(full):
        return full.redistribute(placements=like.placements)
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * like.device_mesh.ndim
    replicated = DTensor.from_local(full.to(like.device), like.device_mesh, everywhere, run_check=False)
    return replicated.redistribute(placements=like.placements)


def _local(tensor: Tensor) -> Tensor:
    """The shard of this process: under ``torch.no_grad`` the memory itself, else a differentiable view of it."""
    return tensor.to_local() if is_spread(tensor) else tensor


def _from_local(shard: Tensor, like: DTensor) -> Tensor:
    """The ``DTensor`` that has these shards, placed as ``like`` is."""
    from torch.distributed.tensor import DTensor

    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(shard, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def _is_uncut(penalty: Penalty, w: DTensor) -> bool:
    """Whether Ω(w) is the sum of Ω over the shards."""
    if penalty.elementwise:
        return not any(placement.is_partial() for placement in w.placements)
    dims = {dim % w.ndim for dim in penalty.group_dims or ()} if w.ndim else set()

    def keeps_groups(placement: Placement) -> bool:
        return placement.is_replicate() or any(placement.is_shard(dim) for dim in dims)

    return all(map(keeps_groups, w.placements))


# --- penalties over lists of tensors: as in penalties.multitensor, for tensors that may be spread ---


def total(penalty: Penalty, tensors: Sequence[Tensor]) -> Tensor:
    """Σ Ω(w) over the tensors, each counted once and not once per process: the same number in every process."""
    if not any(map(is_spread, tensors)):
        return multitensor.total(penalty, tensors)
    from torch.distributed.tensor import DTensor, Partial, Replicate

    sums: list[Tensor] = []
    plain: list[Tensor] = []
    shards: dict[tuple[DeviceMesh, tuple[bool, ...]], list[Tensor]] = {}
    for w in tensors:
        if not is_spread(w):
            plain.append(w)
        elif _is_uncut(penalty, w):
            shards.setdefault((w.device_mesh, tuple(p.is_replicate() for p in w.placements)), []).append(_local(w))
        else:
            sums.append(penalty.with_state(whole).value(whole(w)))
    if plain:
        sums.append(multitensor.total(penalty, plain))
    for (mesh, replicated), locals_ in shards.items():
        # A sum over the processes that have different shards, and over no others.
        here = multitensor.total(penalty.with_state(_local), locals_)
        placements = [Replicate() if same else Partial() for same in replicated]
        sums.append(whole(DTensor.from_local(here, mesh, placements, run_check=False)))
    return torch.stack(sums).sum()


def gradients(penalty: Penalty, tensors: Sequence[Tensor], factor: float | Tensor) -> list[Tensor]:
    """factor · ∂Ω(w) for each tensor, placed as it is."""
    if not any(map(is_spread, tensors)):
        return multitensor.gradients(penalty, tensors, factor)
    return [_gradient(penalty, w, factor) for w in tensors]


def _gradient(penalty: Penalty, w: Tensor, factor: float | Tensor) -> Tensor:
    if not is_spread(w):
        return multitensor.gradients(penalty, [w], factor)[0]
    if _is_uncut(penalty, w):
        return _from_local(multitensor.gradients(penalty.with_state(_local), [_local(w)], factor)[0], w)
    return shard_like(multitensor.gradients(penalty.with_state(whole), [whole(w)], factor)[0], w)


def add_gradients_(penalty: Penalty, tensors: Sequence[Tensor], grads: Sequence[Tensor], factor: Step) -> None:
    """grad += factor · ∂Ω(w), in place, for each pair that is placed alike."""
    if not any(map(is_spread, tensors)):
        multitensor.add_gradients_(penalty, tensors, grads, factor)
        return
    for w, grad in zip(tensors, grads, strict=True):
        _local(grad).add_(_local(_gradient(penalty, w, factor)))


def prox_(
    penalty: Penalty, tensors: Sequence[Tensor], steps: Sequence[Step], limits: Sequence[Step] | None = None
) -> None:
    """w ← prox(w, step), in place, for each tensor with its step (a number, or one per coordinate) and its limit."""
    if not any(map(is_spread, tensors)):
        multitensor.prox_(penalty, tensors, steps, limits)
        return
    for i, (w, step) in enumerate(zip(tensors, steps, strict=True)):
        limit = None if limits is None else limits[i]
        if not is_spread(w):
            multitensor.prox_(penalty, [w], [step], None if limit is None else [limit])
        elif _is_uncut(penalty, w):
            here = None if limit is None else [_placed_like(limit, w)]
            multitensor.prox_(penalty.with_state(_local), [_local(w)], [_placed_like(step, w)], here)
        else:
            full = whole(w)
            moved = penalty.with_state(whole).prox(full, _whole_step(step))
            if limit is not None:
                moved = multitensor.limited(moved, full, _whole_step(limit))
            _local(w).copy_(_local(shard_like(moved, w)))


def split_(penalty: Penalty, w: Tensor, step: float, rest: Tensor) -> None:
    """w ← prox(w, step), in place, and rest ← what it took off w: both of one shape, dtype and placement."""
    if not is_spread(w):
        multitensor.split_(penalty, w, step, rest)
        return
    rest.copy_(w)
    prox_(penalty, [w], [step])
    rest.sub_(w)


def _placed_like(step: Step, w: DTensor) -> Step:
    """A step's part on this process, for the shard of ``w`` here."""
    return _local(step.redistribute(placements=w.placements)) if is_spread(step) else step


def _whole_step(step: Step) -> Step:
    return whole(step) if isinstance(step, Tensor) else step


def align_gradient_(parameter: nn.Parameter) -> None:
    """Place a parameter's gradient as the parameter is. Tensor parallelism may leave it as one summand per process."""
    grad = parameter.grad
    if is_spread(parameter) and is_spread(grad) and grad.placements != parameter.placements:
        parameter.grad = grad.redistribute(placements=parameter.placements)


def bind(penalty: Penalty, w: Tensor) -> Penalty:
    """``penalty.bind(w)``, with what it remembers of a spread tensor as spread as that is."""
    if not is_spread(w):
        return penalty.bind(w)
    with torch.no_grad():
        return penalty.bind(whole(w)).with_state(lambda t: shard_like(t, w) if t.shape == w.shape else t)


# --- models ---


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's model inside DDP's wrapper, so that the parameters' names do not depend on it.

    Modules under ``fully_shard`` are made to show the parameters that their optimizer holds: after a forward pass
    without a backward one they may still show gathered copies.

    Raises:
        SelectionError: the model is wrapped by the older FSDP, which flattens rows and columns away.
    """
    while isinstance(model, DistributedDataParallel | DataParallel):
        model = model.module
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(model, nn.Module):  # what is no module, `select` refuses
        for name, module in model.named_modules():
            if isinstance(module, fsdp.FullyShardedDataParallel):
                raise SelectionError(
                    f"{f'{name}: ' if name else ''}FullyShardedDataParallel keeps flattened pieces of the parameters, "
                    "which have no rows or columns; use torch.distributed.fsdp.fully_shard"
                )
        for module in _sharded_modules(model):
            module.reshard()
    return model


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    """The modules to which ``fully_shard`` was applied."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]


def sharded_parameters(model: nn.Module) -> dict[int, Callable[[], nn.Parameter]]:
    """For the id of each parameter that ``fully_shard`` manages: a function that returns it.

    While the module shows a gathered copy in its place, this alone tells whether the parameter is still in use.
    """
    found: dict[int, Callable[[], nn.Parameter]] = {}
    for module in _sharded_modules(model):
        for record in fsdp_parameters(module):
            found[id(record.sharded_param)] = lambda record=record: record.sharded_param  # type: ignore[misc]
    return found


def process_groups(model: nn.Module, parameters: Iterable[Tensor]) -> list[ProcessGroup]:
    """The groups of processes that train this model together: DDP's, and those of the parameters' meshes."""
    groups: dict[str, ProcessGroup] = {}
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            groups[module.process_group.group_name] = module.process_group
    for mesh in dict.fromkeys(p.device_mesh for p in parameters if is_spread(p)):
        for group in mesh.get_all_groups():
            groups[group.group_name] = group
    return list(groups.values())


def average_number(number: Tensor | float, groups: Sequence[ProcessGroup], device: torch.device) -> float:
    """The mean over processes of one number, which each of them computed on its own share of the data."""
    value = torch.as_tensor(whole(number) if isinstance(number, Tensor) else number, dtype=torch.float64)
    return float(_average(value.detach().reshape(()).to(device), groups))


def average_gradients(
    gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], groups: Sequence[ProcessGroup]
) -> list[Tensor | None]:
    """The means over processes of plain gradients, where there are several; what DDP has averaged stays as it is.

    Spread ones are left alone: ``fully_shard`` has averaged them, and tensor parallelism has one loss for all. Where a
    process has no gradient it takes part with zeros, since all must.
    """
    if not groups:
        return list(gradients)
    return [
        grad if is_spread(p) else _average(torch.zeros_like(p) if grad is None else grad, groups)
        for grad, p in zip(gradients, parameters, strict=True)
    ]


def _average(tensor: Tensor, groups: Iterable[ProcessGroup]) -> Tensor:
    out = tensor.clone()
    for group in groups:
        torch.distributed.all_reduce(out, group=group)
        out /= group.size()
    return out


def has_reused_gradients(model: Any) -> bool:
    """Whether DDP keeps gradients in memory of its own, which the next backward pass overwrites."""
    return isinstance(model, DistributedDataParallel) and bool(model.gradient_as_bucket_view)
