"""Other libraries' optimizers: the step sizes that are registered by name, and what is said of their weight decay.

What is not installed is skipped. Of all libraries, pytorch_optimizer is among the dependencies of the tests.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_optim import Run, displacement_errors, lasso
from torch import nn
from torch.optim import Optimizer

import torchshrink as ts
from torchshrink.errors import InputError, ObjectiveWarning, StepSizeError
from torchshrink.step_sizes import (
    refuse_step_size,
    register_step_size,
    register_weight_decay,
    same_step_size,
    step_size_of,
    weight_decay_kind,
)
from torchshrink.step_sizes.registry import _KNOWN

NAMES = [key for key in _KNOWN if isinstance(key, str)]


def found(name: str) -> type[Optimizer]:
    """The class, or a skip where its library is not installed (or no longer has it, as Transformers' AdamW)."""
    module, _, last = name.rpartition(".")
    pytest.importorskip(module.split(".")[0])
    cls = getattr(pytest.importorskip(module), last, None)
    if cls is None:
        assert name == "transformers.optimization.AdamW", f"{module} has no {last} any more"
        pytest.skip("gone since Transformers 5")
    return cls


# --- step sizes ---


@dataclass(frozen=True)
class Row:
    """An optimizer with its settings, and how it is measured.

    ``limit``: s is exact in the limit only. ``count``: a lasso's steps. ``first``: the first step that moves anything.
    ``falls``: at a constant rate it comes to rest nowhere, without a penalty either.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    limit: bool = False
    count: int = 800
    first: int = 1
    falls: bool = False

    def make(self, parameters: Any, **more: Any) -> Optimizer:
        return found(self.name)(parameters, **{**self.settings, **more})

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.settings.items())})"


ADAFACTOR = {"lr": 0.1, "relative_step": False, "scale_parameter": False}
ROWS = [
    Row("pytorch_optimizer.Yogi", {"lr": 0.02, "initial_accumulator": 0.0}),
    Row("pytorch_optimizer.Yogi", {"lr": 0.02}, limit=True),
    Row("pytorch_optimizer.AdaMax", {"lr": 0.02}),
    Row("pytorch_optimizer.SGDW", {"lr": 0.3}),
    Row("pytorch_optimizer.SGDW", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, limit=True),
    Row("timm.optim.AdamWLegacy", {"lr": 0.02}),
    Row("timm.optim.AdamWLegacy", {"lr": 0.02, "amsgrad": True}),
    Row("timm.optim.NAdamW", {"lr": 0.02, "weight_decay": 0}),
    Row("timm.optim.SGDW", {"lr": 0.1, "momentum": 0.9}, limit=True),
    Row("timm.optim.RMSpropTF", {"lr": 0.01}),
    Row("timm.optim.RMSpropTF", {"lr": 0.001, "momentum": 0.9, "lr_in_momentum": False}, limit=True, count=2000),
    Row("pytorch_optimizer.RAdam", {"lr": 0.02}, first=6),
    Row("pytorch_optimizer.QHAdam", {"lr": 0.02}),
    Row("pytorch_optimizer.QHAdam", {"lr": 0.02, "nus": (0.7, 0.9)}),
    Row("transformers.optimization.Adafactor", ADAFACTOR, falls=True),
    Row("transformers.optimization.Adafactor", {**ADAFACTOR, "lr": 1.0, "scale_parameter": True}, falls=True),
    Row("transformers.optimization.AdamW", {"lr": 0.02, "no_deprecation_warning": True}),
    Row("transformers.optimization.AdamW", {"lr": 0.02, "correct_bias": False, "no_deprecation_warning": True}),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_displaces_a_constant_gradient_by_s(row: Row) -> None:
    at = (800,) if row.limit else tuple(t for t in (1, 2, 5, 6, 7, 200) if t >= row.first)
    assert max(displacement_errors(functools.partial(row.make, weight_decay=0.0), at)) <= 1e-9


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_lasso_by_its_prox_is_that_of_scikit_learn(row: Row) -> None:
    run = Run(lasso(), functools.partial(row.make, weight_decay=0.0))
    for rate in row.settings["lr"] * 0.1 ** torch.linspace(0, 6, 60) if row.falls else ():
        run.optimizer.param_groups[0]["lr"] = float(rate)
        run.steps(20)
    run.steps(row.count)
    assert run.error <= 1e-9
    assert torch.equal(run.weight == 0, run.problem.solution == 0)


def test_every_step_size_is_measured() -> None:
    """A row for each that is registered by name."""
    named = {name for name in NAMES if type(_KNOWN[name].rule).__name__ == "StepSizeRule"}
    assert named == {row.name for row in ROWS}


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("timm.optim.AdamWLegacy", {"caution": True}),
        ("timm.optim.NAdamW", {"clipping_threshold": 1.0}),
        ("timm.optim.SGDW", {"lr": 0.1, "momentum": 0.9, "caution": True}),
        ("timm.optim.RMSpropTF", {"centered": True}),
        ("pytorch_optimizer.AdaMax", {"adam_debias": True}),
        ("pytorch_optimizer.AdaMax", {"adanorm": True}),
        ("pytorch_optimizer.Yogi", {"adam_debias": True}),
        ("pytorch_optimizer.RAdam", {"adam_debias": True}),
        ("transformers.optimization.Adafactor", {**ADAFACTOR, "beta1": 0.9}),
        ("pytorch_optimizer.SGDW", {"momentum": 0.9, "nesterov": True, "dampening": 0.5}),
    ],
)
def test_settings_without_a_step_size_are_refused_and_left_to_latent_weights(name: str, setting: Any) -> None:
    optimizer_class, setting_name = found(name), list(setting)[-1]
    linear = nn.Linear(2, 1)
    optimizer = optimizer_class(linear.parameters(), **setting)
    with pytest.raises(StepSizeError, match=rf"{optimizer_class.__name__}: .*{setting_name}"):
        step_size_of(optimizer)
    regularizer = ts.Regularizer(linear, ts.L1(0.1)).attach(optimizer)
    assert regularizer.methods["weight"] == "latent"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Lion", "sign of an average"), ("SOAP", "a whole matrix"), ("AdaBelief", "deviation from its average")],
)
def test_those_that_have_none_say_so(name: str, reason: str) -> None:
    optimizer = found(f"pytorch_optimizer.{name}")([nn.Parameter(torch.ones(2, 2))])
    with pytest.raises(StepSizeError, match=f"^{name} .*{reason}.*Use method='latent'"):
        step_size_of(optimizer)


# --- weight decay ---

FLAGS = ("weight_decouple", "decoupled_weight_decay", "decoupled_decay", "decoupled")
MOMENTUM = ("SGDW", "PID", "QHM", "SGD", "SGD8bit", "SGD32bit", "LARS", "LARS8bit", "LARS32bit", "SGDP")
MORE: dict[str, dict[str, Any]] = {
    "Ranger21": {"num_iterations": 100},
    "Yogi": {"initial_accumulator": 0.0},
    "Adafactor": {"relative_step": False, "scale_parameter": False},
    **{name: {"momentum": 0.9} for name in MOMENTUM},
}


NOT_ON_THE_CPU = ("AdEMAMix32bit", "PagedAdEMAMix32bit")
ORTHOGONALISING = ("Muon", "AdaMuon", "NorMuon", "AdaGO")


def made(name: str, parameter: nn.Parameter, **settings: Any) -> Optimizer:
    cls = found(name)
    more = {} if name == "timm.optim.Adafactor" else MORE.get(cls.__name__, {})
    group: dict[str, Any] = {"params": [parameter]}
    if name.startswith("pytorch_optimizer") and cls.__name__ in ORTHOGONALISING:
        group["use_muon"] = True
    return cls([group], **{"lr": 0.01, **more, **settings})


def exchange(optimizer: Optimizer, mode: str) -> None:
    """To the weights that are trained, or to their average, where an optimizer has both."""
    method = getattr(optimizer, mode, None)
    if method is not None:
        method()


def steps(name: str, gradients: list[torch.Tensor], **settings: Any) -> tuple[Optimizer, torch.Tensor]:
    """Where these gradients lead from `start`."""
    parameter = nn.Parameter(start(name))
    optimizer = made(name, parameter, **settings)
    exchange(optimizer, "train")
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    exchange(optimizer, "eval")
    return optimizer, parameter.detach()


def start(name: str) -> torch.Tensor:
    single = name.startswith(("bitsandbytes", "torchao"))
    shape = (64, 128) if single else (4, 6)  # smaller tensors are not quantised
    draw = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=draw, dtype=torch.float32 if single else torch.float64)


def variants(name: str) -> list[dict[str, Any]]:
    """The settings that decide about weight decay."""
    group = made(name, nn.Parameter(torch.ones(4, 6))).param_groups[0]
    flag = next((flag for flag in FLAGS if flag in group), None)
    return [{}] if flag is None else [{flag: True}, {flag: False}]


@pytest.mark.parametrize("name", [name for name in NAMES if _KNOWN[name].decay != "unknown"])
def test_weight_decay_acts_as_is_said(name: str) -> None:
    """Coupled: at the solution of a ridge, where the gradient is −decay·w, nothing moves. Decoupled: it does.

    A decay of 1/4 is exact in floating point. What is called unknown does nothing at all.
    """
    if name.endswith(NOT_ON_THE_CPU):
        pytest.skip("fails on the CPU")
    for settings in variants(name):
        optimizer, end = steps(name, [-0.25 * start(name)] * 8, weight_decay=0.25, **settings)
        distance = float((end - start(name)).abs().max())
        kind = weight_decay_kind(optimizer, optimizer.param_groups[0])
        if kind == "unknown":
            assert torch.equal(end, steps(name, [-0.25 * start(name)] * 8, weight_decay=0.0, **settings)[1])
        else:
            assert distance <= 1e-12 if kind == "coupled" else distance >= 1e-9


def test_a_decay_that_is_known_is_told_and_one_that_is_not_too() -> None:
    linear = nn.Linear(2, 1)
    for name, settings, message in [
        ("Lion", {"weight_decouple": True}, "no stationary point"),
        ("Lion", {"weight_decouple": False}, r"L2\(0.05\) in addition"),
        ("Prodigy", {"weight_decouple": False}, "is not known for this class"),
    ]:
        optimizer = found(f"pytorch_optimizer.{name}")(linear.parameters(), weight_decay=0.1, **settings)
        with pytest.warns(ObjectiveWarning, match=rf"{name}\(weight_decay=0.1\).*{message}"):
            ts.Regularizer(linear, ts.L1(0.1)).attach(optimizer)


# --- registration by name ---

SOURCE = """
from torch.optim import SGD

class Mine(SGD):
    class Inner(SGD):
        pass
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose optimizer is in a module of its own, and which has it under its own name too."""
    name = f"library_{next(COUNT)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "inner.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / name / "__init__.py").write_text("from .inner import Mine\nAlias = Mine", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
    for key in [key for key in _KNOWN if isinstance(key, str) and key.startswith(name)]:
        del _KNOWN[key]


COUNT = itertools.count()


def rate(group: Any, state: Any) -> float:
    return group["lr"]


@pytest.mark.parametrize("place", ["{}.Mine", "{}.inner.Mine"])
def test_a_name_imports_nothing_and_is_met_where_the_class_is_or_is_offered(place: str, library: str) -> None:
    register_step_size(place.format(library), coordinatewise=False, weight_decay="coupled")(rate)
    assert library not in sys.modules
    optimizer = import_module(library).Mine([nn.Parameter(torch.ones(1))], lr=0.3)
    assert step_size_of(optimizer).step_size is rate
    assert weight_decay_kind(optimizer, optimizer.param_groups[0]) == "coupled"


def test_others_of_that_name_are_not_meant(library: str) -> None:
    register_step_size(f"{library}.inner.Mine", f"{library}.inner.Inner", coordinatewise=False)(rate)
    module = import_module(library)
    mine = type("Mine", (torch.optim.SGD,), {"step": lambda self, closure=None: None})
    inherited = type("Mine", (module.Mine,), {"__module__": "elsewhere", "step": lambda self, closure=None: None})
    nested = type("Inner", (module.Mine.Inner,), {"step": lambda self, closure=None: None})
    for cls in (mine, inherited, nested):
        with pytest.raises(StepSizeError, match="is not known"):
            step_size_of(cls([nn.Parameter(torch.ones(1))], lr=0.3))
    for cls in (type("Mine", (torch.optim.SGD,), {}), module.Mine.Inner):
        assert step_size_of(cls([nn.Parameter(torch.ones(1))], lr=0.3)).step_size is not rate


def test_the_last_word_counts_by_name_or_by_class(library: str) -> None:
    name, cls = f"{library}.Mine", import_module(library).Mine
    optimizer = cls([nn.Parameter(torch.ones(1))], lr=0.3)
    for by in (name, cls, f"{library}.inner.Mine", name, cls):
        refuse_step_size(by, reason="is mine", instead="Use another")
        with pytest.raises(StepSizeError, match="is mine"):
            step_size_of(optimizer)
        same_step_size(by, like=torch.optim.SGD)
        step_size_of(optimizer)
    register_weight_decay(cls, acts="decoupled")
    assert weight_decay_kind(optimizer, optimizer.param_groups[0]) == "decoupled"
    step_size_of(optimizer)


@pytest.mark.parametrize("bad", ["AdamW", "", "timm.", ".AdamW", "timm optim.AdamW"])
def test_what_is_no_qualified_name_is_refused(bad: str) -> None:
    with pytest.raises(InputError, match=r"optimizer class .*: expected a class, or its name"):
        register_step_size(bad, coordinatewise=False)(rate)
    with pytest.raises(InputError, match=r"optimizer class .*: expected a class, or its name"):
        register_weight_decay(bad, acts="coupled")
