"""Optimizers of other libraries, by name, so that nothing is imported: step sizes, refusals, and how weight decay acts.

Step sizes stand here where the update is one that `torch_optim` has a formula for, or a line away from it, and in
`third_party_adaptive` where it needs one of its own. Any other optimizer acts by latent weights, which need none; what
matters there is how weight decay acts. Derived from and measured with pytorch_optimizer 4.1.0, timm 1.0.31,
transformers 5.24.0 (AdamW: 4.46.3, the last major version that has it), schedulefree 1.4.1, bitsandbytes 0.50.2 and
torchao 0.18.0. tests/step_sizes/test_third_party.py measures again with what is installed.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from torchshrink.penalties.base import working
from torchshrink.step_sizes.registry import (
    DecayKind,
    Group,
    Refuses,
    State,
    Step,
    refuse_step_size,
    register_step_size,
    register_weight_decay,
)
from torchshrink.step_sizes.torch_optim import adam, adamax, momentum_without_limit, sgd, step_count


def _names(module: str, classes: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in classes.split())


def by_setting(setting: str, *, otherwise: DecayKind = "coupled") -> Callable[[Group], DecayKind]:
    """Decoupled where a setting of the group says so."""

    def acts(group: Group) -> DecayKind:
        return "decoupled" if group.get(setting, False) else otherwise

    return acts


# --- step sizes ---


def without(**settings: str) -> Refuses:
    """Refuses settings that change the update, each with what it does."""

    def refuses(group: Group) -> str | None:
        for name, what in settings.items():
            if group.get(name):
                return f"{name}={group[name]} {what}; leave it out, or take method='latent'"
        return None

    return refuses


_CAUTION = "leaves out the coordinates whose average and gradient differ in sign, which no step size describes"
_CLIPPED = "shortens the step by the size of all gradients together, which no step size describes"


def _rate(group: Group, state: State) -> Step:
    return float(group["lr"])


register_step_size(
    "timm.optim.AdamWLegacy",
    coordinatewise=True,
    refuses=without(caution=_CAUTION, clipping_threshold=_CLIPPED),
    reach=_rate,
    elementwise=True,
    weight_decay="decoupled",
)(adam)


def _nesterov_rate(group: Group, state: State) -> Step:
    """Of a constant gradient, β₁·(1 − β₁^t) + (1 − β₁) over 1 − β₁^t."""
    beta1, t = group["betas"][0], float(step_count(state))
    rate: float = float(group["lr"]) * (1 - beta1 ** (t + 1)) / (1 - beta1**t)
    return rate


@register_step_size(
    "timm.optim.NAdamW",
    coordinatewise=True,
    refuses=without(caution=_CAUTION, clipping_threshold=_CLIPPED),
    reach=_nesterov_rate,
    elementwise=True,
    weight_decay="decoupled",
)
def _nadamw(group: Group, state: State) -> Step:
    return adam({**group, "lr": _nesterov_rate(group, state), "amsgrad": False}, state)


def _cautious_or_momentum(group: Group) -> str | None:
    if group.get("nesterov") and group["dampening"]:
        return "nesterov=True with a dampening weighs the gradient twice; take dampening=0"
    return without(caution=_CAUTION)(group) or momentum_without_limit(group)


register_step_size(
    "timm.optim.SGDW",
    "pytorch_optimizer.SGDW",
    coordinatewise=False,
    refuses=_cautious_or_momentum,
    weight_decay="decoupled",
)(sgd)


def _rmsprop_rate(group: Group, state: State) -> Step:
    rate: float = float(group["lr"]) / (1 - group["momentum"])
    return rate


@register_step_size(
    "timm.optim.RMSpropTF",
    coordinatewise=True,
    refuses=without(caution=_CAUTION, centered="divides by the gradient's deviation from its average, 0 at the end"),
    reach=_rmsprop_rate,
    elementwise=True,
    weight_decay=by_setting("decoupled_decay"),
)
def _rmsprop_tf(group: Group, state: State) -> Tensor:
    """lr/(1−μ)/√(v + ε), ε inside the root."""
    inverse = working(state["square_avg"]).add(group["eps"]).rsqrt_()
    step: Tensor = inverse.mul_(_rmsprop_rate(group, state))
    return step


def _bert_rate(group: Group, state: State) -> float:
    """lr, times 1 − β₁^t where ``correct_bias`` is off."""
    share: float = 1.0 if group["correct_bias"] else 1 - group["betas"][0] ** state["step"]
    return float(group["lr"]) * share


def _bert_reach(group: Group, state: State) -> Step:
    """Without the correction s·|g| is lr·(1−β₁^t)/√(1−β₂^t), which is above lr at first."""
    root: float = 1.0 if group["correct_bias"] else (1 - group["betas"][1] ** state["step"]) ** 0.5
    return _bert_rate(group, state) / root


@register_step_size(
    "transformers.optimization.AdamW",
    coordinatewise=True,
    reach=_bert_reach,
    elementwise=True,
    weight_decay="decoupled",
)
def _adamw_of_transformers(group: Group, state: State) -> Tensor:
    """lr·√(1−β₂^t)/(√v + ε): ε is added to the root before it is corrected, or nothing is."""
    root = (1 - group["betas"][1] ** state["step"]) ** 0.5 if group["correct_bias"] else 1.0
    return working(state["exp_avg_sq"]).sqrt().add_(group["eps"]).reciprocal_().mul_(_bert_rate(group, state) * root)


_DEBIAS = "leaves its average uncorrected for its start from 0"

register_step_size(
    "pytorch_optimizer.AdaMax",
    coordinatewise=True,
    refuses=without(adam_debias=_DEBIAS, adanorm="rescales gradients by the size of all together"),
    reach=_rate,
    elementwise=True,
    weight_decay=by_setting("weight_decouple"),
)(adamax)


@register_step_size(
    "pytorch_optimizer.Yogi",
    coordinatewise=True,
    refuses=without(adam_debias=_DEBIAS),
    reach=_rate,
    elementwise=True,
    weight_decay=by_setting("weight_decouple"),
)
def _yogi(group: Group, state: State) -> Step:
    """Adam's, with another v, and the steps counted in the group."""
    return adam({**group, "amsgrad": False}, {**state, "step": group["step"]})


