"""The step sizes of torch.optim: against the displacements themselves, and against scikit-learn's solutions.

Each row of the table below is printed with its effective strength; `pytest tests/test_geometry.py -s` shows them.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, MultiTaskLasso
from torch import Tensor, nn
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
    SparseAdam,
)
from torch.torch_version import TorchVersion

import torchshrink as ts
from at_rest import AtRest
from torchshrink.errors import ObjectiveWarning, StepSizeError
from torchshrink.step_sizes import (
    PREVIOUS,
    refuse_step_size,
    register_step_size,
    register_weight_decay,
    same_step_size,
    step_size_of,
    weight_decay_kind,
    weight_decays,
)

DOCS = Path(__file__).parents[2] / "docs" / "optimizers.md"
STRENGTH = 0.1
# Torch 2.8 has no Muon yet, and Adam no flag before 2.7.
MUON = tuple(found for name, found in vars(torch.optim).items() if name == "Muon")
needs_adams_flag = pytest.mark.skipif(
    torch.__version__ < TorchVersion("2.7"), reason="Adam(decoupled_weight_decay=) came with torch 2.7"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- the problems and their solutions ---


@dataclass(frozen=True)
class Problem:
    """½ mean squared error of a linear model on standardised diabetes, plus a penalty, solved by scikit-learn."""

    penalty: ts.Penalty
    target: Tensor  # (n, outputs)
    solution: Tensor  # (outputs, features)
    l2: float = 0.0

    @functools.cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        x = features()
        return x.T @ x / len(x), self.target.T @ x / len(x)

    def gradient(self, w: Tensor) -> Tensor:
        """Of the mean loss, on all the data."""
        covariance, correlation = self.moments
        return w @ covariance - correlation

    def effective_strength(self, w: Tensor) -> float:
        """What strength ``w`` is stationary for: the mean of |∂L + ∂(l2‖w‖²)| over what is not zero."""
        g = self.gradient(w) + 2 * self.l2 * w
        if isinstance(self.penalty, ts.GroupLasso):
            alive = (w != 0).any(dim=0)
            return float((torch.linalg.vector_norm(g, dim=0) / len(w) ** 0.5)[alive].mean())
        return float(g[w != 0].abs().mean())

    @property
    def nominal_strength(self) -> float:
        return self.penalty.l1 if isinstance(self.penalty, ts.ElasticNet) else self.penalty.strength


@functools.cache
def features() -> Tensor:
    x = load_diabetes().data
    return torch.from_numpy((x - x.mean(axis=0)) / x.std(axis=0))


@functools.cache
def targets() -> Tensor:
    y = load_diabetes().target
    columns = np.stack([y, np.log(y), y**2], axis=1)
    return torch.from_numpy((columns - columns.mean(axis=0)) / columns.std(axis=0))


@functools.cache
def lasso() -> Problem:
    x, y = features().numpy(), targets()[:, :1]
    fitted = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-15, max_iter=100_000).fit(x, y.numpy().ravel())
    return Problem(ts.L1(STRENGTH), y, torch.from_numpy(fitted.coef_).reshape(1, -1))


@functools.cache
def elastic_net(l1: float = STRENGTH, l2: float = 0.02) -> Problem:
    """scikit-learn: αρ‖w‖₁ + ½α(1−ρ)‖w‖²."""
    x, y = features().numpy(), targets()[:, :1]
    alpha = l1 + 2 * l2
    model = ElasticNet(alpha=alpha, l1_ratio=l1 / alpha, fit_intercept=False, tol=1e-15, max_iter=100_000)
    solution = torch.from_numpy(model.fit(x, y.numpy().ravel()).coef_).reshape(1, -1)
    return Problem(ts.ElasticNet(l1, l2), y, solution, l2)


@functools.cache
def group_lasso() -> Problem:
    """scikit-learn's MultiTaskLasso has no √p_g: here the groups are the features, of 3 outputs each."""
    x, y = features().numpy(), targets()
    alpha = 2 * STRENGTH
    fitted = MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-15, max_iter=100_000).fit(x, y.numpy())
    return Problem(ts.GroupLasso(alpha / 3**0.5, dim=1), y, torch.from_numpy(fitted.coef_))


