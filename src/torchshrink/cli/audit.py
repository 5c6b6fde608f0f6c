"""``torchshrink audit``: what would be penalised, and what not and why, before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchshrink.cli import console, option_checks, options
from torchshrink.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from torchshrink.data import Dataset
    from torchshrink.regularizer import Regularizer


def audit(
    data: options.OptionalData = None,
    target: options.Target = None,
    penalty: options.Penalty = None,
    strength: options.Strength = None,
    model: options.Model = "mlp",
    hidden: options.Hidden = None,
    json: options.Json = False,
    task: options.Task = "auto",
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    thousands: options.Thousands = None,
    na: options.Na = None,
    drop: options.Drop = None,
    radius: options.Radius = None,
    keep: options.Keep = None,
    low: options.Low = None,
    high: options.High = None,
    pattern: options.Pattern = None,
    rules: options.Rules = None,
    l1_ratio: options.L1Ratio = None,
    dim: options.Dim = None,
    groups: options.Groups = None,
    gamma: options.Gamma = None,
    epsilon: options.Epsilon = None,
    on: options.On = None,
    method: options.Method = "auto",
    seed: options.Seed = 0,
    debug: options.Debug = False,
) -> None:
    """Print which parameters a penalty or a rules file acts on, and which are exempt and why. Nothing is trained."""
    option_checks.one_of("--task", task, options.TASKS)
    option_checks.one_of("--method", method, options.METHODS)
    option_checks.seed_of("--seed", seed)
    if data is None and ":" not in model:
        raise InputError(f"no DATA given, and --model {model} needs its columns; give DATA, or --model module:function")

    from torchshrink.cli import from_options
    from torchshrink.cli.penalty_names import Shape
    from torchshrink.regularizer import Regularizer

    shape = Shape(
        l1_ratio, dim, gamma, epsilon, radius, option_checks.keep_of("--keep", keep), low, high, pattern, groups
    )
    penalising = from_options.penalising(penalty, strength, shape, rules=rules, on=on)
    text = from_options.format_of(sep, decimal, thousands, na=na, drop=drop)
    if data is None and text.given():
        raise InputError(f"--{next(iter(text.given()))} without DATA: there is nothing to read; leave it out")
    dataset = None if data is None else from_options.load_data(data, target=target, task=task, format=text)
    if groups is not None:
        known = {"model": model} if dataset is None else from_options.model_settings(dataset, model, hidden)
        penalising = penalising.by_feature(dataset, known)
    built = _model(dataset, model=model, hidden=hidden, seed=seed)
    regularizer = Regularizer(built, penalising.rules_or_zero, on=penalising.on)
    if method != "loss":
        # Which optimizer does not matter for how the terms act; this one has a step size for every method.
        sgd = from_options.OptimizerSettings("sgd", lr=1.0, momentum=0.0)
        regularizer.attach(sgd(built.parameters()), method=method)  # type: ignore[arg-type]
    if dataset is not None:
        from_options.say_guesses(dataset)
    kinds = "" if dataset is None else dataset.kinds
    if json:
        about = {"penalising": penalising.settings | {"method": method}} | ({"columns": kinds} if kinds else {})
        console.emit_json(table(regularizer, method) | about)
    else:
        summary, width = regularizer.summary(), console.columns()
        console.emit(summary if width is None else summary.fitted(width))
        if kinds:
            console.emit_pairs([("columns", kinds)])


def _model(dataset: Dataset | None, *, model: str, hidden: str | None, seed: int) -> nn.Module:
    from torchshrink.cli import from_options
    from torchshrink.models import TargetScale, model_settings
    from torchshrink.training import check_fit, default_loss

    if dataset is None:
        if hidden is not None:
            raise InputError(f"--hidden {hidden} with --model {model}: only the mlp has hidden widths; leave one out")
        return from_options.build_seeded(model_settings(model, inputs=[], outputs=0), seed)
    built = from_options.build_seeded(from_options.model_settings(dataset, model, hidden), seed)
    X, y = from_options.rows_for(built, dataset, TargetScale())
    check_fit(built, X, y, loss=default_loss(y))  # also shapes what torch builds lazily
    return built


def table(regularizer: Regularizer, method: str) -> dict[str, Any]:
    """The summary as JSON: every parameter of the model, penalised or exempt with the reason."""
    counts = {each.name: each for each in regularizer.sparsity().by_parameter}
    parameters = []
    for choice in regularizer.choices:
        count = counts.get(choice.name)
        parameters.append(
            {
                "name": choice.name,
                "aliases": list(choice.aliases),
                "shape": list(choice.parameter.shape),
                "rule": choice.rule or None,
                "penalty": None if choice.penalty is None else str(choice.penalty),
                "method": None if choice.penalty is None else regularizer.methods.get(choice.name, method),
                "reason": choice.reason or None,
                "groups": count and count.groups,
                "zeros": count and count.zeros,
            }
        )
    return {"parameters": parameters, "sparsity": regularizer.sparsity().to_dict()}
