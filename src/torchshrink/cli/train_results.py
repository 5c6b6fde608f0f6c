"""The figures at the end of ``train``, and how a person sees them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchshrink.certifying import certify
from torchshrink.cli import console
from torchshrink.cli.features import features_in_words, features_of
from torchshrink.cli.train_epochs import Fit
from torchshrink.data import Dataset
from torchshrink.paths.null_model import null_losses
from torchshrink.paths.statistics.wording import nothing_learnt
from torchshrink.polishing import STEPS_AT_THE_END, Polished, polish
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.certificate import TOLERANCE, Certificate
from torchshrink.support.tables import Column, Table
from torchshrink.training import Evaluation, evaluating


def training_result(
    fit: Fit, data: Dataset, history: Sequence[Mapping[str, Any]], *, polished: bool, progress: bool
) -> dict[str, Any]:
    """What train.json says beside the settings: sizes, final figures, certificate and history; first it polishes."""
    regularizer = fit.regularizer or Regularizer(fit.model, fit.penalising.rules_or_zero, on=fit.penalising.on)
    end = _polish(fit, regularizer, progress=progress) if polished else None
    train = fit.evaluate(fit.training)
    held_out = None if fit.validation is None else fit.evaluate(fit.validation)
    rules, grouped = fit.penalising.rules, "groups" in fit.penalising.settings
    features = features_of(fit.model, data, str(next(iter(rules)))) if grouped and isinstance(rules, Mapping) else None
    certificate = end.certificate if end else certify(fit.model, fit.training, regularizer, loss=fit.loss)
    return {
        "rows": {"train": len(fit.training[0]), "validation": 0 if fit.validation is None else len(fit.validation[0])},
        "result": {
            "train_loss": train.loss,
            "validation_loss": held_out and held_out.loss,
            "gap": held_out and held_out.loss - train.loss,
            "train_accuracy": train.accuracy,
            "validation_accuracy": held_out and held_out.accuracy,
            "sparsity": regularizer.sparsity().to_dict(),
            **({} if features is None else {"features": features}),
            "certificate": finite(certificate.to_dict()) | {"ok": certificate.ok(TOLERANCE), "tolerance": TOLERANCE},
        },
        "polish": end and finite(end.to_dict()),
        "words": {
            "learnt": _nothing_learnt(fit, train, held_out) or None,
            "columns": data.kinds or None,
            "gap": None if held_out is None else gap_in_words(train.loss, held_out.loss),
            "sparsity": str(regularizer.sparsity()),
            "features": features and features_in_words(features),
            "polish": end and str(end),
            "certificate": _in_words(certificate, polished=end is not None),
        },
        "history": list(history),
    }


def _nothing_learnt(fit: Fit, train: Evaluation, held_out: Evaluation | None) -> str:
    """That the best constant output for the training rows does as well, if it does."""
    y = _wide(fit.training[1])
    with torch.no_grad(), evaluating(fit.model):
        shape = fit.model(fit.training[0][:2]).shape[1:]

    def null(judged: Tensor) -> float:
        return fit.unit.of_loss * null_losses(fit.loss, y, judged, shape).mean().item()

    said = nothing_learnt(train.loss, null(y), rows="training")
    if said or held_out is None or fit.validation is None:
        return said
    return nothing_learnt(held_out.loss, null(_wide(fit.validation[1])), rows="validation")


def _wide(y: Tensor) -> Tensor:
    return y.double() if y.is_floating_point() else y


def _in_words(certificate: Certificate, *, polished: bool) -> str:
    """What the certificate says, and where there is one, the way on."""
    if polished:  # what polish has to say stands before it already
        said = () if certificate.ok() else ("the line above says why it ended there",)
        return dataclasses.replace(certificate, notes=said).in_words()
    on = "" if certificate.ok() or certificate.notes else "; --polish goes on to a stationary point"
    return certificate.in_words() + on


def _polish(fit: Fit, regularizer: Regularizer, *, progress: bool) -> Polished:
    return polish(fit.model, fit.training, regularizer, loss=fit.loss, max_steps=STEPS_AT_THE_END, progress=progress)


def finite(value: Any) -> Any:
    """``value`` with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def gap_in_words(train: float, validation: float) -> str:
    """The gap as a person would say it.

    >>> gap_in_words(0.1, 0.25)
    '+0.150: the validation loss is 2.5 times the training loss'
    """
    gap = validation - train
    head = f"{gap:+.3f}: "
    if train <= 0 or not math.isfinite(gap):
        return f"{head}validation loss {validation:.3g}, training loss {train:.3g}"
    ratio = validation / train
    if ratio >= 1.1:
        return f"{head}the validation loss is {ratio:.3g} times the training loss"
    if ratio > 1 / 1.1:
        return f"{head}validation and training loss are about the same"
    return f"{head}the validation loss is below the training loss"


def show_training(result: Mapping[str, Any], files: Sequence[str]) -> None:
    """The end of a training, on stdout."""
    figures, words, rows = result["result"], result["words"], result["rows"]
    columns = [name for name in ("train", "validation") if rows[name]]
    lines = [
        ["rows", *(f"{rows[name]:,}" for name in columns)],
        ["loss", *(f"{figures[f'{name}_loss']:.4g}" for name in columns)],
    ]
    if figures["train_accuracy"] is not None:
        lines.append(["accuracy", *(f"{100 * figures[f'{name}_accuracy']:.2f} %" for name in columns)])
    console.emit_table(Table([Column("", left=True), *map(Column, columns)], lines))
    console.emit("")
    order = ("learnt", "columns", "gap", "sparsity", "features", "polish", "certificate")
    told = [(name, words[name]) for name in order if words.get(name)]
    console.emit_pairs([*told, ("saved in", console.in_folder(files))])