PROBLEMS: dict[str, Callable[[], Problem]] = {"L1": lasso, "ElasticNet": elastic_net, "GroupLasso": group_lasso}


class Run:
    """Full-batch training of one problem, from zero or from a given start."""

    def __init__(self, problem: Problem, make: Make, *, start: Tensor | None = None, penalty: Any = None) -> None:
        self.problem = problem
        outputs, inputs = problem.solution.shape
        self.model = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.model.weight.copy_(torch.zeros_like(problem.solution) if start is None else start)
        self.optimizer = make(self.model.parameters())
        self.regularizer = ts.Regularizer(self.model, problem.penalty if penalty is None else penalty)
        self.regularizer.attach(self.optimizer, "prox")
        self.sign = -1 if self.optimizer.param_groups[0].get("maximize", False) else 1

    @property
    def weight(self) -> nn.Parameter:
        return self.model.weight

    @property
    def error(self) -> float:
        return float((self.weight.detach() - self.problem.solution).abs().max())

    def steps(self, count: int) -> Run:
        at_rest = AtRest([self.weight])
        for _ in range(count):
            self.weight.grad = self.sign * self.problem.gradient(self.weight.detach())
            self.optimizer.step()
            if at_rest():
                break
        return self

    def steps_with_closure(self, count: int) -> Run:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        for _ in range(count):
            self.optimizer.step(closure)
        return self

    def loss(self) -> Tensor:
        return 0.5 * (self.model(features()) - self.problem.target).square().sum(dim=1).mean()

    def certificate(self) -> ts.Certificate:
        """By autograd, which had no part in the training."""

        def closure() -> Tensor:
            loss = self.loss()
            loss.backward()
            return loss

        return self.regularizer.certify(closure)


Make = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class Row:
    """An optimizer with its settings, and how many full-batch steps it takes to get there."""

    optimizer: type[Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    count: int = 800

    def make(self, parameters: Iterable[nn.Parameter], **more: Any) -> Optimizer:
        return self.optimizer(parameters, **{**self.settings, **more})

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.optimizer.__name__}({settings})"


ROWS = [
    Row(SGD, {"lr": 0.3}, 300),
    Row(SGD, {"lr": 0.1, "momentum": 0.9}),
    Row(SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    Row(SGD, {"lr": 0.2, "momentum": 0.9, "dampening": 0.5}),
    Row(Adam, {"lr": 0.02}),
    Row(Adam, {"lr": 0.02, "amsgrad": True}),
    Row(AdamW, {"lr": 0.02, "weight_decay": 0}),
    Row(NAdam, {"lr": 0.02}),
    Row(NAdam, {"lr": 0.02, "momentum_decay": 0.1}),
    Row(RAdam, {"lr": 0.02, "betas": (0.9, 0.99)}),
    Row(RAdam, {"lr": 0.3, "betas": (0.9, 0.6)}),  # so short an average is never rectified
    Row(Adamax, {"lr": 0.02}),
    Row(RMSprop, {"lr": 0.01}),
    Row(RMSprop, {"lr": 0.002, "momentum": 0.9, "alpha": 0.95}),
    Row(Adagrad, {"lr": 0.5}),
    Row(Adagrad, {"lr": 1.0, "lr_decay": 1e-3, "initial_accumulator_value": 0.1}),
    Row(Adadelta, {"lr": 0.2, "eps": 1e-3}),
    Row(ASGD, {"lr": 0.3, "lambd": 0}),
    Row(Adafactor, {"lr": 0.1}, 1500),
    Row(Adafactor, {"lr": 0.1, "d": 1.5, "eps": (0.05, 1e-2)}, 1500),
]
EXACT_FROM_THE_START = [row for row in ROWS if not row.settings.get("momentum")]
SETTLES_LATER = [row for row in ROWS if row.settings.get("momentum")]

FUSED = (SGD, Adam, AdamW, Adagrad)
FLAGS: tuple[dict[str, Any], ...] = ({"foreach": True}, {"foreach": False, "maximize": True}, {"fused": True})
FIRST_ROWS = [row for i, row in enumerate(ROWS) if row.optimizer not in {earlier.optimizer for earlier in ROWS[:i]}]
VARIANTS = [(row, more) for row in ROWS for more in FLAGS if "fused" not in more or row.optimizer in FUSED] + [
    (row, {"lr": torch.tensor(row.settings["lr"]), "foreach": False}) for row in FIRST_ROWS
]


def variant_id(value: Any) -> str:
    return "-".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, dict) else str(value)


