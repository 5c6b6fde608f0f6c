"""What a stack would silently do otherwise than the model shows in the trial, and is trained the plain way."""

import copy

import pytest
import torch
from torch import nn

import torchshrink as ts
from path_cases import spec_for
from torchshrink.errors import CannotStackError, LanesWarning
from torchshrink.paths.engines.stack_trial import try_stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.regularizer.selection import WEIGHTS


class Padded(nn.Module):
    def __init__(self, padding=0):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4, padding_idx=padding), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.embedding((x.abs() * 2).long().clamp(max=6)).mean(1))


class Itself(nn.Module):
    """Its function reaches its layers past the module that is called."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.f = lambda x: self.b(torch.tanh(self.a(x)))

    def forward(self, x):
        return self.f(x)


class RunningMean(nn.Module):
    """By hand: a buffer, or a plain attribute, that is made anew in every step."""

    def __init__(self, buffer):
        super().__init__()
        if buffer:
            self.register_buffer("mean", torch.zeros(6))
        else:
            self.mean = torch.zeros(6)
        self.head = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))

    def forward(self, x):
        if self.training:
            self.mean = (0.5 * self.mean + 0.5 * x.detach().mean(0)).to(x.dtype)
        return self.head(x - self.mean.to(x.dtype))


def hooked(chain):
    middle = nn.Tanh() if chain else nn.LayerNorm(5)
    model = nn.Sequential(nn.Linear(6, 5), middle, nn.Linear(5, 3))
    model[0].weight.register_hook(lambda g: g * 0)
    return model


def accumulating():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def forget(weight):
        weight.grad.zero_()

    model[0].weight.register_post_accumulate_grad_hook(forget)
    return model


UNLIKE = {
    "padding row": Padded,
    "another padding row": lambda: Padded(4),
    "gradient hook in a chain": lambda: hooked(True),
    "gradient hook": lambda: hooked(False),
    "hook after accumulation": accumulating,
    "closes over itself": Itself,
    "buffer made anew": lambda: RunningMean(True),
    "attribute made anew": lambda: RunningMean(False),
}

ALIKE = {
    "chain": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.LayerNorm(5), nn.Linear(5, 3)),
    "bias before batch norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "of one dtype": lambda: OneDtype(),
}


class OneDtype(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))

    def forward(self, x):
        return self.head(x @ torch.eye(6))  # which takes no float64


def data():
    X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1
    return X, torch.arange(40) % 3


def spec_of(build, **settings):
    given = {"epochs": 3, "batch_size": 8, "loss": None, "optimizer": None, "seed": 0, "device": None, "method": "auto"}
    return spec_for(build, data(), families(ts.L1), on=WEIGHTS, **(given | settings))


@pytest.mark.filterwarnings("ignore:.*rows of an embedding")  # which both engines treat alike
@pytest.mark.parametrize("name", UNLIKE)
def test_is_refused(name):
    spec = spec_of(UNLIKE[name])
    with pytest.raises(CannotStackError) as raised:
        try_stack(spec, make_folds(spec.y, 2, seed=0), families(ts.L1)[0])
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:.*rows of an embedding")
@pytest.mark.parametrize("name", ["padding row", "gradient hook in a chain", "closes over itself", "buffer made anew"])
def test_ends_as_the_plain_engine_does(name):
    settings = {"strengths": [1e-3, 1e-2], "folds": 2, "epochs": 3, "batch_size": 8, "progress": False}
    plain = ts.path(UNLIKE[name], data(), ts.L1, engine="sequential", **settings)
    with pytest.warns(LanesWarning, match="one training after another"):
        lanes = ts.path(UNLIKE[name], data(), ts.L1, engine="lanes", **settings)
    assert torch.equal(lanes.losses, plain.losses)


@pytest.mark.parametrize("method", ["auto", "loss"])
@pytest.mark.parametrize("name", ALIKE)
def test_is_not_refused(name, method):
    spec = spec_of(ALIKE[name], method=method)
    found = try_stack(spec, make_folds(spec.y, 2, seed=0), families(ts.L1)[0])
    assert found.chain is (name == "chain")
    assert found.proximal is (method == "auto")


def test_a_penalty_without_a_prox():
    spec = spec_of(ALIKE["chain"])
    assert not try_stack(spec, make_folds(spec.y, 2, seed=0), families(ts.L2)[0]).proximal


def test_the_trial_leaves_no_trace():
    spec = spec_of(ALIKE["dropout"])
    before, dtype = torch.get_rng_state(), torch.get_default_dtype()
    X = copy.deepcopy(spec.X)
    try_stack(spec, make_folds(spec.y, 2, seed=0), families(ts.L1)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is dtype
    assert torch.equal(spec.X, X)
