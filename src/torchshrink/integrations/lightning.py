"""Lightning: ``Trainer(callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.integrations.callbacks import Clipping, On, Penalties, attached, bound, held_by, taken_out, zeros_lost
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):
    """Lets a penalty act inside the optimizers of a LightningModule, in automatic and manual optimisation.

    It binds when ``fit`` starts, and logs ``penalty`` and ``sparsity`` (the share of penalised weights that are exactly
    0) after each epoch. What it has to keep (the step of a schedule, what L2SP is anchored at, latent weights) is in
    Lightning's checkpoints, and comes back with ``fit(ckpt_path=)``. After ``fit`` it is detached; its ``regularizer``
    stays, to certify with.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, such as ``"encoder.*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Raises:
        AttachmentError: (when ``fit`` starts) no optimizer holds a penalised parameter.

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
        self._kept: dict[str, Any] = {}  # at the end of the last training
        self._loaded: dict[str, Any] = {}  # from a checkpoint, until the optimizers are there
        self._clipping: Clipping | None = None
        self._averages = False
        self._support: dict[str, Tensor] | None = None  # at the end of an epoch, where weights are averaged

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bind and attach."""
        known = self.regularizer
        if known is None or known.model is not pl_module or trainer.global_step == 0:
            known, self._kept = bound(pl_module, self.penalty, self.on, self.scale), {}
        self.regularizer = attached(known, trainer.optimizers, self.method)
        state = self._loaded or self._kept  # the latter where the same trainer goes on
        if state:
            self.regularizer.load_state_dict(state)
        self._loaded = {}
        limit = trainer.gradient_clip_val
        by_value = trainer.gradient_clip_algorithm == "value"
        order = math.inf if by_value else 2.0
        self._clipping = Clipping(float(limit), "Trainer(gradient_clip_val=)", order) if limit else None
        self._averages, self._support = False, None
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, WeightAveraging | StochasticWeightAveraging):
                self._averages = True
                warnings.warn(zeros_lost(type(other).__name__), ObjectiveWarning, stacklevel=2)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients before they are clipped."""
        if self._clipping is not None:
            self._clipping.look(held_by(optimizer), key=id(optimizer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the penalty and the share of exact zeros."""
        if self.regularizer is not None:
            if self._averages:
                self._support = self.regularizer.support()
            pl_module.log("sparsity", self.regularizer.sparsity().fraction)
            if not any(term.penalty.constraint for term in self.regularizer.terms):
                with torch.no_grad():
                    pl_module.log("penalty", self.regularizer.value())

    def hold_zeros(self, model: LightningModule) -> None:
        """After ``fit`` with an averaging callback: set to 0 in the average what the last epoch has ended with as 0.

        Raises:
            InputError: no weights have been averaged.
        """
        if self.regularizer is None or self._support is None:
            raise InputError("hold_zeros: there is no averaging callback in this Trainer, or it has not trained yet")
        self.regularizer.hold_zeros(model, self._support)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say whether clipping has kept the training from F's stationary points."""
        if self._clipping is not None:
            self._clipping.end()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers as they were."""
        if self.regularizer is not None and self.regularizer.methods:
            self._kept = taken_out(self.regularizer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers as they were."""
        if self.regularizer is not None and self.regularizer.methods:
            self._kept = taken_out(self.regularizer)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        attached_now = self.regularizer is not None and self.regularizer.methods
        return self.regularizer.state_dict() if self.regularizer is not None and attached_now else self._kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the optimizers are there."""
        self._loaded = state_dict