# --- the definition itself: a constant gradient is displaced by s·g ---


def displacement_errors(make: Make, at: tuple[int, ...], *, past: int = 0) -> list[float]:
    """How far s is off the displacement per unit of a gradient, relatively, that is constant but for a ``past``."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    parameter = nn.Parameter(torch.full((3, 4), 0.1, dtype=torch.float64))
    optimizer = make([parameter])
    rule, group = step_size_of(optimizer), optimizer.param_groups[0]
    errors = []
    for t in range(1, max(at) + 1):
        with torch.no_grad():
            parameter.fill_(0.1)
            before = parameter.clone()
            previous = {}
            if rule.remember is not None:
                previous = {PREVIOUS: rule.remember(parameter, optimizer.state.get(parameter, {}))}
            parameter.grad = -gradient if group.get("maximize", False) else gradient.clone()
            if t <= past:
                parameter.grad *= -30
            optimizer.step()
            if t in at:
                s = rule.step_size(group, {**optimizer.state[parameter], **previous})
                assert isinstance(s, Tensor) <= rule.coordinatewise
                error = (before - parameter) / gradient / s - 1
                errors.append(float(error.abs().max()))
    return errors


@pytest.mark.parametrize(("row", "more"), VARIANTS, ids=variant_id)
def test_displaces_a_constant_gradient_by_s(row: Row, more: dict[str, Any]) -> None:
    make = functools.partial(row.make, **more)
    # A learning rate in float32 comes back rounded differently by different kernels.
    tolerance = 1e-6 if "lr" in more else 1e-10
    if row in SETTLES_LATER:
        assert max(displacement_errors(make, (800,))) <= tolerance
    else:
        assert max(displacement_errors(make, (1, 2, 5, 6, 7, 200))) <= tolerance


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_forgets_a_past_of_larger_gradients(row: Row) -> None:
    """Or keeps it in s, where the optimizer does: AMSGrad's maximum, Adagrad's sum."""
    assert max(displacement_errors(row.make, (800,), past=10)) <= 1e-10


def test_every_flag_combination_of_torch_is_covered() -> None:
    known = {
        *("params", "lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "momentum_decay", "amsgrad"),
        *("momentum", "dampening", "nesterov", "maximize", "foreach", "fused", "capturable", "differentiable"),
        *("alpha", "centered", "lr_decay", "initial_accumulator_value", "rho", "lambd", "t0", "beta2_decay", "d"),
    }
    for row in ROWS:
        settings = set(row.make([nn.Parameter(torch.zeros(2, 2))]).param_groups[0])
        assert settings <= known, f"{row.optimizer.__name__} has settings that no step size here was derived for"


# --- the table ---


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_returns_the_solution_of_scikit_learn(row: Row, name: str) -> None:
    problem = PROBLEMS[name]()
    run = Run(problem, row.make).steps(row.count)
    w = run.weight.detach()
    effective, nominal = problem.effective_strength(w), problem.nominal_strength
    zeros = f"{int((w == 0).sum())} of {int((problem.solution == 0).sum())} zeros"
    print(f"{row!s:75} {name:10} error {run.error:.0e}, {zeros}, strength {effective:.10f} for {nominal:.10f}")
    assert run.error <= 1e-9
    assert torch.equal(w == 0, problem.solution == 0)
    assert 0 < int((w == 0).sum()) < w.numel()
    assert effective == pytest.approx(nominal, rel=1e-6)
    assert run.certificate().distance <= 1e-8


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("row", EXACT_FROM_THE_START, ids=str)
def test_stays_at_the_solution_from_the_first_step(row: Row, name: str) -> None:
    # So small a learning rate that rounding does not grow where the first steps are the longest, as Adagrad's are.
    run = Run(PROBLEMS[name](), functools.partial(row.make, lr=0.02), start=PROBLEMS[name]().solution)
    for _ in range(60):
        assert run.steps(1).error <= 1e-9
    assert torch.equal(run.weight == 0, run.problem.solution == 0)


@pytest.mark.parametrize(("row", "more"), VARIANTS, ids=variant_id)
def test_flags_do_not_change_the_solution(row: Row, more: dict[str, Any]) -> None:
    run = Run(lasso(), functools.partial(row.make, **more)).steps(row.count)
    assert run.error <= 1e-9
    assert torch.equal(run.weight == 0, run.problem.solution == 0)


@pytest.mark.parametrize("row", [row for row in ROWS if row.optimizer in (Adadelta, ASGD, Adafactor)], ids=str)
def test_what_is_remembered_is_from_before_the_step_with_a_closure_too(row: Row) -> None:
    assert Run(lasso(), row.make).steps_with_closure(row.count).error <= 1e-9


def test_asgd_with_a_new_learning_rate_steps_by_the_one_before() -> None:
    run = Run(lasso(), functools.partial(ASGD, lr=0.3, lambd=0), start=lasso().solution).steps(5)
    for lr in (0.1, 0.4, 0.01):
        run.optimizer.param_groups[0]["lr"] = lr
        assert run.steps(2).error <= 1e-9


@pytest.mark.parametrize("row", EXACT_FROM_THE_START, ids=str)
def test_a_learning_rate_that_changes_at_every_step(row: Row) -> None:
    run = Run(lasso(), functools.partial(row.make, lr=0.02), start=lasso().solution)
    scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda t: 0.0 if t == 0 else 0.9**t)
    for _ in range(30):
        assert run.steps(1).error <= 1e-9
        scheduler.step()


@pytest.mark.parametrize("zero", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.optimizer is not ASGD], ids=str)
def test_a_learning_rate_of_zero_moves_nothing(row: Row, zero: Any) -> None:
    start = lasso().solution + 0.01
    run = Run(lasso(), functools.partial(row.make, lr=zero, foreach=False), start=start).steps(3)
    assert torch.equal(run.weight.detach(), start)


@pytest.mark.parametrize("optimizer", FUSED)
def test_a_first_step_that_is_skipped_moves_nothing(optimizer: type[Optimizer]) -> None:
    start = lasso().solution + 0.01
    run = Run(lasso(), functools.partial(optimizer, lr=0.1, fused=True, weight_decay=0), start=start)
    run.optimizer.grad_scale, run.optimizer.found_inf = torch.tensor(1.0), torch.tensor(1.0)
    run.steps(1)
    assert torch.equal(run.weight.detach(), start)
    run.optimizer.found_inf = torch.tensor(0.0)
    assert not torch.equal(run.steps(1).weight.detach(), start)
    assert run.weight.isfinite().all()


@pytest.mark.parametrize("row", [row for row in ROWS if row.optimizer is not SGD], ids=str)
def test_half_precision_is_computed_in_single(row: Row) -> None:
    parameter = nn.Parameter(torch.ones(3, 4, dtype=torch.bfloat16))
    optimizer = row.make([parameter])
    rule = step_size_of(optimizer)
    previous = {PREVIOUS: rule.remember(parameter, {})} if rule.remember is not None else {}
    parameter.grad = torch.full_like(parameter, 0.3)
    optimizer.step()
    with torch.no_grad():
        s = rule.step_size(optimizer.param_groups[0], {**optimizer.state[parameter], **previous})
    assert not isinstance(s, Tensor) or (s.dtype == torch.float32 and s.shape == parameter.shape)


@pytest.mark.parametrize(
    "dtypes", [(torch.float32,), (torch.float64,), (torch.bfloat16,), (torch.float32, torch.bfloat16)]
)
@pytest.mark.parametrize("ages", [(3, 3), (1, 4)], ids=["equally old", "of several ages"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adams_steps_of_many_are_those_of_each(dtypes: tuple[torch.dtype, ...], ages: Any, amsgrad: bool) -> None:
    dtypes = (*dtypes, dtypes[0])[:2]
    parameters = [nn.Parameter(torch.ones(3, 2, dtype=dtype)) for dtype in dtypes]
    optimizer = Adam(parameters, lr=0.02, amsgrad=amsgrad, foreach=False)
    for t in range(max(ages)):
        for parameter, age in zip(parameters, ages, strict=True):
            parameter.grad = torch.randn_like(parameter) * (10 if t == 0 else 1) if t < age else None
        optimizer.step()
    rule, (group,) = step_size_of(optimizer), optimizer.param_groups
    states = [optimizer.state[parameter] for parameter in parameters]
    for found, state in zip(rule.step_sizes(group, states), states, strict=True):
        expected = rule.step_size(group, state)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("row", FIRST_ROWS, ids=str)
@pytest.mark.parametrize("steps", [2, 6, 300])  # RAdam is rectified from the sixth on
def test_a_count_that_stays_on_its_device_gives_the_same(row: Row, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with capturable=True or under torch.compile, where a number must not be read: in float32, like the step."""
    run = Run(lasso(), row.make).steps(steps)
    rule, group = step_size_of(run.optimizer), run.optimizer.param_groups[0]
    state = dict(run.optimizer.state[run.weight])
    if rule.remember is not None:
        state[PREVIOUS] = rule.remember(run.weight, state)
    with torch.no_grad():
        read = torch.as_tensor(rule.step_size(group, state))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        unread = torch.as_tensor(rule.step_size(group, state))
    assert torch.allclose(read.double(), unread.double(), rtol=1e-3)


