"""Weights of coordinates and groups: the contract, known solutions, and what a penalty with a tensor is as a value."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, LinearRegression
from torch import nn

import torchshrink as ts
from torchshrink.errors import ContractError, InputError
from torchshrink.penalties import L1, L2, L2SP, MCP, SCAD, ElasticNet, GroupLasso, SparseGroupLasso
from torchshrink.penalties.multitensor import add_gradients_, gradients, limited, prox_, total
from torchshrink.testing import check_penalty

F64 = torch.float64
FACTORS = (2.0, 0.0, 0.5)  # of columns
ROWS = (2.0, 0.0, 0.5, 1.0)
SHAPES = ((4, 3), (0, 3))

KINDS = {
    "l1": lambda **also: L1(0.3, **also),
    "l2": lambda **also: L2(0.2, **also),
    "elastic net": lambda **also: ElasticNet(0.3, 0.1, **also),
    "mcp": lambda **also: MCP(0.5, gamma=1.2, **also),
    "scad": lambda **also: SCAD(0.5, gamma=2.2, **also),
    "l2sp": lambda **also: L2SP(0.3, anchor=0.5, **also),
    "group lasso": lambda **also: GroupLasso(0.3, dim=-1, **also),
    "sparse group lasso": lambda **also: SparseGroupLasso(0.2, 0.3, dim=-1, **also),
}
ELEMENTWISE = list(KINDS)[:6]


# --- the contract ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_holds(kind):
    check_penalty(KINDS[kind](weights=FACTORS), shapes=SHAPES)


@pytest.mark.parametrize("penalty", [L1(0.3, weights=0), SparseGroupLasso(0.2, 0.3, weights=1.5)], ids=str)
def test_one_factor_for_all_is_for_every_shape(penalty):
    check_penalty(penalty, shapes=((3, 2), ()))


def test_groups_of_several_dimensions_have_factors_too():
    check_penalty(GroupLasso(0.3, dim=(0, 1), weights=FACTORS), shapes=((2, 3, 1),))


class TestTheContractFails:
    """On what could go wrong with weights alone."""

    def test_where_a_penalty_calls_exempt_what_it_moves(self, monkeypatch):
        monkeypatch.setattr(L1, "exempt", lambda self, w: torch.ones_like(w, dtype=torch.bool))
        with pytest.raises(ContractError, match="exempt"):
            check_penalty(L1(0.3), shapes=((4, 3),))

    def test_where_binding_drops_the_weights(self, monkeypatch):
        monkeypatch.setattr(L2, "bind", lambda self, w: L2(self.strength))
        with pytest.raises(ContractError, match="after bind"):
            check_penalty(L2(0.3, weights=FACTORS), shapes=((4, 3),))

    def test_where_shards_share_the_weights_of_the_whole(self, monkeypatch):
        monkeypatch.setattr(MCP, "with_state", lambda self, change: self)
        with pytest.raises((ContractError, InputError)):
            check_penalty(MCP(0.3, weights=FACTORS), shapes=((4, 3),))

    def test_where_the_prox_of_a_group_forgets_its_factor(self, monkeypatch):
        plain = GroupLasso.prox
        monkeypatch.setattr(GroupLasso, "prox", lambda self, w, s: plain(GroupLasso(self.strength), w, s))
        with pytest.raises(ContractError, match="prox"):
            check_penalty(GroupLasso(0.3, weights=ROWS), shapes=((4, 3),))


# --- by hand, and by the unweighted penalty ---


def test_values_by_hand():
    w = torch.tensor([[3.0, -4.0, 7.0], [0.0, 1.0, 1.0]], dtype=F64)
    assert L1(0.5, weights=FACTORS).value(w) == 0.5 * (2 * 3 + 0.5 * 8)
    assert L2(0.5, weights=FACTORS).value(w) == 0.5 * (2 * 9 + 0.5 * 50)
    assert L2SP(0.5, 1.0, weights=FACTORS).value(w) == 0.5 * (2 * (4 + 1) + 0.5 * 36)
    rows = GroupLasso(0.5, weights=(2, 0.25)).value(w)
    assert rows.item() == pytest.approx(0.5 * math.sqrt(3) * (2 * math.sqrt(74) + 0.25 * math.sqrt(2)))
    both = SparseGroupLasso(1.0, 0.5, weights=(2, 0.25)).value(w)
    assert both.item() == pytest.approx(2 * 14 + 0.25 * 2 + rows.item())


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("step", [0.3, 4.0])
def test_each_coordinate_has_the_penalty_of_its_own_strength(kind, step):
    """Of MCP and SCAD too: the factor is of λ, and γ stays, as in ncvreg."""
    penalty = KINDS[kind](weights=FACTORS)
    w, g = torch.randn(2, 50, 3, dtype=F64)
    for column, factor in enumerate(FACTORS):
        alone = KINDS[kind]().with_strength(penalty.strength * factor)
        x, gx = w[:, column], g[:, column]
        steps = torch.rand(50, dtype=F64) * step
        torch.testing.assert_close(penalty.grad(w)[:, column], alone.grad(x))
        torch.testing.assert_close(penalty.prox(w, step)[:, column], alone.prox(x, step))
        wide = steps[:, None].expand(50, 3)
        torch.testing.assert_close(penalty.prox(w, wide)[:, column], alone.prox(x, steps))
        torch.testing.assert_close(penalty.distance(w, g)[:, column], alone.distance(x, gx))


def test_the_critical_strength_leaves_out_what_is_exempt():
    g = torch.tensor([[1.0, 100.0, 3.0]])
    assert L1(0.1, weights=FACTORS).critical_strength(g) == 6.0
    assert MCP(0.1, weights=FACTORS).critical_strength(g) == 6.0
    assert ElasticNet(0.1, 0.3, weights=FACTORS).critical_strength(g) == 24.0
    assert GroupLasso(0.1, dim=1, weights=FACTORS).critical_strength(g) == 6.0
    assert SparseGroupLasso(0.05, 0.05, dim=1, weights=FACTORS).critical_strength(g) == 6.0
    assert L2(0.1, weights=FACTORS).critical_strength(g) == torch.inf
    for penalty in (L2(0.1, weights=FACTORS), L2SP(0.1, 0.0, weights=FACTORS), L1(0.1, weights=0)):
        assert penalty.critical_strength(torch.tensor([[0.0, 100.0, 0.0]])) == 0


# --- scikit-learn's solutions ---


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return torch.tensor((X - X.mean(0)) / X.std(0)), torch.tensor((y - y.mean()) / y.std())[:, None]


def half_mse(output, target):
    return (output - target).square().mean() / 2


def polished(data, penalty, loss=half_mse):
    model = nn.Linear(data[0].shape[1], data[1].shape[1], dtype=F64)
    reg = ts.Regularizer(model, penalty)
    found = ts.polish(model, data, reg, loss=loss, tol=1e-10)
    assert found.converged, str(found)
    assert ts.certify(model, data, reg, loss=loss).ok(1e-9)
    return model.weight.detach().reshape(-1)


def trained(data, penalty, optimizer, steps=800):
    model = nn.Linear(data[0].shape[1], data[1].shape[1], dtype=F64)
    stepping = optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepping, steps, eta_min=1e-5)
    reg = ts.Regularizer(model, penalty).attach(stepping)
    for _ in range(steps):
        stepping.zero_grad()
        half_mse(model(data[0]), data[1]).backward()
        stepping.step()
        schedule.step()
    assert ts.certify(model, data, reg, loss=half_mse).ok(1e-4)
    return model.weight.detach().reshape(-1)


SOME = [0.3, 1.0, 2.5, 1.0, 0.7, 4.0, 1.0, 0.2, 1.0, 3.0]


def rescaled_lasso(X, y, alpha, factors):
    """α·Σ a|w| is α·Σ|v| with v = a·w and features x/a."""
    factors = np.asarray(factors)
    return torch.tensor(Lasso(alpha, tol=1e-15, max_iter=100_000).fit(X.numpy() / factors, y.ravel()).coef_ / factors)


def test_weighted_lasso_is_the_lasso_of_rescaled_features(diabetes):
    X, y = diabetes
    wanted = rescaled_lasso(X, y, 0.05, SOME)
    assert 2 <= int((wanted == 0).sum()) <= 8
    for found, tolerance in (
        (polished(diabetes, L1(0.05, weights=SOME)), 1e-8),
        (trained(diabetes, L1(0.05, weights=SOME), lambda p: torch.optim.Adam(p, lr=0.05)), 1e-6),
    ):
        assert torch.allclose(found, wanted, atol=tolerance)
        assert torch.equal(found == 0, wanted == 0)


@pytest.mark.parametrize("way", ["polish", "train"])
def test_an_exempt_column_is_an_unpenalised_one(diabetes, way):
    """Frisch and Waugh: the other columns' lasso is that of what the exempt ones leave of features and targets."""
    X, y = (each.numpy() for each in diabetes)
    free, held = [2, 8], [0, 1, 3, 4, 5, 6, 7, 9]
    factors = torch.ones(10, dtype=F64)
    factors[free] = 0
    left = [each - LinearRegression().fit(X[:, free], each).predict(X[:, free]) for each in (X[:, held], y)]
    coefficients = Lasso(0.05, tol=1e-15, max_iter=100_000).fit(left[0], left[1].ravel()).coef_
    rest = LinearRegression().fit(X[:, free], y.ravel() - X[:, held] @ coefficients)
    found = (
        polished(diabetes, L1(0.05, weights=factors))
        if way == "polish"
        else trained(diabetes, L1(0.05, weights=factors), lambda p: torch.optim.Adam(p, lr=0.05))
    )
    tolerance = 1e-8 if way == "polish" else 1e-6
    assert np.allclose(found[held], coefficients, atol=tolerance)
    assert np.allclose(found[free], rest.coef_, atol=tolerance)
    assert np.array_equal(found[held] == 0, coefficients == 0)
    assert (coefficients == 0).any()


