"""What a model's code keeps outside of the model: seen, put back after trials of lanes, and warned of."""

import re
import sys
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import torchshrink as ts
from torchshrink.errors import InputError, LanesWarning, ObjectiveWarning
from torchshrink.paths.shared_state import SharedState

S = torch.zeros(6).double()
CACHE = {}
HELPER = types.ModuleType("helper_of_the_tests")
HELPER.S = S


class Namespace:
    S = S


class Base(nn.Module):
    S = S
    steady = torch.ones(6).double()
    calls = 0

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
        self.passes = 0

    def forward(self, x):
        if self.training:
            self.passes += 1
            self.keep(x.detach())
        return self.head(x - self.shift() * self.steady)


class OfTheClass(Base):
    def keep(self, x):
        OfTheClass.S = 0.9 * OfTheClass.S + 0.1 * x.mean(0)

    def shift(self):
        return self.S


class OfABase(Base):
    def keep(self, x):
        Base.S = 0.9 * Base.S + 0.1 * x.mean(0)

    shift = OfTheClass.shift


class InPlace(Base):
    S = torch.zeros(6).double()

    def keep(self, x):
        self.S.mul_(0.9).add_(0.1)

    shift = OfTheClass.shift


class InAList(Base):
    seen = []  # noqa: RUF012 – as it is found

    def keep(self, x):
        self.seen.append(x.mean(0))

    def shift(self):
        return self.seen[-1] if self.seen else torch.zeros(6).double()


class Late(OfTheClass):
    """Not in the trial's few steps."""

    def keep(self, x):
        if self.passes > 5:
            Late.S = 0.9 * Late.S + 0.1 * x.mean(0)


class AGlobal(Base):
    def keep(self, x):
        global S
        S = 0.9 * S + 0.1 * x.mean(0)

    def shift(self):
        return S


class ByAFunction(AGlobal):
    def keep(self, x):
        update(x)


def update(x):
    global S
    S = 0.9 * S + 0.1 * x.mean(0)


class InATable(Base):
    def keep(self, x):
        CACHE["S"] = x.mean(0)

    def shift(self):
        return CACHE.get("S", 0.0)


class InANamespace(Base):
    def keep(self, x):
        Namespace.S = 0.9 * Namespace.S + 0.1 * x.mean(0)

    def shift(self):
        return Namespace.S


class InAModule(Base):
    def keep(self, x):
        HELPER.S = 0.9 * HELPER.S + 0.1 * x.mean(0)

    def shift(self):
        return HELPER.S


def in_a_closure():
    mean = torch.zeros(6).double()

    class InAClosure(Base):
        def keep(self, x):
            nonlocal mean
            mean = 0.9 * mean + 0.1 * x.mean(0)

        def shift(self):
            return mean

    return InAClosure


KINDS = {
    "class": (lambda: OfTheClass, "OfTheClass.S"),
    "base": (lambda: OfABase, "Base.S"),
    "class, in place": (lambda: InPlace, "InPlace.S"),
    "list of a class": (lambda: InAList, "InAList.seen[0]"),
    "global": (lambda: AGlobal, f"S (a global of {__name__})"),
    "global, by a function": (lambda: ByAFunction, f"S (a global of {__name__})"),
    "global table": (lambda: InATable, f"CACHE (a global of {__name__})['S']"),
    "class that is a namespace": (lambda: InANamespace, "Namespace.S"),
    "module": (lambda: InAModule, "HELPER.S"),
    "closure": (in_a_closure, "mean (in a closure)"),
}
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)).double() + 1
Y = torch.arange(48) % 3
SETTINGS = {"strengths": [1e-2], "folds": 2, "repeats": 1, "epochs": 2, "batch_size": 8, "progress": False}


