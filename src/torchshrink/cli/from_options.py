"""From options to what is trained: the data, the model, the penalty, the optimizer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchshrink import models
from torchshrink.cli import console, option_checks, options
from torchshrink.cli.features import encoded_from, first_layer
from torchshrink.cli.penalty_names import NO_PENALTY, Shape, penalty_class, penalty_of
from torchshrink.cli.rules_file import read_rules
from torchshrink.cli.train_epochs import Fit
from torchshrink.data import Dataset, Format, load, split
from torchshrink.data.rounding import warn_of_rounding
from torchshrink.errors import InputError
from torchshrink.paths.folds import draw_rows
from torchshrink.penalties import BUILTIN, L2, GroupLasso, Penalty, SparseGroupLasso
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.selection import ALL, WEIGHTS, Rules, Selection
from torchshrink.training import check_fit, default_loss

DEFAULT_STRENGTH = 1e-4
MOST_LR = 1e4
SELECTION = {"weights": WEIGHTS, "all": ALL}


@dataclass(frozen=True, eq=False)
class Penalising:
    """What is penalised and how: ``rules`` is None where nothing is. ``settings`` is the same as JSON."""

    rules: Rules | None
    on: Selection
    settings: dict[str, Any]

    @property
    def rules_or_zero(self) -> Rules:
        """The rules, or a penalty of strength 0 where there are none: for what is counted and certified."""
        return L2(0.0) if self.rules is None else self.rules

    def by_feature(self, data: Dataset | None, model: Mapping[str, Any]) -> Penalising:
        """The same with the columns of one feature in one group."""
        return replace(
            self,
            rules=rules_by_feature(self.rules, data, model, self.on),
            settings=self.settings | {"groups": "features"},
        )


def penalising(
    penalty: str | None, strength: float | None, shape: Shape, *, rules: Path | None, on: str | None
) -> Penalising:
    """What the penalty's options say together.

    Raises:
        InputError: one of them is wrong, or they contradict each other.
    """
    if on is not None:
        option_checks.one_of("--on", on, options.SELECTIONS)
    if rules is not None:
        given = {"--penalty": penalty, "--strength": strength} | {
            f"--{option.replace('_', '-')}": value for option, value in asdict(shape).items()
        }
        clash = [name for name, value in given.items() if value is not None]
        if clash:
            raise InputError(f"--rules with {' and '.join(clash)}: the file says all of this; give one or the other")
        file = read_rules(rules)
        if on is not None and file.on not in (None, on):
            raise InputError(f"--on {on}, and {rules} says on: {file.on}; give one of them")
        chosen = on or file.on or "weights"
        as_json = {pattern: None if rule is None else repr(rule) for pattern, rule in file.rules.items()}
        return Penalising(file.rules, SELECTION[chosen], {"rules": as_json, "on": chosen})
    name = penalty or "l2"
    chosen = on or "weights"
    if name == NO_PENALTY:
        shape.check(name)
        if strength:
            raise InputError(f"--strength {strength:g} with --penalty none: give a penalty, or leave --strength out")
        return Penalising(None, SELECTION[chosen], {"penalty": name, "on": chosen})
    constraint = penalty_class(name, offered=(*BUILTIN, NO_PENALTY)).constraint
    shape.check(name)
    if constraint and strength is not None:
        raise InputError(f"--strength {strength:g} with --penalty {name}: a constraint has none; leave it out")
    value = DEFAULT_STRENGTH if strength is None else option_checks.not_negative("--strength", strength)
    made = penalty_of(name, value, shape)
    known = {} if constraint else {"strength": value}
    return Penalising(made, SELECTION[chosen], {"penalty": name, **known, "as": repr(made), "on": chosen})


def rules_by_feature(penalty: Rules | None, data: Dataset | None, model: Mapping[str, Any], on: Selection) -> Rules:
    """A group penalty of columns, which in the first layer are those of one feature together, and single ones later.

    Raises:
        InputError: what the model's first layer is, is not known.
    """
    if data is None or "inputs" not in model:
        raise InputError(f"--groups features with --model {model['model']}: only mlp, logistic and linear are known")
    if not isinstance(penalty, GroupLasso | SparseGroupLasso):  # which `Shape.check` has seen to
        raise InputError("--groups features: a group penalty expected")
    # Later layers too: else they grow as the first one shrinks, and the penalty comes to nothing.
    others: dict[str | type[nn.Module], Penalty | None] = {"*": penalty} if model["hidden"] or on == ALL else {}
    return {first_layer(model): replace(penalty, labels=encoded_from(data)), **others}


def format_of(
    sep: str | None, decimal: str | None, thousands: str | None, *, na: list[str] | None, drop: list[str] | None
) -> Format:
    """How a table is to be read, as the options say together.

    Raises:
        InputError: they contradict each other, or one is no character.
    """
    try:
        return Format(
            sep={"tab": "\t", "\\t": "\t"}.get(sep or "", sep),
            decimal=decimal,
            thousands={"space": " "}.get(thousands or "", thousands),
            na=_several(na),
            drop=_several(drop),
        )
    except InputError as error:
        raise InputError(f"--{error}") from None


def _several(given: list[str] | None) -> tuple[str, ...]:
    words = (word.strip() for words in given or () for word in words.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def load_data(spec: str, *, target: str | None, task: str, format: Format) -> Dataset:
    """The data set, with its target taken as ``task`` says."""
    option_checks.one_of("--task", task, options.TASKS)
    return load(spec, target=target, task=None if task == "auto" else task, format=format)  # type: ignore[arg-type]


def say_guesses(dataset: Dataset) -> None:
    """What was guessed of the data's text, on stderr; for once all else is checked, since errors are one line."""
    for note in dataset.notes:
        console.say(f"{dataset.name}: {console.one_line(note)}")


