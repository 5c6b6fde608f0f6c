"""Compares the tuned and the unpenalised model on test rows that took no part in the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import Rows, readers_alive, split
from torchshrink.errors import DivergenceError
from torchshrink.paths.refit import Source
from torchshrink.paths.statistics.verdict import Verdict, judge_rows, nothing, paired_shares, verdict_from_dict
from torchshrink.support.tables import Column, Table, html_of_pairs
from torchshrink.training import ROWS_AT_ONCE, evaluate, evaluating

_WORDS = (
    "on the test rows the tuned model is better than the unpenalised one",
    "on the test rows no difference between the tuned model and the unpenalised one is shown",
    "on the test rows the tuned model is worse than the unpenalised one",
)


@dataclass(frozen=True)
class FinalTest:
    """The tuned model against the unpenalised one, both trained on all other rows, on test rows that chose nothing.

    It speaks of these two models: of the luck of other trainings it knows nothing, as `Verdict` over folds does.

    Args:
        penalty: of the tuned model.
        strength: of the tuned model: the best of the path.
        rows: how many were tested on.
        trained: how many were trained on.
        unpenalised_loss, tuned_loss: the mean losses over the test rows, without the penalty; None where a training
            diverged.
        unpenalised_accuracy, tuned_accuracy: None where the targets are numbers, or as above.
        accuracy_interval: of the change of the accuracy, paired; None likewise.
        verdict: on the losses, paired over the test rows.
        words: all this as a sentence.
    """

    penalty: str
    strength: float
    rows: int
    trained: int
    unpenalised_loss: float | None
    tuned_loss: float | None
    unpenalised_accuracy: float | None
    tuned_accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    verdict: Verdict
    words: str

    def __repr__(self) -> str:
        return f"<FinalTest on {self.rows} rows: {self.verdict!r}>"

    def __str__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        shown = {
            "loss": (self.unpenalised_loss, self.tuned_loss, ".4g"),
            "accuracy": (self.unpenalised_accuracy, self.tuned_accuracy, ".2%"),
        }
        rows = [
            (name, *("diverged" if each is None else format(each, how) for each in (before, after)))
            for name, (before, after, how) in shown.items()
            if name == "loss" or (before, after) != (None, None)
        ]
        heads = Column(f"{self.rows} test rows", left=True), Column("strength 0"), Column(f"{self.strength:.4g}")
        return f"<div>{html_of_pairs([('test', self.words)])}{Table(heads, rows).html()}</div>"

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        ends = None if self.accuracy_interval is None else list(self.accuracy_interval)
        return asdict(self) | {"accuracy_interval": ends, "verdict": self.verdict.to_dict()}


def final_test_from_dict(saved: dict[str, Any] | None) -> FinalTest | None:
    """What `FinalTest.to_dict` was called on."""
    if saved is None:
        return None
    ends = saved["accuracy_interval"]
    own = {"accuracy_interval": None if ends is None else tuple(ends), "verdict": verdict_from_dict(saved["verdict"])}
    return FinalTest(**(saved | own))


@dataclass(frozen=True, eq=False)
class _Tested:
    """A model's loss on each test row (m,), and whether it found the class (m,), where there are classes."""

    losses: Tensor
    right: Tensor | None

    @property
    def loss(self) -> float:
        return self.losses.mean().item()

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else self.right.double().mean().item()


@final
@dataclass(frozen=True, eq=False)
class SetAside:
    """Rows that take no part in any choice: what a model is given (m, …), and the targets (m, …)."""

    X: Rows
    y: Tensor

    def compare(self, source: Source, strength: float, *, control: int) -> FinalTest:
        """Train both models on the source's rows, as a refit would, and test them here.

        Args:
            source: of the best penalty's path.
            strength: the best.
            control: how many trainings at strength 0, each from the end of the one before, the unpenalised model has:
                one, but after a warm path as many as are best.
        """
        zeros = (0.0,) * control
        below = tuple(each for each in source.climbed if each < strength)
        before = self._tested(source, zeros)
        after = before if strength == 0 and control == 1 else self._tested(source, (*below, strength))
        interval = None
        if before is None or after is None:
            lost = " and ".join(name for name, each in (("unpenalised", before), ("tuned", after)) if each is None)
            verdict = nothing(f"{_WORDS[1]}: the {lost} training diverged", over="rows")
        elif before is after:
            verdict = nothing(
                "strength 0 was chosen, so on the test rows the tuned model is the unpenalised one: loss "
                f"{before.loss:.4g}{'' if before.accuracy is None else f', accuracy {100 * before.accuracy:.1f} %'}",
                over="rows",
            )
        else:
            negative = bool((before.losses < 0).any() or (after.losses < 0).any())
            verdict = judge_rows(after.losses.numpy(), before.losses.numpy(), words=_WORDS, differences=negative)
            if before.right is not None and after.right is not None and len(after.right):
                interval = paired_shares(after.right.numpy(), before.right.numpy())
        rows, trained = len(self.y), len(source.spec.X)
        return FinalTest(
            penalty=source.family.name,
            strength=strength,
            rows=rows,
            trained=trained,
            unpenalised_loss=None if before is None else before.loss,
            tuned_loss=None if after is None else after.loss,
            unpenalised_accuracy=None if before is None else before.accuracy,
            tuned_accuracy=None if after is None else after.accuracy,
            accuracy_interval=interval,
            verdict=verdict,
            words=verdict.words
            + _of_accuracy(before, after, interval)
            + f"; this speaks of these two models, strength 0 and {source.family.name} at {strength:.3g}, trained on "
            f"{trained} rows, and not of other trainings",
        )

    def _tested(self, source: Source, climbed: Sequence[float]) -> _Tested | None:
        """What becomes of the test rows; None where the training diverged."""
        spec = source.spec
        try:
            with readers_alive(spec.X):
                model, _ = source.trained(climbed)
        except DivergenceError:
            return None
        with readers_alive(self.X):
            # In the unit of the targets given, as every other loss of a path.
            losses = spec.target_scale.of_loss * evaluate(model, self.X, self.y, loss=spec.loss).row_losses
            if not bool(losses.isfinite().all()):
                return None
            return _Tested(losses, self._right(model, getattr(spec.loss, "ignore_index", None)))

    @torch.no_grad()
    def _right(self, model: nn.Module, ignored: int | None) -> Tensor | None:
        if self.y.is_floating_point() or self.y.ndim != 1:
            return None
        parts = []
        with evaluating(model):
            for X, y in split(self.X, self.y, most=ROWS_AT_ONCE):
                output = model(X)
                if output.ndim != 2:
                    return None
                parts.append((output.argmax(1) == y)[y != ignored].cpu())
        return torch.cat(parts)


def _of_accuracy(before: _Tested | None, after: _Tested | None, interval: tuple[float, float] | None) -> str:
    if before is None or after is None or before.accuracy is None or after.accuracy is None or interval is None:
        return ""
    low, high = (f"{'−' if end < 0 else '+'}{100 * abs(end):.1f}" for end in interval)
    return (
        f"; accuracy {100 * before.accuracy:.1f} → {100 * after.accuracy:.1f} % "
        f"(95 % interval of the change {low} to {high} points)"
    )