def test_an_exempt_coordinate_passes_zero_and_leaves_it(diabetes):
    """Polish treats it as smooth at 0, where it starts, and on the other side of which it ends."""
    model = nn.Linear(10, 1, dtype=F64)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 2], model.weight[0, 8] = -3.0, 0.0  # both end above 0.2
    factors = torch.ones(10)
    factors[[2, 8]] = 0
    reg = ts.Regularizer(model, L1(0.05, weights=factors))
    assert ts.polish(model, diabetes, reg, loss=half_mse, tol=1e-10).converged
    assert bool((model.weight[0, [2, 8]] > 0.2).all())


def sparse_truth(seed):
    """Correlated features, of which every fifth counts: where lasso keeps more than it should."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(200, 20, generator=generator, dtype=F64)
    X = X + X.roll(1, 1) + X.roll(-1, 1)
    w = torch.zeros(20, dtype=F64)
    w[::5] = torch.tensor([3.0, -2.0, 1.5, 1.0], dtype=F64)
    y = X @ w + 0.5 * torch.randn(200, generator=generator, dtype=F64)
    return ((X - X.mean(0)) / X.std(0), (y - y.mean())[:, None]), w != 0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_adaptive_lasso_finds_the_support_that_mcp_finds_and_lasso_does_not(seed):
    data, truth = sparse_truth(seed)
    first = torch.linalg.lstsq(*data).solution.ravel()
    factors = 1 / first.abs()
    found = polished(data, L1(0.05, weights=factors))
    assert torch.equal(found != 0, truth)
    assert torch.equal(polished(data, MCP(0.1)) != 0, truth)
    assert int((polished(data, L1(0.05)) != 0).sum()) > int(truth.sum())
    assert torch.allclose(found, rescaled_lasso(*data, 0.05, factors), atol=1e-8)


def test_weighted_group_lasso_under_adam_ends_stationary(diabetes):
    X, _ = diabetes
    y = torch.stack([X @ torch.randn(10, dtype=F64) for _ in range(3)], dim=1) / 3
    factors = torch.tensor(SOME)
    factors[3] = 0
    penalty = GroupLasso(0.05, dim=1, weights=factors)
    by_adam = trained((X, y), penalty, lambda p: torch.optim.Adam(p, lr=0.05)).view(3, 10)
    by_polish = polished((X, y), penalty).view(3, 10)
    assert torch.allclose(by_adam, by_polish, atol=1e-6)
    zero = (by_polish == 0).all(0)
    assert torch.equal((by_adam == 0).all(0), zero)
    assert zero.any()
    assert not zero[3]


def test_where_all_weights_are_zero_their_factors_are_what_the_distance_is_measured_in():
    """λ = 1 holds with 1e-3 here, so that a gradient 1 % beyond that is no small thing."""
    model = nn.Linear(1, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    reg = ts.Regularizer(model, L1(1.0, weights=1e-3))

    def closure():
        model.zero_grad()
        loss = 1.01e-3 * model.weight.sum()
        loss.backward()
        return loss

    certificate = reg.certify(closure)
    assert certificate.worst.pull == pytest.approx(1e-3)
    assert certificate.relative == pytest.approx(0.01)


def test_elastic_weight_consolidation_holds_what_mattered():
    """Fisher weights in L2SP: the new task moves what the old one did not look at."""
    model = nn.Linear(2, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    fisher = torch.tensor([[100.0, 0.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.009)
    reg = ts.Regularizer(model, L2SP(1.0, weights=fisher)).attach(optimizer)
    for _ in range(1000):
        optimizer.zero_grad()
        (model.weight - 1).square().sum().backward()
        optimizer.step()
    assert model.weight[0, 0].item() == pytest.approx(1 / 101)
    assert model.weight[0, 1].item() == pytest.approx(1.0)
    assert list(reg.state_dict()["bound"]["weight"]) == ["anchor"]  # weights are settings, as strengths are


# --- as a value ---


@pytest.mark.parametrize("kind", KINDS)
def test_equal_where_the_numbers_are(kind):
    one = KINDS[kind](weights=torch.tensor(FACTORS))
    same = KINDS[kind](weights=np.array(FACTORS))
    other = KINDS[kind](weights=(2.0, 0.0, 0.6))
    assert one == same != other
    assert len({one, same, other, KINDS[kind](), KINDS[kind](weights=1.0)}) == 4
    assert one.with_strength(0.7) == same.with_strength(0.7) != one
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
        assert hash(again) == hash(one)
        w = torch.randn(4, 3)
        assert torch.equal(again.value(w), one.value(w))
    kept = io.BytesIO()
    torch.save(one, kept)
    kept.seek(0)
    assert torch.load(kept, weights_only=False) == one


def test_the_shape_counts_and_the_dtype_does_not():
    assert L1(1.0, weights=torch.ones(3)) == L1(1.0, weights=torch.ones(3, dtype=torch.int64))
    assert L1(1.0, weights=torch.ones(3)) != L1(1.0, weights=torch.ones(1, 3))
    assert L1(1.0, weights=torch.tensor([0.0])) == L1(1.0, weights=torch.tensor([-0.0]))
    assert L1(1.0, weights=2) == L1(1.0, weights=2.0) == L1(1.0, weights=torch.tensor(2.0))
    assert L1(1.0, weights=np.array(2.0)) == L1(1.0, weights=np.float32(2)) == L1(1.0, weights=2)


def test_the_text_is_short_and_tells_them_apart():
    assert repr(L1(0.1)) == "L1(strength=0.1)"
    assert str(L1(0.1, weights=2)) == "L1(0.1, weights=2.0)"
    long = [str(KINDS[kind](weights=torch.rand(3))) for kind in KINDS for _ in range(2)]
    assert len(set(long)) == 2 * len(KINDS)
    assert all(len(text) <= 90 and "weights=<3 " in text for text in long)
    assert eval(repr(SparseGroupLasso(0.1, 0.2, weights=2.0))) == SparseGroupLasso(0.1, 0.2, weights=2.0)


def test_the_tensor_given_is_the_giver_s():
    given = torch.tensor(FACTORS, requires_grad=True)
    penalty = L1(1.0, weights=given)
    before = hash(penalty)
    with torch.no_grad():
        given.mul_(5)
    w = torch.ones(3, requires_grad=True)
    value = penalty.value(w)
    assert value == 2.5
    value.backward()
    assert given.grad is None
    assert hash(penalty) == before
    assert penalty == L1(1.0, weights=FACTORS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (-1.0, r"weights: -1: expected finite numbers ≥ 0"),
        (torch.tensor([1.0, math.nan]), r"weights: nan at \[1\]: expected finite"),
        ([[1.0, 2.0], [3.0, math.inf]], r"weights: inf at \[1, 1\]: expected finite"),
        ("1", "weights='1': expected a number"),
        (True, "weights=True: expected a number"),
        ([], r"weights=\[\]: expected a number"),
        ([1, "a"], r"weights=\[1, 'a'\]: expected a number"),
        (torch.ones(3, dtype=torch.complex64), "weights: torch.complex64 given"),
        ([torch.ones(2), "x"], "weights=.*: expected a number"),
    ],
)
def test_what_is_no_factor_is_refused_in_one_line(kind, bad, said):
    with pytest.raises(InputError, match=rf"^{said}") as caught:
        KINDS[kind](weights=bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_broadcast_is_refused_when_it_is_bound_and_the_parameter_named(kind):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(
        InputError, match=r"1\.weight, of shape \(2, 4\): weights of shape \(3,\) given.*\(.*4.*\)"
    ) as e:
        ts.Regularizer(model, KINDS[kind](weights=FACTORS))
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="weights of shape"):
        KINDS[kind](weights=torch.ones(2, 2, 4)).prox(torch.ones(2, 4), 1.0)


@pytest.mark.parametrize(
    ("a", "b", "joint"),
    [
        (L1(1.0, weights=FACTORS), L1(2.0, weights=FACTORS), L1(3.0, weights=FACTORS)),
        (L1(1.0, weights=FACTORS), L2(2.0, weights=FACTORS), ElasticNet(1.0, 2.0, weights=FACTORS)),
        (ElasticNet(1.0, 2.0, weights=2), L2(0.5, weights=2), ElasticNet(1.0, 2.5, weights=2)),
        (GroupLasso(1.0, weights=ROWS), GroupLasso(2.0, weights=ROWS), GroupLasso(3.0, weights=ROWS)),
        (
            SparseGroupLasso(1.0, 1.0, weights=ROWS),
            GroupLasso(2.0, weights=ROWS),
            None,
        ),
        (SparseGroupLasso(1, 1, weights=2), SparseGroupLasso(2, 3, weights=2), SparseGroupLasso(3, 4, weights=2)),
    ],
    ids=str,
)
def test_sums_of_equal_weights(a, b, joint):
    w = torch.randn(4, 3, dtype=F64)
    for found in (a + b, b + a):
        torch.testing.assert_close(found.value(w), a.value(w) + b.value(w))
        assert joint is None or found == joint


def test_factors_that_are_infinite_in_the_weights_dtype_are_refused_at_binding():
    """As 1/|w| of a first fit may be: λ·∞·0 would be no number."""
    factors = torch.tensor([1.0, 1e60, 1.0], dtype=F64)
    assert ts.Regularizer(nn.Linear(3, 2).double(), L1(0.1, weights=factors)).value().isfinite()
    with pytest.raises(
        InputError, match=r"weight, of shape \(2, 3\): weights: up to 1e\+60, infinite in torch\.float32"
    ):
        ts.Regularizer(nn.Linear(3, 2), L1(0.1, weights=factors))
    with pytest.raises(InputError, match=r"infinite in torch\.float32"):
        ts.Regularizer(nn.Linear(3, 2), GroupLasso(0.1, dim=1, weights=factors))


def test_sums_of_different_weights_are_refused():
    for a, b in (
        (L1(1.0, weights=2), L1(1.0)),
        (L1(1.0, weights=FACTORS), L2(1.0)),
        (GroupLasso(1.0, weights=2), GroupLasso(1)),
    ):
        with pytest.raises(TypeError, match="with different weights no one penalty is the sum"):
            a + b
    for a, b in ((GroupLasso(1.0, weights=2), L1(1.0)), (SparseGroupLasso(1, 1), L1(1.0, weights=2))):
        with pytest.raises(TypeError, match="of groups, the other's of coordinates"):
            b + a


@pytest.mark.parametrize(
    "kind", [lambda **a: L1(0.1, **a), lambda **a: L2(0.1, **a), lambda **a: ElasticNet(0.1, 0.05, **a)]
)
@pytest.mark.parametrize("where", ["beside the minimum", "far from it"])
def test_the_duality_gap_bounds_the_distance_from_the_minimum(diabetes, kind, where):
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, kind(weights=SOME))
    lowest = ts.polish(model, diabetes, reg, loss=nn.MSELoss(), tol=1e-10).certificate
    assert 0 <= lowest.gap <= 1e-9
    with torch.no_grad():
        model.weight.add_(torch.randn(1, 10, dtype=F64) * (1e-3 if where == "beside the minimum" else 1))
    there = ts.certify(model, diabetes, reg, loss=nn.MSELoss())
    assert there.gap >= there.objective - lowest.objective > 0
    assert there.gap <= 1e3 * (there.objective - lowest.objective) or where == "beside the minimum"


def test_a_penalised_intercept_may_have_a_factor_of_its_own():
    X, y = torch.randn(50, 2, dtype=F64), 2 + torch.randn(50, 3, dtype=F64)
    model = nn.Linear(2, 3, dtype=F64)
    reg = ts.Regularizer(model, {"weight": L1(0.1, weights=(1.0, 3.0)), "bias": L1(0.1, weights=(1.0, 2.0, 5.0))})
    assert 0 <= ts.polish(model, (X, y), reg, tol=1e-9).certificate.gap <= 1e-9


def test_there_is_no_duality_gap_where_a_coordinate_is_exempt(diabetes):
    model = nn.Linear(10, 1, dtype=F64)
    reg = ts.Regularizer(model, L1(0.1, weights=[0.0, *SOME[1:]]))
    assert ts.certify(model, diabetes, reg, loss=nn.MSELoss()).gap is None
    with pytest.raises(ts.errors.NoDualError, match="exempts coordinates"):
        ts.duality_gap(model, diabetes, reg, loss=nn.MSELoss())


# --- bound, at work ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bound_weights_are_where_the_parameter_is(kind, dtype):
    w = torch.randn(4, 3, dtype=dtype)
    bound = KINDS[kind](weights=torch.tensor(FACTORS, dtype=F64)).bind(w)
    assert bound.weights.tensor.dtype == (torch.float32 if kind in ELEMENTWISE else F64)
    assert bound.prox(w, 0.3).dtype == dtype
    plain = KINDS[kind](weights=FACTORS)
    torch.testing.assert_close(bound.value(w), plain.value(w.float()))
    if kind != "l2sp":
        assert KINDS[kind](weights=FACTORS).bind(w) == KINDS[kind](weights=FACTORS).bind(w)  # bundled together


@pytest.mark.parametrize("kind", [*ELEMENTWISE[:4], "group lasso"])
@pytest.mark.parametrize("limits", [None, [0.1, 0.2]])
def test_lists_of_tensors_at_once(kind, limits):
    penalty = KINDS[kind](weights=FACTORS)
    ws = [torch.randn(4, 3, dtype=F64), torch.randn(2, 3, dtype=F64)]
    assert total(penalty, ws).item() == pytest.approx(sum(penalty.value(w).item() for w in ws))
    for found, w in zip(gradients(penalty, ws, 0.7), ws, strict=True):
        torch.testing.assert_close(found, 0.7 * penalty.grad(w))
    grads = [torch.ones_like(w) for w in ws]
    add_gradients_(penalty, ws, grads, 0.7)
    torch.testing.assert_close(grads[1], 1 + 0.7 * penalty.grad(ws[1]))
    for steps in ([0.5, 0.7], [torch.rand_like(w) for w in ws]):
        wanted = [penalty.prox(w, s) for w, s in zip(ws, steps, strict=True)]
        if limits is not None:
            wanted = [limited(u, w, most) for u, w, most in zip(wanted, ws, limits, strict=True)]
        found = [w.clone() for w in ws]
        prox_(penalty, found, [s.clone() if isinstance(s, torch.Tensor) else s for s in steps], limits)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_scale_saving_and_summary_know_of_no_difference():
    model = nn.Linear(3, 4)
    reg = ts.Regularizer(model, L1(0.5, weights=FACTORS))
    plain = reg.value().item()
    reg.scale = 2.0
    assert reg.value().item() == pytest.approx(2 * plain)
    assert "L1(1, weights=<3 " in reg.summary()
    ts.Regularizer(model, L1(0.5)).load_state_dict(reg.state_dict())
    again = copy.deepcopy(reg)
    assert again.value().item() == pytest.approx(2 * plain)
