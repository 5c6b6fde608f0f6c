"""What a caller of ``ts.path`` can get wrong: one line that says what, before any training, by either engine."""

import sys

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from torch import nn
from torch.nn import functional

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
CODES, BITS, NUMBERS = torch.arange(30) % 3, torch.arange(30) % 2, torch.linspace(-1, 1, 30)
OTHER = nn.Linear(4, 3)


class NeedsClosure(torch.optim.SGD):
    def step(self, closure=None):
        if closure is None:
            raise AssertionError("needs a closure")


def linear(outputs=3):
    return lambda: nn.Linear(4, outputs)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


MISTAKES = {  # name -> build, y, settings, what the message says
    "class as loss": (linear(), CODES, {"loss": nn.CrossEntropyLoss}, "loss=CrossEntropyLoss: the class itself"),
    "class as folds": (
        linear(),
        CODES,
        {"folds": KFold},
        "folds=KFold: the class itself, an instance expected: KFold()",
    ),
    "mask as folds": (linear(), CODES, {"folds": [CODES == 0]}, "folds[0]: a mask of shape (30,) given, row numbers"),
    "mask as test": (linear(), CODES, {"test": CODES == 0}, "test: a mask of shape (30,) given, row numbers expected"),
    "no test rows": (linear(), CODES, {"test": []}, "test: none given"),
    "test rows twice": (linear(), CODES, {"test": [0, 1, 2, 1]}, "test: row 1 is given twice"),
    "rows twice in a fold": (linear(), CODES, {"folds": [[0, 1, 2, 2]]}, "folds[0]: row 2 is given twice"),
    "name as loss": (linear(), CODES, {"loss": "mse"}, "loss='mse': a callable"),
    "loss of one argument": (linear(), CODES, {"loss": lambda o: o.mean()}, "loss does not take the model's output"),
    "class as build": (nn.Linear, CODES, {}, "cannot be called without arguments (missing a required argument: 'in_f"),
    "build with an argument": (lambda n: nn.Linear(4, n), CODES, {}, "missing a required argument: 'n'"),
    "model as build": (nn.Linear(4, 3), CODES, {}, "a Linear given, a function that makes a new one expected"),
    "build that raises": (lambda: 1 / 0, CODES, {}, "build() raised ZeroDivisionError"),
    "build of a class": (lambda: nn.Linear, CODES, {}, "build() returned the class Linear"),
    "build of nothing": (lambda: None, CODES, {}, "build() returned NoneType"),
    "two outputs": (lambda: nn.LSTM(4, 3), CODES, {}, "the model returns tuple"),
    "codes for BCE": (linear(1), BITS, {"loss": nn.BCEWithLogitsLoss()}, "BCEWithLogitsLoss compares numbers"),
    "codes for BCE of probabilities": (linear(1), BITS, {"loss": nn.BCELoss()}, "give y.float(), shaped like"),
    "codes for BCE's function": (
        linear(1),
        BITS,
        {"loss": functional.binary_cross_entropy_with_logits},
        "binary_cross_entropy_with_logits compares numbers",
    ),
    "logits for BCE of probabilities": (
        linear(1),
        BITS[:, None].float(),
        {"loss": nn.BCELoss()},
        "loss does not take the model's output",
    ),
    "codes from 1": (linear(), CODES + 1, {}, "y has 3 codes (1, 2, 3): number them from 0"),
    "codes with gaps": (linear(), CODES * 7, {}, "y has 3 codes (0, 7, 14): number them from 0"),
    "negative codes": (linear(), CODES - 1, {}, "class code -1: codes from 0 expected"),
    "a column of codes": (linear(), CODES[:, None], {}, "y has shape (1,) for a row whose output has shape (3,)"),
    "a column of numbers": (lambda: nn.Flatten(0), NUMBERS[:, None], {}, "build() returned a model without parameters"),
    "outputs in a column": (linear(1), NUMBERS, {}, "returns shape (1,) for a row whose target has shape ()"),
    "other width": (linear(), torch.randn(30, 2), {}, "returns shape (3,) for a row whose target has shape (2,)"),
    "vector as loss": (linear(), CODES, {"loss": nn.CrossEntropyLoss(reduction="none")}, "reduction 'none'"),
    "vector as loss by a function": (
        linear(),
        CODES,
        {"loss": lambda o, y: functional.cross_entropy(o, y, reduction="none")},
        "does not return one number",
    ),
    "summed loss": (linear(), CODES, {"loss": nn.CrossEntropyLoss(reduction="sum")}, "reduction 'sum'"),
    "summed loss by a function": (
        linear(),
        CODES,
        {"loss": lambda o, y: functional.cross_entropy(o, y, reduction="sum")},
        "not the mean of its rows' losses",
    ),
    "number as loss": (linear(), CODES, {"loss": lambda o, y: 1.0}, "does not return one number"),
    "accuracy as loss": (
        linear(),
        CODES,
        {"loss": lambda o, y: (o.argmax(-1) != y).float().mean()},
        "the loss has no gradient",
    ),
    "optimizer of nothing": (linear(), CODES, {"optimizer": lambda p: None}, "optimizer(parameters) returned NoneType"),
    "optimizer of a class": (linear(), CODES, {"optimizer": lambda p: torch.optim.SGD}, "returned the class SGD"),
    "optimizer as an instance": (linear(), CODES, {"optimizer": sgd(OTHER.parameters())}, "an instance of SGD given"),
    "optimizer of others": (
        linear(),
        CODES,
        {"optimizer": lambda p: sgd(OTHER.parameters())},
        "over other parameters than the model's",
    ),
    "optimizer of others, method loss": (
        linear(),
        CODES,
        {"optimizer": lambda p: sgd(OTHER.parameters()), "method": "loss"},
        "over other parameters than the model's",
    ),
    "optimizer of a part": (linear(), CODES, {"optimizer": lambda p: sgd(list(p)[1:])}, "weight: penalised, but not"),
    "optimizer that raises": (
        linear(),
        CODES,
        {"optimizer": lambda p: torch.optim.SGD(p, lr=-1)},
        "optimizer(parameters) raised ValueError: Invalid learning rate",
    ),
    "optimizer without parameters": (linear(), CODES, {"optimizer": lambda: 3}, "optimizer(parameters) raised"),
    "number as optimizer": (linear(), CODES, {"optimizer": 3}, "optimizer: int given"),
    "L1 under LBFGS": (
        linear(),
        CODES,
        {"optimizer": torch.optim.LBFGS, "method": "prox"},
        "LBFGS steps along a dense approximation",
    ),
    "step that needs a closure": (
        linear(),
        CODES,
        {"optimizer": NeedsClosure, "method": "loss"},
        "AssertionError: needs a closure; its step() is called without a closure",
    ),
    "one row for batch normalisation": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        CODES,
        {"batch_size": 1},
        "a training step of Adam on 1 rows raised",
    ),
}


