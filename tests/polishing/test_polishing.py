"""Polish: minibatch trainings end at scikit-learn's support, gaps close, and nothing is left in disorder."""

import itertools
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import Lasso, MultiTaskLasso
from torch import nn, optim

import torchshrink as ts
from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.polishing.descent import Descent
from torchshrink.training import batches

F64 = torch.float64
STRENGTH = 0.1


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor((y - y.mean()) / y.std())[:, None]


def half_mse(output, target):
    return (output - target).square().mean() / 2


@pytest.fixture(scope="module")
def lasso(diabetes):
    X, y = diabetes
    return Lasso(alpha=STRENGTH, tol=1e-15, max_iter=100_000).fit(X.numpy(), y.numpy().ravel()).coef_


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.03),
    "AdamW": lambda p: optim.AdamW(p, lr=0.03, weight_decay=0.0, amsgrad=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.03),
    "RAdam": lambda p: optim.RAdam(p, lr=0.03),
    "Adamax": lambda p: optim.Adamax(p, lr=0.03),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.2),
    "Adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "ASGD": lambda p: optim.ASGD(p, lr=0.05, lambd=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_minibatches_and_a_decaying_rate_the_support_is_scikit_learns(diabetes, lasso, name):
    X, y = diabetes
    model = nn.Linear(10, 1, dtype=F64)
    optimizer = OPTIMIZERS[name](model.parameters())
    reg = ts.Regularizer(model, ts.L1(STRENGTH))
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with reg.attach(optimizer):
        for epoch in range(12):
            for rows in batches(len(X), 64, seed=0, epoch=epoch):
                optimizer.zero_grad()
                half_mse(model(X[rows]), y[rows]).backward()
                optimizer.step()
            schedule.step()
    polished = ts.polish(model, (X, y), reg, loss=half_mse, tol=1e-8)
    assert polished.converged
    assert polished.certificate.distance <= 1e-8
    assert not polished.before.ok()
    found = model.weight.detach().numpy().ravel()
    assert np.array_equal(found == 0, lasso == 0)
    assert np.allclose(found, lasso, atol=1e-8)


def test_a_logistic_path_has_a_gap_of_1e_8_at_each_strength():
    X, y = load_breast_cancer(return_X_y=True)
    data = (torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor(y))
    n = len(y)
    top = float((data[0].T @ (data[1] - data[1].double().mean())).abs().max()) / n
    model = nn.Linear(30, 2, dtype=F64)
    counts = []
    for strength in np.geomspace(top, top * 1e-3, 20):
        # Of two logits only their difference counts, and |w₀| + |w₁| ≥ |w₁ − w₀|: the strengths are those of one logit.
        reg = ts.Regularizer(model, ts.L1(float(strength)))
        polished = ts.polish(model, data, reg, tol=1e-8)
        assert polished.converged, str(polished)
        assert 0 <= polished.certificate.gap <= 1e-8
        assert ts.duality_gap(model, data, reg).gap <= 1e-8
        counts.append(int((model.weight[1] - model.weight[0] != 0).sum()))
    assert counts[0] == 0
    assert counts[-1] > 15
    assert all(a <= b + 2 for a, b in itertools.pairwise(counts))


def test_a_digits_network_becomes_stationary_to_a_hundred_thousandth_of_its_strength():
    X, y = load_digits(return_X_y=True)
    data = (torch.tensor(X[:300] / 16), torch.tensor(y[:300]))
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double()
    strength = 1e-2
    reg = ts.Regularizer(model, ts.L1(strength))
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    with reg.attach(optimizer):
        for _ in range(400):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data[0]), data[1]).backward()
            optimizer.step()
    polished = ts.polish(model, data, reg, tol=1e-6)
    assert polished.converged, str(polished)
    assert polished.certificate.distance <= 1e-5 * strength
    assert polished.certificate.objective < polished.before.objective
    assert polished.certificate.imbalance <= 1e-4


