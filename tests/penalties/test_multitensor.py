"""Each function over lists of tensors is the penalty's own method, tensor by tensor, in all its ways to take a step."""

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torchshrink.penalties import L1, L2, MCP, ElasticNet, GroupLasso, multitensor, proximal
from torchshrink.penalties.multitensor import add_gradients_, gradients, limited, prox_, split_, total

STRENGTHS = {"number": float, "tensor": lambda value: torch.tensor(value, dtype=torch.float64)}
PENALTIES = {
    "L1": lambda of: L1(of(0.3)),
    "L2": lambda of: L2(of(0.2)),
    "ElasticNet": lambda of: ElasticNet(of(0.3), of(0.2)),
    "GroupLasso": lambda of: GroupLasso(of(0.3)),
    "GroupLasso of columns": lambda of: GroupLasso(of(0.3), dim=1),
    "MCP": lambda of: MCP(of(0.3)),
}
STEPS = {
    "number": lambda w, i: 0.5 + i,
    "one value": lambda w, i: torch.tensor(0.5 + i, dtype=w.dtype),
    "per coordinate": lambda w, i: torch.rand_like(w) * 2,
    "mixed": lambda w, i: torch.rand_like(w) * 2 if i else 0.5,
}
LIMITS = {
    "none": None,
    "number": lambda w, i: 0.1,
    "numbers": lambda w, i: 0.1 * (i + 1),
    "per coordinate": lambda w, i: torch.rand_like(w) * 0.3,
}


@pytest.fixture(params=[torch.float64, torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


@pytest.fixture(autouse=True, params=[proximal.BLOCK, 4], ids=["whole", "in blocks"])
def block(request, monkeypatch):
    """Tensors of a test are cut only where blocks are tiny."""
    monkeypatch.setattr(proximal, "BLOCK", request.param)
    monkeypatch.setattr(multitensor, "BLOCK", request.param)


@pytest.fixture(params=STRENGTHS)
def strength(request):
    return STRENGTHS[request.param]


@pytest.fixture(params=PENALTIES)
def penalty(request, strength):
    return PENALTIES[request.param](strength)


def tensors(dtype):
    made = [torch.randn(4, 3, dtype=dtype), torch.randn(2, 5, dtype=dtype), torch.randn(3, 2, dtype=dtype)]
    for w in made:
        w[0, 0] = 0.0
    return [*made, made[0].clone().t()]  # the last lies otherwise in memory


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}[a.dtype]
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)
        if a.dtype != torch.bfloat16:
            assert torch.equal(a == 0, b == 0)


def test_total_is_the_sum_of_the_values(penalty, dtype):
    ws = tensors(dtype)
    expected = sum(penalty.value(w) for w in ws)
    found = total(penalty, ws)
    assert found.dtype == expected.dtype
    assert found.shape == ()
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("factor", [0.7, torch.tensor(0.7, dtype=torch.float64)], ids=["number", "tensor"])
def test_gradients_are_the_penalty_s_times_a_factor(penalty, dtype, factor):
    ws = tensors(dtype)
    expected = [(penalty.grad(w) * float(factor)).to(dtype) for w in ws]
    assert_same(gradients(penalty, ws, factor), expected)
    before = [torch.randn_like(w) for w in ws]
    grads = [g.clone() for g in before]
    add_gradients_(penalty, ws, grads, factor)
    assert_same(grads, [g + e for g, e in zip(before, expected, strict=True)])


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("step", STEPS)
def test_the_prox_is_the_penalty_s_no_further_than_the_limits(penalty, dtype, step, limit):
    ws = tensors(dtype)
    steps = [STEPS[step](w, i) for i, w in enumerate(ws)]
    limits = None if LIMITS[limit] is None else [LIMITS[limit](w, i) for i, w in enumerate(ws)]
    expected = [penalty.prox(w, s) for w, s in zip(ws, steps, strict=True)]
    if limits is not None:
        expected = [limited(u, w, most) for u, w, most in zip(expected, ws, limits, strict=True)]
        assert all(bool(((u - w).abs() <= m + 1e-2).all()) for u, w, m in zip(expected, ws, limits, strict=True))
    found = [w.clone() for w in ws]
    prox_(penalty, found, [s.clone() if isinstance(s, torch.Tensor) else s for s in steps], limits)
    assert_same(found, expected)


def test_what_is_within_the_limit_keeps_every_bit():
    w, moved = torch.tensor([1e-8, 1.0, -1.0]), torch.tensor([0.3e-8, 0.95, 1.0])
    assert limited(moved, w, 0.1).tolist() == pytest.approx([0.3e-8, 0.95, -0.9])
    assert torch.equal(limited(moved, w, 0.1)[:2], moved[:2])


def test_a_split_gives_the_prox_and_what_it_took(penalty, dtype):
    for w in tensors(dtype):
        z, rest = w.clone(), torch.full_like(w, 7.0)
        split_(penalty, z, 0.7, rest)
        expected = penalty.prox(w, 0.7).to(w.dtype)
        assert_same([z], [expected])
        assert_same([rest], [w - expected])


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that an operation makes; views and what is written to are not made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        known = {
            each.untyped_storage().data_ptr() for each in pytree.tree_leaves(args) if isinstance(each, torch.Tensor)
        }
        for each in pytree.tree_leaves(made):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in known:
                self.size = max(self.size, each.numel())
        return made


@pytest.mark.parametrize(
    "penalty", [L1(0.3), L2(0.2), ElasticNet(0.3, 0.2), GroupLasso(0.3), GroupLasso(0.3, dim=1)], ids=str
)
@torch.no_grad()
def test_nothing_as_large_as_a_large_weight_is_made(monkeypatch, penalty):
    for module in (proximal, multitensor):
        monkeypatch.setattr(module, "BLOCK", 20)
    w, grad = torch.randn(30, 10), torch.randn(30, 10)
    for act in (
        lambda: total(penalty, [w]),
        lambda: add_gradients_(penalty, [w], [grad], 0.7),
        lambda: prox_(penalty, [w], [0.5]),
    ):
        with Largest() as largest:
            act()
        assert largest.size <= 30


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e37])
def test_norms_of_groups_whose_squares_would_be_lost(scale):
    w = torch.randn(5, 7) * scale
    w[2] = 0.0
    w[3] = 1e-44  # a number, whose square is none
    penalty = GroupLasso(0.3)
    torch.testing.assert_close(total(penalty, [w]), penalty.value(w), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients(penalty, [w], 0.7)[0], 0.7 * penalty.grad(w), rtol=1e-6, atol=1e-30)
    assert gradients(penalty, [w], 0.7)[0][3].abs().min() > 0


def test_a_weak_pull_on_a_large_group_keeps_its_digits():
    w = torch.full((2, 5), 1e33)
    for penalty, factor in ((GroupLasso(1e-12), 1.0), (GroupLasso(1e-6), 1e-4)):
        found = gradients(penalty, [w], factor)[0]
        torch.testing.assert_close(found, (penalty.grad(w.double()) * factor).float(), rtol=1e-6, atol=0)
