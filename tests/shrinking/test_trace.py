"""Traces: operators in place are followed where nobody else sees the change, and taken apart where somebody does."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import check, zero
from torchshrink.shrinking.rules import plain_enough
from torchshrink.shrinking.trace import trace


class InPlace(nn.Module):
    """Additions and activations in place, of tensors that nobody, or somebody, uses again."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b, self.c = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 2, 1)
        self.register_buffer("shift", torch.arange(8.0)[:, None])
        for layer in (self.a, self.b):
            zero(layer.weight, range(4))
            zero(layer.bias, range(4))

    def forward(self, x):
        y = self.a(x)
        if self.kind == "chain":
            y = y.relu_().mul_(2).add_(self.b(x.repeat(1, 3, 1)[:, :8]))
        elif self.kind == "read before":
            z = self.b(y)
            y = y.tanh_() + z
        elif self.kind == "read behind":
            z = y.tanh_()
            y = self.b(y) + z
        elif self.kind == "view before":
            z = y[:, :, 1:]
            y = y.tanh_()[:, :, :-1] + z
        elif self.kind == "no copy":
            z = nn.functional.dropout(y, 0.5, training=False)
            y = z.tanh_() + y
        elif self.kind == "input":
            x = x.mul_(2)
            y = self.a(x)
        elif self.kind == "buffer":
            y = y + self.shift.clone().mul_(0.5)
        return self.c(y)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("chain", True), ("read before", True), ("read behind", True), ("buffer", True)]
    + [(kind, False) for kind in ("view before", "no copy", "input")],
)
def test_operators_in_place(kind, plain):
    model = InPlace(kind).double().eval()
    x = torch.randn(2, 3, 6).double()
    before = x.clone()
    assert trace(model, (x.clone(),), {}, plain=plain_enough).plain == plain
    shrunk = ts.shrink(model, x) if kind == "input" else check(model, x, torch.randn(3, 3, 9).double())
    assert torch.equal(x, before)
    assert shrunk.difference <= 1e-12
    assert shrunk.model.a.out_channels == 4
    assert (shrunk.model(x.clone()) - model(x.clone())).abs().max() <= 1e-12
