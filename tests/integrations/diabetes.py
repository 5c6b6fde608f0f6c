"""The lasso that every framework is held to: diabetes, full batches, float64, against scikit-learn's own solution."""

import functools

import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn

ALPHA = 5.0  # of which the solution has 5 zeros among 10
STEPS = 200  # after which both optimizers are within 1e-13


@functools.cache
def data():
    """Standardised features (442, 10) and centred targets (442, 1)."""
    X, y = load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return torch.from_numpy(X), torch.from_numpy(y - y.mean()).unsqueeze(1)


def large():
    """A factor that makes the targets' standard deviation 20, for which gradients are far above a clip at 1."""
    return 20.0 / float(data()[1].std(correction=0))


@functools.cache
def solution(alpha=ALPHA, factor=1.0):
    """The minimiser w (1, 10) of ½·mean((Xw − factor·y)²) + alpha·‖w‖₁."""
    X, y = data()
    fitted = Lasso(alpha=alpha, tol=1e-15, max_iter=100_000).fit(X.numpy(), factor * y.numpy().ravel())
    return torch.from_numpy(fitted.coef_).reshape(1, -1)


def linear():
    """Zeros, so that every framework starts at the same place whatever random numbers it takes."""
    model = nn.Linear(10, 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def loss(output, y):
    return (output - y).square().mean() / 2


OPTIMIZERS = {
    "momentum": (torch.optim.SGD, {"lr": 0.2, "momentum": 0.7}),
    "Adam": (torch.optim.Adam, {"lr": 2.0, "betas": (0.7, 0.99)}),
}
MAKE = {name: functools.partial(cls, **settings) for name, (cls, settings) in OPTIMIZERS.items()}


def assert_is_the_lasso(weight, alpha=ALPHA, factor=1.0):
    weight, expected = weight.detach(), solution(alpha, factor)
    assert torch.equal(weight == 0, expected == 0)
    assert float((weight - expected).abs().max()) <= 1e-8 * factor
