"""Paths of linear and logistic regression without any training: each fold's optimum at each strength, and a proof.

A fold's strengths are solved from the strongest down, each begun where the one before it ended. Without penalty a loss
of classes may have no optimum: where a plane separates the rows, larger weights are always better. Such a fold is taken
at strength 0 as scikit-learn takes it: where the slopes are small.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certifying.conjugates import Squares
from torchshrink.certifying.full_data import FullLoss
from torchshrink.certifying.linear_model import LinearModel, elastic_net_of, linear_model
from torchshrink.data.lazy import LazyRows, subset
from torchshrink.errors import InputError, NoDualError
from torchshrink.models import Preprocess, fit_preprocessing
from torchshrink.optimum import AT_ONCE, Optima, Strengths, acts_here, outputs_of, solve, solve_composite
from torchshrink.paths.engines.sequential import train_one
from torchshrink.paths.folds import Fold
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.paths.training_spec import WHOLE, TrainingSpec, without_repeated_warnings
from torchshrink.paths.weight_summary import summaries
from torchshrink.paths.zero_pattern import tensors_of, zero_pattern
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.support.private_torch import has_hooks
from torchshrink.support.randomness import seeded
from torchshrink.support.storage import brief
from torchshrink.training import class_codes, class_hits

MOST_WORK = 2e10  # multiplications and additions of one step, where all weights are nonzero
BEFORE = (Preprocess, nn.Flatten, nn.Identity)
"""Modules that may stand before the linear layer: what they give for a row depends on nothing but the row."""


@dataclass(frozen=True)
class OptimumTask:
    """The optima of one fold, by its number, at some strengths."""

    family: int
    fold: int
    strengths: tuple[float, ...]

    @property
    def keys(self) -> tuple[TrainingKey, ...]:
        """What comes out of it."""
        return tuple(TrainingKey(self.family, strength, self.fold) for strength in self.strengths)

    @property
    def name(self) -> str:
        """A digest of what it is: the last bits of an optimum depend on where its search began."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def why_not(spec: TrainingSpec, families: Sequence[PenaltyFamily]) -> str:
    """Why these optima cannot be computed, as a clause; empty where they can."""
    if isinstance(spec.X, LazyRows):
        return "the rows are read from a Dataset"
    if spec.settings.method != "auto":
        return f"method={spec.settings.method!r} says how to train"
    if spec.settings.order != "cold":
        return "order='warm' says how to train"
    few = torch.arange(min(2, len(spec.X)), device=spec.device)
    try:
        model, linear = _on(spec, spec.in_float64(), few, part=WHOLE)
        _check_front(model)
        k, d = linear.layer.weight.shape
        if len(spec.X) * float(k * d) ** 2 > MOST_WORK:
            return f"{k * d} weights and {len(spec.X)} rows are too many for second derivatives"
        for family in families:
            _Acting(spec, model, linear, family).check()
    except InputError as error:
        return str(error)
    except RuntimeError as error:  # a model that insists on float32, say
        return brief(error)
    return ""


