"""Latent weights: any optimizer moves them, the model holds their prox, and the end is a stationary point of F."""

import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning, StepSizeError

STRENGTH = 0.05


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    y = (y - y.mean()) / y.std()
    return torch.tensor(X), torch.tensor(y)[:, None]


@pytest.fixture(scope="module")
def several(diabetes):
    """Three targets of features that are nearly uncorrelated, so that a few hundred steps suffice."""
    X, y = diabetes
    U, S, V = torch.linalg.svd(X, full_matrices=False)
    X = U @ torch.diag(S.mean() * torch.linspace(1.2, 0.8, 10, dtype=X.dtype)) @ V
    return X, torch.cat([y, X[:, [2]] * 0.3 - y, 0.2 * X[:, [8]] + 0.3 * X[:, [3]]], dim=1)


@pytest.fixture(scope="module")
def lasso(diabetes):
    X, y = diabetes
    found = Lasso(alpha=STRENGTH, tol=1e-14, max_iter=100_000).fit(X.numpy(), y.numpy()[:, 0]).coef_
    assert (found == 0).sum() == 4
    return torch.tensor(found)[None]


def half_square(output, y):
    return (output - y).square().sum(1).mean() / 2


class Training:
    """A linear model of full batches, or of a few rows, whose rates are level for a while and fall then."""

    def __init__(self, data, make, penalty, *, method="latent", loss=half_square, start=None, **how):
        torch.manual_seed(0)
        self.X, self.y = data
        self.loss = loss
        self.model = nn.Linear(self.X.shape[1], self.y.shape[1]).double()
        if start is not None:
            with torch.no_grad():
                self.model.weight.copy_(start)
        made = make(self.model)
        self.optimizers = made if isinstance(made, list) else [made]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ObjectiveWarning)  # of weight decay
            self.reg = ts.Regularizer(self.model, penalty).attach(self.optimizers[0], method=method, **how)

    def closure(self, rows=slice(None)):
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.loss(self.model(self.X[rows]), self.y[rows])
        loss.backward()
        return loss

    def run(self, steps, *, batch=None, fall=6.0, level=0.5, by_closure=False):
        draw = torch.Generator().manual_seed(1)
        rates = [(group, group["lr"]) for optimizer in self.optimizers for group in optimizer.param_groups]
        flips, last = 0, None
        for step in range(steps):
            for group, rate in rates:
                group["lr"] = rate * 10 ** (-fall * max(0.0, (step / steps - level) / (1 - level)))
            if not by_closure:
                self.closure(slice(None) if batch is None else torch.randint(len(self.X), (batch,), generator=draw))
            for optimizer in self.optimizers:
                optimizer.step(*([self.closure] if by_closure else []))
            if step >= steps // 2:
                zeros = self.model.weight == 0
                flips += 0 if last is None else int((zeros != last).sum())
                last = zeros
        self.flips = flips
        return self

    @property
    def weight(self):
        return self.model.weight.detach()

    @property
    def certificate(self):
        return self.reg.certify(self.closure)


def muon(model):
    return [
        torch.optim.Muon([model.weight], lr=0.02, weight_decay=0),
        torch.optim.Adam([model.bias], lr=0.01),
    ]


def adam(model, **more):
    return torch.optim.Adam(model.parameters(), lr=0.01, **more)


def momentum(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


OPTIMIZERS = {
    "momentum": momentum,
    "Adam": adam,
    "fused Adam": lambda model: adam(model, fused=True),
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=0.1, eps=(None, 0.1)),
    "RMSprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.5),
    "Adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=0.5),
}
if hasattr(torch.optim, "Muon"):
    OPTIMIZERS["Muon"] = muon
has_muon = pytest.mark.skipif("Muon" not in OPTIMIZERS, reason="torch has none before 2.9")

PENALTIES = {
    "lasso": ts.L1(STRENGTH),
    "elastic net": ts.ElasticNet(STRENGTH, STRENGTH / 2),
    "groups": ts.GroupLasso(STRENGTH, dim=1),
    "nuclear norm": ts.NuclearNorm(0.3),
    "max norm": ts.MaxNorm(0.3),
}


@pytest.fixture(scope="module")
def references(several):
    """Plain descent with the prox of its own step, which test_attachment.py holds to scikit-learn."""
    return {
        name: Training(several, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), penalty, method="prox")
        .run(400, fall=0)
        .weight
        for name, penalty in PENALTIES.items()
    }


