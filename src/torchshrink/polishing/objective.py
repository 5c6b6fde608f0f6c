"""F = mean loss + penalty as a function of one vector: values, gradients, kinks, second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certifying.full_data import FullLoss
from torchshrink.penalties import Penalty
from torchshrink.regularizer.certificate import Certificate, measure

_SEEDS = 2**23  # numbers that the second derivatives may take at once: 64 MiB


@dataclass(frozen=True, eq=False)
class Block:
    """One parameter within the vector of all."""

    name: str
    parameter: nn.Parameter
    penalty: Penalty | None  # None: nothing acts

    @property
    def smooth(self) -> bool:
        """Whether F is smooth in all of it."""
        return self.penalty is None or (self.penalty.smooth and not self.penalty.constraint)

    @property
    def kinked(self) -> bool:
        """Whether a coordinate that changes its sign meets a kink."""
        if self.penalty is None or self.smooth or self.penalty.bounds_support:
            return False
        return self.penalty.kinks == "coordinates"

    @property
    def grouped(self) -> bool:
        """Whether a group that turns around meets one."""
        return self.penalty is not None and not self.smooth and self.penalty.kinks == "groups"

    @property
    def exempt(self) -> Tensor:
        """The coordinates that the penalty leaves alone, shaped like the parameter."""
        found = None if self.penalty is None else self.penalty.exempt(self.parameter)
        return torch.zeros_like(self.parameter, dtype=torch.bool) if found is None else found

    @property
    def supported(self) -> bool:
        """Whether F is smooth in the coordinates that are not zero."""
        return self.smooth or self.kinked or self.grouped or (self.penalty is not None and self.penalty.bounds_support)


@dataclass(frozen=True, eq=False)
class State:
    """A point: the weights as one vector, the mean loss and its gradient there, and F."""

    w: Tensor
    loss: float
    grad: Tensor
    value: float


class Objective:
    """F as a function of one vector, in the dtype that the parameters have now."""

    def __init__(self, full: FullLoss, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self._full = full
        self._parameters = [block.parameter for block in blocks]
        self._sizes = [p.numel() for p in self._parameters]
        self.eps = max(torch.finfo(p.dtype).eps for p in self._parameters)
        exempt = torch.cat([block.exempt.reshape(-1) for block in blocks])
        self._smooth = self._flags(lambda block: block.smooth) | exempt
        self._held = self._flags(lambda block: block.supported and not block.smooth)
        self._kinked = self._flags(lambda block: block.kinked) & ~exempt

    def _flags(self, of: Callable[[Block], bool]) -> Tensor:
        parts = [
            p.new_full((p.numel(),), of(b), dtype=torch.bool)
            for b, p in zip(self.blocks, self._parameters, strict=True)
        ]
        return torch.cat(parts)

    def views(self, vector: Tensor) -> list[Tensor]:
        """The vector's parts, each in its parameter's shape."""
        parts = zip(torch.split(vector, self._sizes), self._parameters, strict=True)
        return [part.view(p.shape) for part, p in parts]

    def weights(self) -> Tensor:
        """The model's weights as a vector."""
        return torch.cat([p.detach().reshape(-1) for p in self._parameters])

    def set_weights(self, w: Tensor) -> None:
        """Put a vector's weights into the model."""
        with torch.no_grad():
            for p, part in zip(self._parameters, self.views(w), strict=True):
                p.copy_(part)

    def at(self, w: Tensor) -> State:
        """Evaluate; one pass over all the data."""
        self.set_weights(w)
        loss, grads = self._full.gradient(self._parameters)
        acting = zip(self.blocks, self.views(w), strict=True)
        value = loss + math.fsum(float(b.penalty.value(v)) for b, v in acting if b.penalty is not None)
        return State(w, loss, torch.cat([g.reshape(-1) for g in grads]), value)

    def rounding(self, state: State) -> float:
        """By how much two values of F may differ and mean the same."""
        return 8 * self.eps * (abs(state.loss) + abs(state.value - state.loss))

    def prox(self, z: Tensor, step: float) -> Tensor:
        """The prox of every block's penalty; a block whose penalty has none is as it was after its gradient."""
        parts = [
            v if b.penalty is None or b.penalty.prox_steps == "none" else b.penalty.prox(v, step)
            for b, v in zip(self.blocks, self.views(z), strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    def pull(self, w: Tensor, *, only_without_prox: bool = False) -> Tensor:
        """∂Ω(w), zero where nothing acts."""
        parts = [
            torch.zeros_like(v)
            if b.penalty is None or (only_without_prox and b.penalty.prox_steps != "none")
            else b.penalty.grad(v)
            for b, v in zip(self.blocks, self.views(w), strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    def free(self, w: Tensor) -> Tensor:
        """1 for each coordinate in which F is smooth around ``w``, 0 for the others."""
        return (self._smooth | (self._held & (w != 0))).to(w.dtype)

    def crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """``after``, with what went through a kink stopped there: coordinates, and groups that turned around."""
        stopped = torch.where(self._kinked & (before * after < 0), 0.0, after)
        for block, old, new in zip(self.blocks, self.views(before), self.views(stopped), strict=True):
            groups = block.penalty.groups(new.shape) if block.penalty is not None and block.grouped else None
            if groups is not None:
                turned = groups.spread(groups.total(old * new)) < 0
                new.copy_(torch.where(turned & ~block.exempt, 0.0, new))  # a view of ``stopped``
        return stopped

    def hessian(self, w: Tensor, free: Tensor) -> Tensor | None:
        """F's second derivatives among the free coordinates (m, m), symmetric; None where torch cannot take them."""
        self.set_weights(w)
        at = free.nonzero().flatten()
        rows = torch.zeros(len(at), len(at), dtype=w.dtype, device=w.device)
        try:
            with torch.enable_grad():
                for part in self._full.parts():
                    rows += self._rows(part, at)
                smooth = [b.penalty.value(b.parameter) for b in self.blocks if b.supported and b.penalty is not None]
                if smooth:
                    rows += self._rows(torch.stack(smooth).sum(), at)
        except RuntimeError:  # some layers have no second derivative, others no batched one
            return None
        return (rows + rows.mT) / 2 if bool(rows.isfinite().all()) else None

    def _rows(self, value: Tensor, at: Tensor) -> Tensor:
        grads = torch.autograd.grad(value, self._parameters, create_graph=True, materialize_grads=True)
        flat = torch.cat([g.reshape(-1) for g in grads])
        if not flat.requires_grad:
            return torch.zeros(len(at), len(at), dtype=flat.dtype, device=flat.device)
        rows = []
        for some in torch.split(at, max(1, min(64, _SEEDS // len(flat)))):
            seeds = torch.zeros(len(some), len(flat), dtype=flat.dtype, device=flat.device)
            seeds[torch.arange(len(some)), some] = 1
            seconds = torch.autograd.grad(
                flat, self._parameters, seeds, retain_graph=True, is_grads_batched=True, allow_unused=True
            )
            parts = [
                seeds.new_zeros(len(some), p.numel()) if h is None else h.reshape(len(some), -1)
                for h, p in zip(seconds, self._parameters, strict=True)
            ]
            rows.append(torch.cat(parts, dim=1)[:, at])
        return torch.cat(rows)

    def certificate(self, state: State) -> Certificate:
        """How far from stationarity a point is."""
        named = [(b.name, v, b.penalty) for b, v in zip(self.blocks, self.views(state.w), strict=True)]
        return measure(named, self.views(state.grad), loss=state.loss)

    @property
    def needs_prox(self) -> bool:
        """Whether some block is moved by proximal steps alone."""
        return not all(block.supported for block in self.blocks)

    @property
    def has_every_prox(self) -> bool:
        """Whether each penalty has a prox."""
        return all(b.penalty is None or b.penalty.prox_steps != "none" for b in self.blocks)
