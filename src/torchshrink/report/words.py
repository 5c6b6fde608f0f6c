"""The headline of a report in plain words: what was done on what, what came of it, how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torchshrink.report.inert import name
from torchshrink.report.numbers import count, exactly, share, short, whole
from torchshrink.report.view import Part, Point, Verdict, View

_NAMED = 8  # inputs in a sentence
_APART = 0.02  # a change in the typical fold, from that of the mean losses
_PENALTIES = {"l1": "L1", "l2": "L2", "mcp": "MCP", "scad": "SCAD", "l2sp": "L2SP"}
_LOSSES = {
    "MSELoss": "mean squared error",
    "CrossEntropyLoss": "cross-entropy",
    "BCEWithLogitsLoss": "binary cross-entropy",
    "L1Loss": "mean absolute error",
    "HuberLoss": "Huber loss",
    "SmoothL1Loss": "smooth L1 loss",
}


@dataclass(frozen=True)
class Fact:
    """A question that a reader has, and the answer."""

    question: str
    answer: str
    code: bool = False


def penalty_name(part: Part) -> str:
    """What the penalty is called, for a reader."""
    known = _PENALTIES.get(part.penalty)
    return known or name(part.penalty.replace("_", " "))


def chosen(view: View) -> tuple[Part, Point]:
    """The part and the point that the model at the end was made at."""
    part = view.parts[view.best]
    refit = view.about.refit
    if refit is not None:
        at = next((point for point in part.points if point.strength == refit.strength), None)
        if at is not None:
            return part, at
    return part, part.best


def loss_name(view: View) -> str:
    """What the losses are."""
    said = str(view.parts[view.best].settings.get("loss") or "loss")
    return next((words for known, words in _LOSSES.items() if said.startswith(known + "(")), name(said))


def kicker(view: View) -> str:
    """The line above the title."""
    penalties = ", ".join(penalty_name(part) for part in view.parts)
    return f"Regularization path · {name(view.about.data) + ' · ' if view.about.data else ''}{penalties}"


def title(view: View) -> str:
    """What came of it, in one sentence."""
    verdict = view.verdict
    part, point = chosen(view)
    if verdict.helps:
        at = "" if point is part.best else "at the strength of the least loss "
        return f"Penalising helps: {at}the loss on unseen rows falls by {_size(verdict)}."
    if verdict.harms:
        return f"Penalising harms here: the loss on unseen rows rises by {_size(verdict)}."
    kept, first = point.nonzero, part.points[0].nonzero
    if not point.diverged and first and kept < 0.95 * first:
        return f"No gain on unseen rows is shown, but {share(1 - kept / first)} of the weights can go."
    return "No benefit of penalising is shown."


def summary(view: View) -> str:
    """The numbers behind the title."""
    part, point = chosen(view)
    left = f"{whole(point.nonzero)} of {_total(part, point)} weights left"
    if point is part.best:
        judged = [left, *_judged(view)]
        return f"{_at(part, point)}: {_joined([*_means(view), *judged])}"
    # The verdict and the test rows judge the choice of the least loss; of this strength the folds' mean is known.
    zero = part.points[0]
    of_its_own = f"loss on held-out rows {_loss(zero.validation_loss)} → {_loss(point.validation_loss)}"
    if zero.validation_loss > 0 and math.isfinite(point.validation_loss / zero.validation_loss):
        of_its_own += _grown(point.validation_loss / zero.validation_loss)
    least = _joined([*_means(view), *_judged(view)])
    return f"{_at(part, point)}: {of_its_own}, {left}. At the least loss, {short(part.best.strength)}: {least}"


def _means(view: View) -> list[str]:
    verdict = view.verdict
    if verdict.before is None or verdict.after is None:
        return []
    return [f"loss on unseen rows {_loss(verdict.before)} → {_loss(verdict.after)}{_change(verdict)}"]


def _judged(view: View) -> list[str]:
    verdict, over = view.verdict, "fold" if view.verdict.over == "folds" else "row"
    said = [f"better in {verdict.better} of {count(verdict.compared, f'held-out {over}')}"] if verdict.compared else []
    if verdict.compared and verdict.change == 0:
        said = [f"the same in {count(verdict.compared, f'held-out {over}')}"]
    return ["; ".join([*said, *([_tested(view)] if view.test is not None else [])])]


def _joined(clauses: Sequence[str]) -> str:
    return ", ".join(filter(None, clauses)) + "."


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
        found.append(Fact("On rows that nobody looked at?", _first_large(f"{at}{_tested(view)}; {_interval_of(view)}")))
    found += [
        Fact("What was given up?", _given_up(view, part, point)),
        Fact("What is left?", _left(view, part, point)),
        Fact("Is it an optimum?", _optimum(view)),
    ]
    found += [Fact("Besides", note) for note in map(_sentence, view.about.notes)]
    if view.about.command:
        found.append(Fact("How to make it again?", view.about.command, code=True))
    else:
        seed = part.settings.get("seed")
        again = f"the same call of ts.path with seed={seed}" if seed is not None else "the same call of ts.path"
        found.append(Fact("How to make it again?", f"By {again}; all settings are at the end of this page."))
    return found


def input_names(view: View, part: Part) -> list[str]:
    """What the kept inputs of a part's first layer are called, each another name; of a category, by its level."""
    weights, about = part.weights, view.about
    if weights is None:
        return []
    levels = Counter(about.sources)
    firsts = {column: place for place, column in reversed([*enumerate(about.sources)])}
    said = []
    for place in weights.places:
        column = about.sources[place] if place < len(about.sources) else place
        if weights.kind == "units":
            said.append(f"unit {place}")
        elif column < len(about.columns) and (about.sources or len(about.columns) == weights.total):
            level = f"={place - firsts[column]}" if levels[column] > 1 else ""
            said.append(name(about.columns[column], 40) + level)
        else:
            said.append(f"input {place}")
    seen: dict[str, int] = {}
    for at, each in enumerate(said):
        seen[each] = seen.get(each, 0) + 1
        said[at] = each if seen[each] == 1 else f"{each} ({seen[each]})"
    return said


