"""What models keep from one pass to the next: lanes end as the plain engine does, or are refused, in training too."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import torchshrink as ts
from path_cases import spec_for
from torchshrink.errors import CannotStackError, LanesWarning
from torchshrink.paths.engines.stack_trial import try_stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.regularizer.selection import WEIGHTS


class Stateful(nn.Module):
    """Of 6 numbers, to 3 classes; ``keep`` is what a pass does besides, from its ``first`` on."""

    first = 0

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
        self.calls = 0
        self.set_up()

    def set_up(self):
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.calls += 1
            if self.calls > self.first:
                self.keep(x.detach())
        return self.head(x - self.shift(x))

    def keep(self, x):
        raise NotImplementedError

    def shift(self, x):
        return self.mean


class MadeAnew(Stateful):
    def keep(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)


class MadeAnewNotPersistent(MadeAnew):
    def set_up(self):
        self.register_buffer("mean", torch.zeros(6), persistent=False)


class DataAnew(Stateful):
    def keep(self, x):
        self.mean.data = 0.9 * self.mean.data + 0.1 * x.mean(0)


class PlainTensor(MadeAnew):
    def set_up(self):
        self.mean = torch.zeros(6)


class InAnObject(Stateful):
    def set_up(self):
        self.tracker = type("Tracker", (), {})()
        self.tracker.means = [torch.zeros(6)]

    def keep(self, x):
        self.tracker.means[0] = 0.9 * self.tracker.means[0] + 0.1 * x.mean(0)

    def shift(self, x):
        return self.tracker.means[0]


class History(Stateful):
    def set_up(self):
        self.seen = []

    def keep(self, x):
        self.seen.append(x.mean(0))

    def shift(self, x):
        return sum(self.seen) / max(len(self.seen), 1) if self.seen else 0.0


class RegisteredLate(Stateful):
    def set_up(self):
        pass

    def keep(self, x):
        if "late" not in self._buffers:
            self.register_buffer("late", x.mean(0))

    def shift(self, x):
        return self._buffers.get("late", 0.0)


class NoneAtFirst(MadeAnew):
    def set_up(self):
        self.register_buffer("mean", None)

    def keep(self, x):
        self.mean = x.mean(0) if self.mean is None else 0.9 * self.mean + 0.1 * x.mean(0)

    def shift(self, x):
        return 0.0 if self.mean is None else self.mean


class ParameterAnew(Stateful):
    def keep(self, x):
        self.head[0].bias = nn.Parameter(self.head[0].bias.detach() * 0.9)


class InPlace(Stateful):
    def keep(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))


class OfTheHead(Stateful):
    """A statistic of what differs between the strengths."""

    def keep(self, x):
        with torch.no_grad():
            self.mean.mul_(0.5).add_(0.5 * self.head[0](x).mean())


class Clamped(Stateful):
    def keep(self, x):
        with torch.no_grad():
            self.head[0].weight.copy_(self.head[0].weight.clamp(-0.2, 0.2))


class Counting(Stateful):
    """Nothing but Python's own numbers."""

    first = 5

    def set_up(self):
        self.factor = 1.0

    def keep(self, x):
        self.factor *= 0.97

    def shift(self, x):
        return self.factor


class InEvaluationToo(Stateful):
    def forward(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.head(x - self.mean)


class Nested(nn.Sequential):
    def __init__(self, inner):
        super().__init__(nn.LayerNorm(6), inner)


def late(kind, first=7):
    return lambda: type(f"Late{kind.__name__}", (kind,), {"first": first})()


def with_dropout(kind):
    """Dropout that drops nothing but is there: what comes out can be compared, and the model draws."""
    return lambda: nn.Sequential(nn.Dropout(0.0), kind())


KINDS = {  # refused from the first pass on, and where they begin late
    "buffer made anew": MadeAnew,
    "not persistent": MadeAnewNotPersistent,
    "by .data": DataAnew,
    "plain tensor": PlainTensor,
    "in a list in an object": InAnObject,
    "list that grows": History,
    "registered in a pass": RegisteredLate,
    "none at first": NoneAtFirst,
    "parameter made anew": ParameterAnew,
}
REFUSED = KINDS | {
    "in evaluation too": InEvaluationToo,
    "nested": lambda: Nested(MadeAnew()),
    "with dropout": with_dropout(MadeAnew),
    "with dropout, .data": with_dropout(DataAnew),
}
LATE = {f"late {name}": late(kind) for name, kind in (KINDS | {"of the head": OfTheHead}).items()}
ALIKE = {
    "in place": InPlace,
    "in place, late": late(InPlace),
    "of the head": OfTheHead,
    "clamped weights": Clamped,
    "clamped late": late(Clamped),
    "counting": Counting,
    "nested in place": lambda: Nested(InPlace()),
    "in place with dropout": with_dropout(InPlace),
}


def data():
    X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)).double() + 1
    return X, torch.arange(48) % 3


