"""What is known in closed form, or from scikit-learn: section by section the truths that this library stands on."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from torch import nn

import torchshrink as ts
from at_rest import AtRest
from torchshrink.penalties.proximal import group_norm
from torchshrink.regularizer.balance import imbalance

F64 = torch.float64


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor((y - y.mean()) / y.std())[:, None]


def half_mse(output, target):
    return (output - target).square().mean() / 2


# --- scikit-learn's solutions, by training and by polish ---

LINEAR = [
    (Lasso(alpha=0.1, tol=1e-15, max_iter=100_000), ts.L1(0.1)),
    # α·ρ on |w|, ½·α·(1−ρ) on w²: ours has no ½
    (ElasticNet(alpha=0.2, l1_ratio=0.5, tol=1e-15, max_iter=100_000), ts.ElasticNet(l1=0.1, l2=0.05)),
    # ‖y − Xw‖² + α‖w‖² as a sum: divided by 2n it is ½·MSE + α/(2n)‖w‖²
    (Ridge(alpha=44.2, tol=1e-15), ts.L2(44.2 / (2 * 442))),
]


@pytest.mark.parametrize(("reference", "penalty"), LINEAR, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("way", ["Adam", "polish"])
def test_scikit_learns_linear_solutions(diabetes, reference, penalty, way):
    X, y = diabetes
    wanted = torch.tensor(np.asarray(reference.fit(X.numpy(), y.numpy().ravel()).coef_))
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, penalty)
    if way == "polish":
        assert ts.polish(model, (X, y), reg, loss=half_mse, tol=1e-9).certificate.distance <= 1e-8
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500, eta_min=1e-5)
        with reg.attach(optimizer):
            at_rest = AtRest(model.parameters())
            for _ in range(1500):
                optimizer.zero_grad()
                half_mse(model(X), y).backward()
                optimizer.step()
                schedule.step()
                if at_rest():
                    break
    found = model.weight.detach().reshape(-1)
    assert torch.allclose(found, wanted.reshape(-1), atol=1e-8 if way == "polish" else 1e-6)
    assert torch.equal(found == 0, wanted.reshape(-1) == 0)


@pytest.mark.parametrize("C", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_scikit_learns_logistic_solutions(C, norm):
    X, y = load_breast_cancer(return_X_y=True)
    X, n = (X - X.mean(0)) / X.std(0), len(y)
    kind = {"solver": "saga", "l1_ratio": 1.0} if norm == "l1" else {"solver": "newton-cholesky"}
    X = X[:, :10]
    wanted = LogisticRegression(C=C, tol=1e-12, max_iter=20_000, **kind).fit(X, y)
    penalty = ts.L1(1 / (n * C)) if norm == "l1" else ts.L2(1 / (2 * n * C))
    model = nn.Linear(10, 1, dtype=F64)
    data = (torch.tensor(X), torch.tensor(y, dtype=F64)[:, None])
    polished = ts.polish(model, data, ts.Regularizer(model, penalty), loss=nn.BCEWithLogitsLoss(), tol=1e-9)
    assert polished.converged
    assert np.allclose(model.weight.detach().numpy(), wanted.coef_, atol=1e-6)
    assert np.array_equal(model.weight.detach().numpy() == 0, wanted.coef_ == 0)


# --- what coupled decay solves ---


def test_coupled_decay_is_ridge(diabetes):
    X, y = diabetes
    decay = 0.2
    model = nn.Linear(10, 1, bias=False, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=decay)
    at_rest = AtRest(model.parameters())
    for _ in range(2000):
        optimizer.zero_grad()
        half_mse(model(X), y).backward()
        optimizer.step()
        if at_rest():
            break
    ridge = torch.linalg.solve(X.T @ X / len(X) + decay * torch.eye(10, dtype=F64), X.T @ y / len(X)).T
    assert torch.allclose(model.weight.detach(), ridge, atol=1e-10)
    # and it is our L2 at half the decay
    certificate = ts.certify(model, (X, y), ts.Regularizer(model, ts.L2(decay / 2)), loss=half_mse)
    assert certificate.distance <= 1e-10


def test_two_linear_layers_with_decay_soft_threshold_the_singular_values():
    """With XᵀX = n·I the product of the factors has the singular values (σ − decay)₊ of least squares."""
    n, decay = 64, 0.4
    X = torch.linalg.qr(torch.randn(n, 5, dtype=F64))[0] * n**0.5
    target = X @ torch.randn(5, 4, dtype=F64)
    sigma = torch.linalg.svdvals(X.T @ target / n)
    net = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Linear(6, 4, bias=False)).double()
    reg = ts.Regularizer(net, ts.L2(decay / 2))

    def loss(output, wanted):
        return (output - wanted).square().sum() / (2 * len(output))

    assert ts.polish(net, (X, target), reg, loss=loss, tol=1e-8).converged
    found = torch.linalg.svdvals(net[1].weight @ net[0].weight).detach()
    # The fourth value is below the decay in some draws and must then be zero.
    assert torch.allclose(found, (sigma - decay).clamp(min=0), atol=1e-6)


def test_a_product_of_two_factors_with_decay_is_the_lasso(diabetes):
    """W = u∘v with coupled decay λ on both: ½λ(u² + v²) = λ|uv| where they are equal in size."""
    X, y = diabetes
    strength = 0.1

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = (nn.Parameter(torch.randn(1, 10, dtype=F64)) for _ in range(2))

        def forward(self, X):
            return X @ (self.u * self.v).T

    model = Product()
    reg = ts.Regularizer(model, ts.L2(strength / 2))
    assert ts.polish(model, (X, y), reg, loss=half_mse, tol=1e-9).certificate.ok(1e-8)
    wanted = Lasso(alpha=strength, fit_intercept=False, tol=1e-15, max_iter=100_000).fit(X, y.ravel()).coef_
    found = (model.u * model.v).detach().numpy().ravel()
    assert np.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(model.u.abs(), model.v.abs(), atol=1e-6)


# --- balance ---


@pytest.mark.parametrize("penalty", [ts.L2(0.02), ts.L1(0.02), ts.ElasticNet(0.01, 0.01)], ids=str)
@pytest.mark.parametrize("on", [ts.ALL, ts.WEIGHTS], ids=str)
def test_relu_units_are_balanced_at_stationarity(penalty, on):
    X = torch.rand(40, 4, dtype=F64) + 0.5
    y = X @ torch.tensor([[1.0], [2.0], [0.5], [0.0]], dtype=F64) + 0.3 * torch.randn(40, 1, dtype=F64)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.2), nn.Linear(3, 1)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.abs() + 0.1)  # every unit is on for every row, so the minimum is at no kink of ReLU
    reg = ts.Regularizer(net, penalty, on=on)
    before = ts.certify(net, (X, y), reg)
    polished = ts.polish(net, (X, y), reg, tol=1e-7)
    assert before.imbalance > 0.1
    assert polished.converged
    assert polished.certificate.imbalance <= 1e-5
    if penalty == ts.L2(0.02) and on is ts.ALL:  # the classical statement
        incoming = net[0].weight.square().sum(1) + net[0].bias.square()
        assert torch.allclose(incoming, net[3].weight.square().sum(0), atol=1e-5)


def test_a_unit_out_of_balance_is_seen_without_any_data():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        net[2].weight.copy_(torch.tensor([[5.0, 2.0]]))
    l2 = {net[0].weight: ts.L2(0.1), net[2].weight: ts.L2(0.1)}
    assert imbalance(net, l2) == pytest.approx(3 / 5)  # 25 = 25, but 1 against 4
    assert imbalance(net, {net[0].weight: ts.L1(0.2), net[2].weight: ts.L1(0.2)}) == pytest.approx(1 / 3)
    assert imbalance(net, {net[0].weight: ts.L2(0.4), net[2].weight: ts.L2(0.1)}) == pytest.approx(3 / 5)
    assert imbalance(net, {}) is None
    assert imbalance(nn.Sequential(net[0], nn.Tanh(), net[2]), l2) is None
    net[0].weight.requires_grad_(False)
    assert imbalance(net, l2) is None


# --- prox and gradient, by brute force ---

ELEMENTWISE = [
    ts.L1(0.4), ts.L2(0.4), ts.ElasticNet(0.3, 0.2), ts.MCP(0.4, 1.5), ts.SCAD(0.4, 2.5), ts.L2SP(0.4, anchor=0.7),
]  # fmt: skip


@pytest.mark.parametrize("penalty", ELEMENTWISE, ids=str)
@pytest.mark.parametrize("step", [0.3, 1.0, 1.6, 4.0])
def test_prox_is_the_minimiser_on_a_fine_grid(penalty, step):
    grid = torch.linspace(-6, 6, 240_001, dtype=F64)
    values = torch.stack([penalty.value(z) for z in grid[:1]])  # a scalar is a tensor like any other
    assert values.shape == (1,)
    one_by_one = torch.func.vmap(penalty.value)(grid)
    for w in torch.tensor([-3.1, -0.7, -0.2, 0.0, 0.1, 0.41, 0.9, 1.3, 2.2, 5.0], dtype=F64):
        objective = one_by_one + (grid - w).square() / (2 * step)
        u = penalty.prox(w, step)
        at_prox = penalty.value(u) + (u - w).square() / (2 * step)
        assert at_prox <= objective.min() + 1e-12
        assert (u - grid[objective.argmin()]).abs() <= 1e-4 or objective.min() - at_prox <= 1e-9


@pytest.mark.parametrize("penalty", [ts.GroupLasso(0.4), ts.SparseGroupLasso(0.3, 0.2)], ids=str)
def test_group_prox_is_the_minimiser_among_its_neighbours(penalty):
    w = torch.randn(3, 2, dtype=F64)
    for step in (0.1, 1.0, 3.0):
        u = penalty.prox(w, step)
        best = penalty.value(u) + (u - w).square().sum() / (2 * step)
        near = u + torch.randn(2000, 3, 2, dtype=F64) * torch.logspace(-4, 0, 2000, dtype=F64)[:, None, None]
        near = torch.cat([near, near * (group_norm(near[0], (0,)) > 0)])
        values = torch.func.vmap(penalty.value)(near) + (near - w).square().sum((1, 2)) / (2 * step)
        assert best <= values.min() + 1e-12


OTHERS = [ts.GroupLasso(0.4), ts.SparseGroupLasso(0.3, 0.2), ts.NuclearNorm(0.3), ts.Orthogonal(0.2)]


@pytest.mark.parametrize("penalty", ELEMENTWISE + OTHERS, ids=str)
def test_gradients_are_finite_differences(penalty):
    w = torch.randn(3, 4, dtype=F64) + 0.1
    h = 1e-6
    numeric = torch.zeros_like(w)
    for i in range(w.numel()):
        e = torch.zeros_like(w).reshape(-1)
        e[i] = h
        e = e.reshape(w.shape)
        numeric.view(-1)[i] = (penalty.value(w + e) - penalty.value(w - e)) / (2 * h)
    assert torch.allclose(penalty.grad(w), numeric, atol=1e-7)


# --- two numbers everybody can check ---


def test_diabetes_as_scikit_learn_ships_it():
    X, y = load_diabetes(return_X_y=True)
    centred = torch.tensor(y - y.mean())
    gradient = -torch.tensor(X - X.mean(0)).T @ centred / len(y)
    assert float(ts.L1(1.0).critical_strength(gradient)) == pytest.approx(2.14804, abs=5e-6)
    model = nn.Linear(10, 1, dtype=F64)
    data = (torch.tensor(X), torch.tensor(y)[:, None])
    assert ts.polish(model, data, ts.Regularizer(model, ts.L1(0.1)), loss=half_mse).converged
    assert int((model.weight != 0).sum()) == 7
    above = nn.Linear(10, 1, dtype=F64)
    ts.polish(above, data, ts.Regularizer(above, ts.L1(2.1481)), loss=half_mse)
    assert not above.weight.any()
    below = nn.Linear(10, 1, dtype=F64)
    ts.polish(below, data, ts.Regularizer(below, ts.L1(2.148)), loss=half_mse)
    assert int((below.weight != 0).sum()) == 1
