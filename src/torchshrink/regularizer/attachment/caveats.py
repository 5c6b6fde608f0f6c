"""What is known to keep a training from a stationary point of F = mean loss + penalty: one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import SGD, Optimizer

from torchshrink.regularizer.attachment.bundling import Bundle
from torchshrink.step_sizes import weight_decays

DECOUPLED_NOTE = (
    "method 'decoupled' does not end at a stationary point of mean loss + penalty: "
    "what its strength solves depends on the optimizer"
)


def caveats(optimizer: Optimizer, bundles: Sequence[Bundle], others: Sequence[Bundle]) -> tuple[str, ...]:
    """The sentences, in order of weight.

    Args:
        optimizer: as it is set now.
        bundles: what acts in it.
        others: what other regularizers let act in it beforehand.
    """
    notes: list[str] = []
    if any(bundle.method == "decoupled" for bundle in bundles) and not is_plain_descent(optimizer):
        notes.append(DECOUPLED_NOTE)
    notes += [note for _, note in _of_decay(optimizer, bundles)]
    notes += _of_two_proxes(bundles, others)
    notes += _of_doubled(bundles, others)
    notes += _of_unknown_convexity(bundles)
    notes += _of_half_precision(bundles)
    return tuple(dict.fromkeys(notes))


def is_plain_descent(optimizer: Optimizer) -> bool:
    """Whether each step is −lr·gradient and nothing else, so that the decoupled way coincides with the exact one."""
    return type(optimizer) is SGD and all(
        group["momentum"] == 0 and group["weight_decay"] == 0 for group in optimizer.param_groups
    )


def of_other_regularizers(others: Sequence[Bundle]) -> tuple[str, ...]:
    """That F leaves out what other regularizers add in the same optimizer."""
    if not others:
        return ()
    what = ", ".join(dict.fromkeys(str(bundle.penalty) for bundle in others))
    return (
        f"another Regularizer acts in this optimizer ({what}): its penalty is not in the objective here, "
        "so this distance is not that of what was minimised",
    )


def of_other_terms(optimizer: Optimizer, bundles: Sequence[Bundle], others: Sequence[Bundle]) -> tuple[str, ...]:
    """That the optimizer minimises more than F: other regularizers' penalties, and decay that is a term or may be."""
    decays = [note for kind, note in _of_decay(optimizer, bundles) if kind != "decoupled"]
    return (*dict.fromkeys(decays), *of_other_regularizers(others))


def _of_decay(optimizer: Optimizer, bundles: Sequence[Bundle]) -> list[tuple[str, str]]:
    """What weight decay that is already on in the optimizer does together with the penalty: its kind, and a note."""
    notes: list[tuple[str, str]] = []
    for bundle in bundles:
        for decay in weight_decays(optimizer, optimizer.param_groups[bundle.group]):
            if decay.kind == "coupled":
                what = f"the objective has L2({decay.rate / 2:g}) in addition; set {decay.setting}=0, or count it in"
            elif decay.kind == "decoupled":
                what = (
                    "decoupled: the two together have no stationary point of any mean loss + penalty; "
                    f"set {decay.setting}=0"
                )
            else:
                what = (
                    "whether it is a term of the objective is not known for this class; "
                    f"set {decay.setting}=0, or say so with torchshrink.step_sizes.register_weight_decay"
                )
            setting = f"{type(optimizer).__name__}({decay.setting}={decay.rate:g})"
            notes.append((decay.kind, f"{setting} also acts on parameters under {bundle.penalty}: {what}"))
    return notes


def _of_two_proxes(bundles: Sequence[Bundle], others: Sequence[Bundle]) -> list[str]:
    theirs = {id(p): other for other in others if not other.acts_before for p in other.parameters}
    return [
        f"{name}: the prox of {bundle.penalty} follows another Regularizer's, of {theirs[id(p)].penalty}, and two "
        "proxes in a row are not that of the sum; use one penalty for both, or method='gradient' for the smooth one"
        for bundle in bundles
        if not bundle.acts_before
        for name, p in zip(bundle.names, bundle.parameters, strict=True)
        if id(p) in theirs
    ]


def _of_doubled(bundles: Sequence[Bundle], others: Sequence[Bundle]) -> list[str]:
    theirs = {(id(p), type(other.penalty)): other for other in others for p in other.parameters}
    notes = []
    for bundle in bundles:
        for name, p in zip(bundle.names, bundle.parameters, strict=True):
            other = theirs.get((id(p), type(bundle.penalty)))
            if other is not None and (bundle.acts_before or other.acts_before):
                notes.append(
                    f"{name}: {bundle.penalty} acts in addition to another Regularizer's {other.penalty}, which is "
                    "attached already; detach() that one, if this is the second run of the same lines"
                )
                break  # one name per bundle says it
    return notes


def _of_unknown_convexity(bundles: Sequence[Bundle]) -> list[str]:
    return [
        f"{bundle.penalty} is not known to be convex, and the prox of one that is not may keep a training from coming "
        f"to rest where steps are long; set convex = True in {type(bundle.penalty).__name__} if it is, else give it a "
        "convex_part, or look at the certificate"
        for bundle in bundles
        if bundle.method in ("prox", "latent") and bundle.penalty.convex_part is None and not bundle.penalty.constraint
    ]


def _of_half_precision(bundles: Sequence[Bundle]) -> list[str]:
    notes = []
    for bundle in bundles:
        if bundle.acts_before:
            continue
        for name, p in zip(bundle.names, bundle.parameters, strict=True):
            if p.dtype in (torch.bfloat16, torch.float16):
                what = "a step of the optimizer's" if bundle.method == "latent" else "a shrinkage"
                notes.append(
                    f"{name} is {str(p.dtype).removeprefix('torch.')}, which rounds away {what} below "
                    f"{torch.finfo(p.dtype).eps / 2:.1g} of a weight, so that the strength is not met; "
                    "keep the weights in float32 and compute under torch.autocast"
                )
                break  # one name per bundle says it
    return notes
