"""Claim: ``attach(compile=True)`` makes the penalty a part of the optimizer's step: against ``fused=True`` without one.

The optimizer's step alone. Budgets: SGD, Adam × L1, ElasticNet ≤ 1.05; GroupLasso ≤ 1.3; latent ≤ 1.35.
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

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-3, fused=True),
    "SGD, momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, fused=True),
}
PENALTIES: dict[str, tuple[ts.Penalty, str]] = {
    "L2, gradient": (ts.L2(1e-5), "gradient"),
    "L1, prox": (ts.L1(1e-5), "prox"),
    "ElasticNet, prox": (ts.ElasticNet(1e-5, 1e-5), "prox"),
    "MCP, prox": (ts.MCP(1e-5), "prox"),
    "GroupLasso, prox": (ts.GroupLasso(1e-5), "prox"),
    "L1, latent": (ts.L1(1e-5), "latent"),
    "GroupLasso, latent": (ts.GroupLasso(1e-5), "latent"),
}


def stepper(width: int, optimizer: str, penalty: str | None, *, compile: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 1e-2
    made = OPTIMIZERS[optimizer](model.parameters())
    if penalty is not None:
        value, method = PENALTIES[penalty]
        ts.Regularizer(model, value).attach(made, method=method, compile=compile)
    for _ in range(18):  # latent weights are looked at in the first ones; what is to be compiled is
        made.step()
    return made.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--width", type=int, default=1024, help="1024: 1.9 M weights; 4096: 20 M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of a penalty's name")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    rows = []
    for optimizer, penalty in itertools.product(OPTIMIZERS, [name for name in PENALTIES if given.only in name]):
        variants = {
            "bare": stepper(given.width, optimizer, None, compile=False),
            "plain": stepper(given.width, optimizer, penalty, compile=False),
            "compiled": stepper(given.width, optimizer, penalty, compile=True),
        }
        found = ratios(variants, baseline="bare", rounds=given.rounds, repeats=1)
        rows.append([optimizer, penalty, f"{found['plain']:.2f}", f"{found['compiled']:.2f}"])
    title = f"Optimizer step alone, × fused without penalty (width {given.width}, {given.threads} threads)"
    print(table(title, ["optimizer", "penalty", "plain", "compiled"], rows))


if __name__ == "__main__":
    main()
