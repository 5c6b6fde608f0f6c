"""Training with rates and strengths that change, and with several groups: exact, or it speaks up."""

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import torchshrink as ts
from situations import (
    MAKE,
    attached,
    both,
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
from torchshrink.errors import ObjectiveWarning
from torchshrink.regularizer.terms import Schedule

# --- rates and strengths that change ---

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR from 0.001": lambda o: lr_scheduler.LinearLR(o, 1e-3, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR to 0": lambda o: lr_scheduler.PolynomialLR(o, 4),
    "CosineAnnealingLR to 0": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.0, 0.1, step_size_up=2, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),  # cycles momentum and betas too
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=10.0),
    "warm-up from 0": lambda o: lr_scheduler.LambdaLR(o, lambda t: t / 4),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.5)], [3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.5)]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.01, anneal_epochs=3),
}


@covers("lr schedulers")
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR of torch 2.6 warns of itself
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("make", ["momentum", "Adam"])
def test_the_prox_follows_the_rate_of_its_step(name, make):
    model, optimizer, _ = start(make, dtype=torch.float64)
    scheduler = SCHEDULERS[name](optimizer)
    by_hand = net(torch.float64)
    reference = MAKE[make](by_hand.parameters())
    theirs = SCHEDULERS[name](reference)
    weights = [p for p in by_hand.parameters() if p.ndim == 2]
    for _ in range(8):
        one_step(model, optimizer)
        one_step(by_hand, reference)
        shrink(reference, weights, 0.01)
        for each, its_model in ((scheduler, model), (theirs, by_hand)):
            each.step(*([mean_loss(its_model).item()] if name == "ReduceLROnPlateau" else []))
    assert difference(values(model), values(by_hand)) <= 1e-12
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@covers("warm-up", "lr schedulers")
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    "optimizer_class",
    ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Adafactor"],
)
def test_at_rate_0_nothing_moves(optimizer_class, as_tensor):
    penalties = [ts.L1(9.0), ts.ElasticNet(9.0, 9.0), ts.GroupLasso(9.0), ts.SparseGroupLasso(9.0, 9.0), ts.MCP(9.0)]
    penalties += [ts.SCAD(9.0), ts.LogSum(9.0), ts.MaxNorm(0.01), ts.UnitNorm(), ts.L0Ball(1), ts.NM(1, 2)]
    penalties += [ts.NonNegative(), ts.Box(3.0, 4.0)]
    for penalty in penalties:
        model = net()
        with torch.no_grad():
            model[0].weight[0] = 0.0
        more = {"weight_decay": 0.0} if optimizer_class in ("AdamW", "Adafactor") else {}
        if optimizer_class == "ASGD":
            more = {"lambd": 0.0}
        lr = 0.0
        if as_tensor:
            lr, more = torch.tensor(0.0), {**more, "foreach": False}
        optimizer = getattr(torch.optim, optimizer_class)(model.parameters(), lr=lr, **more)
        attached(model, optimizer, "prox", penalty)
        before = values(model)
        for _ in range(2):
            one_step(model, optimizer)
        assert same_bits(before, values(model)), penalty


@covers("lr schedulers")
@few
@each_method
def test_a_rate_that_is_a_tensor_is_that_rate(make, method):
    rates = {"SGD": 0.1, "momentum": 0.05, "Adam": 0.01}
    model, optimizer, _ = start(make, method, foreach=False)
    optimizer.param_groups[0]["lr"] = torch.tensor(rates[make])
    for _ in range(6):
        one_step(model, optimizer)
    assert difference(values(model), plain(make, method, foreach=False)) <= 1e-6


@covers("strength schedules")
@few
@both
def test_a_strength_that_changes_is_the_strength_of_its_step(make, method):
    model, optimizer, reg = start(make, method)
    reg.scale = lambda step: step / 3
    by_hand, reference, other = start(make, method)
    for step in range(6):
        one_step(model, optimizer)
        other.scale = step / 3
        one_step(by_hand, reference)
    assert same_bits(values(model), values(by_hand))
    assert reg.steps == 6


@covers("strength schedules")
def test_several_penalties_share_a_schedule():
    model = net()
    reg = ts.Regularizer(model, {"0.*": ts.L1(0.1), "2.*": ts.L2(0.2)})
    reg.scale = lambda step: 0.5
    expected = 0.05 * model[0].weight.abs().sum() + 0.1 * model[2].weight.square().sum()
    for _ in range(3):
        torch.testing.assert_close(reg.value(), expected)


@covers("strength schedules", "deepcopy")
def test_a_copied_schedule_never_takes_one_penalty_for_another_that_had_its_id():
    schedule, first, second = Schedule(), ts.L1(0.2), ts.L1(0.6)
    schedule.scale = 0.5
    assert schedule.scaled(first) == ts.L1(0.1)
    schedule._scaled[id(second)] = schedule._scaled.pop(id(first))  # as after a copy, by chance
    assert schedule.scaled(second) == ts.L1(0.3)


@covers("schedules without an optimizer")
def test_a_schedule_that_nobody_counts_speaks_up_once_and_one_that_is_counted_does_not():
    model = net()
    reg = ts.Regularizer(model, ts.L1(0.1))
    reg.scale = lambda step: min(1.0, step / 10)
    reg.value().backward()  # step 0 is right
    with pytest.warns(ObjectiveWarning, match="stays at step 0.*set reg.steps in each step, or attach"):
        reg.value().backward()
    reg.value().backward()
    counted = ts.Regularizer(model, ts.L1(0.1))
    counted.scale = reg.scale
    for step in range(3):
        counted.steps = step
        counted.value().backward()