def fingerprint(data: Dataset) -> str:
    """A hash of all the values, so that a run is not resumed on other data of the same name."""
    digest = hashlib.sha256()
    for tensor in (data.X, data.y):
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def model_settings(data: Dataset, model: str, hidden: str | None) -> dict[str, Any]:
    """What `models.build` needs, for this data."""
    if hidden is not None and model != "mlp":
        raise InputError(f"--hidden {hidden} with --model {model}: only the mlp has hidden widths; leave one out")
    return models.model_settings(
        model,
        inputs=data.sizes,
        outputs=data.outputs,
        hidden=(64, 64) if hidden is None else option_checks.widths("--hidden", hidden),
        regression=data.task == "regression",
    )


def build_seeded(settings: dict[str, Any], seed: int) -> nn.Module:
    """A model whose initial weights depend on ``seed`` and nothing else."""
    torch.manual_seed(seed)
    np.random.seed(seed % option_checks.SEEDS)
    random.seed(seed)
    return models.build(settings)


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer by name; calling it makes one for some parameters."""

    name: str
    lr: float
    momentum: float

    @classmethod
    def of(cls, name: str, lr: float | None, momentum: float | None) -> OptimizerSettings:
        """What --optimizer, --lr and --momentum say together."""
        option_checks.one_of("--optimizer", name, options.OPTIMIZERS)
        if momentum is not None and name != "sgd":
            raise InputError(f"--momentum {momentum:g} with --optimizer {name}: only sgd takes it; leave one out")
        rate = {"sgd": 0.1}.get(name, 1e-3) if lr is None else option_checks.positive("--lr", lr)
        if rate > MOST_LR:
            raise InputError(f"--lr {rate:g}: expected at most {MOST_LR:g}; nothing is learnt in such steps")
        beta = 0.0 if momentum is None else option_checks.between("--momentum", momentum, 0, 1, "such as 0.9")
        return cls(name, rate, beta)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer, without any weight decay of its own: the penalty is the only one."""
        make: dict[str, Callable[[], torch.optim.Optimizer]] = {
            "sgd": lambda: torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, fused=True),
            "adam": lambda: torch.optim.Adam(parameters, lr=self.lr, fused=True),
            "adamw": lambda: torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.0, fused=True),
        }
        return make[self.name]()