# --- it ends where F is stationary ---


# The optimizer knows nothing of the prox, nor the prox of the optimizer: each is there, and each prox is with two.
ENDS = [("lasso", name) for name in OPTIMIZERS] + [
    (penalty, name) for penalty in PENALTIES if penalty != "lasso" for name in ("momentum", "Adam")
]


@pytest.mark.parametrize(("penalty", "name"), ENDS)
def test_each_optimizer_ends_at_the_solution_with_its_zeros_and_rank(name, penalty, several, references):
    expected = references[penalty]
    training = Training(several, OPTIMIZERS[name], PENALTIES[penalty]).run(800)
    assert (training.weight - expected).abs().max() <= 1e-6
    assert torch.equal(training.weight == 0, expected == 0)
    assert torch.linalg.matrix_rank(training.weight, tol=1e-9) == torch.linalg.matrix_rank(expected, tol=1e-9)
    assert training.certificate.ok(1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: torch.optim.LBFGS(m.parameters(), lr=0.5, max_iter=4),
        lambda m: torch.optim.LBFGS(m.parameters(), line_search_fn="strong_wolfe"),
        lambda m: torch.optim.Rprop(m.parameters(), lr=0.01),
    ],
    ids=["LBFGS", "LBFGS with a line search", "Rprop"],
)
def test_optimizers_without_a_rate_that_falls(make, diabetes, lasso):
    training = Training(diabetes, make, ts.L1(STRENGTH), method="auto")
    assert training.reg.methods == {"weight": "latent"}
    training.run(400, fall=0, by_closure=True)
    assert (training.weight - lasso).abs().max() <= 1e-4
    assert torch.equal(training.weight == 0, lasso == 0)


@pytest.mark.parametrize(
    ("penalty", "steps"),
    [(ts.MCP(STRENGTH), 1000), (ts.SCAD(STRENGTH), 1000), (ts.MCP(STRENGTH, gamma=1.1), 2000)],
    ids=str,
)
@pytest.mark.parametrize("make", [momentum, adam])
def test_penalties_that_are_not_convex_come_to_rest(penalty, steps, make, diabetes):
    training = Training(diabetes, make, penalty, loss=lambda output, y: (output - y).square().mean()).run(steps)
    assert training.certificate.relative <= 1e-8
    assert (training.weight == 0).any()


@pytest.mark.parametrize(("make", "factor"), [(adam, 1e-3), pytest.param(muon, 1e3, marks=has_muon)])
def test_the_scales_of_loss_and_features_do_not_matter(factor, make, several, references):
    X, y = several
    lasso = references["lasso"]
    scaled = Training(
        several, make, ts.L1(STRENGTH * factor), loss=lambda output, y: factor * half_square(output, y)
    ).run(800)
    assert (scaled.weight - lasso).abs().max() <= 1e-6
    assert torch.equal(scaled.weight == 0, lasso == 0)

    def rated(model):
        made = make(model)
        for optimizer in made if isinstance(made, list) else [made]:
            (group,) = optimizer.param_groups
            weight, *others = group["params"]
            group["params"] = [weight]
            if weight is model.weight:
                group["lr"] /= factor
            if others:
                optimizer.add_param_group({"params": others})
        return made

    start = nn.Linear(10, 3).double().weight.detach() / factor
    features = Training((X * factor, y), rated, ts.L1(STRENGTH * factor), start=start).run(800)
    assert (features.weight * factor - lasso).abs().max() <= 1e-6
    assert torch.equal(features.weight == 0, lasso == 0)


def test_coupled_decay_is_a_ridge_of_the_models_weights(diabetes):
    X, y = diabetes
    expected = ElasticNet(alpha=STRENGTH + 0.1, l1_ratio=STRENGTH / (STRENGTH + 0.1), tol=1e-14, max_iter=100_000)
    expected = expected.fit(X.numpy(), y.numpy()[:, 0]).coef_
    training = Training(diabetes, lambda model: adam(model, weight_decay=0.1), ts.L1(STRENGTH)).run(2000)
    assert np.abs(training.weight[0].numpy() - expected).max() <= 1e-6
    assert np.array_equal(training.weight[0] == 0, expected == 0)


def test_the_zeros_of_minibatches_stay(diabetes, lasso):
    found = {
        method: Training(diabetes, adam, ts.L1(STRENGTH), method=method).run(2000, batch=32, fall=3, level=0.0)
        for method in ("latent", "prox")
    }
    assert torch.equal(found["latent"].weight == 0, lasso == 0)
    assert found["latent"].flips <= 10
    assert found["prox"].flips > 100


