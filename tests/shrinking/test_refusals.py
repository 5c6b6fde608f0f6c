"""What cannot be shrunk is refused in one line, and nothing else is said; what only looks strange is shrunk."""

import logging
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import check, zero
from torchshrink.shrinking.program import quiet
from torchshrink.shrinking.rules import registry


class Small(nn.Module):
    """Half of its units are constant."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        zero(self.a.weight, range(4))

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def with_attribute(make):
    model = Small()
    model.other = make()
    return model


def with_weight(change):
    model = Small()
    model.a.weight = nn.Parameter(change(model.a.weight.detach()), requires_grad=False)
    return model


def with_buffer(tensor):
    model = Small()
    model.register_buffer("k", tensor)
    return model


ROWS = torch.randn(5, 4)


@pytest.mark.parametrize(
    ("build", "example", "message"),
    [
        (lambda: with_attribute(threading.Lock), ROWS, r"Small cannot be copied \(TypeError: cannot pickle"),
        (lambda: with_attribute(lambda: (i for i in range(3))), ROWS, "Small cannot be copied"),
        (lambda: with_attribute(lambda: sys), ROWS, "Small cannot be copied"),
        (lambda: with_weight(torch.Tensor.to_sparse), ROWS, r"a\.weight is of layout torch\.sparse_coo"),
        (lambda: with_weight(torch.Tensor.to_mkldnn), ROWS, r"a\.weight is of layout torch\._mkldnn"),
        (lambda: with_buffer(torch.eye(3).to_sparse()), ROWS, "k is of layout torch.sparse_coo"),
        (lambda: Small().to("meta"), ROWS.to("meta"), r"a\.weight is on the meta device"),
        (lambda: with_weight(lambda weight: weight.to("meta")), ROWS, r"a\.weight is on the meta device"),
        (Small, ROWS.to("meta"), "the example is on the meta device"),
        (Small, {"x": ROWS.to("meta")}, "the example is on the meta device"),
        (Small, (torch.nested.nested_tensor([ROWS, ROWS[:2]], layout=torch.jagged),), "the example is a nested"),
        (lambda: nn.Sequential(nn.LazyLinear(8)), ROWS, r"0\.weight has no size yet"),
        (lambda: Small().double(), ROWS, "the model does not run on the example: RuntimeError"),
    ],
)
def test_it_is_refused_in_one_line(build, example, message):
    with pytest.raises(ts.errors.InputError, match=message) as caught:
        ts.shrink(build(), example)
    assert "\n" not in str(caught.value)


def test_torch_says_nothing_beside_the_one_line():
    code = (
        "import torch, torchshrink as ts\n"
        "class Model(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) * float(x.sum())\n"
        "try: ts.shrink(Model(4, 2), torch.ones(5, 4))\n"
        "except ts.errors.InputError as error: print(str(error).count(chr(10)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_loggers_of_torch_are_as_they_were():
    logs = [logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "torch.fx", "mine")]
    logs[1].disabled = True
    try:
        with quiet("mine"), quiet():
            assert [log.disabled for log in logs] == [True, True, True]
        assert [log.disabled for log in logs] == [False, True, False]
    finally:
        logs[1].disabled = False


@pytest.mark.parametrize("error", [ZeroDivisionError, AssertionError, RuntimeError, KeyError])
def test_a_rule_of_a_user_that_raises_costs_size(error, monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    @ts.shrink_rule("aten.digamma")
    def digamma(op):
        raise error("odd")

    model = nn.Sequential(nn.Linear(4, 8), Digamma(), nn.Linear(8, 3)).double()
    zero(model[0].weight, range(4))
    shrunk = check(model, ROWS.double())
    assert shrunk.model[0].out_features == 8
    assert any("digamma" in reason for reason in shrunk.pinned)


class Digamma(nn.Module):
    def forward(self, x):
        return torch.digamma(x)


class Single(nn.Module):
    """It computes in float32, by name."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)
        zero(self.a.weight, range(4))

    def forward(self, x):
        return self.b(torch.relu(self.a(x.float())))


def test_behind_a_preprocess_code_may_ask_for_float32():
    model = nn.Sequential(ts.models.Preprocess([0, 3, 0]), Single())
    rows = torch.tensor([[0.5, 0.0, 1.0], [1.5, 2.0, 3.0]])
    shrunk = ts.shrink(model, rows)
    assert shrunk.model[1].a.out_features == 4
    assert (shrunk.model(rows) - model(rows)).abs().max() < 1e-6


def test_an_image_without_a_batch_is_no_row():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    zero(model[0].weight, range(4))
    shrunk = ts.shrink(model.double(), torch.randn(1, 9, 9).double())
    x = torch.randn(1, 9, 9).double()
    assert (shrunk.model(x) - model(x)).abs().max() < 1e-12


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, of its compiler
@pytest.mark.parametrize("part", [False, True])
def test_what_is_compiled_is_shrunk(part):
    model = Small()
    given = torch.compile(model, backend="eager")
    if part:
        given = nn.Sequential(torch.compile(model.a, backend="eager"), nn.ReLU(), model.b)
    shrunk = ts.shrink(given, ROWS)
    assert shrunk.parameters[1] < shrunk.parameters[0]
    assert type(shrunk.model) is (nn.Sequential if part else Small)
