"""A prox moves no weight further than twice the optimizer's reach: what has had no gradient yet is not set to 0."""

import functools
import math
import warnings

import pytest
import torch
from test_torch_optim import ROWS, Row, lasso
from torch import nn

import torchshrink as ts
from at_rest import AtRest
from penalties.test_contract import EXAMPLES, Wrapped
from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.penalties import multitensor
from torchshrink.step_sizes import PREVIOUS, REACHES, register_step_size, step_size_of

COORDINATEWISE = [row for row in ROWS if step_size_of(row.make([nn.Parameter(torch.zeros(2, 2))])).coordinatewise]
NEVER_RECTIFIED = [row for row in COORDINATEWISE if row.settings.get("betas") == (0.9, 0.6)]  # steps as SGD does
REACHING = [row for row in COORDINATEWISE if row not in NEVER_RECTIFIED]
BY_PROX = [p for ps in EXAMPLES.values() for p in ps if p.prox_steps == "coordinate" and not p.constraint]


def attached(penalty, model, optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveWarning)
        return ts.Regularizer(model, penalty).attach(optimizer, "prox")


# --- the bound ---


@pytest.mark.parametrize("row", REACHING, ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_no_displacement_of_a_constant_gradient_is_beyond_the_limit(row: Row, size: float) -> None:
    """In the limit within one reach; before, s·|g| is what a prox has to take back, within two."""
    gradient = size * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.full((5, 4), 0.1, dtype=torch.float64))
    optimizer = row.make([parameter])
    rule, group = step_size_of(optimizer), optimizer.param_groups[0]
    momentum = bool(row.settings.get("momentum"))
    for t in range(1, 801):
        previous = {}
        with torch.no_grad():
            parameter.fill_(0.1)
            if rule.remember is not None:
                previous = {PREVIOUS: rule.remember(parameter, optimizer.state.get(parameter, {}))}
        parameter.grad = gradient.clone()
        optimizer.step()
        if t not in (1, 2, 3, 5, 10, 27, 28, 100, 800):
            continue
        state = {**optimizer.state[parameter], **previous}
        moved = (parameter.detach() - 0.1).abs()
        (limit,) = rule.limits(group, [state]) or [torch.inf]
        assert bool((moved <= limit * (1 + 1e-12)).all())
        if t == 800 and not momentum:
            assert bool((moved <= limit / REACHES * 1.02).all())


def test_radam_has_no_limit_exactly_as_long_as_it_is_not_rectified(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.RAdam([parameter], lr=0.1, betas=(0.9, 0.99))
    rule, (group,) = step_size_of(optimizer), optimizer.param_groups
    free = []
    for _ in range(8):
        parameter.grad = torch.tensor([1e-3, 10.0], dtype=torch.float64)
        before = parameter.detach().clone()
        optimizer.step()
        moved = before - parameter.detach()
        limits = rule.limits(group, [optimizer.state[parameter]])
        assert (limits is None) == bool(moved[1] > 100 * moved[0])  # in proportion to the gradient
        free.append(limits is None)
        reach = math.inf if limits is None else float(moved.max())
        assert limits is None or limits[0] == pytest.approx(REACHES * reach)
        with monkeypatch.context() as unread:  # as where the count stays on its device
            unread.setattr(torch.compiler, "is_compiling", lambda: True)
            assert float(rule.reach(group, optimizer.state[parameter])) == pytest.approx(reach, rel=1e-3)
    assert free == [True] * 5 + [False] * 3


# --- weights without a gradient ---


@pytest.mark.parametrize("row", REACHING, ids=str)
@pytest.mark.parametrize("penalty", BY_PROX, ids=str)
def test_a_weight_without_a_gradient_shrinks_no_faster_than_the_optimizer_moves(row: Row, penalty: ts.Penalty) -> None:
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64) + 3)
            self.silent = nn.Parameter(torch.randn(4, 3, dtype=torch.float64) + 3)

        def forward(self):
            return self.weight.square().sum() + 0 * self.silent.sum()

    model = Half()
    optimizer = row.make(model.parameters(), lr=0.01)
    attached({"*": penalty.with_strength(1e-3)}, model, optimizer)
    # Adafactor's steps are relative to the weights.
    lr = 0.01 * max(1.0, float(model.silent.detach().norm()) / 12**0.5 if row.optimizer.__name__ == "Adafactor" else 1)
    step = lr / (1 - row.settings.get("momentum", 0))
    for _ in range(3):
        before = model.silent.detach().clone()
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        # NAdam's two weights sum to a little more than 1 at first. The slope of what is not convex is a gradient.
        own = 1.0 if penalty.convex else 1.6
        if not penalty.convex and row.settings.get("momentum"):
            own = (1 - row.settings["alpha"]) ** -0.5
        assert float((model.silent.detach() - before).abs().max()) <= 1.2 * own * REACHES * step


