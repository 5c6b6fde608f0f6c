"""`attach(compile=True)`: the plain path is the specification.

Most tests run the programs as they are written, without a compiler, which takes seconds for each; two compile them.
"""

import copy
import threading
import warnings

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import CompileWarning
from torchshrink.regularizer.attachment.compiled import compiled_step, programs

optim = torch.optim
SETTINGS = {
    "SGD": lambda p: optim.SGD(p, lr=0.05),
    "SGD, decay, maximize": lambda p: optim.SGD(p, lr=0.05, weight_decay=0.02, maximize=True),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov, decay": lambda p: optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    "dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5, maximize=True),
    "fused SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam, betas, eps": lambda p: optim.Adam(p, lr=0.01, betas=(0.4, 0.8), eps=1e-2),
    "AMSGrad, decay": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.02),
    "Adam, maximize": lambda p: optim.Adam(p, lr=0.01, maximize=True, weight_decay=0.02),
    "fused Adam": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2),
    "AdamW, AMSGrad, maximize": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2, amsgrad=True, maximize=True),
    "AdamW, no decay": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.0, fused=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "NAdam, decay": lambda p: optim.NAdam(
        p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, momentum_decay=0.1
    ),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),  # its first five steps are of another form
    "RAdam, decay, maximize": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.1, maximize=True),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "Adamax, decay, maximize": lambda p: optim.Adamax(p, lr=0.01, weight_decay=0.1, maximize=True),
    "rate 0": lambda p: optim.Adam(p, lr=0.0),
    "rate as a tensor": lambda p: optim.Adam(p, lr=torch.tensor(0.01, dtype=torch.float64)),
}
RULES = {
    "0.weight": ts.L1(0.02),
    "1.weight": ts.ElasticNet(0.02, 0.03),
    "2.weight": ts.L2(0.03),
    "3.weight": ts.MCP(0.05, 2.0),
    "4.weight": ts.SCAD(0.04),
    "5.weight": ts.GroupLasso(0.02),
    "6.weight": ts.GroupLasso(0.02, dim=1, size=2),
    "7.weight": ts.SparseGroupLasso(0.01, 0.01, dim=-1),
}
quiet = pytest.mark.filterwarnings("ignore::torchshrink.errors.ObjectiveWarning")


@pytest.fixture
def as_written(monkeypatch):
    """Programs without a compiler; returns the list of how many parameters each call moved."""
    moved = []

    def as_it_is(program):
        def called(numbers, *tensors):
            moved.append(len(numbers))
            return program(numbers, *tensors)

        return called

    monkeypatch.setattr(programs, "compiled", as_it_is)
    monkeypatch.setattr(compiled_step, "cannot_compile", lambda: None)
    programs.program_of.cache_clear()
    yield moved
    programs.program_of.cache_clear()


def rules_for(method):
    """All; without groups for latent weights, of which those are not compiled."""
    return {name: rule for name, rule in RULES.items() if method != "latent" or name < "5"}


def net(dtype=torch.float64, layers=8, width=4):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).to(dtype)


def loss_of(model, optimizer, x):
    loss = model(x).sub(1.0).square().mean()
    return -loss if optimizer.param_groups[0].get("maximize") else loss


def train(
    make, *, rules=None, method="auto", compile, steps=20, dtype=torch.float64, after=None, model=None
):  # fmt: skip
    """A short training; ``after(step, model, optimizer, reg)`` is called after each of its steps."""
    model = net(dtype) if model is None else model
    optimizer = make(model.parameters())
    reg = ts.Regularizer(model, rules or rules_for(method)).attach(optimizer, method=method, compile=compile)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64).to(dtype)
        optimizer.zero_grad()
        loss_of(model, optimizer, x).backward()
        optimizer.step()
        if after is not None:
            after(step, model, optimizer, reg)
    return model, optimizer, reg