SETTINGS = {"strengths": [1e-3, 1e-2], "folds": 2, "repeats": 1, "epochs": 3, "batch_size": 8, "progress": False}


def outcome(build, engine, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ts.path(lambda: build().double(), data(), ts.L1, engine=engine, **(SETTINGS | more))
    return result.losses, [str(each.message) for each in caught if each.category is LanesWarning]


@pytest.mark.parametrize("name", REFUSED | LATE)
def test_what_is_lost_in_a_stack_is_trained_alone(name):
    build = (REFUSED | LATE)[name]
    plain, _ = outcome(build, "sequential")
    lanes, said = outcome(build, "lanes")
    assert torch.equal(lanes, plain)
    assert len(said) >= 1
    assert all("one training after another" in line and "\n" not in line for line in said)


@pytest.mark.parametrize("order", ["cold", "warm"])
@pytest.mark.parametrize("name", ALIKE)
def test_what_is_kept_in_place_is_kept_in_lanes(name, order):
    more = {"order": order, "folds": 2}
    plain, _ = outcome(ALIKE[name], "sequential", **more)
    lanes, said = outcome(ALIKE[name], "lanes", **more)
    assert said == []
    torch.testing.assert_close(lanes, plain, rtol=1e-8, atol=1e-8)


def test_it_begins_late_on_a_warm_path():
    plain, _ = outcome(late(MadeAnew), "sequential", order="warm")
    lanes, said = outcome(late(MadeAnew), "lanes", order="warm")
    assert torch.equal(lanes, plain)
    assert "mean: the model makes it anew" in said[0]


def test_auto_trains_it_alone_too(monkeypatch):
    """As it was found: with dropout, by ``engine="auto"``, where lanes would pay."""
    monkeypatch.setattr("torchshrink.paths.engines.planner.LEAST_STEPS", 1)
    more = {"strengths": [1e-4, 1e-3, 1e-2], "epochs": 12, "folds": 3, "batch_size": 8}
    plain, _ = outcome(with_dropout(late(MadeAnew, 30)), "sequential", **more)
    lanes, said = outcome(with_dropout(late(MadeAnew, 30)), "auto", **more)
    assert torch.equal(lanes, plain)
    assert len(said) == 1


# --- what draws is compared in training mode ---


class Drawing(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.draw = draw

    def forward(self, x):
        return self.b(self.draw(torch.tanh(self.a(x)), self.training))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.lstm(x.view(-1, 2, 3))[0][:, -1])


DRAWING = {
    "functional dropout": lambda: Drawing(lambda h, on: functional.dropout(h, 0.5, training=on)),
    "functional alpha dropout": lambda: Drawing(lambda h, on: functional.alpha_dropout(h, 0.5, training=on)),
    "feature dropout": lambda: Drawing(lambda h, on: functional.dropout1d(h.unsqueeze(2), 0.5, training=on).squeeze(2)),
    "noise": lambda: Drawing(lambda h, on: h + torch.randn_like(h) if on else h),
    "noise in place": lambda: Drawing(lambda h, on: h + torch.empty_like(h).normal_() if on else h),
    "stochastic depth": lambda: Drawing(lambda h, on: h * (torch.rand(len(h), 1, dtype=h.dtype) > 0.3) if on else h),
    "dropout modules": lambda: nn.Sequential(
        nn.Linear(6, 5),
        nn.LayerNorm(5),
        nn.Dropout(0.5),
        nn.AlphaDropout(0.5),
        nn.FeatureAlphaDropout(0.5),
        nn.Linear(5, 3),
    ),
    "a chain with dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)),
    "recurrent with dropout": Recurrent,
}


def tried(build):
    spec = spec_for(
        build,
        data(),
        families(ts.L1),
        epochs=3,
        batch_size=8,
        loss=None,
        optimizer=None,
        seed=0,
        device=None,
        on=WEIGHTS,
        method="auto",
    )
    return try_stack(spec, make_folds(spec.y, 2, seed=0), families(ts.L1)[0])


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_can_be_stacked(name):
    tried(DRAWING[name])


class DrawingAndLosing(Drawing):
    """The fault is in training mode alone, beside dropout that a function does."""

    def __init__(self):
        super().__init__(lambda h, on: functional.dropout(h, 0.5, training=on))
        self.cell = [1.0]

    def forward(self, x):
        if self.training:
            self.cell[0] = self.a.weight  # not this lane's: the code of the other way of reaching it
            return self.b(self.draw(torch.tanh(x @ first_of(self).t() + self.a.bias), True))
        return super().forward(x)


def first_of(model, kept={}):  # noqa: B006 – a table outside of the model, which nothing sees
    return kept.setdefault(id(model), model.a.weight)


def test_what_only_differs_in_training_is_refused_beside_functional_dropout():
    with pytest.raises((CannotStackError, RuntimeError)):
        tried(DrawingAndLosing)
