"""The standard error of the gradient over the rows, by which words tell the end of a training from its noise."""

import math

import pytest
import torch
from torch import nn

import torchshrink as ts

F64 = torch.float64


def problem(rows=400):
    X = torch.randn(rows, 5, dtype=F64)
    return X, (X[:, :1] + 0.5 * torch.randn(rows, 1, dtype=F64)).sign().gt(0).long().flatten()


def network():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def exactly(model, X, y):
    """√(Σ‖g_i − g‖² / (n·(n − 1))), row by row, of weights that are not zero."""
    parameters = list(model.parameters())
    rows = []
    for x, target in zip(X, y, strict=True):
        grads = torch.autograd.grad(nn.functional.cross_entropy(model(x[None]), target[None]), parameters)
        rows.append(torch.cat([(g * (p != 0)).flatten() for g, p in zip(grads, parameters, strict=True)]))
    found = torch.stack(rows).detach()
    return math.sqrt(float((found - found.mean(0)).square().sum()) / len(X) / (len(X) - 1))


@pytest.mark.parametrize("rows", [16, 100, 400])
def test_it_is_that_of_the_rows(rows):
    torch.manual_seed(0)
    model, (X, y) = network(), problem(rows)
    with torch.no_grad():
        model[0].weight[:4] = 0.0
    certificate = ts.certify(model, (X, y), ts.Regularizer(model, ts.L1(1e-3)))
    assert certificate.standard_error == pytest.approx(exactly(model, X, y), rel=0.3)  # of 16 batches


def test_it_is_free_of_the_number_of_parts_and_leaves_no_trace():
    torch.manual_seed(0)
    model, data = network(), problem()
    reg = ts.Regularizer(model, ts.L1(1e-3))
    state = torch.random.get_rng_state()
    first, second = (ts.certify(model, data, reg) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_rows_that_the_loss_leaves_out_have_no_part_in_it():
    torch.manual_seed(0)
    model, (X, y) = network(), problem()
    reg, ignored = ts.Regularizer(model, ts.L1(1e-3)), y.clone()
    ignored[50:] = -100
    few = ts.certify(model, (X[:50], y[:50]), reg).standard_error
    assert ts.certify(model, (X, ignored), reg).standard_error == pytest.approx(few, rel=0.3)
    ignored[5:] = -100  # too few to tell
    assert ts.certify(model, (X, ignored), reg).standard_error is None


def test_where_it_is_not_needed_or_not_known_there_is_none():
    torch.manual_seed(0)
    model, (X, y) = nn.Linear(5, 2).double(), problem()
    reg = ts.Regularizer(model, ts.L1(1e-2))
    assert ts.polish(model, (X, y), reg).certificate.standard_error is None
    assert ts.Regularizer(model, ts.L1(0.1)).certify(lambda: _backward(model, X, y)).standard_error is None


def _backward(model, X, y):
    model.zero_grad()
    loss = nn.functional.cross_entropy(model(X), y)
    loss.backward()
    return loss