@pytest.mark.parametrize("rho", [0.5, 5.0, 20.0])
def test_the_end_does_not_depend_on_rho(rho, several, references):
    training = Training(several, adam, ts.L1(STRENGTH), rho=rho).run(800)
    assert (training.weight - references["lasso"]).abs().max() <= 1e-5
    assert torch.equal(training.weight == 0, references["lasso"] == 0)


# --- and how it gets there ---


def test_after_plain_descent_it_is_the_prox(diabetes):
    def descent(model):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    latent = Training(diabetes, descent, ts.L1(STRENGTH), rho=10.0)
    prox = Training(diabetes, descent, ts.L1(STRENGTH), method="prox")
    # The prox acts on what the step makes of the weights, latent weights have been moved by the pull already.
    with torch.no_grad():
        prox.model.weight.copy_(ts.L1(STRENGTH).prox(prox.model.weight, 0.0))
    for _ in range(50):
        for training in (latent, prox):
            training.run(1, fall=0)
    assert (latent.weight - prox.weight).abs().max() <= 1e-12
    assert torch.equal(latent.weight == 0, prox.weight == 0)


@pytest.mark.parametrize("make", [momentum, adam])
def test_at_the_solution_nothing_moves(make, several):
    found = Training(several, make, ts.L1(STRENGTH)).run(800)
    again = Training(several, make, ts.L1(STRENGTH))
    again.model.load_state_dict(found.model.state_dict())
    again.reg.load_state_dict(found.reg.state_dict())
    again.optimizers[0].load_state_dict(found.optimizers[0].state_dict())
    again.run(100, fall=0)
    assert (again.weight - found.weight).abs().max() <= 1e-9


@pytest.mark.parametrize("penalty", [*PENALTIES.values(), ts.MCP(0.05), ts.SparseGroupLasso(0.05, 0.05)], ids=str)
@pytest.mark.parametrize("make", [momentum, adam])
def test_attaching_changes_nothing_that_the_model_computes(penalty, make, several):
    training = Training(several, make, penalty)
    with torch.no_grad():
        before = training.model.weight.copy_(penalty.prox(training.model.weight, 1.0)).clone()
    for group in training.optimizers[0].param_groups:
        group["lr"] = 0.0
    training.run(3, fall=0)
    assert (training.weight - before).abs().max() <= 1e-14
    assert torch.equal(training.weight == 0, before == 0)


@pytest.mark.parametrize("penalty", [ts.L1(STRENGTH), ts.GroupLasso(STRENGTH, dim=1)], ids=str)
@pytest.mark.parametrize("make", [momentum, adam])
def test_weights_that_start_at_0_live(penalty, make, several, references):
    expected = references["lasso" if isinstance(penalty, ts.L1) else "groups"]
    training = Training(several, make, penalty, start=torch.zeros(3, 10).double()).run(800)
    assert (training.weight - expected).abs().max() <= 1e-6


def test_a_net_under_groups_does_not_collapse():
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    reg = ts.Regularizer(model, ts.GroupLasso(5e-4)).attach(optimizer, method="latent")
    for _ in range(25):
        for rows in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[rows]), y[rows]).backward()
            optimizer.step()
    assert (model(X[1500:]).argmax(1) == y[1500:]).float().mean() > 0.85  # as without a penalty
    assert reg.sparsity().zeros > 0


# --- λ, and the rate, may change on the way ---


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (momentum, lambda step: min(1.0, step / 400)),
        (adam, lambda step: 10 * 0.1 ** min(1.0, step / 400)),
        (momentum, lambda step: float(step % 100 >= 50) if step < 400 else 1.0),
        (adam, lambda step: float(step % 100 >= 50) if step < 400 else 1.0),
    ],
    ids=["from 0", "from tenfold", "on and off", "on and off by Adam"],
)
def test_a_strength_that_changes_ends_at_the_last_one(scale, make, several, references):
    training = Training(several, make, ts.L1(STRENGTH))
    training.reg.scale = scale
    training.run(1600)
    assert (training.weight - references["lasso"]).abs().max() <= 1e-6
    assert torch.equal(training.weight == 0, references["lasso"] == 0)


