"""Everything here that torch keeps private: no other file uses a name of torch's that begins with an underscore.

(``torch._foreach_…`` do, but they are documented.) `NAMES` lists them all; a test fails as soon as a release of torch
has taken one away. Until somebody has mended it here, the library goes on where there is another way to be right: it
makes a check that was not needed (`under_functorch`, `any_autocast`), or skips a shortcut (`has_hooks`); what cannot
be done without (lanes, ``fully_shard``) it refuses in one line. What no module, optimizer or loader could be without
is taken as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as ConvBase
from torch.nn.modules.dropout import _DropoutNd as DropoutBase
from torch.optim import Optimizer
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode
from torch.utils.data import DataLoader

from torchshrink.errors import CannotStackError, SelectionError
from torchshrink.support.compiling import program_of_its_own

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

__all__ = [
    "ConvBase",
    "DispatchMode",
    "DropoutBase",
    "HigherOrderOperator",
    "NormBase",
    "OpOverload",
    "any_autocast",
    "apply_to_tensors_",
    "buffers_of",
    "children_of",
    "compiled",
    "decomposed",
    "end_workers",
    "fsdp_parameters",
    "has_gradient_hooks",
    "has_hooks",
    "has_step_hooks",
    "hooks_before_forward",
    "is_batched",
    "is_composite",
    "parameters_of",
    "pytree",
    "steps_under_way",
    "unbatched",
    "uncompiled",
    "under_functorch",
    "version_of",
    "without_onednn",
    "without_vmap_fallback",
]

_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_GRADIENT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_FALLBACK = ("_is_vmap_fallback_enabled", "_set_vmap_fallback_enabled")
_DISPATCH = ("_dispatch_has_kernel_for_dispatch_key",)
_COMPOSITE = "CompositeImplicitAutograd"
_ONEDNN = ("_get_mkldnn_enabled", "_set_mkldnn_enabled")

NAMES: Mapping[str, tuple[str, ...]] = {
    "torch._C": ("_are_functorch_transforms_active", "_is_any_autocast_enabled", *_DISPATCH, *_ONEDNN),
    "torch._C._functorch": ("is_batchedtensor", "is_functorch_wrapped_tensor", "get_unwrapped", *_FALLBACK),
    "torch._decomp": ("decomposition_table", "decompositions"),
    "torch._dynamo.convert_frame": ("compile_lock",),
    "torch._inductor": ("compile",),
    "torch._subclasses": ("FakeTensorMode",),
    "nn.Module": ("_parameters", "_buffers", "_modules", "_apply", *_MODULE_HOOKS),
    "Optimizer": ("profile_hook_step", *_STEP_HOOKS),
    "Tensor": ("_version", *_GRADIENT_HOOKS),
    "DataLoader": ("_iterator",),
}
"""What is used of whom. Beyond these: ``_shutdown_workers`` of a loader's iterator, and what ``fully_shard`` keeps."""


# --- modes ---


def _yes(*_: object) -> bool:
    return True


under_functorch: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", _yes)
"""Whether this runs inside a transform of ``torch.func``. Where torch does not say: always, which costs time only."""

any_autocast: Callable[[], bool] = getattr(torch._C, "_is_any_autocast_enabled", _yes)
"""Whether ``torch.autocast`` may be on for some device; to be asked of each then."""

is_batched: Callable[[Tensor], bool] = getattr(getattr(torch._C, "_functorch", None), "is_batchedtensor", _yes)
"""Whether a tensor is one of vmap's, which has no value to be read. Where torch does not say: it is not read."""


def unbatched(tensor: Tensor) -> Tensor | None:
    """The tensor of all of vmap's slices, whose values may be read; None where there is none, or torch does not say."""
    functorch: Any = getattr(torch._C, "_functorch", None)
    unwrap: Callable[[Tensor], Tensor] | None = getattr(functorch, "get_unwrapped", None)
    if unwrap is None:
        return None
    while is_batched(tensor):
        tensor = unwrap(tensor)
    return None if functorch.is_functorch_wrapped_tensor(tensor) else tensor


