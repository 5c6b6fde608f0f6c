"""Terms: penalties bound to parameters; what they sum to; and the scale that they share."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchshrink import distributed
from torchshrink.errors import AttachmentError, InputError
from torchshrink.penalties import Penalty
from torchshrink.support import private_torch
from torchshrink.support.precision import without_autocast
from torchshrink.support.text import shortened

Scale = float | Callable[[int], float]


@dataclass(frozen=True, eq=False)
class Term:
    """A penalty bound to one parameter.

    Attributes:
        name: the parameter's qualified name.
        parameter: the parameter itself.
        penalty: what acts on it, at scale 1.
        rule: the rule that bound them, as the user wrote it.
        holder: the module that has it among its own parameters.
        sharded: returns the parameter that ``fully_shard`` keeps while the module shows a gathered copy; None without.
    """

    name: str
    parameter: nn.Parameter
    penalty: Penalty
    rule: str
    holder: nn.Module
    sharded: Callable[[], nn.Parameter] | None = None

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.parameter.shape))
        return f"<Term: {shortened(str(self.penalty), 80)} on {shortened(self.name, 60)} ({shape})>"

    def check_alive(self) -> None:
        """Raise if the module's parameter is no longer the one that was bound, so that nothing acts on a ghost."""
        now = private_torch.parameters_of(self.holder).get(self.name.rpartition(".")[2])
        if now is self.parameter or (self.sharded is not None and self.sharded() is self.parameter):
            return
        if distributed.is_spread(now) and not distributed.is_spread(self.parameter):
            raise AttachmentError(
                f"{self.name}: sharding has replaced the model's parameter by a DTensor; make the Regularizer after "
                "fully_shard (or parallelize_module), and the optimizer too."
            )
        raise AttachmentError(
            f"{self.name}: the model's parameter is no longer the one that was bound (replaced, for example by "
            "load_state_dict(assign=True)); make a new Regularizer, after the replacement."
        )


def holder_of(model: nn.Module, name: str) -> nn.Module:
    """The module that has the parameter of this qualified name among its own."""
    return model.get_submodule(name.rpartition(".")[0])


class Schedule:
    """The scale that multiplies every strength, and the count of optimizer steps that a schedule depends on.

    Attributes:
        restorations: how often the count has been set from outside, as a resumed training does.
    """

    def __init__(self) -> None:
        self._scale: Scale = 1.0
        self._steps = 0
        self._skipped: Tensor | None = None  # steps in _steps that a device has skipped; read when somebody asks
        self.restorations = 0
        self._scaled: dict[int, tuple[Penalty, float, Penalty]] = {}
        self._sharers = 1
        self._round: set[object] = set()  # of several sharers, those that have stepped since the last count

    @property
    def scale(self) -> Scale:
        """A number ≥ 0, or a callable of the step count that returns one."""
        return self._scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        self._scale = scale if callable(scale) else _checked_scale(scale)

    @property
    def begun(self) -> bool:
        """Whether anybody has counted a step, or set the count."""
        return self._steps > 0 or bool(self._round) or self.restorations > 0

    @property
    def steps(self) -> int:
        """The optimizer's steps so far, without those that were skipped."""
        if self._skipped is not None:
            self._steps -= int(self._skipped.item())
            self._skipped = None
        return self._steps + bool(self._round)

    @steps.setter
    def steps(self, steps: int) -> None:
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise InputError(f"steps={steps!r}: expected an integer ≥ 0")
        self._steps, self._skipped = steps, None
        self._round.clear()
        self.restorations += 1

    def share(self, sharers: int) -> None:
        """Count the steps of several optimizers in rounds, in each of which none of them steps twice.

        Where they step in turn a round is a step of each; where one steps more often than the others, its steps are
        counted, and theirs fall into its rounds.
        """
        if self._round:
            self._close(None)
        self._sharers = sharers

    def begin(self, who: object) -> None:
        """``who``, one of the sharers, is about to step: a new round, where it has stepped in this one already."""
        if self._round and who in self._round:
            self._close(None)

    def advance(self, taken: Tensor | None = None, who: object = None) -> None:
        """Count a step of ``who``.

        ``taken``, a truth value on a device, says whether it took place; it is not waited for.
        """
        if self._sharers > 1:
            self._round.add(who)
            if len(self._round) < self._sharers:
                return
        self._close(taken)

    def _close(self, taken: Tensor | None) -> None:
        self._round.clear()
        self._steps += 1
        if taken is not None:
            skipped = taken.logical_not().long()
            self._skipped = skipped if self._skipped is None else self._skipped + skipped

    def factor(self) -> float:
        """The scale in force at this step."""
        return _checked_scale(self._scale(self._now())) if callable(self._scale) else self._scale

    def _now(self) -> int:
        """The step that the sharers are at: in a round that is not over, that which the first of them has taken."""
        return self.steps - bool(self._round)

    def scaled(self, penalty: Penalty) -> Penalty:
        """``penalty`` as it is in force: its own schedule at this step, its strength multiplied by the scale."""
        factor = self.factor()
        if penalty.scheduled:
            now = penalty.at_step(self._now())
            return now if factor == 1.0 else now.with_strength(now.strength * factor)
        if factor == 1.0:
            return penalty
        last = self._scaled.get(id(penalty))
        if last is None or last[0] is not penalty or last[1] != factor:  # an id comes back where a copy was made
            last = (penalty, factor, penalty.with_strength(penalty.strength * factor))
            self._scaled[id(penalty)] = last
        return last[2]


