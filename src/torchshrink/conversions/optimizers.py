"""Tools that leave the loss to the user: torchshrink itself, Keras, and optimizers with a weight decay."""

from __future__ import annotations

from torchshrink.conversions.base import OUTPUTS, SOME_ROWS, Loss, Parameter, Strengths, Tool, Values, known
from torchshrink.errors import NoEquivalentError

L1 = Parameter("l1", "strength", "the strength of Σ|w|", default=0.0)
L2 = Parameter("l2", "strength", "the strength of Σw²", default=0.0)
GROUP = Parameter("group", "strength", "the strength of Σ√p_g·‖w_g‖, a group for each input (dim=1)", default=0.0)
LOSS = Parameter(
    "loss",
    ("mean", "half_mse", "mse_sum", "log_loss_sum"),
    "the loss that the penalty is added to: a mean over rows (nn.MSELoss, nn.CrossEntropyLoss), ½·nn.MSELoss, or a sum",
    default="mean",
)
BROUGHT = (LOSS, SOME_ROWS, OUTPUTS)


def scale(v: Values) -> float:
    """How many times the mean loss the loss is; strengths next to it are as many times as large."""
    if v["loss"] in ("mse_sum", "log_loss_sum"):
        rows = float(known(v, "rows", f"with loss={v['loss']} the losses of so many rows are added, not averaged"))
        return rows * v["outputs"] if v["loss"] == "mse_sum" else rows
    return 0.5 if v["loss"] == "half_mse" else 1.0


def loss_of(tool: Tool, v: Values) -> Loss:
    """The loss of a tool in a conversion: its own, or what the user's choice of it implies."""
    implied: dict[str, Loss] = {"half_mse": "squared", "mse_sum": "squared", "log_loss_sum": "log"}
    return implied.get(v.get("loss", "mean"), tool.loss)


def _yours(values: Values) -> bool | None:
    return None


# --- torchshrink and Keras: strengths next to the loss ---


def _read(v: Values) -> Strengths:
    """The strengths per mean loss; a term that the tool does not have is 0."""
    return Strengths(*(v.get(name, 0.0) / scale(v) for name in ("l1", "l2", "group")))


def _write_torchshrink(s: Strengths, v: Values) -> dict[str, float]:
    if s.group and s.l2:
        raise NoEquivalentError(
            "group and l2 together: no penalty here has both; bind ts.GroupLasso and ts.L2 in a Regularizer each"
        )
    settings = {"l1": s.l1 * scale(v), "l2": s.l2 * scale(v)}
    return settings | ({"group": s.group * scale(v)} if s.group else {})


def _penalty(v: Values) -> str:
    if v.get("group", 0.0) and v["l1"]:
        return f"ts.SparseGroupLasso(l1={v['l1']!r}, group={v['group']!r}, dim=1)"
    if v.get("group", 0.0):
        return f"ts.GroupLasso({v['group']!r}, dim=1)"
    if v["l1"] and v["l2"]:
        return f"ts.ElasticNet(l1={v['l1']!r}, l2={v['l2']!r})"
    return f"ts.L1({v['l1']!r})" if v["l1"] else f"ts.L2({v['l2']!r})"


def _keras(name: str, *strengths: Parameter) -> Tool:
    names = tuple(parameter.name for parameter in strengths)
    return Tool(
        name=f"keras.{name}",
        objective="loss + " + " + ".join({"l1": "l1·Σ|w|", "l2": "l2·Σw²"}[n] for n in names),
        loss="any",
        terms=names,
        settings=strengths,
        needs=BROUGHT,
        read=_read,
        write=lambda s, v: {n: getattr(s, n) * scale(v) for n in names},
        expression=(f"keras.regularizers.{name}(" + ", ".join(f"{n}={{{n}!r}}" for n in names) + ")").format_map,
        notes=(
            "Keras penalises what has the regularizer: give it as kernel_regularizer to leave biases free",
            "as activity_regularizer it is ts.Activations: of the same strength in Keras 2; in Keras 3, which sums over"
            " the batch, times the batch size",
        ),
        penalises_intercept=_yours,
    )


# --- optimizers: a multiple of w in the gradient, or past it ---

DECAY = Parameter("weight_decay", "strength", "the multiple of w that is added to the gradient")
DECOUPLED = Parameter(
    "decoupled_weight_decay", (False, True), "whether the decay passes by the gradient, as AdamW's", default=False
)
ADAMW_REASON = (
    "its decay w ← (1−lr·λ)·w passes by the adaptive step, so that no penalty on the mean loss has its solution: in "
    "full batch it ends at min L subject to ‖w‖∞ ≤ 1/λ (arXiv 2404.04454), at no ridge; "
    "use torch.Adam's coupled weight_decay, or attach ts.L2 to this optimizer and set weight_decay=0"
)


