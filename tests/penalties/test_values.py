"""What a penalty is as a Python value: arguments, equality, printing, sums, ground truths by hand."""

import math

import numpy as np
import pytest
import torch

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.penalties import BUILTIN, L1, L2, ElasticNet, GroupLasso, SparseGroupLasso

W = torch.tensor([[3.0, -4.0], [0.0, 0.0]], dtype=torch.float64)


def test_values_by_hand():
    assert L1(0.5).value(W) == 3.5
    assert L2(0.5).value(W) == 12.5
    assert ElasticNet(0.5, 2.0).value(W) == 3.5 + 50
    assert GroupLasso(0.5).value(W).item() == pytest.approx(0.5 * math.sqrt(2) * 5)
    assert GroupLasso(0.5, dim=1).value(W).item() == pytest.approx(0.5 * math.sqrt(2) * 7)
    assert GroupLasso(0.5, dim=()).value(W).item() == pytest.approx(0.5 * 2 * 5)
    assert SparseGroupLasso(1.0, 0.5).value(W).item() == pytest.approx(7 + 0.5 * math.sqrt(2) * 5)


def test_a_convolution_is_grouped_by_filter():
    w = torch.randn(4, 3, 5, 5)
    expected = sum(math.sqrt(75) * w[i].norm() for i in range(4))
    torch.testing.assert_close(GroupLasso(1.0).value(w), expected)
    kernels = sum(5 * w[i, j].norm() for i in range(4) for j in range(3))
    torch.testing.assert_close(GroupLasso(1.0, dim=(0, 1)).value(w), kernels)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "0.1", None, True, torch.ones(2)])
@pytest.mark.parametrize("kind", [L1, L2, GroupLasso, lambda s: ElasticNet(0.1, s), lambda s: SparseGroupLasso(s, 0.1)])
def test_a_bad_strength_is_refused_in_one_line(kind, bad):
    with pytest.raises(InputError, match="expected") as caught:
        kind(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dim", [0.5, "0", (0, 0), (0, "1"), None, True])
def test_a_bad_dim_is_refused(dim):
    with pytest.raises(InputError, match="dim="):
        GroupLasso(0.1, dim=dim)


def test_a_dim_that_the_tensor_lacks_is_named():
    with pytest.raises(InputError, match="dim=2: a tensor with 2 dimensions"):
        GroupLasso(0.1, dim=2).prox(W, 1.0)


def test_equality_hash_and_text():
    assert L1(0.1) == L1(0.1) != L1(0.2)
    assert L1(0.1) != L2(0.1)
    assert len({GroupLasso(0.1), GroupLasso(0.1, dim=0), GroupLasso(0.1, dim=1)}) == 2
    assert str(ElasticNet(1e-3, 0.5)) == "ElasticNet(l1=0.001, l2=0.5)"
    assert eval(repr(SparseGroupLasso(0.1, 0.2, dim=1))) == SparseGroupLasso(0.1, 0.2, dim=1)


def test_integers_are_strengths_too():
    assert L1(1) == L1(1.0)


@pytest.mark.parametrize(
    ("a", "b", "joint"),
    [
        (L1(1.0), L1(2.0), L1(3.0)),
        (L2(1.0), L2(2.0), L2(3.0)),
        (L1(1.0), L2(2.0), ElasticNet(1.0, 2.0)),
        (ElasticNet(1.0, 2.0), L1(0.5), ElasticNet(1.5, 2.0)),
        (ElasticNet(1.0, 2.0), L2(0.5), ElasticNet(1.0, 2.5)),
        (ElasticNet(1.0, 2.0), ElasticNet(1.0, 0.0), ElasticNet(2.0, 2.0)),
        (GroupLasso(1.0, dim=1), L1(2.0), SparseGroupLasso(2.0, 1.0, dim=1)),
        (GroupLasso(1.0), GroupLasso(2.0), GroupLasso(3.0)),
        (SparseGroupLasso(1.0, 1.0), GroupLasso(2.0), SparseGroupLasso(1.0, 3.0)),
        (SparseGroupLasso(1.0, 1.0), L1(2.0), SparseGroupLasso(3.0, 1.0)),
        (SparseGroupLasso(1.0, 1.0), SparseGroupLasso(2.0, 3.0), SparseGroupLasso(3.0, 4.0)),
    ],
    ids=str,
)
def test_a_sum_is_the_joint_penalty_in_either_order(a, b, joint):
    w = torch.randn(4, 3)
    for total in (a + b, b + a):
        assert total == joint
        torch.testing.assert_close(total.value(w), a.value(w) + b.value(w))


def test_a_sum_without_a_known_prox_says_what_to_do():
    with pytest.raises(TypeError, match="Bind each in a Regularizer of its own"):
        GroupLasso(1.0) + L2(1.0)
    with pytest.raises(TypeError, match="overlapping groups"):
        GroupLasso(1.0, dim=0) + GroupLasso(1.0, dim=1)
    with pytest.raises(TypeError):
        L1(1.0) + 3


def test_with_strength_keeps_the_proportion():
    scaled = ElasticNet(0.3, 0.1).with_strength(0.8)
    assert (scaled.l1, scaled.l2) == (pytest.approx(0.6), pytest.approx(0.2))
    assert ElasticNet(0.0, 0.0).with_strength(0.0) == ElasticNet(0.0, 0.0)
    with pytest.raises(InputError, match="no proportion"):
        ElasticNet(0.0, 0.0).with_strength(1.0)


def test_strength_zero_changes_nothing():
    for penalty in (L1(0.0), L2(0.0), ElasticNet(0.0, 0.0), GroupLasso(0.0), SparseGroupLasso(0.0, 0.0)):
        assert torch.equal(penalty.prox(W, 0.7), W)
        assert torch.equal(penalty.prox(W, torch.rand_like(W)), W)
        assert penalty.value(W) == 0


def test_builtin_names_are_what_the_command_line_says():
    assert list(BUILTIN)[:5] == ["l1", "l2", "elastic_net", "group_lasso", "sparse_group_lasso"]


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2)])
def test_numbers_of_numpy_are_numbers(number):
    assert ts.L1(number) == ts.L1(float(number))
    assert ts.MaxNorm(number) == ts.MaxNorm(float(number))
    assert ts.MCP(0.1, gamma=number + 2) == ts.MCP(0.1, gamma=float(number) + 2)
    reg = ts.Regularizer(torch.nn.Linear(2, 1), ts.L1(0.1))
    reg.scale = number
    assert type(reg.scale) is float
    assert reg.scale == float(number)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (ts.L1, "strength"),
        (lambda bad: ts.ElasticNet(bad, 0.1), "l1"),
        (lambda bad: ts.ElasticNet(0.1, bad), "l2"),
        (lambda bad: ts.SparseGroupLasso(bad, 0.1), "l1"),
        (lambda bad: ts.SparseGroupLasso(0.1, bad), "group"),
    ],
)
def test_a_strength_that_is_none_is_refused_by_its_name(make, name):
    for bad, said in ((-1.0, r"-1\.0: expected a finite number"), ("x", "'x': expected a number")):
        with pytest.raises(InputError, match=rf"^{name}={said}"):
            make(bad)