PENALTIES = [
    ts.L1(0.05), ts.L2(0.05), ts.ElasticNet(0.05, 0.02), ts.GroupLasso(0.03, dim=1),
    ts.SparseGroupLasso(0.02, 0.02, dim=1), ts.MCP(0.05), ts.SCAD(0.05), ts.L2SP(0.05), ts.NuclearNorm(0.05),
    ts.Orthogonal(0.01), ts.MaxNorm(0.3), ts.L1Ball(0.5), ts.LogSum(0.02), ts.UnitNorm(), ts.NonNegative(),
    ts.Box(-0.1, 0.2), ts.L0Ball(9), ts.NM(2, 4),
]  # fmt: skip


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_every_penalty_converges_on_a_linear_model(diabetes, penalty):
    X, _ = diabetes
    y = torch.stack([X @ torch.randn(10, dtype=F64) for _ in range(3)], dim=1) / 3 + 0.3 * torch.randn(
        442, 3, dtype=F64
    )
    model = nn.Linear(10, 3, dtype=F64)
    reg = ts.Regularizer(model, penalty)
    polished = ts.polish(model, (X, y), reg, tol=1e-7)
    assert polished.converged, str(polished)
    assert polished.certificate.ok(1e-6)
    if not isinstance(penalty, ts.MCP | ts.SCAD | ts.LogSum):
        assert polished.certificate.residual <= polished.certificate.distance + 1e-12
    if penalty == ts.GroupLasso(0.03, dim=1):  # nn.MSELoss over three outputs: 2/3 of scikit-learn's ½·Σ
        alpha = 0.03 * 3**0.5 * 3 / 2
        wanted = MultiTaskLasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X.numpy(), y.numpy()).coef_
        assert np.allclose(model.weight.detach().numpy(), wanted, atol=1e-6)


def test_f_never_rises(diabetes, monkeypatch):
    values = []
    whole = Descent._certified

    def watched(self, state):
        values.append(state.value)
        return whole(self, state)

    monkeypatch.setattr(Descent, "_certified", watched)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    ts.polish(model, diabetes, ts.Regularizer(model, ts.ElasticNet(0.01, 0.01)), max_steps=150)
    assert len(values) > 50
    assert all(b <= a + 1e-13 for a, b in itertools.pairwise(values))


def test_a_budget_that_ends_is_said_plainly(diabetes):
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, ts.L1(STRENGTH))
    polished = ts.polish(model, diabetes, reg, max_steps=3)
    assert not polished.converged
    assert (polished.stopped, polished.steps) == ("budget", 3)
    assert "3 steps, which was the budget" in str(polished)
    assert any("which was the budget" in note for note in polished.certificate.notes)
    assert polished.certificate.objective < polished.before.objective
    json.dumps(polished.to_dict(), allow_nan=False)
    again = ts.polish(model, diabetes, reg, max_steps=0)
    assert (again.steps, again.certificate.objective) == (0, polished.certificate.objective)


