"""Stationary points under group penalties and those that are not convex, against closed forms, polish and bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_optimum import KINDS, linear, slopes
from torch import nn

import torchshrink as ts
from torchshrink.certifying.conjugates import Squares
from torchshrink.certifying.linear_model import LinearModel
from torchshrink.optimum import acts_here, solve_composite

PENALTIES = {
    "columns": lambda s: ts.GroupLasso(s, dim=1),
    "rows": lambda s: ts.GroupLasso(s, dim=0),
    "labels": lambda s: ts.GroupLasso(s, dim=1, labels=(0, 0, 1, 1, 1, 2)),
    "an exempt group": lambda s: ts.GroupLasso(s, dim=1, weights=torch.tensor([0.0, 1, 1, 1, 1, 1])),
    "sparse": lambda s: ts.SparseGroupLasso(s / 2, s / 2, dim=1),
    "MCP": ts.MCP,
    "SCAD": ts.SCAD,
}
NORMS = {name: PENALTIES[name] for name in ("columns", "rows", "labels", "sparse")} | {
    "singular values": ts.NuclearNorm
}


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(sorted(PENALTIES)),
    seed=st.integers(0, 100),
    bias=st.booleans(),
    spread=st.sampled_from([1.0, 30.0]),
    share=st.sampled_from([0.5, 0.1, 0.01]),
)
def test_a_path_ends_in_stationary_points(kind, name, seed, bias, spread, share):
    model = linear(kind, 40, 6, 3, bias=bias, seed=seed, spread=spread)
    slope = model.row_loss.slopes(torch.zeros_like(model.outputs)).mT @ model.features / 40
    unit = PENALTIES[name](1.0).bind(model.layer.weight)
    top = float(unit.critical_strength(slope))
    penalties = [unit.with_strength(top * each) for each in (1.1, share, share / 3)]
    found = solve_composite(model, penalties)
    assert all(found.settled)
    for number, penalty in enumerate(penalties):
        gap, distance = found.gap[number], found.stationary[number]
        assert (gap is None) == (name in ("MCP", "SCAD", "an exempt group"))
        assert (distance if gap is None else gap) <= 1e-6
        weight, b = found.weight[number], None if found.bias is None else found.bias[number]
        on_weight, on_bias = slopes(model, type("Point", (), {"weight": weight, "bias": b}))
        scale = float(slope.abs().max())
        assert float(penalty.distance(weight, on_weight).max()) <= 1e-6 * scale
        assert not bias or float(on_bias.abs().max()) <= 1e-6 * scale


def orthogonal(inputs=6, rows=60):
    """Features with AᵀA/n = 1, and squares of which the least are at V."""
    A = torch.linalg.qr(torch.randn(rows, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    V = torch.randn(2, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    A, V[0] = A * rows**0.5, V[0] / 2
    layer = nn.Linear(inputs, 2, bias=False, dtype=torch.float64)
    return LinearModel(layer, (), A, A @ V.mT, Squares(A @ V.mT, 0.5), 0.0), V


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_of_orthogonal_features_the_optimum_is_the_prox(name):
    model, V = orthogonal()
    penalty = PENALTIES[name](0.4).bind(model.layer.weight)
    found = solve_composite(model, [penalty], exactly=True)
    expected = penalty.prox(V, 1.0)  # of ½‖W − V‖² + Ω(W): shorter than γ, so that F is convex
    torch.testing.assert_close(found.weight[0], expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(found.weight[0] == 0, expected == 0)
    assert 0 < int((expected == 0).sum()) < expected.numel()


@pytest.mark.parametrize("name", sorted(NORMS))
def test_the_gap_bounds_what_can_be_gained(name):
    X, y = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(50) % 3
    layer = nn.Linear(6, 3, dtype=torch.float64)
    regularizer = ts.Regularizer(layer, NORMS[name](0.03))
    with torch.no_grad():
        layer.weight.mul_(0.3)
    before = ts.duality_gap(layer, (X, y), regularizer)
    after = ts.polish(layer, (X, y), regularizer).certificate
    assert after.gap <= 1e-7
    assert before.gap >= before.objective - after.objective
    assert before.bound <= after.objective + 1e-12
    assert before.gap > after.gap


def test_where_a_path_is_not_convex_it_is_begun_at_the_lasso():
    model = linear("squares", 60, 6, 2, seed=5)
    alone = solve_composite(model, [ts.MCP(0.4)], exactly=True)
    second = solve_composite(model, [ts.MCP(2.0), ts.MCP(0.4)], exactly=True)
    torch.testing.assert_close(alone.weight[0], second.weight[1], rtol=1e-9, atol=1e-10)


def test_what_is_not_known_is_refused():
    assert not acts_here(ts.NuclearNorm(1.0))
    assert not acts_here(ts.NonNegative())
    assert acts_here(ts.L2(1.0))
