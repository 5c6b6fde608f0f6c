"""How one model of a path is made and trained; the same for every strength, fold and engine."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.data.first_pass import opened
from torchshrink.data.lazy import LazyRows, Rows
from torchshrink.data.rounding import warn_of_rounding
from torchshrink.errors import InputError, ObjectiveWarning, SelectionWarning
from torchshrink.models import TargetScale, fit_preprocessing, rows_dtype
from torchshrink.paths.identity import FEW, check_anew, digest, identity_of
from torchshrink.paths.model_weights import Weights, load_weights
from torchshrink.paths.model_words import MOST_AUDITED, audit_row, in_words
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.settings import MakeOptimizer, PathSettings, named
from torchshrink.paths.spec_checks import (
    built_model,
    check_step,
    checked_data,
    checked_device,
    ignored_target,
    made_optimizer,
)
from torchshrink.paths.weight_summary import NOTHING, Looked, looked_at
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.selection import Rules
from torchshrink.support.randomness import mix_seed, seeded
from torchshrink.support.text import shortened
from torchshrink.training import Loss, check_fit, default_loss, default_optimizer, train_epoch

Build = Callable[[], nn.Module]

EPOCHS, BATCH_SIZE = 50, 64

UNCHANGED = TargetScale()
"""Of targets that are trained on as they are."""

WHOLE = -1
"""The part that is all the rows, where a fold's number is its part."""


