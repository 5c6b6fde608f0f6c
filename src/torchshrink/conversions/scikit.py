"""scikit-learn's estimators."""

from __future__ import annotations

import math
from collections.abc import Callable

from torchshrink.conversions.base import (
    LOGITS,
    OUTPUTS,
    SOME_ROWS,
    TWO_LOGITS,
    Loss,
    Parameter,
    Strengths,
    Tool,
    Values,
    known,
    logit_share,
    mixed,
)
from torchshrink.errors import InputError, NoEquivalentError

ALPHA = Parameter("alpha", "strength", "the strength")
ROWS = Parameter("rows", "count", "the number of training rows, over which this tool adds its loss")
BATCH_SIZE = Parameter("batch_size", "count", "rows in a batch, by which alpha is divided", default=None)
TASKS = Parameter("outputs", "count", "the number of targets: the size p_g of every group, and what the loss adds over")


# --- linear models ---


def _read_elastic_net(v: Values) -> Strengths:
    share, k = v["l1_ratio"], v["outputs"]
    return Strengths(l1=2 * v["alpha"] * share / k, l2=v["alpha"] * (1 - share) / k)


def _write_elastic_net(s: Strengths, v: Values) -> dict[str, float]:
    alpha, share = mixed(s.l1 * v["outputs"] / 2, s.l2 * v["outputs"])
    return {"alpha": alpha, "l1_ratio": share}


def _task_scale(v: Values) -> float:
    """alpha / GroupLasso's strength: ½ for the loss's, k for its mean over outputs, √k for the group's size."""
    return float(v["outputs"] * math.sqrt(v["outputs"]) / 2)


def _read_logistic(v: Values) -> Strengths:
    share, each = v["l1_ratio"], 1 / (v["rows"] * v["C"])
    return Strengths(l1=share * each, l2=(1 - share) / 2 * each * logit_share(v))


def _write_logistic(s: Strengths, v: Values) -> dict[str, float]:
    total, share = mixed(s.l1, 2 * s.l2 / logit_share(v))
    if not total:
        raise InputError("strength 0 has no finite C: fit LogisticRegression(C=np.inf), which penalises nothing")
    return {"C": 1 / (v["rows"] * total), "l1_ratio": share}


def _logistic(v: Values) -> str:
    solver = "saga" if v["l1_ratio"] and v["solver"] != "liblinear" else v["solver"]
    return f"LogisticRegression(C={v['C']!r}, l1_ratio={v['l1_ratio']!r}, solver={solver!r})"


# --- multilayer perceptrons: the penalty is divided by the rows of the batch at hand ---


def _batch(v: Values) -> int:
    if v["solver"] == "lbfgs":
        return int(known(v, "rows", "solver=lbfgs takes all rows at once and divides alpha by their number"))
    if v["batch_size"] is None:
        why = "scikit-learn divides alpha by the batch's rows, min(200, rows) by default; give batch_size or rows"
        return min(200, int(known(v, "rows", why)))
    return int(min(v["batch_size"], v["rows"] or v["batch_size"]))


def _uneven_batches(v: Values) -> tuple[str, ...]:
    batch = _batch(v)
    left = (v["rows"] or 0) % batch
    if v["solver"] == "lbfgs" or not left:
        return ()
    return (
        f"{v['rows']} rows leave {left} for the last batch of {batch}, where scikit-learn's penalty is "
        f"{batch / left:.3g} times as strong",
    )


def _uneven(v: Values) -> tuple[str, ...]:
    if v["outputs"] > 1 and v["solver"] == "lbfgs":
        return (
            "with several outputs scikit-learn gives lbfgs a loss averaged over them with a gradient added over them, "
            "and what it returns minimises neither; the strength is the gradient's",
        )
    return _uneven_batches(v)


def _one_logit(v: Values) -> float:
    if v["outputs"] == 2:
        raise NoEquivalentError(
            "outputs=2: sklearn.MLPClassifier has one logit for two classes, and in a network no single strength "
            "makes up for a second one; give the model one logit, nn.BCEWithLogitsLoss, and say outputs=1"
        )
    return 0.5


