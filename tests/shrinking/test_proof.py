"""The proof: a plan that is wrong does not leave it. Each mutant is a fault that a rule or the plan could have."""

import dataclasses

import pytest
import torch
from torch import nn

import torchshrink as ts
from shrink_cases import zero
from torchshrink.shrinking import rules
from torchshrink.shrinking.analysis import analyse
from torchshrink.shrinking.plan import decide
from torchshrink.shrinking.proof import Mismatch
from torchshrink.shrinking.rules import registry
from torchshrink.shrinking.shrinking import attempt
from torchshrink.shrinking.trace import trace


def decided(model, example):
    model = model.double().eval()
    return model, decide(analyse(trace(model, (example.double(),), {}, plain=rules.plain_enough)))


def constant_channels(padding):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=padding))
    zero(model[0].weight, range(5))
    return decided(model, torch.randn(2, 3, 6, 6))


def with_plan(decision, **changes):
    return dataclasses.replace(decision, plan=dataclasses.replace(decision.plan, **changes))


def test_without_the_fold_the_outputs_differ():
    model, decision = constant_channels(0)
    assert attempt(model, decision)[1] is None
    _, mismatch, evidence = attempt(model, with_plan(decision, folds=()))
    assert mismatch is not None
    assert mismatch.nodes == ("conv2d_1",)
    assert evidence.difference > 1e-3


def test_without_the_carrier_the_outputs_differ():
    model, decision = constant_channels(1)
    assert attempt(model, decision)[1] is None
    _, mismatch, evidence = attempt(model, with_plan(decision, merges=()))
    assert mismatch is not None
    assert evidence.difference > 1e-3


def test_a_fold_in_place_of_a_carrier_is_wrong_at_the_border():
    model, decision = constant_channels(1)
    merge = decision.plan.merges[0]
    readings = [dataclasses.replace(reading, everywhere=True) for reading in decision.analysis.readings]
    wrong = decide(dataclasses.replace(decision.analysis, readings=tuple(readings)))
    assert merge
    assert wrong.plan.folds
    assert attempt(model, wrong)[1] is not None


def test_without_the_pin_of_a_norm_the_trace_differs(monkeypatch):
    """LayerNorm would average over fewer channels."""
    monkeypatch.setitem(registry._RULES, "aten.layer_norm", lambda op: op.fact("input"))
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 2))
    zero(model[0].weight, range(4))
    zero(model[0].bias, range(4))
    model, decision = decided(model, torch.randn(2, 4))
    assert decision.gone.any()
    assert attempt(model, decision)[1] is not None


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        zero(self.a.weight, range(4))

    def forward(self, x):
        y = torch.relu(self.a(x))
        return self.b(y / y.shape[1] ** 0.5)


def test_a_literal_that_changes_is_a_mismatch_and_without_that_check_the_outputs_are(monkeypatch):
    model, decision = decided(Scaled(), torch.randn(2, 4))
    mismatch = attempt(model, decision)[1]
    assert mismatch == Mismatch(("div",), "other 2.8284271247461903 of aten.div becomes 2.0")
    monkeypatch.setattr("torchshrink.shrinking.proof._arguments", lambda *_, **__: "")
    _, mismatch, evidence = attempt(model, decision)
    assert mismatch is not None
    assert evidence.difference > 1e-3


def test_a_rule_that_is_wrong_costs_size_and_no_correctness(monkeypatch):
    """A user's rule that calls a sum over channels elementwise."""
    monkeypatch.setitem(registry._RULES, "aten.cumsum", lambda op: op.fact("self"))

    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            zero(self.b.weight, range(4), dim=1)

        def forward(self, x):
            return self.b(torch.cumsum(self.a(x), 1))

    model, x = Summed().double(), torch.randn(3, 4).double()
    shrunk = ts.shrink(model, x)
    assert torch.equal(shrunk.model(x), model(x))
    assert any("differ" in reason for reason in shrunk.pinned)


def test_a_rule_of_a_user_lets_units_through(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    model = nn.Sequential(nn.Linear(4, 8), Flip(), nn.Linear(8, 2)).double()
    zero(model[0].weight, range(4))
    zero(model[0].bias, range(4))
    x = torch.randn(3, 4).double()
    assert ts.shrink(model, x).model[0].out_features == 8

    @ts.shrink_rule("aten.flip")
    def flip(op):
        fact = op.fact("self")
        return dataclasses.replace(fact, axes=(fact.axes[0], fact.axes[1][::-1]), values=(None, fact.values[1][::-1]))

    shrunk = ts.shrink(model, x)
    assert shrunk.model[0].out_features == 4
    assert (shrunk.model(x) - model(x)).abs().max() < 1e-12


class Flip(nn.Module):
    def forward(self, x):
        return x.flip(1)


@pytest.mark.parametrize("name", ["relu", 3, "aten.add.Tensor"])
def test_a_rule_needs_a_name(name):
    with pytest.raises(ts.errors.InputError, match="an operator without overload expected"):
        ts.shrink_rule(name)


def test_what_cannot_be_repaired_is_an_error_and_no_model(monkeypatch):
    monkeypatch.setattr("torchshrink.shrinking.shrinking.attempt", lambda large, _: (large, Mismatch((), "odd"), 1.0))
    with pytest.raises(ts.errors.InputError, match=r"does not compute the same twice \(odd\)"):
        ts.shrink(nn.Linear(3, 2), torch.randn(2, 3))
