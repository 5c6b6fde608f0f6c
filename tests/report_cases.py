"""Views of paths that nobody trained: closed forms, of any size and with any names, for the tests of reports."""

import math
import types
from dataclasses import dataclass, replace

import numpy as np

from torchshrink.report.view import About, Part, Refit, View, Weights

HOSTILE = (
    "<script>document.title='gone'</script>",
    '"><img src=x onerror=alert(1)>',
    "two\nlines\u2028and\u2029more",
    "x" * 200,
    "\u202eexe.gnp\u202c",
    "שלום עולם",
    "</script><!-- ",
    "${datum.x} {{7*7}} \\u003c",
    "",
    "\x00\x1b[31m",
    "' || alert(1) || '",
    "https://example.org/a.png",
)


@dataclass(frozen=True)
class Fold:
    validation_loss: float
    diverged: bool = False


@dataclass(frozen=True)
class Point:
    strength: float
    train_loss: float
    validation_loss: float
    validation_se: float
    accuracy: float | None
    nonzero: float
    diverged: bool = False

    @property
    def gap(self):
        return self.validation_loss - self.train_loss


def verdict(change=-0.8, interval=(-0.85, -0.74), **changed):
    made = {
        "helps": interval[1] < 0,
        "harms": interval[0] > 0,
        "relative": True,
        "change": change,
        "interval": interval,
        "before": 7.0,
        "after": 7.0 * (1 + change),
        "better": 10,
        "compared": 10,
        "over": "folds",
        "level": 0.95,
        "words": "penalising helps: the loss on unseen rows falls by 80 % (95 % interval 74 to 85 %)",
    }
    return types.SimpleNamespace(**(made | changed))


def part(
    name="l1", *, strengths=12, folds=5, inputs=6, layers=((8, 6), (1, 8)), kind="norms", row=None, epochs=10, worse=0.0
):
    """A valley of losses whose floor is at two thirds of the way; input j leaves at the j-th strength."""
    grid = [0.0, *np.geomspace(1e-3, 1.0, strengths - 1)]
    floor = 2 * (strengths - 1) // 3
    points, fold_values = [], []
    for k, strength in enumerate(grid):
        loss = 1 + worse + 0.1 * abs(k - floor)
        share = 1 - k / (strengths - 1)
        points.append(Point(strength, 0.5 + 0.05 * k, loss, 0.05, None, round(100 * share)))
        fold_values.append([Fold(loss + 0.01 * f) for f in range(folds)])
    values = np.array([[max(0.0, 1.0 - k / (j + 1)) for j in range(inputs)] for k in range(strengths)])
    counts = np.zeros((strengths, len(layers), 33), int)
    for k in range(strengths):
        for at, shape in enumerate(layers):
            total = folds * math.prod(shape)
            counts[k, at, 0] = total * k // (strengths - 1)
            counts[k, at, 22] = total - counts[k, at, 0]
    weights = Weights(
        layers=[(f"layer{at}.weight", shape) for at, shape in enumerate(layers)],
        kind=kind,
        first="layer0.weight",
        row=(inputs,) if row is None else row,
        total=inputs,
        places=list(range(inputs)),
        counts=counts.tolist(),
        units=[[float(shape[0]) for shape in layers] for _ in range(strengths)],
        inputs=values.tolist(),
        used=(folds * (values > 0)).tolist(),
        reading=(values > 0).sum(1).tolist(),
        curves=[[1 / (1 + e) + 0.01 * k for e in range(epochs)] for k in range(strengths)],
        epochs=list(range(1, epochs + 1)),
    )
    settings = {
        "rows": 100,
        "loss": "MSELoss()",
        "optimizer": "SGD(lr=0.1)",
        "epochs": epochs,
        "seed": 3,
        "penalised weights": 100,
        "model": "Linear 6 → 8, ReLU, Linear 8 → 1; 65 parameters",
        "audit": [["layer0.weight", "8 × 6", "L1(1)", ""], ["layer0.bias", "8", "", "bias"]],
    }
    return Part(
        name,
        points,
        points[floor],
        points[min(floor + 1, strengths - 1)],
        2.0,
        verdict="it helps",
        grid="12 strengths down from 1",
        settings=settings,
        weights=weights,
        folds=fold_values,
    )


def refit(strength, **changed):
    made = {
        "strength": strength,
        "choice": "best",
        "relaxed": False,
        "zeros": 40,
        "total": 100,
        "certificate": "a stationary point, to 3e-06: no small step lowers loss + penalty",
    }
    return Refit(**(made | changed))


def final_test():
    return types.SimpleNamespace(
        rows=150,
        unpenalised_loss=7.2,
        tuned_loss=1.3,
        unpenalised_accuracy=None,
        tuned_accuracy=None,
        verdict=verdict(-0.81, (-0.9, -0.7)),
    )


def view(*names, columns=("age", "size", "city", "price", "rooms", "noise"), **shape):
    parts = [part(name, worse=0.05 * n, **shape) for n, name in enumerate(names or ("l1",))]
    about = About(
        data="houses.csv",
        rows=250,
        target="rent",
        columns=columns,
        model="Linear 6 → 8, ReLU, Linear 8 → 1; 65 parameters",
        command="torchshrink path houses.csv --target rent",
        date="2026-11-30",
        versions={"torchshrink": "0.1.0", "torch": "2.13.0"},
        refit=refit(parts[0].best.strength),
    )
    against = {each.penalty: verdict(-0.1, (-0.2, 0.1)) for each in parts[1:]}
    return View(parts, 0, verdict(), against, final_test(), about)


def hostile():
    """Every name there is, hostile."""
    shown = view(HOSTILE[0], HOSTILE[4], columns=HOSTILE, inputs=len(HOSTILE))
    layers = [(name, shape) for name, (_, shape) in zip(HOSTILE[:2], shown.parts[0].weights.layers, strict=True)]
    parts = [
        replace(
            each,
            grid=HOSTILE[2],
            verdict=HOSTILE[1],
            settings=each.settings
            | {"model": HOSTILE[0], HOSTILE[1]: HOSTILE[6], "audit": [[*HOSTILE[:3], ""], [*HOSTILE[3:6], HOSTILE[6]]]},
            weights=replace(each.weights, layers=layers),
        )
        for each in shown.parts
    ]
    about = replace(
        shown.about,
        data=HOSTILE[6],
        target=HOSTILE[5],
        classes=HOSTILE,
        command=HOSTILE[0],
        date=HOSTILE[1],
        versions={HOSTILE[0]: HOSTILE[4]},
        refit=refit(parts[0].best.strength, certificate="; ".join(HOSTILE)),
        notes=HOSTILE,
    )
    return replace(shown, parts=parts, about=about, verdict=verdict(words=" ".join(HOSTILE)))
