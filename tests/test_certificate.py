"""The certificate against scikit-learn's optimum, finite differences and its own promises."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn

import torchshrink as ts


@pytest.fixture(scope="module")
def problem():
    X, y = load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    y = (y - y.mean()) / y.std()
    return torch.tensor(X), torch.tensor(y)


def closure_for(model, X, y):
    def closure():
        model.zero_grad()
        loss = (model(X)[:, 0] - y).square().mean() / 2
        loss.backward()
        return loss

    return closure


def at_the_optimum(problem, strength=0.05):
    X, y = problem
    reference = Lasso(alpha=strength, tol=1e-15, max_iter=1_000_000).fit(X.numpy(), y.numpy())
    model = nn.Linear(10, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(reference.coef_)[None])
        model.bias.fill_(float(reference.intercept_))
    return model, closure_for(model, X, y)


def test_scikit_learns_optimum_is_certified_and_anything_else_is_not(problem):
    model, closure = at_the_optimum(problem)
    certificate = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    assert certificate.distance <= 1e-9
    assert certificate.ok()
    assert not ts.Regularizer(model, ts.L1(0.051)).certify(closure).ok()
    assert not ts.Regularizer(model, ts.L2(0.05)).certify(closure).ok()
    with torch.no_grad():
        model.weight[0, 0] += 1e-3  # a zero that is no longer one
    moved = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    assert not moved.ok()
    assert (moved.worst.name, moved.worst.index) == ("weight", (0, 0))


def test_the_parts_add_up(problem):
    model, closure = at_the_optimum(problem)
    certificate = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    assert certificate.objective == certificate.loss + certificate.penalty
    assert certificate.penalty == pytest.approx(0.05 * float(model.weight.detach().abs().sum()))
    assert certificate.loss == pytest.approx(closure().item())
    assert certificate.relative == max(p.relative for p in certificate.parameters) == certificate.worst.relative
    parts = [p.distance for p in certificate.parameters]
    assert certificate.distance == pytest.approx(np.linalg.norm(parts))


def test_an_unpenalised_parameter_counts_with_its_gradient(problem):
    model, closure = at_the_optimum(problem)
    with torch.no_grad():
        model.bias.add_(0.25)
    certificate = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    assert certificate.worst.name == "bias"
    assert certificate.worst.largest == pytest.approx(0.25)
    assert certificate.worst.strength == 0


def test_scale_counts(problem):
    model, closure = at_the_optimum(problem)
    reg = ts.Regularizer(model, ts.L1(0.1))
    assert not reg.certify(closure).ok()
    reg.scale = 0.5
    assert reg.certify(closure).ok()


def test_gradients_and_modes_are_put_back(problem):
    X, y = problem
    model = nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 1)).double()
    model[1].eval()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    before = model[1].running_mean.clone()
    reg = ts.Regularizer(model, ts.L1(0.1))
    first, second = reg.certify(closure_for(model, X, y)), reg.certify(closure_for(model, X, y))
    assert first == second  # dropout is off
    assert bool((model[0].weight.grad == 7).all())
    assert model[0].bias.grad is None
    assert [m.training for m in (model, model[0], model[1], model[2])] == [True, True, False, True]
    assert torch.equal(model[1].running_mean, before)


def test_a_closure_that_fails_puts_everything_back(problem):
    model, _ = at_the_optimum(problem)
    model.weight.grad = torch.ones_like(model.weight)

    def broken():
        raise ZeroDivisionError

    reg = ts.Regularizer(model, ts.L1(0.1))
    with pytest.raises(ZeroDivisionError):
        reg.certify(broken)
    assert bool((model.weight.grad == 1).all())
    assert model.training
    reg.value()  # no longer certifying


def test_a_closure_with_the_penalty_in_it_is_refused(problem):
    model, closure = at_the_optimum(problem)
    reg = ts.Regularizer(model, ts.L1(0.1))
    with pytest.raises(ts.AttachmentError, match="must return the mean loss alone"):
        reg.certify(lambda: closure() + reg.value())


def test_closures_that_do_not_keep_the_convention_are_named(problem):
    model, closure = at_the_optimum(problem)
    reg = ts.Regularizer(model, ts.L1(0.1))
    with pytest.raises(ts.InputError, match="left no gradient"):
        reg.certify(lambda: torch.zeros(()))
    with pytest.raises(ts.InputError, match="expected the mean loss as a scalar"):
        reg.certify(lambda: (closure(), None)[1])


def test_not_a_number_is_never_ok(problem):
    model, closure = at_the_optimum(problem)
    with torch.no_grad():
        model.weight[0, 3] = torch.nan
    certificate = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    assert not certificate.ok(1e9)


def test_groups_are_indexed_by_group(problem):
    X, y = problem
    model = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    certificate = ts.Regularizer(model, ts.GroupLasso(0.1)).certify(closure_for(model, X, y))
    assert len(certificate.parameters[0].index) == 1


def test_it_prints_and_becomes_json(problem):
    model, closure = at_the_optimum(problem)
    certificate = ts.Regularizer(model, ts.L1(0.05)).certify(closure)
    text = str(certificate)
    assert "distance" in text
    assert "worst at" in text
    assert json.loads(json.dumps(certificate.to_dict()))["worst"]["name"] in ("weight", "bias")
