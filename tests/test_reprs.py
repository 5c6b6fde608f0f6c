"""What a prompt shows of a result: a line, and never every number in it."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.data import load


@pytest.fixture(scope="module")
def shown():
    X, y = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    result = ts.path(lambda: nn.Linear(20, 3), (X, y), [ts.L1, ts.L2], strengths=5, epochs=2, test=0.2, progress=False)
    model, certificate = result.refit()
    regularizer = ts.Regularizer(model, ts.L1(0.01))
    polished = ts.polish(model, (X, y), regularizer, max_steps=3)
    values = [result, result.best, result.best.best, result.verdict, result.test, certificate, polished]
    values += [polished.certificate, regularizer, regularizer.sparsity(), load("digits")]
    return {type(value).__name__: repr(value) for value in values}


def test_it_is_one_short_line(shown):
    assert {name for name, text in shown.items() if len(text) > 500 or "\n" in text or "tensor(" in text} == set()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PathComparison", "of l1, l2: best <PathResult of l"),
        ("PathResult", ": 6 strengths, best <PathPoint "),
        ("PathPoint", ": validation loss "),
        ("Verdict", "95 % interval"),
        ("FinalTest", "on the test rows"),
        ("Certificate", "a convex problem: F is at most"),
        ("Polished", "within 3 steps"),
        ("Sparsity", "of 60 weights are exactly zero"),
        ("Dataset", "digits: 1797 rows, 64 columns, classification of"),
        ("Regularizer", "1 term over 60 weights"),
    ],
)
def test_it_says_what_matters(shown, name, said):
    assert said in shown[name]
