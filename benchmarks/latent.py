"""Claim: which method ends nearer to a stationary point of F, prox or latent weights, and with which model.

Networks on minibatches, under Adam, SGD with momentum, and Muon (with Adam for what is no matrix). For each task,
optimizer and method the rate is chosen from three by F after training with seed 0, all alike; then three seeds.
Columns: F on the training rows; the certificate's relative distance; loss on other rows; the share of zeros; zeros
that changed in the second half, per weight; and the processor time of a training over the
bare optimizer's.

``python benchmarks/latent.py --tasks digits conv --seeds 3``
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torchshrink as ts
from timing import table
from torchshrink.penalties import Penalty

BATCH, EPOCHS = 64, 40
RATES = {"Adam": (3e-3, 1e-3, 3e-4), "momentum": (0.1, 0.03, 0.01), "Muon": (0.03, 0.01, 0.003)}

Data = tuple[Tensor, Tensor, Tensor, Tensor]


# --- data ---


def digits(shape: tuple[int, ...] = (64,)) -> Data:
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16.0, dtype=torch.float32).reshape(-1, *shape), torch.tensor(y)
    rows = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return X[rows[:1200]], y[rows[:1200]], X[rows[1200:]], y[rows[1200:]]


def signals(shape: tuple[int, ...] = (40,)) -> Data:
    """Ten templates of 12 values, stretched, shifted, scaled and noisy in 40, as in MNIST-1D."""
    draw = torch.Generator().manual_seed(0)
    templates = torch.randn(10, 1, 12, generator=draw).cumsum(2)
    y = torch.randint(10, (3000,), generator=draw)
    X = 0.3 * torch.randn(3000, 40, generator=draw)
    for i, label in enumerate(y.tolist()):
        width = int(torch.randint(12, 25, (), generator=draw))
        at = int(torch.randint(40 - width + 1, (), generator=draw))
        wave = nn.functional.interpolate(templates[label : label + 1], size=width, mode="linear")[0, 0]
        X[i, at : at + width] += wave * (0.7 + 0.6 * torch.rand((), generator=draw))
    return X[:2000].reshape(-1, *shape), y[:2000], X[2000:].reshape(-1, *shape), y[2000:]


def sequences() -> Data:
    """Twelve tokens of 8 kinds; the class is the kind that follows the first 0, or 0."""
    draw = torch.Generator().manual_seed(0)
    X = torch.randint(8, (3000, 12), generator=draw)
    X[:, -1] = X[:, -1].clamp(min=1)
    first = (X == 0).long().argmax(1)
    following = X.gather(1, (first + 1).clamp(max=11)[:, None])[:, 0]
    y = torch.where((X == 0).any(1), following, 0)
    return X[:2000], y[:2000], X[2000:], y[2000:]


# --- models ---


class Residual(nn.Module):
    """Three residual blocks with normalisation before each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)) for _ in range(3)
        )
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x.relu().mean((2, 3)))


