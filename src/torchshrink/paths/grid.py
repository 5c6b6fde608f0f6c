"""Which strengths to try, from the least that leaves the model nothing (the top) down to nearly none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchshrink.certifying.full_data import FullLoss
from torchshrink.data.lazy import LazyRows
from torchshrink.errors import SelectionWarning
from torchshrink.models import fit_preprocessing
from torchshrink.paths.null_model import lbfgs, minimised
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_spec import WHOLE, TrainingSpec
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.terms import Term
from torchshrink.support.randomness import seeded
from torchshrink.training import Loss, WeightedLoss, evaluating

RATIO = 1e-3
"""The least strength of an automatic grid above 0, as a share of its top; scikit-learn's choice too."""

NULL_SHARE = 0.01  # a strength is at the top when the model keeps no more than this of what it learns without penalty
LEAP = 4.0  # from one probe to the next
MOST_PROBES = 12

CONVEX = (
    nn.CrossEntropyLoss,
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
)
"""Losses known to be convex in the model's output; a class made from one of them may not be."""

CONVEX_FUNCTIONS = (
    functional.cross_entropy,
    functional.mse_loss,
    functional.binary_cross_entropy_with_logits,
    functional.l1_loss,
    functional.smooth_l1_loss,
    functional.huber_loss,
)

Probe = Callable[[float], float]
"""The mean training loss, without the penalty, after training the first fold at a strength; NaN if it diverged."""


@dataclass(frozen=True)
class Grid:
    """The strengths of a path, and where they come from.

    Args:
        strengths: ascending, 0 first.
        how: ``given`` by the caller; ``exact``: the top is where all penalised weights are zero at the optimum, by
            formula, on all rows; ``probed``: the top was found by training.
        words: the same as a sentence.
        probes: each strength tried in search of the top, with the share that the model kept of what it learns
            without penalty: 1 for strength 0, and 0 where it is no better than the best constant output.
    """

    strengths: tuple[float, ...]
    how: Literal["given", "exact", "probed"]
    words: str
    probes: tuple[tuple[float, float], ...] = ()

    def __repr__(self) -> str:
        return f"<Grid, {self.how}: {len(self.strengths)} strengths from 0 to {self.strengths[-1]:.4g}>"

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes. A diverged probe's share is null."""
        return {
            "strengths": list(self.strengths),
            "how": self.how,
            "words": self.words,
            "probes": [[s, share if math.isfinite(share) else None] for s, share in self.probes],
        }


def grid_from_dict(saved: dict[str, Any]) -> Grid:
    """What `Grid.to_dict` was called on."""
    probes = tuple((s, math.nan if share is None else share) for s, share in saved["probes"])
    return Grid(tuple(saved["strengths"]), saved["how"], saved["words"], probes)


def given_grid(strengths: tuple[float, ...]) -> Grid:
    """The caller's own strengths, ascending from 0."""
    return Grid(strengths, "given", "strengths as given")


def geometric(top: float, count: int) -> tuple[float, ...]:
    """0 and ``count`` strengths from ``RATIO``·top to top, ascending, each the same multiple of the one before.

    >>> [f"{strength:g}" for strength in geometric(1.0, 4)]
    ['0', '0.001', '0.01', '0.1', '1']
    """
    if count == 1:
        return (0.0, top)
    return (0.0, *(top * RATIO ** (step / (count - 1)) for step in range(count - 1, -1, -1)))


def automatic_grid(spec: TrainingSpec, family: PenaltyFamily, count: int, *, null_loss: float, probe: Probe) -> Grid:
    """A geometric grid whose top is the critical strength where a formula gives it, and is found by probing elsewhere.

    Args:
        spec: how a model is trained.
        family: what is tuned.
        count: how many strengths above 0.
        null_loss: the mean loss of the best constant output on the rows that ``probe`` trains on.
        probe: trains on these rows.
    """
    top = exact_top(spec, family)
    if top is not None:
        words = (
            f"{count} strengths down from {top:.3g}, the least at which all penalised weights are zero "
            "(exact, on all rows)"
        )
        return Grid(geometric(top, count), "exact", words)
    return _probed(_first_guess(spec, family, null_loss), count, null_loss=null_loss, probe=probe)


def exact_top(spec: TrainingSpec, family: PenaltyFamily) -> float | None:
    """The least strength at which zero is the optimum for all penalised weights, or None where no formula says.

    It does where the output is affine in the trainable parameters (linear and logistic models, any features in
    front), and loss and penalty are known to be convex: then it is the critical strength of the gradient at the null
    model, with the penalised weights zero and the others fitted (those of weight 0 too), all rows, evaluation mode,
    float64. For deep networks
    the gradient there is zero, and for L2 no strength is enough. It is a scale for the grid and no more: taken from
    all rows, where a fold's trainings have fewer, it says nothing about which strength is chosen.
    """
    if not _is_convex(spec.loss):
        return None
    with seeded(spec.part_seed(WHOLE)), warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)  # said once, by `prepare`
        model = spec.fresh()
        fit_preprocessing(model, spec.X, spec.y)
        regularizer = Regularizer(model, family.make(1.0), spec.settings.on)
        twice = Regularizer(model, family.make(2.0), spec.settings.on)
    exact = spec.in_float64()
    model.double()
    with evaluating(model):
        try:
            if not _affine(model, exact.X[:64]):
                return None
        except RuntimeError:  # a model that insists on float32
            return None
        gradients = _null_gradients(model, regularizer.terms, exact)
    tops = []
    for term, double, gradient in zip(regularizer.terms, twice.terms, gradients, strict=True):
        if not term.penalty.convex:
            return None  # zero may be stationary and no minimum
        unit = float(term.penalty.strength)
        if not (unit > 0 and math.isclose(float(double.penalty.strength), 2 * unit)):
            return None  # the strength given does not multiply this term's: no one number is its top
        tops.append(float(term.penalty.critical_strength(gradient)) / unit)
    top = max(tops)
    return top if math.isfinite(top) and top > 0 else None