# --- refusals: there is no step size, and it is not that nobody has derived it ---

_INSTEAD = "Use method='latent' for exact zeros, or method='gradient' for a smooth penalty"

refuse_step_size(
    *_names("pytorch_optimizer", "Lion Tiger SignSGD EmoLynx DAdaptLion"),
    *_names("timm.optim", "Lion"),
    *_names("bitsandbytes.optim", "Lion Lion8bit Lion32bit PagedLion PagedLion8bit PagedLion32bit"),
    reason="steps by the sign of an average, whatever its size",
    instead=_INSTEAD,
)
refuse_step_size(
    *_names("pytorch_optimizer", "Muon AdaMuon NorMuon MuonClip AdaGO SCION SCIONLight SpectralSphere Conda"),
    *_names("pytorch_optimizer", "SOAP Shampoo ScalableShampoo Kron SPlus DASH GaLore Fira Alice"),
    *_names("timm.optim", "Muon"),
    "timm.optim.kron.Kron",
    reason="turns the gradient of a whole matrix, so that no displacement is in proportion to its coordinates",
    instead=_INSTEAD,
)
refuse_step_size(
    *_names("pytorch_optimizer", "AdaBelief"),
    *_names("timm.optim", "AdaBelief"),
    reason="divides by the gradient's deviation from its average, which is near 0 wherever a training ends",
    instead=_INSTEAD,
)

refuse_step_size(
    *_names("pytorch_optimizer", "LOMO AdaLOMO"),
    *_names("lomo_optim", "Lomo AdaLomo"),
    reason="moves the weights during backward() and not in its step(), where a penalty could act",
    instead="Add reg.value() to the loss, or take another optimizer",
    entirely=True,
)

