"""The certificate against scikit-learn's optimum, finite differences and its own promises."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError
from torchshrink.regularizer.certificate import measure


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
    with pytest.raises(AttachmentError, match="must return the mean loss alone"):
        reg.certify(lambda: closure() + reg.value())


def test_closures_that_do_not_keep_the_convention_are_named(problem):
    model, closure = at_the_optimum(problem)
    reg = ts.Regularizer(model, ts.L1(0.1))
    with pytest.raises(InputError, match="left no gradient"):
        reg.certify(lambda: torch.zeros(()))
    with pytest.raises(InputError, match="expected the mean loss as a scalar"):
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


# --- what is measured in what ---


def at_random(penalty, *, seed=0, shape=(6, 4)):
    """A point with zeros, and a gradient there."""
    torch.manual_seed(seed)
    w = penalty.prox(torch.randn(shape, dtype=torch.float64), 0.5)
    return w, 0.5 * torch.randn(shape, dtype=torch.float64)


CONVEX = [
    ts.L1(0.3), ts.L2(0.3), ts.ElasticNet(0.2, 0.1), ts.GroupLasso(0.2), ts.GroupLasso(0.2, dim=1),
    ts.SparseGroupLasso(0.1, 0.2), ts.L2SP(0.3, anchor=0.5), ts.NuclearNorm(0.3), ts.MaxNorm(1.0), ts.L1Ball(3.0),
    ts.NonNegative(), ts.Box(-0.4, 0.6),
]  # fmt: skip


@pytest.mark.parametrize("penalty", CONVEX, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_the_prox_gradient_residual_is_at_most_the_distance(penalty, seed):
    w, g = at_random(penalty, seed=seed)
    certificate = measure([("w", w, penalty)], [g], loss=0.0)
    assert 0 < certificate.residual <= certificate.distance * (1 + 1e-12)


@pytest.mark.parametrize(
    "penalty", [*CONVEX, ts.MCP(0.3), ts.SCAD(0.3), ts.LogSum(0.1), ts.UnitNorm(), ts.L0Ball(7), ts.NM(2, 4)], ids=str
)
def test_both_are_zero_exactly_at_a_fixed_point(penalty):
    z = torch.randn(6, 4, dtype=torch.float64)
    step = 0.5
    w = penalty.prox(z, step)
    certificate = measure([("w", w, penalty)], [(w - z) / step], loss=0.0)
    assert certificate.distance <= 1e-12
    assert certificate.residual <= 1e-12
    assert certificate.ok(1e-10)


def test_a_weight_that_a_step_would_zero_counts_with_its_size_in_the_residual():
    w = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    g = torch.tensor([-0.1, 0.02], dtype=torch.float64)
    certificate = measure([("w", w, ts.L1(0.1))], [g], loss=0.0)
    assert certificate.distance == pytest.approx(0.12)  # the second weight should be 0 and is not
    assert certificate.residual <= 1e-8


@pytest.mark.parametrize("penalty", [*CONVEX[:7], ts.NuclearNorm(0.3)], ids=str)
def test_relative_is_free_of_the_scales_of_loss_and_weights(penalty):
    w, g = at_random(penalty)
    if isinstance(penalty, ts.L2SP):
        w = w - penalty.anchor  # scaling the weights scales what they are pulled towards
        penalty = ts.L2(0.3)
    plain = measure([("w", w, penalty)], [g], loss=0.0)
    louder = measure([("w", w, penalty.with_strength(7 * penalty.strength))], [7 * g], loss=0.0)
    assert louder.relative == pytest.approx(plain.relative)
    assert louder.distance == pytest.approx(7 * plain.distance)
    if isinstance(penalty, ts.L2):  # quadratic: at ten times the weights a tenth of the gradient, λ/100
        wider = measure([("w", 10 * w, ts.L2(0.003))], [g / 10], loss=0.0)
        assert wider.relative == pytest.approx(plain.relative)


def test_relative_does_not_grow_with_the_model():
    penalty = ts.L1(0.1)
    w, g = torch.ones(4), torch.full((4,), -0.1001)
    small = measure([("w", w, penalty)], [g], loss=0.0)
    large = measure([("w", w.repeat(10_000), penalty)], [g.repeat(10_000)], loss=0.0)
    assert large.relative == pytest.approx(small.relative) == pytest.approx(1e-3, rel=1e-2)
    assert large.distance == pytest.approx(100 * small.distance)


def test_mixed_strengths_are_each_measured_in_their_own():
    weak, strong = ts.L1(1e-4), ts.L1(1.0)
    w = torch.ones(3, dtype=torch.float64)
    off = torch.tensor([0.0, 0.0, 2e-5], dtype=torch.float64)
    certificate = measure([("weak", w, weak), ("strong", w, strong)], [-1e-4 + off, -1.0 + off.flip(0)], loss=0.0)
    assert certificate.worst.place == "weak[2]"
    assert certificate.relative == pytest.approx(0.2)
    assert not certificate.ok()
    # What is not penalised is measured in the largest pull there is.
    bare = measure([("bias", w, None), ("strong", w, strong)], [off, -torch.ones_like(w)], loss=0.0)
    assert (bare.worst.name, bare.relative) == ("bias", pytest.approx(2e-5))
    assert measure([("bias", w, None)], [off], loss=0.0).relative == pytest.approx(2e-5)


def test_a_constraint_is_measured_in_what_it_holds_back():
    ball = ts.MaxNorm(5.0)
    w = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    outward, along = -w, 0.01 * torch.tensor([[-4.0, 3.0]], dtype=torch.float64)
    certificate = measure([("w", w, ball)], [outward + along], loss=0.0)
    assert certificate.relative == pytest.approx(0.01)
    assert certificate.worst.place == "w[0, :]"
    outside = measure([("w", 2 * w, ball)], [outward], loss=0.0)
    assert not outside.ok(1e9)
    assert outside.proves.startswith("nothing: w[0, :] lies outside of its constraint")
    assert certificate.proves == "not stationary: off by 0.01 of what the constraint holds at w[0, :]"
    inside = measure([("w", w / 2, ball)], [along], loss=0.0)  # where it does nothing: the gradient itself
    assert inside.relative == pytest.approx(inside.distance)
    assert inside.proves == "not stationary: off by 0.05 (the loss's own slope: no penalty pulls) at w[0, :]"


@pytest.mark.parametrize(
    ("penalty", "place"),
    [
        (ts.L1(0.1), "w[2, 1, 3]"), (ts.GroupLasso(0.1), "w[2, :, :]"), (ts.GroupLasso(0.1, dim=1), "w[:, 1, :]"),
        (ts.GroupLasso(0.1, dim=(0, 1)), "w[2, 1, :]"), (ts.GroupLasso(0.1, dim=(2, 0)), "w[2, :, 3]"),
        (ts.GroupLasso(0.1, dim=-1), "w[:, :, 3]"), (ts.GroupLasso(0.1, dim=()), "w"), (ts.NuclearNorm(0.1), "w"),
    ],
    ids=str,
)  # fmt: skip
def test_the_worst_place_is_written_as_python_would(penalty, place):
    w, g = torch.zeros(3, 2, 4), torch.zeros(3, 2, 4)
    g[2, 1, 3] = 9.0
    assert measure([("w", w, penalty)], [g], loss=0.0).worst.place == place


def test_a_nan_is_the_worst():
    g = torch.tensor([0.0, torch.nan, 5.0])
    certificate = measure([("a", torch.ones(2), ts.L1(0.1)), ("b", torch.ones(3), ts.L1(0.1))], [None, g], loss=0.0)
    assert (certificate.worst.place, certificate.ok(1e9)) == ("b[1]", False)
    assert certificate.proves.startswith("nothing")


def test_large_parameters_are_not_copied_to_float64():
    """What is held beside weights and gradients is a few float32 tensors, and never the model in float64."""
    allocated = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                allocated.append((out.dtype, out.numel()))
            return out

    w, g = torch.randn(100, 50), torch.randn(100, 50)
    with Watch():
        measure([("a", w, ts.L1(0.1)), ("b", w, ts.GroupLasso(0.1)), ("c", w, None)], [g, g, g], loss=0.0)
    assert all(dtype != torch.float64 or numel < 5000 for dtype, numel in allocated)
    assert max(numel for _, numel in allocated) == 5000


def test_what_it_proves_is_said(problem):
    model, closure = at_the_optimum(problem)
    reg = ts.Regularizer(model, ts.L1(0.05))
    assert "not that it is a minimum" in str(reg.certify(closure))
    elsewhere = ts.Regularizer(model, ts.L1(0.06)).certify(closure)
    assert "not stationary: off by" in elsewhere.proves
    assert "not at a stationary point" in str(elsewhere)

    def half_mse(output, target):
        return (output[:, 0] - target).square().mean() / 2

    X, y = problem
    assert ts.certify(model, (X, y), reg, loss=half_mse).gap is None  # not known to be convex
    twice = ts.Regularizer(model, ts.L1(0.1))
    certificate = ts.certify(model, (X, y[:, None]), twice)
    assert 0 <= certificate.gap <= 1e-12
    assert "the optimum, proved: loss + penalty is at most" in str(certificate)
    assert json.loads(json.dumps(certificate.to_dict()))["gap"] == certificate.gap


@pytest.mark.parametrize("penalty", [None, ts.L1(0.0), ts.MaxNorm(9.0)], ids=str)
@pytest.mark.parametrize("size", [1e-5, 0.5])
def test_where_nothing_pulls_no_pull_is_spoken_of(penalty, size):
    w = torch.ones(3, dtype=torch.float64)
    certificate = measure([("w", w, penalty)], [size * w], loss=1.0)
    assert certificate.relative == size
    for text in (certificate.proves, str(certificate)):
        assert "(the loss's own slope: no penalty pulls)" in text
        assert "penalty's pull" not in text
    pulled = measure([("w", w, penalty), ("v", w, ts.L1(1.0))], [size * w, -w], loss=1.0)
    assert "of the penalty's pull" in pulled.proves


def test_a_loss_that_is_not_finite_is_not_blamed_on_a_constraint():
    w = torch.ones(3, dtype=torch.float64)
    certificate = measure([("w", 9 * w, ts.MaxNorm(1.0))], [w], loss=float("nan"))
    assert certificate.proves == "nothing: not every number is finite"
