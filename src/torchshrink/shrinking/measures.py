"""What shrinking is worth: shapes, counts, operations and time, before and after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.plan import Decision
from torchshrink.shrinking.trace import Trace, quiet
from torchshrink.support.private_torch import HigherOrderOperator, pytree


def changed_shapes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each tensor whose shape is another one now, the shape before and after."""
    return {
        name: (tuple(before[name].shape), tuple(after[name].shape))
        for name in before
        if name in after and before[name].shape != after[name].shape
    }


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def count(model: nn.Module) -> int:
    """How many numbers the parameters are."""
    return sum(parameter.numel() for parameter in model.parameters())


def bytes_of(model: nn.Module) -> int:
    """How many bytes the parameters take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def operations_of(model: nn.Module, old: Trace) -> int:
    """Floating point operations of the contractions, on the traced arguments; 0 where they cannot be counted."""
    if any(isinstance(node.target, HigherOrderOperator) for node in old.graph.nodes):
        return 0  # the counter does not look into torch.cond, and after it torch.cond fails
    args, kwargs = _copied((old.args, dict(old.kwargs)))
    with torch.no_grad(), quiet(), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    return int(counter.get_total_flops())


Call = tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]
"""A model, and the arguments of a call."""


def latency_of(large: Call, small: Call, rounds: int = 9) -> float:
    """The median of the ratios of calls one after another; of large models fewer, within two seconds.

    One call of each goes first, which takes memory and chooses kernels. The calls move buffers on: give models for it.
    """
    ratios: list[float] = []
    with torch.no_grad(), quiet():
        for call in (large, small):
            _seconds(call)
        begin = time.perf_counter()
        while len(ratios) < 3 or (len(ratios) < rounds and time.perf_counter() - begin < 2):
            spans = [_seconds(call) for call in (large, small)]
            ratios.append(spans[1] / spans[0])
    return statistics.median(ratios)


def _seconds(call: Call) -> float:
    """What one call takes, until all that it started on other devices is done."""
    model, args, kwargs = call
    args, kwargs = _copied((args, dict(kwargs)))
    devices = _devices(model, args, kwargs)
    _synchronise(devices)
    start = time.perf_counter()
    model(*args, **kwargs)
    _synchronise(devices)
    return time.perf_counter() - start


def _copied(value: Any) -> Any:
    """The arguments of a call that may change them."""
    return pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, value)


def _devices(model: nn.Module, *arguments: Any) -> set[torch.device]:
    """The devices, beside the CPU, of a model and its arguments."""
    given = [one for one in pytree.tree_leaves(arguments) if isinstance(one, Tensor)]
    return {tensor.device for tensor in (*model.parameters(), *model.buffers(), *given) if tensor.device.type != "cpu"}


def _synchronise(devices: Iterable[torch.device]) -> None:
    for device in devices:
        module = torch.get_device_module(device)
        if device.type == "mps":  # there is one, and its function takes none
            module.synchronize()
        else:
            module.synchronize(device)


def unread_of(decision: Decision) -> tuple[int, ...]:
    """Features of a single (rows, features) input that only contractions take, and none of their rows reads."""
    analysis = decision.analysis
    places = [node for node in analysis.trace.graph.nodes if node.name in analysis.trace.inputs]
    if len(places) != 1 or not isinstance(analysis.facts.get(places[0]), Fact):
        return ()
    fact = analysis.facts[places[0]]
    axis = fact.axes[-1] if len(fact.axes) == 2 else None
    by_node = {reading.node: reading for reading in analysis.readings}
    users = [node for node in places[0].users if not node.name.startswith("sym_")]
    if axis is None or not users or not all(user.name in by_node for user in users):
        return ()
    read = [
        (by_node[user.name].weight[decision.survivors(by_node[user.name].rows)] != 0).any(2).any(0) for user in users
    ]
    return tuple(torch.nonzero(~torch.stack(read).any(0)).flatten().tolist())