@pytest.mark.parametrize("row", REACHING, ids=str)
@pytest.mark.parametrize("penalty", [ts.L1(0.1), ts.ElasticNet(0.1, 0.1), ts.GroupLasso(0.1), ts.MCP(0.1, 30)], ids=str)
def test_it_still_becomes_exactly_zero_where_zero_is_the_least_of_f(row: Row, penalty: ts.Penalty) -> None:
    weight = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    optimizer = row.make(weight.parameters(), lr=1.0 if row.optimizer.__name__ == "Adadelta" else 0.05)
    attached(penalty, weight, optimizer)
    with torch.no_grad():
        weight.weight.copy_(torch.tensor([[0.3, -0.2, 0.1], [0.25, 0.3, -0.01]]))
        if row.optimizer.__name__ == "Adadelta":  # whose first steps are of √ε
            weight.weight.mul_(0.1)
    for _ in range(200):
        weight.weight.grad = torch.zeros(2, 3, dtype=torch.float64)
        optimizer.step()
    assert torch.equal(weight.weight, torch.zeros(2, 3, dtype=torch.float64))


class Block(nn.Module):
    def __init__(self, width, gain):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(width, width), nn.Linear(width, width), nn.BatchNorm1d(width)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, x):
        return x + self.norm(self.second(torch.relu(self.first(x))))


