"""value(), scale, sparsity, summary, state: against the tutorial's sums and autograd."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchshrink as ts
from torchshrink.errors import AttachmentError, InputError, ObjectiveWarning
from torchshrink.penalties import multitensor
from torchshrink.regularizer.terms import bundles, fused_value, plain_value


def mlp(dtype=torch.float32):
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)


def tutorial(model, kind, strength):
    """What people write by hand."""
    if kind is ts.L1:
        return strength * sum(p.abs().sum() for p in model.parameters())
    return strength * sum(p.pow(2).sum() for p in model.parameters())


def relative_error(found, expected):
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("kind", [ts.L1, ts.L2])
@pytest.mark.parametrize("build", [mlp, lambda: nn.Sequential(*[nn.Linear(64, 64) for _ in range(12)])])
def test_value_and_gradient_are_the_tutorials(kind, build):
    model = build()
    value = ts.Regularizer(model, kind(0.3), on=ts.ALL).value()
    expected = tutorial(model, kind, 0.3)
    assert relative_error(value, expected) <= 1e-6
    found = torch.autograd.grad(value, list(model.parameters()))
    for a, b in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        assert relative_error(a, b) <= 1e-6


def test_the_default_leaves_out_biases_and_says_so():
    model = mlp()
    reg = ts.Regularizer(model, ts.L2(1.0))
    expected = sum(p.square().sum() for n, p in model.named_parameters() if n.endswith("weight"))
    torch.testing.assert_close(reg.value(), expected)
    assert "0.bias" in reg.summary().split("exempt:")[1]


PENALTIES = [ts.L1(0.3), ts.L2(0.3), ts.ElasticNet(0.1, 0.2), ts.GroupLasso(0.3), ts.SparseGroupLasso(0.1, 0.2)]


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_fast_paths_are_the_plain_ones(penalty, dtype):
    tensors = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((5, 3), (4,), (2, 3, 3))]
    with torch.no_grad():
        tensors[0][0] = 0.0
    tol = {"rtol": 1e-5, "atol": 1e-6} if dtype != torch.bfloat16 else {"rtol": 2e-2, "atol": 2e-2}
    fused = fused_value(bundles((penalty, w) for w in tensors))
    plain = plain_value(bundles((penalty, w) for w in tensors))
    torch.testing.assert_close(fused, plain, **tol)
    both = torch.autograd.grad(fused, tensors), torch.autograd.grad(plain, tensors)
    torch.testing.assert_close(*both, **tol)
    for factor in (-2.0, torch.tensor(3.0)):
        expected = [penalty.grad(w.detach()) * factor for w in tensors]
        with torch.no_grad():
            torch.testing.assert_close(
                multitensor.gradients(penalty, tensors, factor), expected, check_dtype=False, **tol
            )
            grads = [torch.ones_like(w) for w in tensors]
            multitensor.add_gradients_(penalty, tensors, grads, factor)
            torch.testing.assert_close(grads, [1 + e for e in expected], check_dtype=False, **tol)
    for make_step in (lambda w: 0.7, lambda w: torch.tensor(0.7), lambda w: torch.rand(w.shape).to(w.dtype) + 0.1):
        steps = [make_step(w) for w in tensors]
        copies = [w.detach().clone() for w in tensors]
        given = [step.clone() if isinstance(step, torch.Tensor) else step for step in steps]  # may be overwritten
        multitensor.prox_(penalty, copies, given)
        expected = [penalty.prox(w.detach(), step) for w, step in zip(tensors, steps, strict=True)]
        torch.testing.assert_close(copies, expected, **tol)
        assert [(c == 0).sum() for c in copies] == [(e == 0).sum() for e in expected]


SECOND = [ts.L1(0.5), ts.L2(0.5), ts.ElasticNet(0.3, 0.2), ts.GroupLasso(0.5), ts.GroupLasso(0.5, dim=1)]
SECOND += [ts.SparseGroupLasso(0.3, 0.2), ts.MCP(0.5)]


@pytest.mark.parametrize("penalty", SECOND, ids=str)
@pytest.mark.parametrize("factor", [1.0, 0.3], ids=["alone", "scaled"])
def test_value_has_second_derivatives(penalty, factor):
    """Those of the sum of the penalties' own values, which autograd takes by itself."""
    model = mlp(torch.float64)
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    along = [torch.randn_like(w) for w in weights]

    def second(value):
        first = torch.autograd.grad(factor * value, weights, create_graph=True)
        slope = sum((g * v).sum() for g, v in zip(first, along, strict=True))
        return torch.autograd.grad(slope, weights, materialize_grads=True) if slope.requires_grad else None

    ours = second(ts.Regularizer(model, penalty).value())
    theirs = second(plain_value(bundles((penalty, w) for w in weights)))
    if theirs is None:  # autograd's own second derivative of |w| is none at all
        theirs = [torch.zeros_like(w) for w in weights]
    for mine, expected in zip(ours or [torch.zeros_like(w) for w in weights], theirs, strict=True):
        torch.testing.assert_close(mine, expected)


