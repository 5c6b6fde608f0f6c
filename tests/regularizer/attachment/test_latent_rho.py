"""ρ of latent weights suits optimizers of which nothing is known, wherever the weights start and whatever the scales.

The targets are not standardised: weights end at about 25, so that a start at 0 says nothing of their size.
"""

import math

import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn

import torchshrink as ts
from at_rest import AtRest
from torchshrink.regularizer.attachment import blocks
from torchshrink.regularizer.attachment.rho import (
    Fit,
    Measured,
    default_rho,
    first_rho_in_blocks,
    held_rho,
    looked_back,
    refitted_rho,
    start_for_rho,
    stepped_limit,
)

STRENGTH = 5.0


class Unknown(torch.optim.SGD):
    """Of which nothing is known, since it has a step of its own."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.fixture(scope="module")
def problem():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), y - y.mean()
    found = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-15, max_iter=100_000).fit(X, y).coef_
    assert (found == 0).sum() == 5
    X, y = torch.tensor(X), torch.tensor(y)
    return X.T @ X / len(X), X.T @ y / len(X), torch.tensor(found)[None]


START = {"zero": 0.0, "small": 1e-3, "torch's": 1.0, "large": 1e3}


def trained(problem, make, *, start="zero", steps=600, loss=1.0, features=1.0, falls=False):
    """The weights in the features' own scale, and the regularizer."""
    covariance, correlation, _ = problem
    torch.manual_seed(0)
    model = nn.Linear(10, 1, bias=False).double()
    with torch.no_grad():
        model.weight.mul_(START[start] / features)
    optimizer = make(model.parameters())
    reg = ts.Regularizer(model, ts.L1(STRENGTH * loss * features)).attach(optimizer, "latent")
    rate = optimizer.param_groups[0]["lr"]
    at_rest = AtRest(model.parameters(), within=1e-11 / features)
    for step in range(steps):
        if falls:
            optimizer.param_groups[0]["lr"] = rate * 10 ** (-6 * max(0.0, 2 * step / steps - 1))
        with torch.no_grad():
            w = model.weight * features
            model.weight.grad = loss * features * (w @ covariance - correlation)
        optimizer.step()
        if at_rest() and not falls:
            break
    return model.weight.detach() * features, reg


def is_the_lasso(w, problem, tolerance):
    return bool(torch.equal(w == 0, problem[2] == 0) and (w - problem[2]).abs().max() <= tolerance)


