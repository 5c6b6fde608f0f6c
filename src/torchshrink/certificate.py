"""How far weights are from stationarity of F = mean loss + penalty, and where it is worst.

The distance of 0 to the subdifferential ∂F(w) is measured coordinate by coordinate, or group by group. It is zero
exactly at a stationary point, whatever optimizer led there. It proves (near-)stationarity, not that the point is a
minimum: for a convex model that is the same, for a deep network it is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchshrink.distributed import whole
from torchshrink.penalties import Penalty


@dataclass(frozen=True)
class ParameterDistance:
    """One parameter's share of a `Certificate`.

    Attributes:
        name: the parameter's qualified name.
        distance: the Euclidean norm of the distances of its coordinates or groups.
        strength: the strength in force, scale included; 0 for a parameter without penalty.
        largest: the largest of those distances.
        index: where the largest is: a coordinate's or a group's index.
    """

    name: str
    distance: float
    strength: float
    largest: float
    index: tuple[int, ...]


@dataclass(frozen=True)
class Certificate:
    """How far weights are from stationarity of F = mean loss + penalty.

    Attributes:
        distance: dist(0, ∂F(w)), Euclidean, over all trainable parameters, in units of loss per weight.
        relative: the same with each penalised parameter's share divided by its strength, and the others' by the
            largest strength: free of the loss's scale. Where every strength is 0, the distance itself.
        objective: F(w) = loss + penalty.
        loss: the mean loss.
        penalty: the sum of all terms.
        worst: the parameter with the largest single distance.
        parameters: every trainable parameter's share.
        notes: what is known to keep this training from a stationary point of F; empty if nothing is.
    """

    distance: float
    relative: float
    objective: float
    loss: float
    penalty: float
    worst: ParameterDistance
    parameters: tuple[ParameterDistance, ...]
    notes: tuple[str, ...] = ()

    def ok(self, tol: float = 1e-4) -> bool:
        """Whether the relative distance is at most ``tol``. False where anything is not a finite number."""
        return math.isfinite(self.objective) and self.relative <= tol

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""

        def share(p: ParameterDistance) -> dict[str, Any]:
            return {
                "name": p.name,
                "distance": p.distance,
                "strength": p.strength,
                "largest": p.largest,
                "index": list(p.index),
            }

        return {
            "distance": self.distance,
            "relative": self.relative,
            "objective": self.objective,
            "loss": self.loss,
            "penalty": self.penalty,
            "worst": share(self.worst),
            "parameters": [share(p) for p in self.parameters],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        where = f"{self.worst.name}[{', '.join(map(str, self.worst.index))}]" if self.worst.index else self.worst.name
        lines = [
            f"objective  {self.objective:.6g} = mean loss {self.loss:.6g} + penalty {self.penalty:.6g}",
            f"distance   {self.distance:.3g} from stationarity ({self.relative:.3g} relative to the strength)",
            f"worst at   {where}: {self.worst.largest:.3g}",
        ]
        lines += [f"note       {note}" for note in self.notes]
        return "\n".join(lines)


def measure(
    parameters: Sequence[tuple[str, Tensor, Penalty | None]],
    gradients: Sequence[Tensor | None],
    *,
    loss: float,
    notes: tuple[str, ...] = (),
) -> Certificate:
    """The certificate from the gradients of the mean loss.

    Args:
        parameters: name, values and penalty (None: unpenalised) of every trainable parameter.
        gradients: of the mean loss, one per parameter; None stands for zero.
        loss: the mean loss.
        notes: remarks to carry along.
    """
    shares = [
        _share(name, w, penalty, torch.zeros_like(w) if g is None else g)
        for (name, w, penalty), g in zip(parameters, gradients, strict=True)
    ]
    penalty = math.fsum(float(p.with_state(whole).value(whole(w))) for _, w, p in parameters if p is not None)
    largest_strength = max((share.strength for share in shares), default=0.0)

    def scaled(share: ParameterDistance) -> float:
        return share.distance / (share.strength or largest_strength or 1.0)

    return Certificate(
        distance=math.hypot(*(share.distance for share in shares)),
        relative=math.hypot(*(scaled(share) for share in shares)),
        objective=loss + penalty,
        loss=loss,
        penalty=penalty,
        worst=max(shares, key=lambda share: -1.0 if math.isnan(share.largest) else share.largest),
        parameters=tuple(shares),
        notes=notes,
    )


def _share(name: str, w: Tensor, penalty: Penalty | None, grad: Tensor) -> ParameterDistance:
    w, grad, penalty = whole(w), whole(grad), None if penalty is None else penalty.with_state(whole)
    distances = grad.abs() if penalty is None else penalty.distance(w, grad)
    distances = distances.double()
    if distances.numel() == 0:
        return ParameterDistance(name, 0.0, 0.0, 0.0, ())
    flat = int(distances.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), distances.shape)) if distances.ndim else ()
    return ParameterDistance(
        name=name,
        distance=float(torch.linalg.vector_norm(distances)),
        strength=0.0 if penalty is None else float(penalty.strength),
        largest=float(distances.reshape(-1)[flat]),
        index=index,
    )
