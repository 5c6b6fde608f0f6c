"""How many parameters a model has after shrinking, for many sets of weights: traced once, decided for each."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from torchshrink.shrinking.analysis import analyse
from torchshrink.shrinking.plan import decide
from torchshrink.shrinking.raw_rows import begins_with_preprocess, without_preprocess
from torchshrink.shrinking.rules import plain_enough
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import arguments, copy_model, trace


@final
class Sizes:
    """A model whose weights change, and how large it would be at each time; planned as `shrink` does, but not proved.

    Args:
        model: a copy of it is taken.
        example: its input (rows, …).

    Raises:
        InputError: the model cannot be traced.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = copy_model(model).eval()
        args, _ = arguments(example)
        self._rest, self._free = self.model, False
        if begins_with_preprocess(self.model) and args[0].ndim == 2:
            first, self._rest = without_preprocess(self.model)
            self._free = True
            with torch.no_grad():
                args = (first(*args),)
        self._trace = trace(self._rest, args, {}, plain=plain_enough)

    def parameters(self) -> int:
        """How many numbers the parameters have after shrinking, with the weights that `model` has now."""
        decision = decide(analyse(self._trace, inputs=self._free))
        return sum(parameter.numel() for parameter in apply(self._rest, decision.plan).parameters())
