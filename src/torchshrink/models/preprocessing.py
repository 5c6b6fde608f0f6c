"""What a model carries to take raw rows: fitted on its training rows, kept in buffers, never penalised."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError


class Preprocess(nn.Module):
    """Raw rows in, what a network can take out: numbers standardised, categories one-hot, nothing missing.

    A number becomes (x − mean) / scale, and 0, the mean, where it is missing. A category becomes one 0/1 column per
    level; a missing one, and a level that no training row had, all zeros. Column order is kept. Before `fit`, means
    are 0, scales 1, and all levels known.

    Means and scales stay in float64 whatever the model is brought to, and only what is standardised is rounded to the
    model's dtype: float64 rows whose numbers are large and differ little, as coordinates and times do, stay apart.

    Args:
        sizes: per raw column, 0 for a number and k ≥ 1 for a category with the codes 0 … k−1.
        encoded: which of the encoded columns come out, by their places, ascending; by default all of them.

    >>> preprocess = Preprocess([0, 2])
    >>> preprocess.fit(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    >>> preprocess(torch.tensor([[5.0, 0.0], [float("nan"), 1.0]]))
    tensor([[3., 1., 0.],
            [0., 0., 0.]])
    """

    mean: Tensor
    scale: Tensor
    seen: Tensor
    _source: Tensor
    _level: Tensor
    _categorical: Tensor
    _like: Tensor

    def __init__(self, sizes: Sequence[int], encoded: Sequence[int] | None = None) -> None:
        super().__init__()
        self.sizes = tuple(int(size) for size in sizes)
        if not self.sizes or min(self.sizes) < 0:
            raise InputError(
                f"sizes={list(sizes)}: expected at least one column, each 0 (number) or its count of levels"
            )
        source, level = zip(*_places(self.sizes, encoded), strict=True)
        self.register_buffer("mean", torch.zeros(len(source), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(len(source), dtype=torch.float64))
        self.register_buffer("_like", torch.empty(0), persistent=False)  # goes to the model's dtype with it
        self.register_buffer("seen", torch.ones(len(source), dtype=torch.bool))
        # These follow from the sizes, so they move with the model and stay out of its files.
        self.register_buffer("_source", torch.tensor(source), persistent=False)  # (d_encoded,) raw column
        self.register_buffer("_level", torch.tensor(level), persistent=False)  # (d_encoded,) code
        categorical = torch.tensor([self.sizes[column] > 0 for column in source])
        self.register_buffer("_categorical", categorical, persistent=False)  # (d_encoded,)

    @property
    def outputs(self) -> int:
        """How many encoded columns come out."""
        return len(self.mean)

    @property
    def encoded(self) -> tuple[int, ...] | None:
        """Which of the encoded columns come out, as `__init__` takes it; None: all of them."""
        starts = _starts(self.sizes)
        pairs = zip(self._source.tolist(), self._level.tolist(), strict=True)
        places = tuple(starts[column] + code for column, code in pairs)
        return None if len(places) == starts[-1] else places

    @property
    def sources(self) -> tuple[int, ...]:
        """For each encoded column that comes out, which raw column it is made of."""
        return tuple(self._source.tolist())

    def narrowed(self, encoded: Sequence[int], columns: Sequence[int] | None = None) -> Preprocess:
        """The same with these of its encoded columns only, and of these raw columns only.

        Args:
            encoded: places among the encoded columns that come out now.
            columns: the raw columns that are still given, those of ``encoded`` among them; by default all of them.
        """
        kept = torch.tensor(encoded, dtype=torch.long, device=self.mean.device)
        given = list(range(len(self.sizes))) if columns is None else list(columns)
        sizes = [self.sizes[column] for column in given]
        first = dict(zip(given, _starts(sizes), strict=False))  # and last how many there are in all
        pairs = zip(self._source[kept].tolist(), self._level[kept].tolist(), strict=True)
        made = Preprocess(sizes, [first[column] + code for column, code in pairs])
        made.load_state_dict({name: tensor[kept] for name, tensor in self.state_dict().items()})
        made.train(self.training)
        return made.to(self._like.device, self._like.dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Encode raw rows: (…, d) to (…, d_encoded)."""
        if rows.shape[-1] != len(self.sizes):
            raise InputError(f"rows of shape {tuple(rows.shape)} given, {len(self.sizes)} columns expected")
        if not any(self.sizes):
            return self._standardise(rows if len(self.mean) == len(self.sizes) else rows[..., self._source])
        gathered = rows[..., self._source]  # (…, d_encoded)
        numbers = self._standardise(gathered)
        levels = ((gathered == self._level) & self.seen).to(numbers.dtype)  # a missing code equals none
        return torch.where(self._categorical, levels, numbers)

    def _standardise(self, rows: Tensor) -> Tensor:
        # Infinities stay: they are errors to be seen, not missing values.
        exact = torch.nan_to_num((rows - self.mean) / self.scale, nan=0.0, posinf=math.inf, neginf=-math.inf)
        return exact.to(self._like.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Preprocess:
        return _keeping_float64(self, fn, recurse)

    def fit(self, rows: Tensor) -> None:
        """Take means, scales (standard deviations, with n in the denominator) and the levels from training rows.

        Missing values are left out. A column with one value only has scale 1; one with none, mean 0 and scale 1.

        Args:
            rows: (n, d), raw.

        Raises:
            InputError: no rows, another number of columns, an infinity, or a code that its column does not have.
        """
        self.fit_parts([rows])

    @torch.no_grad()
    def fit_parts(self, parts: Iterable[Tensor]) -> None:
        """`fit` on rows of which some (n, d) are given at a time, once."""
        number = ~self._categorical
        moments, levels = None, {column: torch.zeros(size, dtype=torch.bool) for column, size in self._categories()}
        for rows in parts:
            if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != len(self.sizes):
                raise InputError(f"rows of shape {tuple(rows.shape)} given, (n ≥ 1, {len(self.sizes)}) expected")
            if torch.isinf(rows).any():
                raise InputError(
                    f"{int(torch.isinf(rows).sum())} infinite values in the rows: remove them or mark them missing"
                )
            for column, size in self._categories():
                levels[column] = _levels(rows[:, column], size, column) | levels[column].to(rows.device)
            more = _Moments.of(rows[:, self._source[number]])
            moments = more if moments is None else moments.and_of(more)
        if moments is None:
            raise InputError("no rows given, at least 1 expected")
        self.mean[number], self.scale[number] = moments.mean_and_scale(self.scale.dtype)
        for column, seen in levels.items():
            own = self._source == column
            self.seen[own] = seen.to(self.seen.device)[self._level[own]]

    def _categories(self) -> list[tuple[int, int]]:
        return [(column, size) for column, size in enumerate(self.sizes) if size]

    def extra_repr(self) -> str:
        """The columns in and out, for ``print``."""
        categories = sum(size > 0 for size in self.sizes)
        return f"{len(self.sizes) - categories} numbers, {categories} categories → {self.outputs}"


class Rescale(nn.Module):
    """A network's output in the target's own units: y = mean + scale · f, (…, 1) to (…). Before `fit`, y = f.

    >>> rescale = Rescale()
    >>> rescale.fit(torch.tensor([10.0, 30.0]))
    >>> rescale(torch.tensor([[0.0], [1.0]]))
    tensor([20., 30.])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, output: Tensor) -> Tensor:
        """The output, (…, 1), in the target's units, (…), and in its own dtype."""
        return (self.mean + self.scale * output.squeeze(-1)).to(output.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rescale:
        return _keeping_float64(self, fn, recurse)

    @torch.no_grad()
    def fit(self, target: Tensor) -> None:
        """Take mean and standard deviation (1 where it is constant) from the training rows' targets, (n,)."""
        if target.ndim != 1 or target.numel() == 0 or not target.is_floating_point():
            raise InputError(f"a {target.dtype} target of shape {tuple(target.shape)} given, n ≥ 1 numbers expected")
        if not bool(torch.isfinite(target).all()):
            raise InputError(f"{int((~torch.isfinite(target)).sum())} targets are NaN or infinite: remove their rows")
        mean, scale = _Moments.of(target.unsqueeze(1)).mean_and_scale(self.scale.dtype)
        self.mean.copy_(mean.squeeze(0))
        self.scale.copy_(scale.squeeze(0))


M = TypeVar("M", Preprocess, Rescale)


def _keeping_float64(module: M, fn: Callable[[Tensor], Tensor], recurse: bool) -> M:
    """What ``module.to(…)`` does, but that mean and scale keep their float64 digits; a device without has float32."""
    exact = {"mean": module.mean, "scale": module.scale}
    nn.Module._apply(module, fn, recurse)
    for name, kept in exact.items():
        now = getattr(module, name)
        if now.device.type != "mps":
            setattr(module, name, now.double() if kept.is_meta else kept.to(now.device, torch.float64))
    return module


class Rows(Protocol):
    """Rows (n, …), in memory or not."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that they are or become."""
        ...

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of them."""
        ...


class InParts(Protocol):
    """Rows that come some at a time, from the first to the last whenever they are asked for."""

    def parts(self) -> Iterable[Tensor]:
        """All rows (n, …), in tensors of some."""
        ...


def rows_dtype(model: nn.Module, X: Rows) -> torch.dtype:
    """In which dtype ``model`` takes the floating rows X (n, …).

    That of its first parameter; but float64 where the rows have it and go through a `Preprocess` before anything that
    is tied to the parameters' dtype, so that they are rounded after they are standardised and not before.
    """
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    if X.dtype != torch.float64 or own == torch.float64 or not any(isinstance(m, Preprocess) for m in model.modules()):
        return own
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(X[:2])
    except (RuntimeError, TypeError, ValueError, IndexError):
        return own  # the model's own code looks at the rows too, or they do not fit, which is said elsewhere
    finally:
        for module, training in modes:
            module.training = training
    return torch.float64


def fit_preprocessing(model: nn.Module, rows: Tensor | InParts, target: Tensor) -> None:
    """Fit every `Preprocess` and `Rescale` in ``model`` on training rows (n, d) and their targets (n,).

    Does nothing to a model that has none.
    """
    for module in model.modules():
        if isinstance(module, Preprocess):
            module.fit_parts([rows] if isinstance(rows, Tensor) else rows.parts())
        elif isinstance(module, Rescale):
            module.fit(target)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of each column of some rows (n, k), without NaN, in float64: how many, mean, sum of squares around it, ends."""

    count: Tensor
    mean: Tensor
    squares: Tensor
    least: Tensor
    most: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Moments:
        wide = values.double()
        present = ~torch.isnan(wide)
        count = present.sum(0).double()  # the quotient of whole numbers would be float32
        mean = torch.where(present, wide, 0.0).sum(0) / count.clamp(min=1)
        squares = torch.where(present, wide - mean, 0.0).square().sum(0)
        least = torch.where(present, wide, math.inf).amin(0)
        return cls(count, mean, squares, least, torch.where(present, wide, -math.inf).amax(0))

    def and_of(self, other: _Moments) -> _Moments:
        """Of both together."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart.square() * self.count * share
        ends = torch.minimum(self.least, other.least), torch.maximum(self.most, other.most)
        return _Moments(count, self.mean + apart * share, squares, *ends)

    def mean_and_scale(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in ``dtype``.

        Mean 0 without values; scale 1 there, and where the values are equal or ``dtype`` cannot hold their spread.
        """
        scale = (self.squares / self.count.clamp(min=1)).sqrt()
        # Equal values are found by comparison: rounding can put their mean beside them.
        constant = self.least == self.most
        mean = torch.where(constant, self.least, self.mean)
        spread = ~constant & (scale >= torch.finfo(dtype).tiny)
        return mean.to(dtype), torch.where(spread, scale, 1.0).to(dtype)


def _starts(sizes: Sequence[int]) -> list[int]:
    """At which encoded column each raw one begins, and how many there are in all."""
    return list(itertools.accumulate((max(size, 1) for size in sizes), initial=0))


def _places(sizes: Sequence[int], encoded: Sequence[int] | None) -> list[tuple[int, int]]:
    """Of each encoded column that is used, its raw column and code; of no other one, of which there may be many."""
    if encoded is None:
        return [(column, code) for column, size in enumerate(sizes) for code in range(max(size, 1))]
    starts, places = _starts(sizes), list(encoded)
    if not places or places != sorted(set(places)) or not 0 <= places[0] <= places[-1] < starts[-1]:
        given = str(places) if len(places) <= 10 else f"{str(places[:10])[:-1]}, …]"
        raise InputError(f"encoded={given}: expected ascending places from 0 to {starts[-1] - 1}, at least one")
    columns = [bisect.bisect_right(starts, place) - 1 for place in places]
    return [(column, place - starts[column]) for column, place in zip(columns, places, strict=True)]


def _levels(codes: Tensor, size: int, column: int) -> Tensor:
    """Which of the codes 0 … size − 1 occur, (size,) bool; missing ones left out."""
    present = codes[~torch.isnan(codes)]
    whole = present.long()
    if bool(((whole != present) | (whole < 0) | (whole >= size)).any()):
        raise InputError(f"column {column}: the codes 0 to {size - 1} of its categories expected, others given")
    return torch.bincount(whole, minlength=size) > 0
