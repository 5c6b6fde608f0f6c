"""L0Ball and NM: projections against every support, planted supports, gradual pruning; Support, which holds zeros."""

import itertools
import math
import pickle

import pytest
import torch
from torch import nn

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import InputError
from torchshrink.penalties import NM, Gradual, L0Ball, Support
from torchshrink.penalties.hard_sparsity import largest
from torchshrink.testing import check_penalty

F64 = torch.float64


def spread(shape):
    return 10 ** (4 * torch.rand(shape, dtype=F64) - 2)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_the_projection_is_the_best_of_all_supports_in_the_metric_of_the_steps(k):
    for _ in range(30):
        z, s = torch.randn(6, dtype=F64), spread(6)
        supports = [set(kept) for kept in itertools.combinations(range(6), k)]
        lost = [sum(float(z[i] ** 2 / s[i]) for i in range(6) if i not in kept) for kept in supports]
        best = supports[lost.index(min(lost))]
        u = L0Ball(k).prox(z, s)
        assert {i for i in range(6) if u[i] != 0} == best
        assert all(u[i] == z[i] for i in best)


def test_blocks_of_nm_run_along_the_inputs():
    linear = torch.tensor([[1.0, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    wanted = torch.tensor([[0.0, 0, 3, 4, 5, 6], [6, 5, 0, 0, 2, 1]])
    assert torch.equal(NM(2, 4).prox(linear, 1.0), wanted)
    assert torch.equal(NM(2, 4).prox(linear[0], 1.0), wanted[0])
    conv = torch.randn(3, 8, 2, 5, dtype=F64)
    found, s = NM(1, 4).prox(conv, 1.0), spread(conv.shape)
    assert ((found.view(3, 2, 4, 2, 5) != 0).sum(2) == 1).all()
    assert torch.equal(found.view(3, 2, 4, 2, 5).abs().sum(2), conv.view(3, 2, 4, 2, 5).abs().amax(2))
    metric = NM(3, 4).prox(conv, s)
    dropped = (conv**2 / s).view(3, 2, 4, 2, 5).argmin(2, keepdim=True)
    assert torch.equal((metric == 0).view(3, 2, 4, 2, 5), torch.zeros(3, 2, 4, 2, 5).scatter(2, dropped, 1).bool())
    assert torch.equal(NM(4, 4).prox(conv, 1.0), conv)
    assert NM(2, 4).value(conv) == math.inf
    assert NM(1, 4).value(found) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F64])
def test_of_equals_the_first_stay(dtype):
    w = torch.tensor([0.0, 2.0, -2.0, 1.0, 2.0, 2.0], dtype=dtype)
    assert L0Ball(2).prox(w, 1.0).tolist() == [0, 2, -2, 0, 0, 0]
    assert L0Ball(2).prox(w, torch.full_like(w, 0.3)).tolist() == [0, 2, -2, 0, 0, 0]
    assert NM(1, 3).prox(w, 1.0).tolist() == [0, 2, 0, 0, 2, 0]
    rows = torch.stack([w, w.flip(0)])
    assert torch.func.vmap(lambda x: L0Ball(3).prox(x, 1.0))(rows).tolist() == [
        [0, 2, -2, 0, 2, 0],
        [2, 2, 0, -2, 0, 0],
    ]
    assert largest(torch.zeros(1, 5), 2).tolist() == [[True, True, False, False, False]]


def test_how_many_a_share_is():
    for share, size, k in ((0.29, 100, 29), (0.1, 30, 3), (0.7, 10, 7), (0.1, 9, 1), (0.199, 10, 1), (1.0, 7, 7)):
        assert L0Ball(share).count(torch.zeros(size)) == k
        assert (L0Ball(share).prox(torch.randn(size), 1.0) != 0).sum() == k
    assert L0Ball(5).count(torch.zeros(3)) == 3
    assert L0Ball(1).count(torch.zeros(3)) == 1  # a number, where 1.0 is all
    assert L0Ball(1.0).count(torch.zeros(3)) == 3


def test_one_weight_and_all_weights_are_not_the_same():
    assert L0Ball(1) != L0Ball(1.0) != "L0Ball(1.0)"
    assert L0Ball(2) == L0Ball(2)
    assert len({L0Ball(0.5), L0Ball(0.5), L0Ball(1), L0Ball(1.0)}) == 3
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    acting = torch.optim.SGD(model.parameters(), lr=0.1)
    with ts.Regularizer(model, {"0.weight": L0Ball(1), "1.weight": L0Ball(1.0)}).attach(acting):
        model(torch.ones(2, 4)).square().sum().backward()
        acting.step()
    assert [int((layer.weight != 0).sum()) for layer in model] == [1, 16]


def test_distance_by_hand():
    g = torch.tensor([1.0, -4.0, 2.0, -3.0])
    full, part, over = (torch.tensor(w) for w in ([5.0, 0, 5, 0], [5.0, 0, 0, 0], [5.0, 5, 5, 0]))
    assert L0Ball(2).distance(full, g).tolist() == [1, 0, 2, 0]
    assert L0Ball(2).distance(part, g).tolist() == [1, 4, 0, 0]  # one more may yet move
    assert L0Ball(2).distance(over, g).tolist() == [math.inf] * 4
    assert NM(1, 2).distance(full, g).tolist() == [1, 0, 2, 0]
    assert NM(1, 2).distance(part, g).tolist() == [1, 0, 0, 3]
    assert NM(1, 2).distance(over, g).tolist() == [math.inf, math.inf, 2, 0]
    with_nan = torch.tensor([math.nan, 0.0, 0.0, 0.0])
    assert L0Ball(1).distance(with_nan, g).isnan().any()
    assert L0Ball(1).prox(with_nan, 1.0)[0].isnan()
    assert L0Ball(1).distance(full * 0 + part, with_nan + 0 * g).isnan().any()


@pytest.mark.parametrize("penalty", [L0Ball(2), NM(1, 2)], ids=str)
def test_a_step_of_zero_moves_nothing(penalty):
    w = torch.randn(4, 4)
    for nothing in (0.0, torch.zeros(()), torch.zeros(4, 4)):
        assert torch.equal(penalty.prox(w, nothing), w)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.2),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_planted_support_is_found_and_fitted_as_least_squares_would(optimizer):
    X, planted = torch.randn(100, 20, dtype=F64), torch.zeros(20, dtype=F64)
    planted[[2, 7, 11, 16]] = torch.tensor([1.5, -1.0, 2.0, 0.8], dtype=F64)
    y = (X @ planted + 0.1 * torch.randn(100, dtype=F64))[:, None]
    model = nn.Linear(20, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    acting = OPTIMIZERS[optimizer](model.parameters())
    decay = torch.optim.lr_scheduler.ExponentialLR(acting, 0.998)
    reg = ts.Regularizer(model, L0Ball(4)).attach(acting)
    at_rest = AtRest(model.parameters())
    for _ in range(2500):
        acting.zero_grad()
        (model(X) - y).square().mean().backward()
        acting.step()
        decay.step()
        if at_rest():
            break
    found = model.weight.detach()[0]
    assert torch.equal(found != 0, planted != 0)
    kept = X[:, planted != 0]
    torch.testing.assert_close(found[planted != 0], torch.linalg.lstsq(kept, y).solution[:, 0], rtol=0, atol=1e-8)
    certificate = ts.certify(model, (X, y), reg, loss=nn.MSELoss())
    assert certificate.ok(1e-6)
    assert certificate.penalty == 0


def test_a_net_with_two_of_four_ends_stationary_on_its_support():
    X = torch.randn(200, 12)
    y = torch.sin(X[:, :3]).sum(1, keepdim=True) + 0.5 * torch.randn(200, 1)
    net = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
    reg = ts.Regularizer(net, NM(2, 4))
    acting = torch.optim.Adam(net.parameters(), lr=0.01)
    with reg.attach(acting):
        for _ in range(400):
            acting.zero_grad()
            nn.functional.mse_loss(net(X), y).backward()
            acting.step()
            for w in (net[0].weight, net[2].weight):
                assert ((w.view(len(w), -1, 4) != 0).sum(2) <= 2).all()
    polished = ts.polish(net.double(), (X, y), reg, tol=1e-5)
    assert polished.converged
    assert polished.certificate.objective < polished.before.objective
    assert polished.certificate.penalty == 0
    for w in (net[0].weight, net[2].weight):
        assert ((w.view(len(w), -1, 4) != 0).sum(2) == 2).all()
    # Stationary on the support, where the constraint leaves the weights free, and not off it.
    net.zero_grad()
    nn.functional.mse_loss(net(X.double()), y.double()).backward()
    w = net[0].weight
    assert w.grad[w != 0].abs().max() < 1e-4 * w.grad[w == 0].abs().max()


# --- a schedule for keep ---


def run(steps, optimizer, keep, *, reg=None, model=None, acting=None, seed=0):
    torch.manual_seed(seed)
    X, y = torch.randn(64, 10), torch.randn(64, 3)
    if model is None:
        model = nn.Linear(10, 3)
        acting = OPTIMIZERS[optimizer](model.parameters())
        reg = ts.Regularizer(model, L0Ball(keep)).attach(acting)
    counts = []
    for _ in range(steps):
        acting.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()
        acting.step()
        counts.append(int((model.weight != 0).sum()))
    return model, acting, reg, counts


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "keep", [Gradual(0.1, steps=30, begin=5), lambda step: max(30 - step, 4)], ids=["cubic", "own"]
)
def test_keep_follows_its_schedule_step_by_step(optimizer, keep):
    model, _, reg, counts = run(50, optimizer, keep)
    wanted = [L0Ball(keep(t)).count(model.weight) for t in range(50)]
    assert counts == wanted
    assert counts[0] == 30
    assert counts[-1] == (3 if isinstance(keep, Gradual) else 4)
    if isinstance(keep, Gradual):  # reached with its last step, and not one later
        assert keep(33) > 0.1 == keep(34)
    assert len(set(counts)) > 8
    now = reg.in_force()[model.weight]
    assert now == L0Ball(keep(50))
    assert str(now) in reg.summary()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_schedule_ends_bit_for_bit_where_it_would_have(optimizer):
    keep = Gradual(0.1, steps=30)
    whole, *_ = run(40, optimizer, keep)
    model, acting, reg, _ = run(17, optimizer, keep)
    saved = pickle.loads(pickle.dumps((model.state_dict(), acting.state_dict(), reg.state_dict())))
    again = nn.Linear(10, 3)
    other = OPTIMIZERS[optimizer](again.parameters())
    fresh = ts.Regularizer(again, L0Ball(keep)).attach(other)
    for part, state in zip((again, other, fresh), saved, strict=True):
        part.load_state_dict(state)
    run(23, optimizer, keep, reg=fresh, model=again, acting=other)
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(again.bias, whole.bias)


