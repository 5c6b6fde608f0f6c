"""Lightning: ``Trainer(callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from torchshrink.errors import InputError
from torchshrink.integrations.callbacks import Penalties, Settings, held_by, tell, zeros_lost
from torchshrink.integrations.clipping import Clipping
from torchshrink.integrations.session import Session, place_of, regularizer_of
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import On
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):
    """Lets a penalty act inside the optimizers of a LightningModule, in automatic and manual optimisation.

    It binds when ``fit`` starts, and logs ``torchshrink/penalty`` and ``torchshrink/sparsity`` (the share of penalised
    weights that are exactly 0) after each epoch; a second callback of the same Trainer logs as ``torchshrink-2``. What
    it has to keep (the step of a schedule, what L2SP is anchored at, latent weights) is in Lightning's checkpoints, and
    comes back with ``fit(ckpt_path=)``, whatever the strengths and the scale are by then. Weights that a callback
    unfreezes are penalised from the next epoch on, and optimizers that are replaced are followed. After ``fit`` it is
    detached; its ``regularizer`` stays, to certify with.

    Where several optimizers step in turn, a round of them is one step of a schedule; where one steps more often, its
    steps are counted.

    Clipping is noticed where it goes through Lightning: the Trainer's, and the module's ``clip_gradients`` in manual
    optimisation or in ``configure_gradient_clipping``.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: as `Regularizer` takes it: ``"weights"``, ``"all"``, or a pattern, such as ``"encoder.*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Raises:
        AttachmentError: (when ``fit`` starts) no optimizer holds a penalised parameter.
        InputError: (likewise) the checkpoint was written under other rules; or without this callback, and what it has
            to keep matters.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended; an averaging callback takes the
            zeros away.
        SelectionWarning: weights have been unfrozen that no optimizer holds.

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
        self._session: Session | None = None
        self._last: Regularizer | None = None  # of the last training
        self._kept: dict[str, Any] = {}  # at its end
        self._loaded: dict[str, Any] = {}  # from a checkpoint, until the optimizers are there
        self._clipping: Clipping | None = None
        self._clips: _Clips | None = None
        self._averages = False
        self._support: dict[str, Tensor] | None = None  # at the end of an epoch, where weights are averaged

    def __repr__(self) -> str:
        return str(self._settings)

    @property
    def _settings(self) -> Settings:
        return Settings(self.penalty, self.on, self.method, self.scale)

    @property
    def state_key(self) -> str:
        """Under which its state stands in a checkpoint: it tells callbacks of different rules apart."""
        return f"{type(self).__qualname__}[{self._settings.key}]"

    @property
    def regularizer(self) -> Regularizer | None:
        """The one at work, or that of the last ``fit``; None before the first."""
        return regularizer_of(self._session, self._last)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Whatever a ``validate`` or ``test`` has loaded is not what a ``fit`` goes on from."""
        self._loaded = {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As `setup`."""
        self._loaded = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bind and attach."""
        self._end()  # an earlier one may have failed before it began
        known = self._last
        if known is None or known.model is not pl_module or trainer.global_step == 0:
            known, self._kept = self._settings.bound(pl_module), {}
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self._session = Session(
            self._settings, known, trainer.optimizers, run=callbacks, place=place_of(self, callbacks)
        )
        state = self._loaded or ({} if trainer.ckpt_path else self._kept)  # the latter where the same trainer goes on
        try:
            if state:
                self._session.take_up(state)
        except BaseException:
            self._end()
            raise
        self._kept = {}
        self._watch_clipping(trainer)
        self._averages, self._support = False, None
        for other in callbacks:
            if isinstance(other, WeightAveraging | StochasticWeightAveraging):
                self._averages = True
                tell(zeros_lost(type(other).__name__))

    def _watch_clipping(self, trainer: Trainer) -> None:
        limit = trainer.gradient_clip_val
        order = math.inf if trainer.gradient_clip_algorithm == "value" else 2.0
        self._clipping = Clipping(float(limit), "Trainer(gradient_clip_val=)", order) if limit else None
        self._clips = _Clips.of(trainer.precision_plugin)
        self._clips.watchers.append(self._look)

    def _look(self, optimizer: Optimizer, limit: float, algorithm: object) -> None:
        """Gradients are about to be clipped, by the Trainer's setting or by the module's own doing."""
        order = math.inf if "value" in str(algorithm).lower() else 2.0
        if self._clipping is None:
            self._clipping = Clipping(limit, "clip_gradients in the LightningModule", order)
        self._clipping.limit, self._clipping.order = limit, order
        self._clipping.look(held_by(optimizer), key=id(optimizer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The step that a checkpoint is from is known now."""
        session = self._session
        if session is None or not trainer.ckpt_path or trainer.global_step == 0 or self._loaded:
            return
        message = session.forgotten(f"fit(ckpt_path=) resumes at step {trainer.global_step}")
        if message is not None:
            raise InputError(
                f"{message}; to begin with it here, train anew from the saved weights: load_from_checkpoint, and fit "
                "without ckpt_path"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """In each epoch: weights may have been unfrozen, optimizers replaced."""
        if batch_idx == 0 and self._session is not None:
            self._session.follow(trainer.optimizers)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the penalty and the share of exact zeros."""
        if self._session is not None:
            if self._averages:
                self._support = self._session.regularizer.support()
            pl_module.log_dict(self._session.figures())

    def hold_zeros(self, model: LightningModule) -> None:
        """After ``fit`` with an averaging callback: set to 0 in the average what the last epoch has ended with as 0.

        Raises:
            InputError: no weights have been averaged.
        """
        if self.regularizer is None or self._support is None:
            raise InputError("hold_zeros: there is no averaging callback in this Trainer, or it has not trained yet")
        self.regularizer.hold_zeros(model, self._support)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say whether clipping has kept the training from F's stationary points, and what was missed."""
        if self._clipping is not None:
            self._clipping.end()
        if self._session is not None:
            self._session.say_what_is_left()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers as they were."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers as they were."""
        self._end()

    def _end(self) -> None:
        if self._session is not None:
            self._kept = self._session.end()
            self._last, self._session = self._session.regularizer, None
        if self._clips is not None:
            self._clips.remove(self._look)
            self._clips = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self._kept if self._session is None else self._session.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the optimizers are there."""
        self._loaded = state_dict
        if self._session is not None:  # a tuner puts back what was before its trial
            self._session.take_up(state_dict)


@final
class _Clips:
    """Stands in for a precision plugin's ``clip_gradients``, through which Lightning clips, and tells who watches.

    Attributes:
        watchers: called with the optimizer, the limit and the algorithm, before.
    """

    def __init__(self, plugin: Any) -> None:
        self._plugin, self._clip = plugin, plugin.clip_gradients
        self.watchers: list[Callable[[Optimizer, float, object], None]] = []

    @classmethod
    def of(cls, plugin: Any) -> _Clips:
        """The plugin's own, or a new one."""
        now = vars(plugin).get("clip_gradients")
        if isinstance(now, cls):
            return now
        made = cls(plugin)
        plugin.clip_gradients = made
        return made

    def remove(self, watcher: Callable[[Optimizer, float, object], None]) -> None:
        """The plugin is as it was when nobody watches."""
        self.watchers.remove(watcher)
        if not self.watchers:
            vars(self._plugin).pop("clip_gradients", None)

    def __call__(self, optimizer: Optimizer, clip_val: float = 0.0, gradient_clip_algorithm: Any = "norm") -> None:
        if clip_val and clip_val > 0:
            for watcher in self.watchers:
                watcher(optimizer, float(clip_val), gradient_clip_algorithm)
        self._clip(optimizer, clip_val, gradient_clip_algorithm)