@pytest.fixture(autouse=True)
def fresh():
    """Each test begins with what there was at first."""
    here = sys.modules[__name__]
    own = [OfTheClass, Late, Base, Namespace]

    def clear():
        for cls in own:
            cls.S = torch.zeros(6).double()
        InPlace.S.zero_()
        here.S, HELPER.S = torch.zeros(6).double(), torch.zeros(6).double()
        CACHE.clear()
        InAList.seen.clear()

    clear()
    yield
    clear()


def outcome(kind, engine, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ts.path(lambda: kind().double(), (X, Y), ts.L1, engine=engine, **(SETTINGS | more))
    return result.losses, [(each.category, str(each.message)) for each in caught]


def state_of(kind):
    """The tensor that is kept, as numbers."""
    found = kind.shift(kind())
    return found.clone() if isinstance(found, torch.Tensor) else found


@pytest.mark.parametrize("name", KINDS)
def test_one_step_is_seen_and_put_back(name):
    make, place = KINDS[name]
    model = (kind := make())().double().train()
    before = state_of(kind)
    shared = SharedState(model)
    assert shared.changed() is None
    model(X[:8])
    assert shared.changed() == place
    shared.put_back()
    assert shared.changed() is None
    assert torch.equal(torch.as_tensor(state_of(kind)), torch.as_tensor(before))


def test_what_is_no_tensor_is_left_alone():
    class Counting(Base):
        def keep(self, x):
            Counting.calls += 1

        def shift(self):
            return self.steady

    model = Counting().double().train()
    shared = SharedState(model)
    model(X[:8])
    assert shared.changed() is None
    shared.put_back()
    assert Counting.calls == 1


@pytest.mark.parametrize("name", ["class", "list of a class", "class, in place", "global table", "closure"])
def test_lanes_are_refused_and_the_fallback_trains(name):
    make, place = KINDS[name]
    losses, said = outcome(make(), "lanes")
    assert losses.isfinite().all()
    lanes = [text for category, text in said if category is LanesWarning]
    assert len(lanes) == 1
    assert "one training after another" in lanes[0]
    assert f"keeps something from one pass to the next, in {place}" in lanes[0]
    leaks = [text for category, text in said if category is ObjectiveWarning]
    assert leaks == [
        f"a training step changes {place}, which is no part of the model: each training of the path goes on with what "
        "those before it left there, held-out rows among it; keep it in a buffer of the model"
    ]


def test_trials_leave_no_trace_in_what_is_trained_after_them():
    plain, said = outcome(in_a_closure(), "sequential")
    lanes, _ = outcome(in_a_closure(), "lanes")
    assert [category for category, _ in said] == [ObjectiveWarning]
    assert torch.equal(lanes, plain)


@pytest.mark.parametrize("order", ["cold", "warm"])
def test_what_begins_late_is_refused_late(order):
    losses, said = outcome(Late, "lanes", order=order)
    assert losses.isfinite().all()
    assert any("in Late.S" in text for category, text in said if category is LanesWarning)


def test_a_loss_that_keeps_a_tensor_is_one_too():
    class Loss:
        last = torch.zeros(3).double()

        def __call__(self, output, y):
            type(self).last = output.detach().mean(0)
            return functional.cross_entropy(output, y)

    losses, said = outcome(
        lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "lanes", loss=Loss()
    )
    assert losses.isfinite().all()
    assert any("Loss.last" in text for category, text in said if category is LanesWarning)


class Hidden:
    """Nothing that is looked at: an object's own slot."""

    __slots__ = ("value",)


HIDDEN = Hidden()


class OutOfSight(Base):
    def keep(self, x):
        HIDDEN.value = 0.9 * HIDDEN.value + 0.1 * x.mean(0)

    def shift(self):
        return HIDDEN.value


def test_what_nobody_saw_and_lanes_made_unusable_is_one_clear_line():
    HIDDEN.value = torch.zeros(6).double()
    with pytest.raises(
        InputError, match=re.escape("keeps a tensor outside of the model, which the trial of lanes")
    ) as told:
        outcome(OutOfSight, "lanes")
    assert "\n" not in str(told.value)