def test_a_scale_leaves_a_scheduled_constraint_as_it_is_and_nothing_piles_up():
    model, _, reg, _ = run(3, "sgd", Gradual(0.5, steps=4))
    reg.scale = 3.0
    assert reg.in_force()[model.weight] == L0Ball(Gradual(0.5, steps=4)(3))
    assert len(reg._schedule._scaled) == 0


def test_schedules_are_values():
    schedule = Gradual(0.1, steps=10)
    assert pickle.loads(pickle.dumps(L0Ball(schedule))) == L0Ball(schedule) != L0Ball(Gradual(0.2, steps=10))
    assert L0Ball(schedule).at_step(10) == L0Ball(0.1)
    assert L0Ball(0.3).at_step(10) == L0Ball(0.3)
    assert (L0Ball(schedule).scheduled, L0Ball(0.3).scheduled) == (True, False)
    assert str(L0Ball(schedule)) == "L0Ball(Gradual(keep=0.1, steps=10, begin=0))"
    shares = [schedule(t) for t in range(12)]
    assert shares[0] == pytest.approx(0.1 + 0.9 * 0.9**3)
    assert shares[8] > 0.1
    assert shares[9:] == [0.1, 0.1, 0.1]
    assert sorted(shares, reverse=True) == shares


@pytest.mark.parametrize("method", ["value", "prox", "distance"])
def test_a_schedule_needs_somebody_who_counts(method):
    arguments = {"value": (), "prox": (1.0,), "distance": (torch.ones(3),)}[method]
    with pytest.raises(InputError, match=r"keep=Gradual.*a schedule, of which a Regularizer knows the step"):
        getattr(L0Ball(Gradual(0.5, steps=3)), method)(torch.ones(3), *arguments)


