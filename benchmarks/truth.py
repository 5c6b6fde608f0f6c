"""Claim: at which strength the weights end depends on how a penalty acts, and attached it is the one asked for.

Linear regression on scikit-learn's diabetes, standardised, full batch, float64, until nothing moves. Which strength the
final weights solve is read off their optimality conditions: at a lasso solution the loss's gradient is −λ·sign(w) on
every weight that is not zero, at a ridge solution −2λ·w on every weight. Where no one λ fits them all, none is solved.

    python benchmarks/truth.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

import torchshrink as ts
from timing import table
from torchshrink.penalties.proximal import soft_threshold

STRENGTH, LR, STEPS = 0.05, 0.1, 1500
TITLE = "Which strength is solved"
HEADER = ["how the penalty acts", "optimizer", "strength solved", "zeros", "off scikit-learn's solution by"]

Make = Callable[..., Optimizer]
PLAIN, MOMENTUM = partial(SGD, lr=LR), partial(SGD, lr=LR, momentum=0.9)
ADAM, ADAMW = partial(Adam, lr=LR), partial(AdamW, lr=LR)
MUON = partial(Muon, lr=LR / 5, weight_decay=0.0)
BY_HAND = {"term": lambda w: STRENGTH * w.abs().sum()}
THRESHOLD = {"threshold": LR * STRENGTH}
L1, L2 = {"attached": ts.L1(STRENGTH)}, {"attached": ts.L2(STRENGTH)}

LASSO: list[tuple[str, str, Make, dict[str, Any]]] = [
    ("λ·Σ\\|w\\| added to the loss", "SGD", PLAIN, BY_HAND),
    ("λ·Σ\\|w\\| added to the loss", "Adam", ADAM, BY_HAND),
    ("soft threshold lr·λ after the step", "SGD", PLAIN, THRESHOLD),
    ("soft threshold lr·λ after the step", "SGD, momentum 0.9", MOMENTUM, THRESHOLD),
    ("soft threshold lr·λ after the step", "Adam", ADAM, THRESHOLD),
    ("`ts.L1(λ)`, attached", "SGD, momentum 0.9", MOMENTUM, L1),
    ("`ts.L1(λ)`, attached", "Adam", ADAM, L1),
    ("`ts.L1(λ)`, attached", "Muon, a rate that falls", MUON, {**L1, "falls": True}),
]
RIDGE: list[tuple[str, str, Make, dict[str, Any]]] = [
    ("`weight_decay=2λ`", "Adam", partial(ADAM, weight_decay=2 * STRENGTH), {}),
    ("`weight_decay=2λ`", "AdamW", partial(ADAMW, weight_decay=2 * STRENGTH), {}),
    ("`ts.L2(λ)`, attached", "AdamW, `weight_decay=0`", partial(ADAMW, weight_decay=0.0), L2),
]


@dataclass(frozen=True)
class Row:
    """A way to penalise, an optimizer, and where the two end. ``solved`` is None where no one strength fits."""

    way: str
    optimizer: str
    solved: float | None
    zeros: int
    difference: float

    def cells(self) -> list[str]:
        """For people. What is down to rounding is not told apart, so that every machine prints the same."""
        factor = None if self.solved is None else self.solved / STRENGTH
        solved = "none" if factor is None else "λ" if abs(factor - 1) < 1e-6 else f"{factor:.3g}·λ"
        difference = "< 1e-9" if self.difference < 1e-9 else f"{self.difference:.1g}"
        return [self.way, self.optimizer, solved, str(self.zeros), difference]


class Problem:
    """½·mean squares on diabetes, X (442, 10) and y standardised, and scikit-learn's solutions."""

    def __init__(self) -> None:
        X, y = load_diabetes(return_X_y=True)
        X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
        self.lasso = torch.from_numpy(Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X, y).coef_)
        self.ridge = torch.from_numpy(Ridge(alpha=2 * STRENGTH * len(y), tol=1e-14).fit(X, y).coef_)
        self._X, self._y = torch.from_numpy(X), torch.from_numpy(y)

    def gradient(self, w: Tensor) -> Tensor:
        """Of the loss alone."""
        return self._X.T @ (self._X @ w - self._y) / len(self._y)

    def train(
        self,
        make: Make,
        *,
        attached: ts.Penalty | None = None,
        term: Callable[[Tensor], Tensor] | None = None,
        threshold: float | None = None,
        falls: bool = False,
    ) -> Tensor:
        """The final weights (10,): with a penalty attached, with a term in the loss, or thresholded by hand."""
        model = nn.Linear(10, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(model.weight)
        optimizer = make(model.parameters())
        if attached is not None:
            ts.Regularizer(model, attached).attach(optimizer)
        rate = optimizer.param_groups[0]["lr"]
        for step in range(STEPS):
            if falls:  # Muon's steps are as long as its rate
                optimizer.param_groups[0]["lr"] = rate * 1e-8 ** (step / STEPS)
            optimizer.zero_grad()
            w = model.weight[0]
            loss = (self._X @ w - self._y).square().mean() / 2
            (loss if term is None else loss + term(w)).backward()
            optimizer.step()
            if threshold is not None:
                with torch.no_grad():
                    model.weight.copy_(soft_threshold(model.weight, threshold))
        return model.weight.detach()[0]


def rows() -> list[Row]:
    """The lasso's rows, then the ridge's."""
    problem = Problem()
    found = []
    for way, optimizer, make, how in LASSO:
        w = problem.train(make, **how)
        asked = (-problem.gradient(w) * w.sign())[w != 0]
        found.append(_row(way, optimizer, w, asked, problem.lasso))
    for way, optimizer, make, how in RIDGE:
        w = problem.train(make, **how)
        found.append(_row(way, optimizer, w, -problem.gradient(w) / (2 * w), problem.ridge))
    return found


def _row(way: str, optimizer: str, w: Tensor, asked: Tensor, expected: Tensor) -> Row:
    """``asked``: the strength that each weight asks for; what is solved is where they agree."""
    middle = float(asked.median())
    agreed = bool((asked - middle).abs().max() <= 1e-6 * abs(middle))
    difference = float((w - expected).abs().max())
    return Row(way, optimizer, middle if agreed else None, int((w == 0).sum()), difference)


def main() -> None:
    torch.set_num_threads(1)
    print(table(TITLE, HEADER, [row.cells() for row in rows()]))


if __name__ == "__main__":
    main()
