"""Transformers: ``Trainer(callbacks=[RegularizerCallback(ts.GroupLasso(1e-3))])``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.integrations.callbacks import On, Penalties, attached, bound, clipping_at_end, clipping_at_start
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale
from torchshrink.support.storage import PathLike

FILE = "regularizer.pt"
_CLIP = "TrainingArguments(max_grad_norm=)"


class RegularizerCallback(TrainerCallback):
    """Lets a penalty act inside the optimizer of a ``Trainer``, through whatever Accelerate has wrapped it in.

    It binds when training begins. What it has to keep (the step of a schedule, what L2SP is anchored at, latent
    weights) is written to ``regularizer.pt`` in every checkpoint folder, and read on resume.

    Transformers clips gradients at norm 1 unless told otherwise: as long as that acts, a larger λ does.

    Args:
        penalty: one penalty, or rules pattern → penalty or None.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, such as ``"*lora_*"``, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.
        resume_from: the checkpoint folder to resume from, where it is not one of the Trainer's ``output_dir``.

    Raises:
        InputError: a run is resumed, and its checkpoint has no ``regularizer.pt``.

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
        self._norm = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bind and attach."""
        model = kwargs["model"]
        if self.regularizer is None or self.regularizer.model is not model:
            self.regularizer = bound(model, self.penalty, self.on, self.scale)
        self.regularizer.detach()
        attached(self.regularizer, [kwargs["optimizer"]], self.method)
        if state.global_step:
            folder = Path(self.resume_from or Path(str(args.output_dir), f"checkpoint-{state.global_step}"))
            if not (folder / FILE).exists():
                self.regularizer.detach()
                raise InputError(
                    f"a run is resumed at step {state.global_step}, and {folder} has no {FILE}: give the checkpoint's "
                    "folder as RegularizerCallback(resume_from=)"
                )
            saved = torch.load(folder / FILE, weights_only=True, map_location="cpu")
            self.regularizer.load_state_dict(saved)
        if args.max_grad_norm:
            warnings.warn(clipping_at_start(args.max_grad_norm, _CLIP), ObjectiveWarning, stacklevel=2)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember the norm of the gradients before they were clipped."""
        logs = kwargs.get("logs") or {}
        self._norm = float(logs.get("grad_norm") or self._norm)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what a resumed run needs."""
        if self.regularizer is not None and state.is_world_process_zero:
            folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.regularizer.state_dict(), folder / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say whether clipping was at work, and leave the optimizer as it was; ``regularizer`` stays, to certify."""
        if args.max_grad_norm and self._norm > args.max_grad_norm:
            warnings.warn(clipping_at_end(self._norm, args.max_grad_norm, _CLIP), ObjectiveWarning, stacklevel=2)
        if self.regularizer is not None:
            self.regularizer.detach()