def test_a_minimum_at_a_kink_of_relu_is_no_convergence():
    """The loss is |w|/2 − 0.3·w, the mean of relu(±w) less a slope: least at its kink, w = 0."""
    X = torch.tensor([[1.0], [-1.0]], dtype=F64)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    with torch.no_grad():
        model[0].weight.fill_(0.7)
    reg = ts.Regularizer(model, ts.L2(1e-3))

    def loss(output, slope):
        return output.mean() - 0.3 * slope.mean() * model[0].weight.sum()

    polished = ts.polish(model, (X, torch.ones(2, 1, dtype=F64)), reg, loss=loss, max_steps=200)
    assert not polished.converged
    assert abs(model[0].weight.item()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_in_their_own_dtype(diabetes, lasso, dtype):
    X, y = (part.to(dtype) for part in diabetes)
    model = nn.Linear(10, 1, dtype=dtype)
    parameters = list(model.parameters())
    reg = ts.Regularizer(model, ts.L1(STRENGTH))
    polished = ts.polish(model, (X, y), reg, loss=half_mse)
    assert polished.converged
    assert all(p is q and p.dtype == dtype for p, q in zip(model.parameters(), parameters, strict=True))
    assert np.array_equal(model.weight.detach().float().numpy().ravel() == 0, lasso == 0)
    # The certificate is of the rounded weights: it says what rounding costs.
    assert polished.certificate == ts.certify(model, (X, y), reg, loss=half_mse)
    once = [p.detach().clone() for p in parameters]
    again = ts.polish(model, (X, y), reg, loss=half_mse)
    assert again.certificate.objective <= polished.certificate.objective
    assert all(torch.equal(p, q) for p, q in zip(parameters, once, strict=True)) or again.stopped == "converged"


def test_modes_statistics_gradients_and_attachment_are_left_alone(diabetes):
    X, y = diabetes
    model = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    model(X)
    statistics = model[0].running_mean.clone()
    model[1].weight.grad = torch.full_like(model[1].weight, 3.0)
    optimizer = optim.Adam(model.parameters())
    reg = ts.Regularizer(model, ts.L1(0.01)).attach(optimizer)
    first = ts.polish(model, (X, y), reg, max_steps=20)
    assert model.training
    assert model[2].training
    assert torch.equal(model[0].running_mean, statistics)
    assert bool((model[1].weight.grad == 3).all())
    assert first.certificate.objective < first.before.objective
    optimizer.step()  # still attached


def test_frozen_parameters_stay(diabetes):
    model = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 1)).double()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    reg = ts.Regularizer(model, {"1.weight": ts.L1(0.01)})
    assert ts.polish(model, diabetes, reg).converged
    assert torch.equal(model[0].weight, before)


def test_interrupted_the_best_weights_so_far_are_kept(diabetes, monkeypatch):
    model = nn.Linear(10, 1)
    X, y = (part.float() for part in diabetes)
    reg = ts.Regularizer(model, ts.L1(STRENGTH))
    before = ts.certify(model, (X, y), reg)
    calls = []
    whole = Descent._certified

    def interrupted(self, state):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return whole(self, state)

    monkeypatch.setattr(Descent, "_certified", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ts.polish(model, (X, y), reg)
    assert model.weight.dtype == torch.float32
    assert model.training
    assert ts.certify(model, (X, y), reg).objective < before.objective


def test_the_scale_in_force_counts(diabetes, lasso):
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, ts.L1(2 * STRENGTH))
    reg.scale = 0.5
    ts.polish(model, diabetes, reg, loss=half_mse, tol=1e-8)
    assert np.allclose(model.weight.detach().numpy().ravel(), lasso, atol=1e-8)


def test_the_same_start_gives_the_same_bits(diabetes):
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 1)).double()
        ts.polish(model, diabetes, ts.Regularizer(model, ts.L1(0.02)), max_steps=80)
        results.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*results)


def test_bad_arguments_are_named(diabetes):
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, ts.L1(0.1))
    with pytest.raises(InputError, match="max_steps=-1"):
        ts.polish(model, diabetes, reg, max_steps=-1)
    with pytest.raises(InputError, match="tol=0"):
        ts.polish(model, diabetes, reg, tol=0)
    with pytest.raises(InputError, match="a pair of tensors"):
        ts.polish(model, [1, 2, 3], reg)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="output is not finite: look at its weights"):
        ts.polish(model, diabetes, reg)


def test_a_path_refits_to_the_point(diabetes):
    X, y = diabetes
    result = ts.path(lambda: nn.Linear(10, 1), (X, y), ts.L1, strengths=[0.2], folds=2, epochs=2, progress=False)
    model, certificate = result.refit(0.2, polish=True)
    assert certificate.ok(1e-5)
    assert 0 <= certificate.gap <= 1e-6
    wanted = Lasso(alpha=0.1, tol=1e-15, max_iter=100_000).fit(X.numpy(), y.numpy().ravel()).coef_
    assert np.array_equal(model.weight.detach().numpy().ravel() == 0, wanted == 0)
    _, plain = result.refit(0.2)
    assert not plain.ok(1e-5)
    assert plain.gap > certificate.gap