def assert_same(found, expected, atol=1e-12):
    (model, optimizer, reg), (model_, optimizer_, reg_) = found, expected
    for p, q in zip(model.parameters(), model_.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=atol)
        assert torch.equal(p == 0, q == 0)
    states, states_ = (
        {i: state for i, state in each.state_dict()["state"].items() if state} for each in (optimizer, optimizer_)
    )
    assert {i: list(state) for i, state in states.items()} == {i: list(state) for i, state in states_.items()}
    for i, state in states.items():
        for key, value in state.items():
            torch.testing.assert_close(value, states_[i][key], rtol=1e-7, atol=atol)
    for name, latent in reg.state_dict().get("latent", {}).items():
        latent_ = reg_.state_dict()["latent"][name]
        torch.testing.assert_close(latent["offset"], latent_["offset"], rtol=1e-7, atol=atol)
    assert reg.steps == reg_.steps


LATENT = ["SGD", "nesterov, decay", "AMSGrad, decay", "Adam, maximize", "AdamW, AMSGrad, maximize", "RAdam"]


@quiet
@pytest.mark.parametrize(("setting", "method"), [(s, "auto") for s in SETTINGS] + [(s, "latent") for s in LATENT])
def test_each_step_is_the_plain_one(as_written, setting, method):
    make = SETTINGS[setting]
    first = 2 if method == "auto" else 18  # latent weights are looked at in the first 16 steps, and in the 17th
    assert_same(*(train(make, method=method, compile=c, steps=first) for c in (True, False)), atol=1e-14)
    once = sum(as_written)
    assert once >= 16  # all 16 parameters in a step
    assert_same(*(train(make, method=method, compile=c, steps=first + 10) for c in (True, False)))
    assert sum(as_written) > 2 * once


@quiet
@pytest.mark.parametrize("method", ["auto", "latent"])
def test_settings_that_change_between_the_steps_are_followed(as_written, method):
    def change(step, model, optimizer, reg):
        group = optimizer.param_groups[0]
        group["lr"] *= 0.97
        group["betas"] = (0.9 - 0.005 * step, 0.999)
        reg.scale = lambda count: 1 / (1 + count)
        if step == 20:
            group["weight_decay"] = 0.1
        if step == 23:
            model[1].weight.requires_grad_(False)
        if step == 25:
            optimizer.load_state_dict(optimizer.state_dict())
        if step == 27:
            model[0].weight.data = model[0].weight.data.clone()

    assert_same(*(train(SETTINGS["Adam"], method=method, compile=c, steps=30, after=change) for c in (True, False)))
    assert len(as_written) > 10


@quiet
def test_gradients_that_are_missing_or_lie_otherwise_are_no_obstacle(as_written):
    def meddle(model, step):
        if step % 3 == 0:
            model[0].weight.grad = None
        if step % 3 == 1:
            model[1].weight.grad = model[1].weight.grad.t().contiguous().t()

    results = []
    for c in (True, False):
        model = net()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        reg = ts.Regularizer(model, RULES).attach(optimizer, compile=c)
        for step in range(9):
            optimizer.zero_grad()
            loss_of(model, optimizer, torch.ones(2, 4, dtype=torch.float64) * step).backward()
            meddle(model, step)
            given = [p.grad for p in model.parameters()]
            optimizer.step()
            assert all(p.grad is grad for p, grad in zip(model.parameters(), given, strict=True))
        results.append((model, optimizer, reg))
    assert_same(*results)
    assert as_written


