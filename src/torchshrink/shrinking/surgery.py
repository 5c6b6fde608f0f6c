"""The plan applied to a copy: tensors are indexed, the modules' sizes follow, classes stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink.shrinking.plan import Plan
from torchshrink.shrinking.trace import copy_model, tensor_names
from torchshrink.support.private_torch import buffers_of, parameters_of

_OF_WEIGHTS = (
    "weight",
    "weight_orig",
    "weight_v",
    "parametrizations.weight.original",
    "parametrizations.weight.original1",
)


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """A smaller copy of ``model``; ties, dtypes, devices, ``requires_grad`` and the training flags are kept."""
    copy = copy_model(model)
    names = tensor_names(copy)
    tensors = {name: tensor for tensor, name in _named(copy, names)}
    replace(copy, {name: _cut(name, tensor, plan) for name, tensor in tensors.items() if _touched(name, plan)})
    for fold in plan.folds:
        if fold.made:
            _make_bias(copy, fold.bias, plan)
    resize(copy, plan.groups or {})
    _named_sizes(model, copy)
    return copy


def replace(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Put these numbers in the place of parameters and buffers, by the first of their names; ties stay tied."""
    names = tensor_names(model)
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for store in (parameters_of(module), buffers_of(module)):
            for key, old in list(store.items()):
                if old is not None and names.get(id(old)) in tensors:
                    if id(old) not in made:
                        made[id(old)] = _like(old, tensors[names[id(old)]])
                    setattr(module, key, made[id(old)])
    return model


def _named(model: nn.Module, names: Mapping[int, str]) -> list[tuple[Tensor, str]]:
    found = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return [(tensor, names[place]) for place, tensor in found.items()]


def _touched(name: str, plan: Plan) -> bool:
    return name in plan.kept or any(f.bias == name for f in plan.folds) or any(m.weight == name for m in plan.merges)


def _cut(name: str, tensor: Tensor, plan: Plan) -> Tensor:
    data = tensor.detach()
    wide = data.double() if data.is_floating_point() else data
    for fold in plan.folds:
        if fold.bias == name:
            wide = wide + torch.tensor(fold.amounts, dtype=torch.float64, device=wide.device)
    for merge in plan.merges:
        if merge.weight == name:
            wide = wide.clone().movedim(merge.dim, 0)
            ratios = torch.tensor(merge.ratios, dtype=torch.float64, device=wide.device)
            columns = torch.tensor(merge.columns, device=wide.device)
            wide[merge.carrier] += torch.tensordot(ratios, wide[columns], dims=1)
            wide = wide.movedim(0, merge.dim)
    for dim, places in plan.kept.get(name, {}).items():
        wide = wide.index_select(dim, torch.tensor(places, dtype=torch.long, device=wide.device))
    return wide.to(data.dtype).contiguous()


def _like(tensor: Tensor, data: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data.clone(), requires_grad=tensor.requires_grad)
    return data.clone()


def _make_bias(model: nn.Module, name: str, plan: Plan) -> None:
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    (fold,) = [fold for fold in plan.folds if fold.bias == name]
    weight: Any = first_weight(module)
    rows = torch.tensor(fold.amounts, dtype=torch.float64, device=weight.device)
    kept = plan.kept.get(tensor_names(model).get(id(weight), ""), {})
    dim = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
    if dim in kept:
        rows = rows[list(kept[dim])]
    bias = nn.Parameter(rows.to(weight.dtype), requires_grad=weight.requires_grad)
    module.register_parameter(key, bias)


_SIZE_NAMES = ("in_features", "out_features", "in_channels", "out_channels", "num_features", "nx", "nf")


def _named_sizes(large: nn.Module, small: nn.Module) -> None:
    """Sizes that modules of other libraries keep under the usual names, where they are those of their own weight."""
    for before, after in zip(large.modules(), small.modules(), strict=True):
        weights = first_weight(before), first_weight(after)
        if type(before).__module__.startswith("torch.") or weights[0] is None or weights[1] is None:
            continue
        for name in _SIZE_NAMES:
            value = vars(before).get(name)
            new = {
                b for a, b in zip(weights[0].shape, weights[1].shape, strict=True) if type(value) is int and a == value
            }
            if len(new) == 1:
                setattr(after, name, new.pop())


def first_weight(module: nn.Module) -> Tensor | None:
    """A module's weight, under the names that pruning and parametrizations give it."""
    own = dict(module.named_parameters(remove_duplicate=False))
    return next((own[name] for name in _OF_WEIGHTS if name in own), None)


def resize(model: nn.Module, groups: Mapping[str, int]) -> None:
    """The sizes that modules of torch keep as attributes, read off their tensors."""
    for path, count in groups.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.GroupNorm):
            module.num_channels = module.num_channels // module.num_groups * count  # where no weight tells
            module.num_groups = count
        elif isinstance(module, nn.modules.conv._ConvNd):
            module.groups = count
        elif isinstance(module, nn.modules.instancenorm._InstanceNorm):  # without numbers of its own
            module.num_features = count
    for module in model.modules():
        weight = first_weight(module)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            known = weight if weight is not None else module.running_mean
            if known is not None:
                module.num_features = known.shape[0]
        elif weight is None:
            continue
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
        elif isinstance(module, nn.modules.conv._ConvNd):
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        elif isinstance(module, nn.GroupNorm):
            module.num_channels = weight.shape[0]
        elif isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = weight.shape
        elif isinstance(module, nn.PReLU):
            module.num_parameters = weight.shape[0]
