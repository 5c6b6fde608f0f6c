"""The operators of a model in evaluation mode, as ``torch.export`` sees them, and whose tensors they use."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from torchshrink.errors import InputError
from torchshrink.shrinking.program import frames as frames
from torchshrink.shrinking.program import program_of
from torchshrink.shrinking.program import quiet as quiet
from torchshrink.shrinking.valid_sizes import guards, ranges
from torchshrink.support.private_torch import pytree
from torchshrink.support.storage import brief


@dataclass(frozen=True)
class Trace:
    """What `trace` found.

    Args:
        graph: operators in the order of execution.
        tensors: the model's tensor behind a placeholder of the graph.
        names: by placeholder, the first name of this parameter or buffer in the model; tied ones share it.
        inputs: placeholders of the model's inputs.
        args: the example, with at least two rows.
        kwargs: its keyword arguments.
        ranges: for which input sizes the trace holds, where that is not every size.
        guards: the same as conditions on the symbols of its sizes.
        bare: linear and convolution modules without a bias, in which one could be made.
        grouped: modules that keep a number of groups.
        plain: whether the operators are as the model calls them.
        open_dims: how many leading dimensions of the inputs have sizes that are open; None: all that can.
        moved: names of the parameters and buffers that a call changes.
        unsaved: names of the buffers that ``state_dict`` leaves out.
        held: by name, what the graph holds beside operators: bodies of control flow.
        structure: how the outputs are put together: keys, lengths and classes.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    inputs: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    ranges: tuple[str, ...]
    guards: tuple[Any, ...]
    bare: frozenset[str]
    grouped: frozenset[str]
    plain: bool
    open_dims: int | None
    moved: frozenset[str] = frozenset()
    unsaved: frozenset[str] = frozenset()
    held: Mapping[str, Any] = field(default_factory=dict)
    structure: Any = None


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy; what old weight_norm and prune compute are attributes that deepcopy refuses: detached here.

    Raises:
        InputError: something in the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # of whatever kind the model's attributes raise
        raise InputError(
            f"{type(model).__name__} cannot be copied ({brief(error)}), and a copy is what becomes smaller: take out "
            "what its forward does not need, or give what it is in a __deepcopy__"
        ) from error


def tensor_names(model: nn.Module) -> dict[int, str]:
    """The first name of each parameter and buffer, by identity."""
    names: dict[int, str] = {}
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            names.setdefault(id(tensor), name)
    return names


def arguments(example: object, *, repeat: bool = True) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as positional and keyword arguments; one row is repeated to two, so that rows stay any number."""
    args = example if isinstance(example, tuple | list) else () if isinstance(example, dict) else (example,)
    kwargs = dict(example) if isinstance(example, dict) else {}
    tensors = [value for value in pytree.tree_leaves((tuple(args), kwargs)) if isinstance(value, Tensor)]
    if not tensors:
        raise InputError(
            f"shrink: example is {type(example).__name__} without a tensor, the model's input expected: "
            "a tensor, a tuple of arguments, or a dict of keyword arguments"
        )
    one = repeat and all(tensor.ndim and tensor.shape[0] == 1 for tensor in tensors)

    def twice(value: Any) -> Any:  # a copy in any case: a model that works in place changes its input
        if not isinstance(value, Tensor):
            return value
        return torch.cat([value, value]) if one else value.detach().clone()

    return pytree.tree_map(twice, tuple(args)), pytree.tree_map(twice, kwargs)


def trace_example(model: nn.Module, example: object, *, plain: Callable[[fx.Graph], bool] | bool) -> Trace:
    """`trace` on the `arguments` that an example is; where the model does not take one row twice, on it as it is.

    Raises:
        InputError: torch cannot export it; the message names the place.
    """
    (args, kwargs), own = arguments(example), arguments(example, repeat=False)
    shapes = [
        [one.shape for one in pytree.tree_leaves(each) if isinstance(one, Tensor)] for each in ((args, kwargs), own)
    ]
    if shapes[0] == shapes[1]:
        return trace(model, args, kwargs, plain=plain)
    try:
        return trace(model, args, kwargs, plain=plain)
    except InputError:  # the first dimension is not one of rows, as that of an image without a batch
        return trace(model, *own, plain=plain)


def trace(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    plain: Callable[[fx.Graph], bool] | bool,
    open_dims: int | None = None,
) -> Trace:
    """Trace ``model``, which is in evaluation mode, on these arguments.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        plain: whether the operators can stay as the model calls them; where not, in-place ones are made functional and
            composite ones are taken apart, which takes as long as tracing.
        open_dims: how many leading dimensions of the inputs may have open sizes: all (None), the rows (1), none (0).

    Raises:
        InputError: torch cannot export it; the message names the place.
    """
    program, whole, left_open = program_of(model, args, dict(kwargs), plain=plain, most_open=open_dims)
    identity = tensor_names(model)
    found: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    inputs = []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for spec in program.graph_signature.input_specs:
        place, target = spec.arg.name, spec.target or ""
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(place)
            continue
        tensor = parameters.get(target, buffers.get(target))
        if tensor is None:
            constant = program.constants.get(target)
            if isinstance(constant, Tensor):
                found[place] = constant
            continue
        found[place], names[place] = tensor, identity[id(tensor)]
    conditions = guards(program)
    bare = frozenset(
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and module.bias is None
    )
    grouped = frozenset(
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.GroupNorm | nn.modules.conv._ConvNd | nn.modules.instancenorm._InstanceNorm)
    )
    graph = program.graph_module.graph
    spans = tuple(ranges(program, conditions))
    moved = frozenset(
        identity[id({**parameters, **buffers}[spec.target])]
        for spec in program.graph_signature.output_specs
        if spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION")  # the second is not in every torch
    )
    saved = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    return Trace(
        graph=graph,
        tensors=found,
        names=names,
        inputs=tuple(inputs),
        args=args,
        kwargs=kwargs,
        ranges=spans,
        guards=conditions,
        bare=bare,
        grouped=grouped,
        plain=whole,
        open_dims=left_open,
        moved=moved,
        unsaved=frozenset(name for place, name in identity.items() if place not in saved),
        held={
            str(node.target): attrgetter(str(node.target))(program.graph_module)
            for node in graph.nodes
            if node.op == "get_attr"
        },
        structure=program.call_spec.out_spec,
    )


def module_of(node: fx.Node) -> str:
    """The path of the module that called an operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return re.sub(r"@\d+", "", stack[-1][0]) if stack else ""


def place_of(node: fx.Node) -> str:
    """File and line of the model's code that called an operator, or the operator's name."""
    lines = re.findall(r'File "(.*)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [line for line in lines if "/torch/nn/" not in line[0]]
    if not own:
        return node.name
    return f"{own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]}"
