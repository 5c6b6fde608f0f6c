"""Penalties on activations: what they sum to, their gradients, and hooks that come and go."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, SelectionError


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)).double()


X = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "penalty",
    [
        ts.L1(0.3),
        ts.L2(0.3),
        ts.ElasticNet(0.1, 0.2),
        ts.GroupLasso(0.3, dim=0),
        ts.GroupLasso(0.3, dim=()),
        ts.MCP(0.3),
    ],
)
def test_it_is_the_mean_over_examples_with_its_gradient(penalty):
    model = net()
    acts = ts.Activations(model, {"1": penalty})
    model(X)
    value = acts.value()
    by_hand = net()
    hidden = by_hand[1](by_hand[0](X))
    expected = torch.stack([penalty.value(row) for row in hidden]).mean()
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(model[0].weight.grad, by_hand[0].weight.grad)
    assert model[2].weight.grad is None


def test_patterns_classes_and_several_penalties_add_up():
    model = net()
    with ts.Activations(model, {nn.ReLU: ts.L1(0.1), "[13]": ts.L2(0.2)}) as acts:
        model(X)
        relu = model[1](model[0](X))
        tanh = model[3](model[2](relu))
        expected = 0.1 * relu.abs().sum() / 5 + 0.2 * relu.square().sum() / 5 + 0.2 * tanh.square().sum() / 5
        model(X)
        torch.testing.assert_close(acts.value(), expected)
        assert repr(acts) == "Activations(1, 3)"


def test_a_module_that_is_used_twice_counts_twice_and_only_the_last_pass_counts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(self.act(x) - 0.5)

    model = Twice()
    acts = ts.Activations(model, {"act": ts.L1(1.0)})
    for _ in range(3):
        model(X)
    first = X.relu()
    torch.testing.assert_close(acts.value(), (first.sum() + (first - 0.5).relu().sum()) / 5)


def test_examples_may_be_numbered_by_another_dimension():
    model = nn.Sequential(nn.Identity())
    acts = ts.Activations(model, {"0": ts.GroupLasso(1.0, dim=())}, batch_dim=1)
    x = torch.randn(7, 3, 2)
    model(x)
    expected = sum(14**0.5 * x[:, i].norm() for i in range(3)) / 3
    torch.testing.assert_close(acts.value(), expected)


def test_removed_nothing_is_left_behind():
    model = net()
    hooks = [dict(vars(module)) for module in model.modules()]
    with ts.Activations(model, {"*": ts.L1(0.1)}) as acts:
        model(X)
    after = [dict(vars(module)) for module in model.modules()]
    for before, now in zip(hooks, after, strict=True):
        assert {k: v for k, v in before.items() if "hooks" in k} == {k: v for k, v in now.items() if "hooks" in k}
    with pytest.raises(AttachmentError, match=r"remove\(\) has taken the hooks out"):
        acts.value()
    acts.remove()


def test_without_a_pass_or_of_a_part_that_was_left_out_it_says_so():
    model = net()
    acts = ts.Activations(model, {"1": ts.L1(0.1), "3": ts.L1(0.1)})
    with pytest.raises(AttachmentError, match=r"^1, 3: no activation recorded; call the model"):
        acts.value()
    model[1](X)
    with pytest.raises(AttachmentError, match=r"^3: no activation recorded"):
        acts.value()


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({"relu": ts.L1(0.1)}, SelectionError, "'relu' matches no module of this Sequential"),
        ({nn.GELU: ts.L1(0.1)}, SelectionError, "GELU matches no module"),
        ({"1": 0.1}, InputError, "'1': a float given, a penalty"),
        ({1: ts.L1(0.1)}, InputError, "1: a module's name, with wildcards, or a module class expected"),
        ({"1": ts.MaxNorm(1.0)}, InputError, "is a constraint"),
        ({"1": ts.L2SP(1.0)}, InputError, "towards the weights at binding"),
        ({}, InputError, "a mapping from module names or classes to penalties"),
        (ts.L1(0.1), InputError, "a mapping from module names or classes to penalties"),
    ],
)
def test_bad_rules_are_named(rules, error, message):
    model = net()
    with pytest.raises(error, match=message):
        ts.Activations(model, rules)
    assert not any(module._forward_hooks for module in model.modules())


def test_outputs_that_are_no_tensor_of_numbers_are_named():
    model = nn.Sequential(nn.LSTM(6, 3))
    ts.Activations(model, {"0": ts.L1(0.1)})
    with pytest.raises(InputError, match=r"^0 \(LSTM\) gives a tuple, a tensor of real numbers expected"):
        model(X.float())
    model = nn.Sequential(nn.Identity())
    ts.Activations(model, {"0": ts.L1(0.1)}, batch_dim=2)
    with pytest.raises(InputError, match=r"an output of shape \(5, 6\) has no dimension 2"):
        model(X)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
@pytest.mark.parametrize(
    ("penalty", "backend"), [(ts.L1(0.3), "inductor"), (ts.GroupLasso(0.3, dim=()), "aot_eager")], ids=str
)
def test_a_compiled_model_has_the_same_value_and_gradient(penalty, backend):
    model, plain = net(), net()
    acts, expected = ts.Activations(model, {"1": penalty}), ts.Activations(plain, {"1": penalty})
    compiled = torch.compile(model, backend=backend)
    for x in (X, 2 * X):
        (compiled(x).square().mean() + acts.value()).backward()
        (plain(x).square().mean() + expected.value()).backward()
        torch.testing.assert_close(acts.value(), expected.value())
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_under_autocast_it_is_a_number_of_full_precision():
    model = net().float()
    acts = ts.Activations(model, {"0": ts.L2(1e-3)})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(100 * X.float())
        value = acts.value()
    assert value.dtype is torch.float32
    hidden = model[0](100 * X.float())
    torch.testing.assert_close(value, 1e-3 * hidden.square().sum() / 5, rtol=2e-2, atol=0.0)


def test_a_sparse_autoencoder_of_digits():
    X = torch.tensor(load_digits().data / 16, dtype=torch.float32)

    def trained(strength):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        with ts.Activations(model, {"1": ts.L1(strength)}) as acts:
            for _ in range(300):
                optimizer.zero_grad()
                (nn.functional.mse_loss(model(X), X) + acts.value()).backward()
                optimizer.step()
        with torch.no_grad():
            hidden = model[:2](X)
            error = nn.functional.mse_loss(model[2](hidden), X)
        return float((hidden > 0).float().mean()), float(error)

    (dense, error), (sparse, more) = trained(0.0), trained(1e-3)
    assert sparse < 0.5 * dense
    assert more < 0.03 < float(X.var(0).mean())
    assert error < more


# --- what is proved and polished ---

Y = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def objective(model, acts=None):
    loss = (model(X) - Y).square().mean()
    return loss if acts is None else loss + acts.value()


@pytest.mark.parametrize("by_loss", [False, True], ids=["by itself", "in the loss given"])
@pytest.mark.parametrize("rows", [2, 100])
def test_certify_counts_what_is_on_the_model_once(by_loss, rows, monkeypatch):
    monkeypatch.setattr("torchshrink.certifying.full_data.ROWS_AT_ONCE", rows)
    model = net()
    reg = ts.Regularizer(model, ts.L2(0.01))
    bare = ts.certify(model, (X, Y), reg)
    with ts.Activations(model, {"1": ts.L1(0.3)}) as acts:
        given = (lambda output, y: (output - y).square().mean() + acts.value()) if by_loss else None
        found = ts.certify(model, (X, Y), reg, loss=given)
        expected = objective(model, acts)
        grads = torch.autograd.grad(expected, model[0].weight)[0] + 0.02 * model[0].weight
    assert found.loss == pytest.approx(expected.item(), rel=1e-12)
    assert found.loss > bare.loss + 0.1
    assert found.parameters[0].distance == pytest.approx(grads.norm().item(), rel=1e-9)
    assert found.notes == ("the mean loss has the value of Activations(1) in it",)
    assert ts.certify(model, (X, Y), reg) == bare


def test_polish_minimises_what_is_on_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    reg = ts.Regularizer(model, ts.L2(0.01), on=ts.ALL)
    with ts.Activations(model, {"1": ts.L2(0.3)}) as acts:
        polished = ts.polish(model, (X, Y), reg, tol=1e-6)
        total = objective(model, acts) + reg.value()
        slopes = torch.autograd.grad(total, [*model.parameters()])
    assert polished.converged
    assert max(float(slope.abs().max()) for slope in slopes) <= 1e-6
    assert polished.certificate.notes == ("the mean loss has the value of Activations(1) in it",)


def test_a_closure_that_leaves_it_out_is_told():
    model = net()
    reg = ts.Regularizer(model, ts.L2(0.01))
    with ts.Activations(model, {"1": ts.L1(0.3)}) as acts:
        for asked in (None, acts):

            def closure(asked=asked):
                model.zero_grad()
                loss = objective(model, asked)
                loss.backward()
                return loss

            (note,) = reg.certify(closure).notes
            assert ("left its value() out" in note) == (asked is None)


def test_a_linear_model_with_activations_has_no_duality_gap():
    model = nn.Sequential(nn.Linear(6, 1)).double()
    reg = ts.Regularizer(model, ts.L1(0.1))
    with ts.Activations(model, {"0": ts.L2(0.3)}):
        assert ts.certify(model, (X, Y), reg).gap is None
        with pytest.raises(InputError, match=r"Activations are on the model.*remove"):
            ts.duality_gap(model, (X, Y), reg)
    assert ts.certify(model, (X, Y), reg).gap is not None
