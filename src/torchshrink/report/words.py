"""A report's headline in plain words, what its things are called, and what is said where the slider stands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from torchshrink.report.inert import name
from torchshrink.report.numbers import count, exactly, share, short, whole
from torchshrink.report.view import Part, Point, Verdict, View

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
    left = f"{whole(point.nonzero)} of {total_of(part, point)} weights left"
    if point is part.best:
        judged = [left, *_judged(view)]
        return f"{at_strength(part, point)}: {_joined([*_means(view), *judged])}"
    # The verdict and the test rows judge the choice of the least loss; of this strength the folds' mean is known.
    zero = part.points[0]
    of_its_own = f"loss on held-out rows {in_digits(zero.validation_loss)} → {in_digits(point.validation_loss)}"
    if zero.validation_loss > 0 and math.isfinite(point.validation_loss / zero.validation_loss):
        of_its_own += grown(point.validation_loss / zero.validation_loss)
    least = _joined([*_means(view), *_judged(view)])
    return f"{at_strength(part, point)}: {of_its_own}, {left}. At the least loss, {short(part.best.strength)}: {least}"


def _means(view: View) -> list[str]:
    verdict = view.verdict
    if verdict.before is None or verdict.after is None:
        return []
    return [f"loss on unseen rows {in_digits(verdict.before)} → {in_digits(verdict.after)}{_change(verdict)}"]


def _judged(view: View) -> list[str]:
    verdict, over = view.verdict, "fold" if view.verdict.over == "folds" else "row"
    said = [f"better in {verdict.better} of {count(verdict.compared, f'held-out {over}')}"] if verdict.compared else []
    if verdict.compared and verdict.change == 0:
        said = [f"the same in {count(verdict.compared, f'held-out {over}')}"]
    return ["; ".join([*said, *([tested(view)] if view.test is not None else [])])]


def _joined(clauses: Sequence[str]) -> str:
    return ", ".join(filter(None, clauses)) + "."


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
        return f"{at_strength(part, point)}: a training diverged here; this strength takes no part in the choice."
    marks = [
        words
        for words, each in (("best", part.best), ("strongest within one standard error", part.one_se))
        if each is point
    ]
    said = [
        f"{at_strength(part, point) if several or point.strength else 'Strength 0, no penalty'}"
        + (f" ({', '.join(marks)})" if marks else ""),
        f"loss on unseen rows {short(point.validation_loss, 4)} ± {short(point.validation_se, 2)}, "
        f"on training rows {short(point.train_loss, 4)}",
        f"{whole(point.nonzero)} of {total_of(part, point)} weights",
    ]
    if part.weights is not None and part.weights.kind != "units" and part.weights.total > 1:
        said.append(f"{whole(part.weights.reading[place])} of {part.weights.total:,} inputs")
    if point.accuracy is not None:
        said.insert(2, f"accuracy {100 * point.accuracy:.1f} %")
    return f"{said[0]}: {'; '.join(said[1:])}."


def sentence(words: str) -> str:
    """With a large letter first and a full stop."""
    return first_large(words.rstrip(".")) + "."


def first_large(words: str) -> str:
    """With a large letter first."""
    return words[:1].upper() + words[1:]


def at_strength(part: Part, point: Point) -> str:
    """A point by its penalty and strength."""
    return f"{penalty_name(part)} at {short(point.strength)}" if point.strength else "No penalty (strength 0)"


def total_of(part: Part, point: Point) -> str:
    """How many weights are penalised."""
    total = part.settings.get("penalised weights")
    return f"{total:,}" if isinstance(total, int) else whole(part.points[0].nonzero)


def in_digits(value: float) -> str:
    """A loss, for a reader."""
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


def ends(verdict: Verdict) -> str:
    """The ends of a verdict's interval; "" without one."""
    if verdict.interval is None:
        return ""
    low, high = (share(end, signed=True) if verdict.relative else short(end) for end in verdict.interval)
    return f"{low} to {high}"


def tested(view: View) -> str:
    """What the rows say that nobody looked at; there are some."""
    test = view.test
    assert test is not None
    if test.unpenalised_loss is None or test.tuned_loss is None:
        return f"on {count(test.rows, 'row')} that nobody looked at there is nothing to compare: a training diverged"
    losses = f"{in_digits(test.unpenalised_loss)} → {in_digits(test.tuned_loss)}"
    said = f"on {count(test.rows, 'row')} that nobody looked at {losses}"
    if test.unpenalised_accuracy is not None and test.tuned_accuracy is not None:
        said += f", accuracy {100 * test.unpenalised_accuracy:.1f} → {100 * test.tuned_accuracy:.1f} %"
    return said


def grown(ratio: float) -> str:
    """How much more or less it is, where that says something."""
    if not 0 < ratio < 10:
        return ""
    return f" ({share(ratio - 1, signed=True)})"
