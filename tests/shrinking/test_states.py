"""Models that change when they are called: what is returned has not been called, and the next calls are equal too."""

import copy

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import zero


class Stateful(nn.Module):
    """A call moves on a counter, a mean, a memory of rows, an offset of the hidden units, or a weight."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b, self.table = nn.Linear(4, 8), nn.Linear(8, 3), nn.Embedding(6, 8, max_norm=0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("memory", torch.zeros(5, 4), persistent=False)
        self.register_buffer("offset", torch.ones(8))
        self.register_buffer("level", torch.ones(()))
        zero(self.a.weight, range(4))

    def forward(self, x):
        h = torch.relu(self.a(x - self.mean))
        if self.kind == "counter":
            self.calls += 1
            return self.b(h) + self.calls
        if self.kind == "mean":
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        elif self.kind == "memory":
            self.memory = torch.cat([self.memory[1:], x[:1]])
            return self.b(h) + self.memory.sum()
        elif self.kind == "offset":
            y = self.b(h + self.offset)
            self.offset.add_(1)
            return y
        elif self.kind == "level":  # constant units stay constants at each call, of other numbers
            y = self.b(h + self.level)
            self.level.mul_(2)
            return y
        elif self.kind == "weight":
            return self.b(h + self.table(torch.arange(2, device=x.device)).sum())
        return self.b(h)


KINDS = ("counter", "mean", "memory", "offset", "level", "weight")


def buffers(model):
    """Every buffer by name, and the weight that a call changes."""
    return {name: tensor.clone() for name, tensor in (*model.named_buffers(), ("table", model.table.weight.detach()))}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_returned_has_not_been_called_and_its_next_calls_are_equal(kind):
    torch.manual_seed(0)
    model = Stateful(kind).double().train(kind < "m")
    before = buffers(model)
    shrunk = ts.shrink(model, torch.randn(5, 4).double())
    after, small = buffers(model), buffers(shrunk.model)
    assert shrunk.model.training is model.training
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name])
        for dim, places in shrunk.plan.kept.get(name, {}).items():
            tensor = tensor.index_select(dim, torch.tensor(places))
        assert torch.equal(tensor, small[name])
    large, small = copy.deepcopy(model).eval(), shrunk.model.eval()
    for rows in (5, 3, 5):
        x = torch.randn(rows, 4).double()
        with torch.no_grad():
            wanted, found = large(x), small(x)
        assert wanted.isfinite().all()
        assert (wanted - found).abs().max() <= 1e-12 * wanted.abs().max().clamp(min=1)
    if kind in ("counter", "mean", "memory"):
        assert small.a.out_features == 4


class Scribbling(nn.Module):
    """It changes its input."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x):
        return self.a(x.mul_(2))


def test_the_example_that_is_returned_is_the_one_given():
    x = torch.randn(5, 4).double()
    before = x.clone()
    shrunk = ts.shrink(Scribbling().double(), x)
    assert torch.equal(shrunk.example[0][0], before)
    assert torch.equal(x, before)


def test_behind_a_preprocess_buffers_are_those_of_the_given_model_too():
    model = nn.Sequential(ts.models.Preprocess([0, 0, 3]), Counted())
    zero(model[1].a.weight, range(4))
    shrunk = ts.shrink(model, torch.tensor([[0.5, 1.0, 0.0], [1.5, 3.0, 2.0]]), inputs=True)
    assert shrunk.model[1].a.out_features == 4
    assert shrunk.model[1].calls.item() == model[1].calls.item() == 0


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.b(torch.relu(self.a(x))) + 0 * self.calls
