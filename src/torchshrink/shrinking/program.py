"""What ``torch.export`` makes of a model, with as many sizes left open as can be, and without its messages."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchshrink.errors import InputError
from torchshrink.shrinking.valid_sizes import sizes
from torchshrink.support.private_torch import pytree
from torchshrink.support.storage import brief


@contextmanager
def quiet(*others: str) -> Iterator[None]:
    """torch.export warns of its own innards, and logs graphs, which a caller can do nothing about.

    Args:
        others: more packages that are to be quiet, beside torch.
    """
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        known = logging.root.manager.loggerDict
        for name in list(known):
            log = known[name]
            if name.partition(".")[0] in ("torch", *others) and isinstance(log, logging.Logger):
                stack.callback(setattr, log, "disabled", log.disabled)
                log.disabled = True
        yield


def exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> torch.export.ExportedProgram:
    """What ``torch.export.export`` makes of a model, without what it says of that: after a failure it prints graphs."""
    with quiet(), redirect_stderr(io.StringIO()), torch.no_grad():
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)


def program_of(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    plain: Callable[[fx.Graph], bool] | bool,
    most_open: int | None,
) -> tuple[Any, bool, int | None]:
    """torch.export's program of a model. Sizes stay open: all that can, else the rows, else none.

    Args:
        model: in evaluation mode.
        args: its arguments.
        kwargs: its keyword arguments.
        plain: whether its operators stay as the model calls them, or what decides that of a graph.
        most_open: how many leading dimensions may have open sizes; None: all.

    Returns:
        The program, whether its operators are as the model calls them, and how many leading dimensions are open.

    Raises:
        InputError: torch cannot export it; the message names the place.
    """
    failure: Exception | None = None
    tries = (None, 1, 0)
    for open_dims in tries[tries.index(most_open) :]:

        def shape(value: Any, dims: int | None = open_dims) -> Any:
            if not isinstance(value, Tensor):
                return None
            return dict.fromkeys(range(value.ndim if dims is None else min(dims, value.ndim)), torch.export.Dim.AUTO)

        shapes: Any = pytree.tree_map(shape, kwargs if kwargs else args)
        try:
            program = exported(model, args, kwargs, shapes)
            with quiet(), torch.no_grad():
                if open_dims is None and _reads_an_open_size(program.graph_module.graph):
                    continue  # a flattened image: only one size of it fits the layer that reads it
                keep = plain if isinstance(plain, bool) else plain(program.graph_module.graph)
                return program if keep else program.run_decompositions({}), keep, open_dims
        except Exception as error:  # whatever the model's code or torch.export raises
            failure = failure or error
    assert failure is not None
    raise InputError(
        f"shrink: torch.export cannot trace {type(model).__name__}{_place(failure)}: {brief(failure)}"
    ) from failure


_READERS = {"linear": 0, "addmm": 1, "mm": 0, "matmul": 0}  # which argument is read


def _reads_an_open_size(graph: fx.Graph) -> bool:
    """Whether a weight reads a dimension whose size torch.export left open."""
    for node in graph.nodes:
        place = _READERS.get(str(node.target).removeprefix("aten.").partition(".")[0])
        if place is not None and len(node.args) > place + 1:
            read, weight = node.args[place].meta["val"], node.args[place + 1]
            if weight.op == "placeholder" and not isinstance(sizes(read)[-1], int):
                return True
    return False


def frames(error: BaseException) -> list[str]:
    """Where an error came from, outermost first, in the words of a node's stack trace."""
    found = []
    step = error.__traceback__
    while step is not None:
        found.append(f'File "{step.tb_frame.f_code.co_filename}", line {step.tb_lineno}, ')
        step = step.tb_next
    return found


def _place(error: BaseException) -> str:
    own = [line for line in frames(error) if "/torch/" not in line and "/torchshrink/" not in line]
    match = re.match(r'File "(.*)", line (\d+), ', own[-1]) if own else None
    return f" (at {match[1].rsplit('/', 1)[-1]}:{match[2]})" if match else ""
