"""MaxNorm, L1Ball, UnitNorm: projections in any diagonal metric, normal cones, and what a constraint cannot do."""

import math

import pytest
import torch

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import AttachmentError, InputError
from torchshrink.penalties import NM, Box, GroupLasso, L0Ball, L1Ball, MaxNorm, NonNegative, UnitNorm
from torchshrink.penalties.proximal import group_norm, metric_project_ball, metric_project_sphere, project_ball

EXAMPLES = [MaxNorm(1.0), MaxNorm(1.5, dim=-1), MaxNorm(0.7, dim=()), L1Ball(2.0), L1Ball(0.3)]
SHAPES = [(5, 3), (7,), (1, 1), (), (0, 3), (3, 0), (2, 3, 2, 2)]
STEPS = [1e-3, 0.3, 1.0, 50.0]


def size(penalty, w):
    """What the constraint bounds by the radius, per group."""
    return w.abs().sum() if isinstance(penalty, L1Ball) else group_norm(w, penalty.group_dims)


def samples(shape):
    for scale in (0.1, 1.0, 30.0):
        w = scale * torch.randn(shape, dtype=torch.float64)
        yield w
        yield w * (torch.rand(shape) > 0.5)
    yield torch.zeros(shape, dtype=torch.float64)


def spread_steps(shape, decades):
    return 10 ** (decades * (2 * torch.rand(shape, dtype=torch.float64) - 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_prox_is_the_nearest_point_in_the_metric_of_the_steps(penalty, shape):
    # Optimality of a projection onto a convex set C: u in C and <(w−u)/s, z−u> ≤ 0 for every z in C.
    for w in samples(shape):
        for step in (*STEPS, spread_steps(shape, 1), spread_steps(shape, 4)):
            u = penalty.prox(w, step)
            assert u.shape == w.shape
            assert penalty.value(u) == 0
            assert (size(penalty, u) <= penalty.radius * (1 + 1e-14)).all()
            force = (w - u) / step
            slack = 1e-9 * (1 + force.abs().sum())
            for _ in range(20):
                z = penalty.prox(10 ** (2 * torch.rand(()).double() - 1) * torch.randn(shape, dtype=torch.float64), 1.0)
                assert (force * (z - u)).sum() <= slack
            assert penalty.distance(u, -force).sum() <= slack


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_one_number_is_equal_steps_per_coordinate(penalty, shape):
    for w in samples(shape):
        expected = penalty.prox(w, 1.0)
        for step in STEPS:
            torch.testing.assert_close(penalty.prox(w, step), expected, rtol=0, atol=0)
            torch.testing.assert_close(penalty.prox(w, torch.tensor(step).double()), expected, rtol=0, atol=0)
            torch.testing.assert_close(penalty.prox(w, torch.full_like(w, step)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_inside_nothing_moves_by_a_bit_and_a_step_of_zero_moves_nothing(penalty):
    small = 1e-3 * torch.randn(5, 3)
    assert torch.equal(penalty.prox(small, 1.0), small)
    assert torch.equal(penalty.prox(small, torch.rand(5, 3)), small)
    large = 30 * torch.randn(5, 3)
    for nothing in (0.0, torch.zeros(()), torch.zeros(5, 3)):
        assert torch.equal(penalty.prox(large, nothing), large)
    once = penalty.prox(large, 1.0)
    torch.testing.assert_close(penalty.prox(once, 1.0), once, rtol=1e-6, atol=0)


def test_projections_by_hand():
    w = torch.tensor([[3.0, -4.0], [0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(MaxNorm(1.0).prox(w, 1.0), torch.tensor([[0.6, -0.8], [0.3, 0.4]]).double())
    torch.testing.assert_close(MaxNorm(3.0, dim=1).prox(w, 1.0)[:, 0], 3 * w[:, 0] / w[:, 0].norm())
    # x/(1 + μs) with s = (1, 3): x = (4, 4·…) chosen so that μ = 1 gives u = (1.5, 2), ‖u‖ = 2.5.
    u = MaxNorm(2.5).prox(torch.tensor([[3.0, 8.0]]).double(), torch.tensor([[1.0, 3.0]]).double())
    torch.testing.assert_close(u, torch.tensor([[1.5, 2.0]]).double())
    # |x| − μs with s = (1, 2, 4), μ = 1: (2, 1, 0 of −1), sum 3.
    x, s = torch.tensor([3.0, -3.0, 3.0]).double(), torch.tensor([1.0, 2.0, 4.0]).double()
    torch.testing.assert_close(L1Ball(3.0).prox(x, s), torch.tensor([2.0, -1.0, 0.0]).double())


def test_l1_ball_against_bisection():
    for n in (1, 2, 50, 3000):
        x, s = 5 * torch.randn(n, dtype=torch.float64), spread_steps((n,), 3)
        radius = 0.1 * x.abs().sum().item()
        low, high = 0.0, (x.abs() / s).max().item()
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if (x.abs() - middle * s).clamp(min=0).sum() > radius else (low, middle)
        expected = x.sign() * (x.abs() - low * s).clamp(min=0)
        u = L1Ball(radius).prox(x, s)
        torch.testing.assert_close(u, expected, rtol=1e-9, atol=1e-9 * radius)
        assert torch.equal(u == 0, (x.abs() - low * s).clamp(min=0) <= 1e-12 * radius)


@pytest.mark.parametrize("decades", [1, 4, 8])
@pytest.mark.parametrize("p", [2, 30, 500])
def test_max_norm_solves_its_secular_equation_to_the_last_digits(p, decades):
    for scale in (1.0, 30.0, 1e4):
        x = scale * torch.randn(40, p, dtype=torch.float64) * spread_steps((40, p), 1)
        s = spread_steps((40, p), decades)
        u = metric_project_ball(x, 1.0, s, (0,))
        outside = x.norm(dim=1) > 1
        torch.testing.assert_close(u.norm(dim=1)[outside], torch.ones(int(outside.sum())).double(), rtol=1e-14, atol=0)
        # One μ for all coordinates of a group: (x_i − u_i)/(s_i·u_i), where it can be read off without cancellation.
        mu = (x - u) / (s * u)
        clear = outside[:, None] & ((x - u).abs() > 1e-2 * x.abs())
        middle = torch.where(clear, mu, torch.nan).nanmedian(dim=1, keepdim=True).values
        error = ((mu / middle - 1).abs())[clear]
        assert error.numel() == 0 or error.max() < 1e-10


def test_max_norm_prox_and_group_lasso_prox_are_conjugate():
    # Moreau: z = prox of λ‖·‖ + projection onto the ball of radius λ, and the same in a diagonal metric.
    z = 3 * torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(z - GroupLasso(0.5).prox(z, 1.0), project_ball(z, 1.0, (0,)))  # λ√p_g = 1
    s = spread_steps((6, 4), 1)
    torch.testing.assert_close((z - GroupLasso(0.5).prox(z, s)) / s, metric_project_ball(z / s, 1.0, 1 / s, (0,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_what_prox_returns_is_on_the_boundary_for_value_and_distance(penalty, dtype):
    for scale in (3.0, 1e3):
        w = (scale * torch.randn(30, 20)).to(dtype)
        for step in (0.1, spread_steps((30, 20), 2)):
            u = penalty.prox(w, step)
            assert u.dtype == dtype
            assert penalty.value(u) == 0
            assert penalty.value(u).dtype in (torch.float32, dtype)
            # Radially outwards and inwards: −g = w is in the cone of its own boundary point, −g = −w is not.
            assert penalty.distance(u, u).isfinite().all()
            torch.testing.assert_close(penalty.distance(u, u), size_2(penalty, u), rtol=1e-2, atol=0)
            if isinstance(penalty, MaxNorm):
                assert (penalty.distance(u, -u) <= 0.02 * size_2(penalty, u)).all()


def size_2(penalty, w):
    dims = penalty.group_dims
    return group_norm(w.float(), dims).to(w.dtype).reshape(penalty.distance(w, w).shape)


def test_distance_by_hand():
    ball = MaxNorm(5.0)
    w = torch.tensor([[3.0, 4.0], [0.1, 0.0], [30.0, 0.0]], dtype=torch.float64)
    outward, inward = -2 * w, w.clone()
    assert ball.distance(w, outward).tolist() == pytest.approx([0.0, 0.2, math.inf])
    assert ball.distance(w, inward).tolist() == pytest.approx([5.0, 0.1, math.inf])
    sideways = torch.tensor([[4.0, -3.0], [1.0, 0.0], [0.0, 0.0]]).double()
    assert ball.distance(w, outward + sideways)[0].item() == pytest.approx(5.0)
    budget = L1Ball(3.0)
    v = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    assert budget.distance(v, torch.tensor([-2.0, 2.0, 1.9]).double()) < 1e-12  # −g = 2·(1, −1, −0.95)
    assert budget.distance(v, torch.tensor([2.0, -2.0, 0.0]).double()).item() == pytest.approx(math.sqrt(8))
    # t + t + (t−...): least of 2(t−2)² + (5−t)₊² is at t = 3: √(2 + 4).
    assert budget.distance(v, torch.tensor([-2.0, 2.0, 5.0]).double()).item() == pytest.approx(math.sqrt(6))
    assert budget.distance(0.5 * v, torch.tensor([-2.0, 2.0, 1.0]).double()).item() == pytest.approx(3.0)
    assert budget.distance(2 * v, v) == math.inf


@pytest.mark.parametrize("shape", [(5, 3), (7,), (2, 3, 2, 2)])
@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_distance_is_the_limit_of_short_prox_steps(penalty, shape):
    for w in samples(shape):
        x, g, step = penalty.prox(w, 1.0), torch.randn(shape, dtype=torch.float64), 1e-7
        moved = torch.linalg.vector_norm(x - penalty.prox(x - step * g, step)) / step
        torch.testing.assert_close(torch.linalg.vector_norm(penalty.distance(x, g)), moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_as_a_function_it_is_zero_inside_and_infinite_outside(penalty):
    inside, outside = torch.full((5, 3), 1e-3), torch.full((5, 3), 100.0)
    assert penalty.value(inside) == 0
    assert penalty.value(outside) == math.inf
    for w in (inside, outside):
        x = w.clone().requires_grad_()
        (auto,) = torch.autograd.grad(penalty.value(x), x)
        assert torch.equal(auto, torch.zeros_like(w))
        assert torch.equal(penalty.grad(w), torch.zeros_like(w))
    assert penalty.critical_strength(inside) == math.inf
    assert penalty.critical_strength(0 * inside) == 0


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_lanes_and_layouts(penalty):
    w, g = 2 * torch.randn(2, 3, 5, 4, dtype=torch.float64)
    steps = spread_steps((3, 5, 4), 2)
    lanes = {
        "value": lambda w, g, s: penalty.value(w),
        "prox": lambda w, g, s: penalty.prox(w, 0.5),
        "prox per coordinate": lambda w, g, s: penalty.prox(w, s),
        "prox with a lane's step": lambda w, g, s: penalty.prox(w, s[0, 0]),
        "distance": lambda w, g, s: penalty.distance(penalty.prox(w, 1.0), g),
        "critical": lambda w, g, s: penalty.critical_strength(g),
    }
    for name, lane in lanes.items():
        batched = torch.func.vmap(lane)(w, g, steps)
        for i in range(3):
            torch.testing.assert_close(batched[i], lane(w[i], g[i], steps[i]), msg=name)
    spread, step = w[0].T.contiguous().T, steps[0].T.contiguous().T
    torch.testing.assert_close(penalty.prox(spread, step), penalty.prox(w[0], steps[0]))


def test_a_lane_may_have_its_own_radius():
    radii = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    w = 3 * torch.randn(3, 4, 5, dtype=torch.float64)
    s = spread_steps((4, 5), 1)
    for kind in (MaxNorm, L1Ball):
        for step in (1.0, s):
            lane = lambda r, x, kind=kind, step=step: kind(r).prox(x, step)  # noqa: E731
            batched = torch.func.vmap(lane)(radii, w)
            for i, radius in enumerate(radii.tolist()):
                torch.testing.assert_close(batched[i], kind(radius).prox(w[i], step))


@pytest.mark.parametrize("penalty", EXAMPLES, ids=str)
def test_not_a_number_stays_one(penalty):
    w = torch.ones(3, 2)
    w[1, 1] = torch.nan
    for step in (0.5, torch.rand(3, 2)):
        assert penalty.prox(w, step).isnan().any()
    assert penalty.value(w) != 0


@pytest.mark.parametrize("bad", [0, 0.0, -1.0, math.nan, math.inf, "3", None, True, torch.ones(2)])
@pytest.mark.parametrize("kind", [MaxNorm, L1Ball])
def test_a_bad_radius_is_refused_in_one_line(kind, bad):
    with pytest.raises(InputError, match=r"radius.*expected"):
        kind(bad)


def test_as_values():
    assert MaxNorm(1) == MaxNorm(1.0) != MaxNorm(1.0, dim=1)
    assert len({L1Ball(1.0), L1Ball(1.0), L1Ball(2.0)}) == 2
    assert str(MaxNorm(3)) == "MaxNorm(radius=3, dim=0)"
    assert eval(repr(L1Ball(2.0))) == L1Ball(2.0)
    with pytest.raises(InputError, match=r"dim="):
        MaxNorm(1.0, dim="0")
    with pytest.raises(TypeError, match=r"no penalty here has this sum's prox"):
        MaxNorm(1.0) + ts.L1(0.1)


ALL = [*EXAMPLES, UnitNorm(), UnitNorm(dim=()), NonNegative(), Box(-0.1, 0.7), L0Ball(7), NM(2, 4)]


@pytest.mark.parametrize("penalty", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_projected_in_a_narrower_dtype_is_inside_for_a_certificate_in_float64(penalty, dtype):
    for scale in (0.5, 3.0, 300.0):
        w = (scale * torch.randn(30, 20)).to(dtype)
        for step in (0.1, spread_steps((30, 20), 1)):
            u = penalty.prox(w, step)
            g = torch.randn(30, 20, dtype=torch.float64)
            assert penalty.value(u.double()) == 0
            assert penalty.distance(u.double(), g).isfinite().all()
            near = torch.linalg.vector_norm(penalty.distance(u, g.to(dtype)).double())
            torch.testing.assert_close(
                torch.linalg.vector_norm(penalty.distance(u.double(), g)), near, rtol=0.02, atol=0
            )
            if not isinstance(penalty, NonNegative | L0Ball | NM):
                further = u.double() * (1 + 3e-6) if dtype == torch.float32 else u.double() * 1.02
                assert penalty.value(further) == math.inf or penalty.value(w.double()) == 0


@pytest.mark.parametrize("penalty", [MaxNorm(0.5), L1Ball(0.8), UnitNorm(), Box(-0.1, 0.3), NonNegative()], ids=str)
def test_a_float32_training_is_certified(penalty):
    X = torch.randn(50, 4)
    Y = X @ torch.randn(4, 3) + 0.1 * torch.randn(50, 3)
    model = torch.nn.Linear(4, 3, bias=False)
    steps = torch.optim.SGD(model.parameters(), lr=0.3)
    reg = ts.Regularizer(model, penalty).attach(steps)
    for _ in range(500):
        steps.zero_grad()
        torch.nn.functional.mse_loss(model(X), Y).backward()
        steps.step()
    assert ts.certify(model, (X, Y), reg).ok(1e-4)


@pytest.mark.parametrize("decades", [0, 1, 2, 4])
@pytest.mark.parametrize("p", [2, 30, 300])
def test_unit_norm_is_the_nearest_point_on_the_sphere(p, decades):
    # The minimum over a sphere, near or far, inside or outside: u(1 + μs) = x with 1 + μs ≥ 0 for all s, and ‖u‖ = 1.
    for scale in (1e-6, 1e-2, 1.0, 1e4):
        x = scale * torch.randn(40, p, dtype=torch.float64) * spread_steps((40, p), 1)
        s = spread_steps((40, p), decades / 2)
        u = metric_project_sphere(x, s, (0,))
        torch.testing.assert_close(u.norm(dim=1), torch.ones(40).double(), rtol=1e-14, atol=0)
        mu = (u * (x - u) / s).sum(1, keepdim=True)
        assert ((1 + mu * s) > -1e-10 * (1 + (mu * s).abs().amax(1, keepdim=True))).all()
        error = (u * (1 + mu * s) - x).abs() / (1 + (mu * s).abs()).amax(1, keepdim=True)
        assert error.max() < 1e-10


def test_unit_norm_where_the_nearest_point_is_not_the_direction():
    # x = 0 along the longest step: what is missing of the norm goes there, in equal parts and positive.
    u = UnitNorm().prox(torch.tensor([[0.2, 0.0, 0.0]]).double(), torch.tensor([[1.0, 2.0, 2.0]]).double())
    torch.testing.assert_close(u, torch.tensor([[0.4, (0.84 / 2) ** 0.5, (0.84 / 2) ** 0.5]]).double())
    # From far enough it is no hard case.
    u = UnitNorm().prox(torch.tensor([[0.7, 0.0]]).double(), torch.tensor([[1.0, 2.0]]).double())
    torch.testing.assert_close(u, torch.tensor([[1.0, 0.0]]).double())
    for step in (1.0, torch.ones(2, 4)):
        torch.testing.assert_close(UnitNorm().prox(torch.zeros(2, 4), step), torch.full((2, 4), 0.5))
    assert UnitNorm().prox(torch.zeros(2, 2), torch.tensor([[1.0, 3.0]]).expand(2, 2)).tolist() == [[0.0, 1.0]] * 2
    for step in (0.0, torch.zeros(2, 4)):
        assert torch.equal(UnitNorm().prox(torch.ones(2, 4), step), torch.ones(2, 4))
    assert UnitNorm().distance(torch.tensor([[0.6, 0.8], [1.0, 1.0]]), torch.ones(2, 2)).tolist() == [
        pytest.approx(0.2),
        math.inf,
    ]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_unit_norm_finds_the_leading_direction(optimizer):
    A = torch.randn(40, 5, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    wanted = torch.linalg.eigh(A.T @ A)[1][:, -1]
    model = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    steps = optimizer(model.parameters(), lr=0.02)
    decay = torch.optim.lr_scheduler.ExponentialLR(steps, 0.995)
    reg = ts.Regularizer(model, UnitNorm()).attach(steps)

    def closure():
        steps.zero_grad()
        loss = -model(A).square().mean()
        loss.backward()
        return loss

    at_rest = AtRest(model.parameters())
    for _ in range(1500):
        closure()
        steps.step()
        decay.step()
        if at_rest():
            break
    found = model.weight.detach()[0]
    assert abs(float(found @ wanted)) == pytest.approx(1, abs=1e-8)
    assert reg.certify(closure).ok(1e-4)


@pytest.mark.parametrize("penalty", [*EXAMPLES, NonNegative(), UnitNorm(), L0Ball(2), NM(1, 2)], ids=str)
def test_a_constraint_has_no_strength(penalty):
    assert penalty.strength == 0
    assert penalty.with_strength(0.0) is penalty
    for strength in (0.5, 1, torch.tensor(0.5)):
        with pytest.raises(InputError, match=r"a constraint has no strength") as refused:
            penalty.with_strength(strength)
        assert ("; to tune the radius give a callable, such as lambda s: " in str(refused.value)) is (
            penalty in EXAMPLES
        )


# --- bound by a Regularizer ---


def test_the_scale_leaves_a_constraint_as_it_is():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    reg = ts.Regularizer(model, {"0.weight": MaxNorm(0.5), "1.weight": ts.L1(0.1)})
    for scale in (0.0, 0.5, 7.0):
        reg.scale = scale
        assert "MaxNorm(radius=0.5, dim=0)" in reg.summary()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.no_grad():
            model[0].weight.fill_(3.0)
        with reg.attach(optimizer):
            sum(p.sum() for p in model.parameters()).backward()
            optimizer.step()
        torch.testing.assert_close(model[0].weight.norm(dim=1), torch.full((4,), 0.5))


@pytest.mark.parametrize("penalty", [MaxNorm(0.5), L1Ball(0.5)], ids=str)
def test_loss_and_gradient_cannot_impose_it_and_say_so(penalty):
    model = torch.nn.Linear(3, 2)
    reg = ts.Regularizer(model, penalty)
    with pytest.raises(AttachmentError, match=r"weight: .*is a constraint, which adding it to the loss cannot"):
        reg.value()
    with pytest.raises(AttachmentError, match=r"is a constraint, which no gradient can impose; use method='prox'"):
        reg.attach(torch.optim.SGD(model.parameters(), lr=0.1), method="gradient")
    reg.attach(torch.optim.SGD(model.parameters(), lr=0.1)).detach()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("penalty", [MaxNorm(0.5), L1Ball(0.8)], ids=str)
def test_training_ends_at_the_constrained_minimum_under_any_metric(penalty, optimizer):
    X = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 1.0])
    Y = X @ torch.randn(4, 3, dtype=torch.float64) + 0.1 * torch.randn(50, 3, dtype=torch.float64)
    model = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    steps = optimizer(model.parameters(), lr=0.03)
    reg = ts.Regularizer(model, penalty).attach(steps)

    def closure():
        steps.zero_grad()
        loss = (model(X) - Y).square().sum(dim=1).mean()
        loss.backward()
        return loss

    assert reg.certify(closure).objective in (closure().item(), math.inf)
    at_rest = AtRest(model.parameters())
    for _ in range(1200):
        closure()
        steps.step()
        if at_rest():
            break
    # Projected gradient descent, plainly.
    w = torch.zeros(3, 4, dtype=torch.float64)
    gram, cross = X.T @ X / 50, (X.T @ Y / 50).T
    rate = 0.5 / torch.linalg.eigvalsh(gram)[-1]
    for _ in range(1000):
        w = penalty.prox(w - rate * 2 * (w @ gram - cross), 1.0)
    torch.testing.assert_close(model.weight.detach(), w, rtol=0, atol=1e-6)
    certificate = reg.certify(closure)
    assert certificate.distance < 1e-5
    assert certificate.penalty == 0
    assert certificate.parameters[0].strength == 0
    if isinstance(penalty, L1Ball):
        assert torch.equal(model.weight == 0, w == 0)
        assert (w == 0).any()


@pytest.mark.parametrize("method", ["prox", "latent"])
@pytest.mark.parametrize(
    "constraint",
    [ts.MaxNorm(0.01), ts.UnitNorm(), ts.L1Ball(0.1), ts.NonNegative(), ts.Box(0.1, 0.2), ts.L0Ball(2), ts.NM(1, 4)],
    ids=lambda constraint: type(constraint).__name__,
)
def test_weights_outside_are_said_to_be_until_the_first_step_and_attaching_changes_none(constraint, method):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 4)
    before = model.weight.detach().clone()
    reg = ts.Regularizer(model, constraint)
    line = "outside of its constraint until {} projects it: weight"
    assert line.format("the first step of an optimizer that this is attached to") in reg.summary()
    assert " none yet: attach " in reg.summary()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    reg.attach(optimizer, method=method)
    assert line.format("the optimizer's next step") in reg.summary()
    assert torch.equal(model.weight, before)
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
    assert "outside of" not in reg.summary()