@pytest.mark.parametrize("engine", ["sequential", "lanes"])
@pytest.mark.parametrize("name", MISTAKES)
def test_says_what_is_wrong_in_one_line(name, engine, monkeypatch):
    build, y, settings, said = MISTAKES[name]
    trained = []
    monkeypatch.setattr(sys.modules[ts.path.__module__], "Trainings", lambda *_, **__: trained.append(1))
    with pytest.raises((InputError, AttachmentError)) as raised:
        ts.path(build, (X, y), ts.L1, strengths=2, epochs=1, progress=False, engine=engine, **({"folds": 2} | settings))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not trained


def ridge(y, strength):
    """Of Linear without bias, mean squared error and L2 as it is counted here."""
    return torch.linalg.solve(X.T @ X / len(X) + strength * torch.eye(4), X.T @ y / len(X))


@pytest.mark.parametrize("method", ["auto", "loss"])
@pytest.mark.parametrize("engine", ["auto", "sequential"])
def test_lbfgs_trains_a_path(method, engine):
    y = X @ torch.tensor([[1.0], [0.0], [-2.0], [0.5]])
    result = ts.path(
        lambda: nn.Linear(4, 1, bias=False),
        (X, y),
        ts.L2,
        strengths=[0.5],
        epochs=3,
        folds=2,
        batch_size=30,
        method=method,
        engine=engine,
        optimizer=lambda p: torch.optim.LBFGS(p, max_iter=50, line_search_fn="strong_wolfe"),
        progress=False,
    )
    model, certificate = result.refit(0.5)
    torch.testing.assert_close(model.weight.detach(), ridge(y, 0.5).T, atol=1e-4, rtol=1e-4)
    assert certificate.ok(1e-4)


def test_one_hot_targets_and_codes_that_leave_some_out_are_no_mistake():
    settings = {"strengths": 1, "epochs": 1, "folds": 2, "progress": False}
    one_hot = functional.one_hot(CODES).float()
    ts.path(linear(), (X, one_hot), ts.L2, loss=nn.CrossEntropyLoss(), **settings)
    ts.path(linear(4), (X, CODES + 1), ts.L2, **settings)


@pytest.mark.parametrize(
    "labels", [["a", "b"] * 20, np.array(["a", "b"] * 20), np.array(["a", "b"] * 20, dtype=object)]
)
def test_text_labels_are_told_how_to_become_codes(labels):
    with pytest.raises(
        InputError, match=r"^y: text given, numbers expected: np\.unique\(labels, return_inverse=True\)"
    ):
        ts.path(lambda: nn.Linear(3, 2), (torch.randn(40, 3), labels), ts.L1, progress=False)