def _refuse_decoupled(v: Values) -> None:
    if v.get("decoupled_weight_decay", False):
        raise NoEquivalentError(f"decoupled_weight_decay=True has no equivalent strength: {ADAMW_REASON}")


def _read_decay(v: Values) -> Strengths:
    _refuse_decoupled(v)
    return Strengths(l2=v["weight_decay"] / (2 * scale(v)))


def _write_decay(s: Strengths, v: Values) -> dict[str, float]:
    _refuse_decoupled(v)
    return {"weight_decay": 2 * s.l2 * scale(v)}


def _optimizer(name: str) -> Tool:
    return Tool(
        name=f"torch.{name}",
        objective="loss + weight_decay/2·Σw², through the gradient: g ← g + weight_decay·w",
        loss="any",
        terms=("l2",),
        settings=(DECAY,),
        needs=(*BROUGHT, *((DECOUPLED,) if name in ("Adam", "NAdam", "RAdam") else ())),
        read=_read_decay,
        write=_write_decay,
        expression=f"torch.optim.{name}(params, weight_decay={{weight_decay!r}})".format_map,
        notes=(
            "weight_decay acts on every parameter of its group: "
            "put biases and normalisation weights in a group of their own with weight_decay=0",
        ),
        penalises_intercept=_yours,
    )


def _momentum_share(v: Values) -> float:
    """What momentum leaves of a decoupled decay: the step is lr·g·(1−τ)/(1−β), the decay still lr·wd·w."""
    return float((1 - v["momentum"]) / (1 - v["dampening"])) if v["momentum"] else 1.0


TOOLS = (
    Tool(
        name="torchshrink",
        objective="mean loss + l1·Σ|w| + l2·Σw² + group·Σ√p_g·‖w_g‖",
        loss="any",
        terms=("l1", "l2", "group"),
        settings=(L1, L2, GROUP),
        needs=BROUGHT,
        read=_read,
        write=_write_torchshrink,
        expression=_penalty,
        notes=("torchshrink penalises the weights and leaves biases free, unless on=ts.ALL",),
        penalises_intercept=_yours,
    ),
    _keras("L1", L1),
    _keras("L2", L2),
    _keras("L1L2", L1, L2),
    *map(_optimizer, ("SGD", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")),
    Tool(
        name="timm.SGDW",
        objective="loss + weight_decay·(1−β)/(2(1−τ))·Σw²: decoupled, so that momentum β weakens the decay",
        loss="any",
        terms=("l2",),
        settings=(Parameter("weight_decay", "strength", "λ of w ← (1−lr·λ)·w"),),
        needs=(
            *BROUGHT,
            Parameter("momentum", "below one", "β: it multiplies the gradient by 1/(1−β), the decay not", default=0.0),
            Parameter("dampening", "below one", "τ: with momentum it multiplies the gradient by 1−τ", default=0.0),
        ),
        read=lambda v: Strengths(l2=v["weight_decay"] * _momentum_share(v) / (2 * scale(v))),
        write=lambda s, v: {"weight_decay": 2 * s.l2 * scale(v) / _momentum_share(v)},
        expression=(
            "timm.optim.SGDW(params, momentum={momentum!r}, dampening={dampening!r}, weight_decay={weight_decay!r})"
        ).format_map,
        notes=(
            "SGDW decays every parameter of its group: "
            "put biases and normalisation weights in a group of their own with weight_decay=0",
        ),
        penalises_intercept=_yours,
    ),
)

REFUSED = {
    "torch.AdamW": ADAMW_REASON,
    "keras.AdamW": ADAMW_REASON,
    "torch.Muon": (
        "its decay passes by an orthogonalised step, so that it bounds the weights and penalises nothing: it ends near "
        "min L subject to ‖W‖₂ ≤ r/λ (arXiv 2506.15054), r the factor by which it adjusts lr to the shape; "
        "use an optimizer with coupled decay, or attach ts.L2 with method='loss' and set weight_decay=0"
    ),
    "torch.Adafactor": (
        "its decay passes by a step that is adaptive and scaled by the weights' own size, so that no penalty on the "
        "mean loss has its solution; use torch.Adam's coupled weight_decay"
    ),
    "torch.ASGD": (
        "it decays the weights twice, by weight_decay and by its own lambd (1e-4 by default): "
        "set lambd=0 and use the weight_decay of torch.SGD"
    ),
    "torch.LBFGS": "it has no weight decay: add reg.value() to the loss in its closure",
    "torch.SparseAdam": "it has no weight decay: add reg.value() to the loss",
    "torch.Rprop": "it has no weight decay: add reg.value() to the loss",
}