def test_what_else_the_optimizer_minimises_is_warned_of_and_stays_in_the_notes(diabetes):
    model = nn.Linear(10, 1, dtype=F64)
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.02)
    reg, other = ts.Regularizer(model, ts.L1(STRENGTH)), ts.Regularizer(model, {"bias": ts.L2(0.3)})
    with pytest.warns(ObjectiveWarning, match="in addition"):
        reg.attach(optimizer)
    with pytest.warns(ObjectiveWarning, match="in addition"):
        other.attach(optimizer)
    with pytest.warns(ObjectiveWarning) as caught:
        polished = ts.polish(model, diabetes, reg)
    assert polished.converged
    told = [str(w.message) for w in caught if "polish minimises" in str(w.message)]
    for what in ("weight_decay=0.02", "another Regularizer acts in this optimizer (L2(0.3))"):
        assert any(what in text for text in told)
        assert any(what in note for note in polished.certificate.notes)
    other.detach()


def test_what_the_notes_say_of_a_trainings_end_is_gone_after_polishing(diabetes):
    model = nn.Linear(10, 1, dtype=F64)
    with pytest.warns(ObjectiveWarning, match="decoupled"):
        reg = ts.Regularizer(model, ts.L1(STRENGTH)).attach(optim.Adam(model.parameters()), method="decoupled")
    assert ts.polish(model, diabetes, reg).certificate.notes == ()


def test_second_derivatives_in_chunks_of_any_size_are_the_same(diabetes, monkeypatch):
    def polished():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 3), nn.Tanh(), nn.Linear(3, 1)).double()
        ts.polish(model, diabetes, ts.Regularizer(model, ts.L2(0.01)), max_steps=60)
        return model[0].weight.detach()

    sizes = []
    real = torch.zeros

    def watched(*size, **more):
        sizes.append(size)
        return real(*size, **more)

    expected = polished()
    monkeypatch.setattr("torchshrink.polishing.objective._SEEDS", 80)  # of 37 parameters: two rows at once
    monkeypatch.setattr(torch, "zeros", watched)
    torch.testing.assert_close(polished(), expected)
    assert (2, 37) in sizes
    assert not any(len(size) == 2 and size[0] > 2 and size[0] != size[1] for size in sizes)


def test_what_rounding_would_make_worse_is_left_as_it_was():
    """The optimum, rounded to bfloat16, lies above other values of bfloat16 where the problem is ill-conditioned."""
    X = torch.tensor([[1.0, 0.999], [1.0, 1.001], [1.0, 1.0], [1.02, 1.0]], dtype=F64)
    y = X @ torch.tensor([[1.7123], [-0.6371]], dtype=F64)
    model = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    reg = ts.Regularizer(model, ts.L2(1e-7))
    grid = torch.arange(-256, 257, dtype=F64) / 128  # which bfloat16 holds
    pairs = torch.cartesian_prod(grid, grid)
    losses = (pairs @ X.T - y.T).square().mean(1)
    with torch.no_grad():
        model.weight.copy_(pairs[losses.argmin()])
    start = model.weight.detach().clone()
    before = ts.certify(model, (X, y), reg, loss=nn.MSELoss())
    polished = ts.polish(model, (X, y), reg, loss=nn.MSELoss())
    assert polished.steps > 0
    assert polished.stopped == "rounded"
    assert not polished.converged
    assert torch.equal(model.weight, start)
    assert polished.certificate.objective == polished.before.objective == before.objective


@pytest.mark.parametrize("penalty", [ts.L0Ball(1.0), ts.L0Ball(0.9), ts.NM(4, 4), ts.NM(3, 4)], ids=str)
def test_a_bound_on_the_count_makes_no_more_zeros_than_it_asks_for(penalty):
    torch.manual_seed(0)
    X = torch.randn(60, 4, dtype=F64)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    ts.polish(model, (X, torch.sin(X.sum(1, keepdim=True))), ts.Regularizer(model, penalty), max_steps=60)
    for p in (model[0].weight, model[2].weight):
        assert int((p == 0).sum()) == int((penalty.prox(torch.rand_like(p) + 1, 1.0) == 0).sum())
