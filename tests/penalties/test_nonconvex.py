"""MCP and SCAD: the prox is the global minimiser in every branch, ties and long steps included."""

import math

import pytest
import torch

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import InputError
from torchshrink.penalties import L1, MCP, SCAD
from torchshrink.testing import check_penalty

EXAMPLES = [MCP(0.3), MCP(1.0, gamma=0.7), MCP(0.5, gamma=4.0), SCAD(0.3), SCAD(1.0, gamma=2.1), SCAD(0.5, gamma=3.0)]
# Each example's own borders between branches: γ for MCP, a−1 and a+1 for SCAD, and their neighbours.
BORDERS = {MCP: lambda p: (p.gamma,), SCAD: lambda p: (p.gamma - 1, p.gamma + 1)}


def steps_of(penalty):
    near = [b * f for b in BORDERS[type(penalty)](penalty) for f in (1 - 1e-9, 1.0, 1 + 1e-9, 0.9, 1.1)]
    return [1e-4, 0.05, 0.5, 1.0, 2.0, 10.0, 1e3, *near]


def along(penalty, z, step, candidates):
    """The objective per coordinate: of each z, at each of its candidates."""
    values = torch.func.vmap(penalty.value)(candidates.reshape(-1)).reshape(candidates.shape)
    return values + (candidates - z).square() / (2 * step)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_the_contract_holds(penalty):
    check_penalty(penalty)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_prox_is_the_global_minimum_over_a_fine_grid(penalty):
    grid = torch.linspace(-1.2, 1.2, 2401, dtype=torch.float64)  # times z: every minimiser lies between 0 and z
    for step in steps_of(penalty):
        reach = max(4.0, 1.5 * penalty.strength * math.sqrt(step * 5))
        z = torch.linspace(-reach, reach, 101, dtype=torch.float64)
        u = penalty.prox(z, step)
        best = along(penalty, z[:, None], step, torch.cat([grid * z[:, None], z[:, None] * 0], dim=1)).amin(dim=1)
        found = along(penalty, z, step, u)
        assert (found <= best + 1e-12 * (1 + best)).all(), f"step {step}"


def thresholds(penalty, step):
    """Where the prox leaves 0, and where it becomes the identity."""
    lam = penalty.strength
    if isinstance(penalty, MCP):
        g = penalty.gamma
        return (step * lam, g * lam) if step < g else (lam * math.sqrt(g * step),) * 2
    a = penalty.gamma
    if step < a - 1:
        return step * lam, a * lam
    if step <= a + 1:
        return step * lam, lam * (a + 1 + step) / 2
    return (lam * math.sqrt(step * (a + 1)),) * 2


@pytest.mark.parametrize("step", [0.05, 0.5, 1.5, 3.0, 4.2, 30.0])
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_zero_below_the_threshold_and_untouched_beyond_the_end(penalty, step):
    leaves, ends = thresholds(penalty, step)
    z = torch.tensor([leaves * (1 - 1e-9), leaves * (1 + 1e-6), ends * (1 + 1e-9)], dtype=torch.float64)
    for sign in (1, -1):
        u = penalty.prox(sign * z, step)
        assert u[0] == 0
        assert u[1] * sign > 0
        assert u[2] == sign * z[2]


