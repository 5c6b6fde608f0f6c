"""What a reader asks of a path, and the answers in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torchshrink.report.inert import name
from torchshrink.report.numbers import count, exactly, short, whole
from torchshrink.report.view import Part, Point, View
from torchshrink.report.words import (
    at_strength,
    chosen,
    ends,
    first_large,
    grown,
    in_digits,
    input_names,
    loss_name,
    penalty_name,
    sentence,
    tested,
    total_of,
)

_NAMED = 8  # inputs in a sentence


@dataclass(frozen=True)
class Fact:
    """A question that a reader has, and the answer."""

    question: str
    answer: str
    code: bool = False


def facts(view: View) -> list[Fact]:
    """Questions and answers, in the order in which a reader has them."""
    part, point = chosen(view)
    found = [
        Fact("On what data?", _data(view)),
        Fact("Which model?", _model(view)),
        Fact("Which strength?", _strength(view, part, point)),
        Fact("How much better, and how sure?", _how_sure(view)),
    ]
    if len(view.parts) > 1:
        found.append(Fact("Which penalty?", _which(view, part)))
    if view.test is not None:
        at = "" if point is part.best else f"at the least loss, {short(part.best.strength)}, "
        found.append(Fact("On rows that nobody looked at?", first_large(f"{at}{tested(view)}; {_interval_of(view)}")))
    found += [
        Fact("What was given up?", _given_up(view, part, point)),
        Fact("What is left?", _left(view, part, point)),
        Fact("Is it an optimum?", _optimum(view)),
    ]
    found += [Fact("Besides", note) for note in map(sentence, view.about.notes)]
    if view.about.command:
        found.append(Fact("How to make it again?", view.about.command, code=True))
    else:
        seed = part.settings.get("seed")
        again = f"the same call of ts.path with seed={seed}" if seed is not None else "the same call of ts.path"
        found.append(Fact("How to make it again?", f"By {again}; all settings are at the end of this page."))
    return found


def _data(view: View) -> str:
    about, settings = view.about, view.parts[view.best].settings
    rows = about.rows or settings.get("rows")
    said = [name(about.data)] if about.data else []
    said += [count(rows, "row")] if isinstance(rows, int) else []
    tuned = settings.get("rows")
    if isinstance(rows, int) and isinstance(tuned, int) and tuned < rows:
        said[-1] += f" ({tuned:,} to tune on, {rows - tuned:,} set aside for the end)"
    if about.columns:
        said.append(
            f"{count(len(about.columns), 'column')} "
            f"({_list([name(each, 40) for each in about.columns[: _NAMED + 1]], len(about.columns))})"
        )
    elif (weights := view.parts[view.best].weights) is not None:
        row = weights.row
        said.append(f"each {' × '.join(map(str, row))} numbers" if row else "one number each")
    found = ", ".join(said)
    if about.target:
        classes = (
            f", one of {len(about.classes)} classes "
            f"({_list([name(each, 40) for each in about.classes[: _NAMED + 1]], len(about.classes))})"
            if about.classes
            else ", a number"
        )
        found += f". Predicted is {name(about.target)}{classes}"
    return f"{found}." if found else "The path was made from arrays, and their name is not kept."


def _model(view: View) -> str:
    part = view.parts[view.best]
    how = part.settings.get("optimizer")
    trained = part.settings.get("epochs")
    said = f"{first_large(name(view.about.model, 300))}. " if view.about.model else ""
    if isinstance(trained, int) and trained:
        said += f"Trained for {count(trained, 'epoch')} with {name(how, 200)}; "
    else:
        said += "Each optimum was computed, nothing was trained; "
    return said + f"the loss is the {loss_name(view)}."


def _strength(view: View, part: Part, point: Point) -> str:
    said, refit = _which_strength(view, part, point), view.about.refit
    if refit is not None and refit.relaxed:
        said += (
            " The final model was then trained on without the penalty, its zeros held; of that one no loss on held-out "
            "rows is known."
        )
    return said


def _which_strength(view: View, part: Part, point: Point) -> str:
    above = len(part.points) - 1
    tried = f"of {above} strengths above 0" if len(view.parts) == 1 else f"of {above} above 0, and of all penalties"
    se = part.one_se
    if point is part.best:
        said = f"{at_strength(part, point)}: the least loss on held-out rows {tried}."
        if not point.strength:
            said = f"{at_strength(part, point)}: {tried} none has a smaller loss on held-out rows."
        if se.nonzero < point.nonzero:
            said += (
                f" As sparse as one standard error allows is {short(se.strength)}: loss "
                f"{in_digits(se.validation_loss)} instead of {in_digits(point.validation_loss)}, {whole(se.nonzero)} "
                f"weights instead of {whole(point.nonzero)}."
            )
        return said
    if point is se:
        return (
            f"{at_strength(part, point)}: the strongest whose loss is within one standard error of the least, which is "
            f"at {short(part.best.strength)}."
        )
    return f"{at_strength(part, point)}."


def _how_sure(view: View) -> str:
    part, point = chosen(view)
    said = sentence(view.verdict.words)
    if point is not part.best:
        said += f" That is of choosing the strength of the least loss, as {short(part.best.strength)} is on all folds."
    return said


def _which(view: View, part: Part) -> str:
    said = []
    for other in (each for each in view.parts if each is not part):
        verdict = view.against.get(other.penalty)
        if verdict is None:
            continue
        sure = (
            "is better than"
            if verdict.helps
            else "is worse than"
            if verdict.harms
            else "is not shown to be better than"
        )
        change = f" (change of the loss {ends(verdict)})" if verdict.interval else ""
        said.append(f"Choosing among all {sure} {penalty_name(other)} alone{change}")
    head = f"{penalty_name(part)} has the least loss." if part.best.strength else "Without any the loss is least."
    return f"{head} " + "; ".join(said) + ("." if said else "")


def _interval_of(view: View) -> str:
    assert view.test is not None
    verdict = view.test.verdict
    if verdict.interval is None:
        return name(verdict.words, 300) + "."
    sure = "better" if verdict.helps else "worse" if verdict.harms else "no difference is shown"
    return (
        f"95 % interval of the change {ends(verdict)}: {sure}. It is over these rows, and speaks of these two models."
    )


def _given_up(view: View, part: Part, point: Point) -> str:
    zero = part.points[0]
    if not point.strength:
        return "Nothing: the model without penalty was chosen."
    if zero.diverged or point.diverged:
        return "Not known: a training diverged."
    said = (
        f"Fit to the training rows: their loss goes from {exactly(zero.train_loss)} to {exactly(point.train_loss)}"
        f"{grown(point.train_loss / zero.train_loss) if zero.train_loss else ''}."
    )
    if point.accuracy is not None and zero.accuracy is not None:
        change = 100 * (point.accuracy - zero.accuracy)
        said += (
            f" Accuracy on held-out rows: {100 * zero.accuracy:.1f} → {100 * point.accuracy:.1f} % "
            f"({_signed(change)} points)."
        )
    gone = _inputs(view, part, point)[1]
    if gone:
        said += f" {first_large(count(len(gone), 'input'))} that no fold uses any more: {_list(gone)}."
    return said


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}"


def _left(view: View, part: Part, point: Point) -> str:
    said = f"{whole(point.nonzero)} of {total_of(part, point)} penalised weights in the mean over the folds"
    refit = view.about.refit
    if refit is not None and refit.total:
        said += f"; in the final model {refit.total - refit.zeros:,} of {refit.total:,}"
    said += "."
    if part.sizes is not None:
        place = list(part.points).index(point)
        whole_model = part.settings.get("parameters")
        if math.isfinite(part.sizes[place]):
            of = f" of {whole_model:,}" if isinstance(whole_model, int) else ""
            said += f" Shrunk, a model has {whole(part.sizes[place])}{of} parameters."
    kept, gone = _inputs(view, part, point)
    if kept and gone:
        said += f" Inputs that some fold still uses, {len(kept)} of {len(kept) + len(gone)}: {_list(kept)}."
    elif kept and len(kept) > 1:
        said += f" All {len(kept):,} inputs are still used."
    return said


def _inputs(view: View, part: Part, point: Point) -> tuple[list[str], list[str]]:
    """The names of the inputs that some fold uses, the largest first, and of those that none does."""
    weights = part.weights
    if weights is None or weights.kind == "units" or len(weights.places) < weights.total:
        return [], []
    place = list(part.points).index(point)
    names = input_names(view, part)
    size = [abs(each) for each in weights.inputs[place]]
    kept = sorted((at for at, used in enumerate(weights.used[place]) if used), key=lambda at: -size[at])
    gone = [each for each, used in zip(names, weights.used[place], strict=True) if not used]
    return [names[at] for at in kept], gone


def _optimum(view: View) -> str:
    refit, proof = view.about.refit, view.parts[view.best].settings.get("proof")
    if refit is None:
        if proof:
            return sentence(f"in the folds yes: {name(proof, 400)}")
        return "Not measured: refit the model, which gives its certificate."
    return sentence(name(refit.certificate, 600)) if refit.certificate else "Not measured."


def _list(names: Sequence[str], total: int | None = None) -> str:
    """Names that `name` has been asked of, some of many; ``total``: how many there are, if not all are given."""
    total = len(names) if total is None else total
    most = _NAMED if total > _NAMED + 1 else total
    return ", ".join([*names[:most], *([f"and {total - most:,} more"] if total > most else [])])