def _checked_scale(scale: Any) -> float:
    if isinstance(scale, Tensor) and scale.numel() == 1:
        scale = scale.item()
    known = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not known or not 0 <= float(scale) < math.inf:
        raise InputError(
            f"scale={scale!r}: expected a finite number ≥ 0, or a callable of the step count that returns one"
        )
    return float(scale)


Bundle = tuple[Penalty, list[Tensor]]


def bundles(pairs: Iterable[tuple[Penalty, Tensor]]) -> list[Bundle]:
    """Tensors under the same penalty, dtype and device together, in order of appearance."""
    together: dict[tuple[Penalty, torch.dtype, torch.device], list[Tensor]] = {}
    for penalty, w in pairs:
        together.setdefault((penalty, w.dtype, w.device), []).append(w)
    return [(penalty, tensors) for (penalty, _, _), tensors in together.items()]


def plain_value(bundled: Sequence[Bundle]) -> Tensor:
    """The sum of all terms by the penalties' own ``value``: the specification of `fused_value`."""
    whole = distributed.whole
    values = [penalty.with_state(whole).value(whole(w)) for penalty, tensors in bundled for w in tensors]
    return _sum(values)


def fused_value(bundled: Sequence[Bundle], watch: Callable[[], None] | None = None) -> Tensor:
    """The sum of all terms as one node of the autograd graph, which saves nothing but the weights themselves.

    ``watch`` is called whenever a gradient is taken through that node.

    Where one node cannot stand (under ``torch.compile``, which fuses by itself, and under ``torch.func`` transforms)
    it is the plain sum.
    """
    with without_autocast():
        if torch.compiler.is_compiling() or private_torch.under_functorch():
            return plain_value(bundled)
        weights = itertools.chain.from_iterable(tensors for _, tensors in bundled)
        layout = [(penalty, len(tensors)) for penalty, tensors in bundled]
        value: Tensor = _Value.apply(watch, layout, *weights)  # type: ignore[no-untyped-call]
        return value


def _sum(values: Sequence[Tensor]) -> Tensor:
    """The sum of scalars that may differ in dtype and device; on the first one's device, in the widest dtype."""
    out = values[0]
    for value in values[1:]:
        out = out + value.to(out.device)
    return out


class _Value(torch.autograd.Function):
    """Σ Ω(w) over all weights; backward is the closed form ∂Ω(w), itself differentiable."""

    @staticmethod
    def forward(
        ctx: Any, watch: Callable[[], None] | None, layout: list[tuple[Penalty, int]], *weights: Tensor
    ) -> Tensor:
        ctx.watch, ctx.layout = watch, layout
        ctx.save_for_backward(*weights)
        if len(layout) == 1:
            return distributed.total(layout[0][0], weights)
        rest = iter(weights)
        return _sum([distributed.total(penalty, list(itertools.islice(rest, n))) for penalty, n in layout])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if ctx.watch is not None:
            ctx.watch()
        grad_output = distributed.whole(grad_outputs[0])
        # On the CPU a number costs less than a tensor of one value, where no second derivative is asked for.
        number = grad_output.device.type == "cpu" and not grad_output.requires_grad
        factor: float | Tensor = grad_output.item() if number else grad_output
        rest = iter(ctx.saved_tensors)
        grads: list[Tensor] = []
        with without_autocast():
            for penalty, n in ctx.layout:
                tensors = list(itertools.islice(rest, n))
                here = factor.to(tensors[0].device) if isinstance(factor, Tensor) else factor
                grads += distributed.gradients(penalty, tensors, here)
        return None, None, *grads
