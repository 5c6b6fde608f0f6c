"""Claim: a penalty ends where it should under every optimizer, as exactly as that optimizer ends anything.

Diabetes, standardised, ½ mean squares, all rows, from torch's own start. Ridge by the gradient method is the control:
what the optimizer leaves there it leaves anywhere. Lasso is by whatever ``auto`` takes. Of three rates the best on
ridge, below 1e-12 the largest; each stays for the first half of the steps and falls by six decades in the second, but
where the note says otherwise. Columns: largest error of a weight against the closed form and against scikit-learn;
zeros (4 in the solution); and how weight decay acts.

``python benchmarks/optimizers.py [--only Muon Lion]``; what is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
import warnings
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.optim import Optimizer

import torchshrink as ts
from torchshrink.step_sizes import weight_decay_kind

STRENGTH, STEPS = 0.05, 2000
FAST, SLOW, SLOWEST = (0.3, 0.1, 0.03), (0.1, 0.03, 0.01), (0.01, 0.003, 0.001)
QUANTISED = 512  # rows of weights, all with the same target: smaller tensors are not quantised
FLAGS = ("weight_decouple", "decoupled_weight_decay", "decoupled_decay", "decoupled")


@dataclass(frozen=True)
class Row:
    """An optimizer and how it is trained."""

    name: str
    rates: tuple[float, ...] = SLOW
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    falls: bool = True
    closure: bool = False
    outputs: int = 1
    dtype: torch.dtype = torch.float64
    steps: int = STEPS

    def make(self, model: nn.Module, rate: float) -> Optimizer:  # noqa: D102
        module, _, last = self.name.rpartition(".")
        cls = getattr(import_module(module), last)
        given: Any = model.parameters()
        if self.name == "pytorch_optimizer.Muon":
            given = [{"params": list(given), "use_muon": True}]
        if last == "Lookahead":
            return cls(torch.optim.AdamW(given, lr=rate, weight_decay=0.0), **self.settings)
        if last == "AdamMini":
            given = model
        return cls(given, **{"lr": rate, **self.settings})


def of(library: str, names: str, **more: Any) -> list[Row]:
    return [Row(f"{library}.{name}", **more) for name in names.split()]


NO_DECAY = {"weight_decay": 0.0}
EIGHT_BITS: dict[str, Any] = {
    "outputs": QUANTISED,
    "dtype": torch.float32,
    "settings": NO_DECAY,
    "note": "float32",
    "steps": 1000,
}
ROWS = [
    *of("torch.optim", "SGD", rates=FAST, settings={"momentum": 0.9}, note="momentum 0.9"),
    *of("torch.optim", "Adam Adafactor RMSprop Rprop"),
    *of("torch.optim", "Muon", settings=NO_DECAY),
    *of("torch.optim", "LBFGS", rates=(1.0, 0.3, 0.1), closure=True, steps=300, note="closure"),
    *of("pytorch_optimizer", "ADOPT AdEMAMix AdaBelief AdaBound AdaFactor AdaMax AdamP Adan CAME DiffGrad Grams Kron"),
    *of("pytorch_optimizer", "LaProp Lamb MADGRAD MARS NovoGrad PAdam QHAdam RAdam Ranger SCION", settings=NO_DECAY),
    *of("pytorch_optimizer", "SOAP ScalableShampoo StableAdamW StableSPAM Yogi", settings=NO_DECAY),
    *of("pytorch_optimizer", "Lion Tiger SignSGD", rates=SLOWEST, settings=NO_DECAY),
    *of("pytorch_optimizer", "Muon", settings=NO_DECAY),
    *of("pytorch_optimizer", "SGDW SGDP", rates=FAST, settings={"momentum": 0.9}, note="momentum 0.9"),
    *of("pytorch_optimizer", "LARS FTRL Shampoo AdaDelta", rates=(1.0, *FAST)),
    *of("pytorch_optimizer", "Prodigy DAdaptAdam", rates=(1.0, 0.3), note="finds its rate"),
    *of("pytorch_optimizer", "Ranger21", settings={"num_iterations": STEPS, **NO_DECAY}, note="a schedule of its own"),
    *of("pytorch_optimizer", "AdamMini", settings=NO_DECAY),
    *of("pytorch_optimizer", "AdaHessian SophiaH", closure=True, note="closure with create_graph"),
    *of("pytorch_optimizer", "Lookahead", note="around AdamW"),
    *of("pytorch_optimizer", "SPlus", settings={"ema_rate": 0.9, **NO_DECAY}, note="ema_rate 0.9, after eval()"),
    *of("pytorch_optimizer", "Nero", rates=FAST, note="keeps each row's norm"),
    *of("pytorch_optimizer", "ScheduleFreeAdamW ScheduleFreeRAdam", falls=False, note="constant rate, after eval()"),
    *of("pytorch_optimizer", "ScheduleFreeSGD", rates=(1.0, *FAST), falls=False, note="constant rate, after eval()"),
    *of("schedulefree", "AdamWScheduleFree RAdamScheduleFree", falls=False, note="constant rate, after eval()"),
    *of("schedulefree", "SGDScheduleFree", rates=(1.0, *FAST), falls=False, note="constant rate, after eval()"),
    *of(
        "timm.optim",
        "AdamWLegacy NAdamW NAdamLegacy RAdamLegacy RMSpropTF AdamP Adan Adopt AdaBelief",
        settings=NO_DECAY,
    ),
    *of("timm.optim", "LaProp Lamb MADGRAD Mars Muon NvNovoGrad AdafactorBigVision", settings=NO_DECAY),
    *of("timm.optim", "SGDW SGDP", rates=FAST, settings={"momentum": 0.9, **NO_DECAY}, note="momentum 0.9"),
    *of("timm.optim", "Lars", rates=(1.0, *FAST)),
    *of("timm.optim", "Lion", rates=SLOWEST, settings=NO_DECAY),
    *of("timm.optim", "Lookahead", note="around AdamW"),
    *of("transformers.optimization", "AdamW"),
    *of("transformers.optimization", "Adafactor", settings={"relative_step": False, "scale_parameter": False}),
    *of("bitsandbytes.optim", "AdamW Adam8bit AdamW8bit AdEMAMix8bit", **EIGHT_BITS),
    *of("bitsandbytes.optim", "Lion8bit", **{**EIGHT_BITS, "rates": SLOWEST}),
    *of("torchao.optim", "AdamW8bit AdamW4bit AdamWFp8", **EIGHT_BITS),
]


# --- the problems ---


@functools.cache
def data() -> tuple[Tensor, Tensor]:
    X, y = load_diabetes(return_X_y=True)
    return torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor((y - y.mean()) / y.std())[:, None]


@functools.cache
def solution(name: str) -> Tensor:
    X, y = data()
    if name == "lasso":
        found = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X.numpy(), y.numpy()[:, 0])
        return torch.tensor(found.coef_)
    return torch.linalg.solve(X.T @ X / len(X) + 2 * STRENGTH * torch.eye(10, dtype=X.dtype), X.T @ y / len(X))[:, 0]


class Problem(nn.Module):
    """½ mean squares, summed over outputs."""

    def __init__(self, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        X, y = data()
        self.weight = nn.Parameter(nn.Linear(10, outputs, dtype=dtype).weight.detach().clone())
        self.covariance = (X.T @ X / len(X)).to(dtype)
        self.correlation = (y.T @ X / len(X)).to(dtype)

    def gradient(self) -> Tensor:  # noqa: D102
        return self.weight.detach() @ self.covariance - self.correlation

    def loss(self) -> Tensor:  # noqa: D102
        return (self.weight * (0.5 * self.weight @ self.covariance - self.correlation)).sum()


def train(row: Row, rate: float, name: str) -> tuple[float, float, str, Optimizer]:
    """Error, zeros per output, how the penalty acted, and the optimizer."""
    torch.manual_seed(0)
    problem = Problem(row.outputs, row.dtype)
    optimizer = row.make(problem, rate)
    penalty, method = (ts.L1(STRENGTH), "auto") if name == "lasso" else (ts.L2(STRENGTH), "gradient")
    regularizer = ts.Regularizer(problem, penalty).attach(optimizer, method)
    exchange(optimizer, "train")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward(create_graph="create_graph" in row.note)
        return loss

    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(row.steps):
        if row.falls:
            for group, start in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = start * 10 ** (-6 * max(0.0, 2 * step / row.steps - 1))
        if row.closure:
            optimizer.step(closure)
        else:
            problem.weight.grad = problem.gradient()
            optimizer.step()
    exchange(optimizer, "eval")
    w = problem.weight.detach()
    error = float((w - solution(name)).abs().max())
    return error, int((w == 0).sum()) / row.outputs, regularizer.methods["weight"], optimizer


def exchange(optimizer: Optimizer, mode: str) -> None:
    method = getattr(optimizer, mode, None)
    if callable(method):
        method()


def decay(optimizer: Optimizer) -> str:
    if type(optimizer).__name__ == "Lookahead":
        return "AdamW's"
    group = optimizer.param_groups[0]
    if "weight_decay" not in group:
        return "has none"
    flag = next((flag for flag in FLAGS if flag in group), None)
    kinds = {weight_decay_kind(optimizer, group if flag is None else {**group, flag: on}) for on in (True, False)}
    return kinds.pop() if len(kinds) == 1 else f"by `{flag}`"


def measured(row: Row) -> list[str]:
    library = row.name.split(".")[0]
    name = f"{row.name} {metadata.version(library)}".replace("+cpu", "")
    controls, ends = {}, {}
    for rate in row.rates:
        error = ends[rate] = train(row, rate, "ridge")[0]
        controls[rate] = max(error, 1e-12) if math.isfinite(error) else math.inf
    rate = min(controls, key=controls.__getitem__)
    error, zeros, method, optimizer = train(row, rate, "lasso")
    cells = [name, method, f"{ends[rate]:.0e}", f"{error:.0e}", f"{zeros:g}", decay(optimizer)]
    return [*cells, ", ".join(filter(None, [f"rate {rate:g}", row.note]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="names, or the beginnings of names' last parts")
    only = tuple(parser.parse_args().only)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| optimizer | `auto` takes | ridge | lasso | zeros | weight decay | note |\n|---|---|---|---|---|---|---|")
    start, left_out = time.perf_counter(), []
    for row in ROWS:
        if not (row.name.startswith(only) or row.name.rpartition(".")[2].startswith(only)):
            continue
        try:
            cells = measured(row)
        except (ImportError, AttributeError) as error:
            left_out.append(f"{row.name} ({error})")
            continue
        except Exception as error:
            cells = [row.name, *[""] * 5, f"{type(error).__name__}: {error}".splitlines()[0][:120]]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if left_out:
        print("Left out: " + "; ".join(left_out))


if __name__ == "__main__":
    main()
