"""What outputs are compared: no wrong number passes as rounding, as NaN, or because nothing was compared."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchshrink as ts
from shrink_cases import zero
from torchshrink.shrinking.comparison import difference, outputs_apart
from torchshrink.shrinking.rules import registry

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([0.1], [0.2], 0.1),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, NAN], [1.0, INF], INF),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, INF], [1.0, 2.0], INF),
        ([NAN, 1.0], [1.0, NAN], INF),
        ([INF, -INF], [-INF, INF], INF),
        ([NAN, 3.0], [NAN, 4.5], 0.5),
        ([True, False], [True, True], 1.0),
        ([1 + 1j], [1 + 2j], 1.0),
        ([complex(NAN, 1)], [complex(1, NAN)], INF),
        ([], [], 0.0),
        ([1.0], [1.0, 1.0], INF),
        ([1], [1.0], INF),
    ],
)
def test_difference(expected, found, apart):
    assert difference(torch.tensor(expected), torch.tensor(found)) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("expected", "found", "exact", "equal"),
    [
        (torch.ones(3).double(), torch.ones(3).double() + 1e-9, True, False),
        (torch.ones(3).double(), torch.ones(3).double() + 1e-12, True, True),
        ((torch.ones(3).double(), torch.ones(3)), (torch.ones(3).double() + 1e-6, torch.ones(3)), True, False),
        ((torch.ones(3).double(), torch.ones(3)), (torch.ones(3).double(), torch.ones(3) + 1e-6), True, True),
        ({"a": torch.ones(3)}, {"b": torch.ones(3)}, True, False),
        ((torch.ones(3), 8), (torch.ones(3), 4), True, False),
        ((torch.ones(3), 8, None), (torch.ones(3), 8, None), True, True),
        (torch.arange(300), torch.arange(300).clamp(max=298), True, False),
        (torch.arange(300), torch.arange(300).clamp(max=298), False, True),
        (torch.arange(300), torch.arange(300).clamp(max=290), False, False),
        (torch.ones(3), torch.ones(3) + 1e-3, False, False),
    ],
)
def test_outputs_are_compared_leaf_by_leaf(expected, found, exact, equal):
    """A dtype's rounding is allowed of its own outputs, and not of those beside them."""
    assert (outputs_apart(expected, found, exact=exact)[1] <= 1) == equal


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.a.weight[2:], self.a.bias[2:] = 0, 1

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Mixed(Plain):
    """Mixes units a little, by an operator whose rule below says that it does not."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "refuses":
            assert x.shape[0] % 6
        h = torch.relu(self.a(x))
        y = self.b(h + 1e-6 * h.flip(1))
        return (y, x.to(torch.float32)) if self.kind == "float32 beside" else y


@pytest.mark.parametrize("kind", ["plain", "refuses", "float32 beside"])
def test_a_small_fault_of_a_rule_is_found_whatever_else_the_model_does(kind, monkeypatch):
    monkeypatch.setattr(registry, "_RULES", {**registry._RULES, "aten.flip": lambda op: op.fact("self")})
    shrunk = ts.shrink(Mixed(kind).eval(), torch.randn(5, 4))
    assert shrunk.model.a.out_features == 8
    assert any("differ" in reason for reason in shrunk.pinned)


class Single(Plain):
    def forward(self, x):
        return super().forward(x.float())


def test_the_dtype_of_the_comparison_is_said():
    x = torch.randn(5, 4)
    assert ts.shrink(Plain(), x).dtype == "float64"
    shrunk = ts.shrink(Single(), x)
    assert shrunk.dtype == "float32"
    assert "(float32, evaluation mode)" in str(shrunk)


class Threshold(nn.Module):
    """0.7 in float32 is 0.69999998…: not less than 0.7 there, and less in float64."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(2, 4), nn.Parameter(torch.zeros(2))
        self.w = nn.Parameter(torch.tensor([[1.0, 2, 0.7, 0.7], [1, 1, 0.7, 0.7]]))
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [-1, -1]]))
            self.a.bias.zero_()

    def forward(self, x):
        return F.linear(torch.relu(self.a(x)), self.w * (self.w.abs() >= 0.7), self.c)


def test_a_weight_that_is_zero_in_float64_alone_is_read():
    """On the positive example these units are zero, so that its outputs show nothing."""
    model = Threshold().eval()
    shrunk = ts.shrink(model, torch.rand(5, 2))
    x = torch.randn(64, 2)
    assert torch.allclose(shrunk.model(x), model(x), atol=1e-6)
    assert any("own dtype" in reason for reason in shrunk.pinned)


class Constant(Plain):
    """The same of what depends on the input and is constant; and only where an input is negative."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.a.bias[2:] = 0.7

    def forward(self, x):
        h = self.a(x)
        return self.b((h >= 0.7).to(h.dtype)) * torch.relu(-x[:, :1])


def test_a_constant_that_is_another_in_float32_stays():
    model = Constant().eval()
    shrunk = ts.shrink(model, torch.rand(5, 4) + 1)
    x = torch.randn(64, 4)
    assert torch.allclose(shrunk.model(x), model(x), atol=1e-6)


class Logarithm(Plain):
    def forward(self, x):
        h = torch.relu(self.a(torch.log(x)))
        return self.b(h / h.sum(-1, keepdim=True) if x.shape[0] == 1 else h)


def test_a_model_of_positive_numbers_is_tried_with_positive_ones():
    """With others all outputs are NaN, and the branch for one row would not be seen."""
    model = Logarithm().double().eval()
    shrunk = ts.shrink(model, torch.rand(5, 4).double() * 5)
    x = torch.rand(1, 4).double() * 5
    assert difference(model(x), shrunk.model(x)) <= 1e-12


def test_a_model_without_a_finite_output_is_refused():
    model = Plain()
    with torch.no_grad():
        model.b.bias.fill_(NAN)
    with pytest.raises(ts.errors.InputError, match="no output was a finite number"):
        ts.shrink(model, torch.randn(5, 4))


class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(()))
        self.register_buffer("mu", torch.zeros(4))

    def forward(self, x):
        self.n.add_(1)
        self.mu.mul_(0.9).add_(0.1 * x.mean(0))
        return super().forward(x - self.mu) * self.n


def test_the_model_that_is_returned_has_not_been_run():
    model = Counting().double().eval()
    zero(model.a.bias, range(2, 8))
    shrunk = ts.shrink(model, torch.randn(5, 4).double() + 3)
    assert shrunk.model.a.out_features == 2
    assert shrunk.model.n == model.n == 0
    assert not shrunk.model.mu.any()
    x = torch.randn(3, 4).double()
    for _ in range(3):
        assert difference(model(x), shrunk.model(x)) <= 1e-12


def test_an_example_that_the_model_refuses_is_one_line():
    with pytest.raises(ts.errors.InputError, match="does not run on the example"):
        ts.shrink(Plain().double(), torch.randn(5, 4))
