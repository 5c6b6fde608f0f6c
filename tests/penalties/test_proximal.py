"""The proximal functions against their optimality conditions and brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchshrink.penalties import GroupLasso, SparseGroupLasso, proximal
from torchshrink.penalties.proximal import (
    block_soft_threshold,
    group_norm,
    group_size,
    metric_block_soft_threshold,
    plain_norm,
    reduced_dims,
    soft_threshold,
)

ROWS = (0,)


class Spy:
    """Of how many numbers a method was called."""

    def __init__(self, method):
        self.method, self.sizes = method, []

    def __call__(self, w):
        self.sizes.append(w.numel())
        return self.method(w)


def random_case(generator):
    """A group prox problem: groups × members, steps within 1e-8 … 1e8, some rows zero, some groups to become zero."""
    groups, members = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
    spread = [0.0, 1.0, 3.0, 8.0][int(torch.randint(4, (1,), generator=generator))]
    x = torch.randn(groups, members, dtype=torch.float64, generator=generator)
    x = x * 10 ** (4 * torch.rand(groups, 1, dtype=torch.float64, generator=generator) - 2)
    x[torch.rand(groups, generator=generator) < 0.1] = 0.0
    x = x * (torch.rand(x.shape, generator=generator) > 0.1)
    steps = 10 ** (spread * (2 * torch.rand(x.shape, dtype=torch.float64, generator=generator) - 1))
    edge = torch.linalg.vector_norm(x / steps, dim=1).median().clamp(min=1e-12)
    strength = edge * 4 ** torch.randn((), dtype=torch.float64, generator=generator)
    return x, steps, strength


def test_group_prox_with_one_step_per_coordinate_meets_its_optimality_condition():
    """1,000 random cases: x − u = s·λ·u/‖u‖ where u is nonzero, and ‖x/s‖ ≤ λ where it is zero."""
    generator = torch.Generator().manual_seed(0)
    worst, zero_groups, live_groups = 0.0, 0, 0
    for _ in range(1000):
        x, steps, strength = random_case(generator)
        u = metric_block_soft_threshold(x, steps * strength, ROWS)
        norm = torch.linalg.vector_norm(u, dim=1, keepdim=True)
        live = (norm > 0).squeeze(1)
        residual = (x - u - steps * strength * u / norm)[live]
        scale = x.abs().amax(dim=1, keepdim=True)[live]
        if residual.numel():
            worst = max(worst, float((residual.abs() / scale).max()))
        assert bool((torch.linalg.vector_norm(x / steps, dim=1)[~live] <= strength * (1 + 1e-12)).all())
        assert bool((torch.linalg.vector_norm(x / steps, dim=1)[live] >= strength * (1 - 1e-12)).all())
        zero_groups += int((~live).sum())
        live_groups += int(live.sum())
    assert worst <= 1e-10
    assert zero_groups > 500
    assert live_groups > 500


def test_a_group_s_result_does_not_depend_on_those_beside_it():
    """To the bit: whatever the others need, an iteration or a look at zeros, changes nothing of one that needs none."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for _ in range(100):
        x, steps, strength = random_case(generator)
        cases += [(x, steps * strength), (x.float(), (steps * strength).float())]
    # Only beside another group is there a look at zeros, at which 1e-40 over a step of 0 would pass for one.
    cases.append((torch.tensor([[1e-40, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])))
    for x, threshold in cases:
        together = metric_block_soft_threshold(x, threshold, ROWS)
        for i in range(len(x)):
            assert torch.equal(metric_block_soft_threshold(x[i : i + 1], threshold[i : i + 1], ROWS)[0], together[i])


WATCHED = [GroupLasso(0.1), GroupLasso(0.1, dim=1), GroupLasso(0.1, labels=(0, 0, 1)), SparseGroupLasso(0.05, 0.1)]


@pytest.mark.parametrize("penalty", WATCHED, ids=str)
@pytest.mark.parametrize("steps", ["number", "per coordinate"])
def test_a_prox_can_be_differentiated_and_mapped(penalty, steps):
    """What is overwritten where nobody looks on is left alone where autograd or a transform does."""
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.5, dtype=torch.float64) if steps == "number" else torch.rand(3, 4, dtype=torch.float64) + 0.1
    step.requires_grad_(True)
    assert torch.autograd.gradcheck(penalty.prox, (w, step))
    w, step = w.detach(), step.detach()
    several = torch.stack([step, 2 * step, 3 * step])
    for mapped in (
        torch.func.vmap(lambda s: penalty.prox(w, s))(several),
        penalty.prox(w.requires_grad_(), several[0]),
    ):
        expected = torch.stack([penalty.prox(w.detach(), s) for s in several])
        torch.testing.assert_close(mapped.detach(), expected if mapped.ndim == 3 else expected[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("dim", [0, 1])
def test_the_gradient_of_a_prox_at_a_zero_group_is_zero(dim):
    w = torch.tensor([[0.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    w = (w.t() if dim == 0 else w).contiguous().requires_grad_()
    GroupLasso(0.1, dim=dim).prox(w, 1.0).sum().backward()
    assert (w.grad[0] if dim == 0 else w.grad[:, 0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reduced", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "turned"])
def test_plain_norms_over_any_dimensions(monkeypatch, reduced, layout):
    monkeypatch.setattr(proximal, "BLOCK", 5)
    squares = Spy(torch.Tensor.square)
    monkeypatch.setattr(torch.Tensor, "square", lambda w: squares(w))
    w = torch.randn(4, 3, 5, dtype=torch.float64)
    w = w if layout == "contiguous" else w.permute(2, 0, 1)
    expected = torch.linalg.vector_norm(w, dim=reduced, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(plain_norm(w, reduced), expected, rtol=1e-14, atol=0)
    trailing = reduced in ((2,), (1, 2), (0, 1, 2))
    assert squares.sizes == ([] if layout == "turned" or trailing else [15] * 4)  # slice after slice
    torch.testing.assert_close(plain_norm(w, reduced), expected, rtol=1e-14, atol=0)  # as autograd would be told
    half = w.half()
    assert torch.equal(plain_norm(half, reduced), torch.linalg.vector_norm(half, dim=reduced, keepdim=True))


def test_plain_norms_under_vmap_of_nothing_and_of_what_is_no_number():
    w = torch.randn(3, 4, 5)
    found = torch.func.vmap(lambda each: plain_norm(each, (0,)))(w)
    torch.testing.assert_close(found, torch.linalg.vector_norm(w, dim=1, keepdim=True))
    with torch.no_grad():
        assert plain_norm(torch.zeros(0, 3), (0,)).tolist() == [[0.0, 0.0, 0.0]]
        assert plain_norm(torch.tensor([[torch.nan], [1.0]]), (0,)).isnan().all()


def test_equal_steps_give_the_closed_form():
    z = torch.randn(50, 7, dtype=torch.float64)
    z[::9] = 0
    both = metric_block_soft_threshold(z, torch.full_like(z, 1.7), ROWS), block_soft_threshold(z, 1.7, ROWS)
    torch.testing.assert_close(*both, rtol=1e-13, atol=0)
    assert torch.equal(both[0] == 0, both[1] == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_and_huge_thresholds_within_one_group(dtype):
    x = torch.tensor([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [1e-6, 1.0, 0.0]], dtype=dtype)
    t = torch.tensor([[0.0, 1e8, 0.5], [0.0, 1.0, 2.0], [0.0, 1e-8, 1e8]], dtype=dtype)
    u = metric_block_soft_threshold(x, t, ROWS)
    assert bool(u.isfinite().all())
    assert u[0, 0] == 1.0  # a zero step leaves its coordinate alone
    assert torch.equal(u[1], torch.zeros(3, dtype=dtype))
    norm = torch.linalg.vector_norm(u, dim=1, keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(u + t * u / norm, x, rtol=1e-5, atol=1e-5)


def test_an_infinite_step_zeroes_what_it_can():
    u = metric_block_soft_threshold(torch.ones(1, 2), torch.full((1, 2), torch.inf), ROWS)
    assert torch.equal(u, torch.zeros(1, 2))
    assert torch.equal(soft_threshold(torch.ones(2), torch.full((2,), torch.inf)), torch.zeros(2))


def test_nan_stays_nan():
    x = torch.tensor([[1.0, torch.nan], [1.0, 1.0]])
    assert bool(metric_block_soft_threshold(x, torch.ones(2, 2), ROWS)[0].isnan().any())
    assert bool(block_soft_threshold(x, 0.5, ROWS)[0].isnan().any())
    assert bool(soft_threshold(x, 0.5)[0, 1].isnan())


@settings(deadline=None, max_examples=60)
@given(
    z=st.lists(st.floats(-10, 10), min_size=1, max_size=8),
    t=st.floats(0, 5),
)
def test_soft_threshold_is_the_minimiser_on_a_fine_grid(z, t):
    z = torch.tensor(z, dtype=torch.float64)
    u = soft_threshold(z, t)
    grid = torch.linspace(-12, 12, 4801, dtype=torch.float64)

    def objective(v, z):
        return t * v.abs() + (v - z).square() / 2

    assert bool((objective(u, z) <= objective(grid[:, None], z).amin(0) + 1e-12).all())


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 1e3),
    spread=st.floats(0, 4),
)
def test_the_metric_prox_is_nonexpansive_in_its_metric_and_scales(seed, scale, spread):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    t = 10 ** (spread * (torch.rand(4, 5, dtype=torch.float64, generator=generator) - 0.5))
    ua, ub = metric_block_soft_threshold(a, t, ROWS), metric_block_soft_threshold(b, t, ROWS)
    weight = 1 / t
    assert bool(((ua - ub).square() * weight).sum() <= ((a - b).square() * weight).sum() * (1 + 1e-9) + 1e-12)
    torch.testing.assert_close(metric_block_soft_threshold(scale * a, scale * t, ROWS), scale * ua)


@pytest.mark.parametrize(
    ("ndim", "dims", "reduced"),
    [
        (2, (0,), (1,)),
        (2, (1,), (0,)),
        (2, (-1,), (0,)),
        (4, (0, 1), (2, 3)),
        (3, (), (0, 1, 2)),
        (1, (0,), ()),
        (0, (0,), ()),
    ],
)
def test_dimensions_inside_a_group(ndim, dims, reduced):
    assert reduced_dims(ndim, dims) == reduced


def test_group_size_and_norm():
    w = torch.randn(4, 3, 2)
    assert group_size(w.shape, (0,)) == 6
    assert group_size(w.shape, (0, 2)) == 3
    torch.testing.assert_close(group_norm(w, (0, 2)).squeeze(1), w.square().sum(1).sqrt())
