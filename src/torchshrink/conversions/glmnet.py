"""glmnet, the R package."""

from __future__ import annotations

from collections.abc import Callable

from torchshrink.conversions.base import (
    LOGITS,
    TWO_LOGITS,
    Parameter,
    Strengths,
    Tool,
    Values,
    known,
    logit_share,
    mixed,
)

LAMBDA = Parameter("lambda", "strength", "the strength λ")
MIXING = Parameter("alpha", "share", "the share α of L1, which is no strength", default=1.0)
Y_SD = Parameter("y_sd", "positive", "the target's standard deviation, with 1/N", default=None)
ONE_TARGET = Parameter("outputs", (1,), "one target", default=1)
NOTES = (
    "glmnet standardises the columns (variance with 1/N) and penalises the coefficients of those: "
    "standardise them for the other tool as well, or fit with standardize=FALSE",
    "glmnet rescales observation weights to add up to N",
)


def _y_sd(v: Values) -> float:
    why = "glmnet scales a gaussian y to variance 1 for the fit, which divides the ridge part of λ by y's deviation"
    return float(known(v, "y_sd", f"{why}; give the target's standard deviation, with 1/N"))


def _read_gaussian(v: Values) -> Strengths:
    # With y = s·y' and β = s·β': 1/(2N)‖y'−Xβ'‖² + (λ/s)·(α‖β'‖₁ + (1−α)/2·‖β'‖²), s² times, is the objective below.
    ridge = v["lambda"] * (1 - v["alpha"])
    return Strengths(l1=2 * v["lambda"] * v["alpha"], l2=ridge / _y_sd(v) if ridge else 0.0)


def _write_gaussian(s: Strengths, v: Values) -> dict[str, float]:
    total, share = mixed(s.l1 / 2, s.l2 * _y_sd(v) if s.l2 else 0.0)
    return {"lambda": total, "alpha": share}


def _read_binomial(v: Values) -> Strengths:
    share = v["alpha"]
    return Strengths(l1=v["lambda"] * share, l2=v["lambda"] * (1 - share) / 2 * logit_share(v))


def _write_binomial(s: Strengths, v: Values) -> dict[str, float]:
    total, share = mixed(s.l1, 2 * s.l2 / logit_share(v))
    return {"lambda": total, "alpha": share}


def _call(family: str) -> Callable[[Values], str]:
    return f'glmnet(x, y, family = "{family}", alpha = {{alpha!r}}, lambda = {{lambda!r}})'.format_map


TOOLS = (
    Tool(
        name="glmnet.gaussian",
        objective="1/(2N)·‖y−Xβ‖² + λ·(α·‖β‖₁ + (1−α)/(2·sd(y))·‖β‖²), intercept free",
        loss="squared",
        terms=("l1", "l2"),
        settings=(LAMBDA, MIXING),
        needs=(Y_SD, ONE_TARGET),
        read=_read_gaussian,
        write=_write_gaussian,
        expression=_call("gaussian"),
        notes=NOTES,
    ),
    Tool(
        name="glmnet.binomial",
        objective="1/N·Σ log loss + λ·(α·‖β‖₁ + (1−α)/2·‖β‖²), intercept free",
        loss="log",
        terms=("l1", "l2"),
        settings=(LAMBDA, MIXING),
        needs=(LOGITS,),
        read=_read_binomial,
        write=_write_binomial,
        expression=_call("binomial"),
        notes=(TWO_LOGITS, *NOTES),
    ),
)
