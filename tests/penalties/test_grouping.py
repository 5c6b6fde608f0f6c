"""Groups of several indices: blocks and labels, against groups that are slices, and against a solver of 20 lines."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import ContractError, InputError
from torchshrink.penalties import GroupLasso, SparseGroupLasso
from torchshrink.penalties.parts import Labels
from torchshrink.penalties.proximal import metric_block_soft_threshold
from torchshrink.testing import check_penalty

F64 = torch.float64
LABELS = (0, 1, 0, 2)

# --- the contract ---


@pytest.mark.parametrize(
    ("penalty", "shapes"),
    [
        (GroupLasso(0.3, size=2), ((4, 2), (0, 3))),
        (GroupLasso(0.3, dim=(0, 1), size=(1, 2)), ((2, 4),)),
        (GroupLasso(0.3, dim=(0, -1), size=2, weights=[[1.0], [0.0]]), ((4, 4),)),
        (GroupLasso(0.3, labels=LABELS), ((4,), (4, 2), (4, 0))),
        (GroupLasso(0.3, dim=-1, labels=(7, 7, -1, 2, 2), weights=(0.5, 0, 2)), ((2, 5),)),
        (SparseGroupLasso(0.2, 0.3, labels=LABELS), ((4, 2),)),
        (SparseGroupLasso(0.2, 0.3, dim=1, labels=LABELS, weights=(0, 1, 3)), ((2, 4),)),
        (SparseGroupLasso(0.2, 0.3, dim=(0, 1), size=2), ((4, 2),)),
    ],
    ids=str,
)
def test_the_contract_holds(penalty, shapes):
    check_penalty(penalty, shapes=shapes)


class TestTheContractFails:
    """On what could go wrong with labels alone."""

    @pytest.mark.parametrize("method", ["grad", "prox", "distance"])
    def test_where_a_method_takes_other_groups(self, monkeypatch, method):
        plain = getattr(GroupLasso, method)
        other = GroupLasso(0.3, labels=(0, 1, 1, 2))
        monkeypatch.setattr(GroupLasso, method, lambda self, *given: plain(other.with_strength(self.strength), *given))
        with pytest.raises(ContractError):
            check_penalty(GroupLasso(0.3, labels=LABELS), shapes=((4, 3),))

    def test_where_all_groups_count_as_equally_large(self, monkeypatch):
        monkeypatch.setattr(Labels, "members", lambda self, like: 4 / 3)
        monkeypatch.setattr(GroupLasso, "critical_strength", lambda self, g: self.groups(g.shape).norm(g).amax())
        with pytest.raises(ContractError, match="critical"):
            check_penalty(GroupLasso(0.3, labels=LABELS), shapes=((4, 3),))

    def test_where_it_tells_of_other_groups_than_it_has(self, monkeypatch):
        other = GroupLasso(0.3, labels=(0, 0, 1, 2))
        told, plain = GroupLasso.groups, GroupLasso.prox

        def prox(self, w, step):
            with pytest.MonkeyPatch.context() as inside:
                inside.setattr(GroupLasso, "groups", told)
                return plain(other.with_strength(self.strength), w, step)

        monkeypatch.setattr(GroupLasso, "prox", prox)
        with pytest.raises(ContractError):
            check_penalty(GroupLasso(0.3, labels=LABELS), shapes=((4, 3),))

    def test_where_a_shard_is_said_to_hold_whole_groups(self, monkeypatch):
        monkeypatch.setattr(GroupLasso, "group_dims", property(lambda self: (0,)))
        with pytest.raises((ContractError, InputError)):
            check_penalty(GroupLasso(0.3, size=2), shapes=((6, 3),))


# --- against slices ---

FORMS = {
    "blocks of rows": ({"size": 3}, lambda w: w.reshape(2, -1)),
    "labelled rows": ({"labels": (4, 4, 4, 9, 9, 9)}, lambda w: w.reshape(2, -1)),
    "gates of a unit": ({"labels": (0, 1, 0, 1, 0, 1)}, lambda w: w.reshape(3, 2, -1).transpose(0, 1).reshape(2, -1)),
    "blocks of a matrix": (
        {"dim": (0, 1), "size": (3, 2)},
        lambda w: w.reshape(2, 3, 2, 2).transpose(1, 2).reshape(4, -1),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [lambda **a: GroupLasso(0.4, **a), lambda **a: SparseGroupLasso(0.2, 0.3, **a)])
def test_they_are_the_slices_of_the_tensor_rearranged(form, kind):
    settings, arranged = FORMS[form]
    penalty, slices = kind(**settings), kind()
    w, g = torch.randn(2, 6, 4, dtype=F64)
    w[0] = 0
    steps = 10 ** (4 * torch.rand(6, 4, dtype=F64) - 3)
    assert penalty.value(w).item() == pytest.approx(slices.value(arranged(w)).item())
    assert penalty.critical_strength(g).item() == pytest.approx(slices.critical_strength(arranged(g)).item())
    torch.testing.assert_close(arranged(penalty.grad(w)), slices.grad(arranged(w)))
    torch.testing.assert_close(arranged(penalty.prox(w, 0.3)), slices.prox(arranged(w), 0.3))
    found, wanted = arranged(penalty.prox(w, steps)), slices.prox(arranged(w), arranged(steps))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    assert torch.equal(found == 0, wanted == 0)
    torch.testing.assert_close(penalty.distance(w, g).flatten(), slices.distance(arranged(w), arranged(g)))


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_prox_of_groups_of_different_sizes(seed):
    """Group by group, with steps over eight orders of magnitude, as the metric prox of one group by itself."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (40,), generator=generator)
    w = torch.randn(40, 3, dtype=F64, generator=generator) * 10 ** (4 * torch.rand(40, 1, generator=generator) - 2)
    steps = 10 ** (8 * torch.rand(40, 3, dtype=F64, generator=generator) - 6)
    found = GroupLasso(0.3, labels=labels).prox(w, steps)
    for label in labels.unique():
        mine = labels == label
        radius = 0.3 * math.sqrt(3 * int(mine.sum()))
        alone = metric_block_soft_threshold(w[mine].reshape(1, -1), steps[mine].reshape(1, -1) * radius, (0,))
        torch.testing.assert_close(found[mine].reshape(1, -1), alone, rtol=1e-11, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neither_tiny_nor_huge_groups_are_lost(scale):
    w = torch.tensor([[3.0, 0.0], [4.0, 0.0], [1.0, 1.0]]) * scale
    penalty = GroupLasso(1.0, labels=(0, 0, 1))
    assert penalty.value(w / scale).item() * scale == pytest.approx(penalty.value(w).item(), rel=1e-6)
    x = w.clone().requires_grad_()
    penalty.value(x).backward()
    torch.testing.assert_close(x.grad, penalty.grad(w))
    assert torch.equal(penalty.prox(w, torch.full_like(w, 1e-9 * scale)) != 0, w != 0)


def test_the_gradient_of_a_zero_group_is_zero_and_the_second_derivative_right():
    penalty = GroupLasso(1.0, labels=(0, 0, 1))
    x = torch.tensor([3.0, 0.0, 0.0], dtype=F64, requires_grad=True)  # a zero inside a group that is not
    (slope,) = torch.autograd.grad(penalty.value(x), x, create_graph=True)
    assert slope.tolist() == [math.sqrt(2), 0.0, 0.0]
    (second,) = torch.autograd.grad(slope[1], x)
    assert second[1].item() == pytest.approx(math.sqrt(2) / 3)


def test_a_compiled_program_has_no_break():
    w = torch.randn(8, 6)
    for penalty in (GroupLasso(0.1, dim=1), GroupLasso(0.1, dim=1, labels=(0, 0, 1, 2, 2, 2), weights=(1, 0, 2))):
        bound = penalty.bind(w)
        program = torch.compile(
            lambda w, bound=bound: (bound.value(w), bound.prox(w, 0.1)), fullgraph=True, backend="eager"
        )
        value, moved = program(w)
        torch.testing.assert_close(value, bound.value(w))
        torch.testing.assert_close(moved, bound.prox(w, 0.1))


# --- what it is for ---


def test_heads_of_packed_attention_become_zero_together():
    """Rows of in_proj_weight are q, k and v of all heads; columns of out_proj are the heads' outputs."""
    heads, width = 4, 8
    attention = nn.MultiheadAttention(width, heads, dtype=F64)
    per_head = width // heads
    labels = torch.arange(3 * width) % width // per_head
    reg = ts.Regularizer(
        attention,
        {
            "in_proj_weight": ts.GroupLasso(0.02, labels=labels),
            "out_proj.weight": ts.GroupLasso(0.02, dim=1, size=per_head),
        },
    )
    assert [(p.groups, p.groups_zero) for p in reg.sparsity().by_parameter] == [(4, 0), (4, 0)]
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.01)
    x = torch.randn(5, 3, width, dtype=F64)
    with reg.attach(optimizer):
        for _ in range(150):
            optimizer.zero_grad()
            (attention(x, x, x)[0] - 0.1 * x).square().mean().backward()
            optimizer.step()
    into, out = (p.groups_zero for p in reg.sparsity().by_parameter)
    assert into > 0 or out > 0
    q, k, v = attention.in_proj_weight.detach().view(3, heads, -1)
    zero = [bool((w[h] == 0).all()) for h in range(heads) for w in (q, k, v)]
    assert zero == [each for each in zero[::3] for _ in range(3)]  # all three of a head, or none
    assert sum(zero[::3]) == into
    assert "4 zero" in reg.summary()


