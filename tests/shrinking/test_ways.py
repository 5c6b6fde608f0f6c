"""What a trace does not show in its operators: branches that were not taken, gradient mode, names of the outputs."""

import dataclasses

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import check, zero
from torchshrink.shrinking.rules import registry


class Two(nn.Module):
    """Two layers, of which half of the units are constant."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        zero(self.a.weight, range(4))
        nn.init.ones_(self.a.bias)

    def forward(self, x):
        return self.end(x, self.b(torch.relu(self.a(x))))


class Divided(Two):
    def end(self, x, y):
        return torch.cond(x.abs().max() > 100, lambda y: y / self.b.in_features, lambda y: y.clone(), (y,))


class Nested(Two):
    def end(self, x, y):
        def far(y):
            return torch.cond(y.sum() > -1e9, lambda y: y * self.a.out_features, lambda y: y + 1, (y,))

        return torch.cond(x.abs().max() > 100, far, lambda y: y.clone(), (y,))


class Counted(Two):
    def end(self, x, y):
        return torch.cond(
            x.abs().max() > 100, lambda y: y + torch.ones(self.b.in_features).sum(), lambda y: y + 0, (y,)
        )


class Repeated(Two):
    """Another number of operators."""

    def end(self, x, y):
        def far(y):
            for _ in range(self.b.in_features):
                y = y + 1
            return y

        return torch.cond(x.abs().max() > 100, far, lambda y: y.clone(), (y,))


class Frozen(Two):
    def end(self, x, y):
        with torch.no_grad():
            scale = x.abs().max() / self.b.in_features
        return y * scale


class Plain(Two):
    """A branch without widths, which costs nothing but what it reads."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(3, 8)
        self.d = nn.Linear(8, 2)
        zero(self.c.weight, range(4))

    def end(self, x, y):
        y = torch.cond(x.abs().max() > 100, lambda y: y / 3, lambda y: y.clone(), (y,))
        return self.d(torch.relu(self.c(y)))


@pytest.mark.parametrize("build", [Divided, Nested, Counted, Repeated, Frozen, Plain])
def test_bodies_of_control_flow_are_compared(build):
    torch.manual_seed(0)
    x = torch.randn(5, 4).double()
    shrunk = check(build().double().eval(), x, 1000 * x, 3000 * torch.randn(3, 4).double())
    if build is Plain:
        assert shrunk.model.c.out_features == 4
    elif build is not Frozen:
        assert any("cond" in reason or "_graph_" in reason for reason in shrunk.pinned)


class Turned(Two):
    def end(self, x, y):
        y = y.flip(1)
        return torch.cond(x.abs().max() > 100, lambda y: y / 3, lambda y: y.clone(), (y,))

    def forward(self, x):
        return self.end(x, self.b(torch.relu(self.a(x)).flip(1)))


def test_a_rule_that_is_wrong_is_found_beside_control_flow(monkeypatch):
    monkeypatch.setitem(registry._RULES, "aten.flip", lambda op: op.fact("self"))
    shrunk = check(Turned().double().eval(), torch.randn(5, 4).double())
    assert any("differ" in reason for reason in shrunk.pinned)


class Named(Two):
    def end(self, x, y):
        return {f"out{self.b.in_features}": y}


class Paired(Two):
    def end(self, x, y):
        return [y, *[None] * self.b.in_features]


class Numbered(Two):
    def end(self, x, y):
        return y, self.b.in_features


@pytest.mark.parametrize("build", [Named, Paired, Numbered])
def test_outputs_are_put_together_the_same(build):
    model = build().double().eval()
    x = torch.randn(5, 4).double()
    shrunk = ts.shrink(model, x)
    (leaves, spec), (found, other) = (torch.utils._pytree.tree_flatten(own(x)) for own in (model, shrunk.model))
    assert spec == other
    for a, b in zip(leaves, found, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Asking(Two):
    def end(self, x, y):
        return y / self.b.in_features if torch.is_grad_enabled() else y


class Wider(Two):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return h.sum(1, keepdim=True).expand(-1, 3) if torch.is_grad_enabled() else self.b(h)


@pytest.mark.parametrize("build", [Asking, Wider])
def test_outputs_are_equal_with_gradients_and_without(build):
    model = build().eval()
    shrunk = ts.shrink(model, torch.randn(5, 4))
    x = torch.randn(3, 4)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert (model(x) - shrunk.model(x)).abs().max() < 1e-5
    assert any("with gradients" in reason for reason in shrunk.pinned)


def test_gradients_do_not_cost_size_where_they_change_nothing():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)  # it asks, and computes the same
    zero(layer.linear1.weight, range(8))
    shrunk = ts.shrink(layer.eval(), torch.randn(2, 5, 8))
    assert shrunk.model.linear1.out_features == 8


class Tensors(nn.Module):
    """Its tensors have names of its own."""

    def __init__(self, gone):
        super().__init__()
        self.f = nn.Module()
        self.f.w, self.f.v, self.f.s = (nn.Parameter(torch.randn(size)) for size in ((8, 4), (3, 8), (8,)))
        zero(self.f.s, range(gone))
        zero(self.f.v, range(gone), dim=1)

    def forward(self, x):
        return nn.functional.linear(torch.relu(nn.functional.linear(x, self.f.w) * self.f.s), self.f.v)


@pytest.mark.parametrize("gone", [5, 0])
def test_what_became_smaller_is_told_whatever_its_name(gone):
    shrunk = ts.shrink(Tensors(gone).double(), torch.randn(5, 4).double())
    assert bool(shrunk.kept) is (gone > 0)
    assert ("f.w: (8, 4) → (3, 4)" in str(shrunk)) is (gone > 0)
    assert ("nothing could go" in str(shrunk)) is (gone == 0)
    vector = dataclasses.replace(shrunk, kept={"f.s": ((8,), (3,))})
    assert str(vector).splitlines()[0] == "f.s: (8,) → (3,)"