def test_value_of_a_changed_weight_is_refused_by_autograd():
    model = mlp()
    value = ts.Regularizer(model, ts.L2(0.5)).value()
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_rules_mix_penalties_and_dtypes():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.float64), nn.Embedding(5, 4))
    reg = ts.Regularizer(model, {"0.*": ts.L1(0.1), nn.Linear: ts.L2(0.2), nn.Embedding: None})
    expected = 0.1 * model[0].weight.abs().sum() + 0.2 * model[1].weight.square().sum()
    torch.testing.assert_close(reg.value(), expected, check_dtype=False)
    reg.value().backward()
    assert model[2].weight.grad is None


def test_a_mask_of_half_precision_is_summed_in_float32():
    model = nn.Linear(1000, 1000, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    value = ts.Regularizer(model, ts.L1(1.0)).value()
    assert value.dtype == torch.float32
    assert value == 1_000_000


def test_scale_multiplies_every_strength():
    model = mlp()
    reg = ts.Regularizer(model, {"0.*": ts.L1(0.1), "2.*": ts.ElasticNet(0.1, 0.3)})
    full = reg.value()
    reg.scale = 0.5
    torch.testing.assert_close(reg.value(), full / 2)
    reg.scale = lambda step: step / 10
    assert reg.value() == 0
    reg.steps = 5
    torch.testing.assert_close(reg.value(), full / 2)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "half", None, True])
def test_a_bad_scale_is_refused(bad):
    with pytest.raises(InputError, match="scale="):
        ts.Regularizer(mlp(), ts.L1(0.1)).scale = bad


def test_a_schedule_that_returns_nonsense_is_refused_where_it_is_used():
    reg = ts.Regularizer(mlp(), ts.L1(0.1))
    reg.scale = lambda step: -1.0
    with pytest.raises(InputError, match=r"scale=-1\.0"):
        reg.value()


def test_sparsity_counts_exact_zeros_and_zero_groups():
    model = mlp()
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].weight[2, 3] = 0.0
        model[0].weight[3, 3] = 1e-30  # small is not zero
    sparsity = ts.Regularizer(model, {"0.*": ts.GroupLasso(0.1), "2.*": ts.L1(0.1)}).sparsity()
    assert (sparsity.zeros, sparsity.total) == (9, 48 + 18)
    assert (sparsity.groups_zero, sparsity.groups) == (1, 6)
    assert str(sparsity) == "9 of 66 weights are exactly zero (13.6 %); 1 of 6 groups"
    assert sparsity.to_dict()["by_parameter"][0]["groups_zero"] == 1


def test_summary_has_each_parameter_once_with_rule_method_and_reason():
    model = mlp()
    reg = ts.Regularizer(model, {"0.*": ts.GroupLasso(0.1), nn.Linear: ts.L2(0.2)})
    with reg.attach(torch.optim.SGD(model.parameters(), lr=0.1)):
        text = reg.summary()
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "GroupLasso(0.1, dim=0)" in rows["0.weight"]
    assert "prox" in rows["0.weight"]
    assert "gradient" in rows["2.weight"]
    assert "bias" in rows["0.bias"]
    assert [f"detached; was {how}" in reg.summary() for how in ("prox", "gradient", "loss")] == [True, True, False]
    reg.value().backward()
    assert "detached" not in reg.summary()
    assert "loss" in reg.summary()
    assert "scale" not in text
    reg.scale = 2
    assert "L2(0.4)" in reg.summary()


@pytest.mark.parametrize(("first", "second"), [("gradient", "gradient"), ("gradient", "prox"), ("prox", "gradient")])
def test_the_same_penalty_attached_twice_is_told(first, second):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ts.Regularizer(model, ts.L2(0.1)).attach(optimizer, first)
    ts.Regularizer(model, ts.L2SP(0.1)).attach(optimizer)  # another one is a sum that was meant
    with pytest.warns(ObjectiveWarning, match=r"0\.weight: L2\(0\.2\) acts in addition to another .* L2\(0\.1\)"):
        ts.Regularizer(model, ts.L2(0.2)).attach(optimizer, second)


