"""Copies, checkpoints, averages, and others in the same optimizer: exact, or they speak up."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchshrink as ts
from situations import (
    MAKE,
    PENALTIES,
    attached,
    both,
    closure_of,
    covers,
    each_method,
    mean_loss,
    net,
    one_step,
    plain,
    same_bits,
    start,
    values,
)
from torchshrink.errors import AttachmentError, ObjectiveWarning, StepSizeError
from torchshrink.step_sizes import same_step_size

# --- copies and checkpoints ---


@covers("deepcopy")
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy])
def test_a_copied_optimizer_says_that_it_has_no_penalty(duplicate):
    optimizer = start()[1]
    with pytest.warns(ObjectiveWarning, match=r"this copy of Adam .* trains without the penalty.*attach"):
        twin = duplicate(optimizer)
    assert "__reduce_ex__" not in vars(twin)
    duplicate(twin)  # warnings are errors here: the copy is an ordinary optimizer


@covers("deepcopy")
def test_model_optimizer_and_regularizer_are_copied_together_but_for_the_hooks():
    model, optimizer, reg = start("momentum")
    one_step(model, optimizer)
    with pytest.warns(ObjectiveWarning) as caught:
        model_2, optimizer_2, reg_2 = copy.deepcopy((model, optimizer, reg))
    messages = " ".join(str(warning.message) for warning in caught)
    assert "trains without the penalty" in messages
    assert "the copy of an attached Regularizer is not attached" in messages
    assert reg_2.terms[0].parameter is model_2[0].weight
    reg_2.attach(optimizer_2)
    for each in ((model, optimizer), (model_2, optimizer_2)):
        for _ in range(3):
            one_step(*each)
    assert same_bits(values(model), values(model_2))
    assert reg_2.steps == reg.steps == 4
    reg_2.scale = 0.5
    torch.testing.assert_close(reg_2.value(), reg.value() / 2)


@covers("pickling")
@pytest.mark.parametrize("save", [pickle.dumps, lambda o: torch.save(o, io.BytesIO())])
def test_a_pickled_optimizer_says_that_it_has_no_penalty(save):
    _, optimizer, reg = start()
    with pytest.warns(ObjectiveWarning, match=r"this copy of Adam .* save optimizer\.state_dict\(\)"):
        save(optimizer)
    save(optimizer.state_dict())
    reg.detach()
    save(optimizer)


@covers("deepcopy", "failed attachment")
def test_detached_the_optimizer_is_as_it_was():
    model = net()
    optimizer = MAKE["Adam"](model.parameters())
    before = {name: copy.copy(value) for name, value in vars(optimizer).items()}
    first, second = (ts.Regularizer(model, rules) for rules in ({"0.weight": ts.L1(0.1)}, {"2.weight": ts.L1(0.1)}))
    first.attach(optimizer)
    second.attach(optimizer)
    first.detach()
    with pytest.warns(ObjectiveWarning, match="trains without the penalty"):
        copy.deepcopy(optimizer)
    second.detach()
    assert vars(optimizer) == before


@covers("failed attachment")
def test_an_attachment_that_fails_leaves_nothing_behind():
    model = net()
    for make, penalty, error in (
        (lambda p: torch.optim.LBFGS(p), ts.L1(0.1), StepSizeError),
        (lambda p: torch.optim.SGD(list(p)[2:], lr=0.1), ts.L1(0.1), AttachmentError),
        (lambda p: torch.optim.AdamW(p), ts.L1(0.1), ObjectiveWarning),  # a warning, raised
        (lambda p: torch.optim.SGD(p, lr=0.1), ts.Orthogonal(0.1), AttachmentError),
    ):
        optimizer = make(model.parameters())
        before = {name: copy.copy(value) for name, value in vars(optimizer).items()}
        reg = ts.Regularizer(model, penalty)
        with pytest.raises(error):
            reg.attach(optimizer, method="prox")
        assert vars(optimizer) == before
        reg.detach()
        with pytest.raises(AttachmentError, match="attach first"), reg:
            pass


@covers("load_state_dict", "resuming")
@pytest.mark.parametrize("make", MAKE)
@each_method
@pytest.mark.parametrize("attach_first", [True, False])
def test_a_resumed_run_ends_bit_for_bit_the_same(make, method, attach_first):
    def fresh():
        model = net()
        optimizer = MAKE[make](model.parameters())
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 10)
        reg = ts.Regularizer(model, PENALTIES[method])
        reg.scale = lambda step: 1 / (1 + step)
        return model, optimizer, scheduler, reg

    def attach(reg, optimizer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ObjectiveWarning)
            reg.attach(optimizer, method=method.partition(" ")[0])

    def go(model, optimizer, scheduler):
        for _ in range(4):
            one_step(model, optimizer)
            scheduler.step()

    *run, reg = fresh()
    attach(reg, run[1])
    go(*run)
    saved = copy.deepcopy([part.state_dict() for part in (*run, reg)])
    go(*run)
    *again, other = fresh()
    if attach_first:
        attach(other, again[1])
    for part, state in zip((*again, other), saved, strict=True):
        part.load_state_dict(state)
    if not attach_first:
        attach(other, again[1])
    go(*again)
    assert same_bits(values(run[0]), values(again[0]))
    assert reg.steps == other.steps == 8


@covers("load_state_dict")
def test_a_loaded_state_may_bring_what_changes_the_objective():
    model, optimizer, reg = start("Adam")
    decayed = torch.optim.Adam(net().parameters(), weight_decay=0.02).state_dict()
    with pytest.warns(ObjectiveWarning, match=r"Adam\(weight_decay=0.02\).*L2\(0.01\) in addition"):
        optimizer.load_state_dict(decayed)
    assert any("weight_decay" in note for note in reg.certify(closure_of(model)).notes)
    one_step(model, optimizer)


@covers("load_state_dict", "strength schedules")
def test_an_optimizer_resumed_without_its_schedule_speaks_up():
    model, optimizer, reg = start("SGD")
    reg.scale = lambda step: 1.0
    optimizer.load_state_dict(optimizer.state_dict())
    with pytest.warns(ObjectiveWarning, match="the regularizer's schedule goes on from its own step 0; restore it"):
        one_step(model, optimizer)
    one_step(model, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    reg.load_state_dict({"steps": 1, "scale": None})
    one_step(model, optimizer)


@covers("EMA and SWA")
@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["SWA", "EMA"])
def test_an_average_has_its_own_certificate_and_few_zeros(average):
    model, optimizer, reg = start("SGD", penalty=ts.L1(0.03))
    averaged = AveragedModel(model, multi_avg_fn=average)
    for _ in range(300):
        one_step(model, optimizer)
        averaged.update_parameters(model)
    live = reg.certify(closure_of(model))
    of_average = ts.Regularizer(averaged, ts.L1(0.03))
    certificate = of_average.certify(closure_of(averaged))
    assert certificate.parameters[0].name == "module.0.weight"
    torch.testing.assert_close(certificate.penalty, of_average.value().item())
    assert certificate.distance > live.distance
    assert of_average.sparsity().zeros < reg.sparsity().zeros  # averages of zeros and non-zeros are not zero


# --- others in the same optimizer ---


@covers("two regularizers")
def test_a_gradient_and_a_prox_together_are_the_elastic_net():
    model, optimizer, first = start("SGD", penalty=ts.L1(0.02), dtype=torch.float64)
    second = ts.Regularizer(model, ts.L2(0.05)).attach(optimizer)
    joint, reference, whole = start("SGD", penalty=ts.ElasticNet(0.02, 0.05), dtype=torch.float64)
    for _ in range(3000):
        one_step(model, optimizer)
        one_step(joint, reference)
    assert whole.certify(closure_of(joint)).distance < 1e-6
    assert ts.Regularizer(model, ts.ElasticNet(0.02, 0.05)).certify(closure_of(model)).distance < 1e-6
    for reg, other in ((first, "L2(0.05)"), (second, "L1(0.02)")):
        certificate = reg.certify(closure_of(model))
        assert certificate.distance > 1e-3
        assert any(f"another Regularizer acts in this optimizer ({other})" in note for note in certificate.notes)
    second.detach()
    assert first.certify(closure_of(model)).notes == ()


@covers("two regularizers")
def test_two_proxes_of_one_weight_are_not_that_of_the_sum_and_say_so():
    model, optimizer, _ = start("SGD")
    with pytest.warns(ObjectiveWarning, match=r"0\.weight: the prox of GroupLasso.*follows.*L1\(0.01\), and two"):
        second = ts.Regularizer(model, {"0.weight": ts.GroupLasso(0.1)}).attach(optimizer)
    assert any("two proxes in a row" in note for note in second.certify(closure_of(model)).notes)
    second.detach()
    apart, optimizer, first = start("SGD", penalty=ts.L1(0.1))
    first.detach()
    ts.Regularizer(apart, {"0.weight": ts.L1(0.1)}).attach(optimizer)
    ts.Regularizer(apart, {"2.weight": ts.L1(0.1)}).attach(optimizer)  # no weight in common: no warning


@covers("hooks of others")
def test_hooks_run_in_the_order_of_their_registration():
    seen = {}

    def look(when):
        return lambda optimizer, *_: seen.update({when: optimizer.param_groups[0]["params"][0].grad.clone()})

    def values_now(when):
        return lambda optimizer, *_: seen.update({when: optimizer.param_groups[0]["params"][0].detach().clone()})

    model = net()
    optimizer = MAKE["SGD"](model.parameters())
    optimizer.register_step_pre_hook(look("before"))
    optimizer.register_step_post_hook(values_now("stepped"))
    attached(model, optimizer, "gradient")
    attached(model, optimizer, "prox")
    optimizer.register_step_pre_hook(look("after"))
    optimizer.register_step_post_hook(values_now("shrunk"))
    w = model[0].weight.detach().clone()
    one_step(model, optimizer)
    torch.testing.assert_close(seen["after"], seen["before"] + 2 * 0.05 * w)
    torch.testing.assert_close(seen["shrunk"], ts.L1(0.01).prox(seen["stepped"], 0.1))


@covers("optimizer subclasses")
@both
@pytest.mark.parametrize("closure", [True, False])
def test_a_step_that_calls_its_parents_step_is_one_step(method, closure):
    class Logging(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    MAKE["SGD"](net().parameters())  # from now on torch has hooked SGD.step too
    same_step_size(Logging, like=torch.optim.SGD)
    model, optimizer, reg = start(lambda p: Logging(p, lr=0.1), method)
    for _ in range(6):
        if closure:
            optimizer.step(closure_of(model))
        else:
            one_step(model, optimizer)
    assert same_bits(values(model), plain("SGD", method))
    assert reg.steps == 6


@covers("differentiable")
@each_method
def test_a_differentiable_step_is_refused(method):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, differentiable=True)
    with pytest.raises(AttachmentError, match=r"differentiable=True.*add reg\.value\(\) to the loss"):
        ts.Regularizer(model, PENALTIES[method]).attach(optimizer, method=method.partition(" ")[0])


@covers("value() while attached")
@both
def test_a_penalty_in_the_loss_and_in_the_optimizer_counts_twice_and_says_so_once(method):
    model, optimizer, reg = start("SGD", method)
    for _ in range(2):
        reg.value().item()
        (mean_loss(model) + reg.value().detach()).backward()  # logging is free
    with pytest.warns(ObjectiveWarning, match="counts twice"):
        (mean_loss(model) + reg.value()).backward()
    (mean_loss(model) + reg.value()).backward()
    again = ts.Regularizer(model, PENALTIES[method])
    (mean_loss(model) + again.value()).backward()
    optimizer.step()
