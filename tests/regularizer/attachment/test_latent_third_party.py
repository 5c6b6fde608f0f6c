"""Latent weights under optimizers that do more than to step from the weights: right, warned, or refused.

Averages that ``eval()`` exchanges, copies of the weights that are made on the way, several evaluations in a step,
another optimizer around. What an optimizer leaves on a ridge it leaves on the lasso: that is the measure.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

import torchshrink as ts
from torchshrink.errors import AttachmentError, ObjectiveWarning

po = pytest.importorskip("pytorch_optimizer")
STRENGTH, STEPS = 0.1, 400


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Problem(nn.Module):
    """½ mean squares of features that are orthogonal, of variances from 1.2 to .8: lasso and ridge are closed forms."""

    def __init__(self):
        super().__init__()
        self.variance = torch.linspace(1.2, 0.8, 8, dtype=torch.float64)
        self.target = torch.tensor([0.5, -0.4, 0.05, 0.3, -0.02, 0.0, 0.6, -0.07], dtype=torch.float64)[None]
        torch.manual_seed(0)
        self.weight = nn.Parameter(nn.Linear(8, 1).double().weight.detach().clone())

    def loss(self):
        return (self.variance * self.weight.square() / 2 - self.target * self.weight).sum()

    def gradient(self):
        return self.variance * self.weight.detach() - self.target

    def solution(self, penalty):
        if isinstance(penalty, ts.L2):
            return self.target / (self.variance + 2 * STRENGTH)
        return self.target.sign() * (self.target.abs() - STRENGTH).clamp(min=0) / self.variance


def plain(problem, optimizer, closure):
    problem.weight.grad = problem.gradient()
    optimizer.step()


def by_closure(problem, optimizer, closure):
    optimizer.step(closure)


def sam(problem, optimizer, closure):
    closure()
    optimizer.step(closure)


def trained(make, penalty, *, take=plain, falls=True, watch=None, steps=STEPS):
    """The problem after training, and what was warned of."""
    problem = Problem()
    optimizer = make(problem)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ObjectiveWarning)
        method = "gradient" if isinstance(penalty, ts.L2) else "latent"
        ts.Regularizer(problem, penalty).attach(optimizer, method)
        exchange(optimizer, "train")

        def closure():
            problem.weight.grad = None
            loss = problem.loss()
            loss.backward()
            return loss

        rates = [(group, group["lr"]) for group in optimizer.param_groups if falls]
        for step in range(steps):
            for group, rate in rates:
                group["lr"] = rate * 10 ** (-6 * max(0.0, 2 * step / steps - 1))
            take(problem, optimizer, closure)
            if watch is not None:
                watch(problem, optimizer, step)
        exchange(optimizer, "eval")
    return problem, [str(each.message) for each in caught if each.category is ObjectiveWarning]


def exchange(optimizer, mode):
    method = getattr(optimizer, mode, None)
    if callable(method):
        method()


def errors(make, **how):
    """On the ridge and on the lasso, whether the lasso has its zeros, and what was warned of."""
    found = []
    for penalty in (ts.L2(STRENGTH), ts.L1(STRENGTH)):
        problem, said = trained(make, penalty, **how)
        solution = problem.solution(penalty)
        found.append(float((problem.weight.detach() - solution).abs().max()))
    return *found, torch.equal(problem.weight == 0, solution == 0), said


# --- averages that eval() puts in place ---


def schedulefree(name, **settings):
    """Of the package, or a skip."""

    def make(problem):
        return getattr(pytest.importorskip("schedulefree"), name)(problem.parameters(), **settings)

    return make


AVERAGING = {
    "pytorch_optimizer's SGD": lambda p: po.ScheduleFreeSGD(p.parameters(), lr=1.0),
    "pytorch_optimizer's AdamW": lambda p: po.ScheduleFreeAdamW(p.parameters(), lr=0.03),
    "pytorch_optimizer's RAdam": lambda p: po.ScheduleFreeRAdam(p.parameters(), lr=0.03),
    "SGD": schedulefree("SGDScheduleFree", lr=1.0),
    "AdamW": schedulefree("AdamWScheduleFree", lr=0.03),
    "RAdam": schedulefree("RAdamScheduleFree", lr=0.03),
}


@pytest.mark.parametrize("name", AVERAGING)
def test_an_average_has_exact_zeros_and_a_look_at_it_changes_nothing(name):
    make, seen = AVERAGING[name], []

    def look(problem, optimizer, step):
        if step % 50 == 49:
            trained_ones = problem.weight.detach().clone()
            optimizer.eval()
            seen.append(problem.weight.detach().clone())
            optimizer.train()
            assert (problem.weight - trained_ones).abs().max() <= 1e-12

    ridge, lasso, zeros, said = errors(make, falls=False)
    looked, _ = trained(make, ts.L1(STRENGTH), falls=False, watch=look)
    assert zeros
    assert lasso <= max(10 * ridge, 1e-4)
    assert not said
    assert torch.equal(seen[-1], looked.weight.detach())
    assert not torch.equal(seen[0], seen[1])
    error = float((looked.weight.detach() - looked.solution(ts.L1(STRENGTH))).abs().max())
    assert error == pytest.approx(lasso, rel=1e-3, abs=1e-9)


def test_an_average_that_another_rate_makes_is_exchanged_too():
    ridge, lasso, zeros, _ = errors(lambda p: po.SPlus(p.parameters(), lr=0.03, ema_rate=0.9, weight_decay=0.0))
    assert zeros
    assert lasso <= max(10 * ridge, 1e-6)


# --- copies of the weights, first steps that are special, several evaluations ---

ON_THE_WAY = {
    "Prodigy, where the weights began": (lambda p: po.Prodigy(p.parameters(), lr=1.0), plain),
    "DAdaptAdam, whose rate grows": (lambda p: po.DAdaptAdam(p.parameters(), lr=1.0), plain),
    "MADGRAD, where the weights began": (lambda p: po.MADGRAD(p.parameters(), lr=0.1), plain),
    "AccSGD, a second sequence": (lambda p: po.AccSGD(p.parameters(), lr=0.03), plain),
    "EmoNavi, a shadow": (lambda p: po.EmoNavi(p.parameters(), lr=0.03, weight_decay=0.0), plain),
    "ADOPT, which does not move at first": (lambda p: po.ADOPT(p.parameters(), lr=0.1), plain),
    "Adan, the gradient before": (lambda p: po.Adan(p.parameters(), lr=0.3), plain),
    "MARS, the gradient before": (lambda p: po.MARS(p.parameters(), lr=0.1, weight_decay=0.0), plain),
    "AdamP, which projects": (lambda p: po.AdamP(p.parameters(), lr=0.1), plain),
    "LBFGS, a line search": (
        lambda p: torch.optim.LBFGS(p.parameters(), lr=1.0, max_iter=5, line_search_fn="strong_wolfe"),
        by_closure,
    ),
    "AdaBelief by closure": (lambda p: po.AdaBelief(p.parameters(), lr=0.1), by_closure),
}


@pytest.mark.parametrize("name", ON_THE_WAY)
def test_what_an_optimizer_keeps_of_the_weights_is_of_the_latent_ones(name):
    make, take = ON_THE_WAY[name]
    ridge, lasso, zeros, said = errors(make, take=take, falls="LBFGS" not in name)
    assert zeros
    assert lasso <= max(10 * ridge, 1e-6)
    assert not said


@pytest.mark.parametrize("optimizer", [po.AdaBelief, po.Lion, po.Yogi, Adam])
@pytest.mark.parametrize("penalty", [ts.L1(STRENGTH), ts.L2(STRENGTH)])
@pytest.mark.parametrize("method", ["auto", "latent"])
def test_an_optimizer_that_climbs_climbs_the_objective_less_the_penalty(optimizer, penalty, method):
    """Torch keeps the setting in the groups, pytorch_optimizer in the optimizer."""
    problem = Problem()
    climbing = optimizer(problem.parameters(), lr=0.01, maximize=True)
    ts.Regularizer(problem, penalty).attach(climbing, method)
    for step in range(STEPS):
        climbing.param_groups[0]["lr"] = 0.01 * 10 ** (-3 * max(0.0, 2 * step / STEPS - 1))
        problem.weight.grad = -problem.gradient()
        climbing.step()
    assert (problem.weight.detach() - problem.solution(penalty)).abs().max() <= 1e-3


# --- other optimizers around ---


@pytest.mark.parametrize(
    ("make", "take", "warned"),
    [
        (lambda p: po.Lookahead(Adam(p.parameters(), lr=0.03)), plain, "moves the weights between the steps"),
        (lambda p: po.SAM(p.parameters(), SGD, lr=0.1), sam, "moves the weights and puts them back"),
    ],
)
def test_what_moves_the_weights_outside_of_the_steps_is_warned_of(make, take, warned):
    ridge, lasso, _, said = errors(make, take=take)
    assert lasso <= max(10 * ridge, 1e-6)
    assert any(warned in line for line in said)


# --- optimizers that do not end at a solution of anything: the control fails too ---


@pytest.mark.parametrize("make", [lambda p: po.Nero(p.parameters(), lr=0.03)])
def test_one_that_keeps_norms_solves_no_ridge_either(make):
    """A canary of the documentation, which says so."""
    assert errors(make)[0] >= 1e-2


@pytest.mark.filterwarnings("ignore:you need to install `transformers`:ImportWarning")
@pytest.mark.parametrize("optimizer", [po.LOMO, po.AdaLOMO])
@pytest.mark.parametrize("method", ["auto", "latent", "gradient", "prox", "decoupled"])
def test_one_that_moves_the_weights_in_backward_is_refused(optimizer, method):
    linear = nn.Linear(2, 1)
    regularizer = ts.Regularizer(linear, ts.L2(0.1))
    with pytest.raises(AttachmentError, match=rf"^{optimizer.__name__} moves the weights during backward\(\)"):
        regularizer.attach(optimizer(linear), method)
