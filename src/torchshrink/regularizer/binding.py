"""Whether a model is still the one that terms were bound to: modules and parameters may be replaced, added, thawed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import nn

from torchshrink.errors import AttachmentError, InputError
from torchshrink.regularizer.selection import Choice
from torchshrink.regularizer.terms import Term, holder_of
from torchshrink.support.private_torch import children_of, parameters_of


@final
class Binding:
    """What a model looked like when terms were bound to it.

    Args:
        model: the model, without what wraps it.
        choices: of every parameter that it had.
        terms: of those that are penalised.
    """

    def __init__(self, model: nn.Module, choices: Sequence[Choice], terms: Sequence[Term]) -> None:
        self._model = model
        self._choices = choices
        self._links = _links(model, [term.name for term in terms])
        self._places = [(term, term.holder, term.name.rpartition(".")[2], term.parameter) for term in terms]

    def check(self) -> None:
        """Raise if a penalised parameter, or a module that holds one, has been replaced or removed.

        Raises:
            AttachmentError: naming it.
        """
        for parent, key, child, name in self._links:
            if children_of(parent).get(key) is not child:
                raise AttachmentError(
                    f"{name}: this module has been replaced since its parameters were bound; "
                    "make a new Regularizer, after the replacement, and detach this one."
                )
        for term, holder, key, parameter in self._places:
            if parameters_of(holder).get(key) is not parameter:
                term.check_alive()

    def added(self) -> list[tuple[str, nn.Parameter]]:
        """The trainable parameters that the model has now and did not have then, with their names."""
        names = {name for choice in self._choices for name in (choice.name, *choice.aliases)}
        known = {id(choice.parameter) for choice in self._choices}
        now = self._model.named_parameters()
        return [(name, p) for name, p in now if p.requires_grad and name not in names and id(p) not in known]

    def thawed(self) -> list[str]:
        """The names of the parameters that were frozen then and are trainable now."""
        return [c.name for c in self._choices if c.reason == "frozen" and c.parameter.requires_grad]

    def drift(self) -> tuple[str, ...]:
        """What has changed so that the rules, applied now, might penalise more: one sentence each."""
        added, thawed = [name for name, _ in self.added()], self.thawed()
        again = "no penalty acts on it; detach(), make a new Regularizer and attach that"
        return (
            *((f"{_listed(added)}: added to the model after binding, so {again}",) if added else ()),
            *((f"{_listed(thawed)}: frozen at binding and unfrozen since, so {again}",) if thawed else ()),
        )


def _links(model: nn.Module, names: Sequence[str]) -> list[tuple[nn.Module, str, nn.Module, str]]:
    """Parent, key, child and the child's name, once for each module on the way to the parameters of these names."""
    paths: Mapping[str, None] = dict.fromkeys(
        ".".join(parts[:end]) for parts in (name.split(".") for name in names) for end in range(1, len(parts))
    )
    return [(holder_of(model, path), path.rpartition(".")[2], model.get_submodule(path), path) for path in paths]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_differentiable(parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Raise where a parameter was made inside ``torch.inference_mode()``, of which torch takes no gradient.

    Raises:
        InputError: naming the first.
    """
    for name, p in parameters:
        if p.is_inference():
            raise InputError(
                f"{name} was made inside torch.inference_mode(), so it can have no gradient: make the model outside"
            )
