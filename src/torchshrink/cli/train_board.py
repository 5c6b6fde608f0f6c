"""What ``train`` writes for TensorBoard: curves, and histograms of the penalised weights, epoch by epoch.

It is an option, and not what happens wherever tensorboard is installed: its import takes a second (with tensorflow
beside it, several), and its files hold times, so that a run's folder would no longer be the same bytes again.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torchshrink.errors import MissingDependencyError

if TYPE_CHECKING:
    from torchshrink.cli.train_epochs import Fit

FOLDER, _FILES = "tensorboard", "events.out.tfevents.*"


class Board(Protocol):
    """Where the course of a training goes."""

    def write(self, fit: Fit, record: Mapping[str, Any]) -> None:
        """What there is to say after an epoch."""

    def close(self) -> None:
        """It is over."""


class NoBoard:
    """Nothing is written."""

    def write(self, fit: Fit, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def check_installed() -> None:
    """Before any work.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingDependencyError(
            "--tensorboard needs tensorboard, which is not installed: pip install tensorboard, or leave it out",
            name="tensorboard",
        )


def clear(folder: Path) -> None:
    """Delete the curves of an earlier run in ``folder``."""
    for path in (folder / FOLDER).glob(_FILES):
        path.unlink()


class TensorBoard:
    """Event files in a run's folder.

    Args:
        folder: of the run.
        history: of the epochs before, where the run goes on. What was written of later ones, whose checkpoint an
            interruption has lost, is taken back; curves that are not there yet begin with these epochs' losses.
    """

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        new = not any((folder / FOLDER).glob(_FILES))
        purge = None if new else len(history) + 1
        self._writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=purge)
        for record in history if new else ():
            self._losses(record)

    def write(self, fit: Fit, record: Mapping[str, Any]) -> None:
        """Losses, accuracy, penalty and sparsity after an epoch, the learning rate of its end, and histograms.

        The penalty is in the unit of the losses, which are without it: their sum is what is minimised.
        """
        step = record["epoch"]
        self._losses(record)
        for number, group in enumerate(fit.optimizer.param_groups):
            self._number("learning_rate" if number == 0 else f"learning_rate/{number}", float(group["lr"]), step)
        if fit.regularizer is not None:
            acting = [(p, w) for w, p in fit.regularizer.in_force().items() if not p.constraint]
            if acting:
                total = math.fsum(float(penalty.value(w.detach())) for penalty, w in acting)
                self._number("penalty", fit.unit.of_loss * total, step)
            sparsity = fit.regularizer.sparsity()
            self._number("sparsity", sparsity.fraction, step)
            if sparsity.groups:
                self._number("sparsity_of_groups", sparsity.groups_zero / sparsity.groups, step)
            for each in sparsity.by_parameter:
                self._number(f"sparsity_of/{each.name}", each.zeros / max(each.total, 1), step)
            for term in fit.regularizer.terms:
                if term.parameter.numel():
                    self._writer.add_histogram(f"weights/{term.name}", term.parameter.detach().float().cpu(), step)
        self._writer.flush()

    def _losses(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            part, _, what = name.partition("_")
            if what in ("loss", "accuracy") and value is not None:
                self._number(f"{what}/{part}", value, record["epoch"])

    def _number(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
