"""The situations that training comes in, which of them a test is about, and the run that all are compared with."""

import math
import warnings
from collections import defaultdict

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import ObjectiveWarning

LISTED = """
accumulation, clipping by norm, clipping by value, GradScaler, skipped steps, autocast, bfloat16 weights, lr schedulers,
warm-up, strength schedules, parameter groups, parameters added later, frozen mid-way, unfrozen mid-way, tied weights,
sparse gradients, maximize, closures, compiled models, compiled optimizer steps, model.to, swap_tensors, deepcopy,
pickling, load_state_dict, resuming, EMA and SWA, two regularizers, hooks of others, zero_grad, no gradients,
non-finite values, wrappers, failed attachment, optimizer subclasses, replaced parameters, replaced modules,
changed groups, lost hooks, differentiable, value() while attached, schedules without an optimizer,
untouched embeddings
"""
SITUATIONS = [" ".join(name.split()) for name in LISTED.split(",")]
TESTS = defaultdict(list)


def covers(*names):
    def register(test):
        for name in names:
            TESTS[name].append(test.__name__)
        return test

    return register


# --- the run that everything is compared with ---

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
Y = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))
PENALTIES = {
    "gradient": ts.L2(0.05),
    "prox": ts.L1(0.01),
    "latent": ts.L1(0.01),
    "decoupled": ts.L1(0.01),
    "decoupled L2": ts.L2(0.05),
}
MAKE = {
    "SGD": lambda p, **more: torch.optim.SGD(p, lr=0.1, **more),
    "momentum": lambda p, **more: torch.optim.SGD(p, lr=0.05, momentum=0.9, **more),
    "Adam": lambda p, **more: torch.optim.Adam(p, lr=0.01, **more),
    "AdamW": lambda p, **more: torch.optim.AdamW(p, lr=0.01, weight_decay=0, **more),
    "Adagrad": lambda p, **more: torch.optim.Adagrad(p, lr=0.1, **more),
}


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def mean_loss(model, rows=slice(None)):
    weight = next(model.parameters())
    return (model(X[rows].to(weight.dtype)) - Y[rows].to(weight.dtype)).square().mean()


def attached(model, optimizer, method="prox", penalty=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        return ts.Regularizer(model, penalty or PENALTIES[method]).attach(optimizer, method=method.partition(" ")[0])


def start(make="Adam", method="prox", dtype=torch.float32, penalty=None, **more):
    model = net(dtype)
    optimizer = (MAKE[make] if isinstance(make, str) else make)(model.parameters(), **more)
    return model, optimizer, attached(model, optimizer, method, penalty)


def one_step(model, optimizer):
    optimizer.zero_grad()
    mean_loss(model).backward()
    optimizer.step()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def plain(*given, steps=6, **more):
    model, optimizer, _ = start(*given, **more)
    for _ in range(steps):
        one_step(model, optimizer)
    return values(model)


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def difference(a, b):
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(a, b, strict=True))


both = pytest.mark.parametrize("method", ["gradient", "prox", "latent"])
each_method = pytest.mark.parametrize("method", PENALTIES)
few = pytest.mark.parametrize("make", ["SGD", "momentum", "Adam"])


@torch.no_grad()
def shrink(optimizer, weights, strength):
    """Soft-thresholding by hand, with the step sizes written out; after Adam no further than twice its reach, lr."""
    group = optimizer.param_groups[0]
    for w in weights:
        if isinstance(optimizer, torch.optim.SGD):
            step = float(group["lr"]) * (1 - group["dampening"]) / (1 - group["momentum"])
        else:
            state = optimizer.state[w]
            corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())
            step = group["lr"] / (corrected.sqrt() + group["eps"])
        most = 2 * float(group["lr"]) if isinstance(optimizer, torch.optim.Adam) else math.inf
        w.add_((w.sign() * (w.abs() - step * strength).clamp(min=0) - w).clamp(-most, most))


class LatentByHand:
    """An optimizer's step of latent weights under L1, kept as what the optimizer moves; one ρ for each weight."""

    def __init__(self, optimizer, weights, strength):
        self.strength = strength
        self.rho = [10 * strength * math.sqrt(w.numel()) / float(w.detach().norm()) for w in weights]
        if isinstance(optimizer, torch.optim.SGD):
            group = optimizer.param_groups[0]
            self.rho = [min(rho, (1 - group["momentum"]) / group["lr"]) for rho in self.rho]
        self.weights = weights
        self.latent = [
            w.detach() + strength / rho * w.detach().sign() for w, rho in zip(weights, self.rho, strict=True)
        ]

    @torch.no_grad()
    def step(self, optimizer):
        for w, latent, rho in zip(self.weights, self.latent, self.rho, strict=True):
            w.grad += rho * (latent - w)
            w.copy_(latent)
        optimizer.step()
        for w, latent, rho in zip(self.weights, self.latent, self.rho, strict=True):
            latent.copy_(w)
            w.copy_(latent.sign() * (latent.abs() - self.strength / rho).clamp(min=0))


def closure_of(model):
    def closure():
        model.zero_grad()
        loss = mean_loss(model)
        loss.backward()
        return loss

    return closure


quiet = pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