def _mlp(name: str, loss: Loss, outputs: Parameter, factor: Callable[[Values], float]) -> Tool:
    """``factor``: the strength of Σw² for alpha/batch = 1."""
    averaged = "½·mean squares" if loss == "squared" else "mean log loss"
    return Tool(
        name=f"sklearn.{name}",
        objective=f"{averaged} + α/(2·batch)·Σw², batch the rows in it (lbfgs: all), intercepts free",
        loss=loss,
        terms=("l2",),
        settings=(ALPHA,),
        needs=(
            Parameter("solver", ("adam", "sgd", "lbfgs"), "lbfgs takes all rows as one batch", default="adam"),
            BATCH_SIZE,
            SOME_ROWS,
            outputs,
        ),
        read=lambda v: Strengths(l2=v["alpha"] / _batch(v) * factor(v)),
        write=lambda s, v: {"alpha": s.l2 * _batch(v) / factor(v)},
        expression=lambda v: (
            f"{name}(alpha={v['alpha']!r}, solver={v['solver']!r}"
            + (")" if v["solver"] == "lbfgs" else f", batch_size={_batch(v)})")
        ),
        notes=(f"with sample_weight {name} divides alpha by the sum of the batch's weights",),
        caveats=_uneven if loss == "squared" else _uneven_batches,
    )


TOOLS = (
    Tool(
        name="sklearn.Lasso",
        objective="1/(2n)·‖y−Xw‖² + α·‖w‖₁, intercept free",
        loss="squared",
        terms=("l1",),
        settings=(ALPHA,),
        needs=(OUTPUTS,),
        read=lambda v: Strengths(l1=2 * v["alpha"] / v["outputs"]),
        write=lambda s, v: {"alpha": s.l1 * v["outputs"] / 2},
        expression="Lasso(alpha={alpha!r})".format_map,
    ),
    Tool(
        name="sklearn.ElasticNet",
        objective="1/(2n)·‖y−Xw‖² + α·ρ·‖w‖₁ + α·(1−ρ)/2·‖w‖², intercept free",
        loss="squared",
        terms=("l1", "l2"),
        settings=(ALPHA, Parameter("l1_ratio", "share", "the share ρ of L1", default=0.5)),
        needs=(OUTPUTS,),
        read=_read_elastic_net,
        write=_write_elastic_net,
        expression="ElasticNet(alpha={alpha!r}, l1_ratio={l1_ratio!r})".format_map,
    ),
    Tool(
        name="sklearn.Ridge",
        objective="‖y−Xw‖² + α·‖w‖², a sum over rows without ½, intercept free",
        loss="squared",
        terms=("l2",),
        settings=(ALPHA,),
        needs=(ROWS, OUTPUTS),
        read=lambda v: Strengths(l2=v["alpha"] / (v["rows"] * v["outputs"])),
        write=lambda s, v: {"alpha": s.l2 * v["rows"] * v["outputs"]},
        expression="Ridge(alpha={alpha!r})".format_map,
    ),
    Tool(
        name="sklearn.MultiTaskLasso",
        objective="1/(2n)·‖Y−XWᵀ‖² + α·Σ_j‖w_j‖ over the columns of W, without √p_g, intercept free",
        loss="squared",
        terms=("group",),
        settings=(ALPHA,),
        needs=(TASKS,),
        read=lambda v: Strengths(group=v["alpha"] / _task_scale(v)),
        write=lambda s, v: {"alpha": s.group * _task_scale(v)},
        expression="MultiTaskLasso(alpha={alpha!r})".format_map,
        notes=("a group is one input's weights to all outputs: a column of a Linear layer's weight, dim=1",),
    ),
    Tool(
        name="sklearn.LogisticRegression",
        objective="C·Σ log loss + ρ·‖w‖₁ + (1−ρ)/2·‖w‖², a sum over rows; only liblinear penalises the intercept",
        loss="log",
        terms=("l1", "l2"),
        settings=(
            Parameter("C", "positive", "the inverse strength"),
            Parameter("l1_ratio", "share", "the share ρ of L1", default=0.0),
        ),
        needs=(
            ROWS,
            LOGITS,
            Parameter(
                "solver",
                ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"),
                "liblinear penalises the intercept too",
                default="lbfgs",
            ),
        ),
        read=_read_logistic,
        write=_write_logistic,
        expression=_logistic,
        notes=(TWO_LOGITS,),
        penalises_intercept=lambda v: v["solver"] == "liblinear",
    ),
    _mlp("MLPClassifier", "log", LOGITS, _one_logit),
    _mlp("MLPRegressor", "squared", OUTPUTS, lambda v: 1 / v["outputs"]),
)