@dataclass(frozen=True, eq=False)
class TrainingSpec:
    """What a training depends on besides its penalty and its rows.

    Args:
        build: makes the model, with initial weights from torch's global generator.
        X: all rows (n, …), raw, on ``device``, in the model's dtype where they are floating, or in float64 where it
            standardises them first; in memory, or still to be read.
        y: all targets (n, …): int64 class codes, or numbers in the model's dtype and in ``unit``.
        loss: a mean over examples.
        make_optimizer: parameters -> optimizer.
        optimizer: what it makes, as text.
        device: where to train.
        settings: what the caller gave.
        solved: whether nothing is trained, and each optimum is computed.
        target_scale: of the targets that are trained on; losses that are reported are in that of the targets given.
        identity: digests of the initial model and of what it does, for telling specs apart.
        names: what the inputs are called, where the caller's rows say so.
        penalised: how many weights each family's penalty acts on at strength 1, by the family's name.
        grouped: the names of the families whose penalty has groups at strength 1.
        parameters: how many numbers the model's parameters have.
        looked: which weights are kept a summary of, for a reader.
        model: what it is, in words.
        audits: of each family, by its name: every parameter's name, shape and penalty, or why it has none.
    """

    build: Build
    X: Rows
    y: Tensor
    loss: Loss
    make_optimizer: MakeOptimizer
    optimizer: str
    device: torch.device
    settings: PathSettings
    identity: Mapping[str, str]
    solved: bool = False
    target_scale: TargetScale = UNCHANGED
    names: tuple[str, ...] = ()
    penalised: Mapping[str, int] = dataclasses.field(default_factory=dict)
    grouped: frozenset[str] = frozenset()
    parameters: int = 0
    looked: Looked = NOTHING
    model: str = ""
    audits: Mapping[str, Sequence[Sequence[str]]] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        how = "solved" if self.solved else f"{self.epochs} epochs of {shortened(self.optimizer, 60)}"
        return f"<TrainingSpec: {len(self.y)} rows, {self.parameters:,} parameters, {how}, on {self.device}>"

    @property
    def epochs(self) -> int:
        """Passes over the rows, per training."""
        return EPOCHS if self.settings.epochs is None else self.settings.epochs

    @property
    def batch_size(self) -> int:
        """Rows per step."""
        return BATCH_SIZE if self.settings.batch_size is None else self.settings.batch_size

    def describe(self) -> dict[str, Any]:
        """What a reader of the result wants to know, as JSON takes it: the settings, as they were taken.

        Neither the strengths, which a result has anyway, nor the engine, which changes no more than the last bits.
        """
        loss = named(self.loss) + ("" if self.target_scale == UNCHANGED else " of the standardised target")
        how = {"epochs": self.epochs, "batch_size": self.batch_size, "optimizer": self.optimizer}
        if self.solved:
            how = dict.fromkeys(how) | {"optimizer": self.optimizer}
        plain = self.settings.to_dict() | {"loss": loss} | how
        return {"rows": len(self.X)} | {k: v for k, v in plain.items() if k not in ("strengths", "engine", "device")}

    @property
    def ignored(self) -> int:
        """The code of the targets that the loss leaves out."""
        return ignored_target(self.loss)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the results depend on, as far as it shows before training, for telling a journal's trainings apart.

        Settings, digests of the data, of the initial weights and of what the initial model and the loss give for a
        few rows, versions and threads. Code that acts later only, such as a hook, does not show.
        """
        return (
            self.describe()
            | {"X": self.X.digest if isinstance(self.X, LazyRows) else digest([self.X]), "y": digest([self.y])}
            | dict(self.identity)
            | {
                "device": str(self.device),
                "torch.set_num_threads": torch.get_num_threads(),
                "torch.set_float32_matmul_precision": torch.get_float32_matmul_precision(),
                "torch": torch.__version__,
                "torchshrink": version("torchshrink"),
            }
        )

    def in_float64(self) -> TrainingSpec:
        """The same with data and loss in float64, for what is to be exact. The model is the caller's to convert."""
        loss = copy.deepcopy(self.loss)
        return dataclasses.replace(
            self,
            X=self.X.double() if self.X.is_floating_point() else self.X,
            y=self.y.double() if self.y.is_floating_point() else self.y,
            loss=loss.double() if isinstance(loss, nn.Module) else loss,
        )

    def part_seed(self, part: int) -> int:
        """The seed of a fold's trainings (or those on all rows: `WHOLE`), the same for every strength."""
        return mix_seed(self.settings.seed, part + 1)

    def fresh(self) -> nn.Module:
        """A new model on the device. Call it inside `seeded`."""
        return self.build().to(self.device)

    def train(
        self,
        rules: Rules,
        X: Rows,
        y: Tensor,
        *,
        part: int,
        start: Weights | None = None,
        losses: list[float] | None = None,
    ) -> tuple[nn.Module, Regularizer]:
        """Train one model on the rows given. The caller's random number generators are left as they were.

        Preprocessing is fitted on these rows and no others. The regularizer comes back detached. With ``start``,
        training begins from these weights and not from the initial ones, which a penalty towards them (`L2SP`) still
        means; the optimizer is a fresh one either way. Each epoch's mean loss, as seen while training, is put into
        ``losses``.

        Raises:
            DivergenceError: the loss became infinite or NaN.
        """
        seed = self.part_seed(part)
        with seeded(seed), without_repeated_warnings():
            model = self.fresh()
            fit_preprocessing(model, X, y)
            regularizer = Regularizer(model, rules, self.settings.on)
            if start is not None:
                load_weights(model, start)
            optimizer = self.make_optimizer(model.parameters())
            if self.settings.method != "loss":
                regularizer.attach(optimizer, self.settings.method)
            for epoch in range(self.epochs):
                stats = train_epoch(
                    model,
                    X,
                    y,
                    loss=self.loss,
                    optimizer=optimizer,
                    regularizer=regularizer if self.settings.method == "loss" else None,
                    batch_size=self.batch_size,
                    seed=seed,
                    epoch=epoch,
                )
                if losses is not None:
                    losses.append(stats.loss)
            regularizer.detach()
        return model, regularizer


