"""How far weights are from stationarity of F = mean loss + penalty, and where it is worst.

The distance of 0 to the subdifferential ∂F(w) is measured coordinate by coordinate, or group by group. It is zero
exactly at a stationary point, whatever optimizer led there. It proves (near-)stationarity, not that the point is a
minimum: for a convex model that is the same, and a duality gap then bounds F itself; for a deep network it is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchshrink.distributed import whole
from torchshrink.penalties import Penalty
from torchshrink.support.tables import html_of_pairs
from torchshrink.support.text import shortened

TOLERANCE = 1e-4


@dataclass(frozen=True)
class ParameterDistance:
    """One parameter's share of a `Certificate`.

    Attributes:
        name: the parameter's qualified name.
        distance: the Euclidean norm of the distances of its coordinates or groups.
        residual: the norm of its prox-gradient residual; at most ``distance`` where the penalty is convex.
        strength: the strength in force, scale included; 0 for a parameter without penalty.
        pull: what ``relative`` is measured in: the penalty's largest pull on one coordinate or group, λ for `L1`, and
            2λ·max|w| for `L2`.
        largest: the largest of the distances.
        relative: that one divided by ``pull``.
        index: where it is: a coordinate's or a group's index.
        place: the same as it is written in Python, such as ``weight[3, :]`` for a row.
    """

    name: str
    distance: float
    residual: float
    strength: float
    pull: float
    largest: float
    relative: float
    index: tuple[int, ...]
    place: str

    def __repr__(self) -> str:
        return f"<ParameterDistance: {self.distance:.3g}, relative {self.relative:.3g} at {shortened(self.place, 80)}>"


@dataclass(frozen=True)
class Certificate:
    """How far weights are from stationarity of F = mean loss + penalty.

    Attributes:
        distance: dist(0, ∂F(w)), Euclidean, over all trainable parameters, in units of loss per weight.
        relative: the largest distance of a single coordinate or group, in units of the pull of its penalty: with
            `L1`, 1e-4 says that each weight that is not zero is where some strength within 0.01 % of λ holds it. Free
            of the scales of loss and weights, and of the model's size. Parameters that nothing pulls are measured in
            the largest pull on the others; where nothing is pulled at all it is the largest distance itself.
        objective: F(w) = loss + penalty.
        loss: the mean loss.
        penalty: the sum of all terms.
        worst: the parameter where ``relative`` is attained.
        parameters: every trainable parameter's share.
        residual: ‖G‖ with G = (w − prox(w − s·∇L))/s for each parameter, s = ‖w‖/max(‖∇L‖, ‖pull‖). For convex
            penalties it is at most ``distance``. It is continuous where the distance jumps: weights that a step would
            set to zero count with their size, not with the whole strength.
        imbalance: the largest difference, over the hidden ReLU units, between what the penalty spends on a unit's
            incoming and on its outgoing weights, relative to the sum of both. 0 at every stationary point; None where
            the model has no such unit. See `torchshrink.regularizer.balance`.
        gap: the duality gap, where the model is convex: F(w) is at most this far above its minimum. Else None.
        standard_error: how much other rows of the same kind would change the gradient of the mean loss: its standard
            error over the rows, Euclidean, over the weights that are not zero. A ``residual`` below it is one that the
            data cannot tell from 0. None where it is not known, or not needed, as the weights are stationary.
        notes: what is known to keep this training from a stationary point of F; empty if nothing is.
    """

    distance: float
    relative: float
    objective: float
    loss: float
    penalty: float
    worst: ParameterDistance
    parameters: tuple[ParameterDistance, ...]
    residual: float
    imbalance: float | None = None
    gap: float | None = None
    standard_error: float | None = None
    notes: tuple[str, ...] = ()

    def ok(self, tol: float = TOLERANCE) -> bool:
        """Whether the relative distance is at most ``tol``. False where anything is not a finite number."""
        return math.isfinite(self.objective) and self.relative <= tol

    @property
    def proves(self) -> str:
        """What follows from these numbers, and what does not, in one line."""
        if self.penalty == math.inf and math.isfinite(self.loss):
            return (
                f"nothing: {self.worst.place} lies outside of its constraint, into which the next step of an attached "
                "optimizer projects, and polish"
            )
        if not math.isfinite(self.objective) or not math.isfinite(self.relative):
            return "nothing: not every number is finite"
        if self.gap is not None:
            return f"a convex problem: F is at most {self.gap:.2g} above its minimum"
        if self.ok():
            return f"stationary to {self._off(2)}; not that it is a minimum"
        return f"not stationary: off by {self._off(2)} at {self.worst.place}"

    def in_words(self) -> str:
        """Where the weights are, for somebody who wants to know whether there is anything to do; the notes come last.

        ``proves`` is what follows from the numbers mathematically. This says what they mean: an optimum, a stationary
        point, or a training that ended before. The latter is no fault: a network is judged by its loss on unseen rows,
        and what a path validates are trainings of the same length.

        >>> from torchshrink.regularizer.certificate import measure
        >>> found = measure([("w", torch.ones(2), None)], [torch.tensor([0.03, 0.04])], loss=1.0)
        >>> print(found.in_words())
        not at a stationary point: loss + penalty has a slope of 0.05, so small steps lower it; polish goes on to one
        """
        known = self.penalty < math.inf and math.isfinite(self.objective) and math.isfinite(self.relative)
        return "; ".join([self._end() if known else f"proves {self.proves}", *self.notes])

    def _end(self) -> str:
        if self.gap is not None:
            least = f"loss + penalty is at most {self.gap:.2g} above its minimum (duality gap)"
            if self.ok() or self.gap <= TOLERANCE * abs(self.objective):
                return f"the optimum, proved: {least}"
            share = f", {_percent(self.gap / self.objective)} of what it is" if self.gap < self.objective else ""
            return f"{least}{share}; {self._before_the_end('it')}"
        if self.ok():
            where = " that keeps to the constraint" if self._constrained else ""
            return (
                f"a stationary point, to {self._off(2)}: no small step{where} lowers loss + penalty; not that it is a "
                "minimum"
            )
        return self._before_the_end("loss + penalty")

    def _before_the_end(self, objective: str) -> str:
        slope, error = f"{objective} has a slope of {self.residual:.2g}", self.standard_error
        if self.notes:  # which say why
            return slope
        if error is None:
            return f"not at a stationary point: {slope}, so small steps lower it; polish goes on to one"
        if self.residual <= error:
            return (
                f"the normal end of a training: {slope}, less than other rows of the same kind would change it by "
                f"({error:.2g})"
            )
        times = f"{self.residual / error:.2g} times" if error > 0 else "more than"
        return (
            f"trained for its epochs, not to the end: {slope}, {times} what other rows of the same kind would change "
            "it by; more epochs can lower it"
        )

    @property
    def _constrained(self) -> bool:
        """Whether a constraint acts, and no penalty."""
        return all(share.strength == 0 for share in self.parameters) and any(
            share.pull != 1.0 for share in self.parameters
        )

    def _off(self, digits: int) -> str:
        """The relative distance, and what it is measured in."""
        number = f"{self.relative:.{digits}g}"
        if any(share.strength > 0 for share in self.parameters):
            return f"{number} of the penalty's pull"
        if self._constrained:
            return f"{number} of what the constraint holds"
        return f"{number} (the loss's own slope: no penalty pulls)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = asdict(self)
        for share in (plain["worst"], *plain["parameters"]):
            share["index"] = list(share["index"])
        return {**plain, "parameters": list(plain["parameters"]), "notes": list(self.notes)}

    def __repr__(self) -> str:
        notes = f"; {len(self.notes)} notes" if self.notes else ""
        return f"<Certificate: F {self.objective:.6g}, distance {self.distance:.3g}; {self.proves}{notes}>"

    def _repr_html_(self) -> str:
        return html_of_pairs(self._said())

    def __str__(self) -> str:
        return "\n".join(f"{name:<10} {words}" for name, words in self._said())

    def _said(self) -> list[tuple[str, str]]:
        """What there is to say, each with its label."""
        pairs = [
            ("objective", f"{self.objective:.6g} = mean loss {self.loss:.6g} + penalty {self.penalty:.6g}"),
            ("distance", f"{self.distance:.3g} from stationarity; prox-gradient residual {self.residual:.3g}"),
            ("worst at", f"{self.worst.place}: {self._off(3)}"),
        ]
        if self.gap is not None:
            pairs.append(("gap", f"{self.gap:.3g} between F and a lower bound of its minimum"))
        if self.imbalance is not None:
            between = "between the two sides of a ReLU unit, at most; 0 is stationary"
            pairs.append(("balance", f"{self.imbalance:.3g} {between}"))
        if self.standard_error is not None:
            pairs.append(("error", f"{self.standard_error:.3g}: the standard error of the gradient over the rows"))
        pairs.append(("that is", replace(self, notes=()).in_words()))
        return pairs + [("note", note) for note in self.notes]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1g} %"


def measure(
    parameters: Sequence[tuple[str, Tensor, Penalty | None]],
    gradients: Sequence[Tensor | None],
    *,
    loss: float,
    imbalance: float | None = None,
    notes: tuple[str, ...] = (),
) -> Certificate:
    """The certificate from the gradients of the mean loss.

    Parameters are looked at one after the other, so that no more than a few tensors of the largest one's size are
    needed at a time; sums are taken in float64.

    Args:
        parameters: name, values and penalty (None: unpenalised) of every trainable parameter.
        gradients: of the mean loss, one per parameter; None stands for zero.
        loss: the mean loss.
        imbalance: of the ReLU units, where there are any.
        notes: remarks to carry along.
    """
    found = [
        _measured(name, w, penalty, torch.zeros_like(w) if g is None else g)
        for (name, w, penalty), g in zip(parameters, gradients, strict=True)
    ]
    elsewhere = max((each.pull for each in found), default=0.0) or 1.0
    shares = tuple(each.share(elsewhere) for each in found)
    penalty = math.fsum(float(p.with_state(whole).value(whole(w))) for _, w, p in parameters if p is not None)
    worst = max(shares, key=lambda share: math.inf if math.isnan(share.relative) else share.relative)
    return Certificate(
        distance=math.hypot(*(share.distance for share in shares)),
        relative=worst.relative,
        objective=loss + penalty,
        loss=loss,
        penalty=penalty,
        worst=worst,
        parameters=shares,
        residual=math.hypot(*(share.residual for share in shares)),
        imbalance=imbalance,
        notes=notes,
    )


@dataclass(frozen=True)
class _Measured:
    """A parameter's numbers before it is known what to measure those without a pull in."""

    name: str
    distance: float
    residual: float
    strength: float
    pull: float  # 0: none
    largest: float
    index: tuple[int, ...]
    place: str

    def share(self, elsewhere: float) -> ParameterDistance:
        pull = self.pull or elsewhere
        return ParameterDistance(
            self.name,
            self.distance,
            self.residual,
            self.strength,
            pull,
            self.largest,
            self.largest / pull,
            self.index,
            self.place,
        )