def trained(row, gain, penalty, *, steps=100):
    """(share of zeros in the blocks after two steps, loss at the end). Targets are noisy, so that it is not near 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), Block(24, gain), Block(24, gain), nn.Linear(24, 1)).double()
    X = torch.randn(2048, 8, dtype=torch.float64)
    y = X[:, :1] * X[:, 1:2] + torch.sin(2 * X[:, 2:3]) + torch.randn(2048, 1, dtype=torch.float64)
    optimizer = row.make(model.parameters())
    if penalty is not None:
        attached(penalty, model, optimizer)
    zeros = 0.0
    for step in range(steps):
        optimizer.zero_grad()
        loss = (model(X) - y).square().mean()
        loss.backward()
        optimizer.step()
        if step == 1:
            blocks = torch.cat([p.detach().reshape(-1) for p in model[1:3].parameters() if p.ndim == 2])
            zeros = float((blocks == 0).double().mean())
    return zeros, loss.item()


RATES = {"RMSprop": 2e-3, "Adagrad": 0.03, "Adadelta": 1.0, "Adafactor": 0.03}


def net_row(row: Row) -> Row:
    """With settings that suit a net."""
    lr = 3e-4 if row.settings.get("momentum") else RATES.get(row.optimizer.__name__, 5e-3)
    settings = {k: v for k, v in row.settings.items() if k in ("amsgrad", "weight_decay", "momentum", "alpha", "betas")}
    return Row(row.optimizer, {**settings, "lr": lr})


@pytest.mark.parametrize("row", {str(net_row(row)): net_row(row) for row in REACHING}.values(), ids=str)
def test_a_net_whose_gains_start_at_zero_keeps_its_weights_and_learns(row: Row) -> None:
    zeros, loss = trained(row, 0.0, ts.L1(1e-6))
    assert zeros <= 0.08  # of Adafactor, whose first steps are of the size of small weights; else 0.02
    # Adafactor's steps are relative to the weights, so that gains of 0 hardly move, with a penalty or without.
    _, ones = trained(row, 0.0, None) if row.optimizer.__name__ == "Adafactor" else trained(row, 1.0, ts.L1(1e-6))
    assert loss <= 1.1 * ones


@pytest.mark.parametrize("row", REACHING, ids=str)
def test_lora_keeps_a_behind_its_b_of_zero(row: Row) -> None:
    torch.manual_seed(0)
    a, b = nn.Linear(10, 4, bias=False).double(), nn.Linear(4, 3, bias=False).double()
    nn.init.zeros_(b.weight)
    model, X = nn.Sequential(a, b), torch.randn(32, 10, dtype=torch.float64)
    optimizer = row.make(model.parameters(), lr=1e-3)
    attached(ts.L1(1e-6), model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        (model(X) - X[:, :3]).square().mean().backward()
        optimizer.step()
    assert int((a.weight == 0).sum()) <= 4
    assert bool((b.weight != 0).all())


def test_an_optimizer_of_somebody_else_says_its_reach() -> None:
    class Mine(torch.optim.Adam):
        pass

    make = functools.partial(Mine, lr=0.01)
    step = step_size_of(torch.optim.Adam([nn.Parameter(torch.zeros(1))])).step_size
    with pytest.raises(InputError, match="a reach expected"):
        register_step_size(Mine, coordinatewise=True)
    for reach, survives in ((lambda group, state: math.inf, False), (lambda group, state: group["lr"], True)):
        register_step_size(Mine, coordinatewise=True, reach=reach, weight_decay="coupled")(step)
        linear = nn.Linear(3, 2)
        optimizer = make(linear.parameters())
        attached(ts.L1(1e-3), linear, optimizer)
        linear.weight.grad = torch.zeros(2, 3)
        linear.bias.grad = torch.zeros(2)
        optimizer.step()
        assert bool((linear.weight != 0).any()) is survives


# --- the fast paths ---


@pytest.mark.parametrize("penalty", BY_PROX, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_many_tensors_are_limited_as_one_is(penalty: ts.Penalty, dtype: torch.dtype, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [3 * torch.randn(shape, generator=generator).to(dtype) for shape in ((4, 3), (2, 5), (7, 1))]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    steps = [10 ** (4 * torch.rand(w.shape, generator=generator, dtype=wide) - 2) for w in tensors]
    limits = [0.25 if kind == "number" else torch.rand(w.shape, generator=generator, dtype=wide) for w in tensors]
    expected = []
    for w, step, limit in zip(tensors, steps, limits, strict=True):
        x = w.to(wide)
        expected.append(torch.clamp(penalty.prox(x, step), x - limit, x + limit).to(dtype))
    found = [w.clone() for w in tensors]
    multitensor.prox_(penalty, found, [step.clone() for step in steps], limits)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    for a, b, w in zip(found, expected, tensors, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        assert not torch.equal(a, w)
    assert any(
        not torch.equal(penalty.prox(w.to(wide), s).to(dtype), e)
        for w, s, e in zip(tensors, steps, expected, strict=True)
    )


# --- penalties that are not convex come to rest ---


class Linear(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 10, dtype=torch.float64))
        self.scale = scale

    def gradient(self):
        return self.scale * lasso().gradient(self.weight.detach())


AT_REST = [
    Row(torch.optim.SGD, {"lr": 0.2}),
    Row(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    Row(torch.optim.SGD, {"lr": 0.2, "momentum": 0.9}),
    Row(torch.optim.Adam, {"lr": 0.05}),
    Row(torch.optim.ASGD, {"lr": 0.15, "lambd": 0}),
    *COORDINATEWISE[:-1],  # the second Adafactor is slow
]


# Every optimizer with the least convex of them, and with one of the others in turn.
RESTING = [(row, ts.MCP(0.1, gamma=1.5), 1.0) for row in AT_REST] + [
    (row, (ts.MCP, ts.SCAD)[place % 2](0.1), 2.0) for place, row in enumerate(AT_REST)
]


@pytest.mark.parametrize(("row", "penalty", "scale"), RESTING, ids=str)
def test_a_penalty_that_is_not_convex_comes_to_rest(row: Row, penalty: ts.Penalty, scale: float) -> None:
    model = Linear(scale)
    optimizer = row.make(model.parameters())
    attached({"*": penalty}, model, optimizer)
    at_rest = AtRest(model.parameters())
    for _ in range(2000 if row.optimizer.__name__ == "Adafactor" else 1200):
        model.weight.grad = model.gradient()
        optimizer.step()
        if at_rest():
            break
    distance = penalty.distance(model.weight.detach(), model.gradient()).norm() / penalty.strength
    assert float(distance) <= 1e-6
    assert 0 < int((model.weight == 0).sum()) < 10


class TheirMCP(Wrapped):
    """A user's own, which says what it is."""

    elementwise = True
    kinks = "coordinates"

    @property
    def convex_part(self):
        return ts.L1(self.strength)


def test_somebody_elses_penalty_comes_to_rest_too_or_is_warned_of() -> None:
    row = Row(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9})
    found = []
    for penalty in (ts.MCP(0.1), TheirMCP(ts.MCP(0.1))):
        model = Linear(2.0)
        optimizer = row.make(model.parameters())
        ts.Regularizer(model, {"*": penalty}).attach(optimizer)
        for _ in range(800):
            model.weight.grad = model.gradient()
            optimizer.step()
        found.append(model.weight.detach())
    torch.testing.assert_close(*found)
    model = Linear(2.0)
    with pytest.warns(ObjectiveWarning, match="is not known to be convex.*set convex = True in Wrapped if it is"):
        ts.Regularizer(model, {"*": Wrapped(ts.MCP(0.1))}).attach(row.make(model.parameters()))