def test_of_two_equally_good_points_it_is_the_smaller():
    assert MCP(1.0, gamma=2.0).prox(torch.tensor([4.0, -4.0]), 8.0).tolist() == [0.0, 0.0]  # λ√(γs) = 4
    assert SCAD(1.0, gamma=3.0).prox(torch.tensor([4.0, -4.0]), 4.0).tolist() == [0.0, 0.0]  # λ√(s(a+1)) = 4, λs = 4
    assert SCAD(1.0, gamma=3.0).prox(torch.tensor([3.5]), 3.0).tolist() == [0.5]  # λ(a+1+s)/2 = 3.5: soft or 3.5
    tie = torch.tensor([0.5, 3.5])
    assert along(SCAD(1.0, gamma=3.0), torch.tensor(3.5), 3.0, tie).diff().abs() < 1e-6


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_steps_per_coordinate_take_each_its_own_branch(penalty):
    steps = torch.tensor(steps_of(penalty), dtype=torch.float64)
    z = torch.linspace(-5, 5, 41, dtype=torch.float64)
    together = penalty.prox(z[:, None].expand(-1, len(steps)), steps.expand(len(z), -1))
    apart = torch.stack([penalty.prox(z, step.item()) for step in steps], dim=1)
    torch.testing.assert_close(together, apart, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_no_step_makes_nan_or_overshoots(penalty, dtype):
    z = torch.linspace(-6, 6, 49).to(dtype)
    one = torch.finfo(torch.float32).eps
    for border in BORDERS[type(penalty)](penalty):
        for step in (0.0, 1e-30, border * (1 - one), border, border * (1 + one), 1e8, 1e30, math.inf):
            u = penalty.prox(z, step)
            assert u.dtype == dtype
            assert u.isfinite().all()
            assert (u.abs() <= z.abs()).all()
            assert (u * z >= 0).all()


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_a_step_of_zero_leaves_every_bit(penalty):
    w = torch.randn(100)
    assert torch.equal(penalty.prox(w, 0.0), w)
    assert torch.equal(penalty.prox(w, torch.zeros(100)), w)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_the_unused_branch_sends_no_nan_backwards(penalty):
    for border in BORDERS[type(penalty)](penalty):
        z = torch.linspace(-6, 6, 49, dtype=torch.float64, requires_grad=True)
        penalty.prox(z, border).sum().backward()
        assert z.grad.isfinite().all()


@pytest.mark.parametrize("penalty", [MCP(0.4, gamma=1e9), SCAD(0.4, gamma=1e9)], ids=str)
def test_far_from_its_end_it_is_l1(penalty):
    w, l1 = torch.randn(50, dtype=torch.float64), L1(0.4)
    for method in (lambda p: p.value(w), lambda p: p.grad(w), lambda p: p.prox(w, 0.7), lambda p: p.distance(w, w)):
        torch.testing.assert_close(method(penalty), method(l1), rtol=1e-7, atol=1e-7)


def test_values_by_hand():
    w = torch.tensor([-0.5, 2.0, 10.0], dtype=torch.float64)
    assert MCP(1.0, gamma=3.0).value(w).item() == pytest.approx((0.5 - 0.25 / 6) + (2 - 4 / 6) + 1.5)
    assert SCAD(1.0, gamma=3.0).value(w).item() == pytest.approx(0.5 + (12 - 4 - 1) / 4 + 2.0)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_large_weights_feel_no_pull(penalty):
    w = torch.tensor([50.0, -50.0])
    assert torch.equal(penalty.grad(w), torch.zeros(2))
    assert torch.equal(penalty.distance(w, torch.tensor([0.2, 0.0])), torch.tensor([0.2, 0.0]))


@pytest.mark.parametrize("kind", [MCP, SCAD])
@pytest.mark.parametrize("gamma", [1e8, 1e10, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_large_gamma_is_l1_in_every_dtype(kind, gamma, dtype):
    w = torch.tensor([3.0, -0.5, 0.02, 0.0], dtype=dtype)
    for strength in (0.1, 1e30):  # where gamma times the strength is beyond float32
        mine, plain = kind(strength, gamma=gamma), L1(strength)
        for found, wanted in (
            (mine.prox(w, 0.1), plain.prox(w, 0.1)),
            (mine.grad(w), plain.grad(w)),
            (mine.distance(w, w), plain.distance(w, w)),
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [MCP, SCAD])
@pytest.mark.parametrize("gamma", [1.1e12, 1e38, 1e308])
def test_a_gamma_beyond_is_refused(kind, gamma):
    with pytest.raises(InputError, match="where the penalty is L1 already"):
        kind(0.1, gamma=gamma)


def test_the_settings_are_kept_and_part_of_the_value():
    assert MCP(0.1, gamma=2.0).with_strength(0.5) == MCP(0.5, gamma=2.0) != MCP(0.5)
    assert SCAD(0.1, gamma=2.5).with_strength(0.5) == SCAD(0.5, gamma=2.5) != SCAD(0.5)
    assert str(SCAD(0.1)) == "SCAD(0.1, gamma=3.7)"
    assert eval(repr(MCP(0.1, gamma=2))) == MCP(0.1, gamma=2.0)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "3", None, True])
def test_a_bad_shape_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"gamma=.*expected a finite number > 0"):
        MCP(0.1, gamma=bad)
    with pytest.raises(InputError, match=r"gamma=.*expected a finite number > 2"):
        SCAD(0.1, gamma=bad)
    with pytest.raises(InputError, match=r"gamma=2\.0"):
        SCAD(0.1, gamma=2.0)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("penalty", [MCP(0.3), SCAD(0.3)], ids=str)
def test_training_on_an_orthonormal_design_ends_at_the_prox_of_least_squares(penalty, optimizer):
    # Columns with XᵀX = nI: F = ½‖w − w_ls‖² + Ω(w), whose minimiser is prox with step 1 of w_ls.
    X = torch.linalg.qr(torch.randn(60, 6, dtype=torch.float64)).Q * math.sqrt(60)
    y = X @ torch.tensor([2.0, -1.0, 0.5, 0.2, 0.1, 0.0], dtype=torch.float64) + 0.1 * torch.randn(60).double()
    expected = penalty.prox(X.T @ y / 60, 1.0)
    model = torch.nn.Linear(6, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(X.T @ y / 60)
    steps = optimizer(model.parameters(), lr=0.05 if optimizer is torch.optim.SGD else 0.01)
    reg = ts.Regularizer(model, penalty).attach(steps)

    def closure():
        steps.zero_grad()
        loss = (model(X).squeeze(1) - y).square().mean() / 2
        loss.backward()
        return loss

    at_rest = AtRest(model.parameters())
    for _ in range(1200):
        closure()
        steps.step()
        if at_rest():
            break
    torch.testing.assert_close(model.weight.detach()[0], expected, rtol=0, atol=1e-6)
    assert torch.equal(model.weight[0] == 0, expected == 0)
    assert reg.certify(closure).ok(1e-4)
