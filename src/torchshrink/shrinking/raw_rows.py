"""Chains that begin with a `Preprocess`: what encodes raw rows loses the columns that nothing behind it reads."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.models import Preprocess
from torchshrink.shrinking.comparison import outputs_apart
from torchshrink.shrinking.plan import Plan
from torchshrink.shrinking.surgery import apply
from torchshrink.shrinking.trace import copy_model

_BUFFERS = ("mean", "scale", "seen")


def begins_with_preprocess(model: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether it is a chain of modules of which the first encodes raw rows, as `ts.models.mlp` makes."""
    return type(model) is nn.Sequential and len(model) > 1 and type(model[0]) is Preprocess


def without_preprocess(model: nn.Sequential) -> tuple[Preprocess, nn.Sequential]:
    """The first module, and a chain of the others under their own names."""
    (_, first), *others = model.named_children()
    assert isinstance(first, Preprocess)
    return first, nn.Sequential(OrderedDict(others))


def with_preprocess(model: nn.Sequential, plan: Plan, *, inputs: bool) -> Plan:
    """The plan of the whole chain, from that of all behind the first module, whose input's features may have gone.

    Args:
        model: the whole chain, before.
        plan: of the chain behind.
        inputs: whether raw columns go of which no encoded one is left; else only what is encoded of them does.
    """
    (name, first), *_ = model.named_children()
    assert isinstance(first, Preprocess)
    if plan.inputs is None and not inputs:
        return plan
    encoded = tuple(range(first.outputs)) if plan.inputs is None else plan.inputs
    own = {} if plan.inputs is None else {f"{name}.{buffer}": {0: encoded} for buffer in _BUFFERS}
    columns = tuple(sorted({first.sources[place] for place in encoded}))
    fewer = inputs and len(columns) < len(first.sizes)
    return replace(plan, kept={**own, **plan.kept}, inputs=columns if fewer else None)


def apply_to_chain(model: nn.Module, plan: Plan) -> nn.Module:
    """`apply`, where the model begins with a `Preprocess` to that too.

    Raises:
        InputError: the plan keeps other encoded columns in one of its tensors than in another, or takes a raw column
            away that it keeps encoded.
    """
    if not begins_with_preprocess(model):
        return apply(model, plan)
    (name, first), *_ = model.named_children()
    assert isinstance(first, Preprocess)
    own = {f"{name}.{buffer}" for buffer in _BUFFERS}
    small = apply(model, replace(plan, kept={key: dims for key, dims in plan.kept.items() if key not in own}))
    kept = [plan.kept.get(key, {}).get(0) for key in sorted(own)]
    if any(each != kept[0] for each in kept):
        raise InputError(f"the plan keeps other columns of {name}.mean, {name}.scale and {name}.seen")
    if kept[0] is None and plan.inputs is None:
        return small
    encoded = tuple(range(first.outputs)) if kept[0] is None else kept[0]
    if plan.inputs is not None and not {first.sources[place] for place in encoded} <= set(plan.inputs):
        raise InputError("the plan's inputs lack a column that it keeps encoded")
    setattr(small, name, small.get_submodule(name).narrowed(encoded, plan.inputs))  # type: ignore[operator]
    return small


def raw_difference(large: nn.Sequential, plan: Plan, rows: Tensor) -> tuple[float, float, tuple[Tensor, ...]]:
    """The largest difference that a plan makes to the outputs, over the largest output or 1, in float64 if that runs.

    On the rows given, and on random ones of the kinds of their columns, of which some values are missing.

    Returns:
        The difference, the same in units of what rounding explains, and the rows on which it was looked for.
    """
    first = large[0]
    assert isinstance(first, Preprocess)
    wide, own = copy_model(large).double().eval(), rows.double()
    with torch.no_grad():
        try:
            wide(own)
        except Exception:  # code that asks for float32 by name
            wide, own = copy_model(large).eval(), rows
        small, worst, relative = apply_to_chain(wide, plan), 0.0, 0.0
        tried = (own, *(random_rows(first, count).to(own) for count in (64, 1)))
        for each in tried:
            taken = each if plan.inputs is None else each[:, list(plan.inputs)]
            apart = outputs_apart(wide(each), small(taken), exact=True)
            worst, relative = max(worst, apart[0]), max(relative, apart[1])
    return worst, relative, tried


def random_rows(first: Preprocess, count: int, *, missing: float = 0.1) -> Tensor:
    """Rows (count, d), float64: numbers with the means and twice the spreads that were fitted, and codes.

    Args:
        first: whose columns they have.
        count: how many.
        missing: the share of the values that are NaN.
    """
    generator = torch.Generator().manual_seed(0)
    fitted = zip(first.sources, zip(first.mean.tolist(), first.scale.tolist(), strict=True), strict=True)
    known = dict(fitted)
    made = []
    for column, size in enumerate(first.sizes):
        mean, scale = known.get(column, (0.0, 1.0))
        numbers = torch.randn(count, generator=generator, dtype=torch.float64) * 2 * scale + mean
        values = torch.randint(size, (count,), generator=generator).double() if size else numbers
        gone = torch.rand(count, generator=generator) < missing
        made.append(values.masked_fill(gone, torch.nan))
    return torch.stack(made, 1)
