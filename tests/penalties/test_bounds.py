"""NonNegative and Box: least squares with bounds equals scipy's, under several optimizers; normal cones; bad bounds."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, nnls

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import InputError

F64 = torch.float64
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
}


def problem():
    X = torch.randn(60, 8, dtype=F64) * torch.linspace(0.5, 1.5, 8, dtype=F64)
    y = X @ torch.randn(8, 1, dtype=F64) + 0.3 * torch.randn(60, 1, dtype=F64)
    return X, y


def trained(X, y, penalty, optimizer, steps=2000):
    model = torch.nn.Linear(8, 1, bias=False, dtype=F64)
    acting = OPTIMIZERS[optimizer](model.parameters())
    decay = torch.optim.lr_scheduler.ExponentialLR(acting, 0.998)
    reg = ts.Regularizer(model, penalty).attach(acting)
    at_rest = AtRest(model.parameters())
    for _ in range(steps):
        acting.zero_grad()
        (model(X) - y).square().mean().backward()
        acting.step()
        decay.step()
        if at_rest():
            break
    return model, reg


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_non_negative_is_scipy_s_nnls(optimizer):
    X, y = problem()
    wanted = nnls(X.numpy(), y[:, 0].numpy())[0]
    model, reg = trained(X, y, ts.NonNegative(), optimizer)
    found = model.weight.detach().numpy()[0]
    assert 2 <= (wanted == 0).sum() <= 6
    assert np.array_equal(found == 0, wanted == 0)
    assert np.allclose(found, wanted, rtol=0, atol=1e-8)
    assert ts.certify(model, (X, y), reg, loss=torch.nn.MSELoss()).ok(1e-6)


@pytest.mark.parametrize(
    ("bounds", "optimizer"),
    [*(((-0.4, 0.3), name) for name in OPTIMIZERS), ((0.1, 0.6), "adam"), ((-math.inf, 0.2), "adam")],
)
def test_box_is_scipy_s_lsq_linear(bounds, optimizer):
    X, y = problem()
    wanted = lsq_linear(X.numpy(), y[:, 0].numpy(), bounds, method="bvls", tol=1e-14).x
    model, reg = trained(X, y, ts.Box(*bounds), optimizer)
    found = model.weight.detach().numpy()[0]
    held = np.isin(found, bounds)
    assert 1 <= held.sum() <= 7
    assert np.allclose(found, wanted, rtol=0, atol=1e-8)
    assert ts.certify(model, (X, y), reg, loss=torch.nn.MSELoss()).ok(1e-6)


def test_polish_finishes_least_squares_with_bounds():
    X, y = problem()
    for penalty, bounds in ((ts.NonNegative(), (0, math.inf)), (ts.Box(-0.4, 0.3), (-0.4, 0.3))):
        model = torch.nn.Linear(8, 1, bias=False, dtype=F64)
        polished = ts.polish(model, (X, y), ts.Regularizer(model, penalty), loss=torch.nn.MSELoss(), tol=1e-9)
        assert polished.converged
        wanted = lsq_linear(X.numpy(), y[:, 0].numpy(), bounds, method="bvls", tol=1e-14).x
        assert np.allclose(model.weight.detach().numpy()[0], wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, F64])
def test_normal_cones_by_hand(dtype):
    w = torch.tensor([-1.0, 0.0, 0.0, 2.0, 2.0, math.nan], dtype=dtype)
    g = torch.tensor([0.0, 3.0, -3.0, 3.0, -3.0, 0.0], dtype=dtype)
    assert ts.NonNegative().distance(w, g).tolist()[:5] == [math.inf, 0, 3, 3, 3]
    assert ts.Box(0, 2).distance(w, g).tolist()[:5] == [math.inf, 0, 3, 3, 0]
    assert ts.NonNegative().distance(w, g)[5].isnan()
    assert ts.Box(0, 2).distance(w, g)[5].isnan()
    assert ts.Box(0.1, 0.7).prox(w[:5], 1.0).tolist() == pytest.approx([0.1, 0.1, 0.1, 0.7, 0.7], rel=4e-3)


def test_zero_is_stationary_where_the_gradient_pushes_out():
    up, down = torch.tensor([0.5, 0.0]), torch.tensor([-0.5, 0.5])
    assert ts.NonNegative().critical_strength(up) == 0
    assert ts.NonNegative().critical_strength(down) == math.inf
    for box, at_zero in ((ts.Box(0, 1), up), (ts.Box(-1, 0), -up)):
        assert box.critical_strength(at_zero) == 0
        assert box.critical_strength(-at_zero) == math.inf
    assert ts.Box(-1, 1).critical_strength(up) == math.inf
    assert ts.Box(1, 2).critical_strength(0 * up) == math.inf


@pytest.mark.parametrize("penalty", [ts.NonNegative(), ts.Box(-0.5, 0.25), ts.Box(-math.inf, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
def test_what_diverged_and_what_has_no_step_stays_as_it_is(penalty, dtype):
    w = torch.tensor([-math.inf, math.inf, math.nan, -3.0, 3.0], dtype=dtype)
    for step in (0.1, torch.full_like(w, 0.1)):
        assert penalty.prox(w, step)[:3].nan_to_num(7).tolist() == w[:3].nan_to_num(7).tolist()
        assert penalty.prox(w, step)[3:].tolist() != w[3:].tolist()
        assert penalty.value(w[:1]).isnan()
        assert penalty.distance(w, w)[:3].isnan().all()
    for nothing in (0.0, torch.zeros(()), torch.zeros_like(w)):
        assert torch.equal(penalty.prox(w, nothing).nan_to_num(7), w.nan_to_num(7))


@pytest.mark.parametrize(
    "bounds", [(1, 1), (1, 0), (math.nan, 1), (0, math.nan), ("0", 1), (None, 1), (True, 2), (math.inf, math.inf),
               (-math.inf, -math.inf), (torch.zeros(2), 1)], ids=str,
)  # fmt: skip
def test_bad_bounds_are_refused_in_one_line(bounds):
    with pytest.raises(InputError, match=r"(low|high)=.*expected"):
        ts.Box(*bounds)


def test_as_values():
    assert ts.Box(0, 1) == ts.Box(0.0, 1.0) != ts.Box(0, 2)
    assert ts.NonNegative() == ts.NonNegative()
    assert eval(repr(ts.Box(-1, 2)), {"Box": ts.Box}) == ts.Box(-1, 2)
    for penalty in (ts.NonNegative(), ts.Box(0, 1)):
        assert penalty.with_strength(0.0) is penalty
        with pytest.raises(InputError, match="a constraint has no strength"):
            penalty.with_strength(0.5)