# --- weight decay ---


COUPLED = [SGD, Adam, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta, ASGD]


@pytest.mark.parametrize("optimizer", COUPLED)
def test_coupled_decay_is_half_of_it_in_l2(optimizer: type[Optimizer]) -> None:
    row = next(row for row in ROWS if row.optimizer is optimizer)
    decay, problem = 0.04, elastic_net(STRENGTH, 0.02)
    with pytest.warns(ObjectiveWarning, match=rf"{optimizer.__name__}\(weight_decay=0.04\).*L2\(0.02\) in addition"):
        run = Run(problem, functools.partial(row.make, weight_decay=decay), penalty=ts.L1(STRENGTH))
    assert run.steps(row.count).error <= 1e-9


def test_lambd_of_asgd_is_coupled_decay() -> None:
    problem = elastic_net(STRENGTH, 0.02)
    with pytest.warns(ObjectiveWarning, match=r"ASGD\(lambd=0.04\).*L2\(0.02\) in addition; set lambd=0"):
        run = Run(problem, functools.partial(ASGD, lr=0.3, lambd=0.04), penalty=ts.L1(STRENGTH))
    assert run.steps(800).error <= 1e-9
    assert [decay.setting for decay in weight_decays(run.optimizer, run.optimizer.param_groups[0])] == ["lambd"]


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (AdamW, {}),
        pytest.param(Adam, {"decoupled_weight_decay": True}, marks=needs_adams_flag),
        (NAdam, {"decoupled_weight_decay": True}),
        (RAdam, {"decoupled_weight_decay": True}),
        (Adafactor, {}),
    ],
)
def test_decoupled_decay_warns_that_there_is_no_objective(optimizer: type[Optimizer], settings: dict[str, Any]) -> None:
    with pytest.warns(ObjectiveWarning, match=rf"{optimizer.__name__}\(weight_decay=0.1\).*no stationary point"):
        Run(lasso(), functools.partial(optimizer, weight_decay=0.1, **settings))


