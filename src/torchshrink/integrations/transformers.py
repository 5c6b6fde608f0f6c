"""Transformers: ``Trainer(callbacks=[RegularizerCallback(ts.GroupLasso(1e-3))])``."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from torchshrink.errors import InputError
from torchshrink.integrations.callbacks import Penalties, Settings
from torchshrink.integrations.clipping import Clipping
from torchshrink.integrations.session import Session, place_of_next, regularizer_of
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.selection import On
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(TrainerCallback):
    """Lets a penalty act inside the optimizer of a ``Trainer``, through whatever Accelerate has wrapped it in.

    It binds when training begins. What it has to keep (the step of a schedule, what L2SP is anchored at, latent
    weights) goes with the optimizer's state: into ``optimizer.pt`` of every checkpoint folder, and back on resume,
    whatever the strengths and the scale are by then. Weights that a callback unfreezes are penalised from the next
    epoch or logging step on. After training it is detached; its ``regularizer`` stays, to certify with.

    ``torchshrink/penalty`` and ``torchshrink/sparsity`` (the share of penalised weights that are exactly 0) are in
    ``state.log_history`` with each logged loss, and so in ``trainer_state.json``; a second callback of the same Trainer
    logs as ``torchshrink-2``. Trackers that ``report_to`` names have been told before any callback is.

    Transformers clips gradients at norm 1 unless told otherwise: as long as that acts, a larger λ does.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: as `Regularizer` takes it: ``"weights"``, ``"all"``, or a pattern, such as ``"*lora_A*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Raises:
        AttachmentError: (when training begins) the optimizer holds no penalised parameter.
        InputError: (likewise) the checkpoint was written under other rules; or without this callback, and what it has
            to keep matters.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended.
        SelectionWarning: weights have been unfrozen that the optimizer does not hold.
        UserWarning: a penalty on LoRA's adapters has switched all of them off.

    Example:
        >>> import torchshrink as ts
        >>> RegularizerCallback(ts.L1(1e-3), on="*lora_A*")
        RegularizerCallback(L1(0.001), on='*lora_A*')
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
        self._clipping: Clipping | None = None
        self._norm: float | None = None
        self._look = True  # whether weights may have been unfrozen since

    def __repr__(self) -> str:
        return str(self._settings)

    @property
    def _settings(self) -> Settings:
        return Settings(self.penalty, self.on, self.method, self.scale)

    @property
    def regularizer(self) -> Regularizer | None:
        """The one at work, or that of the last training; None before the first."""
        return regularizer_of(self._session, self._last)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bind and attach."""
        self._end()  # an earlier training may have ended in an exception
        optimizers = [kwargs["optimizer"]]
        session = Session(
            self._settings,
            self._settings.bound(kwargs["model"]),
            optimizers,
            run=state,
            place=place_of_next(optimizers, state),
            carried=True,
        )
        self._session = session
        try:
            self._resume(session, state.global_step)
        except BaseException:
            self._end()
            raise
        limit = args.max_grad_norm
        self._clipping = Clipping(limit, "TrainingArguments(max_grad_norm=)") if limit else None
        self._norm, self._look = None, True

    @staticmethod
    def _resume(session: Session, step: int) -> None:
        saved = session.carried()
        if step and saved:
            session.take_up(saved)
        elif step and (message := session.forgotten(f"training resumes at step {step}")):
            raise InputError(
                f"{message}; to begin with it here, train anew from the saved weights: from_pretrained(the "
                "checkpoint's folder), and train() without resume_from_checkpoint"
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Other callbacks may unfreeze weights."""
        self._look = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Penalise what has been unfrozen."""
        if self._look and self._session is not None:
            self._session.follow([kwargs["optimizer"]])
        self._look = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the gradients, which have been clipped where they are."""
        if self._clipping is not None:
            self._clipping.look(kwargs["model"].parameters())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log penalty and sparsity beside the loss; remember the gradients' norm from before they were clipped."""
        self._look = True
        logs = kwargs.get("logs") or {}
        self._norm = logs.get("grad_norm", self._norm)
        if self._session is not None and "loss" in logs:
            figures = {name: float(value) for name, value in self._session.figures().items()}
            logs.update(figures)
            if state.log_history:
                state.log_history[-1].update(figures)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say whether clipping was at work, and leave the optimizer as it was."""
        if self._clipping is not None:
            self._clipping.end(self._norm)
        if self._session is not None:
            self._session.say_what_is_left()
        self._end()

    def _end(self) -> None:
        if self._session is not None:
            self._session.end()
            self._last, self._session = self._session.regularizer, None
