"""The training of ``train``: epochs, each followed by a checkpoint, and the figures at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchshrink.cli import console
from torchshrink.models import TargetScale
from torchshrink.regularizer import Regularizer
from torchshrink.support.progress_bar import Bar
from torchshrink.training import Evaluation, Loss, evaluate, train_epoch
from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from torchshrink.cli.from_options import Penalising

Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Fit:
    """A training that is ready to start. ``regularizer`` is None where nothing is penalised."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    regularizer: Regularizer | None
    penalising: Penalising
    added: bool  # the penalty is added to the loss (method ``loss``) rather than attached
    loss: Loss
    training: Rows
    validation: Rows | None
    batch_size: int
    epochs: int
    seed: int
    unit: TargetScale  # of the targets that are trained on; every loss that is told is in that of the targets given

    def save(self, path: Path, settings: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write where the training stands."""
        save_checkpoint(
            path,
            model=self.model,
            optimizer=self.optimizer,
            regularizer=self.regularizer,
            progress={"settings": settings, "history": history},
        )

    def restore(self, path: Path) -> list[dict[str, Any]]:
        """Put the training back to where it stood, and return its history."""
        progress = load_checkpoint(path, model=self.model, optimizer=self.optimizer, regularizer=self.regularizer)
        history: list[dict[str, Any]] = progress["history"]
        return history

    def run(self, history: list[dict[str, Any]], after_epoch: Callable[[], None], *, quiet: bool) -> None:
        """Train from the epoch after ``history``'s last to the end, appending to it; ``after_epoch`` saves."""
        with _bar(self, len(history), quiet=quiet) as advance:
            for epoch in range(len(history), self.epochs):
                advance(epoch)
                history.append(self._epoch(epoch))
                after_epoch()
                if not quiet:
                    for line in epoch_lines(history[-1], self.epochs):
                        console.say(line)

    def _epoch(self, epoch: int) -> dict[str, Any]:
        stats = train_epoch(
            self.model,
            *self.training,
            loss=self.loss,
            optimizer=self.optimizer,
            regularizer=self.regularizer if self.added else None,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
        )
        train_loss = self.unit.of_loss * stats.loss
        record: dict[str, Any] = {"epoch": epoch + 1, "train_loss": train_loss, "train_accuracy": stats.accuracy}
        if self.validation is not None:
            held_out = self.evaluate(self.validation)
            record |= {"validation_loss": held_out.loss, "validation_accuracy": held_out.accuracy}
        return record

    def evaluate(self, rows: Rows) -> Evaluation:
        """The model on some rows, its losses in the unit of the targets given."""
        found = evaluate(self.model, *rows, loss=self.loss)
        unit = self.unit.of_loss
        return Evaluation(unit * found.loss, unit * found.row_losses, found.accuracy)


def epoch_lines(record: dict[str, Any], epochs: int) -> list[str]:
    """The tutorial's lines for one epoch.

    >>> epoch_lines({"epoch": 3, "train_loss": 0.25, "train_accuracy": 0.9}, 10)
    ['[ 3/10] Train Loss: 0.250 | Accuracy: 90.000']
    """
    head = f"[{record['epoch']:>{len(str(epochs))}}/{epochs}] "
    lines = []
    for key, name in (("train", "Train"), ("validation", "Validation")):
        if f"{key}_loss" in record:
            accuracy = record[f"{key}_accuracy"]
            tail = "" if accuracy is None else f" | Accuracy: {100 * accuracy:.3f}"
            lines.append(f"{head}{name} Loss: {_loss(record[f'{key}_loss'])}{tail}")
            head = " " * len(head)
    return lines


def _loss(value: float) -> str:
    """With three decimals, as the tutorial has it, unless these would show nothing or pages of digits."""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


@contextlib.contextmanager
def _bar(fit: Fit, done: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over all the batches of all the epochs, where stderr is a terminal; yields what names the epoch on it."""
    per_epoch = max(1, -(-len(fit.training[0]) // fit.batch_size))
    # It leaves nothing where stderr is a file, in which the epochs' lines are progress enough.
    bar = Bar("", "batch", total=per_epoch * fit.epochs, done=per_epoch * done, shown=not quiet, lines=False)
    # A step is what every optimizer reports, so the loop itself needs to know of no bar.
    hook = fit.optimizer.register_step_post_hook(lambda *_: bar.update())
    try:
        yield lambda epoch: bar.name(f"epoch {epoch + 1}/{fit.epochs}")
    finally:
        hook.remove()
        bar.close()
