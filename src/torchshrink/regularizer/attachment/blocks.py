"""Large tensors in blocks that stay in the processor's cache, for a prox whose step sizes differ by coordinate.

Such a prox takes a dozen passes: over the optimizer's averages, the step sizes, the thresholds, the weights. Over a
whole tensor each pass goes to the memory and needs room of its own; over a block neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from torchshrink.distributed import is_spread
from torchshrink.penalties import Penalty
from torchshrink.penalties.proximal import BLOCK

P = TypeVar("P", bound=Tensor)


def batches(tensors: Sequence[P]) -> Iterator[Sequence[P]]:
    """Tensors that are not cut, as many at once as make a block: several in one call take less time."""
    if tensors and tensors[0].device.type != "cpu":
        yield tensors
        return
    batch: list[P] = []
    size = 0
    for w in tensors:
        if batch and size + w.numel() > BLOCK:
            yield batch
            batch, size = [], 0
        batch.append(w)
        size += w.numel()
    if batch:
        yield batch


def is_cut(penalty: Penalty, w: Tensor) -> bool:
    """Whether `blocks` makes more than one block of a tensor."""
    return w.numel() > BLOCK and w.device.type == "cpu" and not is_spread(w) and _dim(penalty, w) is not None


def blocks(
    penalty: Penalty, w: Tensor, state: Mapping[str, Any]
) -> Iterator[tuple[Penalty, Tensor, Mapping[str, Any]]]:
    """The penalty, the weights and the optimizer's state of one block after another; views.

    Args:
        penalty: none of whose groups a cut divides.
        w: `is_cut`.
        state: in which what is shaped like ``w`` belongs to its coordinates.
    """
    dim = _dim(penalty, w)
    if dim is None:
        raise ValueError(f"{penalty} has no dimension along which its blocks are independent")
    length = max(1, BLOCK * w.shape[dim] // w.numel())
    whole = {key: each for key, each in state.items() if not isinstance(each, Tensor) or each.shape != w.shape}
    views = {key: state[key].split(length, dim) for key in state if key not in whole}
    for i, block in enumerate(w.split(length, dim)):

        def here(each: Tensor, start: int = i * length, count: int = block.shape[dim]) -> Tensor:
            return each.narrow(dim, start, count) if each.shape == w.shape else each

        yield penalty.with_state(here), block, whole | {key: each[i] for key, each in views.items()}


def _dim(penalty: Penalty, w: Tensor) -> int | None:
    """The dimension to cut along: the first that is long enough for blocks of the wanted size, or the longest."""
    dims = range(w.ndim) if penalty.elementwise else sorted(dim % w.ndim for dim in penalty.group_dims or () if w.ndim)
    long = [dim for dim in dims if w.shape[dim] > 1]
    return max(long, key=lambda dim: (min(w.shape[dim] * BLOCK, w.numel()), -dim), default=None)
