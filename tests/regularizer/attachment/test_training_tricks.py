"""Training as people do it: gradients that are accumulated, clipped or scaled, closures, and what is not finite.

Every situation is exact against a run that spells it out, or speaks up. The list of them is in `situations`.
"""

import importlib
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import torchshrink as ts
from situations import (
    MAKE,
    PENALTIES,
    SITUATIONS,
    TESTS,
    LatentByHand,
    both,
    closure_of,
    covers,
    difference,
    each_method,
    few,
    mean_loss,
    net,
    one_step,
    plain,
    same_bits,
    shrink,
    start,
    values,
)
from torchshrink.errors import AttachmentError, ObjectiveWarning
from torchshrink.regularizer.attachment.attachment import _masked


def test_every_listed_situation_has_a_test_and_a_place_in_the_documentation():
    for module in ("test_training_rates", "test_training_models", "test_training_copies"):
        importlib.import_module(module)
    assert set(TESTS) == set(SITUATIONS)
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    in_bold = set(re.findall(r"\*\*(.+?)\*\*", page))
    assert set(SITUATIONS) <= in_bold


# --- gradients: accumulated, clipped, scaled ---


@covers("accumulation")
@few
@each_method
def test_four_micro_batches_are_one_batch(make, method):
    model, optimizer, _ = start(make, method, torch.float64)
    for _ in range(6):
        optimizer.zero_grad()
        for part in torch.arange(24).chunk(4):
            (mean_loss(model, part) / 4).backward()
        optimizer.step()
    assert difference(values(model), plain(make, method, dtype=torch.float64)) <= 1e-12


@covers("accumulation")
def test_in_the_loss_the_penalty_must_be_divided_as_the_loss_is():
    def accumulate(total):
        model = net(torch.float64)
        optimizer = MAKE["SGD"](model.parameters())
        reg = ts.Regularizer(model, PENALTIES["gradient"])
        for _ in range(6):
            optimizer.zero_grad()
            for part in torch.arange(24).chunk(4):
                total(mean_loss(model, part), reg.value()).backward()
            optimizer.step()
        return values(model)

    expected = plain("SGD", "gradient", dtype=torch.float64)
    assert difference(accumulate(lambda loss, penalty: (loss + penalty) / 4), expected) <= 1e-12
    assert difference(accumulate(lambda loss, penalty: loss / 4 + penalty), expected) > 1e-3  # 4 times the strength


CLIPS = {
    "norm": (lambda model, at: nn.utils.clip_grad_norm_(model.parameters(), at), 0.3),
    "value": (lambda model, at: nn.utils.clip_grad_value_(model.parameters(), at), 0.02),
}


@covers("clipping by norm", "clipping by value")
@pytest.mark.parametrize("clip", CLIPS)
@few
@both
def test_the_clip_bounds_the_loss_gradient_alone(clip, make, method):
    clip_, at = CLIPS[clip]
    model, optimizer, _ = start(make, method, torch.float64)
    by_hand = net(torch.float64)
    reference = MAKE[make](by_hand.parameters())
    weights = [p for p in by_hand.parameters() if p.ndim == 2]
    latent = LatentByHand(reference, weights, 0.01)
    for _ in range(6):
        optimizer.zero_grad()
        mean_loss(model).backward()
        clip_(model, at)
        optimizer.step()
        reference.zero_grad()
        mean_loss(by_hand).backward()
        clip_(by_hand, at)
        if method == "gradient":
            for w in weights:
                w.grad.add_(w.detach(), alpha=2 * 0.05)
        if method == "latent":
            latent.step(reference)
        else:
            reference.step()
        if method == "prox":
            shrink(reference, weights, 0.01)
    assert difference(values(model), values(by_hand)) <= 1e-12
    unclipped, optimizer, _ = start(make, method, torch.float64)
    for _ in range(6):
        optimizer.zero_grad()
        mean_loss(unclipped).backward()
        clip_(unclipped, 1e6)
        optimizer.step()
    assert difference(values(unclipped), values(model)) > 1e-4
    assert (
        difference(values(unclipped), plain(make, method, dtype=torch.float64)) <= 1e-12
    )  # an inactive clip is no clip


@covers("clipping by norm", "clipping by value")
@pytest.mark.parametrize("clip", CLIPS)
def test_in_the_loss_the_penalty_is_inside_the_clip(clip):
    clip_, at = CLIPS[clip]
    model = net()
    (mean_loss(model) + ts.Regularizer(model, ts.L2(10.0)).value()).backward()
    clip_(model, at)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradients.norm() if clip == "norm" else gradients.abs().max(), torch.tensor(at))


KERNELS = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


@covers("GradScaler")
@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("make", MAKE)
@each_method
def test_loss_scaling_changes_no_bit(make, kernel, method, unscale_first):
    model, optimizer, reg = start(make, method, **KERNELS[kernel])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for _ in range(5):
        optimizer.zero_grad()
        scaler.scale(mean_loss(model)).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_value_(model.parameters(), 1e6)
        scaler.step(optimizer)
        scaler.update()
    assert same_bits(values(model), plain(make, method, steps=5, **KERNELS[kernel]))
    assert reg.steps == 5


