"""Huge, tiny and not finite: what a penalty computes scales as the mathematics does, and no NaN turns into a number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contract import EXAMPLES

import torchshrink as ts
from torchshrink.penalties.proximal import project_l1_ball
from torchshrink.testing import _methods

STRUCTURED = [
    ts.L1(0.3, weights=(1.0, 2.0, 0.5)),
    ts.GroupLasso(0.3, labels=(0, 1, 0, 2), weights=(1.0, 2.0, 0.5)),
    ts.SparseGroupLasso(0.2, 0.1, size=2),
]
PENALTIES = [p for ps in EXAMPLES.values() for p in ps] + STRUCTURED
NORMS = [  # of degree 1: prox_{s}(c·w) at step c·s is c·prox_s(w)
    ts.L1(0.3),
    ts.GroupLasso(0.3),
    ts.GroupLasso(0.3, dim=()),
    ts.SparseGroupLasso(0.2, 0.1),
    ts.NuclearNorm(0.3),
    *STRUCTURED,
]
BALLS = [ts.MaxNorm, ts.L1Ball]


def tensors(dtype, seed):
    return torch.randn(4, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(found, expected, dtype):
    scale = expected.abs().max()
    assert found.isfinite().all()
    assert float((found - expected).abs().max() / scale) <= 200 * torch.finfo(dtype).eps


scales = st.integers(-29, 29).map(lambda k: 10.0**k)
dtypes = st.sampled_from([torch.float32, torch.float64])


@pytest.mark.parametrize("penalty", NORMS, ids=str)
@settings(max_examples=25, deadline=None)
@given(scale=scales, dtype=dtypes, seed=st.integers(0, 99))
def test_a_norm_scales(penalty, scale, dtype, seed):
    w, g = tensors(dtype, seed), tensors(dtype, seed + 100)
    close(penalty.value(scale * w), (scale * penalty.value(w.double())).to(dtype), dtype)
    close(penalty.grad(scale * w), penalty.grad(w), dtype)
    close(penalty.critical_strength(scale * g), scale * penalty.critical_strength(g), dtype)
    larger = penalty.with_strength(scale * float(penalty.strength))
    close(larger.distance(w, scale * g), scale * penalty.distance(w, g), dtype)
    if 1e-15 <= scale <= 1e15:  # where a group and its threshold are such that squares are lost, it is right or 0
        close(penalty.prox(scale * w, 0.5 * scale), scale * penalty.prox(w, 0.5), dtype)
    if penalty.prox_steps == "coordinate":
        steps = tensors(dtype, seed + 200).abs()
        close(penalty.prox(scale * w, scale * steps), scale * penalty.prox(w, steps), dtype)


@pytest.mark.parametrize("ball", BALLS)
@settings(max_examples=40, deadline=None)
@given(scale=scales, far=st.integers(-6, 12).map(lambda k: 10.0**k), dtype=dtypes, seed=st.integers(0, 99))
def test_a_projection_lands_on_the_ball_from_anywhere(ball, scale, far, dtype, seed):
    if scale * far > 1e30:
        return
    w = scale * far * tensors(dtype, seed)
    steps = tensors(dtype, seed + 1).abs() + 0.1
    for step in (1.0, steps):
        u = ball(scale).prox(w, step).double()
        size = u.norm(dim=1) if ball is ts.MaxNorm else u.abs().sum().reshape(1)
        before = w.double().norm(dim=1) if ball is ts.MaxNorm else w.double().abs().sum().reshape(1)
        expected = before.clamp(max=scale)
        assert torch.allclose(size, expected, rtol=1e-5 if dtype is torch.float32 else 1e-12, atol=0)
        assert bool((u * w.double() >= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diverging_weight_is_projected_and_is_no_clean_zero(dtype):
    w = torch.tensor([2e7, 3.0], dtype=dtype)
    expected = torch.tensor([1.0, 0.0], dtype=dtype)
    assert torch.equal(ts.L1Ball(1.0).prox(w, 1.0), expected)
    assert torch.equal(ts.L1Ball(1.0).prox(w, torch.ones(2, dtype=dtype)), expected)
    near = torch.tensor([2e7, 2e7 - 0.5 if dtype is torch.float64 else 2e7], dtype=dtype)
    assert float(ts.L1Ball(1.0).prox(near, 1.0).sum()) == pytest.approx(1.0)
    huge = torch.full((2, 4), 1e30, dtype=dtype)
    torch.testing.assert_close(ts.MaxNorm(1.0).prox(huge, 1.0), torch.full((2, 4), 0.5, dtype=dtype))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), far=st.sampled_from([0.1, 1.0, 1e3, 1e9]))
def test_the_l1_projection_is_that_of_bisection_in_high_precision(seed, far):
    rng = np.random.default_rng(seed)
    x, s = far * rng.standard_normal(7), 10 ** rng.uniform(-3, 3, 7)
    found = project_l1_ball(torch.from_numpy(x), 1.0, torch.from_numpy(s)).numpy()
    size, steps = np.abs(x).astype(np.longdouble), s.astype(np.longdouble)
    low, high = np.longdouble(0), (size / steps).max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(size - middle * steps, 0).sum() > 1 else (low, middle)
    expected = np.maximum(size - high * steps, 0) * np.sign(x) if size.sum() > 1 else x
    assert np.abs(found - expected.astype(float)).max() <= 1e-14 * max(far, 1.0)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("where", ["w", "grad", "both"])
def test_nan_stays_nan_in_every_method(penalty, dtype, where):
    w, g = tensors(torch.float64, 0).to(dtype), tensors(torch.float64, 1).to(dtype)
    if penalty.constraint:
        w = penalty.prox(w, 1.0)
    for name, method in _methods(penalty).items():
        a, b = w.clone(), g.clone()
        if where != "grad":
            a[1, 1] = math.nan
        if where != "w":
            b[1, 1] = math.nan
        if where == "grad" and name != "distance":
            continue  # the other methods do not see it, or take it for steps
        if name == "grad" and penalty.constraint:
            continue  # 0, which is in every normal cone
        assert bool(method(penalty, a, g if name.startswith("prox") else b).isnan().any()), name


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_infinite_weight_is_never_pulled_to_a_finite_one(penalty, dtype, sign):
    w, g = tensors(dtype, 0), tensors(dtype, 1)
    w[1, 1] = sign * math.inf
    for name, method in _methods(penalty).items():
        found = method(penalty, w, g)
        if name.startswith("prox"):
            assert not bool(found.isfinite().all()), name
        if name == "value" and type(penalty) not in (ts.MCP, ts.SCAD, ts.GroupMCP, ts.GroupSCAD):
            assert not bool(found.isfinite()), name


def test_the_critical_strength_of_an_elastic_net_has_the_digits_of_its_gradient():
    g = torch.tensor([0.3, -0.123456789012345], dtype=torch.float64)
    assert ts.ElasticNet(0.1, 0.9).critical_strength(g).item() == pytest.approx(3.0, rel=1e-15)
    assert ts.ElasticNet(0.1, 0.9).critical_strength(g.float()).dtype is torch.float32
    assert ts.ElasticNet(0.0, 0.9).critical_strength(g).item() == math.inf
    assert ts.ElasticNet(0.0, 0.0).critical_strength(torch.zeros_like(g)).item() == 0
