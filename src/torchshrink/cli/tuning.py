"""The trainings of ``path``: what is checked before the first, and the call that does them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from torchshrink import models
from torchshrink.cli.penalty import NO_PENALTY, Shape, penalty_class, penalty_of
from torchshrink.cli.results import certificate_in_words, finite
from torchshrink.cli.setup import SELECTION, OptimizerSettings
from torchshrink.data import Dataset
from torchshrink.errors import InputError
from torchshrink.paths import PathComparison, PathResult, path
from torchshrink.paths.engines.planner import Engine, Order
from torchshrink.paths.family import families
from torchshrink.paths.folds import make_folds
from torchshrink.paths.recipe import Acting, prepare
from torchshrink.penalties import BUILTIN, Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.certificate import TOLERANCE


@dataclass(frozen=True, eq=False)
class Tuning:
    """Everything that a path depends on."""

    data: Dataset
    model_settings: Mapping[str, Any]
    penalties: Mapping[str, Penalty]  # at strength 1
    optimizer: OptimizerSettings
    strengths: int | tuple[float, ...]
    folds: int
    epochs: int
    batch_size: int
    seed: int
    device: str
    on: str
    method: Acting
    engine: Engine = "auto"
    lanes: int | None = None
    compile: bool | None = None
    order: Order = "cold"

    def check(self) -> None:
        """Raise what the trainings would raise before the first of them starts.

        Raises:
            InputError: model, data, penalties, folds or optimizer do not fit together.
        """
        prepare(
            self._build,
            (self.data.X, self.data.y),
            families(self._penalties),
            epochs=self.epochs,
            batch_size=self.batch_size,
            loss=None,
            optimizer=self.optimizer,
            seed=self.seed,
            device=self.device,
            on=SELECTION[self.on],
            method=self.method,
        )
        make_folds(self.data.y, self.folds, seed=self.seed)

    def run(self, folder: Path, *, progress: bool) -> PathResult | PathComparison:
        """All trainings, those kept in the folder's journal excepted."""
        return path(
            self._build,
            (self.data.X, self.data.y),
            self._penalties,
            strengths=self.strengths,
            folds=self.folds,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            seed=self.seed,
            device=self.device,
            on=SELECTION[self.on],
            method=self.method,
            folder=folder,
            progress=progress,
            engine=self.engine,
            lanes=self.lanes,
            compile=self.compile,
            order=self.order,
        )

    def refit(
        self, result: PathResult | PathComparison, choose: str, *, polished: bool
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The model refitted on all rows at the strength chosen, and what is to be said of it, as JSON."""
        best = result.best if isinstance(result, PathComparison) else result
        strength = (best.one_se if choose == "one_se" else best.best).strength
        model, certificate = best.refit(strength, polish=polished)
        acting = self.penalties[best.penalty].with_strength(strength)
        sparsity = Regularizer(model, acting, on=SELECTION[self.on]).sparsity()
        return model, {
            "penalty": str(acting),
            "choice": choose,
            "strength": strength,
            "sparsity": sparsity.to_dict(),
            "certificate": finite(certificate.to_dict()) | {"ok": certificate.ok(TOLERANCE), "tolerance": TOLERANCE},
            "words": {"sparsity": str(sparsity), "certificate": certificate_in_words(certificate)},
        }

    def _build(self) -> nn.Module:
        return models.build(self.model_settings)

    @property
    def _penalties(self) -> Penalty | Mapping[str, Penalty]:
        """One penalty gives a path, several a comparison."""
        return next(iter(self.penalties.values())) if len(self.penalties) == 1 else self.penalties


def penalties(names: list[str], shape: Shape) -> dict[str, Penalty]:
    """Each penalty named, at strength 1; what ``shape`` says goes to those that take it.

    Raises:
        InputError: a name is unknown, given twice, or a constraint's; or none of them takes what is given.
    """
    split = [name.strip() for given in names for name in given.split(",") if name.strip()]
    if not split:
        raise InputError(f"--penalty {','.join(names)!r}: expected one or more of {', '.join(BUILTIN)}")
    for name in split:
        if name == NO_PENALTY:
            raise InputError("--penalty none: strength 0 is among the points anyway; leave it out")
        if penalty_class(name).constraint:
            raise InputError(
                f"--penalty {name}: a constraint has no strength to tune; torchshrink train takes a --radius"
            )
        if split.count(name) > 1:
            raise InputError(f"--penalty {name} is given twice; give each once")
    shape.check(*split)
    return {name: penalty_of(name, 1.0, shape.kept(name)) for name in split}