def test_at_strength_0_the_models_weights_are_the_latent_ones(diabetes):
    training = Training(diabetes, adam, ts.L1(0.0)).run(20)
    bare = Training(diabetes, adam, {"weight": None}).run(20)
    assert torch.equal(training.weight, bare.weight)
    assert "latent" not in training.reg.state_dict()


def test_a_rate_that_rises_never_makes_steps_longer_than_the_prox(several, references):
    """Under SGD ρ is at most 1/s, now: with the ρ of the small first rates the iteration would diverge."""
    training = Training(several, lambda m: torch.optim.SGD(m.parameters(), lr=1e-6), ts.L1(STRENGTH), rho=1e5)
    for rate in (1e-6, 0.1):
        training.optimizers[0].param_groups[0]["lr"] = rate
        training.run(400, fall=0)
    assert (training.weight - references["lasso"]).abs().max() <= 1e-6


# --- whoever else touches the weights ---


def test_an_edit_between_the_steps_is_noticed_once(several, references):
    training = Training(several, adam, ts.L1(STRENGTH)).run(50, fall=0)
    with torch.no_grad():
        training.model.weight.add_(0.1)
    with pytest.warns(ObjectiveWarning, match=r"weight was changed between the steps.*restore the regularizer's state"):
        training.run(1, fall=0)
    with torch.no_grad():
        training.model.weight.add_(0.1)
    training.run(800)  # warnings are errors here
    assert (training.weight - references["lasso"]).abs().max() <= 1e-6
    assert "weight was changed between the steps" in training.certificate.notes[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "penalty",
    [ts.L1(0.01), ts.GroupLasso(0.01), ts.NuclearNorm(0.01), ts.MCP(0.01), ts.MaxNorm(1.0), ts.L0Ball(0.5)],
    ids=lambda penalty: type(penalty).__name__,
)
def test_an_edit_to_what_is_not_finite_is_noticed_and_stays_visible(penalty, bad):
    model, optimizer, reg, closure = small(penalty)
    for _ in range(3):
        closure()
        optimizer.step()
    with torch.no_grad():
        model.weight[0, 0] = bad
    closure()
    with pytest.warns(ObjectiveWarning, match="weight was changed between the steps"):
        optimizer.step()
    assert not model.weight.isfinite().all()
    assert not reg.certify(closure).ok(math.inf)


def test_an_edit_that_no_version_tells_moves_the_latent_weights_along(diabetes):
    training = Training(diabetes, adam, ts.L1(STRENGTH)).run(50, fall=0)
    training.model.weight.data.add_(1.0)
    edited = training.weight.clone()
    training.optimizers[0].param_groups[0]["lr"] = 1e-9
    training.run(1, fall=0)
    assert (training.weight - edited).abs().max() < 0.1


def test_weights_that_are_exchanged_and_put_back_are_no_edit(diabetes):
    training = Training(diabetes, adam, ts.L1(STRENGTH)).run(50, fall=0)
    own = training.weight.clone()
    with torch.no_grad():
        training.model.weight.zero_()
        training.model.weight.copy_(own)
    training.run(1, fall=0)


@pytest.mark.parametrize("latent_first", [True, False])
def test_another_regularizers_gradient_is_that_of_the_models_weights(latent_first, diabetes):
    X, y = diabetes
    expected = ElasticNet(alpha=0.1, l1_ratio=0.5, tol=1e-14, max_iter=100_000)
    expected = expected.fit(X.numpy(), y.numpy()[:, 0]).coef_
    model = nn.Linear(10, 1).double()
    optimizer = adam(model)
    first, second = (ts.Regularizer(model, ts.L1(0.05)), "latent"), (ts.Regularizer(model, ts.L2(0.025)), "gradient")
    for reg, method in (first, second) if latent_first else (second, first):
        reg.attach(optimizer, method=method)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(model.weight.detach().clone()))
    optimizer.register_step_post_hook(lambda *_: seen.append(model.weight.detach().clone()))
    for step in range(2000):
        optimizer.param_groups[0]["lr"] = 0.01 * 10 ** (-6 * max(0.0, step / 1000 - 1))
        optimizer.zero_grad()
        half_square(model(X), y).backward()
        optimizer.step()
    assert np.abs(model.weight[0].detach().numpy() - expected).max() <= 1e-6
    assert torch.equal(seen[-1], model.weight.detach())


