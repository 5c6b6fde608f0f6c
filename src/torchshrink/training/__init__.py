"""The plain training loop and its evaluation (`loop`), and what a training leaves to go on from (`checkpoint`)."""

from torchshrink.training.loop import (
    ROWS_AT_ONCE,
    EpochStats,
    Evaluation,
    Loss,
    StandardisedMSELoss,
    batches,
    check_fit,
    counted_of,
    default_loss,
    default_optimizer,
    evaluate,
    evaluating,
    row_losses,
    row_weights,
    train_epoch,
    train_step,
)

__all__ = [
    "ROWS_AT_ONCE",
    "EpochStats",
    "Evaluation",
    "Loss",
    "StandardisedMSELoss",
    "batches",
    "check_fit",
    "counted_of",
    "default_loss",
    "default_optimizer",
    "evaluate",
    "evaluating",
    "row_losses",
    "row_weights",
    "train_epoch",
    "train_step",
]
