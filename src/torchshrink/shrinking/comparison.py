"""Whether two outputs are the same numbers, and how far they are apart where not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchshrink.support.private_torch import pytree

EXACT = 1e-10  # of float64: what another order of summation explains, and no more


def difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference over the largest finite entry of ``expected``, or over 1 where that is larger.

    Infinite where shape or dtype differ, or where one is NaN or infinite and the other is not the same there.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not expected.numel():
        return 0.0
    a, b = _real(expected), _real(found)
    if not torch.equal(a.isnan(), b.isnan()) or not torch.equal(a[a.isinf()], b[b.isinf()]):
        return float("inf")
    if not torch.equal(a.isinf(), b.isinf()):
        return float("inf")
    a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
    return float((a - b).abs().max() / max(1.0, float(a.abs().max())))


def _real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


def finite(tensor: Tensor) -> int:
    """How many entries can be compared as numbers."""
    return int(tensor.isfinite().sum())


def allowed(dtype: torch.dtype, *, exact: bool) -> float:
    """How large a `difference` rounding explains.

    Args:
        dtype: of the output.
        exact: the two compute the same sums, and all in this dtype but for their order; else √ε, since biases that are
            folded are themselves rounded.
    """
    if not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    if dtype in (torch.float64, torch.complex128):
        return EXACT if exact else float(torch.finfo(torch.float64).eps ** 0.5)
    rounding = float(torch.finfo(dtype).eps ** 0.5)
    return min(rounding, 1e-4) if exact and dtype in (torch.float32, torch.complex64) else rounding


def outputs_apart(expected: Any, found: Any, *, exact: bool) -> tuple[float, float]:
    """The largest difference of two models' outputs, and the largest in units of what is allowed of its dtype.

    Args:
        expected: what the one gives: a tensor, or tensors and numbers in tuples, lists and dicts.
        found: what the other gives.
        exact: as of `allowed`. Where not, whole numbers and truth values may differ in one of a hundred entries: a
            threshold or a maximum may be as close as rounding is.
    """
    (leaves, spec), (others, other) = pytree.tree_flatten(expected), pytree.tree_flatten(found)
    if spec != other:
        return float("inf"), float("inf")
    worst = relative = 0.0
    for a, b in zip(leaves, others, strict=True):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            same = type(a) is type(b) and (not isinstance(a, int | float | str) or a == b or a != a)
            worst, relative = (worst, relative) if same else (float("inf"), float("inf"))
            continue
        apart, bound = difference(a, b), allowed(a.dtype, exact=exact)
        if not bound and not exact and a.shape == b.shape and a.dtype == b.dtype:
            apart = apart if int((a != b).sum()) > a.numel() // 100 else 0.0
        worst = max(worst, apart)
        relative = max(relative, apart / bound if bound else float("inf") if apart else 0.0)
    return worst, relative