def test_decay_of_every_optimizer_in_torch_is_known() -> None:
    for optimizer in torch_optimizers():
        made = optimizer([nn.Parameter(torch.zeros(2, 2))], **({"lr": 0.1} if optimizer is not LBFGS else {}))
        group = made.param_groups[0]
        assert "weight_decay" not in group or weight_decay_kind(made, group) != "unknown"
        assert weight_decay_kind(made, group) == "decoupled" or optimizer not in (*MUON, AdamW, Adafactor)


@pytest.mark.parametrize(("optimizer", "kind"), [(Adam, "coupled"), (AdamW, "decoupled")])
def test_a_flag_that_torch_does_not_read_says_nothing(optimizer: type[Optimizer], kind: str) -> None:
    """Before 2.7 a group may hold it (from a newer torch's checkpoint), and nothing reads it."""
    w = nn.Parameter(torch.ones(1))
    flag = kind == "coupled"  # the other way round
    made = optimizer([{"params": [w], "decoupled_weight_decay": flag}], lr=0.1, weight_decay=0.5)
    w.grad = torch.ones(1)
    made.step()
    # Adam's first step has length lr whatever is added to the gradient; a decoupled one shrinks by 1 − lr·decay before.
    decoupled = abs(w.item() - (0.95 - 0.1)) < 1e-6
    assert decoupled == (weight_decay_kind(made, made.param_groups[0]) == "decoupled")