# --- weight decay ---

_PYTORCH_OPTIMIZER_BY_FLAG = """
    ADOPT APOLLO AdEMAMix AdaBelief AdaBound AdaDelta AdaFactor AdaGC AdaGO AdaMod AdaMuon AdaNorm AdaPNM AdaTAM Adalite
    AdamC AdamG AdamS AggMo Aida Alice Ano AvaGrad CAME DAdaptAdaGrad DAdaptAdam DAdaptLion DiffGrad DualAdam EXAdam
    EmoFact EmoLynx EmoNavi Kate Kron Lion MADGRAD Muon NorMuon PAdam PID PNM QHM RACS ROSE SCION SCIONLight SGDW
    SPlus SWATS Shampoo SignSGD SimplifiedAdEMAMix SpectralSphere StableAdamW Tiger VSGD
"""
_PYTORCH_OPTIMIZER_DECOUPLED = """
    Adan BCOS Conda DAdaptAdan DASH FOCUS Fira FlashAdamW GaLore GrokFastAdamW Lamb MARS NovoGrad Ranger SOAP
    SPAM ScheduleFreeAdamW ScheduleFreeRAdam StableSPAM
"""
# With weight_decouple=False these add it to a gradient that is not looked at any more.
_PYTORCH_OPTIMIZER_DECOUPLED_OR_NOTHING = "AdamP AdamWSN Grams LaProp Prodigy Ranger21 SGDP SGDSaI TAM"

register_weight_decay(*_names("pytorch_optimizer", _PYTORCH_OPTIMIZER_BY_FLAG), acts=by_setting("weight_decouple"))
register_weight_decay("pytorch_optimizer.ScalableShampoo", acts=by_setting("decoupled_weight_decay"))
register_weight_decay(*_names("pytorch_optimizer", _PYTORCH_OPTIMIZER_DECOUPLED), acts="decoupled")
register_weight_decay(
    *_names("pytorch_optimizer", _PYTORCH_OPTIMIZER_DECOUPLED_OR_NOTHING),
    acts=by_setting("weight_decouple", otherwise="unknown"),
)
register_weight_decay(*_names("pytorch_optimizer", "ASGD AccSGD Adai ApolloDQN LARS ScheduleFreeSGD"), acts="coupled")
register_weight_decay(
    *_names("timm.optim", "Adafactor AdafactorBigVision AdamP Adan LaProp Lamb Lion Mars Muon NvNovoGrad RAdamLegacy"),
    *_names("timm.optim", "SGDP SGDW"),
    acts="decoupled",
)
register_weight_decay(*_names("timm.optim", "Lars NAdamLegacy"), acts="coupled")
register_weight_decay(*_names("timm.optim", "AdaBelief MADGRAD"), acts=by_setting("decoupled_decay"))
register_weight_decay("timm.optim.Adopt", acts=by_setting("decoupled"))
register_weight_decay(*_names("schedulefree", "AdamWScheduleFree RAdamScheduleFree"), acts="decoupled")
register_weight_decay("schedulefree.SGDScheduleFree", acts="coupled")

for _bits in ("", "8bit", "32bit"):  # Adam's, too, is decoupled there
    _decoupled = _names(
        "bitsandbytes.optim", "Adam AdamW AdEMAMix LAMB Lion PagedAdam PagedAdamW PagedAdEMAMix PagedLion"
    )
    register_weight_decay(*(name + _bits for name in _decoupled), acts="decoupled")
    _coupled = _names("bitsandbytes.optim", "Adagrad LARS RMSprop SGD")
    register_weight_decay(*(name + _bits for name in _coupled), acts="coupled")
register_weight_decay(*_names("torchao.optim", "AdamW8bit AdamW4bit AdamWFp8"), acts="decoupled")
register_weight_decay(*_names("torchao.optim", "Adam8bit Adam4bit AdamFp8"), acts="coupled")