def leaving(view: View, part: Part) -> list[tuple[str, float]]:
    """The inputs that leave, and the least strength from which on no fold uses them, the first to leave first."""
    weights = part.weights
    if weights is None or len(weights.places) < weights.total:  # of some, not every fold is known
        return []
    found, sound = [], [k for k, point in enumerate(part.points) if not point.diverged]
    for at, each in enumerate(input_names(view, part)):
        last = max((k for k in sound if weights.used[k][at]), default=-1)
        after = [k for k in sound if k > last]
        if after:
            found.append((each, part.points[after[0]].strength))
    return sorted(found, key=lambda pair: pair[1])


def point_words(part: Part, place: int, several: bool) -> str:
    """One point of a path in a sentence: what is said where the slider stands."""
    point = part.points[place]
    if point.diverged:
        return f"{_at(part, point)}: a training diverged here; this strength takes no part in the choice."
    marks = [
        words
        for words, each in (("best", part.best), ("strongest within one standard error", part.one_se))
        if each is point
    ]
    said = [
        f"{_at(part, point) if several or point.strength else 'Strength 0, no penalty'}"
        + (f" ({', '.join(marks)})" if marks else ""),
        f"loss on unseen rows {short(point.validation_loss, 4)} ± {short(point.validation_se, 2)}, "
        f"on training rows {short(point.train_loss, 4)}",
        f"{whole(point.nonzero)} of {_total(part, point)} weights",
    ]
    if part.weights is not None and part.weights.kind != "units" and part.weights.total > 1:
        said.append(f"{whole(part.weights.reading[place])} of {part.weights.total:,} inputs")
    if point.accuracy is not None:
        said.insert(2, f"accuracy {100 * point.accuracy:.1f} %")
    return f"{said[0]}: {'; '.join(said[1:])}."


def _sentence(words: str) -> str:
    return _first_large(words.rstrip(".")) + "."


def _first_large(words: str) -> str:
    return words[:1].upper() + words[1:]


def _at(part: Part, point: Point) -> str:
    return f"{penalty_name(part)} at {short(point.strength)}" if point.strength else "No penalty (strength 0)"


def _total(part: Part, point: Point) -> str:
    total = part.settings.get("penalised weights")
    return f"{total:,}" if isinstance(total, int) else whole(part.points[0].nonzero)


def _loss(value: float) -> str:
    return exactly(value, 3)


def _size(verdict: Verdict) -> str:
    change = abs(verdict.change or 0.0)
    return share(change) if verdict.relative else short(change)


def _change(verdict: Verdict) -> str:
    if verdict.change is None:
        return ""
    said = share(verdict.change, signed=True) if verdict.relative else short(verdict.change)
    means = verdict.after / verdict.before - 1 if verdict.after and verdict.before else verdict.change
    # The change is the mean of the folds' logarithms, which one large fold does not decide; that of the means may be.
    typical = " in the typical fold" if verdict.relative and abs(means - verdict.change) > _APART else ""
    return f" ({said}{typical})"


