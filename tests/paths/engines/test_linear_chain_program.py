"""Chains of linear layers: gradients by hand against autograd, and the compiled prox against the plain one."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from path_cases import spec_for
from torchshrink.paths.engines.linear_chain import COORDINATEWISE
from torchshrink.paths.engines.stack import Stack
from torchshrink.paths.folds import make_folds
from torchshrink.paths.penalty_family import families
from torchshrink.regularizer.selection import WEIGHTS

STRENGTHS = (0.0, 1e-3, 1e-2)


def between(*modules):
    return nn.Sequential(nn.Linear(6, 8), *modules, nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


def frozen(first):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    for module in model[:3] if first else model[2:]:
        module.requires_grad_(False)
    return model


def tied():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    model[4].weight, model[4].bias = model[2].weight, model[2].bias
    return model


CHAINS = {module.__name__: (lambda module=module: between(module())) for module in COORDINATEWISE} | {
    "in place": lambda: between(nn.ReLU(inplace=True)),
    "another in place": lambda: between(nn.ELU(inplace=True), nn.Linear(8, 8), nn.LeakyReLU(inplace=True)),
    "two in a row": lambda: between(nn.ReLU(), nn.ReLU(), nn.Tanh()),
    "nothing between": lambda: between(),
    "an activation first": lambda: nn.Sequential(nn.Tanh(), nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)),
    "logistic": lambda: nn.Sequential(nn.Linear(6, 3)),
    "frozen below": lambda: frozen(True),
    "frozen above": lambda: frozen(False),
    "tied": tied,
}


def stack_of(build, *, numbers=False, optimizer=None, dtype=torch.float64, **settings):
    drawn = torch.Generator().manual_seed(0)
    X = torch.randn(40, 6, generator=drawn, dtype=dtype)
    y = X[:, 0] - X[:, 1] ** 2 if numbers else torch.arange(40) % 3
    spec = spec_for(
        lambda: build().to(dtype), (X, y), families(ts.L1), epochs=4, batch_size=8, loss=None, optimizer=optimizer,
        seed=0, device=None, on=WEIGHTS, method="auto",
    )  # fmt: skip
    folds = make_folds(spec.y, 2, seed=0)
    return Stack(spec, dict(enumerate(folds)), families(ts.L1)[0], STRENGTHS, **settings)


def check_gradients(stack):
    assert stack.chain
    for epoch in range(2):  # the second time, the memory of the first is written over
        for rows, weights in stack._batches(epoch):
            stack._skeleton.train()
            ((_, batch),) = stack._read([rows])
            torch.manual_seed(epoch)
            losses = stack._dense(stack.parameters, stack.own, stack._shared, rows, batch, weights)
            wanted = torch.autograd.grad(losses.sum(), list(stack.parameters.values()), allow_unused=True)
            torch.manual_seed(epoch)
            found = stack._dense.differentiate(stack.parameters, stack._shared, rows, batch, weights)
            torch.testing.assert_close(found, losses.detach(), rtol=1e-12, atol=1e-14)
            for p, gradient in zip(stack.parameters.values(), wanted, strict=True):
                torch.testing.assert_close(p.grad, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CHAINS)
def test_gradients_are_those_of_autograd(name):
    check_gradients(stack_of(CHAINS[name]))


def test_gradients_for_numbers():
    check_gradients(stack_of(lambda: ts.models.mlp(6, 1, hidden=(5,), regression=True), numbers=True))


def test_gradients_with_one_lane_of_a_fold():
    stack = stack_of(CHAINS["ReLU"])
    single = Stack(stack.spec, {0: stack.folds[0]}, families(ts.L1)[0], (1e-3,))
    check_gradients(single)


@pytest.mark.filterwarnings("ignore:Skipping serialization of:UserWarning")  # torch 2.6's compiler warns of itself
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch.compile imports it by itself
@pytest.mark.parametrize("optimizer", [None, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)], ids=["adam", "sgd"])
def test_a_compiled_prox_ends_where_the_plain_one_does(optimizer):
    plain, compiled = (stack_of(CHAINS["ReLU"], optimizer=optimizer, compiled=c) for c in (False, True))
    plain.train()
    compiled.train()
    for name, p in plain.parameters.items():
        torch.testing.assert_close(compiled.parameters[name], p, rtol=0, atol=1e-12)