def _measured(name: str, w: Tensor, penalty: Penalty | None, grad: Tensor) -> _Measured:
    w, grad, penalty = whole(w), whole(grad), None if penalty is None else penalty.with_state(whole)
    distances = grad.abs() if penalty is None else penalty.distance(w, grad)
    strength = 0.0 if penalty is None else float(penalty.strength)
    if distances.numel() == 0:
        return _Measured(name, 0.0, 0.0, strength, 0.0, 0.0, (), name)
    flat = int(distances.argmax())  # a NaN counts as the largest
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), distances.shape)) if distances.ndim else ()
    distance = _norm(distances)
    largest = float(distances.reshape(-1)[flat])
    del distances
    pull = 0.0 if penalty is None else _pull(penalty, w, grad, distance)
    residual = distance if penalty is None else _residual(penalty, w, grad, distance)
    return _Measured(name, distance, residual, strength, pull, largest, index, _place(name, w, penalty, index))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _pull(penalty: Penalty, w: Tensor, grad: Tensor, distance: float) -> float:
    """The largest distance of 0 to the subdifferential of Ω: what the loss has to hold against, at most."""
    if penalty.constraint:
        # −g splits into its part in the normal cone, which is what the constraint holds, and the rest at right angles.
        held = _norm(grad) ** 2 - distance**2
        return math.sqrt(held) if math.isfinite(distance) and held > 1e-6 * distance**2 else 0.0
    pull = float(penalty.distance(w, torch.zeros_like(w)).amax())
    if pull > 0 and math.isfinite(pull):
        return pull
    if penalty.smooth or penalty.exempt(w) is None:
        return float(penalty.strength)  # all weights are zero: λ holds them
    # Or λ times their factors, which is what pulls right beside zero.
    return float(penalty.distance(torch.full_like(w, 1e-6), torch.zeros_like(w)).amax()) or float(penalty.strength)


def _residual(penalty: Penalty, w: Tensor, grad: Tensor, distance: float) -> float:
    """‖(w − prox(w − s·g))/s‖ with s such that a step would move the tensor by about its own size."""
    convex = penalty.convex_part
    if convex is None or penalty.prox_steps == "none":
        return distance  # the residual for s → 0; for a longer step it would ask for more than stationarity
    size, against = _norm(w), _norm(grad)
    pull = _norm(penalty.distance(w, torch.zeros_like(w)))
    if math.isfinite(pull):
        against = max(against, pull)
    step = size / against if size > 0 and against > 0 and math.isfinite(size / against) else 1.0
    if convex is not penalty:  # the rest, which is smooth, belongs to the loss
        grad = grad + (penalty.grad(w) - convex.grad(w))
    return _norm(w - convex.prox(w - step * grad, step)) / step


def _place(name: str, w: Tensor, penalty: Penalty | None, index: tuple[int, ...]) -> str:
    groups = None if penalty is None else penalty.groups(w.shape)
    if not index:
        return name
    return f"{name}[{', '.join(map(str, index))}]" if groups is None else f"{name}{groups.place(index)}"
