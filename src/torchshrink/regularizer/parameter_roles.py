"""What each parameter is to the module that owns it.

A parameter is judged by the module that owns it and by tensor identity, never by its number of dimensions alone:

- a *bias*: the word ``bias`` stands between underscores in its own name (``bias``, ``in_proj_bias``, ``bias_ih_l0``);
- a *normalisation weight*: its owner is one of torch's normalisation modules, or has "norm" in its class's name
  (``LlamaRMSNorm``) and the parameter runs along one dimension;
- a *raw 1-d parameter*: at most one dimension and no weight of a torch layer (a LayerScale gain, a
  temperature, PReLU's slope);
- *reparametrised*: the owner's weight is computed from it (``torch.nn.utils.parametrize``, ``weight_norm``,
  ``spectral_norm``, ``prune``), so that to penalise it is not to penalise the weight;
- everything else is a *weight*, embeddings included.

A module that only keeps parameters for another (``ParameterList``, ``ParameterDict``, a parametrization) is looked
through: their owner is the module that it is part of. A tied tensor that is a weight somewhere is a weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from torchshrink.errors import SelectionError
from torchshrink.support.private_torch import ConvBase, NormBase, buffers_of, children_of, parameters_of

Kind = Literal["weight", "embedding", "bias", "normalisation", "raw", "reparametrised"]

_NORMS = (NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Torch's layers whose "…weight…" is a weight however many dimensions it has (a flattened shard has one).
_LAYERS = (nn.Linear, ConvBase, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, *EMBEDDINGS)
_KEEPERS = (nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True, eq=False)
class Place:
    """One name of a parameter. A tied parameter has several."""

    name: str
    parameter: nn.Parameter
    holder: nn.Module  # the module that it is registered in
    owner: nn.Module  # the same, with ParameterList, ParameterDict and parametrizations looked through
    label: str  # the name of the owner's tensor that it is or goes into
    computed_by: str  # what computes that tensor from it; empty where it is that tensor


def tensors_of(model: nn.Module) -> list[tuple[Place, ...]]:
    """The names of every distinct parameter tensor, in model order."""
    tensors: dict[int, list[Place]] = {}
    for place in _walk("", (("", model),)):
        if is_lazy(place.parameter):
            raise SelectionError(
                f"{place.name!r} of {type(place.owner).__name__} has no shape yet: run one forward pass first"
            )
        tensors.setdefault(id(place.parameter), []).append(place)
    return [tuple(places) for places in tensors.values()]


_Path = tuple[tuple[str, nn.Module], ...]  # (name, module) from the model down to a module


def _walk(prefix: str, path: _Path) -> Iterator[Place]:
    # named_parameters(remove_duplicate=False) would not end on a module that refers back to one above it.
    module = path[-1][1]
    for leaf, parameter in parameters_of(module).items():
        if parameter is not None:
            yield _place(prefix + leaf, leaf, parameter, path)
    for leaf, child in children_of(module).items():
        if child is not None and all(child is not above for _, above in path):
            yield from _walk(f"{prefix}{leaf}.", (*path, (leaf, child)))


def _place(name: str, leaf: str, parameter: nn.Parameter, path: _Path) -> Place:
    holder = path[-1][1]
    for (_, host), _, (tensor, kept) in zip(path, path[1:], path[2:], strict=False):
        if isinstance(kept, ParametrizationList):  # host.parametrizations.tensor
            return Place(name, parameter, holder, host, tensor, " ∘ ".join(type(step).__name__ for step in kept))
    while len(path) > 1 and isinstance(path[-1][1], _KEEPERS):
        leaf = f"{path[-1][0]}_{leaf}"
        path = path[:-1]
    owner = path[-1][1]
    base, _, suffix = leaf.rpartition("_")
    # Hooks of the older kind leave the computed tensor behind as a plain attribute, and its ingredients as X_…
    if suffix in ("g", "v", "orig") and isinstance(vars(owner).get(base, buffers_of(owner).get(base)), Tensor):
        if suffix != "orig":
            by = "weight_norm"
        else:
            by = "prune" if f"{base}_mask" in buffers_of(owner) else "spectral_norm"
        return Place(name, parameter, holder, owner, base, by)
    return Place(name, parameter, holder, owner, leaf, "")


def role_of(place: Place) -> tuple[Kind, str]:
    """What a parameter is to its owner, and why WEIGHTS leaves it out (empty where it does not)."""
    owner, shape, words = place.owner, place.parameter.shape, place.label.lower().split("_")
    if "bias" in words or "biases" in words:
        return "bias", "bias"
    if isinstance(owner, _NORMS) and place.label == "weight":
        return "normalisation", "normalisation weight"
    if not (isinstance(owner, _LAYERS) and "weight" in words):
        if _is_gain_of_custom_norm(owner, shape):
            return "normalisation", "normalisation weight"
        if len(shape) <= 1:
            return "raw", f"raw {len(shape)}-d parameter"
    if place.computed_by:
        return "reparametrised", f"reparametrised: {place.computed_by} computes {place.label!r} from it"
    return ("embedding" if isinstance(owner, EMBEDDINGS) else "weight"), ""


def _is_gain_of_custom_norm(owner: nn.Module, shape: Sequence[int]) -> bool:
    names = [name.lower() for name in class_names(owner)]
    if len(shape) <= 1:
        return any("norm" in name for name in names)
    # (1, C, 1, 1) is a gain per channel where the class is some …Norm or …Norm2d, not a NormalizedLinear.
    return sum(size != 1 for size in shape) <= 1 and any(re.search(r"norm(\dd)?$", name) for name in names)


def class_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's class and of those that it derives from."""
    return tuple(cls.__name__ for cls in type(module).__mro__ if cls is not object)