def test_decay_of_an_unknown_class_is_called_unknown() -> None:
    class Mine(SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    linear = nn.Linear(2, 1)
    optimizer = Mine(linear.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.warns(ObjectiveWarning, match=r"Mine\(weight_decay=0.1\).*is not known for this class"):
        ts.Regularizer(linear, ts.L2(0.1)).attach(optimizer)


# --- refusals ---


def torch_optimizers() -> list[type[Optimizer]]:
    found = [getattr(torch.optim, name) for name in dir(torch.optim)]
    return [c for c in found if isinstance(c, type) and issubclass(c, Optimizer) and c is not Optimizer]


REFUSED = {
    LBFGS: ("dense approximation of the inverse Hessian", "method='latent'"),
    Rprop: ("whatever the size of the gradient", "method='latent'"),
    SparseAdam: ("only the rows that the batch has touched", "sparse=False"),
    **dict.fromkeys(MUON, ("orthogonalises the gradient", "method='latent'")),
}


def test_every_optimizer_of_torch_is_in_the_table_or_refused() -> None:
    assert set(torch_optimizers()) == {row.optimizer for row in ROWS} | set(REFUSED)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("optimizer", REFUSED)
def test_refuses_by_name_with_the_reason_and_the_alternative(optimizer: type[Optimizer], name: str) -> None:
    with pytest.raises(StepSizeError) as refusal:
        Run(PROBLEMS[name](), optimizer)
    message = str(refusal.value)
    assert message.startswith(optimizer.__name__)
    assert "\n" not in message
    for part in REFUSED[optimizer]:
        assert part in message


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (functools.partial(SGD, lr=0.1, momentum=1.0), "momentum=1 sums gradients without a limit"),
        (functools.partial(SGD, lr=0.1, momentum=0.9, dampening=1.0), "dampening=1 keeps the gradient out"),
        (functools.partial(RMSprop, momentum=1.5), "momentum=1.5 sums gradients without a limit"),
        (functools.partial(RMSprop, centered=True), "centered=True divides by the gradient's deviation"),
        (functools.partial(SGD, lr=0.1, differentiable=True), "differentiable=True, and autograd does not see"),
        (functools.partial(Adam, differentiable=True), "differentiable=True, and autograd does not see"),
    ],
)
def test_refuses_settings_under_which_no_step_size_is_exact(make: Make, reason: str) -> None:
    with pytest.raises(StepSizeError, match=re.escape(reason)) as refusal:
        Run(lasso(), make)
    assert refusal.match(r"; (take|add) ")


def test_refuses_a_setting_that_turns_up_later() -> None:
    run = Run(lasso(), functools.partial(SGD, lr=0.1, momentum=0.9)).steps(2)
    run.optimizer.param_groups[0]["momentum"] = 1.0
    with pytest.raises(StepSizeError, match="momentum=1"):
        run.steps(1)


