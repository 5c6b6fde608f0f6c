"""The effective step size of an optimizer, per coordinate: what a prox after its step must use.

Let an optimizer stand where nothing moves any more: the gradient is constant, and every average that it keeps has
reached its limit. Then a step displaces coordinate i by −s_i·g_i, and a prox with step sizes s undoes exactly this
displacement if and only if −g is in ∂Ω(w). With any other step sizes the fixed point is that of other strengths:
soft-thresholding by lr·λ after SGD(momentum=0.9) solves the problem for λ/10, and after Adam it solves no lasso.

One short function per optimizer class gives s, for the very step just taken: where an optimizer corrects an average
for its start from 0, so does s. A weight that has had no gradient yet may have an s without a bound. The optimizer's
own moves still have one, its *reach*: a prox moves a coordinate by at most twice that.

A subclass steps as its base does, unless it overrides something that the base's ``step()`` may call.
`register_step_size` adds a third party's optimizer in the same way as the ones below, `same_step_size` a subclass
whose own ``step()`` steps like its base, and `refuse_step_size` says why there is no s and what to do instead.
docs/optimizers.md has the formulas in one table.
"""

from torchshrink.step_sizes import third_party as third_party
from torchshrink.step_sizes import third_party_adaptive as third_party_adaptive
from torchshrink.step_sizes.group_settings import WeightDecay, climbs, weight_decay_kind, weight_decays
from torchshrink.step_sizes.registry import (
    PREVIOUS,
    REACHES,
    Group,
    Refusal,
    State,
    Step,
    StepSizeRule,
    refusal_of,
    refuse_step_size,
    register_step_size,
    register_weight_decay,
    same_step_size,
    step_size_of,
)
from torchshrink.step_sizes.torch_optim import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    asgd,
    nadam,
    radam,
    rmsprop,
    sgd,
    step_count,
)

__all__ = [
    "PREVIOUS",
    "REACHES",
    "Group",
    "Refusal",
    "State",
    "Step",
    "StepSizeRule",
    "WeightDecay",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "asgd",
    "climbs",
    "nadam",
    "radam",
    "refusal_of",
    "refuse_step_size",
    "register_step_size",
    "register_weight_decay",
    "rmsprop",
    "same_step_size",
    "sgd",
    "step_count",
    "step_size_of",
    "weight_decay_kind",
    "weight_decays",
]