def use_threads(count: int) -> None:
    """Compute on so many CPU cores. It decides the last bits of every sum, so it is a setting like any other."""
    torch.set_num_threads(count)


def device(name: str) -> torch.device:
    """The device called ``name``, if this machine has it."""
    try:
        found = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: expected cpu, cuda or cuda:NUMBER") from None
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: expected cpu, cuda or cuda:NUMBER")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} such devices; take cpu")
    return found


def versions() -> dict[str, str]:
    """What decides the bits beside the settings."""
    from torchshrink import __version__

    return {"torchshrink": __version__, "torch": torch.__version__}


def split_rows(data: Dataset, validation: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Training and validation rows; no validation rows where their share is 0."""
    if validation == 0:
        return data, None
    training, held_out = split(data, fraction=validation, seed=seed)
    return data.subset(training), data.subset(held_out)


def rows_for(model: nn.Module, data: Dataset, unit: models.TargetScale) -> tuple[Tensor, Tensor]:
    """Rows in the dtype in which the model takes them, and targets in the unit and dtype in which it is trained.

    Warns:
        DataWarning: rounding to the model's dtype makes different values the same.
    """
    dtype, own = models.rows_dtype(model, data.X), models.rows_dtype(nn.ParameterList(model.parameters()), data.X)
    warn_of_rounding("the rows", data.X, dtype, advice="a model that begins with ts.models.Preprocess keeps them apart")
    y = unit.inward(data.y)
    return data.X.to(dtype), y.to(own) if y.is_floating_point() else y


def _on(device: torch.device, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return rows[0].to(device), rows[1].to(device)


def test_rows(data: Dataset, rows: int, seed: int) -> list[int]:
    """The numbers of the test rows, where ``rows`` are to be tuned on."""
    found: list[int] = draw_rows(data.y, data.rows - rows, seed=seed, what=f"--rows {rows}").tolist()
    return found


def prepare(
    data: Dataset,
    parts: tuple[Dataset, Dataset | None],
    settings: dict[str, Any],
    penalty: Penalising,
    make_optimizer: OptimizerSettings,
    *,
    method: str,
    batch_size: int,
    epochs: int,
    seed: int,
    device: torch.device,
) -> Fit:
    """Everything built, fitted on the training rows, bound and attached: what can be refused is refused here.

    Raises:
        InputError: model, data, penalty, method or optimizer do not fit together.
    """
    model = build_seeded(settings, seed)
    unit = models.TargetScale.of(model, parts[0].y)
    training = rows_for(model, parts[0], unit)
    models.fit_preprocessing(model, *training)
    model.to(device)
    rows = (training[0].to(device), training[1].to(device))
    loss = default_loss(data.y)
    check_fit(model, *rows, loss=loss)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = "only frozen parameters" if any(True for _ in model.parameters()) else "no parameters"
        raise InputError(f"--model {settings['model']}: it has {what}: there is nothing to train")
    optimizer = make_optimizer(model.parameters())
    regularizer = None
    if penalty.rules is not None:
        regularizer = Regularizer(model, penalty.rules, on=penalty.on)
        with torch.no_grad():
            for term in regularizer.terms:
                term.penalty.value(term.parameter)  # refuses groups along a dimension that is not there
        if method != "loss":
            regularizer.attach(optimizer, method=method)  # type: ignore[arg-type]  # checked by its option
    elif method != "auto":
        raise InputError(f"--method {method} with --penalty none: give a penalty, or leave --method out")
    return Fit(
        model=model,
        optimizer=optimizer,
        regularizer=regularizer,
        added=method == "loss",
        penalising=penalty,
        loss=loss,
        training=rows,
        validation=None if parts[1] is None else _on(device, rows_for(model, parts[1], unit)),
        unit=unit,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
    )
