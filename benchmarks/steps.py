"""Claim: a penalty costs little beside the fastest optimizer that people have, and solves for the strength given.

The base is the same step without a penalty, under ``fused=True``. Each way to penalise is timed twice, the optimizer's
step alone and the whole step (forward, backward, update), as medians of interleaved pairs; beside that stand the peak
of memory in training, and what the way solves: the strength at its end and the zeros, on a lasso or a ridge whose
answer is known (`truth`). Ways of torchao and of pytorch_optimizer are measured where these are installed.

``python benchmarks/steps.py --models "2 M MLP" --threads 1``
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import itertools
import multiprocessing
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

import torchshrink as ts
from timing import ratios, table
from torchshrink.penalties import Penalty
from torchshrink.regularizer.attachment.rho import LOOKS
from truth import STRENGTH, Problem

Make = Callable[..., Optimizer]

SMALL = 1e-5
"""The strength while time is taken: nothing becomes zero so soon, so that all do the same work."""


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, 10))


def transformer(width: int, layers: int) -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, layers), nn.Flatten(), nn.Linear(16 * width, 10))


@dataclass(frozen=True)
class Task:
    """A model, the shape of a row, and how many rows are in a batch."""

    build: Callable[[], nn.Sequential]
    row: tuple[int, ...]
    batch: int = 64
    repeats: int = 1


MODELS = {
    "0.1 M MLP": Task(partial(mlp, 64, 256, 256, 10), (64,), repeats=20),
    "2 M MLP": Task(partial(mlp, 784, 1024, 1024, 10), (784,)),
    "20 M MLP": Task(partial(mlp, 784, 3072, 3072, 2560, 10), (784,)),
    "100 M MLP": Task(partial(mlp, 1024, 7168, 7168, 5632, 10), (1024,)),
    "0.4 M conv net": Task(partial(conv, 64), (3, 16, 16)),
    "13 M transformer": Task(partial(transformer, 512, 4), (16, 512), batch=8),
}
OPTIMIZERS: dict[str, Make] = {
    "SGD": partial(SGD, lr=1e-3, momentum=0.9, fused=True),
    "Adam": partial(Adam, lr=1e-4, fused=True),
}

Attach = dict[str, object]


@dataclass(frozen=True)
class Way:
    """How a penalty acts: added to the loss, by the optimizer's own decay, attached, or by an optimizer of a peer's.

    Attributes:
        make: the penalty of a strength.
        term: as a term in the loss, by hand.
        value: by `ts.Regularizer.value`.
        decay: by ``weight_decay``.
        attach: with these arguments.
        peer: the optimizer of another library, from the parameters, what makes its base, and the strength.
        package: whose it is.
    """

    make: Callable[[float], Penalty] = ts.L1
    term: bool = False
    value: bool = False
    decay: bool = False
    attach: Attach | None = None
    peer: Callable[[list[nn.Parameter], Make, float], Optimizer] | None = None
    package: str = "torch"

    def optimizer(self, parameters: Iterable[nn.Parameter], make: Make, strength: float) -> Optimizer:
        """As the way needs it."""
        if self.peer is not None:
            return self.peer([*parameters], make, strength)
        return make(parameters, **({"weight_decay": 2 * strength} if self.decay else {}))


def _elastic(strength: float) -> Penalty:
    return ts.ElasticNet(strength, strength / 10)


def _pruned(prox: str, groups: str, parameters: list[nn.Parameter], make: Make, strength: float) -> Optimizer:
    """A pruning optimizer of torchao's: matrices under its prox."""
    from torchao.prototype.pat.optim import PruneOptimizer

    penalised = [p for p in parameters if p.ndim > 1]
    by_prox = {"params": penalised, "prox_type": prox, "group_type": groups, "reg_lambda": strength}
    rest = [{"params": [p for p in parameters if p.ndim < 2]}] if len(penalised) < len(parameters) else []
    return PruneOptimizer(make([by_prox, *rest]))


def _decayed(parameters: list[nn.Parameter], make: Make, strength: float) -> Optimizer:
    """The nearest of pytorch_optimizer's own, whose Adam and SGD are torch's: decay apart from the gradient."""
    import pytorch_optimizer

    base = make(parameters)
    lr = base.param_groups[0]["lr"]
    if isinstance(base, SGD):
        return pytorch_optimizer.SGDW(parameters, lr=lr, momentum=0.9, weight_decay=2 * strength)
    return pytorch_optimizer.StableAdamW(parameters, lr=lr, weight_decay=2 * strength)


WAYS = {
    "no penalty": Way(),
    "torch's weight_decay (L2)": Way(ts.L2, decay=True),
    "pytorch_optimizer's SGDW or StableAdamW, weight_decay": Way(ts.L2, peer=_decayed, package="pytorch_optimizer"),
    "λ·Σ\\|w\\| in the loss": Way(term=True),
    "torchao's ProxLasso": Way(peer=partial(_pruned, "ProxLasso", "ElemGrouper"), package="torchao"),
    "torchao's ProxGroupLasso": Way(
        ts.GroupLasso, peer=partial(_pruned, "ProxGroupLasso", "Dim0Grouper"), package="torchao"
    ),
    "`value()`, L1": Way(value=True),
    "`value()`, group lasso": Way(ts.GroupLasso, value=True),
    "`attach`, L1": Way(attach={}),
    "`attach`, L1, compiled": Way(attach={"compile": True}),
    "`attach`, L1, latent": Way(attach={"method": "latent"}),
    "`attach`, L1, latent, compiled": Way(attach={"method": "latent", "compile": True}),
    "`attach`, elastic net": Way(_elastic, attach={}),
    "`attach`, elastic net, compiled": Way(_elastic, attach={"compile": True}),
    "`attach`, group lasso": Way(ts.GroupLasso, attach={}),
    "`attach`, group lasso, compiled": Way(ts.GroupLasso, attach={"compile": True}),
    "`attach`, group lasso, latent": Way(ts.GroupLasso, attach={"method": "latent"}),
}