def solve_fold(
    spec: TrainingSpec, folds: Sequence[Fold], families: Sequence[PenaltyFamily], task: OptimumTask
) -> dict[TrainingKey, TrainingResult]:
    """What comes out of one task."""
    family, fold = families[task.family], folds[task.fold]
    train, held_out = fold.train.to(spec.device), fold.validation.to(spec.device)
    wide = spec.in_float64()
    model, linear = _on(spec, wide, train, part=task.fold)
    elsewhere = _seen(model, wide, held_out)
    acting = _Acting(spec, model, linear, family)
    downwards = sorted(task.strengths, reverse=True)
    optima = acting.solved(linear, downwards)
    codes = None if isinstance(linear.row_loss, Squares) else class_codes(wide.loss, wide.y[held_out])
    nonzero = acting.nonzero(optima)
    shown = _fitted(spec, train, part=task.fold) if family.name in spec.grouped else None
    found: dict[TrainingKey, TrainingResult] = {}
    kept = summaries(spec.looked, {acting.layer_name: optima.weight})
    size = max(1, AT_ONCE // linear.outputs.numel())
    for at in range(0, len(downwards), size):
        some = slice(at, at + size)
        there = outputs_of(elsewhere.features, optima.weight[some], None if optima.bias is None else optima.bias[some])
        row_losses = spec.target_scale.of_loss * elsewhere.row_loss.rows(there).cpu()
        hits = None if codes is None else class_hits(there, codes).double().mean(1).tolist()
        for place, strength in enumerate(downwards[some]):
            key, number = TrainingKey(task.family, strength, task.fold), at + place
            gap = optima.gap[number]
            if optima.stalled[number] and (gap is None or not math.isfinite(gap)):  # the steps stalled on the way
                found[key] = train_one(spec, fold, family, key)[0]
                continue
            found[key] = TrainingResult(
                spec.target_scale.of_loss * optima.loss[number],
                row_losses[place].clone(),
                None if hits is None else hits[place],
                nonzero=nonzero[number],
                above=gap,
                stationary=optima.stationary[number] if optima.stationary else None,
                pattern=None if shown is None else _pattern(shown, optima, number),
                weights=kept[number],
            )
    return {key: found[key] for key in task.keys}


def optimum_on_all_rows(spec: TrainingSpec, family: PenaltyFamily, strength: float) -> tuple[nn.Module, Regularizer]:
    """The model with the optimum of all rows, and its regularizer."""
    every = torch.arange(len(spec.X), device=spec.device)
    model, linear = _on(spec, spec.in_float64(), every, part=WHOLE)
    optima = _Acting(spec, model, linear, family).solved(linear, [strength], exactly=True)
    if optima.stalled[0]:
        return spec.train(family.make(strength), spec.X, spec.y, part=WHOLE)
    with seeded(spec.part_seed(WHOLE)), without_repeated_warnings():
        model = spec.fresh()
        fit_preprocessing(model, spec.X, spec.y)
        regularizer = Regularizer(model, family.make(strength), spec.settings.on)
    _put(optima, next(module for module in model.modules() if isinstance(module, nn.Linear)))
    return model, regularizer


def _on(spec: TrainingSpec, wide: TrainingSpec, rows: Tensor, *, part: int) -> tuple[nn.Module, LinearModel]:
    """A model in float64, fitted to these rows, and what it is on them."""
    model = _fitted(spec, rows, part=part).eval()
    digits = next(model.parameters()).dtype
    linear = _seen(model.double(), wide, rows)
    return model, dataclasses.replace(linear, digits=digits)


def _fitted(spec: TrainingSpec, rows: Tensor, *, part: int) -> nn.Module:
    """A model with initial weights, and what it fits to its rows before a training."""
    with seeded(spec.part_seed(part)), without_repeated_warnings():
        model = spec.fresh()
        fit_preprocessing(model, subset(spec.X, rows), spec.y[rows])
    return model


def _pattern(model: nn.Module, optima: Optima, number: int) -> bytes:
    """Which weights of an optimum are zero in the model's own dtype."""
    _put(optima, next(module for module in model.modules() if isinstance(module, nn.Linear)), number)
    return zero_pattern(tensors_of(model))


@torch.no_grad()
def _seen(model: nn.Module, wide: TrainingSpec, rows: Tensor) -> LinearModel:
    return linear_model(FullLoss(model, subset(wide.X, rows), wide.y[rows], wide.loss))


def _check_front(model: nn.Module) -> None:
    for module in model.modules():
        if has_hooks(module) or "forward" in vars(module):
            raise InputError(f"{type(module).__name__} has hooks, or a forward of its own")
    layers = list(model) if isinstance(model, nn.Sequential) else [model]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            return
        if type(layer) not in BEFORE:
            raise InputError(f"{type(layer).__name__} stands before the nn.Linear")


class _Acting:
    """What a family's penalties are on a fold's model, at any strength.

    What they act on is looked up once; only rules, which may say something else at each strength, are looked at again.
    """

    def __init__(self, spec: TrainingSpec, model: nn.Module, linear: LinearModel, family: PenaltyFamily) -> None:
        self._spec, self._model, self._layer, self._family = spec, model, linear.layer, family
        self._terms = self._regularizer(1.0).terms

    @property
    def layer_name(self) -> str:
        """Of the layer's weight."""
        return next(name for name, each in self._model.named_parameters() if each is self._layer.weight)

    def check(self) -> None:
        """Raise if the penalty is none that is known here."""
        acting = self._in_force(1.0)
        if not self._nets([acting]):
            self._on_weight(acting)

    def solved(self, linear: LinearModel, strengths: Sequence[float], *, exactly: bool = False) -> Optima:
        """The optima at these strengths, which descend."""
        acting = [self._in_force(strength) for strength in strengths]
        if not self._nets(acting):
            return solve_composite(linear, [self._on_weight(each) for each in acting], exactly=exactly)
        layer = self._layer
        weights = [elastic_net_of(layer.weight, each) for each in acting]
        biases = None if layer.bias is None else [elastic_net_of(layer.bias, each) for each in acting]
        return solve(linear, Strengths.of(layer.weight, weights, biases), exactly=exactly)

    def _nets(self, acting: Sequence[Mapping[Tensor, Penalty]]) -> bool:
        """Whether all of these penalties are elastic nets."""
        return all(penalty.as_elastic_net is not None for each in acting for penalty in each.values())

    def _on_weight(self, acting: Mapping[Tensor, Penalty]) -> Penalty | None:
        penalty, bias = acting.get(self._layer.weight), self._layer.bias
        if bias is not None and bias in acting:
            raise NoDualError(f"{acting[bias]} acts on the bias too: beside {penalty} it is left free here")
        if penalty is not None and not acts_here(penalty):
            raise NoDualError(f"{penalty}: its prox, or where its kinks are, is not known")
        return penalty

    def nonzero(self, optima: Optima) -> list[int]:
        """How many penalised coordinates are not 0, at each strength."""
        penalised = {id(term.parameter) for term in self._terms}
        counts = torch.zeros(len(optima.weight), dtype=torch.int64, device=optima.weight.device)
        for parameter, values in ((self._layer.weight, optima.weight), (self._layer.bias, optima.bias)):
            if values is not None and id(parameter) in penalised:
                counts += (values != 0).flatten(1).sum(1)
        return counts.tolist()

    def _in_force(self, strength: float) -> Mapping[Tensor, Penalty]:
        rules = self._family.make(strength)
        if isinstance(rules, Penalty):
            return {term.parameter: rules.bind(term.parameter).at_step(0) for term in self._terms}
        return self._regularizer(strength).in_force()

    def _regularizer(self, strength: float) -> Regularizer:
        with without_repeated_warnings():
            return Regularizer(self._model, self._family.make(strength), self._spec.settings.on)


def _put(optima: Optima, layer: nn.Linear, number: int = 0) -> None:
    """One of these weights into the layer."""
    with torch.no_grad():
        layer.weight.copy_(optima.weight[number])
        if optima.bias is not None:
            layer.bias.copy_(optima.bias[number])
