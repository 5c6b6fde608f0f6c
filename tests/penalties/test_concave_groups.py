"""GroupMCP and GroupSCAD: their limits, the prox against brute force, and no bias on the groups that stay."""

import math

import pytest
import torch

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.penalties import MCP, SCAD, GroupLasso, GroupMCP, GroupSCAD

F64 = torch.float64
PAIRS = [(GroupMCP, MCP, 2.0), (GroupSCAD, SCAD, 2.5)]
STEPS = [0.1, 0.9, 1.7, 2.3, 9.0]  # on both sides of every case of the prox


@pytest.mark.parametrize(("kind", "alone", "gamma"), PAIRS)
def test_with_groups_of_one_it_is_the_penalty_of_coordinates(kind, alone, gamma):
    w, g = 2 * torch.randn(2, 6, 5, dtype=F64)
    w[0] = 0.0
    groups, each = kind(0.7, gamma, dim=(0, 1)), alone(0.7, gamma)
    torch.testing.assert_close(groups.value(w), each.value(w))
    torch.testing.assert_close(groups.grad(w), each.grad(w))
    torch.testing.assert_close(groups.distance(w, g), each.distance(w, g))
    torch.testing.assert_close(groups.critical_strength(g), each.critical_strength(g))
    for step in STEPS:
        torch.testing.assert_close(groups.prox(w, step), each.prox(w, step))


@pytest.mark.parametrize("kind", [GroupMCP, GroupSCAD])
def test_for_large_gamma_it_is_the_group_lasso(kind):
    w, g = torch.randn(2, 6, 5, dtype=F64)
    near, lasso = kind(0.3, 1e9, dim=1), GroupLasso(0.3, dim=1)
    assert near.convex_part == lasso
    torch.testing.assert_close(near.value(w), lasso.value(w))
    torch.testing.assert_close(near.prox(w, 0.7), lasso.prox(w, 0.7))
    torch.testing.assert_close(near.distance(w, g), lasso.distance(w, g))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("kind", "alone", "gamma"), PAIRS)
def test_the_prox_is_the_best_of_a_fine_grid(kind, alone, gamma, step):
    penalty = kind(0.7, gamma)
    lengths = torch.linspace(0, 1.2, 4001, dtype=F64)
    for scale in (0.3, 1.0, 2.0, 4.0):
        z = scale * torch.randn(1, 4, dtype=F64)
        along = torch.func.vmap(lambda t: penalty.value(t * z) + ((t - 1) * z).square().sum() / (2 * step))(lengths)  # noqa: B023
        u = penalty.prox(z, step)
        assert float(penalty.value(u) + (u - z).square().sum() / (2 * step)) <= along.min() + 1e-12
        torch.testing.assert_close(u / u.norm().clamp(min=1e-300), (z / z.norm()) * bool(u.any()))


@pytest.mark.parametrize("penalty", [GroupMCP(0.15, dim=1), GroupSCAD(0.15, dim=1)], ids=str)
def test_what_stays_is_not_shrunk_and_a_training_with_momentum_rests(penalty):
    X = torch.randn(200, 8, dtype=F64)
    W = torch.zeros(8, 3, dtype=F64)
    W[[1, 4]] = torch.tensor([[2.0, -1.5, 1.0], [-1.0, 2.0, 1.5]], dtype=F64)
    Y = X @ W + 0.3 * torch.randn(200, 3, dtype=F64)
    model = torch.nn.Linear(8, 3, bias=False, dtype=F64)
    acting = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    reg = ts.Regularizer(model, penalty).attach(acting)
    for _ in range(1500):
        acting.zero_grad()
        (model(X) - Y).square().mean().backward()
        acting.step()
    w = model.weight.detach()
    assert w.any(0).nonzero().flatten().tolist() == [1, 4]
    assert reg.sparsity().groups_zero == 6
    assert ts.certify(model, (X, Y), reg, loss=torch.nn.MSELoss()).relative < 1e-8
    free = torch.linalg.lstsq(X[:, [1, 4]], Y).solution.T
    torch.testing.assert_close(w[:, [1, 4]], free, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [GroupMCP, GroupSCAD])
@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "3", True], ids=str)
def test_a_bad_gamma_is_refused_in_one_line(kind, bad):
    with pytest.raises(InputError, match=r"gamma=.*: expected a finite number >"):
        kind(0.1, bad)


def test_as_values():
    assert GroupMCP(1, dim=1) == GroupMCP(1.0, 3.0, 1) != GroupMCP(1.0)
    assert str(GroupSCAD(0.1, dim=(0, 1))) == "GroupSCAD(0.1, gamma=3.7, dim=(0, 1))"
    assert GroupMCP(0.1, 2.0, 1).with_strength(0.3) == GroupMCP(0.3, 2.0, 1)
    with pytest.raises(InputError, match="dim="):
        GroupMCP(0.1, dim=0.5)
