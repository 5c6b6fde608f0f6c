"""Lightning: ``Trainer(callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.optim import Optimizer

from torchshrink.errors import ObjectiveWarning
from torchshrink.integrations.callbacks import (
    On,
    Penalties,
    attached,
    bound,
    clipping_at_end,
    clipping_at_start,
    zeros_lost,
)
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale

_CLIP = "Trainer(gradient_clip_val=)"


class RegularizerCallback(Callback):
    """Lets a penalty act inside the optimizers of a LightningModule, in automatic and manual optimisation.

    It binds when ``fit`` starts, and logs ``penalty`` and ``sparsity`` (the share of penalised weights that are exactly
    0) after each epoch. What it has to keep (the step of a schedule, what L2SP is anchored at, latent weights) is in
    Lightning's checkpoints, and comes back with ``fit(ckpt_path=)``.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, such as ``"encoder.*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended; an averaging callback takes the
            zeros away.

    Example:
        >>> import torchshrink as ts
        >>> callback = RegularizerCallback(ts.L1(1e-3), on="encoder.*")
    """

    def __init__(
        self, penalty: Penalties, *, on: On = "weights", method: Method = "auto", scale: Scale | None = None
    ) -> None:
        self.penalty = penalty
        self.on = on
        self.method: Method = method
        self.scale = scale
        self.regularizer: Regularizer | None = None
        self._saved: dict[str, Any] | None = None
        self._norm = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bind and attach."""
        if self.regularizer is None or self.regularizer.model is not pl_module:
            self.regularizer = bound(pl_module, self.penalty, self.on, self.scale)
        attached(self.regularizer, trainer.optimizers, self.method)
        if self._saved is not None:
            self.regularizer.load_state_dict(self._saved)
            self._saved = None
        if trainer.gradient_clip_val:
            warnings.warn(clipping_at_start(float(trainer.gradient_clip_val), _CLIP), ObjectiveWarning, stacklevel=2)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients before they are clipped, at the end of an epoch."""
        if trainer.gradient_clip_val and trainer.is_last_batch:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            largest = trainer.gradient_clip_algorithm == "value"
            norms = [torch.linalg.vector_norm(g, math.inf if largest else 2) for g in grads]
            together = torch.stack(norms)
            self._norm = float(together.max() if largest else together.norm())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the penalty and the share of exact zeros."""
        if self.regularizer is not None:
            sparsity = self.regularizer.sparsity()
            pl_module.log("sparsity", sparsity.share)
            if not any(term.penalty.constraint for term in self.regularizer.terms):
                with torch.no_grad():
                    pl_module.log("penalty", self.regularizer.value().detach())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what has kept the training from F's stationary points."""
        limit = float(trainer.gradient_clip_val or 0)
        if limit and self._norm > limit:
            warnings.warn(clipping_at_end(self._norm, limit, _CLIP), ObjectiveWarning, stacklevel=2)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, WeightAveraging | StochasticWeightAveraging):
                warnings.warn(zeros_lost(type(other).__name__), ObjectiveWarning, stacklevel=2)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers as they were; ``regularizer`` stays, to certify with."""
        if self.regularizer is not None:
            self.regularizer.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers as they were."""
        if self.regularizer is not None:
            self.regularizer.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {} if self.regularizer is None else self.regularizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the optimizers are there."""
        self._saved = state_dict or None
