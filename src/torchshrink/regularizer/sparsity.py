"""Counts of exact zeros. A weight counts as zero where it is 0, not where it is small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from torchshrink.distributed import whole
from torchshrink.errors import InputError
from torchshrink.penalties import Penalty
from torchshrink.support.tables import Column, Table


@dataclass(frozen=True)
class ParameterSparsity:
    """The zeros of one parameter.

    Attributes:
        name: the parameter's qualified name.
        zeros: how many of its coordinates are exactly 0.
        total: how many coordinates it has.
        groups_zero: how many of its groups are wholly zero; None where its penalty has no groups.
        groups: how many groups it has; None likewise.
    """

    name: str
    zeros: int
    total: int
    groups_zero: int | None = None
    groups: int | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, name: str, w: Tensor, penalty: Penalty) -> Self:
        """Count a tensor's zeros, and its zero groups where its penalty has groups."""
        w = whole(w)
        zeros = int((w == 0).sum())
        groups = penalty.groups(w.shape)
        if groups is None:
            return cls(name, zeros, w.numel())
        norms = groups.norm(w)
        return cls(name, zeros, w.numel(), int((norms == 0).sum()), norms.numel())


@dataclass(frozen=True)
class Sparsity:
    """The zeros of all penalised parameters.

    Attributes:
        by_parameter: one entry per penalised parameter.
    """

    by_parameter: tuple[ParameterSparsity, ...]

    @property
    def zeros(self) -> int:
        """Coordinates that are exactly 0."""
        return sum(p.zeros for p in self.by_parameter)

    @property
    def total(self) -> int:
        """All penalised coordinates."""
        return sum(p.total for p in self.by_parameter)

    @property
    def fraction(self) -> float:
        """zeros / total; 0 where there is nothing."""
        return self.zeros / self.total if self.total else 0.0

    @property
    def groups_zero(self) -> int:
        """Groups that are wholly zero."""
        return sum(p.groups_zero or 0 for p in self.by_parameter)

    @property
    def groups(self) -> int:
        """All groups of the penalties that have groups."""
        return sum(p.groups or 0 for p in self.by_parameter)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "zeros": self.zeros,
            "total": self.total,
            "groups_zero": self.groups_zero,
            "groups": self.groups,
            "by_parameter": [asdict(p) for p in self.by_parameter],
        }

    def __repr__(self) -> str:
        return f"<Sparsity: {self}>"

    def _repr_html_(self) -> str:
        heads = Column("parameter", left=True), Column("zeros"), Column("of"), Column("groups zero"), Column("of")
        rows = [
            (
                p.name,
                f"{p.zeros:,}",
                f"{p.total:,}",
                *("" if n is None else f"{n:,}" for n in (p.groups_zero, p.groups)),
            )
            for p in self.by_parameter
        ]
        kept = len(heads) if self.groups else 3
        return Table(heads[:kept], [row[:kept] for row in rows]).html(str(self))

    def __str__(self) -> str:
        text = f"{self.zeros:,} of {self.total:,} weights are exactly zero ({100 * self.fraction:.1f} %)"
        if self.groups:
            text += f"; {self.groups_zero:,} of {self.groups:,} groups"
        return text


@torch.no_grad()
def hold_zeros(model: nn.Module, support: Mapping[str, Tensor]) -> None:
    """Set to 0 in ``model`` what is outside of the support, a tensor of truth values for each parameter's name.

    Raises:
        InputError: the model has no such parameter, or one of another shape; nothing is changed then.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, kept in support.items():
        given = tuple(parameters[name].shape) if name in parameters else "no such parameter"
        if given != tuple(kept.shape):
            raise InputError(f"hold_zeros: {name}: {given} in the model given, {tuple(kept.shape)} expected")
    for name, kept in support.items():
        parameters[name].masked_fill_(kept.to(parameters[name].device).logical_not(), 0.0)