def test_a_group_without_penalties_may_have_any_settings() -> None:
    linear = nn.Linear(2, 1)
    groups = [{"params": [linear.weight]}, {"params": [linear.bias], "momentum": 1.0}]
    ts.Regularizer(linear, ts.L1(0.1)).attach(SGD(groups, lr=0.1))


def test_the_step_of_centred_rmsprop_is_nan_under_a_constant_gradient() -> None:
    """The reason for its refusal, which falls when this does."""
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.zeros(1000))
    optimizer = RMSprop([parameter], centered=True, alpha=0.9)
    for _ in range(1000):
        parameter.grad = gradient.clone()
        optimizer.step()
    assert parameter.isnan().any()


# --- registration ---


def test_an_unknown_class_is_told_how_to_register() -> None:
    class Mine(Optimizer):
        def step(self, closure: Any = None) -> None: ...

    with pytest.raises(StepSizeError, match=r"^Mine: .*method='latent', or 'gradient'.*register_step_size\.$"):
        Run(lasso(), lambda parameters: Mine(parameters, {}))


class Counting(Adam):
    """Has something of its own, and steps as Adam does."""

    def __init__(self, parameters: Any, **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.count = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.count += 1
        super().zero_grad(set_to_none)

    def more(self) -> int:
        return self.count


def test_a_subclass_steps_as_its_base_of_which_there_is_no_optimizer_yet(monkeypatch) -> None:
    """Torch then puts a wrapper of the base's step into the subclass."""

    def logged(step: Any) -> Any:
        return functools.wraps(step)(lambda self, closure=None: step(self, closure))

    def kinds() -> list[str]:
        made = [
            type("Alike", (Adam,), {}),
            type("Below", (type("Alike", (Adam,), {}),), {}),
            type("Logged", (Adam,), {"step": logged(Adam.step)}),
        ]
        return [
            weight_decay_kind(cls([nn.Parameter(torch.zeros(1))]), {"decoupled_weight_decay": True}) for cls in made
        ]

    Adam([nn.Parameter(torch.zeros(1))])
    assert kinds() == ["decoupled", "decoupled", "unknown"]
    monkeypatch.setattr(Adam, "step", Adam.step.__wrapped__)
    assert kinds() == ["decoupled", "decoupled", "unknown"]
    Adam([nn.Parameter(torch.zeros(1))])
    assert kinds() == ["decoupled", "decoupled", "unknown"]


def own_step(self: Adam, closure: Any = None) -> None:
    Adam.step(self, closure)


class Mixed:
    """Comes before an optimizer, and stands in the way of its step."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)  # type: ignore[misc]


@pytest.mark.parametrize(
    "cls",
    [
        Counting,
        type("Below", (type("Between", (Counting,), {}),), {}),
        type("Beside", (type("Empty", (), {"other": 1}), Adam), {}),
    ],
    ids=lambda cls: cls.__name__,
)
def test_a_subclass_that_overrides_nothing_of_the_step_steps_as_its_base(cls: type[Adam]) -> None:
    run = Run(lasso(), functools.partial(cls, lr=0.02)).steps(800)
    assert run.error <= 1e-9
    assert weight_decay_kind(run.optimizer, {"decoupled_weight_decay": True}) == "decoupled"
    below = type("Last", (cls,), {})([nn.Parameter(torch.zeros(1))])
    register_weight_decay(type(below), acts="unknown")
    assert weight_decay_kind(run.optimizer, {"decoupled_weight_decay": True}) == "decoupled"
    assert weight_decay_kind(below, {"decoupled_weight_decay": True}) == "unknown"
    assert step_size_of(below).step_size is step_size_of(run.optimizer).step_size
    assert step_size_of(run.optimizer).step_size is step_size_of(Adam([nn.Parameter(torch.zeros(1))])).step_size


@pytest.mark.parametrize(
    "cls",
    [
        type("Own", (Adam,), {"step": own_step}),
        type("Below", (type("Own", (Adam,), {"step": own_step}),), {}),
        type("Group", (Adam,), {"_init_group": Adam._init_group}),
        type("Beside", (Mixed, Adam), {}),
        type("Getting", (Adam,), {"__getattribute__": object.__getattribute__}),
    ],
    ids=lambda cls: cls.__name__,
)
def test_a_subclass_that_overrides_something_of_the_step_is_not_known(cls: type[Adam]) -> None:
    with pytest.raises(StepSizeError, match=rf"same_step_size\({cls.__name__}, like=Adam\) if they agree"):
        step_size_of(cls([nn.Parameter(torch.zeros(1))]))


def test_a_subclass_of_what_has_no_step_size_has_none() -> None:
    with pytest.raises(StepSizeError, match="dense approximation of the inverse Hessian"):
        step_size_of(type("Mine", (LBFGS,), {})([nn.Parameter(torch.zeros(1))]))


def test_a_subclass_may_say_that_it_steps_like_its_base() -> None:
    class LoggingAdam(Adam):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    make = functools.partial(LoggingAdam, lr=0.02)
    with pytest.raises(StepSizeError, match=r"same_step_size\(LoggingAdam, like=Adam\) if they agree"):
        Run(lasso(), make)
    same_step_size(LoggingAdam, like=Adam)
    assert Run(lasso(), make).steps(800).error <= 1e-9
    optimizer = LoggingAdam([nn.Parameter(torch.zeros(1))])
    assert weight_decay_kind(optimizer, optimizer.param_groups[0]) == "coupled"
    with pytest.raises(StepSizeError, match="LBFGS"):
        same_step_size(LoggingAdam, like=LBFGS)


def test_what_is_remembered_is_found_in_the_state_under_previous() -> None:
    class NextRate(SGD):
        """Steps by a rate that it doubles afterwards."""

        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.param_groups[0]["lr"] *= 2

    def remember(parameter: Tensor, state: Any) -> dict[str, Any]:
        return {"lr": optimizer.param_groups[0]["lr"]}

    register_step_size(NextRate, coordinatewise=False, remember=remember)(lambda group, state: state["previous"]["lr"])
    linear = nn.Linear(3, 1, bias=False)
    optimizer = NextRate(linear.parameters(), lr=0.5)
    nn.init.ones_(linear.weight)
    ts.Regularizer(linear, ts.L1(0.5)).attach(optimizer, "prox")
    linear.weight.grad = torch.zeros(1, 3)
    optimizer.step()
    assert linear.weight.tolist() == [[0.75] * 3]


def test_the_last_word_on_a_class_counts() -> None:
    class Mine(SGD):
        pass

    make = functools.partial(Mine, lr=0.3)
    refuse_step_size(Mine, reason="is mine", instead="Use another")
    with pytest.raises(StepSizeError, match=r"^Mine is mine, so no prox after its step is exact\. Use another\.$"):
        Run(lasso(), make)
    register_step_size(Mine, coordinatewise=False, weight_decay="coupled")(lambda group, state: group["lr"])
    assert Run(lasso(), make).steps(500).error <= 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_third_partys_optimizer_as_in_the_documentation(name: str) -> None:
    pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(DOCS), "exec"), {})
    problem = PROBLEMS[name]()
    make = functools.partial(pytorch_optimizer.Yogi, lr=0.02)
    run = Run(problem, make).steps(800)
    assert run.error <= 1e-9
    assert torch.equal(run.weight == 0, problem.solution == 0)
    assert problem.effective_strength(run.weight.detach()) == pytest.approx(problem.nominal_strength, rel=1e-6)
    with pytest.raises(StepSizeError, match="adam_debias"):
        Run(problem, functools.partial(make, adam_debias=True))


def test_the_documentation_names_every_optimizer_of_torch() -> None:
    text = DOCS.read_text(encoding="utf-8")
    missing = [c.__name__ for c in torch_optimizers() if not re.search(rf"\b{c.__name__}\b", text)]
    assert not missing


def test_no_warning_without_decay() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in ROWS:
            Run(lasso(), row.make)
