"""NuclearNorm and Orthogonal: penalties of a weight as a matrix."""

import math

import numpy as np
import pytest
import torch

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, StepSizeError
from torchshrink.penalties import NuclearNorm, Orthogonal

SHAPES = [(5, 3), (3, 5), (4, 4), (7,), (1, 1), (), (0, 3), (3, 0), (2, 3, 2, 2)]


def low_rank(rows, columns, rank, *, dtype=torch.float64):
    return (torch.randn(rows, rank, dtype=torch.float64) @ torch.randn(rank, columns, dtype=torch.float64)).to(dtype)


def samples(shape):
    dense = torch.randn(shape, dtype=torch.float64)
    yield dense
    yield 3 * dense
    yield torch.zeros(shape, dtype=torch.float64)
    if len(shape) == 2 and min(shape) > 1:
        yield low_rank(*shape, 1)
        holes = dense.clone()
        holes[0] = 0
        yield holes


def matrix_of(w):
    return w.reshape(w.shape[0] if w.ndim else 1, math.prod(w.shape[1:])).numpy()


# --- nuclear norm ---


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclear_norm_against_numpy(shape):
    penalty = NuclearNorm(0.4)
    for w in samples(shape):
        u, sigma, vh = np.linalg.svd(matrix_of(w), full_matrices=False)
        assert penalty.value(w).item() == pytest.approx(0.4 * sigma.sum(), abs=1e-12)
        assert penalty.critical_strength(w).item() == pytest.approx(sigma.max(initial=0.0), abs=1e-12)
        for step in (0.0, 0.3, 5.0):
            expected = torch.from_numpy((u * np.maximum(sigma - 0.4 * step, 0)) @ vh).reshape(w.shape)
            torch.testing.assert_close(penalty.prox(w, step), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclear_norm_prox_and_distance_agree(shape):
    penalty = NuclearNorm(0.4)
    for w in samples(shape):
        for step in (1e-3, 0.3, 1.0, 50.0):
            u = penalty.prox(w, step)
            residual = penalty.distance(u, (u - w) / step)
            assert residual.shape == ()
            assert residual <= 1e-10 * (1 + (w / step).abs().sum())
        assert penalty.distance(w, -penalty.grad(w)) <= 1e-10


@pytest.mark.parametrize("shape", [s for s in SHAPES if 0 not in s])
def test_nuclear_norm_distance_is_the_limit_of_short_prox_steps(shape):
    penalty, step = NuclearNorm(0.4), 1e-6
    for w in samples(shape):
        g = torch.randn(shape, dtype=torch.float64)
        moved = torch.linalg.vector_norm(w - penalty.prox(w - step * g, step)) / step
        torch.testing.assert_close(penalty.distance(w, g), moved, rtol=1e-3, atol=1e-3)


def test_nuclear_norm_distance_to_the_ball_in_the_complement():
    # W = e₁e₁ᵀ: the subdifferential is λ(e₁e₁ᵀ + M) with M in the lower block, ‖M‖₂ ≤ 1.
    penalty, w = NuclearNorm(1.0), torch.diag(torch.tensor([2.0, 0.0, 0.0]))
    inside = -torch.diag(torch.tensor([1.0, 1.0, -0.5]))
    outside = -torch.diag(torch.tensor([1.0, 4.0, -5.0]))
    assert penalty.distance(w, inside) < 1e-6
    assert penalty.distance(w, outside).item() == pytest.approx(5.0)  # √(3² + 4²)
    tangent = inside.clone()
    tangent[0, 2] = 0.25
    assert penalty.distance(w, tangent).item() == pytest.approx(0.25)
    assert penalty.distance(torch.zeros(3, 3), outside).item() == pytest.approx(5.0)


def test_nuclear_norm_zeroes_singular_values_and_they_are_seen_to_be_zero():
    w = torch.randn(40, 25)
    penalty = NuclearNorm(1.0)
    threshold = torch.linalg.svdvals(w)[10].item()
    u = penalty.prox(w, threshold)
    assert torch.linalg.matrix_rank(u) == 10
    assert penalty.distance(u, (u - w) / threshold) < 1e-4
    # −grad is orthogonal to the complement, so adding a small M there costs nothing.
    assert torch.linalg.matrix_rank(penalty.grad(u), tol=1e-3) == 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nuclear_norm_sees_zero_singular_values_through_half_precision(dtype):
    w = torch.randn(60, 40)
    penalty = NuclearNorm(1.0)
    step = torch.linalg.svdvals(w)[5].item()
    u = penalty.prox(w.to(dtype), step)
    assert u.dtype == dtype
    assert penalty.value(u).dtype == torch.float32
    grad = penalty.grad(u).float()
    assert torch.linalg.matrix_rank(grad, tol=0.1) == 5
    g = (u.float() - w) / step
    assert penalty.distance(u, g.to(dtype)) < 0.2 < penalty.distance(u, (3 * g).to(dtype))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 1), (2, 3, 2, 2)])