class Averaging(torch.optim.Optimizer):
    """Schedule-free descent: gradients are taken between the weights and their mean, which ``eval()`` puts in place."""

    def __init__(self, parameters, lr, between=0.9):
        super().__init__(parameters, {"lr": lr, "between": between, "steps": 0, "train_mode": True})

    @torch.no_grad()
    def _exchange(self, factor):
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.state:
                    p.lerp_(self.state[p]["z"], factor(group["between"]))

    def eval(self):
        self._exchange(lambda between: 1 - 1 / between)

    def train(self):
        self._exchange(lambda between: 1 - between)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["steps"] += 1
            share, between, lr = 1 / group["steps"], group["between"], group["lr"]
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, 1 - 1 / between)  # the mean
                z.sub_(p.grad, alpha=lr)
                p.lerp_(z, share)
                p.lerp_(z, 1 - between)


def test_an_optimizer_that_exchanges_the_weights_for_their_mean_exchanges_the_latent_ones(several, references):
    training, lasso = (
        Training(several, lambda m: Averaging(m.parameters(), lr=0.3), ts.L1(STRENGTH)),
        references["lasso"],
    )
    optimizer = training.optimizers[0]
    for _ in range(5):
        training.run(200, fall=0)
        before = training.weight.clone()
        optimizer.eval()
        mean = training.weight.clone()
        optimizer.train()
        assert (training.weight - before).abs().max() <= 1e-12
    assert not torch.equal(mean, before)
    assert torch.equal(mean == 0, lasso == 0)
    assert (mean - lasso).abs().max() <= 1e-5
    training.reg.detach()
    assert "eval" not in vars(optimizer)


# --- what is kept ---


def small(penalty=ts.L1(0.05), dtype=torch.float64, **how):  # noqa: B008
    torch.manual_seed(0)
    model = nn.Linear(10, 3).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        reg = ts.Regularizer(model, penalty).attach(optimizer, method="latent", **how)
    x, y = torch.randn(64, 10, dtype=dtype), torch.randn(64, 3, dtype=dtype)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    return model, optimizer, reg, closure


@pytest.mark.parametrize(
    ("penalty", "scale"),
    [
        (ts.L1(0.05), lambda step: min(1.0, (step + 1) / 50)),
        (ts.L1(0.05), lambda step: 1.0 if step < 30 else 30.0),
        (ts.GroupLasso(0.05), lambda step: 1 / (1 + step)),
        (ts.MCP(0.05), lambda step: min(1.0, (step + 1) / 50)),
        (ts.L0Ball(ts.Gradual(0.2, steps=50)), 1.0),
    ],
    ids=["rising", "a jump", "falling", "not convex", "a set that shrinks"],
)
def test_a_step_with_a_closure_is_the_step_without_one_whatever_the_schedule(penalty, scale):
    ends = []
    for by_closure in (False, True):
        model, optimizer, reg, closure = small(penalty)
        reg.scale = scale
        for _ in range(60):
            if by_closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        ends.append(model.weight.detach().clone())
    assert (ends[0] - ends[1]).abs().max() <= 1e-12


@pytest.mark.parametrize("penalty", [ts.L1(0.05), ts.L0Ball(ts.Gradual(0.2, steps=50))], ids=str)
def test_weights_that_are_exchanged_under_a_schedule_are_no_edit(penalty):
    model, optimizer, reg, closure = small(penalty)
    if not penalty.constraint:
        reg.scale = lambda step: min(1.0, (step + 1) / 50)
    for _ in range(20):
        closure()
        optimizer.step()
        with torch.no_grad():  # warnings are errors here
            own = model.weight.clone()
            model.weight.zero_()
            model.weight.copy_(own)