def test_gates_of_a_unit_are_one_group():
    lstm = nn.LSTM(3, 5)
    labels = [row % 5 for row in range(20)]
    reg = ts.Regularizer(lstm, {"weight_*": ts.GroupLasso(1.0, labels=labels)})
    with torch.no_grad():
        lstm.weight_ih_l0[2::5] = 0
    assert [(p.groups, p.groups_zero) for p in reg.sparsity().by_parameter] == [(5, 1), (5, 0)]


def one_hot(sizes, rows, seed=0):
    """Columns of categories and numbers, their labels, and targets that depend on some of the features."""
    generator = torch.Generator().manual_seed(seed)
    columns, labels, y = [], [], torch.zeros(rows, dtype=F64)
    for feature, size in enumerate(sizes):
        if size:
            code = torch.randint(size, (rows,), generator=generator)
            columns.append(nn.functional.one_hot(code, size).double())
            effect = torch.randn(size, generator=generator, dtype=F64)[code]
        else:
            columns.append(torch.randn(rows, 1, generator=generator, dtype=F64))
            effect = columns[-1].ravel()
        labels += [feature] * columns[-1].shape[1]
        y += effect * (feature % 2 == 0)
    y += 0.3 * torch.randn(rows, generator=generator, dtype=F64)
    return torch.cat(columns, 1), y[:, None], labels


