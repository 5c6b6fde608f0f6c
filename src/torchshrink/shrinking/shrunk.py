"""What shrinking returns: a smaller model, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from torchshrink.shrinking.export import export
from torchshrink.shrinking.plan import Plan
from torchshrink.shrinking.saved import save
from torchshrink.support.storage import PathLike
from torchshrink.support.tables import Column, Table, html_of_pairs


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _is_main(name: str) -> bool:
    return name.endswith(("weight", "_orig", "original1", "weight_v")) or name.count(".") == 0


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model with the same outputs.

    Args:
        model: of the same classes as the one given, with smaller layers.
        plan: what was kept, folded and merged.
        kept: by parameter or buffer that became smaller, its shape before and after.
        difference: the largest difference of the outputs, over the largest output or 1, whichever is larger: in
            float64 on the example and on random inputs of other sizes.
        parameters: how many numbers, before and after.
        operations: floating point operations of the contractions on the example, before and after; 0 where the model
            has control flow (torch.cond), which cannot be counted.
        bytes: of the parameters, before and after.
        latency: seconds of one call on the example, after over before.
        pinned: how many units could not go, by reason.
        unread_inputs: places of the last dimension of the input that nothing reads.
        ranges: for which inputs this was proved, where not for all: bounds of sizes and sizes that are fixed,
            conditions that could not be tried otherwise, and arguments that were left out or are no tensors.
        example: the arguments with which it was checked, as the smaller model takes them.
        tried: shapes of the inputs on which the outputs were compared, as the larger model takes them.
        dtype: in which they were compared: float64, if the model's code takes that.
    """

    model: nn.Module
    plan: Plan
    kept: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    difference: float
    parameters: tuple[int, int]
    operations: tuple[int, int]
    bytes: tuple[int, int]
    latency: float
    pinned: Mapping[str, int]
    unread_inputs: tuple[int, ...]
    ranges: tuple[str, ...]
    example: tuple[tuple[Any, ...], Mapping[str, Any]] = field(repr=False)
    tried: tuple[tuple[tuple[int, ...], ...], ...] = field(default=(), repr=False)
    dtype: str = "float64"

    def __repr__(self) -> str:
        before, after = self.parameters
        return (
            f"<Shrunk {type(self.model).__name__}: {before:,} → {after:,} parameters, outputs at most "
            f"{self.difference:.1e} apart>"
        )

    def _repr_html_(self) -> str:
        heads = Column("", left=True), Column("before"), Column("after"), Column("share")
        rows = [(name, *map(_shape, shapes), "") for name, shapes in self._shown().items()]
        for label, (before, after) in self._totals().items():
            rows.append((label, f"{before:,}", f"{after:,}", f"{after / before if before else 1:.2f}"))
        parts = (line.partition(": ") for line in self._told())
        told = html_of_pairs((name, words) if words else ("", name) for name, _, words in parts)
        return f"<div>{Table(heads, rows).html(repr(self)[1:-1])}{told}</div>"

    def _shown(self) -> Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """What became smaller: a bias goes as its weight does, and that is told."""
        beside = {name for name, (before, _) in self.kept.items() if len(before) < 2 and not _is_main(name)}
        return {name: shapes for name, shapes in self.kept.items() if name not in beside} or self.kept

    def _totals(self) -> Mapping[str, tuple[int, int]]:
        return {
            "parameters": self.parameters,
            "operations on the example": self.operations,
            "bytes of parameters": self.bytes,
        }

    def __str__(self) -> str:
        rows = [f"{name}: {tuple(before)} → {tuple(after)}" for name, (before, after) in self._shown().items()]
        if not rows:
            rows = ["nothing could go: a unit goes where all that it computes, or all that reads it, is zero"]
        made = [fold.bias for fold in self.plan.folds if fold.made]
        rows += [f"{name}: made, for the constants of what went" for name in made]
        for label, (before, after) in self._totals().items():
            rows.append(f"{label}: {before:,} → {after:,} ({after / before if before else 1:.2f})")
        return "\n".join([*rows, *self._told()])

    def _told(self) -> list[str]:
        """What is to be said besides shapes and sums, each with what it is of before the first colon."""
        rows = []
        if self.kept:
            rows.append(f"latency on the example: {self.latency:.2f} of what it was")
        rows.append(f"largest difference of the outputs: {self.difference:.1e} ({self.dtype}, evaluation mode)")
        if self.unread_inputs:
            more = f" and {len(self.unread_inputs) - 20} more" if len(self.unread_inputs) > 20 else ""
            rows.append(f"inputs that nothing reads: {', '.join(map(str, self.unread_inputs[:20]))}{more}")
        rows += [f"stayed: {count} units, {reason}" for reason, count in self.pinned.items()]
        shapes = [" and ".join(map(str, each)) for each in self.tried]
        rows.append(f"compared on inputs of {', '.join(shapes)}")
        rows.append(f"holds for {', '.join(self.ranges)}" if self.ranges else "holds for every input size tried")
        return rows

    def save(self, folder: PathLike, *, force: bool = False) -> None:
        """Write plan and tensors to ``folder``: JSON and safetensors, no code; `ts.load_shrunk` reads them.

        Raises:
            InputError: the folder has files in it and ``force`` is not given, or it cannot be written.
        """
        save(self.model, self.plan, folder, force=force)

    def export(self, path: PathLike, *, force: bool = False) -> None:
        """Write the smaller model as one file that needs neither torchshrink nor the model's code.

        The file is read again and its outputs are compared with the model's, on the example and on other numbers of
        rows, before it is left there.

        Args:
            path: ends in ``.pt2`` (for ``torch.export.load``) or in ``.onnx`` (needs the extra ``onnx``).
            force: write over a file that is there.

        Raises:
            InputError: another ending, a file that is there, a model that cannot be exported, or whose file gives other
                outputs. Nothing is left there then.
            MissingDependencyError: a package that ``.onnx`` needs is not installed.

        Warns:
            DataWarning: the file takes the example's number of rows only, though the model takes others.
        """
        export(self.model, self.example, path, force=force)