def _ends(verdict: Verdict) -> str:
    if verdict.interval is None:
        return ""
    low, high = (share(end, signed=True) if verdict.relative else short(end) for end in verdict.interval)
    return f"{low} to {high}"


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
    said = f"{_first_large(name(view.about.model, 300))}. " if view.about.model else ""
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
        said = f"{_at(part, point)}: the least loss on held-out rows {tried}."
        if not point.strength:
            said = f"{_at(part, point)}: {tried.removeprefix('of ')} none has a smaller loss on held-out rows."
        if se.nonzero < point.nonzero:
            said += (
                f" As sparse as one standard error allows is {short(se.strength)}: loss {_loss(se.validation_loss)} "
                f"instead of {_loss(point.validation_loss)}, {whole(se.nonzero)} weights instead of "
                f"{whole(point.nonzero)}."
            )
        return said
    if point is se:
        return (
            f"{_at(part, point)}: the strongest whose loss is within one standard error of the least, which is at "
            f"{short(part.best.strength)}."
        )
    return f"{_at(part, point)}."


def _how_sure(view: View) -> str:
    part, point = chosen(view)
    said = _sentence(view.verdict.words)
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
        ends = f" (change of the loss {_ends(verdict)})" if verdict.interval else ""
        said.append(f"Choosing among all {sure} {penalty_name(other)} alone{ends}")
    head = f"{penalty_name(part)} has the least loss." if part.best.strength else "Without any the loss is least."
    return f"{head} " + "; ".join(said) + ("." if said else "")


def _tested(view: View) -> str:
    test = view.test
    assert test is not None
    if test.unpenalised_loss is None or test.tuned_loss is None:
        return f"on {count(test.rows, 'row')} that nobody looked at there is nothing to compare: a training diverged"
    said = (
        f"on {count(test.rows, 'row')} that nobody looked at {_loss(test.unpenalised_loss)} → {_loss(test.tuned_loss)}"
    )
    if test.unpenalised_accuracy is not None and test.tuned_accuracy is not None:
        said += f", accuracy {100 * test.unpenalised_accuracy:.1f} → {100 * test.tuned_accuracy:.1f} %"
    return said


def _interval_of(view: View) -> str:
    assert view.test is not None
    verdict = view.test.verdict
    if verdict.interval is None:
        return name(verdict.words, 300) + "."
    sure = "better" if verdict.helps else "worse" if verdict.harms else "no difference is shown"
    return (
        f"95 % interval of the change {_ends(verdict)}: {sure}. It is over these rows, and speaks of these two models."
    )


def _given_up(view: View, part: Part, point: Point) -> str:
    zero = part.points[0]
    if not point.strength:
        return "Nothing: the model without penalty was chosen."
    if zero.diverged or point.diverged:
        return "Not known: a training diverged."
    said = (
        f"Fit to the training rows: their loss goes from {exactly(zero.train_loss)} to {exactly(point.train_loss)}"
        f"{_grown(point.train_loss / zero.train_loss) if zero.train_loss else ''}."
    )
    if point.accuracy is not None and zero.accuracy is not None:
        change = 100 * (point.accuracy - zero.accuracy)
        said += (
            f" Accuracy on held-out rows: {100 * zero.accuracy:.1f} → {100 * point.accuracy:.1f} % "
            f"({_signed(change)} points)."
        )
    gone = _inputs(view, part, point)[1]
    if gone:
        said += f" {_first_large(count(len(gone), 'input'))} that no fold uses any more: {_list(gone)}."
    return said


def _grown(ratio: float) -> str:
    if not 0 < ratio < 10:
        return ""
    return f" ({share(ratio - 1, signed=True)})"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}"


def _left(view: View, part: Part, point: Point) -> str:
    said = f"{whole(point.nonzero)} of {_total(part, point)} penalised weights in the mean over the folds"
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
            return _sentence(f"in the folds yes: {name(proof, 400)}")
        return "Not measured: refit the model, which gives its certificate."
    return _sentence(name(refit.certificate, 600)) if refit.certificate else "Not measured."


def _list(names: Sequence[str], total: int | None = None) -> str:
    """Names that `name` has been asked of, some of many; ``total``: how many there are, if not all are given."""
    total = len(names) if total is None else total
    most = _NAMED if total > _NAMED + 1 else total
    return ", ".join([*names[:most], *([f"and {total - most:,} more"] if total > most else [])])