@covers("skipped steps")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("overflow_at", [0, 2])
@each_method
def test_a_skipped_step_leaves_everything_alone(make, kernel, method, overflow_at):
    if (make, kernel, overflow_at) == ("momentum", "fused", 0):
        pytest.skip("torch's fused SGD keeps an uninitialised momentum buffer if its first step is skipped")
    sharp = [ts.L1(0.01), ts.GroupLasso(0.01), ts.MaxNorm(0.1), ts.L0Ball(ts.Gradual(0.2, steps=4))]
    penalties = [PENALTIES[method]] if PENALTIES[method].smooth else sharp
    for penalty in penalties:
        model, optimizer, reg = start(make, method, penalty=penalty, **KERNELS[kernel])
        reg.scale = lambda step: 1.0 + step if not penalty.constraint else 1.0  # noqa: B023
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(mean_loss(model)).backward()
            before, count = values(model), reg.steps
            if step == overflow_at:
                model[0].bias.grad[0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            assert same_bits(before, values(model)) == (step == overflow_at)
            assert reg.steps == count + (step != overflow_at)
        expected, optimizer, other = start(make, method, penalty=penalty, **KERNELS[kernel])
        other.scale = reg.scale
        for _ in range(3):
            one_step(expected, optimizer)
        assert same_bits(values(model), values(expected))


@covers("skipped steps")
def test_what_a_device_has_skipped_is_counted_when_somebody_asks():
    reg = start("SGD")[2]
    schedule = reg._schedule
    for kept in (True, False, True, False, False):
        schedule.advance(torch.tensor(kept))
    assert reg.steps == 2
    schedule.advance(torch.tensor(False))
    reg.steps = 7
    assert reg.steps == 7


@covers("skipped steps")
@pytest.mark.parametrize("step", [0.3, torch.tensor([0.3, torch.inf, torch.nan])])
def test_a_step_that_only_the_device_knows_to_be_skipped_has_size_0(step):
    like = torch.zeros(3, dtype=torch.float64)
    kept, skipped = (_masked(step, torch.tensor(truth), like) for truth in (True, False))
    assert torch.equal(skipped, torch.zeros_like(skipped))
    torch.testing.assert_close(kept, torch.as_tensor(step), check_dtype=False, equal_nan=True)
    assert _masked(step, None, like) is step


@covers("GradScaler", "closures")
def test_loss_scaling_with_a_closure_is_refused():
    model, optimizer, _ = start("Adam", "gradient", fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    scaler.scale(mean_loss(model)).backward()
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):  # torch's own
        scaler.step(optimizer, closure=lambda: mean_loss(model))
    with pytest.raises(AttachmentError, match="GradScaler cannot unscale what a closure computes"):
        scaler.step(optimizer, lambda: mean_loss(model))


@covers("autocast")
@pytest.mark.parametrize("penalty", [ts.Orthogonal(0.1), ts.L2(0.1)], ids=str)
def test_a_penalty_is_computed_in_full_precision_inside_autocast(penalty):
    model = net()
    reg = ts.Regularizer(model, penalty)
    outside = reg.value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reg.value()
        assert torch.equal(inside, outside)
        found = torch.autograd.grad(inside, model[0].weight)[0]
    assert torch.equal(found, torch.autograd.grad(outside, model[0].weight)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled = torch.compile(reg.value, backend="eager")()
    assert torch.equal(compiled, ts.Regularizer(model, penalty).value()) or difference([compiled], [outside]) <= 1e-6

    def train(step_inside):
        model, optimizer, _ = start("SGD", "gradient", penalty=penalty)
        for _ in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = mean_loss(model)
                if step_inside:
                    loss.backward()
                    optimizer.step()
            if not step_inside:
                loss.backward()
                optimizer.step()
        return values(model)

    assert same_bits(train(True), train(False))


@covers("bfloat16 weights")
@pytest.mark.parametrize("make", ["SGD", "momentum", "Adam"])
def test_half_precision_weights_stay_finite_and_a_prox_says_what_is_lost(make):
    model = net(torch.bfloat16)
    optimizer = MAKE[make](model.parameters())
    with pytest.warns(ObjectiveWarning, match=r"0\.weight is bfloat16, which rounds away a shrinkage below 0.004"):
        reg = ts.Regularizer(model, ts.L1(0.02)).attach(optimizer)
    for _ in range(50):
        one_step(model, optimizer)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert reg.sparsity().zeros > 0
    assert any("bfloat16" in note for note in reg.certify(closure_of(model)).notes)
    smooth = net(torch.bfloat16)
    ts.Regularizer(smooth, ts.L2(0.05)).attach(MAKE[make](smooth.parameters()))  # warnings are errors here


# --- closures and exceptions ---


@covers("closures")
@few
@each_method
@pytest.mark.parametrize("by_name", [True, False])
def test_a_closure_is_a_step(make, method, by_name):
    model, optimizer, reg = start(make, method)
    for _ in range(6):
        objective = optimizer.step(closure=closure_of(model)) if by_name else optimizer.step(closure_of(model))
    assert same_bits(values(model), plain(make, method))
    assert reg.steps == 6
    assert objective.requires_grad == (method not in ("gradient", "latent"))
    assert optimizer.step(lambda: None) is None


@covers("closures")
def test_a_closure_that_is_called_again_and_again_must_not_move_the_weights():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        ts.Regularizer(model, ts.L2(0.1)).attach(optimizer, method="decoupled")
    with pytest.raises(AttachmentError, match="LBFGS evaluates its closure more than once per step"):
        optimizer.step(closure_of(model))


@covers("closures")
@few
@each_method
def test_an_exception_in_a_closure_leaves_everything_as_it_was(make, method):
    model, optimizer, reg = start(make, method)

    def broken():
        raise KeyError("the loader's")

    for _ in range(6):
        before = values(model), reg.steps
        with pytest.raises(KeyError):
            optimizer.step(broken)
        assert same_bits(before[0], values(model))
        assert before[1] == reg.steps
        optimizer.step(closure_of(model))
    assert same_bits(values(model), plain(make, method))


# --- nothing there, or nonsense there ---


@covers("zero_grad")
@few
@each_method
@pytest.mark.parametrize("zero", ["set_to_none", "zeros", "by the model", "by hand"])
def test_gradients_may_be_zeroed_in_any_way(make, method, zero):
    model, optimizer, _ = start(make, method)
    for _ in range(6):
        if zero == "by the model":
            model.zero_grad()
        elif zero == "by hand":
            for p in model.parameters():
                p.grad = None
        else:
            optimizer.zero_grad(set_to_none=zero == "set_to_none")
        mean_loss(model).backward()
        optimizer.step()
    assert same_bits(values(model), plain(make, method))


@covers("no gradients")
@pytest.mark.parametrize("make", MAKE)
@each_method
def test_a_step_without_gradients_moves_nothing(make, method):
    model, optimizer, reg = start(make, method)
    before = values(model)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    assert same_bits(before, values(model))
    assert reg.steps == 2


@covers("non-finite values")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@few
@pytest.mark.parametrize(
    "penalty", [ts.L1(0.1), ts.ElasticNet(0.1, 0.1), ts.GroupLasso(0.1), ts.SparseGroupLasso(0.1, 0.1), ts.MCP(0.1),
                ts.SCAD(0.1), ts.MaxNorm(0.1), ts.L2(0.1), ts.LogSum(0.1), ts.UnitNorm(), ts.NonNegative(),
                ts.Box(-0.1, 0.1), ts.L0Ball(1), ts.NM(1, 2)], ids=str,
)  # fmt: skip
def test_a_diverged_weight_never_looks_like_a_zero(bad, make, penalty):
    model, optimizer, reg = start(make, "prox", penalty=penalty)
    one_step(model, optimizer)
    with torch.no_grad():
        model[0].weight[0, 0] = bad
    one_step(model, optimizer)
    assert not bool(model[0].weight[0, 0].isfinite())
    if not isinstance(penalty, ts.MCP | ts.SCAD):  # which are bounded, and so is tanh
        assert not reg.certify(closure_of(model)).ok(1e9)


@covers("non-finite values")
@few
def test_a_gradient_that_is_not_a_number_ends_in_a_weight_that_is_none(make):
    model, optimizer, reg = start(make, penalty=ts.L1(1e3))
    mean_loss(model).backward()
    model[0].weight.grad[1, 1] = torch.nan
    optimizer.step()
    assert bool(model[0].weight[1, 1].isnan())
    assert not reg.certify(closure_of(model)).ok(1e9)


@covers("clipping by norm")
@pytest.mark.parametrize(("clip", "keeps"), [(1.0, False), (3.0, True)])
def test_lambda_is_what_was_asked_for_only_where_the_clip_exceeds_the_pull_at_the_end(clip, keeps):
    torch.manual_seed(0)
    features = torch.randn(200, 30, dtype=torch.float64)
    target = features @ (2 * torch.randn(30, 1, dtype=torch.float64))
    model = nn.Linear(30, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    reg = ts.Regularizer(model, ts.L1(0.3)).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = (model(features) - target).square().mean()
        loss.backward()
        return loss

    for _ in range(2000):
        closure()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    closure()
    effective = model.weight.grad[model.weight != 0].abs().mean()
    norm = model.weight.grad.norm()
    assert float(effective) == pytest.approx(0.3 if keeps else 0.3 * float(norm) / clip, rel=1e-3)
    assert bool(effective > 6) is not keeps
    assert reg.certify(closure).ok() is keeps
