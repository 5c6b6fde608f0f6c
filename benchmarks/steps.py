"""Claim: a penalty costs next to nothing per training step. Whole steps (forward, backward, update), against bare.

Budgets: ``value()`` in the loss ≤ 1.15; attached to SGD ≤ 1.08; Adam with the exact prox ≤ 1.25.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable

import torch
from torch import nn

import torchshrink as ts
from timing import ratios, table

STRENGTH = 1e-4
BATCH = 64


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


MODELS: dict[str, tuple[Callable[[], nn.Sequential], int]] = {
    "small MLP (64-64-32-10)": (lambda: mlp(64, 64, 32, 10), 100),
    "1.9 M MLP (784-1024-1024-10)": (lambda: mlp(784, 1024, 1024, 10), 3),
    "48 layers (64 wide)": (lambda: mlp(*[64] * 48, 10), 10),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p, **more: torch.optim.SGD(p, lr=1e-3, momentum=0.9, **more),
    "Adam": lambda p, **more: torch.optim.Adam(p, lr=1e-3, **more),
    "fused Adam": lambda p, **more: torch.optim.Adam(p, lr=1e-3, fused=True, **more),
}


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.endswith("weight")]


def step(make_model: Callable[[], nn.Sequential], make_optimizer: Callable[..., torch.optim.Optimizer], how: str):
    """One whole training step as a callable, the penalty acting as ``how`` says."""
    torch.manual_seed(0)
    model = make_model()
    x = torch.randn(BATCH, model[0].in_features)
    y = torch.randint(10, (BATCH,))
    criterion = nn.CrossEntropyLoss()
    more = {"weight_decay": 2 * STRENGTH} if how == "torch weight_decay" else {}
    optimizer = make_optimizer(model.parameters(), **more)
    penalised = weights(model)
    reg = ts.Regularizer(model, ts.L1(STRENGTH) if how.endswith("L1") else ts.L2(STRENGTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how.startswith("attached"):
            reg.attach(optimizer, method="latent" if "latent" in how else "auto")
    extra: Callable[[], torch.Tensor] | None = {
        "tutorial's loop L1": lambda: STRENGTH * sum(p.abs().sum() for p in penalised),
        "tutorial's loop L2": lambda: STRENGTH * sum(p.pow(2).sum() for p in penalised),
        "value() L1": reg.value,
        "value() L2": reg.value,
    }.get(how)

    def run() -> None:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        if extra is not None:
            loss = loss + extra()
        loss.backward()
        optimizer.step()

    return run


WAYS = [
    "bare",
    "tutorial's loop L1",
    "tutorial's loop L2",
    "value() L1",
    "value() L2",
    "attached gradient L2",
    "attached prox L1",
    "attached latent L1",
    "torch weight_decay",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    columns = list(itertools.product(MODELS, OPTIMIZERS))
    found = {}
    for model, optimizer in columns:
        make_model, repeats = MODELS[model]
        variants = {how: step(make_model, OPTIMIZERS[optimizer], how) for how in WAYS}
        found[model, optimizer] = ratios(variants, baseline="bare", rounds=rounds, repeats=repeats)
    rows = [[how, *(f"{found[column][how]:.2f}" for column in columns)] for how in WAYS]
    header = ["whole step, × bare", *(f"{model}, {optimizer}" for model, optimizer in columns)]
    print(table(f"Training steps ({torch.get_num_threads()} threads, batch {BATCH})", header, rows))


if __name__ == "__main__":
    main()
