"""Models on other devices: what is looked at is on the CPU, and a call has ended when its time is taken."""

import dataclasses

import pytest
import torch
from torch import nn

from shrink_cases import zero
from torchshrink.shrinking import measures, rules
from torchshrink.shrinking.analysis import analyse
from torchshrink.shrinking.channels import Fact
from torchshrink.shrinking.plan import decide
from torchshrink.shrinking.trace import trace


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU: its numbers can be computed with, and be copied to the CPU, and no more."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device="cuda:0")

    def __init__(self, inner):
        self.inner = inner.detach()

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        def inner(value):
            return value.inner if isinstance(value, cls) else value

        args, kwargs = torch.utils._pytree.tree_map(inner, (args, kwargs or {}))
        found = operator(*args, **kwargs)
        home = kwargs.get("device") == torch.device("cpu")
        return found if home or not isinstance(found, torch.Tensor) else cls(found)


class Layers(nn.Module):
    """A rule of each kind that reads numbers: weights, biases, statistics, slopes; and a tensor made on the device."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.slope = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8)
        self.b, self.c = nn.Conv2d(8, 8, 1, groups=4), nn.ConvTranspose2d(8, 6, 2)
        self.groups, self.d, self.e = nn.GroupNorm(3, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 2)
        zero(self.a.weight, range(4))
        zero(self.d.weight, range(3))

    def forward(self, x):
        x = self.c(self.b(self.slope(self.norm(self.a(x)))))
        x = self.d(self.groups(x).mean((2, 3)))
        return self.e(torch.sigmoid(x) * torch.full((6,), 0.5, device=x.device))


def test_what_is_decided_does_not_depend_on_the_device():
    torch.manual_seed(0)
    model = Layers().double().eval()
    here = trace(model, (torch.randn(2, 3, 6, 6).double(),), {}, plain=rules.plain_enough)
    expected = decide(analyse(here)).plan
    assert expected.folds
    assert {"a.weight", "b.weight", "d.weight"} <= expected.kept.keys()
    there = dataclasses.replace(here, tensors={name: Elsewhere(tensor) for name, tensor in here.tensors.items()})
    for node in there.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda:0")}
    assert any(node.kwargs.get("device") for node in there.graph.nodes)
    with pytest.raises(RuntimeError, match="numpy"):
        next(iter(there.tensors.values())).numpy()
    found = analyse(there)
    statics = [fact.static for fact in found.facts.values() if isinstance(fact, Fact) and fact.static is not None]
    assert {type(each) for each in statics} == {torch.Tensor}
    assert len(statics) > len(there.tensors)  # the tensor made on the device is known too
    assert decide(found).plan == expected


def test_a_call_has_warmed_up_and_ended_when_its_time_is_taken(monkeypatch):
    events = []

    class Device:
        @staticmethod
        def synchronize(*device):
            events.append(("wait", *map(str, device)))

    class Noted(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name
            self.register_buffer("k", Elsewhere(torch.ones(2)))

        def forward(self, x):
            events.append(("call", self.name))
            return x

    monkeypatch.setattr(torch, "get_device_module", lambda device: Device)
    clock = iter(range(10**6))
    monkeypatch.setattr(measures.time, "perf_counter", lambda: events.append(("clock",)) or next(clock))
    x = torch.ones(2)
    assert measures.latency_of((Noted("large"), (x,), {}), (Noted("small"), (x,), {}), rounds=3) == 1
    timed = [
        (("wait", "cuda:0"), ("clock",), ("call", name), ("wait", "cuda:0"), ("clock",)) for name in ("large", "small")
    ]
    calls = [place for place, event in enumerate(events) if event[0] == "call"]
    assert len(calls) == 8  # one to warm up, three that count
    for number, place in enumerate(calls):
        assert tuple(events[place - 2 : place + 3]) == timed[number % 2]
