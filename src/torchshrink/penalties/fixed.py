"""Tensors as parts of a penalty, which is a value: the weights of coordinates or groups, and labels of groups.

A penalty is frozen, compared by value and printed in tables and fingerprints; a tensor is none of that. So it is
copied once, checked once, and known by a digest of its shape and numbers from then on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, final

import torch
from torch import Tensor

from torchshrink.errors import InputError
from torchshrink.support.private_torch import is_batched

if TYPE_CHECKING:
    from torchshrink.penalties.base import Penalty, Strength


@final
@dataclass(frozen=True, eq=False, repr=False)
class Fixed:
    """A tensor that is equal to another where shape and numbers are, whatever its dtype and device.

    Args:
        tensor: whoever holds it leaves it as it is.
        key: shape and digest of the numbers, as they were given.
    """

    tensor: Tensor
    key: str

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Fixed) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return self.key if self.tensor.ndim == 0 else f"<{self.key}>"

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same numbers elsewhere, or a part of them."""
        return type(self)(change(self.tensor), self.key)


Weights = Fixed | Tensor | float | Sequence[Any]
"""Factors ≥ 0: a number, a tensor, or what ``torch.as_tensor`` takes; a `Fixed` once they are a penalty's."""


def fixed(tensor: Tensor) -> Fixed:
    """A tensor with its digest. One whose numbers cannot be looked at is equal to itself alone."""
    if tensor.is_meta or is_batched(tensor):
        return Fixed(tensor, f"… {id(tensor):x}")
    if tensor.ndim == 0:
        return Fixed(tensor, repr(tensor.item()))
    plain = tensor.to("cpu", torch.float64).contiguous() + 0.0  # −0 and 0 are equal
    digest = hashlib.sha256(plain.numpy().tobytes()).hexdigest()[:12]
    return Fixed(tensor, f"{'×'.join(map(str, tensor.shape))} {digest}")


def checked_weights(value: Weights | None) -> Fixed | None:
    """``value`` as factors, or None where there are none. Raises as `fixed_weights`."""
    return None if value is None else fixed_weights(value)


def fixed_weights(value: Weights) -> Fixed:
    """``value`` as factors.

    Raises:
        InputError: it is no tensor of numbers, or one of them is negative, infinite or not a number.
    """
    if isinstance(value, Fixed):
        return value
    tensor = checked_tensor("weights", value, "a number ≥ 0, or a tensor of them")
    if tensor.is_complex():
        raise InputError(f"weights: {tensor.dtype} given, real numbers ≥ 0 expected")
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    if not (tensor.is_meta or is_batched(tensor)):
        bad = ~(tensor.isfinite() & (tensor >= 0))
        if bool(bad.any()):
            at = [int(i) for i in bad.nonzero()[0]]
            where = f" at {at}" if at else ""
            raise InputError(f"weights: {tensor[tuple(at)].item():g}{where}: expected finite numbers ≥ 0")
    return fixed(tensor)


def checked_tensor(name: str, value: Any, expected: str) -> Tensor:
    """A copy of ``value`` as a tensor that nobody else holds, in float64 where it had no dtype."""
    if isinstance(value, Tensor):
        if type(value).__module__.startswith("torch.distributed"):
            raise InputError(f"{name}: a {type(value).__name__} given; give its full_tensor(), in every process")
        return value.detach().clone()
    try:
        given = torch.as_tensor(value)
        if isinstance(value, bool) or not given.numel():
            raise ValueError
        return (given if not given.is_floating_point() else torch.as_tensor(value, dtype=torch.float64)).clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        shown = repr(value) if len(repr(value)) <= 60 else type(value).__name__
        raise InputError(f"{name}={shown}: expected {expected}") from error


# --- factors of coordinates ---


