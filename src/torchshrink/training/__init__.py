"""The plain training loop.

`loop` trains and evaluates, `losses` says what a loss means for a row, `checks` refuses what does not fit before any
training, and `checkpoint` keeps what a training goes on from.
"""

from torchshrink.training.checkpoint import load_checkpoint, save_checkpoint
from torchshrink.training.fit_checks import check_fit
from torchshrink.training.loop import (
    ROWS_AT_ONCE,
    EpochStats,
    Evaluation,
    batches,
    default_optimizer,
    evaluate,
    evaluating,
    train_epoch,
    train_step,
)
from torchshrink.training.losses import (
    Loss,
    StandardisedMSELoss,
    class_codes,
    class_hits,
    counted_of,
    default_loss,
    part_loss,
    row_losses,
    row_weights,
)
from torchshrink.training.weighted import WeightedLoss

__all__ = [
    "ROWS_AT_ONCE",
    "EpochStats",
    "Evaluation",
    "Loss",
    "StandardisedMSELoss",
    "WeightedLoss",
    "batches",
    "check_fit",
    "class_codes",
    "class_hits",
    "counted_of",
    "default_loss",
    "default_optimizer",
    "evaluate",
    "evaluating",
    "load_checkpoint",
    "part_loss",
    "row_losses",
    "row_weights",
    "save_checkpoint",
    "train_epoch",
    "train_step",
]
