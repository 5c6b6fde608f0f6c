"""What acts inside the optimizer's step, against scikit-learn, torch's own weight decay and AdamW."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import ElasticNet, Lasso, MultiTaskLasso
from torch import nn

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning, StepSizeError

STRENGTH = 0.05

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "SGD Nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "SGD dampening": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.5),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AMSGrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW without decay": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0),
}


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    y = (y - y.mean()) / y.std()
    return X, y


def descend(make_optimizer, penalty, X, y, *, steps=4000, method="auto"):
    """Full-batch training of a linear model on ½·mean squares, as scikit-learn counts them."""
    X, y = torch.tensor(X), torch.tensor(y).reshape(len(y), -1)
    model = nn.Linear(X.shape[1], y.shape[1]).double()
    optimizer = make_optimizer(model.parameters())
    reg = ts.Regularizer(model, penalty).attach(optimizer, method=method)

    def closure():
        optimizer.zero_grad()
        loss = (model(X) - y).square().sum(1).mean() / 2
        loss.backward()
        return loss

    at_rest = AtRest(model.parameters(), within=1e-10)
    for _ in range(steps):
        closure()
        optimizer.step()
        if at_rest():
            break
    return model.weight.detach().numpy(), reg.certify(closure)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_prox_returns_the_lasso_with_its_zeros(name, diabetes):
    X, y = diabetes
    expected = Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    weight, certificate = descend(OPTIMIZERS[name], ts.L1(STRENGTH), X, y)
    assert np.abs(weight[0] - expected).max() <= 1e-6
    assert np.array_equal(weight[0] == 0, expected == 0)
    assert (expected == 0).sum() == 4
    assert certificate.ok(1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_prox_returns_the_elastic_net(name, diabetes):
    X, y = diabetes
    reference = ElasticNet(alpha=0.1, l1_ratio=0.5, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    penalty = ts.ElasticNet(l1=0.05, l2=0.025)  # αρ and ½α(1−ρ)
    weight, _ = descend(OPTIMIZERS[name], penalty, X, y)
    assert np.abs(weight[0] - reference).max() <= 1e-6
    assert np.array_equal(weight[0] == 0, reference == 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_prox_returns_the_multi_task_lasso(name, diabetes):
    X, y = diabetes
    U, _, V = np.linalg.svd(X, full_matrices=False)  # hardly correlated, so that a few hundred steps suffice
    X = len(X) ** 0.5 * U * np.linspace(1.2, 0.8, 10) @ V
    Y = np.stack([y, X[:, 2] * 0.3 - y, X[:, 8] + X[:, 3]], axis=1)
    alpha = 0.3
    reference = MultiTaskLasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X, Y).coef_  # (tasks, features)
    # A group is a feature: a column of Linear's weight. scikit-learn has no √p_g, and p_g = 3 tasks.
    weight, _ = descend(OPTIMIZERS[name], ts.GroupLasso(alpha / 3**0.5, dim=1), X, Y)
    assert np.abs(weight - reference).max() <= 1e-6
    assert np.array_equal(weight == 0, reference == 0)
    assert 0 < (reference == 0).all(0).sum() < 10


def test_a_raw_threshold_of_lr_times_strength_solves_another_problem(diabetes):
    """Why the step size is needed: the decoupled way after momentum solves the lasso for λ/10, and it says so."""
    X, y = diabetes
    with pytest.warns(ObjectiveWarning, match="not end at a stationary point"):
        weight, certificate = descend(OPTIMIZERS["SGD momentum"], ts.L1(STRENGTH), X, y, method="decoupled")
    tenth = Lasso(alpha=STRENGTH / 10, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    assert np.abs(weight[0] - tenth).max() <= 1e-6
    assert not certificate.ok(1e-2)
    assert "decoupled" in certificate.notes[0]


def digits():
    X, y = load_digits(return_X_y=True)
    return torch.tensor(X[:400] / 16), torch.tensor(y[:400])


def train(how, *, momentum, steps=200, strength=1e-3, make=None, scale=None):
    torch.manual_seed(1)
    X, y = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double()
    decay = 2 * strength if how == "weight_decay" else 0.0
    make = make or (lambda p, **more: torch.optim.SGD(p, lr=0.1, momentum=momentum, **more))
    optimizer = make(model.parameters(), weight_decay=decay)
    reg = ts.Regularizer(model, ts.L2(strength), on=ts.ALL)
    if how in ("gradient", "prox", "decoupled"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ObjectiveWarning)
            reg.attach(optimizer, method=how)
    for step in range(steps):
        batch = torch.arange(step * 37, step * 37 + 50) % len(X)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X[batch]), y[batch])
        if how == "loss":
            loss = loss + reg.value()
        loss.backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def largest_difference(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_l2_in_the_loss_attached_and_weight_decay_are_the_same(momentum):
    in_the_loss = train("loss", momentum=momentum)
    assert largest_difference(in_the_loss, train("gradient", momentum=momentum)) <= 1e-12
    assert largest_difference(in_the_loss, train("weight_decay", momentum=momentum)) <= 1e-12
    assert largest_difference(in_the_loss, train("none", momentum=momentum)) > 1e-3


def test_the_three_agree_under_adam_too():
    def adam(p, **more):
        return torch.optim.Adam(p, lr=1e-2, **more)

    in_the_loss = train("loss", momentum=0, make=adam, steps=50)
    assert largest_difference(in_the_loss, train("gradient", momentum=0, make=adam, steps=50)) <= 1e-10
    assert largest_difference(in_the_loss, train("weight_decay", momentum=0, make=adam, steps=50)) <= 1e-10


def test_decoupled_l2_is_adamws_decay():
    def adamw(p, **more):
        return torch.optim.AdamW(p, lr=1e-2, **more)

    found = train("decoupled", momentum=0, make=adamw, steps=50)
    assert largest_difference(found, train("weight_decay", momentum=0, make=adamw, steps=50)) <= 1e-12


def linear_with(make, penalty=None, method="auto"):
    model = nn.Linear(4, 2)
    optimizer = make(model.parameters())
    reg = ts.Regularizer(model, penalty or ts.L1(0.1))
    return model, optimizer, reg.attach(optimizer, method=method)


def one_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(3, 4)).square().mean().backward()
    optimizer.step()


def test_auto_is_prox_where_not_smooth_and_gradient_where_smooth():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    reg = ts.Regularizer(model, {"0.*": ts.L1(0.1), "1.*": ts.L2(0.1)})
    reg.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    assert reg.methods == {"0.weight": "prox", "1.weight": "gradient"}


class Homemade(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p -= 0.1 * p.grad


@pytest.mark.parametrize(
    ("make", "penalty", "method"),
    [
        (Homemade, ts.L1(0.1), "latent"),
        (torch.optim.LBFGS, ts.GroupLasso(0.1), "latent"),
        (torch.optim.Rprop, ts.MaxNorm(1.0), "latent"),
        (torch.optim.Adam, ts.NuclearNorm(0.1), "latent"),
        (lambda p: torch.optim.SGD(p, lr=0.1), ts.NuclearNorm(0.1), "prox"),
        (torch.optim.Adam, ts.L1(0.1), "prox"),
        (torch.optim.Adam, ts.GroupMCP(0.1), "prox"),  # by that of its convex part
        (torch.optim.LBFGS, ts.L2(0.1), "gradient"),
        (torch.optim.Adam, ts.Orthogonal(0.1), "gradient"),
    ],
)
def test_auto_takes_latent_weights_where_no_prox_after_the_step_is_exact(make, penalty, method):
    *_, reg = linear_with(make, penalty)
    assert reg.methods == {"weight": method}
    assert f" {method} " in reg.summary()


def test_an_unknown_optimizer_is_refused_by_name_for_prox_and_taken_for_gradient():
    with pytest.raises(StepSizeError, match=r"Homemade.*gradient"):
        linear_with(Homemade, method="prox")
    model, optimizer, _ = linear_with(Homemade, ts.L2(0.5), "gradient")
    before = model.weight.detach().clone()
    optimizer.zero_grad()
    (0 * model(torch.ones(1, 4)).sum()).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * (2 * 0.5 * before))


def test_a_subclass_may_step_differently_and_is_refused():
    class MyAdam(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    with pytest.raises(StepSizeError, match="MyAdam"):
        linear_with(MyAdam, method="prox")


def test_a_parameter_that_the_optimizer_lacks_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    with pytest.raises(AttachmentError, match=r"0\.weight: penalised, but not among the parameters of this SGD"):
        ts.Regularizer(model, ts.L1(0.1)).attach(optimizer)
    assert not optimizer._optimizer_step_post_hooks


def test_attaching_twice_is_refused_and_detaching_is_not():
    _, optimizer, reg = linear_with(lambda p: torch.optim.SGD(p, lr=0.1))
    with pytest.raises(AttachmentError, match="call detach"):
        reg.attach(optimizer)
    reg.detach()
    reg.detach()
    reg.attach(optimizer)


@pytest.mark.parametrize("bad", ["proximal", "", None])
def test_an_unknown_method_is_named(bad):
    with pytest.raises(InputError, match="method="):
        linear_with(lambda p: torch.optim.SGD(p, lr=0.1), method=bad)


def test_for_a_penalty_in_the_loss_there_is_nothing_to_attach():
    with pytest.raises(InputError, match=r"method='loss'.*nothing is attached: add reg.value\(\) to the loss"):
        linear_with(lambda p: torch.optim.SGD(p, lr=0.1), method="loss")


def test_what_is_not_an_optimizer_is_named():
    with pytest.raises(InputError, match=r"torch\.optim\.Optimizer expected"):
        ts.Regularizer(nn.Linear(2, 2), ts.L1(0.1)).attach("adam")


def test_detached_and_as_a_context_manager_nothing_is_left_behind():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ts.Regularizer(model, ts.L1(100.0)).attach(optimizer):
        one_step(model, optimizer)
        assert bool((model.weight == 0).all())
    nn.init.ones_(model.weight)
    one_step(model, optimizer)
    assert not bool((model.weight == 0).any())
    with pytest.raises(AttachmentError, match="attach first"), ts.Regularizer(model, ts.L1(0.1)):
        pass


def test_weight_decay_beside_a_penalty_warns_and_says_what_the_two_do():
    with pytest.warns(ObjectiveWarning, match=r"SGD\(weight_decay=0.02\).*L2\(0.01\) in addition"):
        linear_with(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02))
    with pytest.warns(ObjectiveWarning, match=r"AdamW\(weight_decay=0.01\).*no stationary point"):
        linear_with(torch.optim.AdamW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear_with(torch.optim.Adam)


def test_plain_descent_makes_the_decoupled_way_exact_and_silent(diabetes):
    X, y = diabetes
    expected = Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight, certificate = descend(OPTIMIZERS["SGD"], ts.L1(STRENGTH), X, y, method="decoupled")
    assert np.abs(weight[0] - expected).max() <= 1e-6
    assert certificate.notes == ()


def test_a_parameter_without_gradient_is_left_alone_as_the_optimizer_does():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.Adam(model.parameters())
    ts.Regularizer(model, ts.L1(10.0)).attach(optimizer)
    before = model[1].weight.detach().clone()
    optimizer.zero_grad()
    model[0](torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
    assert torch.equal(model[1].weight.detach(), before)


def test_a_closure_that_computes_the_gradients_inside_the_step_is_penalised_too(diabetes):
    X, y = map(torch.tensor, diabetes)
    by_hand, by_closure = (nn.Linear(10, 1).double() for _ in range(2))
    by_closure.load_state_dict(by_hand.state_dict())
    for model, use_closure in ((by_hand, False), (by_closure, True)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        reg = ts.Regularizer(model, {"weight": ts.L2(0.1)}).attach(optimizer)

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(X)[:, 0] - y).square().mean()
            loss.backward()
            return loss

        for _ in range(5):
            if use_closure:
                objective = optimizer.step(closure)
            else:
                loss = closure()
                objective = loss + reg.value()
                optimizer.step()
        torch.testing.assert_close(by_hand.weight, by_closure.weight) if use_closure else None
    assert objective > closure()


def test_lbfgs_with_l2_as_gradient_solves_ridge(diabetes):
    X, y = diabetes
    strength = 0.05
    w = np.linalg.solve(X.T @ X / len(X) + 2 * strength * np.eye(10), X.T @ y / len(X))
    X, y = map(torch.tensor, diabetes)
    model = nn.Linear(10, 1, bias=False).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), line_search_fn="strong_wolfe", max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-16
    )
    ts.Regularizer(model, ts.L2(strength)).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = (model(X)[:, 0] - y).square().mean() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    assert np.abs(model.weight.detach().numpy()[0] - w).max() <= 1e-8


@pytest.mark.parametrize("name", ["SGD momentum", "Adam"])
def test_maximising_minus_the_loss_ends_at_the_same_lasso(name, diabetes):
    X, y = diabetes
    expected = Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    model = nn.Linear(10, 1).double()
    optimizer = OPTIMIZERS[name](model.parameters())
    optimizer.param_groups[0]["maximize"] = True
    ts.Regularizer(model, ts.L1(STRENGTH)).attach(optimizer)
    X, y = map(torch.tensor, diabetes)
    at_rest = AtRest(model.parameters(), within=1e-10)
    for _ in range(4000):
        optimizer.zero_grad()
        (-(model(X)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
        if at_rest():
            break
    assert np.abs(model.weight.detach().numpy()[0] - expected).max() <= 1e-6


def test_a_schedule_counts_the_optimizers_steps():
    model, optimizer, reg = linear_with(lambda p: torch.optim.SGD(p, lr=0.1))
    seen = []
    reg.scale = lambda step: seen.append(step) or 0.0
    for _ in range(3):
        one_step(model, optimizer)
    assert sorted(set(seen)) == [0, 1, 2]
    assert reg.steps == 3


def test_two_groups_with_their_own_lr_solve_one_problem(diabetes):
    X, y = diabetes
    expected = Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X, y).coef_

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(5, 1), nn.Linear(5, 1, bias=False)

        def forward(self, x):
            return self.left(x[:, :5]) + self.right(x[:, 5:])

    model = Split().double()
    groups = [{"params": model.left.parameters(), "lr": 0.1}, {"params": model.right.parameters(), "lr": 0.03}]
    optimizer = torch.optim.SGD(groups, momentum=0.5)
    ts.Regularizer(model, ts.L1(STRENGTH)).attach(optimizer)
    X, y = map(torch.tensor, diabetes)
    at_rest = AtRest(model.parameters(), within=1e-10)
    for _ in range(4000):
        optimizer.zero_grad()
        ((model(X)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
        if at_rest():
            break
    weight = torch.cat([model.left.weight, model.right.weight], dim=1).detach().numpy()[0]
    assert np.abs(weight - expected).max() <= 1e-6
    assert np.array_equal(weight == 0, expected == 0)
