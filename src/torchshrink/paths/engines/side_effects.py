"""Finds what a forward pass leaves in its model other than by writing into existing tensors: a stack would lose it.

A stack holds each lane's parameters and buffers and hands them to one model's code. What this code puts in the place
of a buffer, or keeps as a tensor of its own, is all lanes' at once, or is gone after the pass; the model that is
trained alone goes on with it. It may begin late, so every step looks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import final

from torch import Tensor, nn

from torchshrink.errors import CannotStackError
from torchshrink.paths.shared_state import SharedState, tensors_in
from torchshrink.support.private_torch import DropoutBase

_TORCHS_OWN = frozenset((*vars(nn.Module()), "_flat_weights"))  # a module's tables and its mode; of recurrent layers


@final
class Watch:
    """Remembers which tensors a model holds, as objects, and which its code keeps elsewhere.

    Args:
        model: before any pass.
        loss: whose code is run too.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., object] | None = None) -> None:
        self._model = model
        self._shared = SharedState(model, loss)
        self._registered, self._kept = _registered(model), dict(_of_modules(model))

    def check(self) -> None:
        """Raise if a pass has left other tensors in the model than were there, or elsewhere.

        What is elsewhere, as in a class, is put back: the models that are trained alone would meet it.

        Raises:
            CannotStackError: naming the first.
        """
        if (place := self._shared.changed()) is not None:
            self._shared.put_back()
            raise CannotStackError(f"the model's code keeps something from one pass to the next, in {place}")
        now = _registered(self._model)
        for name in self._registered | now:
            if self._registered.get(name) is not now.get(name):
                raise made_anew(name)
        for name, each in _of_modules(self._model):
            known = self._kept.get(name)
            if known is not each and not (isinstance(each, int) and known == each):
                raise CannotStackError(f"the model keeps something from one pass to the next, in {name}")

    @contextlib.contextmanager
    def over_a_pass(self) -> Iterator[None]:
        """`check` after what is inside, and put back what is elsewhere if that fails."""
        try:
            yield
        except BaseException:
            self._shared.put_back()
            raise
        self.check()


def made_anew(name: str) -> CannotStackError:
    """That a parameter or buffer is another object after a pass."""
    return CannotStackError(f"{name}: the model makes it anew in its forward pass, which a stack does not see")


def _registered(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _of_modules(model: nn.Module) -> Iterator[tuple[str, object]]:
    """The tensors that modules hold outside of their tables, and of long containers the lengths."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn.modules."):
            continue  # their code is known
        for key, value in vars(module).items():
            if key not in _TORCHS_OWN:
                yield from tensors_in(f"{name}.{key}" if name else key, value)


def without_dropout(model: nn.Module) -> nn.Module:
    """``model`` with every dropout module's probability at 0."""
    for module in model.modules():
        if isinstance(module, DropoutBase):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
    return model