def is_composite(operator: OpOverload) -> bool:
    """Whether an operator is made of others, into which ``run_decompositions`` takes it apart."""
    return bool(getattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", _yes)(operator.name(), _COMPOSITE))


@contextlib.contextmanager
def without_vmap_fallback() -> Iterator[None]:
    """Inside, an operation that has no batching rule is an error, and not done one lane after another.

    Raises:
        CannotStackError: this torch has no such switch.
    """
    with _off(getattr(torch._C, "_functorch", None), _FALLBACK, "a switch for vmap's fallback"):
        yield


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """Inside, operations on the CPU are torch's own.

    Raises:
        CannotStackError: this torch has no such switch.
    """
    with _off(torch._C, _ONEDNN, "a switch for oneDNN"):
        yield


@contextlib.contextmanager
def _off(owner: object, names: tuple[str, str], what: str) -> Iterator[None]:
    """A switch of torch's, (asks, sets) by name, off inside, and as it was outside."""
    is_enabled, enable = (getattr(owner, name, None) for name in names)
    if is_enabled is None or enable is None:
        raise CannotStackError(_lacks(what))
    enabled = is_enabled()
    enable(False)
    try:
        yield
    finally:
        enable(enabled)


def decomposed(operator: Any) -> Callable[..., Any]:
    """An operation of ``torch.ops`` as a function of simpler ones.

    Raises:
        CannotStackError: this torch has none for it.
    """
    try:
        # Imported here: it takes a second to load. The second import fills what the first one names.
        from torch._decomp import decomposition_table, decompositions  # noqa: F401

        function: Callable[..., Any] = decomposition_table[operator]
    except (ImportError, KeyError) as error:
        raise CannotStackError(_lacks(f"a decomposition of {operator}")) from error
    return function


def _lacks(what: str) -> str:
    return f"torch {torch.__version__} has not {what} where torchshrink looks for it"


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """A function that changes tensors in place, as one program for tensors like those of its first call.

    Like ``torch.compile`` without its guards, whose Python around each call takes as long as the step of a small model:
    the caller sees to it that types and devices stay. Other shapes and strides are an error, before anything is
    changed. Where torch has no such way: ``torch.compile``.
    """
    program: Callable[..., None] | None = None

    def called(*tensors: Tensor) -> None:
        nonlocal program
        if program is None:
            program = _compiled(function, tensors)
        program(*tensors)

    return called


def _compiled(function: Callable[..., None], tensors: Sequence[Tensor]) -> Callable[..., None]:
    try:  # imported here: they load the compiler
        from torch._dynamo.convert_frame import compile_lock
        from torch._inductor import compile as compile_graph
        from torch._subclasses import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import ShapeEnv
    except ImportError:
        return torch.compile(program_of_its_own(function), dynamic=False, fullgraph=True)
    with compile_lock:  # what traces is the whole process's, of which other threads may be compiling too
        mode = FakeTensorMode(shape_env=ShapeEnv())  # without an environment of shapes, torch keeps no program on disk
        like = [mode.from_tensor(each, static_shapes=True) for each in tensors]
        graph = make_fx(torch.func.functionalize(function, remove="mutations"))(*like)
        program: Callable[..., None] = compile_graph(graph, [*like])
    return program


# --- modules, optimizers, loaders ---


def parameters_of(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    """A module's own parameters by name, as they are registered."""
    return module._parameters


def buffers_of(module: nn.Module) -> Mapping[str, Tensor | None]:
    """A module's own buffers by name, as they are registered."""
    return module._buffers


def children_of(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """A module's own children by name; one that has two names twice, unlike in ``named_children``."""
    return module._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """What ``torch.compile`` has wrapped, or the module itself."""
    inner = children_of(module).get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None
    return module if inner is None else inner


def apply_to_tensors_(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Put ``function`` of each parameter and buffer in its place, as ``module.to`` does; the parameters stay."""
    module._apply(function)


def version_of(tensor: Tensor) -> int:
    """How often a tensor has been changed in place."""
    return tensor._version


def hooks_before_forward(module: nn.Module) -> list[Any]:
    """What runs before a module's forward pass."""
    return [*module._forward_pre_hooks.values()]


def has_hooks(module: nn.Module) -> bool:
    """Whether something is hooked into a module's own passes."""
    return _any(module, _MODULE_HOOKS)


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether something is hooked into an optimizer's step."""
    return _any(optimizer, _STEP_HOOKS)


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Whether something is hooked into a parameter's gradient."""
    return _any(parameter, _GRADIENT_HOOKS)


def _any(owner: object, names: tuple[str, ...]) -> bool:
    # What torch keeps elsewhere cannot be seen to be empty.
    return any(bool(getattr(owner, name, True)) for name in names)


def end_workers(loading: DataLoader[Any]) -> None:
    """End a loader's processes now: torch waits for the last reference, which a traceback may hold."""
    iterator = getattr(loading, "_iterator", None)
    if iterator is not None and loading.num_workers:
        end = getattr(iterator, "_shutdown_workers", None)
        if end is not None:  # else they end with the last reference
            end()


_HOOKED_STEP: CodeType = Optimizer.profile_hook_step(lambda optimizer: None).__code__


def steps_under_way(optimizer: Optimizer) -> int:
    """How many steps of this optimizer the caller is inside of. Torch wraps each: a wrapper's frame counts as one."""
    frame: FrameType | None = sys._getframe(1)
    depth = 0
    while frame is not None:
        if frame.f_code is _HOOKED_STEP and frame.f_locals["args"][0] is optimizer:
            depth += 1
        frame = frame.f_back
    return depth


# --- fully_shard ---


def fsdp_parameters(module: FSDPModule) -> list[Any]:
    """The records of the parameters that ``fully_shard`` manages for a module: each has a ``sharded_param``.

    Raises:
        SelectionError: they are not where they have been from torch 2.6 on.
    """
    get_state = getattr(module, "_get_fsdp_state", None)
    state = None if get_state is None else vars(get_state())
    if state is not None and "_fsdp_param_groups" in state:
        groups = state["_fsdp_param_groups"]
    elif state is not None and "_fsdp_param_group" in state:  # one at most, in older releases
        groups = [group for group in [state["_fsdp_param_group"]] if group is not None]
    else:
        raise SelectionError(_lacks("the parameters of fully_shard") + "; use DistributedDataParallel")
    return [record for group in groups for record in group.fsdp_params]