def test_steps_of_several_optimizers_are_counted_in_rounds():
    model, seen = mlp(), []
    often, rarely = (torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (model[0], model[2]))
    reg = ts.Regularizer(model, ts.L2(0.1))
    reg.scale = lambda step: seen.append((name, step)) or 1.0

    def step(optimizer, which):
        nonlocal name
        name = which
        model(torch.ones(1, model[0].in_features)).sum().backward()
        optimizer.step()

    name = ""
    reg.attach([often, rarely])
    for turn in range(6):
        step(often, "often")
        if turn % 3 == 2:
            step(rarely, "rarely")
    assert [*dict.fromkeys(seen)] == [
        ("often", 0), ("often", 1), ("often", 2), ("rarely", 2),
        ("often", 3), ("often", 4), ("often", 5), ("rarely", 5),
    ]  # fmt: skip
    assert reg.steps == reg.state_dict()["steps"] == 6
    step(often, "often")
    assert reg.steps == 7  # one of them has taken it
    step(rarely, "rarely")
    assert reg.steps == 7
    reg.detach()
    assert reg.steps == 7


def test_state_dict_round_trip():
    reg, other = ts.Regularizer(mlp(), ts.L1(0.1)), ts.Regularizer(mlp(), ts.L1(0.1))
    reg.scale, reg.steps = 0.25, 17
    other.load_state_dict(reg.state_dict())
    assert (other.scale, other.steps) == (0.25, 17)
    with pytest.raises(InputError, match="keys"):
        other.load_state_dict({"steps": 1})


def test_a_replaced_parameter_is_noticed():
    model = mlp()
    reg = ts.Regularizer(model, ts.L1(0.1))
    model.load_state_dict(mlp().state_dict(), assign=True)
    with pytest.raises(AttachmentError, match=r"0\.weight: the model's parameter is no longer the one"):
        reg.value()
    with pytest.raises(AttachmentError, match="make a new Regularizer"):
        reg.attach(torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_moved_model_is_still_bound():
    model = mlp()
    reg = ts.Regularizer(model, ts.L1(0.1))
    model.double()
    assert reg.value().dtype == torch.float64


@pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
def test_value_inside_torch_compile_falls_back_to_the_plain_sum():
    model = mlp()
    reg = ts.Regularizer(model, ts.GroupLasso(0.1))
    compiled = torch.compile(reg.value, backend="eager")
    torch.testing.assert_close(compiled(), reg.value())


def test_groups_that_a_parameter_cannot_have_are_named_at_binding():
    model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"1\.weight, of shape \(2, 4\): dim=2"):
        ts.Regularizer(model, ts.GroupLasso(0.1, dim=2))
    ts.Regularizer(model, {"0.*": ts.GroupLasso(0.1, dim=2)})


@pytest.mark.parametrize("penalty", [ts.L1(0.05), ts.GroupLasso(0.1)])
def test_the_zeros_of_the_last_step_are_put_back_into_an_average(penalty):
    torch.manual_seed(0)
    X, y = torch.randn(40, 6), torch.randn(40, 3)
    model = nn.Linear(6, 3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    reg = ts.Regularizer(model, penalty).attach(optimizer)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()
        optimizer.step()
        average.update_parameters(model)

    @torch.no_grad()
    def objective():
        return float(nn.functional.mse_loss(average(X), y) + penalty.value(average.module.weight))

    lost, before = average.module.weight.clone(), objective()
    reg.hold_zeros(average)
    zeros = model.weight == 0
    assert int(zeros.sum()) > int((lost == 0).sum())
    assert torch.equal(average.module.weight, torch.where(zeros, 0.0, lost))
    assert objective() < before
    support = reg.support()
    nn.init.zeros_(model.weight)
    reg.hold_zeros(average, support)  # that of then
    assert torch.equal(average.module.weight == 0, zeros)
    for other in (nn.Linear(5, 3), nn.Sequential(nn.Linear(6, 3))):
        untouched = [p.clone() for p in other.parameters()]
        with pytest.raises(InputError, match=r"hold_zeros: weight: .* expected"):
            reg.hold_zeros(other)
        assert all(map(torch.equal, other.parameters(), untouched))