class Transformer(nn.Module):
    """Two layers of four heads, 32 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(8, 32), nn.Parameter(0.1 * torch.randn(12, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.head(self.encoder(self.embed(x) + self.place).mean(1))


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv() -> nn.Sequential:
    layers = [nn.Conv1d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv1d(16, 16, 3, stride=2), nn.ReLU()]
    layers += [nn.Conv1d(16, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)]
    net = nn.Sequential(*layers)
    net(torch.zeros(1, 1, 40))
    return net


@dataclass(frozen=True)
class Task:
    """What is learnt by what, under which penalty."""

    data: Callable[[], Data]
    build: Callable[[], nn.Module]
    penalty: Penalty


net = partial(mlp, 64, 64, 32, 10)
TASKS = {
    "digits, L1": Task(digits, net, ts.L1(1e-3)),
    "digits, groups": Task(digits, net, ts.GroupLasso(5e-4)),
    "digits, MCP": Task(digits, net, ts.MCP(2e-3)),
    "digits, nuclear norm": Task(digits, net, ts.NuclearNorm(3e-3)),
    "signals, MLP": Task(signals, partial(mlp, 40, 100, 100, 10), ts.L1(5e-4)),
    "signals, convolutions": Task(partial(signals, (1, 40)), conv, ts.L1(5e-4)),
    "digits, residual": Task(partial(digits, (1, 8, 8)), Residual, ts.L1(3e-4)),
    "sequences, transformer": Task(sequences, Transformer, ts.L1(2e-4)),
}


# --- trainings ---


def optimizers(name: str, model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """One for all parameters, or Muon for the matrices and Adam for the rest."""
    if name == "Adam":
        return [torch.optim.Adam(model.parameters(), lr=rate)]
    if name == "momentum":
        return [torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)]
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "place" not in n]
    rest = [p for p in model.parameters() if not any(p is q for q in matrices)]
    return [torch.optim.Muon(matrices, lr=rate, weight_decay=0.0), torch.optim.Adam(rest, lr=rate / 10)]


def train(task: Task, optimizer: str, method: str, *, rate: float, seed: int, epochs: int) -> dict[str, float]:
    X, y, X_other, y_other = task.data()
    torch.manual_seed(seed)
    model = task.build()
    made = optimizers(optimizer, model, rate)
    whole = ts.Regularizer(model, task.penalty)
    attached = []
    for each in made if method != "none" else ():
        held = {id(p) for group in each.param_groups for p in group["params"]}
        names = [term.name for term in whole.terms if id(term.parameter) in held]
        if names:
            rules = dict.fromkeys(names, task.penalty)
            known = method if method == "latent" or not isinstance(each, torch.optim.Muon) else "latent"
            attached.append(ts.Regularizer(model, rules).attach(each, method=known))
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(each, epochs) for each in made]
    flips, last, seconds = 0, None, 0.0
    for epoch in range(epochs):
        for rows in torch.randperm(len(X)).split(BATCH):
            start = time.process_time()
            for each in made:
                each.zero_grad()
            cross_entropy(model(X[rows]), y[rows]).backward()
            for each in made:
                each.step()
            seconds += time.process_time() - start
            if epoch >= epochs // 2 and method != "none":
                zeros = torch.cat([(term.parameter == 0).flatten() for term in whole.terms])
                flips += 0 if last is None else int((zeros != last).sum())
                last = zeros
        for scheduler in schedulers:
            scheduler.step()
    for reg in attached:
        reg.detach()

    def closure() -> Tensor:
        model.zero_grad()
        loss = cross_entropy(model(X), y)
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certificate = whole.certify(closure)
    with torch.no_grad():
        other = float(cross_entropy(model.eval()(X_other), y_other))
    weights = sum(term.parameter.numel() for term in whole.terms)
    return {
        "F": certificate.objective,
        "certificate": certificate.relative,
        "validation loss": other,
        "zeros": whole.sparsity().zeros / weights,
        "flips per weight": flips / weights,
        "seconds": seconds,
    }


def chosen(task: Task, optimizer: str, method: str, epochs: int) -> float:
    """The rate of three with the least F, or validation loss where there is no penalty."""
    measure = "validation loss" if method == "none" else "F"
    found = {r: train(task, optimizer, method, rate=r, seed=0, epochs=epochs)[measure] for r in RATES[optimizer]}
    return min(found, key=found.__getitem__)


def possible(task: Task, optimizer: str, method: str) -> bool:
    if method == "prox" and optimizer == "Muon":
        return False
    return not (method == "prox" and optimizer == "Adam" and isinstance(task.penalty, ts.NuclearNorm))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    for name in arguments.tasks:
        task = TASKS[name]
        for optimizer in RATES:
            for method in ("none", "prox", "latent"):
                if not possible(task, optimizer, method):
                    continue
                rate = chosen(task, optimizer, method, arguments.epochs)
                runs = [
                    train(task, optimizer, method, rate=rate, seed=seed, epochs=arguments.epochs)
                    for seed in range(arguments.seeds)
                ]
                if method == "none":
                    base = statistics.median(run["seconds"] for run in runs)
                cells = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                cells["seconds"] /= base
                row = [name, optimizer, method, f"{rate:g}", *(f"{value:.3g}" for value in cells.values())]
                rows.append(row)
                print(" | ".join(row), flush=True)
    header = ["task", "optimizer", "method", "rate", "F", "certificate", "validation loss", "zeros", "flips/weight"]
    print(table(f"Prox and latent weights, {arguments.epochs} epochs", [*header, "time × none"], rows))


if __name__ == "__main__":
    main()
