"""Training a model that is grown, frozen, tied, compiled, converted, wrapped or replaced: exact, or it speaks up."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from situations import (
    MAKE,
    PENALTIES,
    attached,
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
    quiet,
    same_bits,
    start,
    values,
)
from torchshrink.errors import AttachmentError, SelectionWarning

# --- who is penalised: groups, growth, freezing, ties ---


@covers("parameter groups")
@both
def test_each_group_keeps_its_own_rate(method):
    def split(model):
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}]
        return torch.optim.SGD(groups, momentum=0.9)

    model = net()
    together = split(model)
    attached(model, together, method)
    apart = net()
    optimizers = [torch.optim.SGD(apart[i].parameters(), lr=lr, momentum=0.9) for i, lr in ((0, 0.1), (2, 0.01))]
    for i, optimizer in zip((0, 2), optimizers, strict=True):
        attached(apart[i], optimizer, method)
    for _ in range(6):
        one_step(model, together)
        for optimizer in optimizers:
            optimizer.zero_grad()
        mean_loss(apart).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert same_bits(values(model), values(apart))


@covers("parameters added later")
def test_a_model_that_has_grown_is_noticed_and_a_second_regularizer_takes_the_rest():
    model, optimizer, reg = start("SGD")
    model.append(nn.Linear(3, 3))
    optimizer.add_param_group({"params": model[3].parameters(), "lr": 0.01})
    with pytest.warns(SelectionWarning, match=r"3\.weight, 3\.bias: added to the model after binding"):
        reg.summary()
    with pytest.warns(SelectionWarning, match="no penalty acts on it"):
        certificate = reg.certify(closure_of(model))
    assert "3.weight" in [share.name for share in certificate.parameters]  # F has it as a variable, unpenalised
    assert any("3.weight" in note for note in certificate.notes)
    rest = ts.Regularizer(model, {"3.weight": ts.L1(0.5)}).attach(optimizer)
    before = model[3].weight.detach().clone()
    optimizer.zero_grad()
    mean_loss(model).backward()
    grad = model[3].weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(model[3].weight.detach(), ts.L1(0.5).prox(before - 0.01 * grad, 0.01))
    rest.detach()


@covers("frozen mid-way", "zero_grad")
@few
@each_method
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_frozen_weight_is_no_longer_shrunk(make, method, set_to_none):
    found = []
    for penalised_on in (True, False):
        model, optimizer, reg = start(make, method)
        one_step(model, optimizer)
        model[0].requires_grad_(False)
        if not penalised_on:
            reg.detach()
        for _ in range(3):
            optimizer.zero_grad(set_to_none=set_to_none)
            mean_loss(model).backward()
            optimizer.step()
        found.append(model[0].weight)
    assert torch.equal(*found)  # torch's momentum may go on; the penalty does not
    model, optimizer, reg = start(make, method)
    model[0].requires_grad_(False)
    assert "none (frozen)" in reg.summary()
    names = [share.name for share in reg.certify(closure_of(model)).parameters]
    assert names == ["2.weight", "2.bias"]


@covers("unfrozen mid-way")
def test_what_was_frozen_at_binding_speaks_up_when_it_is_unfrozen():
    model = net()
    model[0].requires_grad_(False)
    optimizer = MAKE["SGD"](model.parameters())
    reg = attached(model, optimizer)
    assert reg.certify(closure_of(model)).notes == ()
    model[0].requires_grad_(True)
    message = r"0\.weight, 0\.bias: frozen at binding and unfrozen since, so no penalty acts on it; detach\(\)"
    with pytest.warns(SelectionWarning, match=message):
        certificate = reg.certify(closure_of(model))
    assert any("unfrozen since" in note for note in certificate.notes)
    with pytest.warns(SelectionWarning, match=message):
        assert "frozen at binding, not now" in reg.summary()


@covers("tied weights")
@each_method
def test_a_tied_weight_is_shrunk_once(method):
    class Tied(nn.Module):
        def __init__(self, tie):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            if tie:
                self.b.weight = self.a.weight
            else:
                del self.b

        def forward(self, x):
            return (self.b if "b" in self._modules else self.a)(self.a(x))[:, :3]

    found = []
    for tie in (True, False):
        model = Tied(tie)
        optimizer = MAKE["SGD"](model.parameters())
        attached(model, optimizer, method)
        for _ in range(5):
            one_step(model, optimizer)
        found.append(values(model))
    assert same_bits(*found)


@covers("sparse gradients")
def test_a_sparse_gradient_is_refused_by_gradient_and_exact_under_prox():
    class Bag(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.sparse = nn.Parameter(torch.randn(7, 3)), sparse

        def forward(self):
            return nn.functional.embedding(torch.tensor([1, 2, 2]), self.table, sparse=self.sparse).square().sum()

    def train(sparse, penalty):
        model = Bag(sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ts.Regularizer(model, penalty).attach(optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
        return values(model)

    assert difference(train(True, ts.L1(0.5)), train(False, ts.L1(0.5))) <= 1e-6
    with pytest.raises(AttachmentError, match=r"\(7, 3\) has a sparse gradient.*sparse=False"):
        train(True, ts.L2(0.5))


@covers("maximize")
@few
@each_method
def test_maximising_minus_the_loss_is_minimising_the_loss(make, method):
    model, optimizer, _ = start(make, method, maximize=True)
    for _ in range(6):
        optimizer.zero_grad()
        (-mean_loss(model)).backward()
        optimizer.step()
    assert difference(values(model), plain(make, method)) <= 1e-7


# --- compiled, moved, wrapped ---


@quiet
@covers("compiled models")
@both
@pytest.mark.parametrize("bind_to", ["model", "compiled"])
def test_a_compiled_model_is_trained_as_it_is(method, bind_to):
    model = net()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = MAKE["Adam"](model.parameters())
    attached(model if bind_to == "model" else compiled, optimizer, method)
    for _ in range(3):
        one_step(compiled, optimizer)
    assert difference(values(model), plain("Adam", method, steps=3)) <= 1e-6


@quiet
@covers("compiled models", "replaced parameters", "strength schedules")
def test_a_compiled_loss_has_the_penalty_in_it():
    model = net()
    reg = ts.Regularizer(model, PENALTIES["gradient"])
    reg.scale = lambda step: 1.0 / (1 + step)

    @torch.compile(backend="aot_eager")
    def objective():
        return mean_loss(model) + reg.value()

    for step in range(3):
        reg.steps = step
        found = torch.autograd.grad(objective(), list(model.parameters()))
        expected = torch.autograd.grad(mean_loss(model) + reg.value(), list(model.parameters()))
        assert difference(found, expected) <= 1e-6
    model[0].weight = nn.Parameter(torch.zeros(8, 6))
    with pytest.raises(AttachmentError, match="make a new Regularizer"):
        objective()


@quiet
@covers("compiled optimizer steps")
@pytest.mark.parametrize("make", ["momentum", "Adam"])
@both
def test_hooks_act_around_a_compiled_step(make, method):
    model, optimizer, reg = start(make, method)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(4):
        optimizer.zero_grad()
        mean_loss(model).backward()
        step()
    assert difference(values(model), plain(make, method, steps=4)) <= 3e-6
    assert reg.steps == 4


@covers("model.to", "swap_tensors")
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("part", ["all", "half"])
@each_method
def test_a_model_that_is_converted_is_still_bound(swap, part, method):
    model, optimizer, reg = start("momentum", method, foreach=False)
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        (model if part == "all" else model[2]).double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert reg.value() > 0
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.zero_grad()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for w, old in zip(model.parameters(), before, strict=True):
        expected = old
        if old.ndim == 2:
            step = 0.5 if method == "prox" else 0.05  # of latent weights the first step is the rate's
            expected = old * (1 - 0.05 * 2 * 0.05) if PENALTIES[method].smooth else ts.L1(0.01).prox(old, step)
        torch.testing.assert_close(w.detach(), expected)


@covers("swap_tensors")
def test_swapped_tensors_keep_their_penalty():
    model, optimizer, reg = start("SGD")
    fresh = nn.Parameter(torch.randn(8, 6))
    expected = fresh.detach().clone()
    torch.utils.swap_tensors(model[0].weight, fresh)
    assert torch.equal(reg.terms[0].parameter.detach(), expected)
    model[0].weight.grad = torch.zeros(8, 6)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), ts.L1(0.01).prox(expected, 0.1))


@covers("wrappers")
@both
def test_a_wrapped_model_is_the_same_model(method):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    for wrap in (Wrapper, nn.DataParallel):
        inner = net()
        model = wrap(inner)
        optimizer = MAKE["Adam"](model.parameters())
        reg = attached(model, optimizer, method)
        for _ in range(6):
            one_step(model, optimizer)
        assert same_bits(values(inner), plain("Adam", method))
        assert len(reg.certify(closure_of(model)).parameters) == 4


@covers("wrappers")
@both
def test_an_optimizer_that_only_wraps_another_leaves_the_step_to_it(method):
    class Prepared(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer
            self.param_groups = optimizer.param_groups

        def step(self, closure=None):
            return self.optimizer.step(closure)

    model = net()
    wrapper = Prepared(MAKE["Adam"](model.parameters()))
    attached(model, wrapper, method)
    for _ in range(6):
        model.zero_grad()
        mean_loss(model).backward()
        wrapper.step()
    assert same_bits(values(model), plain("Adam", method))


# --- the model or the optimizer is no longer what was bound ---


@covers("replaced parameters", "replaced modules")
@pytest.mark.parametrize("replace", ["parameter", "module", "assign", "parametrized"])
def test_nothing_is_said_of_weights_that_the_model_no_longer_has(replace):
    model, optimizer, reg = start("SGD")
    if replace == "parameter":
        model[0].weight = nn.Parameter(torch.zeros(8, 6))
    elif replace == "module":
        model[0] = nn.Linear(6, 8)
    elif replace == "assign":
        model.load_state_dict(net().state_dict(), assign=True)
    else:
        nn.utils.parametrizations.weight_norm(model[0])
    message = "this module has been replaced" if replace == "module" else "no longer the one that was bound"
    for look in (reg.value, reg.sparsity, reg.summary, lambda: reg.certify(closure_of(model))):
        with pytest.raises(AttachmentError, match=rf"{message}.*make a new Regularizer"):
            look()
    reg.detach()
    with pytest.raises(AttachmentError, match="make a new Regularizer"):
        reg.attach(optimizer)


@covers("changed groups")
def test_a_parameter_that_has_left_its_group_is_noticed():
    _, optimizer, reg = start("SGD")
    moved = optimizer.param_groups[0]["params"].pop(0)
    for change in (lambda: None, lambda: optimizer.add_param_group({"params": [moved], "lr": 1.0})):
        change()
        with pytest.raises(AttachmentError, match=r"0\.weight: no longer in parameter group 0 of this SGD"):
            reg.summary()
    reg.detach()
    reg.attach(optimizer).summary()


@covers("changed groups")
@each_method
@pytest.mark.parametrize("by_closure", [False, True])
@pytest.mark.parametrize("change", ["popped", "first popped", "left", "swapped", "emptied"])
def test_a_step_after_a_group_has_changed_says_so_and_moves_nothing(change, by_closure, method):
    model = net()
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in (model[0], model[2])], lr=0.1)
    reg = attached(model, optimizer, method)
    one_step(model, optimizer)
    groups = optimizer.param_groups
    if change == "popped":
        groups.pop()
    elif change == "first popped":
        groups.pop(0)
    elif change == "left":
        groups[1]["params"].remove(model[2].weight)
    elif change == "swapped":
        groups.reverse()
    else:
        groups.clear()
    before = values(model)
    closure = closure_of(model)
    closure()
    with pytest.raises(AttachmentError, match=r"weight: no longer in parameter group . of this SGD.*attach\(\) again"):
        optimizer.step(closure if by_closure else None)
    assert same_bits(before, values(model))
    reg.detach()


@covers("changed groups")
@both
def test_groups_that_grow_or_lose_what_is_not_penalised_go_on(method):
    model = net()
    model.append(nn.Linear(3, 3))
    optimizer = torch.optim.SGD([model[0].weight, model[0].bias], lr=0.1)
    penalty = PENALTIES[method]
    ts.Regularizer(model, {"0.weight": penalty}).attach(optimizer, method=method)
    one_step(model, optimizer)
    optimizer.add_param_group({"params": [model[2].weight]})
    one_step(model, optimizer)
    optimizer.param_groups[0]["params"].pop()
    before = values(model)
    one_step(model, optimizer)
    moved = [name for (name, p), w in zip(model.named_parameters(), before, strict=True) if not torch.equal(p, w)]
    assert moved == ["0.weight", "2.weight"]


@covers("lost hooks")
def test_hooks_that_somebody_has_removed_are_missed():
    model, optimizer, reg = start("SGD")
    optimizer._optimizer_step_post_hooks.clear()
    for look in (reg.summary, lambda: reg.certify(closure_of(model))):
        with pytest.raises(AttachmentError, match="the hooks have been removed from this SGD"):
            look()
    reg.detach()
    reg.attach(optimizer)
    reg.summary()


@covers("untouched embeddings")
def test_rows_that_no_batch_has_touched_shrink_no_faster_than_the_optimizer_moves():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 1))
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ts.Regularizer(model, ts.L1(0.01), on=ts.ALL).attach(optimizer)
    model(torch.tensor([0, 1])).square().mean().backward()
    optimizer.step()
    moved = (model[0].weight.detach() - before)[2:].abs()
    assert 0 < float(moved.max()) <= 2e-3 + 1e-6
