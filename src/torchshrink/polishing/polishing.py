"""Polish: the end of a training without its noise, so that weights that should be zero are, and the rest balance."""

from __future__ import annotations

import dataclasses
import math
import numbers
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.certifying import certify
from torchshrink.certifying.full_data import Data, full_loss
from torchshrink.distributed import is_spread
from torchshrink.errors import InputError, ObjectiveWarning
from torchshrink.polishing.descent import Descent
from torchshrink.polishing.objective import Block, Objective, State
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.activations import of_activations
from torchshrink.regularizer.certificate import Certificate
from torchshrink.support.progress_bar import Bar
from torchshrink.support.tables import html_of_pairs
from torchshrink.training import Loss

STEPS_AT_THE_END = 300
"""The budget of a polish that ends a training: convex models need a fraction of it, networks may need more."""


@dataclass(frozen=True)
class Polished:
    """What `polish` did.

    Attributes:
        certificate: of the weights as they are now, in the model's own dtype.
        before: of the weights as they were.
        steps: steps that moved the weights.
        converged: whether the relative distance came down to the tolerance, in the precision of the work.
        stopped: why it ended: ``converged``; ``budget``, max_steps was reached; ``stalled``, no step goes further down,
            for rounding or at a kink of the loss; ``rounded``, the weights' dtype cannot hold anything better than what
            they were, and they are the same.
        kinks: inputs of ``nn.ReLU`` and ``nn.LeakyReLU`` modules (not of functions such as ``torch.relu``, which are
            not seen) that lie at 0, over all rows. A minimum of F at such a kink of the loss is no point
            at which gradients balance, and its certificate cannot become small.
    """

    certificate: Certificate
    before: Certificate
    steps: int
    converged: bool
    stopped: str
    kinks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "steps": self.steps,
            "converged": self.converged,
            "stopped": self.stopped,
            "kinks": self.kinks,
            "before": self.before.to_dict(),
            "certificate": self.certificate.to_dict(),
        }

    def __repr__(self) -> str:
        return f"<Polished: {self}>"

    def _repr_html_(self) -> str:
        return f"{html_of_pairs([('polish', str(self))])}{self.certificate._repr_html_()}"

    def __str__(self) -> str:
        head = {
            "converged": f"converged in {self.steps} steps",
            "budget": f"{self.steps} steps, which was the budget; more would go on",
            "stalled": f"{self.steps} steps, after which none goes further down",
            "rounded": "left the weights as they were, which their dtype cannot improve on",
        }[self.stopped]
        if self.kinks and not self.converged:
            head += f" (ReLU inputs at 0, a kink where gradients need not balance: {self.kinks})"
        old, new = self.before, self.certificate
        return (
            f"{head}: F from {old.objective:.6g} to {new.objective:.6g}, its slope from {old.residual:.2g} to "
            f"{new.residual:.2g}"
        )


