"""L2SP: towards the weights at binding, wherever these go afterwards."""

import copy
import pickle

import pytest
import torch

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.penalties import L2, L2SP
from torchshrink.testing import check_penalty
from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint

START = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)


def line():
    return torch.nn.Linear(3, 2, dtype=torch.float64)


def closure_of(model, optimizer, X, y):
    def closure():
        optimizer.zero_grad()
        loss = (model(X) - y).square().mean()
        loss.backward()
        return loss

    return closure


def test_towards_zero_it_is_l2_and_keeps_the_whole_contract():
    check_penalty(L2SP(0.3, anchor=0.0))


def test_values_by_hand():
    penalty = L2SP(0.5).bind(START)
    w = torch.tensor([[1.0, 0.0], [0.5, 3.0]], dtype=torch.float64)
    assert penalty.value(w) == 0.5 * (4 + 9)
    assert penalty.grad(w).tolist() == [[0.0, 2.0], [0.0, 3.0]]
    assert penalty.prox(w, 1.0).tolist() == [[1.0, -1.0], [0.5, 1.5]]  # (z + 2sλw⁰)/(1 + 2sλ), 2sλ = 1
    assert penalty.distance(w, -penalty.grad(w)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert torch.equal(penalty.distance(START, torch.ones_like(w)), torch.ones_like(w))


@pytest.mark.parametrize("shape", [(5, 3), (1, 1), (), (0, 3), (7,)])
def test_it_is_l2_of_the_difference(shape):
    w, anchor, g = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    steps = torch.rand(shape, dtype=torch.float64) * 5
    penalty, l2 = L2SP(0.4).bind(anchor), L2(0.4)
    torch.testing.assert_close(penalty.value(w), l2.value(w - anchor))
    torch.testing.assert_close(penalty.grad(w), l2.grad(w - anchor))
    torch.testing.assert_close(penalty.distance(w, g), l2.distance(w - anchor, g))
    for step in (0.0, 0.3, 1e6, steps):
        torch.testing.assert_close(penalty.prox(w, step), anchor + l2.prox(w - anchor, step))
    x = w.clone().requires_grad_()
    penalty.value(x).backward()
    torch.testing.assert_close(x.grad, penalty.grad(w))


def test_a_step_of_zero_leaves_every_bit_and_an_endless_one_ends_at_the_anchor():
    w, anchor = torch.randn(1000), 1e6 * torch.randn(1000)
    penalty = L2SP(0.3).bind(anchor)
    assert torch.equal(penalty.prox(w, 0.0), w)
    assert torch.equal(penalty.prox(w, torch.zeros(1000)), w)
    assert torch.equal(penalty.prox(w, torch.inf), anchor)
    assert torch.equal(penalty.prox(anchor, 0.7), anchor)


def test_no_strength_holds_weights_at_zero_unless_that_is_the_anchor():
    g = torch.tensor([1.0, 2.0])
    assert L2SP(0.1).bind(torch.ones(2)).critical_strength(g) == torch.inf
    assert L2SP(0.1).bind(torch.ones(2)).critical_strength(0 * g) == torch.inf
    assert L2SP(0.1).bind(torch.zeros(2)).critical_strength(0 * g) == 0


def test_half_precision_is_computed_in_float32():
    w, anchor = torch.randn(64).bfloat16(), torch.randn(64).bfloat16()
    penalty, exact = L2SP(0.3).bind(anchor), L2SP(0.3).bind(anchor.double())
    assert penalty.value(w).dtype == torch.float32
    torch.testing.assert_close(penalty.value(w).double(), exact.value(w.double()), rtol=1e-5, atol=0)
    assert torch.equal(penalty.prox(w, 0.5), exact.prox(w.double(), 0.5).bfloat16())


def test_each_lane_has_its_own_strength_and_anchor():
    strengths = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    w, anchors = torch.randn(2, 3, 4, dtype=torch.float64)
    steps = torch.rand(3, 4, dtype=torch.float64)

    def lane(strength, w, anchor, step):
        penalty = L2SP(strength, anchor)
        return penalty.value(w), penalty.prox(w, step), penalty.distance(w, step), penalty.critical_strength(w)

    batched = torch.func.vmap(lane)(strengths, w, anchors, steps)
    for i, strength in enumerate(strengths.tolist()):
        for found, expected in zip(batched, lane(strength, w[i], anchors[i], steps[i]), strict=True):
            torch.testing.assert_close(found[i], expected)


def test_unbound_it_says_so():
    for method in (lambda p: p.value(START), lambda p: p.grad(START), lambda p: p.prox(START, 1.0)):
        with pytest.raises(InputError, match=r"L2SP\(0.1\): not bound to weights yet.*\.bind\(w\)"):
            method(L2SP(0.1))


def test_an_anchor_must_fit():
    with pytest.raises(InputError, match=r"anchor of shape \(3,\) given.*\(2, 2\) expected"):
        L2SP(0.1, torch.zeros(3)).bind(START)
    with pytest.raises(InputError, match=r"anchor of shape \(1, 2, 2\)"):
        L2SP(0.1, torch.zeros(1, 2, 2)).value(START)
    with pytest.raises(InputError, match="anchor='x'"):
        L2SP(0.1, "x")
    assert L2SP(0.1, torch.ones(2)).bind(START).anchor.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert L2SP(0.1, torch.tensor([[1.0], [2.0]])).bind(START).anchor.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    with pytest.raises(InputError, match=r"anchor of shape \(2, 2\) given.*\(1, 2\) expected"):
        L2SP(0.1, torch.ones(2, 2)).value(START[:1])


def test_what_is_equal_has_one_hash():
    anchors = [float("1234.5"), float("1234.5")]  # two objects
    assert len({L2SP(0.3, anchor) for anchor in anchors}) == 1
    assert len({L2SP(0.3, START), L2SP(0.3, START)}) == 1


def test_equality_is_by_strength_and_by_the_very_anchor():
    bound = L2SP(0.1).bind(START)
    assert L2SP(0.1) == L2SP(0.1) != L2SP(0.2)
    assert L2SP(0.1, 0.0) != L2SP(0.1)
    assert bound == bound.with_strength(0.2).with_strength(0.1)
    assert bound != L2SP(0.1).bind(START)
    assert len({bound, bound.with_strength(0.1), L2SP(0.1), L2SP(0.1)}) == 2
    assert repr(bound) == "L2SP(strength=0.1)"
    assert L2SP(0.1) != L2(0.1)


# --- bound by a Regularizer ---


def test_the_regularizer_binds_each_parameter_to_what_it_is_now():
    model = torch.nn.Sequential(line(), torch.nn.Linear(2, 2, dtype=torch.float64))
    reg = ts.Regularizer(model, L2SP(0.5), on=ts.ALL)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert reg.value() == 0
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert reg.value().item() == pytest.approx(0.5 * sum(p.numel() for p in model.parameters()))
    for term in reg.terms:
        assert torch.equal(term.penalty.anchor, start[term.name])
    reg.scale = 2.0
    assert reg.value().item() == pytest.approx(1.0 * sum(p.numel() for p in model.parameters()))
    assert "L2SP(1)" in reg.summary()


@pytest.mark.parametrize("method", ["gradient", "prox"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_training_ends_at_ridge_around_the_starting_point(optimizer, method):
    X, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    start = model.weight.detach().clone()
    steps = optimizer(model.parameters(), lr=0.1 if optimizer is torch.optim.SGD else 0.01)
    reg = ts.Regularizer(model, L2SP(0.3)).attach(steps, method=method)
    for _ in range(1500):
        closure_of(model, steps, X, y)()
        steps.step()
    gram = X.T @ X / 40
    expected = torch.linalg.solve(gram + 0.3 * torch.eye(3), (X.T @ y / 40) + 0.3 * start.T).T
    torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-7)
    assert reg.certify(closure_of(model, steps, X, y)).ok(1e-5)


def test_the_anchor_follows_the_parameter_to_another_dtype():
    model = torch.nn.Linear(3, 2)
    reg = ts.Regularizer(model, L2SP(0.5))
    model.double()
    with torch.no_grad():
        model.weight.add_(1.0)
    assert reg.value().dtype == torch.float64
    assert reg.value().item() == pytest.approx(0.5 * 6)


def test_it_keeps_a_copy_not_the_weights_themselves():
    model = line()
    given = torch.zeros_like(model.weight)
    for penalty in (L2SP(0.5), L2SP(0.5, given)):
        anchor = ts.Regularizer(model, penalty).terms[0].penalty.anchor
        assert anchor.data_ptr() not in (model.weight.data_ptr(), given.data_ptr())
        assert not anchor.requires_grad


def trained(epochs, *, resume_from=None, save_to=None):
    torch.manual_seed(1)
    X, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    model = line()
    if resume_from is not None:  # as in life: the resumed run starts from the weights so far
        with torch.no_grad():
            model.weight.add_(5.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    reg = ts.Regularizer(model, L2SP(0.5)).attach(optimizer)
    if resume_from is not None:
        load_checkpoint(resume_from, model=model, optimizer=optimizer, regularizer=reg)
    for _ in range(epochs):
        closure_of(model, optimizer, X, y)()
        optimizer.step()
    if save_to is not None:
        save_checkpoint(save_to, model=model, optimizer=optimizer, regularizer=reg, progress={})
    return model.weight.detach().clone()


def test_a_resumed_run_still_pulls_towards_the_first_weights(tmp_path):
    whole = trained(20)
    trained(10, save_to=tmp_path / "half.safetensors")
    assert torch.equal(trained(10, resume_from=tmp_path / "half.safetensors"), whole)


def test_loading_reaches_what_is_attached_and_scaled_already():
    model = line()
    saved = ts.Regularizer(model, L2SP(0.5)).state_dict()
    with torch.no_grad():
        model.weight.add_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reg = ts.Regularizer(model, L2SP(0.5))
    reg.scale = 2.0
    assert reg.value() == 0
    reg.attach(optimizer)
    reg.load_state_dict({**saved, "scale": 2.0})
    assert reg.value().item() == pytest.approx(6.0)
    (model.weight.sum() * 0).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight - saved["bound"]["weight"]["anchor"], torch.full((2, 3), 0.8).double())


def test_a_state_of_other_rules_is_refused():
    model = line()
    bound, plain = ts.Regularizer(model, L2SP(0.5)), ts.Regularizer(model, L2(0.5))
    assert "bound" not in plain.state_dict()
    with pytest.raises(InputError, match=r"weight\.anchor"):
        plain.load_state_dict(bound.state_dict())
    with pytest.raises(InputError, match=r"weight\.anchor"):
        bound.load_state_dict(plain.state_dict())
    with pytest.raises(InputError, match=r"weight\.anchor.*\(2, 3\)"):
        bound.load_state_dict(ts.Regularizer(torch.nn.Linear(4, 2), L2SP(0.5)).state_dict())


def test_saved_tensors_do_not_change_afterwards():
    reg = ts.Regularizer(line(), L2SP(0.5))
    saved = reg.state_dict()["bound"]["weight"]["anchor"]
    reg.terms[0].penalty.anchor.add_(1.0)
    assert not torch.equal(saved, reg.terms[0].penalty.anchor)


def test_copies_and_pickles_keep_their_anchor():
    bound = L2SP(0.5).bind(START)
    for other in (copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):
        assert torch.equal(other.anchor, START)
        assert other.strength == 0.5
