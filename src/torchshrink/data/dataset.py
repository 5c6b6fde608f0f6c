"""What every reader makes: raw rows, a target, and what the columns and classes are called."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.support.text import shortened

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = ("classification", "regression")
FLOATS = (torch.float64, torch.float32)


@dataclass(frozen=True)
class Column:
    """One raw column: a number, or a category where it has ``categories``, whose places are its codes."""

    name: str
    categories: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kind = f"{len(self.categories)} categories" if self.categories else "numbers"
        return f"<Column {shortened(self.name, 80)!r}: {kind}>"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw rows and their target. Nothing in it is fitted: means and known levels are the model's to learn.

    Args:
        name: what runs on it are called; fit for a folder's name.
        X: (n, d) float64, or float32; NaN where a value is missing, and the code of a category in its column's
            ``categories``. A model standardises before it rounds, so large numbers that differ little stay apart.
        y: (n,), int64 codes of ``classes``, or float64 or float32 numbers.
        columns: the d columns of ``X``.
        target: what ``y`` is called.
        classes: the names of the classes by code; empty where the target is a number.
        kinds: which columns are numbers, categories, dropped, in words; empty where it is clear.
        notes: what was guessed besides: what was taken as missing, the separator, the decimal point.

    Raises:
        InputError: shapes or dtypes are others, or an infinity is in ``X`` or a non-finite number in ``y``.

    >>> X, y = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    >>> Dataset("two", X, y, (Column("size"),), "kind", ("a", "b")).task
    'classification'
    """

    name: str
    X: Tensor
    y: Tensor
    columns: tuple[Column, ...]
    target: str
    classes: tuple[str, ...] = ()
    kinds: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kinds = (torch.int64,) if self.classes else FLOATS
        if self.X.ndim != 2 or self.X.dtype not in FLOATS or self.X.shape[1] != len(self.columns):
            raise InputError(
                f"{self.name}: X is {self.X.dtype} of shape {tuple(self.X.shape)}, "
                f"float64 or float32 of shape (n, {len(self.columns)}) expected: one column for each of columns"
            )
        if self.y.dtype not in kinds or self.y.shape != self.X.shape[:1]:
            raise InputError(
                f"{self.name}: y is {self.y.dtype} of shape {tuple(self.y.shape)}, "
                f"{kinds[0]} of shape ({self.X.shape[0]},) expected"
            )
        infinite = torch.isinf(self.X).sum(0)  # (d,)
        if bool(infinite.any()):
            worst = int(infinite.argmax())
            raise InputError(
                f"{self.name}: column {self.columns[worst].name!r} is infinite in "
                f"{int(infinite[worst])} of {self.rows} rows: correct them, or leave them empty to have them imputed"
            )
        if self.classes and self.rows and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise InputError(f"{self.name}: y has codes outside 0 to {len(self.classes) - 1}, those of its classes")
        if not self.classes and not bool(torch.isfinite(self.y).all()):
            bad = int((~torch.isfinite(self.y)).sum())
            raise InputError(f"{self.name}: target {self.target!r} is NaN or infinite in {bad} rows: drop them")

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {self.rows} rows, {len(self.columns)} columns, {self.task} of {self.target}>"

    @property
    def task(self) -> Task:
        """``"classification"`` or ``"regression"``: whether the target is classes or a number."""
        return "classification" if self.classes else "regression"

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.X.shape[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Per column, its count of categories, 0 for a number: what `torchshrink.models.mlp` takes as inputs."""
        return tuple(len(column.categories) for column in self.columns)

    @property
    def outputs(self) -> int:
        """How many outputs a model of it has: one per class, 1 for numbers."""
        return len(self.classes) or 1

    def subset(self, indices: Tensor) -> Dataset:
        """The rows at ``indices``, (k,) int64, with all columns, categories and classes."""
        return dataclasses.replace(self, X=self.X[indices], y=self.y[indices])

    def describe(self) -> dict[str, Any]:
        """All but the rows, as plain JSON: what to keep beside a model to know which raw rows it takes."""
        return {
            "name": self.name,
            "rows": self.rows,
            "task": self.task,
            "target": self.target,
            "classes": list(self.classes),
            "columns": [{"name": column.name, "categories": list(column.categories)} for column in self.columns],
        }
