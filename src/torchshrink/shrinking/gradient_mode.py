"""Code may ask ``torch.is_grad_enabled()``, and layers of torch do: outputs are compared with gradients, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.shrinking.comparison import outputs_apart
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
    apart, relative = outputs_apart(expected, found, exact=False)
    return None if relative <= 1 else Mismatch((), f"the outputs differ by {apart:.1e} with gradients on")


def _call(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Of copies: a call may change the model and what it is given."""
    args, kwargs = pytree.tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, (args, kwargs))
    return copy_model(model)(*args, **kwargs)