@contextlib.contextmanager
def without_repeated_warnings() -> Iterator[None]:
    """Inside, what `make_training_spec` has warned of is not said again, for every strength and fold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)
        warnings.simplefilter("ignore", ObjectiveWarning)
        yield


def make_training_spec(
    build: Build,
    data: object,
    families: Sequence[PenaltyFamily],
    settings: PathSettings,
    *,
    progress: bool = False,
    solvable: Callable[[TrainingSpec], bool] = lambda spec: False,
) -> TrainingSpec:
    """Check everything that can be checked before any training, and bring the data to the model's device and dtype.

    ``solvable`` says of what it would be without an optimizer whether nothing is to be trained.

    Raises:
        InputError: an argument is not usable, in one line that says why.
        AttachmentError: the penalty cannot act in this optimizer.
    """
    if isinstance(build, nn.Module):
        raise InputError(
            f"build: a {type(build).__name__} given, a function that makes a new one expected: "
            f"lambda: {type(build).__name__}(…)"
        )
    if not callable(build):
        raise InputError(f"build: {type(build).__name__} given, a callable () -> nn.Module expected")
    first_seed = mix_seed(settings.seed, WHOLE + 1)
    with seeded(first_seed):
        model = built_model(build)
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        if first is None:
            raise InputError("build() returned a model without parameters: there is nothing to train")
        where = checked_device(settings.device, first.device)
        check_anew(model, build, first_seed)
        model.to(where)
        # After all that is cheap to check, and inside, since reading rows may draw random numbers.
        rows, targets = opened(data, workers=settings.engine.workers, progress=progress)
        X, y = checked_data(rows, targets, settings.loss)
        if X.is_floating_point():
            # On the CPU before: not every device has float64.
            dtype = first.dtype if where.type == "mps" else rows_dtype(model, X.to(where, X.dtype))
            warn_of_rounding("X", X, dtype, advice="centre it, or begin the model with ts.models.Preprocess")
            X = X.to(where, dtype)
        else:
            X = X.to(where, X.dtype)
        unit = TargetScale.of(model, y) if settings.loss is None else UNCHANGED
        if y.is_floating_point():
            warn_of_rounding(
                "y", unit.inward(y), first.dtype, advice="centre it, or end the model with ts.models.Rescale"
            )
            y = unit.inward(y).to(first.dtype)
        y = y.to(where)
        loss = default_loss(y) if settings.loss is None else copy.deepcopy(settings.loss)
        if isinstance(loss, nn.Module):
            loss = loss.to(where)
        weights = digest(model.state_dict().values())
        fit_preprocessing(model, X, y)
        check_fit(model, X, y, loss=loss)
        identity = {"initial weights": weights} | identity_of(model, X[:FEW], y[:FEW], loss)
        penalised: dict[str, int] = {}
        grouped, acted, audits = set(), list[Tensor](), {}
        for family in families:
            regularizer = Regularizer(model, family.make(1.0), settings.on)
            penalised[family.name] = sum(term.parameter.numel() for term in regularizer.terms)
            audits[family.name] = [audit_row(choice) for choice in regularizer.choices[:MOST_AUDITED]]
            acted += [term.parameter for term in regularizer.terms]
            if any(term.penalty.groups(term.parameter.shape) is not None for term in regularizer.terms):
                grouped.add(family.name)
        make_optimizer = settings.optimizer or default_optimizer
        spec = TrainingSpec(
            build=build,
            X=X,
            y=y,
            loss=loss,
            make_optimizer=make_optimizer,
            optimizer="none: each optimum is computed",
            device=where,
            settings=settings,
            identity=identity,
            names=_names(data),
            target_scale=unit,
            penalised=penalised,
            grouped=frozenset(grouped),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            looked=looked_at(model, X.shape[1:], acted),
            model=in_words(model),
            audits=audits,
        )
        if solvable(spec):
            return dataclasses.replace(spec, solved=True)
        # From here on what training alone needs: making an optimizer imports torch's compiler, a second or more.
        made = made_optimizer(make_optimizer, model)
        if settings.method != "loss":
            for family in families:
                Regularizer(model, family.make(1.0), settings.on).attach(made, settings.method).detach()
        few = torch.arange(min(len(X), settings.batch_size or BATCH_SIZE, FEW))
        check_step(model, X[few.to(X.device)], y[few.to(y.device)], loss, made)
    return dataclasses.replace(spec, optimizer=_optimizer_text(made))


def _names(data: object) -> tuple[str, ...]:
    """The names of the columns of a DataFrame's rows; none of others."""
    rows = data[0] if isinstance(data, tuple | list) and data else None
    columns = getattr(rows, "columns", None)
    return () if columns is None else tuple(str(name) for name in columns)


def _optimizer_text(optimizer: torch.optim.Optimizer) -> str:
    groups = [
        ", ".join(f"{key}={value}" for key, value in group.items() if key != "params" and value not in (None, False))
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__}({'; '.join(dict.fromkeys(groups))})"
