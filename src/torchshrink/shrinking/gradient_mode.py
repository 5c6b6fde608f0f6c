"""Code may ask ``torch.is_grad_enabled()``, and layers of torch do: outputs are compared with gradients, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.shrinking.plan import Decision
from torchshrink.shrinking.proof import Mismatch
from torchshrink.shrinking.trace import copy_model, quiet
from torchshrink.support.private_torch import pytree


def with_gradients(large: nn.Module, small: nn.Module, decision: Decision) -> Mismatch | None:
    """Whether the outputs on the example differ by more than rounding does where gradients are on; None: not."""
    args, kwargs = decision.analysis.trace.args, dict(decision.analysis.trace.kwargs)
    less = decision.inputs_of_small
    with torch.enable_grad(), quiet():
        try:
            expected = _call(large, args, kwargs)
        except Exception:  # a model that runs without gradients only
            return None
        try:
            found = _call(small, less(args), less(kwargs))
        except Exception as error:  # whatever the smaller model's code raises
            return Mismatch((), f"the smaller one does not run with gradients ({type(error).__name__})")
    for a, b in zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=False):
        if isinstance(a, Tensor) and not (isinstance(b, Tensor) and _close(a, b)):
            return Mismatch((), "the outputs differ with gradients on")
    return None


def _call(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Of copies: a call may change the model and what it is given."""
    args, kwargs = pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, (args, kwargs))
    return pytree.tree_map(
        lambda one: one.detach() if isinstance(one, Tensor) else one, copy_model(model)(*args, **kwargs)
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return True  # a threshold may be as close as rounding is
    largest = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=torch.finfo(a.dtype).eps ** 0.5 * max(1.0, largest), equal_nan=True)