def test_what_a_schedule_returns_is_checked():
    with pytest.raises(InputError, match=r"keep=0\.0: expected how many weights stay"):
        run(3, "sgd", lambda step: 1.0 - step)


BAD_KEEPS = [0, -1, 0.0, 1.5, -0.1, math.nan, math.inf, "3", None, True, torch.ones(2)]


@pytest.mark.parametrize("bad", BAD_KEEPS, ids=str)
def test_a_bad_keep_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"^keep=.*expected how many weights stay"):
        L0Ball(bad)


@pytest.mark.parametrize("bad", [(0, 4), (5, 4), (2.0, 4), (2, True), ("2", 4), (-1, -1), (None, 2)], ids=str)
def test_a_bad_pattern_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"n=.*, m=.*: expected whole numbers with 1 ≤ n ≤ m"):
        NM(*bad)


@pytest.mark.parametrize("bad", [(1, 10), (0.0, 10), (0.5, 0), (0.5, 2.5), (0.5, 10, -1), (0.5, True)], ids=str)
def test_a_bad_schedule_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"(keep|steps|begin)=.*expected"):
        Gradual(*bad)


# --- given zeros ---


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_support_keeps_the_contract(share):
    check_penalty(Support(torch.rand(4, 3) < share), shapes=((4, 3),))


