"""Prepares what ``path`` tunes from its options, and refits the model that it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchshrink import models
from torchshrink.cli.from_options import SELECTION, rules_by_feature
from torchshrink.cli.options import TUNABLE
from torchshrink.cli.penalty_names import NO_PENALTY, Shape, penalty_class, penalty_of
from torchshrink.cli.train_results import finite
from torchshrink.data import Dataset
from torchshrink.errors import InputError
from torchshrink.paths import PathComparison, PathResult, PathSettings
from torchshrink.paths.penalty_family import PenaltySpec, family
from torchshrink.paths.run import PathJob, prepare
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.certificate import TOLERANCE
from torchshrink.regularizer.selection import Rules


@dataclass(frozen=True, eq=False)
class Tuning:
    """A path that is ready to run, and what its result is said to be of."""

    job: PathJob
    penalties: Mapping[str, PenaltySpec]

    @classmethod
    def prepare(
        cls, data: Dataset, model: Mapping[str, Any], penalties: Mapping[str, PenaltySpec], settings: PathSettings
    ) -> Tuning:
        """Check all that can be checked before the first training starts.

        Raises:
            InputError: model, data, penalties, folds or optimizer do not fit together.
        """
        # One penalty gives a path, several a comparison.
        compared = next(iter(penalties.values())) if len(penalties) == 1 else penalties
        return cls(prepare(lambda: models.build(model), (data.X, data.y), compared, settings), penalties)

    def refit(
        self, result: PathResult | PathComparison, choose: str, *, polished: bool, relaxed: bool
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The model refitted on all rows at the strength chosen, and what is to be said of it, as JSON."""
        best = result.best if isinstance(result, PathComparison) else result
        strength = (best.one_se if choose == "one_se" else best.best).strength
        model, certificate = best.refit(strength, polish=polished, relaxed=relaxed)
        acting = family(self.penalties[best.penalty])
        sparsity = Regularizer(model, acting.make(strength), on=self.job.settings.on).sparsity()
        said = acting.describe(strength)
        return model, {
            "penalty": said if isinstance(said, str) else "; ".join(f"{name}: {each}" for name, each in said.items()),
            "relaxed": relaxed,
            "choice": choose,
            "strength": strength,
            "sparsity": sparsity.to_dict(),
            "certificate": finite(certificate.to_dict()) | {"ok": certificate.ok(TOLERANCE), "tolerance": TOLERANCE},
            "words": {"sparsity": str(sparsity), "certificate": certificate.in_words()},
        }


def penalties(names: list[str], shape: Shape) -> dict[str, Penalty]:
    """Each penalty named, at strength 1; what ``shape`` says goes to those that take it.

    Raises:
        InputError: a name is unknown, given twice, or a constraint's; or none of them takes what is given.
    """
    split = [name.strip() for given in names for name in given.split(",") if name.strip()]
    if not split:
        raise InputError(f"--penalty {','.join(names)!r}: expected one or more of {', '.join(TUNABLE)}")
    for name in split:
        if name == NO_PENALTY:
            raise InputError("--penalty none: strength 0 is among the points anyway; leave it out")
        if penalty_class(name, offered=TUNABLE).constraint:
            raise InputError(
                f"--penalty {name}: a constraint has no strength to tune; torchshrink train takes it as it is"
            )
        if split.count(name) > 1:
            raise InputError(f"--penalty {name} is given twice; give each once")
    shape.check(*split)
    return {name: penalty_of(name, 1.0, shape.part_for(name)) for name in split}


def by_feature(
    penalties: Mapping[str, Penalty], data: Dataset, model: Mapping[str, Any], *, on: str | None
) -> dict[str, PenaltySpec]:
    """The penalties named, those of groups with the columns of one feature in one group.

    Raises:
        InputError: what the model's first layer is, is not known.
    """
    selection = SELECTION[on or "weights"]

    def grouped(name: str, penalty: Penalty) -> PenaltySpec:
        if Shape(groups="features").part_for(name) == Shape():
            return penalty
        rules_by_feature(penalty, data, model, selection)

        def rules(strength: float) -> Rules:
            return rules_by_feature(penalty.with_strength(strength), data, model, selection)

        rules.__name__ = name  # which a result goes by
        return rules

    return {name: grouped(name, penalty) for name, penalty in penalties.items()}