def test_nuclear_norm_grad_is_the_derivative(shape):
    penalty = NuclearNorm(0.4)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    penalty.value(x).backward()
    torch.testing.assert_close(x.grad, penalty.grad(x.detach()))
    assert torch.autograd.gradcheck(penalty.value, x)


def test_nuclear_norm_derivative_where_singular_values_vanish_or_coincide():
    penalty = NuclearNorm(0.4)
    for w in (torch.zeros(3, 4), torch.eye(3), torch.diag(torch.tensor([2.0, 2.0, 0.0])), low_rank(5, 3, 1)):
        x = w.clone().requires_grad_()
        value = penalty.value(x)
        value.backward()
        assert x.grad.isfinite().all()
        torch.testing.assert_close(x.grad, penalty.grad(w))
        assert value.item() == pytest.approx(0.4 * torch.linalg.svdvals(w).sum().item(), rel=1e-6)
    assert torch.equal(penalty.grad(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_nuclear_norm_refuses_steps_per_coordinate():
    with pytest.raises(InputError, match=r"steps of shape \(2, 2\) given, one number expected"):
        NuclearNorm(0.1).prox(torch.eye(2), torch.ones(2, 2))
    torch.testing.assert_close(NuclearNorm(0.5).prox(torch.eye(2), torch.tensor(1.0)), 0.5 * torch.eye(2))
    model = torch.nn.Linear(3, 2)
    with pytest.raises(StepSizeError, match=r"NuclearNorm.*use method=.latent., or SGD"):
        ts.Regularizer(model, NuclearNorm(0.1)).attach(torch.optim.Adam(model.parameters()), method="prox")
    ts.Regularizer(model, NuclearNorm(0.1)).attach(torch.optim.Adam(model.parameters()), method="gradient")


def test_nuclear_norm_step_of_zero_leaves_every_bit():
    w = torch.randn(20, 30)
    assert torch.equal(NuclearNorm(0.4).prox(w, 0.0), w)
    assert torch.equal(NuclearNorm(0.4).prox(w, torch.zeros(())), w)


def test_one_lane_that_diverged_does_not_stop_the_others():
    penalty = NuclearNorm(0.4)
    w = torch.randn(3, 5, 4, dtype=torch.float64)
    w[1, 2, 2] = torch.nan
    for method in (penalty.value, penalty.grad, lambda x: penalty.prox(x, 0.5), lambda x: penalty.distance(x, w[0])):
        batched = torch.func.vmap(method)(w)
        assert batched[1].isnan().all()
        for lane in (0, 2):
            torch.testing.assert_close(batched[lane], method(w[lane]))


def test_training_under_the_nuclear_norm_recovers_a_low_rank_and_certifies_it():
    # An orthonormal design: the minimiser is the prox with step 1 of least squares.
    X = torch.linalg.qr(torch.randn(60, 8, dtype=torch.float64)).Q * math.sqrt(60)
    Y = X @ low_rank(8, 6, 2) + 0.1 * torch.randn(60, 6, dtype=torch.float64)
    model = torch.nn.Linear(8, 6, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    reg = ts.Regularizer(model, NuclearNorm(0.4)).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = (model(X) - Y).square().sum() / 120
        loss.backward()
        return loss

    for _ in range(600):
        closure()
        optimizer.step()
    expected = NuclearNorm(0.4).prox((X.T @ Y / 60).T, 1.0)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-8)
    assert torch.linalg.matrix_rank(model.weight) == 2
    assert reg.certify(closure).relative < 1e-8
    with torch.no_grad():
        model.weight[0, 0] += 0.01
    assert reg.certify(closure).relative > 1e-3


# --- orthogonal ---


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (7,), (1, 1), (), (2, 3, 2, 2)])
def test_orthogonal_against_both_grams(shape):
    penalty = Orthogonal(0.3)
    w = torch.randn(shape, dtype=torch.float64)
    matrix = matrix_of(w)
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    assert len(gram) == min(rows, columns)
    assert penalty.value(w).item() == pytest.approx(0.3 * np.square(gram - np.eye(len(gram))).sum())
    x = w.clone().requires_grad_()
    assert torch.autograd.gradcheck(penalty.value, x)
    penalty.value(x).backward()
    torch.testing.assert_close(penalty.grad(w), x.grad)
    g = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(penalty.distance(w, g), (g + x.grad).abs())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_orthogonal_is_zero_at_an_orthonormal_frame_and_only_there(shape):
    q = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q[: shape[0], : shape[1]]
    q = torch.linalg.qr(q if shape[0] >= shape[1] else q.T).Q
    q = q if q.shape == shape else q.T
    assert Orthogonal(0.3).value(q) < 1e-20
    assert Orthogonal(0.3).grad(q).abs().max() < 1e-12
    assert Orthogonal(0.3).value(2 * q) > 1


