"""Transformers: ``Trainer(callbacks=[RegularizerCallback(ts.GroupLasso(1e-3))])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from torchshrink.errors import InputError
from torchshrink.integrations.callbacks import Clipping, On, Penalties, attached, bound
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale
from torchshrink.support.storage import PathLike

FILE = "regularizer.pt"


class RegularizerCallback(TrainerCallback):
    """Lets a penalty act inside the optimizer of a ``Trainer``, through whatever Accelerate has wrapped it in.

    It binds when training begins. What it has to keep (the step of a schedule, what L2SP is anchored at, latent
    weights) is written to ``regularizer.pt`` in every checkpoint folder, and read on resume. After training it is
    detached; its ``regularizer`` stays, to certify with.

    Transformers clips gradients at norm 1 unless told otherwise: as long as that acts, a larger λ does.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, such as ``"*lora_*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.
        resume_from: the checkpoint folder to resume from, where it is not one of the Trainer's ``output_dir``.

    Raises:
        InputError: (when training begins) a run is resumed, and its checkpoint has no ``regularizer.pt``.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended.

    Example:
        >>> import torchshrink as ts
        >>> callback = RegularizerCallback(ts.L1(1e-3), on="*lora_*")
    """

    def __init__(
        self,
        penalty: Penalties,
        *,
        on: On = "weights",
        method: Method = "auto",
        scale: Scale | None = None,
        resume_from: PathLike | None = None,
    ) -> None:
        self.penalty = penalty
        self.on = on
        self.method: Method = method
        self.scale = scale
        self.resume_from = resume_from
        self.regularizer: Regularizer | None = None
        self._clipping: Clipping | None = None
        self._norm: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bind and attach."""
        if self.regularizer is not None:
            self.regularizer.detach()  # an earlier training may have ended in an exception
        saved = self._saved(args, state) if state.global_step else None
        made = bound(kwargs["model"], self.penalty, self.on, self.scale)
        self.regularizer = attached(made, [kwargs["optimizer"]], self.method)
        if saved is not None:
            self.regularizer.load_state_dict(saved)
        limit = args.max_grad_norm
        self._clipping = Clipping(limit, "TrainingArguments(max_grad_norm=)") if limit else None
        self._norm = None

    def _saved(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        file = Path(self.resume_from or _folder(args, state), FILE)
        if not file.exists():
            raise InputError(
                f"a run is resumed at step {state.global_step}, and there is no {file}, which this callback writes "
                "beside each checkpoint; give the checkpoint's folder as RegularizerCallback(resume_from=)"
            )
        saved: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
        return saved

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the gradients, which have been clipped where they are."""
        if self._clipping is not None:
            self._clipping.look(kwargs["model"].parameters())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember the norm of the gradients before they were clipped."""
        self._norm = (kwargs.get("logs") or {}).get("grad_norm", self._norm)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what a resumed run needs."""
        if self.regularizer is not None and args.should_save:
            folder = _folder(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.regularizer.state_dict(), folder / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say whether clipping was at work, and leave the optimizer as it was."""
        if self._clipping is not None:
            self._clipping.end(self._norm)
        if self.regularizer is not None:
            self.regularizer.detach()


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir), f"checkpoint-{state.global_step}")