def by_proximal_gradient(X, y, labels, strength, steps=2000):
    """½·mean (Xw + b − y)² + λ·Σ √p_g‖w_g‖, with b out by centring: by FISTA, in plain numpy."""
    X, y, labels = X.numpy() - X.numpy().mean(0), y.numpy().ravel() - y.numpy().mean(), np.asarray(labels)
    step = len(y) / np.linalg.norm(X, 2) ** 2
    groups = [(mine, step * strength * np.sqrt(mine.sum())) for g in set(labels) for mine in [labels == g]]
    w = z = np.zeros(X.shape[1])
    t = 1.0
    for _ in range(steps):
        u = z - step * X.T @ (X @ z - y) / len(y)
        for mine, radius in groups:
            u[mine] *= max(0.0, 1 - radius / np.linalg.norm(u[mine])) if u[mine].any() else 0.0
        following = (1 + np.sqrt(1 + 4 * t**2)) / 2
        z = u + (t - 1) / following * (u - w)
        w, t = u, following
    return w


def half_mse(output, target):
    return (output - target).square().mean() / 2


def test_features_of_one_hot_columns_are_selected_as_a_plain_solver_does():
    X, y, labels = one_hot([0, 3, 5, 0, 2, 7, 0], 300)
    strength = 0.08
    wanted = torch.tensor(by_proximal_gradient(X, y, labels, strength))
    penalty = GroupLasso(strength, dim=1, labels=labels)
    model = nn.Linear(X.shape[1], 1, dtype=F64)
    reg = ts.Regularizer(model, penalty)
    polished = ts.polish(model, (X, y), reg, loss=half_mse, tol=1e-9)
    assert polished.converged, str(polished)
    found = model.weight.detach().ravel()
    assert torch.allclose(found, wanted, atol=1e-7)
    assert torch.equal(found == 0, wanted == 0)
    zero = {label for label, w in zip(labels, found.tolist(), strict=True) if w == 0}
    assert 2 <= len(zero) <= 4
    assert reg.sparsity().groups == 7
    assert reg.sparsity().groups_zero == len(zero)

    model = nn.Linear(X.shape[1], 1, dtype=F64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600, eta_min=1e-5)
    reg = ts.Regularizer(model, penalty).attach(optimizer)
    for _ in range(600):
        optimizer.zero_grad()
        half_mse(model(X), y).backward()
        optimizer.step()
        schedule.step()
    assert torch.allclose(model.weight.detach().ravel(), wanted, atol=1e-5)
    assert ts.certify(model, (X, y), reg, loss=half_mse).ok(1e-4)