class Stumbling(torch.optim.Adam):
    stumbles = False

    def step(self, closure=None):
        super().step(closure)
        if self.stumbles:
            raise KeyboardInterrupt


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("look", ["detach", "sparsity", "state_dict", "value", "step"])
def test_after_a_step_that_failed_the_model_has_its_own_weights_again(look, dtype):
    torch.manual_seed(0)
    model = nn.Linear(10, 3).to(dtype)
    optimizer = Stumbling(model.parameters(), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        reg = ts.Regularizer(model, ts.L1(0.05)).attach(optimizer, method="latent")
    x, y = torch.randn(64, 10).to(dtype), torch.randn(64, 3).to(dtype)

    def closure():
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()

    for _ in range(150):
        closure()
        optimizer.step()
    zeros = reg.sparsity().zeros
    assert zeros > 5
    optimizer.stumbles = True
    closure()
    # An inner step of the class's parent has run the hooks already; raise before it.
    model_before = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    optimizer.stumbles = False
    if look == "step":
        closure()
        optimizer.step()
    elif look == "value":
        reg.value()
    else:
        getattr(reg, look)()
    assert (model.weight == 0).sum() >= zeros - 3
    assert (model.weight - model_before).abs().max() <= 0.05


def test_inside_a_step_questions_about_the_weights_are_refused():
    model, optimizer, reg, closure = small()
    for _ in range(100):
        closure()
        optimizer.step()
    zeros = reg.sparsity().zeros
    handle = optimizer.register_step_pre_hook(lambda *_: reg.sparsity() and None)
    closure()
    with pytest.raises(AttachmentError, match="inside the step of Adam the model holds latent weights"):
        optimizer.step()
    handle.remove()
    assert reg.sparsity().zeros == zeros
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(int((model.weight == 0).sum())))
    for _ in range(2):
        closure()
        optimizer.step()
    assert seen[0] == 0 < zeros - 3 <= seen[1]  # a hook that comes later sees latent weights once


def test_two_regularizers_exchange_their_latent_weights_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer = Averaging(model.parameters(), lr=0.1)
    regs = [ts.Regularizer(model, {name: ts.L1(0.05)}).attach(optimizer) for name in ("0.weight", "2.weight")]
    x, y = torch.randn(64, 10).double(), torch.randn(64, 3).double()
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    optimizer.eval()
    assert all(reg.sparsity().zeros > 0 for reg in regs)
    optimizer.train()
    regs[0].detach()
    optimizer.eval()
    assert regs[1].sparsity().zeros > 0
    regs[1].detach()
    assert not {"eval", "train"} & set(vars(optimizer))


@pytest.mark.parametrize(("rho", "word"), [(1e10, "smaller"), (1e-10, "larger")])
def test_a_rho_that_leaves_no_digits_is_refused(rho, word):
    *_, optimizer, _, closure = small(dtype=torch.float32, rho=rho)
    closure()
    with pytest.raises(StepSizeError, match=f"rho=.*give a {word} rho"):
        optimizer.step()


def test_rho_is_of_latent_weights_alone():
    model = nn.Linear(2, 2)
    with pytest.raises(AttachmentError, match="rho=2 is of latent weights"):
        ts.Regularizer(model, ts.L1(0.1)).attach(torch.optim.Adam(model.parameters()), rho=2.0)


@pytest.mark.parametrize("strength", [1e-20, 1e20])
def test_attaching_at_any_strength_moves_nothing(strength):
    model, optimizer, _, closure = small(ts.L1(strength), torch.float32)
    optimizer.param_groups[0]["lr"] = 0.0
    before = model.weight.detach().clone()
    closure()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before)


def test_a_warm_up_from_next_to_nothing_ends_where_none_does(several, references):
    training = Training(several, adam, ts.L1(STRENGTH))
    training.reg.scale = lambda step: 1e-30 if step == 0 else 1.0
    training.run(800)
    assert (training.weight - references["lasso"]).abs().max() <= 1e-6


