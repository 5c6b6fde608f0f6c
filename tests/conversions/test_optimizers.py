"""Optimizers, Keras and other scales of the loss: torch's own steps, formulas, closed forms."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from solving import diabetes, linnerud, standardised
from torch import Tensor, nn

import torchshrink as ts
from torchshrink.conversions.convert import TOOLS, convert

# --- optimizers: torch's own steps ---

COUPLED = [name for name in TOOLS if name.startswith("torch.")]


def ridge_solution() -> tuple[Tensor, Tensor, Tensor]:
    X, y = diabetes()
    y = standardised(y)
    return torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(Ridge(alpha=50.0).fit(X, y).coef_)


def run(optimizer: torch.optim.Optimizer, w: Tensor, steps: int, *, decay: float = 1.0) -> Tensor:
    X, y, _ = ridge_solution()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(X @ w, y).backward()
        with torch.no_grad():
            w.mul_(decay)
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("name", COUPLED)
def test_every_optimizer_stays_at_the_ridge_solution_of_its_weight_decay(name):
    _, _, solution = ridge_solution()
    conversion = convert("sklearn.Ridge", to=name, alpha=50.0, rows=442)
    decay = conversion.settings["weight_decay"]
    # eps = 1, because they divide by the gradient's own size: at 1e-8 the rounding that is left of it grows into steps
    moved = {}
    for factor in (1.0, 2.0):
        w = solution.clone().requires_grad_()
        settings = {"weight_decay": factor * decay} | ({"eps": 1.0} if name != "torch.SGD" else {})
        optimizer = getattr(torch.optim, name.removeprefix("torch."))([w], lr=1e-2, **settings)
        moved[factor] = (run(optimizer, w, 50) - solution).abs().max().item()
    assert moved[1.0] < 1e-9
    assert moved[2.0] > 1e-6


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_trained_to_the_end_coupled_decay_is_ridge(name):
    _, _, solution = ridge_solution()
    decay = convert("sklearn.Ridge", to=f"torch.{name}", alpha=50.0, rows=442).settings["weight_decay"]
    w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    settings = {"SGD": {"lr": 0.05, "momentum": 0.9}, "Adam": {"lr": 1e-2}}[name]
    found = run(getattr(torch.optim, name)([w], weight_decay=decay, **settings), w, 3_000)
    assert (found - solution).abs().max() < 1e-6


@pytest.mark.parametrize(("momentum", "dampening", "nesterov"), [(0, 0, False), (0.9, 0, False), (0.9, 0, True)])
def test_decoupled_decay_with_sgd_is_a_ridge_that_momentum_weakens(momentum, dampening, nesterov):
    _, _, solution = ridge_solution()
    conversion = convert("sklearn.Ridge", to="timm.SGDW", alpha=50.0, rows=442, momentum=momentum, dampening=dampening)
    decay, lr = conversion.settings["weight_decay"], 0.02
    w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov)
    assert (run(optimizer, w, 6_000, decay=1 - lr * decay) - solution).abs().max() < 1e-6
    coupled = convert("sklearn.Ridge", to="torch.SGD", alpha=50.0, rows=442).settings["weight_decay"]
    assert coupled / decay == pytest.approx(1 - momentum)


def test_decoupled_decay_with_dampening():
    _, _, solution = ridge_solution()
    facts = {"rows": 442, "momentum": 0.8, "dampening": 0.5}
    decay = convert("sklearn.Ridge", to="timm.SGDW", alpha=50.0, **facts).settings["weight_decay"]
    w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.05, momentum=0.8, dampening=0.5)
    assert (run(optimizer, w, 4_000, decay=1 - 0.05 * decay) - solution).abs().max() < 1e-6


def test_the_reason_that_adamw_has_no_equivalent_holds():
    """A ridge shrinks them all; AdamW bounds each weight by 1/λ and leaves those inside alone."""
    X, y, _ = ridge_solution()
    w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-2, weight_decay=5.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4_000, 1e-5)
    for _ in range(4_000):
        optimizer.zero_grad()
        nn.functional.mse_loss(X @ w, y).backward()
        optimizer.step()
        schedule.step()
    weights, gradient = w.detach(), 2 * X.T @ (X @ w.detach() - y) / len(X)
    bound, inside = weights.abs() > 0.99 / 5, weights.abs() < 0.9 / 5
    assert bound.sum() >= 3
    assert inside.sum() >= 3
    assert weights.abs().max() < 1.001 / 5
    assert (gradient[bound] * weights[bound] < 0).all()  # the loss pulls outwards, against the bound
    assert gradient[inside].abs().max() < 1e-3  # no pull towards zero, where a ridge has 5·w
    assert (5 * weights[inside]).abs().max() > 0.5


# --- losses that users bring, and Keras ---


@pytest.mark.parametrize("loss", ["mean", "half_mse", "mse_sum"])
@pytest.mark.parametrize("data", [diabetes, linnerud])
def test_other_scales_of_the_loss(loss, data):
    """Ridge's coefficients solve (their loss) + weight_decay/2·Σw² in closed form, for each loss that can be said."""
    X, Y = data()
    k = Y.reshape(len(Y), -1).shape[1]
    decay = convert("sklearn.Ridge", to="torch.SGD", alpha=5.0, rows=len(X), outputs=k, loss=loss).settings
    curvature = {"mean": 2 / Y.size, "half_mse": 1 / Y.size, "mse_sum": 2.0}[loss]
    centred = Y - Y.mean(axis=0)
    found = np.linalg.solve(curvature * X.T @ X + decay["weight_decay"] * np.eye(X.shape[1]), curvature * X.T @ centred)
    assert np.abs(found.T - Ridge(alpha=5.0).fit(X, Y).coef_).max() < 1e-6


def test_a_summed_log_loss():
    summed = convert("torch.Adam", weight_decay=0.3, loss="log_loss_sum", rows=569)
    assert summed.settings["l2"] == pytest.approx(0.3 / 2 / 569)
    # C = 1 is a summed log loss and ½‖w‖²: a weight decay of 1
    assert convert(
        "sklearn.LogisticRegression", to="torch.Adam", C=1.0, rows=569, loss="log_loss_sum"
    ).settings == pytest.approx({"weight_decay": 1.0})


@pytest.mark.parametrize(("name", "settings"), [("L1", {"l1": 0.3}), ("L2", {"l2": 0.2}), ("L1L2", {"l1": 3, "l2": 2})])
def test_keras_regularizers_by_their_published_formula(name, settings):
    w = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4)
    published = settings.get("l1", 0) * w.abs().sum() + settings.get("l2", 0) * w.square().sum()
    conversion = convert(f"keras.{name}", **settings)
    penalty = eval(conversion.expression, {"ts": ts})
    assert penalty.value(w).item() == pytest.approx(published.item(), rel=1e-12)
    assert convert("torchshrink", to=f"keras.{name}", **settings).settings == settings
    assert convert("keras.L2", to="torch.SGD", l2=0.2).settings == {"weight_decay": 0.4}