def training(task: Task, make: Make, way: Way) -> tuple[Callable[[], None], Callable[[], None]]:
    """The optimizer's step alone, and the whole step."""
    torch.manual_seed(0)
    model = task.build()
    x, y = torch.randn(task.batch, *task.row), torch.randint(10, (task.batch,))
    optimizer = way.optimizer(model.parameters(), make, SMALL)
    reg = ts.Regularizer(model, way.make(SMALL))
    if way.attach is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ts.errors.ObjectiveWarning)
            reg.attach(optimizer, **{"method": "prox", **way.attach})  # type: ignore[arg-type]
    weights = [p for name, p in model.named_parameters() if p.ndim > 1]

    def whole() -> None:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        if way.value:
            loss = loss + reg.value()
        elif way.term:
            loss = loss + SMALL * sum((p.abs().sum() for p in weights), torch.zeros(()))
        loss.backward()
        optimizer.step()

    for _ in range(LOOKS + 2):  # the optimizer's state, what is compiled, the first looks at latent weights
        whole()
    return optimizer.step, whole


def ways() -> dict[str, Way]:
    """Those whose packages are installed."""
    return {name: way for name, way in WAYS.items() if importlib.util.find_spec(way.package)}


def timed(model: str, optimizer: str, *, rounds: int) -> dict[str, list[float]]:
    """By way, both ratios: one way after another beside the base, so that no more than two models are in memory."""
    task, make, found = MODELS[model], OPTIMIZERS[optimizer], {}
    base = training(task, make, WAYS["no penalty"])
    for name, way in ways().items():
        mine = training(task, make, way)
        found[name] = [
            ratios({"base": base[i], name: mine[i]}, baseline="base", rounds=rounds, repeats=task.repeats)[name]
            for i in range(2)
        ]
    return found


def peak(model: str, optimizer: str, name: str) -> float:
    """Kilobytes at most of model, batch, optimizer and five steps, beside the imports'; Linux. The least of three."""
    found: list[float] = []
    for _ in range(3):  # each in a process of its own
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_peak, args=(model, optimizer, name, there))
        process.start()
        found.append(here.recv())
        process.join()
    return min(found)


def _peak(model: str, optimizer: str, name: str, out: object) -> None:
    torch.set_num_threads(1)
    training(MODELS["0.1 M MLP"], OPTIMIZERS[optimizer], WAYS[name])  # what is loaded at a first use, the compiler too
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free here would be used below, and not be counted
    before = _status("VmRSS")
    _, whole = training(MODELS[model], OPTIMIZERS[optimizer], WAYS[name])
    for _ in range(5):
        whole()
    out.send(_status("VmHWM") - before)  # type: ignore[attr-defined]


def _status(name: str) -> float:
    """A line of the kernel's; ``getrusage`` would say the most that the starting process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def solved(way: Way, make: Make) -> str:
    """The strength at the end of a lasso, or of a ridge, and how many of the lasso's ten weights are zero."""
    problem, ridge = Problem(), way.make is ts.L2

    def term(w: Tensor) -> Tensor:
        return STRENGTH * w.abs().sum()

    w = problem.train(
        lambda parameters: way.optimizer(parameters, partial(make, lr=0.1), STRENGTH),
        attached=way.make(STRENGTH) if way.attach is not None else None,
        term=term if way.term or way.value else None,
    )
    asked = -problem.gradient(w) / (2 * w) if ridge else (-problem.gradient(w) * w.sign())[w != 0]
    if not len(asked):
        return "all zero"
    middle = float(asked.median())
    agreed = bool((asked - middle).abs().max() <= 1e-6 * abs(middle))
    strength = "none" if not agreed else "λ" if abs(middle / STRENGTH - 1) < 1e-6 else f"{middle / STRENGTH:.3g}·λ"
    return strength if ridge else f"{strength}, {int((w == 0).sum())} zeros"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["0.1 M MLP", "2 M MLP", "20 M MLP"], choices=MODELS)
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--memory", action="store_true", help="measure the peak of memory too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for model, optimizer in itertools.product(arguments.models, arguments.optimizers):
        found = timed(model, optimizer, rounds=arguments.rounds)
        bare = peak(model, optimizer, "no penalty") if arguments.memory else 0.0
        rows = []
        for name, (alone, whole) in found.items():
            way = WAYS[name]
            lasso_or_ridge = way.make in (ts.L1, ts.L2) and name != "no penalty"
            truth = solved(way, OPTIMIZERS[optimizer]) if lasso_or_ridge else ""
            memory = f"{peak(model, optimizer, name) / bare:.3f}" if arguments.memory else ""
            rows.append([name, f"{alone:.2f}", f"{whole:.2f}", memory, truth])
        title = f"{model}, fused {optimizer}, threads: {arguments.threads}"
        header = ["how", "optimizer's step", "whole step", "peak memory", "solves (4 zeros are right for L1)"]
        print(table(title, header, rows), flush=True)


if __name__ == "__main__":
    main()
