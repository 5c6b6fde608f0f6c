"""The pictures of single trainings: fold by fold, and epoch by epoch."""

from __future__ import annotations

from typing import Any

from torchshrink.report.axes import Spec, free_axis, loss_domain
from torchshrink.report.figure import Figure, Table, at_slider, rounded, spec_of, start_of
from torchshrink.report.numbers import exactly, short
from torchshrink.report.view import View
from torchshrink.report.words import penalty_name


def fold_figure(view: View) -> Figure | None:
    """Each fold's validation loss without penalty and at the slider's strength, joined by a line."""
    values: list[Spec] = []
    for n, part in enumerate(view.parts):
        if len(part.folds) != len(part.points) or not part.folds:
            return None
        for f, before in enumerate(part.folds[0]):
            after = [rounded(point[f].validation_loss) for point in part.folds]
            values.append(
                {
                    "part": n,
                    "fold": f + 1,
                    "before": rounded(before.validation_loss),
                    "after": after,
                    "k": list(range(len(after))),
                }
            )
    if len(view.parts[0].folds[0]) < 2:
        return None
    flat = {"flatten": ["k", "after"]}
    data, keep = {"values": values}, [flat, at_slider(" && datum.before != null && datum.after != null")]
    both = [
        *keep,
        {"calculate": "datum.after < datum.before", "as": "better"},
        {"fold": ["before", "after"], "as": ["when", "loss"]},
        {"calculate": "datum.when == 'before' ? 'no penalty' : 'at the slider'", "as": "side"},
    ]
    befores = [row["before"] for row in values if row["before"] is not None]
    # What the strongest strengths do to a fold may leave the picture: it must not flatten the lines of all others.
    most = max([loss_domain(view.parts)[0][1], *befores])
    afters = [each for row in values for each in row["after"] if each is not None and each <= most]
    losses = [*befores, *afters]
    x = {
        "field": "side",
        "type": "nominal",
        "sort": None,
        "title": None,
        "scale": {"paddingOuter": 0.25},
        "axis": {"labelAngle": 0, "domain": False, "ticks": False, "labelPadding": 8},
    }
    y = free_axis("loss", losses)
    tint = {"condition": {"test": "datum.better", "value": "var(--c0)"}, "value": "var(--c1)"}
    dash = {"condition": {"test": "datum.better", "value": [1, 0]}, "value": [4, 3]}
    layers = [
        {
            "data": data,
            "transform": both,
            "mark": {"type": "line", "strokeWidth": 1.75, "opacity": 0.85, "clip": True},
            "encoding": {"x": x, "y": y, "detail": {"field": "fold"}, "color": tint, "strokeDash": dash},
        },
        {
            "data": data,
            "transform": both,
            "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1, "clip": True},
            "encoding": {
                "x": x,
                "y": y,
                "color": tint,
                "tooltip": [{"field": "fold"}, {"field": "loss", "format": ".4~g"}],
            },
        },
    ]
    part, (_, at) = view.parts[view.best], start_of(view)
    pairs = [(a.validation_loss, b.validation_loss) for a, b in zip(part.folds[0], part.folds[at], strict=True)]
    better = sum(after < before for before, after in pairs)
    rows = [
        [f"{f + 1}", exactly(before), exactly(after), exactly(after - before)]
        for f, (before, after) in enumerate(pairs)
    ]
    return Figure(
        "fig-folds",
        "Fold by fold",
        "The same held-out rows without penalty and with it: a line for each fold of the first repeat.",
        f"Held-out loss of each fold without penalty and at {short(part.points[at].strength)}: lower in "
        f"{better} of {len(pairs)} folds.",
        spec_of(layers, height=250, start=start_of(view)),
        [("line:var(--c0)", "lower with the penalty"), ("dash:var(--c1)", "not lower")],
        Table(
            f"Held-out loss of each fold, {penalty_name(part)} at {short(part.points[at].strength)}",
            ["fold", "no penalty", "with it", "difference"],
            rows,
        ),
    )


def curve_figure(view: View) -> Figure | None:
    """Training loss by epoch, without penalty and at the slider's strength."""
    values: list[Spec] = []
    for n, part in enumerate(view.parts):
        weights = part.weights
        if weights is None or len(weights.epochs) < 2:
            continue
        for k, curve in enumerate(weights.curves):
            values.append({"part": n, "k": k, "epoch": list(weights.epochs), "loss": [rounded(each) for each in curve]})
    if not values:
        return None
    every = [each for row in values for each in row["loss"] if each is not None]
    x = {
        "field": "epoch",
        "type": "quantitative",
        "title": "epoch",
        "scale": {"nice": False, "zero": False},
        "axis": {"grid": False, "tickMinStep": 1},
    }
    y = free_axis("loss", every)
    flat = {"flatten": ["epoch", "loss"]}

    def line(keep: Spec, **mark: Any) -> Spec:
        valid = {"filter": "isValid(datum.loss)"}
        return {
            "data": {"values": values},
            "transform": [keep, flat, valid],
            "mark": {"type": "line", **mark},
            "encoding": {"x": x, "y": y},
        }

    layers = [
        line(
            {"filter": "datum.part == part && datum.k == 0"}, color="var(--ink-2)", strokeDash=[5, 4], strokeWidth=1.5
        ),
        line(at_slider(), color="var(--c1)", strokeWidth=2.25),
    ]
    part, (_, at) = view.parts[view.best], start_of(view)
    weights = part.weights
    assert weights is not None
    few = [
        at
        for at in range(len(weights.epochs))
        if at % max(1, len(weights.epochs) // 10) == 0 or at == len(weights.epochs) - 1
    ]
    rows = [[f"{weights.epochs[e]}", exactly(weights.curves[0][e]), exactly(weights.curves[at][e])] for e in few]
    return Figure(
        "fig-curves",
        "Learning curves",
        "Training loss, without the penalty, as seen while training; the folds' mean. A line that still "
        "falls at its end "
        "would gain from more epochs.",
        f"Training loss by epoch: from {short(weights.curves[at][0])} to {short(weights.curves[at][-1])} "
        "at the strength chosen, "
        f"from {short(weights.curves[0][0])} to {short(weights.curves[0][-1])} without penalty.",
        spec_of(layers, height=220, start=start_of(view)),
        [("line:var(--c1)", "at the slider"), ("dash:var(--ink-2)", "no penalty")],
        Table("Training loss by epoch", ["epoch", "no penalty", "at the strength chosen"], rows),
    )