@quiet
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("method", ["auto", "latent"])
def test_loss_scaling_and_skipped_steps(as_written, fused, method):
    results = []
    for c in (True, False):
        model = net(torch.float32)
        optimizer = optim.Adam(model.parameters(), lr=0.01, fused=fused)
        reg = ts.Regularizer(model, rules_for(method)).attach(optimizer, method=method, compile=c)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        for step in range(24):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, optimizer, torch.ones(2, 4) * (step % 5))).backward()
            if step == 20:
                model[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
        assert reg.steps == 23
        results.append((model, optimizer, reg))
    assert_same(*results, atol=1e-6)
    assert as_written


@quiet
@pytest.mark.parametrize("method", ["auto", "latent"])
def test_closures(as_written, method):
    results = []
    for c in (True, False):
        model = net()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        reg = ts.Regularizer(model, rules_for(method)).attach(optimizer, method=method, compile=c)

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = loss_of(model, optimizer, torch.ones(2, 4, dtype=torch.float64))
            loss.backward()
            return loss

        for _ in range(20):
            optimizer.step(closure)
        results.append((model, optimizer, reg))
    assert_same(*results)
    assert as_written


def test_others_see_the_gradients_before_and_after_a_step(as_written):
    seen = []
    model = net(layers=1)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    ts.Regularizer(model, ts.L1(0.1)).attach(optimizer, compile=True)

    def clip(optimizer, args, kwargs):
        seen.append([p.grad is not None for p in model.parameters()])
        model[0].weight.grad.clamp_(-1e-3, 1e-3)

    def look(optimizer, args, kwargs):
        seen.append([p.grad is not None for p in model.parameters()])

    optimizer.register_step_pre_hook(clip)
    optimizer.register_step_post_hook(look)
    for _ in range(4):
        model(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
    assert seen == [[True, True]] * 8
    assert optimizer.state[model[0].weight]["exp_avg"].abs().max() <= 1e-3  # of what was clipped
    assert as_written


@quiet
def test_beside_another_regularizer_the_plain_path_goes_on(as_written):
    results = []
    for c in (True, False):
        model = net()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        other = ts.Regularizer(model, {f"{i}.bias": ts.L1(0.01) for i in range(8)}).attach(optimizer)

        def after(step, model, optimizer, reg, other=other):
            if step == 4:
                other.detach()

        made = iter([optimizer])
        results.append(train(lambda _, made=made: next(made), model=model, compile=c, steps=6, after=after))
    assert_same(*results)
    assert sum(as_written) == 16


def test_a_step_that_fails_leaves_the_gradients(as_written):
    model, optimizer, reg = train(SETTINGS["SGD"], rules=ts.L1(0.1), compile=True, steps=1)
    given = [p.grad for p in model.parameters()]

    def fail(optimizer, args, kwargs):
        raise RuntimeError("stopped")

    handle = optimizer.register_step_post_hook(fail)
    reg._attachments[0]._installation.make_first_after()
    with pytest.raises(RuntimeError, match="stopped"):
        optimizer.step()
    handle.remove()
    reg.detach()
    assert all(p.grad is grad for p, grad in zip(model.parameters(), given, strict=True))


@quiet
@pytest.mark.parametrize("method", ["auto", "latent"])
def test_state_dicts_and_detaching_go_on_as_before(as_written, method):
    results = []
    for first in (True, False):
        model, optimizer, reg = train(SETTINGS["Adam"], method=method, compile=first, steps=20)
        saved = model.state_dict(), optimizer.state_dict(), reg.state_dict()
        model = net()
        optimizer = SETTINGS["Adam"](model.parameters())
        reg = ts.Regularizer(model, rules_for(method)).attach(optimizer, method=method, compile=not first)
        for holder, state in zip((model, optimizer, reg), saved, strict=True):
            holder.load_state_dict(state)
        for step in range(5):
            optimizer.zero_grad()
            loss_of(model, optimizer, torch.ones(2, 4, dtype=torch.float64) * step).backward()
            optimizer.step()
        reg.detach()
        optimizer.zero_grad()
        loss_of(model, optimizer, torch.ones(2, 4, dtype=torch.float64)).backward()
        optimizer.step()
        results.append((model, optimizer, reg))
    assert_same(*results)


@quiet
def test_other_shapes_layouts_groups_and_types(as_written):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.groups = nn.Conv2d(4, 4, 2)
            self.filters = nn.Conv2d(4, 4, 2)
            self.single = nn.Linear(4, 1)
            self.small = nn.Linear(1, 2, dtype=torch.float32)

    rules = {
        "conv.weight": ts.L1(0.02),
        "groups.weight": ts.GroupLasso(0.01, dim=1),
        "filters.weight": ts.GroupLasso(0.01),
        "single.weight": ts.SparseGroupLasso(0.01, 0.01, dim=1),
        "small.*": ts.ElasticNet(0.01, 0.01),
    }
    for make in (optim.SGD, optim.Adam):
        results = []
        for c in (True, False):
            model = Mixed()
            optimizer = make(
                [{"params": model.conv.parameters()}, {"params": [*model.parameters()][2:], "lr": 0.03}], 0.01
            )
            reg = ts.Regularizer(model, rules)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CompileWarning)  # of groups of one weight
                reg.attach(optimizer, compile=c)
            for step in range(4):
                for i, p in enumerate(model.parameters()):
                    p.grad = torch.empty_like(p).copy_(torch.arange(p.numel()).view(p.shape).add(i + step).sin())
                optimizer.step()
            results.append((model, optimizer, reg))
        assert_same(*results, atol=1e-6)
    assert as_written


@quiet
def test_of_many_parameters_those_of_one_shape_share_a_program(as_written):
    made = [train(SETTINGS["Adam"], rules=ts.L1(0.01), compile=c, steps=3, model=net(layers=20)) for c in (True, False)]
    assert_same(*made)
    assert as_written == [16, 4, 16, 4]  # twenty weights in each compiled step; small biases go the plain way


@quiet
@pytest.mark.parametrize(
    ("make", "rules", "words"),
    [
        (
            lambda p: optim.RMSprop(p, lr=0.01),
            ts.L1(0.01),
            "the update of RMSprop is not among those that are compiled",
        ),
        (SETTINGS["SGD"], ts.L1(0.01, weights=2.0), "by method 'prox' is not among what is compiled"),
        (SETTINGS["SGD"], ts.GroupLasso(0.01, labels=(0, 0, 1, 1)), "by method 'latent' is not among what is compiled"),
    ],
)
def test_what_is_not_compiled_is_said_in_one_line_and_goes_the_plain_way(as_written, make, rules, words):
    method = "latent" if "latent" in words else "auto"
    with pytest.warns(CompileWarning, match="^compile=True: .*; the plain path goes on$") as said:
        found = train(make, rules=rules, method=method, compile=True, model=net(layers=1))
    assert [words in str(each.message) for each in said] == [True]
    assert_same(found, train(make, rules=rules, method=method, compile=False, model=net(layers=1)), atol=0.0)


def test_groups_of_any_layout_follow_the_compiled_update(as_written):
    for rules in (
        ts.GroupLasso(0.01, labels=(0, 0, 1, 1)),
        ts.GroupLasso(0.01, dim=(0, 1)),
        ts.GroupLasso(0.1, dim=()),
    ):
        for setting in ("momentum", "Adam"):
            assert_same(*(train(SETTINGS[setting], rules=rules, compile=c) for c in (True, False)))
    assert min(as_written) >= 16


def test_without_a_compiler_one_line_and_the_plain_path(monkeypatch):
    monkeypatch.setattr(compiled_step, "cannot_compile", lambda: "RuntimeError: no C++ compiler")
    line = (
        r"^compile=True: torch.compile does not work here \(RuntimeError: no C\+\+ compiler\); the plain path goes on$"
    )
    with pytest.warns(CompileWarning, match=line) as said:
        found = train(SETTINGS["Adam"], rules=ts.L1(0.01), compile=True)
    assert len(said) == 1
    for p, q in zip(
        found[0].parameters(), train(SETTINGS["Adam"], rules=ts.L1(0.01), compile=False)[0].parameters(), strict=True
    ):
        assert torch.equal(p, q)


def test_a_compiler_that_fails_leaves_the_step_to_the_plain_path(monkeypatch, as_written):
    def broken(program):
        def called(*_):
            raise RuntimeError("out of\nmemory")

        return called

    monkeypatch.setattr(programs, "compiled", broken)
    with pytest.warns(CompileWarning, match=r"fails on this step \(RuntimeError: out of memory\); the plain") as said:
        found = train(SETTINGS["Adam"], rules=ts.L1(0.01), compile=True)
    assert len(said) == 1
    for p, q in zip(
        found[0].parameters(), train(SETTINGS["Adam"], rules=ts.L1(0.01), compile=False)[0].parameters(), strict=True
    ):
        assert torch.equal(p, q)


# --- compiled ---


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_a_thousand_compiled_steps_under_schedules_compile_once():
    from torch._dynamo.utils import counters

    problem = compiled_step.cannot_compile()
    if problem is not None:
        pytest.skip(problem)
    results = []
    for c in (True, False):
        model = net(torch.float32, layers=1)
        optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
        reg = ts.Regularizer(model, ts.L1(0.02)).attach(optimizer, compile=c)
        reg.scale = lambda step: min(1.0, 0.1 + step / 500)
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        generator = torch.Generator().manual_seed(1)
        for step in range(1000):
            if step == 2:
                before = copy.deepcopy(counters)
            optimizer.zero_grad()
            loss_of(model, optimizer, torch.randn(8, 4, generator=generator)).backward()
            optimizer.step()
            schedule.step()
        assert counters == before
        results.append((model, optimizer, reg))
    for p, q in zip(results[0][0].parameters(), results[1][0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
        assert torch.equal(p == 0, q == 0)


def cut(model, optimizer):
    """Rows are pruned, at the same address."""
    model[0].weight.data = model[0].weight.data[:2]
    model[0].bias.data = model[0].bias.data[:2]
    for p in model.parameters():
        p.grad = None
        for key, each in optimizer.state[p].items():
            if each.ndim:
                optimizer.state[p][key] = each[: len(p)].clone()


def turn(model, optimizer):
    model[0].weight.data = model[0].weight.data.t()
    model[0].weight.grad = None


def turn_state(model, optimizer):
    average = optimizer.state[model[0].weight]["exp_avg"]
    average.data = average.data.t().contiguous().t()


def swap(model, optimizer):
    model[0].weight.data = model[0].weight.data.clone() * 1.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("change", [cut, turn, turn_state, swap])
def test_what_has_been_changed_under_a_program_is_noticed(change):
    """With real programs, which look at no shape that they were not made for."""
    problem = compiled_step.cannot_compile()
    if problem is not None:
        pytest.skip(problem)
    found = []
    for c in (True, False):
        model = net(layers=1)
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        ts.Regularizer(model, ts.L1(0.02)).attach(optimizer, compile=c)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for step in range(6):
            if step == 3:
                change(model, optimizer)
            optimizer.zero_grad()
            loss_of(model, optimizer, x).backward()
            optimizer.step()
        found.append(model[0])
    torch.testing.assert_close(found[0].weight, found[1].weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[0].bias, found[1].bias, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_threads_compile_at_once():
    problem = compiled_step.cannot_compile()
    if problem is not None:
        pytest.skip(problem)
    start, ended = threading.Barrier(2, timeout=60), []

    def training(width):
        model = net(torch.float32, layers=1, width=width)
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        ts.Regularizer(model, ts.L1(0.02)).attach(optimizer, compile=True)
        for step in range(3):
            if step == 1:
                start.wait()  # what follows is compiled
            model(torch.ones(2, width)).sum().backward()
            optimizer.step()
        ended.append(width)

    threads = [threading.Thread(target=training, args=(width,)) for width in (5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == [5, 6]
    assert not torch.fx._symbolic_trace.is_fx_tracing()
    assert torch.compile(lambda x: x + 1)(torch.ones(2)).tolist() == [2.0, 2.0]
