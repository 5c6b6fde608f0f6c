"""How often early dropping loses the strength that would have ended best, what that costs, and what it saves.

Every run trains 24 strengths × 5 folds to the end as lanes, keeping the held-out losses at the looks, and then asks the
rule what it would have dropped: nothing that is dropped touches what stays. Each seed draws its own rows, label noise,
folds and initial weights. ``naive`` drops at one look whoever is then significantly behind the leader, by the same
tests at the same level, and looks at nothing else.

    python benchmarks/racing.py [--seeds 60]
    python benchmarks/racing.py --simulate    # equal strengths, told apart by the luck of their trainings alone
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import torchshrink as ts
from torchshrink.models import mlp
from torchshrink.path.family import families
from torchshrink.path.folds import Fold, make_folds
from torchshrink.path.lanes import Stack
from torchshrink.path.racing import Race, looks_of
from torchshrink.path.recipe import prepare
from torchshrink.path.verdict import mean_and_error
from torchshrink.selection import WEIGHTS

STRENGTHS, FOLDS = 24, 5
NAIVE = ("1/6", "1/3", "1/2")  # after which shares of the epochs the naive rule drops: the first of the looks
ADAM, SGD = partial(torch.optim.Adam, lr=5e-3), partial(torch.optim.SGD, lr=0.02, momentum=0.9)

# data, penalty, its largest strength (about where the model learns nothing, as on an automatic grid), optimizer, epochs
SETTINGS = {
    "digits, L1": ("digits", ts.L1, 0.05, ADAM, 40),
    "digits, L2": ("digits", ts.L2, 0.5, ADAM, 40),
    "digits, L2, slow": ("digits", ts.L2, 0.3, SGD, 40),
    "digits, L1, short": ("digits", ts.L1, 0.05, ADAM, 12),
    "digits, L2, short": ("digits", ts.L2, 0.5, ADAM, 12),
    "diabetes, L1": ("diabetes", ts.L1, 0.3, ADAM, 40),
    "diabetes, L2": ("diabetes", ts.L2, 1.5, ADAM, 40),
    "breast cancer, L1": ("breast_cancer", ts.L1, 0.1, ADAM, 40),
    "breast cancer, L2": ("breast_cancer", ts.L2, 0.9, ADAM, 40),
}


class Recorded:
    """A race in which nobody leaves; each look's losses are kept."""

    def __init__(self, epochs: int) -> None:
        self.looks = (*looks_of(epochs), epochs)
        self.seen: dict[int, NDArray[np.float64]] = {}

    def look(self, epoch: int, losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As `Race.look`."""
        self.seen[epoch] = losses
        return np.zeros(len(losses), dtype=bool)


def data(name: str, seed: int) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    generator = np.random.default_rng(seed)
    load = {"digits": load_digits, "diabetes": load_diabetes, "breast_cancer": load_breast_cancer}[name]
    X, y = load(return_X_y=True)
    rows = generator.permutation(len(y))[:300]
    X, y = X[rows].astype(np.float32), y[rows]
    if name == "diabetes":
        return X, ((y - y.mean()) / y.std()).astype(np.float32)
    wrong = generator.random(len(y)) < 0.1
    y[wrong] = generator.integers(y.max() + 1, size=wrong.sum())
    return X, y


def one(setting: str, seed: int) -> dict[str, float]:
    name, penalty, top, optimizer, epochs = SETTINGS[setting]
    X, y = data(name, seed)
    numbers = name == "diabetes"
    (family,) = families(penalty)
    recipe = prepare(
        lambda: mlp(X.shape[1], 1 if numbers else int(y.max()) + 1, hidden=(16,), numbers=numbers), (X, y), [family],
        epochs=epochs, batch_size=32, loss=None, optimizer=optimizer, seed=seed, device=None, on=WEIGHTS, method="auto",
    )  # fmt: skip
    folds = dict(enumerate(make_folds(recipe.y, FOLDS, seed=seed)))
    strengths = [0.0, *np.geomspace(top / 1000, top, STRENGTHS - 1)]
    recorded = Recorded(epochs)
    Stack(recipe, folds, family, strengths, race=recorded).train()
    race, alive, work = Race(strengths, folds, epochs), np.ones(STRENGTHS, dtype=bool), 0
    end = np.where(np.isfinite(recorded.seen[epochs]), recorded.seen[epochs], np.inf)
    sizes = np.array([len(fold.validation) for fold in folds.values()])
    parts = np.split(end, np.cumsum(sizes)[:-1], axis=1)
    errors = [
        mean_and_error(np.array(means), sizes)[1] for means in zip(*(part.mean(1) for part in parts), strict=True)
    ]
    means = end.mean(1)
    best = int(means.argmin())
    last = 0
    for epoch in race.looks:
        work += (epoch - last) * int(alive.sum())
        last = epoch
        losses = np.where(alive[:, None], recorded.seen[epoch], np.nan)
        alive &= ~race.look(epoch, losses)
    work += (epochs - last) * int(alive.sum())

    def cost(left: NDArray[np.bool_]) -> float:
        return float((means[left].min() - means[best]) / errors[best])

    found = {
        "lost": float(not alive[best]), "cost": cost(alive), "saved": 1 - work / (epochs * STRENGTHS),
        "dropped": 1 - float(alive.mean()),
    }  # fmt: skip
    for number, early in enumerate(race.looks[: len(NAIVE)]):
        now = recorded.seen[early]
        left = ~race._above_zero(now - now[np.nanmean(now, 1).argmin()])
        left[0] = True
        found |= {
            f"lost {number}": float(not left[best]), f"cost {number}": cost(left),
            f"saved {number}": (1 - early / epochs) * (1 - float(left.mean())),
        }  # fmt: skip
    return found


def simulate(seeds: int) -> None:
    """How often the one of 24 equal strengths that ends best by luck is dropped, and how often any is."""
    print(f"{'luck':>5} {'kept':>5} {'races':>6} {'best lost':>10} {'any':>7}")
    folds = {k: Fold(torch.arange(240), torch.arange(60 * k, 60 * k + 60)) for k in range(FOLDS)}
    strengths = [0.0, *np.geomspace(1e-3, 1, STRENGTHS - 1)]
    for luck in (0.0, 0.05, 0.2):  # the sd of a fold's mean; a row's own noise has 0.3
        for kept in (0.0, 0.9):  # the share of the luck's variance that stays from look to look
            lost = some = 0
            for seed in range(seeds):
                generator = np.random.default_rng(seed)
                race, alive = Race(strengths, folds, 60), np.ones(STRENGTHS, dtype=bool)
                stays = generator.normal(size=(STRENGTHS, FOLDS)) * luck * kept**0.5
                own = generator.normal(size=(STRENGTHS, 300)) * 0.3
                for epoch in (*race.looks, 60):
                    of_folds = stays + generator.normal(size=(STRENGTHS, FOLDS)) * luck * (1 - kept) ** 0.5
                    losses = own + np.repeat(of_folds, 60, axis=1)
                    if epoch < 60:
                        alive &= ~race.look(epoch, np.where(alive[:, None], losses, np.nan))
                lost += not alive[losses.mean(1).argmin()]
                some += not alive.all()
            print(f"{luck:5} {kept:5} {seeds:6} {lost / seeds:10.1%} {some / seeds:7.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--simulate", action="store_true")
    asked = parser.parse_args()
    seeds = asked.seeds
    if asked.simulate:
        return simulate(10 * seeds)
    torch.set_num_threads(1)
    head = f"{'best lost':>10} {'cost, se':>9} {'most':>6} {'saved':>7}"
    print(f"{'':18} {'runs':>5} {'dropped':>8} {head}" + "".join(f" | naive, {at}: {head}" for at in NAIVE))
    every: list[dict[str, float]] = []
    for setting in [*SETTINGS, ""]:
        found = [one(setting, seed) for seed in range(seeds)] if setting else every
        every = every + found if setting else every
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        most = {key: max(each[key] for each in found) for key in found[0]}
        parts = [
            f"{' ' * (12 if key else 0)}{mean['lost' + key]:10.1%} {mean['cost' + key]:9.3f} {most['cost' + key]:6.2f}"
            f" {mean['saved' + key]:7.1%}"
            for key in ("", *(f" {number}" for number in range(len(NAIVE))))
        ]
        print(f"{setting or 'all':18} {len(found):5} {mean['dropped']:8.1%} {' |'.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
