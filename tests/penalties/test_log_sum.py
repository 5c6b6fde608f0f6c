"""LogSum: its prox against brute force, its limits, reweighted L1, and trainings that come to rest."""

import math

import pytest
import torch

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.penalties import L1, LogSum

F64 = torch.float64


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("step", [1e-3, 0.3, 1.0, 20.0])
def test_the_prox_is_the_best_of_a_fine_grid(step, epsilon):
    penalty = LogSum(0.4, epsilon)
    z = torch.cat([torch.linspace(-3, 3, 61, dtype=F64), torch.tensor([1e-6, 1e-3, 30.0], dtype=F64)])
    grid = torch.linspace(0, 1, 20001, dtype=F64)[:, None] * z  # between 0 and z
    objective = 0.4 * (1 + grid.abs() / epsilon).log() + (grid - z).square() / (2 * step)
    least = objective.amin(0)
    u = penalty.prox(z, step)
    found = 0.4 * (1 + u.abs() / epsilon).log() + (u - z).square() / (2 * step)
    assert (found <= least + 1e-12 * (1 + least)).all()
    assert ((u == 0) | (u.sign() == z.sign())).all()
    # And stationary, which a grid cannot tell.
    assert penalty.distance(u, (u - z) / step).max() < 1e-9 * (1 + 0.4 / epsilon + 3 / step)


def test_of_two_equally_good_points_it_is_zero():
    # λ = s = 1, ε = 1: log(1 + u) + (u − z)²/2 at both; found by bisection.
    low, high = 1.0, 3.0
    for _ in range(200):
        z = (low + high) / 2
        u = LogSum(1.0, 0.1).prox(torch.tensor([z], dtype=F64), 1.0)
        low, high = (z, high) if u == 0 else (low, z)
    assert LogSum(1.0, 0.1).prox(torch.tensor([low], dtype=F64), 1.0) == 0
    assert LogSum(1.0, 0.1).prox(torch.tensor([high], dtype=F64), 1.0) > 1  # a jump


def test_for_large_epsilon_it_is_l1():
    w, g = torch.randn(2, 50, dtype=F64)
    near, l1 = LogSum(0.3e6, 1e6), L1(0.3)
    torch.testing.assert_close(near.value(w), l1.value(w), rtol=1e-5, atol=0)
    torch.testing.assert_close(near.prox(w, 0.7), l1.prox(w, 0.7), rtol=0, atol=1e-5)
    torch.testing.assert_close(near.distance(w, g), l1.distance(w, g), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_near_and_far_weights_lose_no_digits(dtype):
    eps = torch.finfo(dtype).eps
    w = torch.tensor([1e-12, 1e-6, 0.3, 1e6], dtype=dtype)
    tiny = LogSum(1e-20, 0.5)
    torch.testing.assert_close(tiny.prox(w[1:], 1e-3), w[1:], rtol=8 * eps, atol=0)
    assert LogSum(0.0, 0.5).prox(w, 1.0).tolist() == pytest.approx(w.tolist(), rel=8 * eps)


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
                                  lambda p: torch.optim.Adam(p, lr=0.05)], ids=["momentum", "adam"])  # fmt: skip
def test_a_training_rests_where_reweighted_l1_does(make):
    X = torch.randn(80, 10, dtype=F64)
    y = X[:, :3] @ torch.tensor([[2.0], [-1.0], [0.5]], dtype=F64) + 0.3 * torch.randn(80, 1, dtype=F64)
    model = torch.nn.Linear(10, 1, bias=False, dtype=F64)
    acting = make(model.parameters())
    decay = torch.optim.lr_scheduler.ExponentialLR(acting, 0.998)
    reg = ts.Regularizer(model, LogSum(0.1, 0.3)).attach(acting)
    for _ in range(2500):
        acting.zero_grad()
        (model(X) - y).square().mean().backward()
        acting.step()
        decay.step()
    w = model.weight.detach()[0]
    assert ts.certify(model, (X, y), reg, loss=torch.nn.MSELoss()).relative < 1e-7
    assert torch.equal(w[3:], torch.zeros(7, dtype=F64))
    assert (w[:3] != 0).all()
    # Reweighted L1 with the weights λ/(ε + |w|) of this point has its minimum here: w is a fixed point of it.
    pull = 0.1 / (0.3 + w.abs())
    v, rate = w.clone(), 0.4 / torch.linalg.eigvalsh(X.T @ X / 80)[-1]
    for _ in range(50):
        z = v - rate * 2 * (X.T @ (X @ v - y[:, 0])) / 80
        v = z.sign() * (z.abs() - rate * pull).clamp(min=0)
    torch.testing.assert_close(v, w, rtol=0, atol=1e-8)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "1", None, True, torch.ones(2)], ids=str)
def test_a_bad_epsilon_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"epsilon=.*expected a finite number > 0"):
        LogSum(0.1, bad)


def test_as_a_value():
    assert LogSum(1, 0.5) == LogSum(1.0, 0.5) != LogSum(1.0, 0.6)
    assert str(LogSum(0.1, 0.5)) == "LogSum(0.1, epsilon=0.5)"
    assert LogSum(0.1, 0.5).convex_part == L1(0.2)