# --- places, texts, values ---


def test_a_certificate_names_the_place_of_a_group():
    def worst(penalty, shape, at):
        model = nn.Linear(shape[1], shape[0], bias=False, dtype=F64)
        nn.init.zeros_(model.weight)
        reg = ts.Regularizer(model, penalty)

        def closure():
            model.zero_grad()
            loss = 100 * model.weight[at]
            loss.backward()
            return loss

        return reg.certify(closure).worst.place

    assert worst(GroupLasso(0.1, size=2), (4, 3), (3, 0)) == "weight[2:4, :]"
    assert worst(GroupLasso(0.1, dim=(0, 1), size=(2, 1)), (4, 3), (1, 2)) == "weight[0:2, 2]"
    assert worst(GroupLasso(0.1, dim=1, labels=(5, 3, 5, 3)), (2, 4), (0, 2)) == "weight[:, [0, 2]]"
    assert worst(GroupLasso(0.1, dim=1, labels=[0] * 20), (2, 20), (0, 2)).endswith("[:, [0, 1, 2, 3, 4, 5, 6, 7, …]]")
    assert worst(GroupLasso(0.1, dim=1), (2, 4), (0, 2)) == "weight[:, 2]"


def test_labels_are_equal_where_the_groups_are():
    one = GroupLasso(0.1, labels=(0, 0, 1))
    for same in ((5, 5, 7), [0, 0, 1], np.array([0, 0, 1]), torch.tensor([-1, -1, 3]), one.labels):
        assert GroupLasso(0.1, labels=same) == one
        assert hash(GroupLasso(0.1, labels=same)) == hash(one)
    assert GroupLasso(0.1, labels=(0, 1, 1)) != one != GroupLasso(0.1)
    assert GroupLasso(0.1, size=2) != GroupLasso(0.1, size=3)
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), one.with_strength(0.2).with_strength(0.1)):
        assert again == one
    assert re.fullmatch(r"GroupLasso\(0\.1, dim=0, labels=<3 \w{12}>\)", str(one))
    assert eval(repr(GroupLasso(0.1, dim=(0, 1), size=(2, 3)))) == GroupLasso(0.1, dim=(0, 1), size=(2, 3))
    assert str(SparseGroupLasso(0.1, 0.2, size=16)) == "SparseGroupLasso(l1=0.1, group=0.2, dim=0, size=16)"