def subsets(seed):
    """A regression on 12 features that go together, of which 4 matter."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(12.0, dtype=torch.float64)
    root = torch.linalg.cholesky(0.5 ** (places[:, None] - places).abs())
    x = torch.randn(200, 12, dtype=torch.float64, generator=generator) @ root.T
    weights = torch.zeros(12, dtype=torch.float64)
    weights[torch.randperm(12, generator=generator)[:4]] = torch.randn(4, dtype=torch.float64, generator=generator)
    return x, (x @ weights + torch.randn(200, dtype=torch.float64, generator=generator))[:, None]


def best_of_subsets(x, y):
    fits = ((x[:, some], some) for some in itertools.combinations(range(12), 4))
    return min((y - part @ torch.linalg.lstsq(part, y).solution).square().mean().item() for part, _ in fits)


@pytest.mark.parametrize("start", ["anywhere", "at the minimum without it"])
@pytest.mark.parametrize("seed", [2, 6])
def test_a_bound_on_the_count_finds_the_best_subset_and_rests_there(start, seed):
    x, y = subsets(seed)
    torch.manual_seed(seed)
    model = nn.Linear(12, 1, bias=False).double()
    if start != "anywhere":
        with torch.no_grad():
            model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    reg = ts.Regularizer(model, ts.L0Ball(4)).attach(optimizer, method="latent")

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(400):
        optimizer.step(closure)
    certificate = reg.certify(closure)
    assert certificate.distance <= 1e-6
    assert certificate.loss <= best_of_subsets(x, y) * (1 + 1e-9)


@pytest.mark.parametrize("first", [0.0, 1e-12])
def test_a_constraint_does_not_rest_on_its_first_gradient(first, several, references):
    training = Training(several, adam, ts.MaxNorm(0.3))
    training.closure()
    for p in training.model.parameters():
        p.grad.mul_(first)
    training.optimizers[0].step()
    training.run(800)
    assert (training.weight - references["max norm"]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": {"weight": 3}}, "latent weights of 'weight'"),
        ({"latent": 3}, "'latent' is a int"),
        ({"steps": -1}, "steps=-1"),
        ({"scale": -1.0}, "scale=-1.0"),
    ],
)
def test_a_broken_state_changes_nothing(change, message):
    _, optimizer, reg, closure = small()
    for _ in range(3):
        closure()
        optimizer.step()
    state = copy.deepcopy(reg.state_dict())
    for _ in range(2):
        closure()
        optimizer.step()
    before = copy.deepcopy(reg.state_dict())
    with pytest.raises(InputError, match=message):
        reg.load_state_dict({**state, **change})
    after = reg.state_dict()
    assert torch.equal(after["latent"]["weight"]["offset"], before["latent"]["weight"]["offset"])
    assert (after["steps"], after["scale"]) == (before["steps"], before["scale"])
    assert not torch.equal(state["latent"]["weight"]["offset"], before["latent"]["weight"]["offset"])


@pytest.mark.parametrize("key", ["unit_rho", "rho", "scale"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, "a", None])
def test_a_broken_number_in_a_state_is_named(key, bad):
    _, optimizer, reg, closure = small()
    closure()
    optimizer.step()
    state = reg.state_dict()
    state["latent"]["weight"][key] = bad
    with pytest.raises(InputError, match=f"{key}="):
        reg.load_state_dict(state)


def test_a_state_of_latent_weights_is_not_kept_by_another_method():
    *_, closure = found = small()
    optimizer, reg = found[1:3]
    closure()
    optimizer.step()
    model = nn.Linear(10, 3).double()
    other = ts.Regularizer(model, ts.L1(0.05))
    other.load_state_dict(reg.state_dict())
    other.attach(torch.optim.Adam(model.parameters()), method="prox")
    assert "latent" not in other.state_dict()
    other.load_state_dict(reg.state_dict())
    assert "latent" not in other.state_dict()


def test_half_precision_weights_keep_their_latent_weights_in_float32():
    torch.manual_seed(0)
    model = nn.Linear(64, 8).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reg = ts.Regularizer(model, ts.L1(0.01))
    with pytest.warns(ObjectiveWarning, match="weight is bfloat16"):
        reg.attach(optimizer, method="latent")
    x, y = torch.randn(128, 64).bfloat16(), torch.randn(128, 8).bfloat16()
    for _ in range(100):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    assert reg.state_dict()["latent"]["weight"]["offset"].dtype is torch.float32
    assert model.weight.dtype is torch.bfloat16
    assert 0 < reg.sparsity().zeros < model.weight.numel()


def test_a_model_that_is_converted_on_the_way_goes_on(several):
    training = Training(several, adam, ts.L1(STRENGTH)).run(50, fall=0)
    training.model.float()
    training.X, training.y = training.X.float(), training.y.float()
    training.optimizers[0].state.clear()
    training.run(10, fall=0)
    training.model.double()
    training.X, training.y = training.X.double(), training.y.double()
    training.optimizers[0].state.clear()
    training.run(800)
    assert training.certificate.ok(1e-6)


def test_a_state_of_another_model_is_refused_and_nothing_is_changed(diabetes):
    training = Training(diabetes, adam, ts.L1(STRENGTH)).run(3)
    state = training.reg.state_dict()
    for name, part in (("other", state["latent"]["weight"]), ("weight", {**state["latent"]["weight"], "offset": X1})):
        broken = {**copy.deepcopy(state), "latent": {name: part}, "steps": 77}
        with pytest.raises(InputError, match=f"latent weights of '{name}'"):
            training.reg.load_state_dict(broken)
        assert training.reg.steps == 3
    training.reg.detach()
    assert "latent" not in training.reg.state_dict()


X1 = torch.zeros(3)


def test_a_step_that_fails_leaves_the_model_at_its_weights(diabetes):
    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise ArithmeticError

    training = Training(diabetes, lambda m: Failing(m.parameters(), lr=0.1), ts.L1(STRENGTH))
    before = training.weight.clone()
    with pytest.raises(ArithmeticError):
        training.run(1, fall=0)
    with pytest.warns(ObjectiveWarning, match="has not taken a step"):
        training.reg.summary()
    assert (training.weight - before).abs().max() <= 1e-14


@pytest.mark.parametrize("bad", [0, -1.0, math.inf, math.nan, "1", True])
def test_a_rho_that_is_none_is_named(bad, diabetes):
    with pytest.raises(InputError, match=r"rho=.*: expected a finite number > 0"):
        Training(diabetes, adam, ts.L1(STRENGTH), rho=bad)


# --- several optimizers of one model ---


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def shared(model):
    matrices = [model[0].weight]
    others = [p for p in model.parameters() if p is not model[0].weight]
    return [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.Adam(others, lr=0.01)]


def descend(model, optimizers, steps):
    x, y = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(1)).double()
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        (model(x) - y[:, :3]).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("method", ["auto", "latent"])
def test_one_regularizer_acts_in_several_optimizers_as_one_in_each_does(method):
    ends = []
    for together in (True, False):
        model = two_layers()
        optimizers = shared(model)
        scale = lambda step: min(1.0, (step + 1) / 20)  # noqa: E731
        if together:
            reg = ts.Regularizer(model, ts.L1(0.02))
            reg.scale = scale
            assert reg.attach(optimizers, method=method).methods.keys() == {"0.weight", "2.weight"}
        else:
            for name, optimizer in zip(("0.weight", "2.weight"), optimizers, strict=True):
                each = ts.Regularizer(model, {name: ts.L1(0.02), "*": None})
                each.scale = scale
                each.attach(optimizer, method=method)
        descend(model, optimizers, 60)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert reg.steps == 60
    assert reg.sparsity().zeros > 0
    reg.detach()
    assert reg.methods == {}


@has_muon
def test_muon_and_adam_end_where_the_whole_objective_is_stationary(several, references):
    training = Training(several, muon, {"weight": None}).run(0)
    reg = ts.Regularizer(training.model, ts.L1(STRENGTH), on=ts.ALL)
    reg.attach(training.optimizers)
    assert reg.methods == {"weight": "latent", "bias": "prox"}
    training.run(800)
    assert reg.certify(training.closure).ok(1e-4)
    assert (training.weight - references["lasso"]).abs().max() <= 1e-6


def test_several_optimizers_go_on_bit_for_bit():
    def fresh():
        model = two_layers()
        optimizers = shared(model)
        return model, optimizers, ts.Regularizer(model, ts.L1(0.02)).attach(optimizers, method="latent")

    model, optimizers, reg = fresh()
    descend(model, optimizers, 20)
    saved = copy.deepcopy([part.state_dict() for part in (model, *optimizers, reg)])
    descend(model, optimizers, 20)
    again, others, other = fresh()
    for part, state in zip((again, *others, other), saved, strict=True):
        part.load_state_dict(state)
    descend(again, others, 20)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert other.steps == 40


def test_what_no_optimizer_holds_or_two_do_is_named_and_nothing_stays_attached():
    model = two_layers()
    optimizers = shared(model)
    reg = ts.Regularizer(model, ts.L1(0.02))
    for wrong, how_many in (
        (optimizers[1:] * 2, "0.weight: penalised, but none"),
        ([*optimizers, *optimizers], "more"),
    ):
        with pytest.raises(AttachmentError, match=how_many):
            reg.attach(wrong)
    with pytest.raises(AttachmentError, match=r"attach to all of them, attach\(\[muon, adam\]\)"):
        reg.attach(optimizers[0])
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in optimizers)
    reg.attach(optimizers)


def test_an_optimizer_that_goes_on_without_its_latent_weights_speaks_up():
    model, optimizer, reg, closure = small()
    closure()
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    closure()
    with pytest.warns(ObjectiveWarning, match="latent weights belong to it.*restore it too"):
        optimizer.step()
    saved = copy.deepcopy((optimizer.state_dict(), reg.state_dict()))
    optimizer.load_state_dict(saved[0])
    reg.load_state_dict(saved[1])
    closure()
    optimizer.step()  # warnings are errors here
    assert model.weight.isfinite().all()