CASES = {
    "unknown": (lambda p: Unknown(p, lr=0.4), {"steps": 2000}),
    "unknown, short steps": (lambda p: Unknown(p, lr=0.1), {"steps": 4000}),
    "unknown with momentum": (lambda p: Unknown(p, lr=0.4, momentum=0.9), {}),
    "unknown with momentum, short steps": (lambda p: Unknown(p, lr=0.04, momentum=0.9), {"steps": 2000}),
    "Adam": (lambda p: torch.optim.Adam(p, lr=2.0), {"steps": 2000}),
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=2.0, weight_decay=0.0), {"steps": 2000}),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, lr=1.0), {"steps": 2000, "falls": True}),
    "Adagrad": (lambda p: torch.optim.Adagrad(p, lr=10.0), {"steps": 2000}),
}
CANNOT_TRAVEL = {("large", "Adagrad")}  # by rates that fall by themselves, with or without a penalty


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("name", CASES)
def test_it_ends_at_the_lasso_from_everywhere(name, start, problem):
    if (start, name) in CANNOT_TRAVEL:
        pytest.skip("its rates fall before it is there")
    make, how = CASES[name]
    assert is_the_lasso(trained(problem, make, start=start, **how)[0], problem, 1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("start", ["zero", "torch's"])
def test_the_scales_of_loss_and_features_do_not_matter_to_an_unknown_one(factor, start, problem):
    for how, rate in (({"loss": factor}, 1 / factor), ({"features": factor}, 1 / factor**2)):
        w, _ = trained(problem, lambda p, r=rate: Unknown(p, lr=0.2 * r, momentum=0.9), start=start, **how)
        assert is_the_lasso(w, problem, 1e-6)


def test_a_rho_that_is_given_stays(problem):
    model = nn.Linear(10, 1, bias=False).double()
    optimizer = Unknown(model.parameters(), lr=0.4)
    reg = ts.Regularizer(model, ts.L1(STRENGTH)).attach(optimizer, "latent", rho=1e3)
    for _ in range(40):
        with torch.no_grad():
            model.weight.grad = model.weight @ problem[0] - problem[1]
        optimizer.step()
    assert reg.state_dict()["latent"]["weight"]["rho"] == 1e3


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def test_the_limit_follows_what_a_step_shows_and_no_single_one_far():
    def limit(before, gradient, pull, displacement, early=True, evaluations=1):
        measured = Measured(number(gradient), number(pull), number(displacement), evaluations)
        return stepped_limit(number(before), measured, early=early)

    assert limit(math.inf, 4.0, 1.0, 2.0) == 1.0
    assert limit(8.0, 4.0, 1.0, 1e9) == 2.0
    assert limit(8.0, 1e9, 1.0, 1.0) == 16.0
    assert limit(8.0, 1.0, 4.0, 1.0, early=False) == 2.0
    assert limit(8.0, 1e9, 2e9, 1.0, early=False) == 8.0  # a turning point
    assert limit(8.0, 1.0, 4.0, 1.0, evaluations=20) == 8.0
    for nothing in (0.0, math.nan, math.inf):
        assert limit(8.0, 1.0, 1.0, nothing) == 8.0
        assert limit(8.0, nothing, 0.0, 1.0) == 8.0


def test_rho_changes_only_where_it_is_far_off():
    held = number([10.0, 10.0, 10.0, 10.0, 10.0, 10.0])
    wanted = number([10.0, 25.0, 31.0, 10.0, 10.0, 3.0])
    limit = number([math.inf, math.inf, math.inf, 5.1, 4.9, math.inf])
    assert held_rho(held, wanted, limit).tolist() == [10.0, 10.0, 31.0, 10.0, 4.9, 3.0]


def test_rho_follows_weights_that_say_anything():
    unit, now = number([10.0] * 5), number([29.0, 31.0, math.nan, math.inf, 0.0])
    assert refitted_rho(unit, now).tolist() == [10.0, 31.0, 10.0, 10.0, 10.0]


def test_rho_at_scale_1_is_limited_by_steps_at_the_scale_of_now():
    measured = Measured(number(4.0), number(1.0), number(1.0), 1)  # ρ is at most 2 here, at a scale of a quarter
    fit = looked_back(
        Fit(number(10.0), number(10.0), number(math.inf)), measured, number(math.nan), steps=0, scale=0.25
    )
    assert [float(each) for each in fit] == [10.0, 10.0, 2.0]
    fit = looked_back(fit, measured, number(math.nan), steps=1)
    assert [float(each) for each in fit] == [10.0, 2.0, 2.0]


def test_a_line_search_that_stands_still_is_told(problem):
    notes = {}
    for search in (None, "strong_wolfe"):
        model = nn.Linear(10, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn=search)
        reg = ts.Regularizer(model, ts.L1(STRENGTH)).attach(optimizer)

        def closure(model=model):
            w = model.weight
            model.weight.grad = w.detach() @ problem[0] - problem[1]
            return (0.5 * (w @ problem[0] @ w.T).sum() - (problem[1] * w).sum()).detach()

        for _ in range(20):
            optimizer.step(closure)
        notes[search] = reg._attachments[0].notes
    assert notes[None] == ()
    assert len(notes["strong_wolfe"]) == 1
    assert "moved nothing" in notes["strong_wolfe"][0]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(
    "penalty",
    [ts.L1(1e-20), ts.ElasticNet(1, 2), ts.GroupLasso(0.3, dim=1), ts.SparseGroupLasso(1, 1), ts.NonNegative()],
    ids=str,
)
def test_the_first_rho_of_a_large_tensor_is_that_of_the_whole(monkeypatch, penalty, zero):
    generator = torch.Generator().manual_seed(0)
    z, grad = (torch.randn(30, 20, generator=generator) for _ in range(2))
    z = torch.zeros_like(z) if zero else z.clamp(min=0) if penalty.constraint else z
    monkeypatch.setattr(blocks, "BLOCK", 50)
    exact = z.double()
    whole = default_rho(penalty, exact, penalty.grad(start_for_rho(exact)), grad.double())
    assert whole > 0
    torch.testing.assert_close(first_rho_in_blocks(penalty, penalty, z, grad), whole, rtol=1e-12, atol=0)