def test_sums_keep_the_groups():
    joint = GroupLasso(1.0, labels=LABELS) + ts.L1(2.0)
    assert joint == SparseGroupLasso(2.0, 1.0, labels=LABELS)
    assert joint + GroupLasso(1.0, labels=LABELS) == SparseGroupLasso(2.0, 2.0, labels=LABELS)
    for other in (GroupLasso(1.0), GroupLasso(1.0, size=2), GroupLasso(1.0, labels=(0, 1, 2, 2))):
        with pytest.raises(TypeError, match="overlapping groups"):
            GroupLasso(1.0, labels=LABELS) + other


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size=0: expected a whole number ≥ 1, for dim=0"),
        ({"size": 2.0}, r"size=2\.0: expected a whole number"),
        ({"size": True}, "size=True: expected"),
        ({"size": (2, 2)}, r"size=\(2, 2\): expected a whole number ≥ 1, for dim=0"),
        ({"dim": (0, 1), "size": (2,)}, r"size=\(2,\): expected a whole number ≥ 1, or 2 of them, for dim=\(0, 1\)"),
        ({"dim": (), "size": 2}, r"size=2: expected"),
        ({"labels": (0.5, 1)}, r"labels: torch.float64 of shape \(2,\) given"),
        ({"labels": ()}, r"labels=\(\): expected a whole number for each index"),
        ({"labels": [[0, 1]]}, r"labels: torch.int64 of shape \(1, 2\) given"),
        ({"labels": 3}, r"labels: torch.int64 of shape \(\) given"),
        ({"labels": ("a", "b")}, r"labels=\('a', 'b'\): expected"),
        ({"labels": (True, False)}, r"labels: torch.bool"),
        ({"labels": (0, 1), "size": 2}, "labels and size: give one of the two"),
        ({"labels": (0, 1), "dim": (0, 1)}, r"labels: one dim expected, \(0, 1\) given"),
    ],
)
@pytest.mark.parametrize("kind", [lambda **a: GroupLasso(0.1, **a), lambda **a: SparseGroupLasso(0.1, 0.1, **a)])
def test_what_numbers_no_groups_is_refused_in_one_line(kind, settings, said):
    with pytest.raises(InputError, match=f"^{said}") as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("penalty", "said"),
    [
        (GroupLasso(0.1, size=3), "size=3: does not divide the 4 indices along dim 0"),
        (GroupLasso(0.1, dim=-1, size=2), "size=2: does not divide the 3 indices along dim 1"),
        (GroupLasso(0.1, labels=(0, 1)), "labels: 2 given, one for each of the 4 indices along dim 0 expected"),
        (SparseGroupLasso(0.1, 0.1, dim=1, labels=LABELS), "labels: 4 given, one for each of the 3 indices"),
        (GroupLasso(0.1, labels=LABELS, weights=(1, 2)), r"weights of shape \(2,\) given.*the groups, \(3,\) expected"),
        (GroupLasso(0.1, dim=2, size=2), "dim=2: a tensor with 2 dimensions"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_at_binding_and_the_parameter_named(penalty, said):
    with pytest.raises(InputError, match=rf"^weight, of shape \(4, 3\): {said}") as caught:
        ts.Regularizer(nn.Linear(3, 4), penalty)
    assert "\n" not in str(caught.value)


def test_a_number_has_no_indices_to_group():
    with pytest.raises(InputError, match="a tensor without dimensions has no indices"):
        GroupLasso(0.1, size=2).prox(torch.tensor(1.0), 1.0)