def test_orthogonal_has_no_prox_and_auto_takes_the_gradient():
    with pytest.raises(InputError, match=r"Orthogonal\(0.1\) has no closed prox; .*method='gradient'"):
        Orthogonal(0.1).prox(torch.eye(2), 1.0)
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with pytest.raises(AttachmentError, match="no closed prox"):
        ts.Regularizer(model, Orthogonal(1.0)).attach(optimizer, method="prox")
    reg = ts.Regularizer(model, Orthogonal(1.0)).attach(optimizer)
    for _ in range(300):
        optimizer.zero_grad()
        (0 * model.weight.sum()).backward()
        optimizer.step()
    torch.testing.assert_close(model.weight @ model.weight.T, torch.eye(4), rtol=0, atol=1e-5)
    assert reg.value() < 1e-8


def test_orthogonal_never_holds_weights_at_zero():
    assert Orthogonal(0.1).critical_strength(torch.ones(2, 2)) == torch.inf
    assert Orthogonal(0.1).critical_strength(torch.zeros(2, 2)) == 0


# --- both ---


@pytest.mark.parametrize("penalty", [NuclearNorm(0.4), Orthogonal(0.3)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_dtypes_and_lanes(penalty, shape):
    strengths = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    w, g = torch.randn((2, 3, *shape), dtype=torch.float64)
    methods = [
        lambda p, w, g: p.value(w),
        lambda p, w, g: p.grad(w),
        lambda p, w, g: p.distance(w, g),
        lambda p, w, g: p.critical_strength(g),
    ]
    if penalty.prox_steps != "none":
        methods.append(lambda p, w, g: p.prox(w, 0.3))
    for method in methods:
        lane = lambda s, w, g, method=method: method(penalty.with_strength(s), w, g)  # noqa: E731
        batched = torch.func.vmap(lane)(strengths, w, g)
        for i, strength in enumerate(strengths.tolist()):
            torch.testing.assert_close(batched[i], lane(strength, w[i], g[i]), rtol=1e-9, atol=1e-9)
        whole = method(penalty, w[0], g[0])
        single = method(penalty, w[0].float(), g[0].float())
        half = method(penalty, w[0].bfloat16(), g[0].bfloat16())
        assert single.dtype == torch.float32
        assert half.dtype in (torch.float32, torch.bfloat16)
        torch.testing.assert_close(single.double(), whole, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(half.double(), whole, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("penalty", [NuclearNorm(0.4), Orthogonal(0.3)], ids=str)
def test_the_layout_in_memory_does_not_matter(penalty):
    w, g = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    spread = w.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not spread.is_contiguous()
    torch.testing.assert_close(penalty.value(spread), penalty.value(w))
    torch.testing.assert_close(penalty.grad(spread), penalty.grad(w))
    torch.testing.assert_close(penalty.distance(spread, g), penalty.distance(w, g))


@pytest.mark.parametrize("kind", [NuclearNorm, Orthogonal])
def test_a_bad_strength_is_refused(kind):
    for bad in (-1.0, math.nan, "0.1", None):
        with pytest.raises(InputError, match="expected"):
            kind(bad)
    assert kind(0.1) == kind(0.1) != kind(0.2)
    assert str(kind(0.1)) == f"{kind.__name__}(0.1)"
    assert kind(0.1).with_strength(0.2) == kind(0.2)