def polish(
    model: nn.Module,
    data: Data,
    regularizer: Regularizer,
    *,
    loss: Loss | None = None,
    tol: float = 1e-6,
    max_steps: int = 1000,
    progress: bool = False,
) -> Polished:
    """Minimise F = mean loss + penalty from where the weights are, deterministically, on all the data at once.

    For the end of a training, on data that fit in memory: minibatches make weights flicker around zero, and this
    settles which of them are zero. Evaluation mode (dropout off, normalisation statistics frozen), float64 where the
    model can, no learning rate. F never rises by more than its rounding. The weights come back in their own dtype; to
    have float64's precision in them, polish a model in float64.

    A convex model ends at its minimum; a network at a stationary point near where it was, unless that lies at a kink
    of ReLU, which is reported. Interrupted (Ctrl-C), the model has the best weights so far.

    Args:
        model: what the regularizer is bound to; changed in place.
        data: (X, y), all rows, on the model's device.
        regularizer: of this model; attached or not, at the scale of this moment.
        loss: the mean loss without the penalty; by default as in training, by the kind of target.
        tol: of the certificate's relative distance.
        max_steps: when to give up, and say so.
        progress: a bar on stderr.

    Returns:
        The certificates before and after, the count of steps, and whether it converged, which is never left open.

    Raises:
        InputError: the loss is not finite at the start, an argument is not usable, or the model has shards.

    Warns:
        ObjectiveWarning: the attached optimizer minimises more than F, by another regularizer or by weight decay.

    Example:
        >>> import torchshrink as ts
        >>> X, y = torch.eye(3, dtype=torch.float64), torch.tensor([[3.0], [0.1], [-2.0]], dtype=torch.float64)
        >>> model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        >>> polish(model, (X, y), ts.Regularizer(model, ts.L1(0.2))).converged
        True
        >>> model.weight.detach()
        tensor([[ 2.7000,  0.0000, -1.7000]], dtype=torch.float64)
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise InputError(f"max_steps={max_steps!r}: expected a whole number ≥ 0")
    if isinstance(tol, bool) or not isinstance(tol, int | float | numbers.Real) or not tol > 0:
        raise InputError(f"tol={tol!r}: expected a number > 0")
    blocks = _blocks(regularizer)
    others = regularizer.other_terms()
    for note in others:
        warnings.warn(
            f"polish minimises the mean loss + this regularizer's penalty, and nothing else: {note}",
            ObjectiveWarning,
            stacklevel=2,
        )
    original = [block.parameter.detach().clone() for block in blocks]
    before = certify(model, data, regularizer, loss=loss)
    with full_loss(model, data, loss) as full, torch.no_grad(), _bar(progress, max_steps) as show:
        objective = Objective(full, blocks)
        latest = objective.at(objective.weights())
        if not math.isfinite(latest.loss):
            raise InputError(f"the mean loss is {latest.loss} before any step: look for non-finite weights or data")

        def watch(steps: int, state: State, certificate: Certificate) -> None:
            nonlocal latest
            latest = state
            show(steps, certificate)

        descent = Descent(objective, float(tol), max_steps, watch)
        try:
            latest, stopped = descent.run(latest)
        finally:  # also where the user interrupts it
            objective.set_weights(latest.w)
        kinks = _kinks(full.model, full.X) if stopped != "converged" and isinstance(full.X, Tensor) else 0
    certificate = certify(model, data, regularizer, loss=loss)
    if certificate.objective > before.objective + objective.rounding(latest):
        with torch.no_grad():
            for block, w in zip(blocks, original, strict=True):
                block.parameter.copy_(w)
        certificate, stopped = before, "rounded"
    # What the notes say of a training's end no longer holds; what they say of F does.
    notes = (*regularizer.missed(), *others, *of_activations(regularizer.model))
    certificate = dataclasses.replace(certificate, notes=notes)
    polished = Polished(certificate, before, descent.steps, stopped == "converged", stopped, kinks)
    if polished.converged or stopped == "rounded":
        return polished
    notes = (f"polish {polished}", *notes)
    return dataclasses.replace(polished, certificate=dataclasses.replace(certificate, notes=notes))


def _blocks(regularizer: Regularizer) -> list[Block]:
    """The trainable parameters with the penalties in force; a strength of 0 is no penalty."""
    penalty_of = regularizer.in_force()
    blocks = []
    for name, parameter in regularizer.trainable():
        if is_spread(parameter):
            raise InputError(f"{name} has its shards on several processes: gather the model, then polish")
        penalty = penalty_of.get(parameter)
        acts = penalty is not None and (penalty.constraint or float(penalty.strength) > 0)
        if parameter.numel():
            blocks.append(Block(name, parameter, penalty if acts else None))
    if not blocks:
        raise InputError("polish: the model has no trainable parameter")
    if len({block.parameter.device for block in blocks}) > 1:
        raise InputError("polish: the model's parameters are on several devices; one expected")
    return blocks


def _kinks(model: nn.Module, X: Tensor) -> int:
    """Inputs of ReLU modules that are 0 up to 1e-6 of the largest, over all rows, dead units left out."""
    found = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        z = inputs[0].detach()
        small = z.abs() <= 1e-6 * z.abs().max()
        found += int((small & ~small.all(0)).sum())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    try:
        model(X)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def _bar(progress: bool, max_steps: int) -> Iterator[Any]:
    bar = Bar("polish", "step", total=max_steps, shown=progress, lines=False)

    def show(steps: int, certificate: Certificate) -> None:
        bar.note(f"relative distance {certificate.relative:.1e}")
        bar.update(steps - bar.done)

    try:
        yield show
    finally:
        bar.close()