def weights_like(weights: Weights, w: Tensor) -> Tensor:
    """The factors in the dtype to compute in, where ``w`` is, in a shape that broadcasts to it.

    Raises:
        InputError: they do not.
    """
    given = fixed_weights(weights).tensor
    check_broadcast("weights", given, tuple(w.shape))
    return given.to(device=w.device, dtype=torch.promote_types(w.dtype, torch.float32))


def bound_weights(weights: Weights, w: Tensor) -> Fixed:
    """The same for every later use, one for each coordinate, so that a shard of ``w`` has its own; a number stays one.

    Raises:
        InputError: they do not broadcast to ``w``, or are too large for the dtype to compute in.
    """
    key, found = fixed_weights(weights).key, weights_like(weights, w.detach())
    check_finite(weights, found)
    if found.ndim == 0:
        return Fixed(found, key)
    return Fixed(found.expand(w.shape), f"{key.partition(' over ')[0]} over {'×'.join(map(str, w.shape))}")


def check_finite(weights: Weights, found: Tensor) -> None:
    """Raise where ``weights`` became infinite when they were rounded to what was ``found``."""
    if not (found.is_meta or is_batched(found)) and not bool(found.isfinite().all()):
        raise InputError(f"weights: up to {fixed_weights(weights).tensor.max().item():g}, infinite in {found.dtype}")


def mapped(weights: Weights, change: Callable[[Tensor], Tensor]) -> Fixed:
    """The factors with ``change`` applied."""
    return fixed_weights(weights).map(change)


def check_broadcast(name: str, given: Tensor, wide: tuple[int, ...], what: str = "") -> None:
    """Raise unless a tensor broadcasts to the shape ``wide``."""
    narrow = tuple(given.shape)
    aligned = zip(reversed(narrow), reversed(wide), strict=False)
    if len(narrow) > len(wide) or any(n not in (1, m) for n, m in aligned):
        raise InputError(f"{name} of shape {narrow} given, one that broadcasts to {what}{wide} expected")


def scaled(strength: Strength, weights: Weights | None, w: Tensor) -> Strength:
    """The strength of each coordinate: λ times its factor; λ itself where there are none."""
    return strength if weights is None else strength * weights_like(weights, w)


def of_each(strength: Strength, weights: Weights | None) -> Strength:
    """The same where no weight is at hand, so in the factors' own shape, dtype and device."""
    return strength if weights is None else strength * fixed_weights(weights).tensor


def dot(strengths: Strength, terms: Tensor) -> Tensor:
    """Σ of each coordinate's strength times its term."""
    if isinstance(strengths, Tensor) and strengths.ndim:
        return (strengths * terms).sum()
    return strengths * terms.sum()


def exempt_of(weights: Weights | None, w: Tensor) -> Tensor | None:
    """Where the factor is 0; None where there are none."""
    return None if weights is None else (weights_like(weights, w) == 0).expand(w.shape)


def per_weight(size: Tensor, weights: Tensor | None) -> Tensor:
    """``size`` divided by the factors; 0 where they are 0, since nothing is held there."""
    if weights is None:
        return size
    held = weights > 0
    return torch.where(held, size / torch.where(held, weights, 1.0), 0.0)


# --- as text ---


def short_repr(penalty: Penalty) -> str:
    """A dataclass's own, without the fields that are None."""
    shown = [(f.name, getattr(penalty, f.name)) for f in fields(penalty) if f.repr]  # type: ignore[arg-type]
    return f"{type(penalty).__name__}({', '.join(f'{name}={value!r}' for name, value in shown if value is not None)})"


def also(**settings: object) -> str:
    """What stands behind the strength in a penalty's text: those settings that are given."""
    return "".join(f", {name}={value!r}" for name, value in settings.items() if value is not None)


def joined(first: Weights | None, second: Weights | None, sum_of: str) -> Fixed | None:
    """The factors that two penalties share.

    Raises:
        TypeError: they have different ones.
    """
    if first != second:
        raise TypeError(f"{sum_of}: with different weights no one penalty is the sum; bind each in its own Regularizer")
    return checked_weights(first)