def _is_convex(loss: Loss) -> bool:
    """Whether a loss is known to be convex in the model's output."""
    if isinstance(loss, WeightedLoss):
        return _is_convex(loss.loss)
    return type(loss) in CONVEX or any(loss is each for each in CONVEX_FUNCTIONS)


def _null_gradients(model: nn.Module, terms: Sequence[Term], spec: TrainingSpec) -> tuple[Tensor, ...]:
    """The mean loss's gradients at the null model: penalised weights zero, all others fitted, exempt ones too."""
    penalised = [term.parameter for term in terms]
    exempt = {term.parameter: term.penalty.exempt(term.parameter) for term in terms}
    partly = {p: mask for p, mask in exempt.items() if mask is not None and bool(mask.any())}
    with torch.no_grad():
        for parameter in penalised:
            parameter.zero_()
    free = [p for p in model.parameters() if p.requires_grad and (p not in exempt or p in partly)]
    # A coordinate without a gradient stays at zero.
    hooks = [p.register_hook(lambda grad, mask=mask: torch.where(mask, grad, 0.0)) for p, mask in partly.items()]
    try:
        _fit(model, free, spec)
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(spec.X, LazyRows):
        return tuple(FullLoss(model, spec.X, spec.y, spec.loss).gradient(penalised)[1])
    return torch.autograd.grad(spec.loss(model(spec.X), spec.y), penalised)


def _fit(model: nn.Module, free: list[nn.Parameter], spec: TrainingSpec) -> None:
    """Minimise the mean loss over the parameters ``free``."""
    if isinstance(spec.X, LazyRows):
        full = FullLoss(model, spec.X, spec.y, spec.loss)

        def closure() -> float:
            mean, gradients = full.gradient(free)
            for parameter, gradient in zip(free, gradients, strict=True):
                parameter.grad = gradient
            return mean

        if free:
            lbfgs(free).step(closure)
    else:
        minimised(lambda: spec.loss(model(spec.X), spec.y), free)


@torch.no_grad()
def _affine(model: nn.Module, X: Tensor) -> bool:
    """Whether the output on these rows is affine in all trainable parameters together. Leaves them changed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator(X.device).manual_seed(0)

    def output(values: Sequence[Tensor]) -> Tensor:
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
        made = model(X)
        return made if isinstance(made, Tensor) else torch.full((), torch.nan)

    def draw() -> list[Tensor]:
        return [torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device) for p in parameters]

    first, second = draw(), draw()
    middle = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    ends = (output(first) + output(second)) / 2
    # Any bend, a ReLU's kink or a product of two layers, is of the order of the output itself.
    return bool((output(middle) - ends).abs().max() <= 1e-9 * ends.abs().max())


def _first_guess(spec: TrainingSpec, family: PenaltyFamily, null_loss: float) -> float:
    """The strength at which the initial weights cost as much as the best constant output loses."""
    with seeded(spec.part_seed(0)):
        value = float(Regularizer(spec.fresh(), family.make(1.0), spec.settings.on).value().detach())
    guess = abs(null_loss) / value if value > 0 else 1.0
    return float(f"{guess:.1e}") if 0 < guess < math.inf else 1.0  # two digits: grids that people can read


def _probed(start: float, count: int, *, null_loss: float, probe: Probe) -> Grid:
    """From dense towards sparse until there is nothing more to lose, then back by halves."""
    gain = null_loss - probe(0.0)
    if not gain > 0:
        words = (
            f"{count} strengths down from {start:.3g}, a guess: without a penalty the model is no better on its "
            "training rows than a constant; train longer or faster, or give the strengths"
        )
        return Grid(geometric(start, count), "probed", words, ((0.0, math.nan),))

    # The training loss only rises with the strength; the validation loss meets the null model's twice where the
    # unpenalised model overfits.
    shares: dict[float, float] = {}
    limit = (
        0.0  # what is left however strong the penalty: more where it acts on a part of the model, or training is short
    )
    low, high, strength = 0.0, math.inf, start
    while len(shares) < MOST_PROBES:
        share = shares[strength] = (null_loss - probe(strength)) / gain
        before = shares.get(strength / LEAP, math.nan)
        if share < 1 - NULL_SHARE and abs(share - before) <= NULL_SHARE:
            limit = max(limit, min(share, before))
        # A training that diverged, whose share is NaN, was penalised too hard for its optimizer.
        high = min((s for s in shares if not shares[s] > limit + NULL_SHARE), default=math.inf)
        low = max((s for s in shares if s < high and shares[s] > limit + NULL_SHARE), default=0.0)
        if high == math.inf:
            strength = low * LEAP
        elif low == 0:
            strength = high / LEAP
        elif high / low > math.sqrt(LEAP) * 1.01:
            strength = math.sqrt(low * high)
        else:
            break
    if high < math.inf:
        top, ending = high, "nothing is learnt there"
        if limit > NULL_SHARE:
            ending = f"stronger ones leave as much: {100 * limit:.0f} % of what is learnt without a penalty"
    elif shares[low] < 1 - NULL_SHARE:
        top, ending = low, "stronger ones would leave less, but this was the last probe"
    else:
        top, ending = start, f"a guess: the penalty changes nothing up to {low:.3g}"
    words = f"{count} strengths down from {top:.3g}, found by {len(shares)} trainings of the first fold: {ending}"
    return Grid(geometric(top, count), "probed", words, ((0.0, 1.0), *sorted(shares.items())))