def test_support_is_bound_to_the_zeros_that_there_are_and_saved():
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0, 1] = 0.0
    reg = ts.Regularizer(model, Support())
    mask = reg.state_dict()["bound"]["weight"]["mask"]
    assert torch.equal(mask, model.weight != 0)
    acting = torch.optim.Adam(model.parameters(), lr=0.1)
    with reg.attach(acting):
        for _ in range(5):
            acting.zero_grad()
            model(torch.ones(3, 4)).square().mean().backward()
            acting.step()
    assert torch.equal(model.weight == 0, ~mask)
    again = ts.Regularizer(nn.Linear(4, 2), Support())
    again.load_state_dict(reg.state_dict())
    assert torch.equal(again.terms[0].penalty.mask, mask)


def test_support_by_hand():
    held = Support(torch.tensor([True, False, False]))
    assert held.distance(torch.tensor([0.0, 0.0, 2.0]), torch.tensor([-3.0, 5.0, 0.0])).tolist() == [3, 0, math.inf]
    assert held.critical_strength(torch.tensor([0.0, 5.0, 1.0])) == 0
    assert held.critical_strength(torch.tensor([1.0, 5.0, 1.0])) == math.inf
    for bad, said in ((torch.ones(2), "truth values"), ("x", "truth values")):
        with pytest.raises(InputError, match=said):
            Support(bad)
    with pytest.raises(InputError, match=r"mask of shape \(3,\) given"):
        held.prox(torch.ones(4), 1.0)
    with pytest.raises(InputError, match="not bound to weights"):
        Support().prox(torch.ones(4), 1.0)
