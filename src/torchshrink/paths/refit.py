"""Trains on all rows at a chosen strength, and gives the certificate of the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from torchshrink.certifying import certify
from torchshrink.data.lazy import LazyRows, readers_alive
from torchshrink.errors import DivergenceError, InputError
from torchshrink.paths.engines.optimum import optimum_on_all_rows
from torchshrink.paths.engines.warm_path import train_along
from torchshrink.paths.model_weights import Weights, weights_of
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.settings import Order
from torchshrink.paths.training_spec import WHOLE, TrainingSpec, without_repeated_warnings
from torchshrink.penalties import Penalty, Support
from torchshrink.polishing import STEPS_AT_THE_END, polish
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.certificate import Certificate
from torchshrink.regularizer.selection import Pattern, Rules

if TYPE_CHECKING:
    from torchshrink.shrinking import Shrunk

FEW_ROWS = 64
_DENSE = "relaxed: the penalty left no weight exactly zero, so this is a training without penalty"


@dataclass(frozen=True, eq=False)
class Source:
    """What a path was made from."""

    spec: TrainingSpec
    family: PenaltyFamily
    climbed: tuple[float, ...] = ()  # the strengths of a warm path, ascending; none of a cold one

    def __repr__(self) -> str:
        return f"<Source of a {self.order} path: {len(self.spec.y)} rows, {self.family.name}>"

    @property
    def order(self) -> Order:
        """How the path was trained."""
        return "warm" if self.climbed else "cold"

    def refit(self, strength: float, *, polished: bool = False, relaxed: bool = False) -> tuple[nn.Module, Certificate]:
        """Train on all rows as the path was; the model in evaluation mode, and its certificate.

        After a cold path that is one training at ``strength``; after a warm one it is the path up to there: through its
        strengths below, and then at ``strength``, which need not be one of them.
        The certificate is of the F that was trained, whose loss is in the unit that the target was trained in.
        ``relaxed``: then train on as long without the penalty, its zeros held; the certificate is of that.
        """
        checked_strength(strength)
        if polished and isinstance(self.spec.X, LazyRows):
            raise InputError("polish=True needs the rows in memory, for many passes: give (X, y), or leave it out")
        with torch.inference_mode(False), readers_alive(self.spec.X):  # gradients, whatever the caller has off
            return self._refit(float(strength), polished=polished, relaxed=relaxed)

    def trained(self, climbed: Sequence[float]) -> tuple[nn.Module, Regularizer]:
        """The model of all rows at the last of these strengths, each begun where the one before it ended.

        Where the path's models are optima, it is the optimum there, which needs no other.

        Raises:
            DivergenceError: a training diverged.
        """
        if self.spec.solved:
            return optimum_on_all_rows(self.spec, self.family, climbed[-1])
        return train_along(self.spec, self.family, climbed)

    def models(self, strengths: Sequence[float]) -> Iterator[nn.Module | None]:
        """What `refit` trains at each of these strengths, which ascend; None where the training diverges.

        After a warm path they are on one way up, so that each of its strengths is trained once.
        """
        spec, start, done = self.spec, None, -math.inf
        with torch.inference_mode(False), readers_alive(spec.X):
            for strength in strengths:
                for below in (each for each in self.climbed if done < each < strength):
                    model = self._trained(below, start)
                    start, done = start if model is None else weights_of(model), below
                model = self._trained(strength, start)
                if model is not None:
                    if strength in self.climbed:
                        start, done = weights_of(model), strength
                    spec.target_scale.restore(model)
                    model.eval()
                yield model

    def _trained(self, strength: float, start: Weights | None) -> nn.Module | None:
        """A model of all rows, in the unit that it was trained in; None where the training diverges."""
        if self.spec.solved:
            return optimum_on_all_rows(self.spec, self.family, strength)[0]
        rules = self.family.make(strength)
        try:
            return self.spec.train(rules, self.spec.X, self.spec.y, part=WHOLE, start=start)[0]
        except DivergenceError:
            return None

    def shrunk(self, model: nn.Module) -> Shrunk:
        """A smaller model with the same outputs, from one that `refit` gave; checked on the first rows."""
        from torchshrink.shrinking import shrink  # it takes a second or two to import

        with torch.inference_mode(False), readers_alive(self.spec.X):
            return shrink(model, self.spec.X[:FEW_ROWS])

    def _refit(self, strength: float, *, polished: bool, relaxed: bool) -> tuple[nn.Module, Certificate]:
        spec, note = self.spec, ""
        below = [each for each in self.climbed if each < strength]
        model, regularizer = self.trained((*below, strength))
        if relaxed:
            if polished:  # which settles what is zero
                with without_repeated_warnings():
                    polish(model, (spec.X, spec.y), regularizer, loss=spec.loss, max_steps=STEPS_AT_THE_END)
            note = "" if regularizer.sparsity().zeros else _DENSE
            # Only a prox can hold zeros, and no loss or gradient.
            spec = dataclasses.replace(spec, settings=dataclasses.replace(spec.settings, method="auto"))
            held = _support(regularizer)
            if spec.solved:
                regularizer = Regularizer(model, held)
                polish(model, (spec.X, spec.y), regularizer, loss=spec.loss)
            else:
                model, regularizer = spec.train(held, spec.X, spec.y, part=WHOLE, start=weights_of(model))
        model.eval()
        data = (spec.X, spec.y)
        with without_repeated_warnings():
            if polished:
                certificate = polish(model, data, regularizer, loss=spec.loss, max_steps=STEPS_AT_THE_END).certificate
            else:
                if spec.settings.method != "loss" and not spec.solved:
                    # Attached as it was in training, so that what is known against its fixed point is said.
                    regularizer.attach(spec.make_optimizer(model.parameters()), spec.settings.method)
                certificate = certify(model, data, regularizer, loss=spec.loss)
                regularizer.detach()
        model.zero_grad(set_to_none=True)
        spec.target_scale.restore(model)
        return model, dataclasses.replace(certificate, notes=certificate.notes + ((note,) if note else ()))


def checked_strength(strength: object) -> float:
    """A strength to refit at."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength < math.inf:
        raise InputError(f"strength={strength!r}: a finite number ≥ 0 expected")
    return float(strength)


def _support(regularizer: Regularizer) -> Rules:
    """Rules that hold the zeros which the penalised weights have now."""
    held: dict[Pattern, Penalty | None] = {
        term.name: Support(term.parameter.detach() != 0) for term in regularizer.terms
    }
    return held or {"*": None}
