"""Refuses tensors that are not plain arrays of values."""

from __future__ import annotations

from torch import Tensor, strided

from torchshrink.errors import InputError


def check_dense(what: str, values: Tensor) -> None:
    """Raise unless ``values`` is dense and has its values at hand.

    Raises:
        InputError: it is sparse, quantized, nested, or on the meta device; the message begins with ``what``.
    """
    kinds = {
        "sparse": values.layout is not strided,
        "meta": values.is_meta,
        "quantized": values.is_quantized,
        "nested": values.is_nested,
    }
    odd = [kind for kind, is_one in kinds.items() if is_one]
    if odd:
        raise InputError(f"{what} is a {' '.join(odd)} tensor, a dense one with its values expected")
