"""The fast engine: folds × strengths as one stacked program, a lane for each model.

The models of a chunk differ in their weights and strengths only, so their parameters are stacked, (F, S, …) for F
folds and S strengths, and one forward and backward pass trains them all. The strengths of a fold share its batches,
so they stay comparable in pairs and the first layer is one large product. Rows that a fold holds out never reach its
lanes. The lanes' losses are summed, never averaged, so that each lane's gradient is its own; torch's elementwise
optimizers and the penalties' proximal operators act lane by lane on the stacks as they are.

The plain engine (`sequential`) is the specification: both end with the same weights but for rounding, dropout's draws
apart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from torchshrink.attachment import resolve_method
from torchshrink.errors import TorchshrinkError
from torchshrink.geometry import geometry_of
from torchshrink.models import fit_preprocessing
from torchshrink.path.family import Family
from torchshrink.path.folds import Fold
from torchshrink.path.recipe import Recipe
from torchshrink.path.sequential import Outcome, Unit
from torchshrink.penalties import Penalty
from torchshrink.randomness import seeded
from torchshrink.selection import select
from torchshrink.training import ROWS_AT_ONCE, batches, row_losses

ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.ASGD,
)
"""Optimizers whose step treats every coordinate by itself, so that they act lane by lane on stacked parameters."""


class CannotStackError(TorchshrinkError):
    """These trainings cannot be one stacked program; the message says why. The plain engine takes them."""


@dataclass(frozen=True, eq=False)
class _Acting:
    """What one penalty does to one stacked parameter."""

    penalty: Penalty
    strengths: Tensor  # (S,)
    method: str

    def lanewise(self, method: Callable[..., Tensor], w: Tensor, *others: Tensor) -> Tensor:
        """``method(penalty, *tensors)`` for each lane of the stacked ``w`` and others (F, S, …)."""

        def lane(strength: Tensor, *tensors: Tensor) -> Tensor:
            return method(self.penalty.with_strength(strength), *tensors)

        tensors = (w, *others)
        strengths_of_a_fold = vmap(lane, in_dims=(0,) + (0,) * len(tensors))
        return vmap(strengths_of_a_fold, in_dims=(None,) + (0,) * len(tensors))(self.strengths, *tensors)


@final
class Stack:
    """F folds × S strengths of one family, whose training programs are one.

    Args:
        recipe: how each is trained.
        folds: the folds, with their numbers; all with equally many batches an epoch.
        family: of penalties.
        strengths: one per lane of a fold.
        compiled: whether forward and backward passes go through ``torch.compile``.

    Raises:
        CannotStackError: the optimizer, the method or the family cannot be stacked.
    """

    def __init__(
        self,
        recipe: Recipe,
        folds: Mapping[int, Fold],
        family: Family,
        strengths: Sequence[float],
        *,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.folds, self.family, self.strengths = recipe, folds, family, tuple(strengths)
        models = [_initial(recipe, number, fold) for number, fold in folds.items()]
        self._skeleton = copy.deepcopy(models[0])
        lanes = len(self.strengths)
        self.parameters = {
            name: nn.Parameter(_stacked([dict(m.named_parameters())[name] for m in models], lanes))
            for name, p in models[0].named_parameters()
            if p.requires_grad
        }
        changing = _changing_buffers(models[0], recipe, next(iter(folds.values())))
        fixed = dict(models[0].named_buffers()) | {n: p for n, p in models[0].named_parameters() if not p.requires_grad}
        tensors = [dict(m.named_buffers()) | dict(m.named_parameters()) for m in models]
        # What no training step changes is one per fold, so that all its strengths see the same first-layer input.
        self._shared = {
            name: torch.stack([t[name].detach() for t in tensors]) for name in fixed if name not in changing
        }
        self._own = {name: _stacked([t[name] for t in tensors], lanes) for name in changing}
        self._optimizer = _stacked_optimizer(recipe, models[0], self.parameters)
        self._acting = _acting(recipe, models[0], family, self.strengths, self._optimizer)
        self._losses = torch.compile(self._eager_losses, dynamic=False) if compiled else self._eager_losses

    def train(self, after_epoch: Callable[[int], None] = lambda epoch: None) -> Tensor:
        """Train all lanes to the end.

        Args:
            after_epoch: called with the number of epochs done.

        Returns:
            (F, S): in which epoch, from 1, a lane's loss became infinite or NaN; 0 where all is well.
        """
        recipe = self.recipe
        self._skeleton.train()
        diverged = torch.zeros(len(self.folds), len(self.strengths), dtype=torch.int64, device=recipe.device)
        # Dropout draws differ between lanes and repeat with the seed; the first fold's stands for the chunk's.
        with seeded(recipe.part_seed(next(iter(self.folds)))):
            for epoch in range(recipe.epochs):
                total = torch.zeros(diverged.shape, dtype=torch.float64, device=recipe.device)
                for rows, weights in self._batches(epoch):
                    total += self._step(recipe.X[rows], recipe.y[rows], weights)
                diverged[(diverged == 0) & ~total.isfinite()] = epoch + 1
                after_epoch(epoch + 1)
        return diverged

    def _step(self, X: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """One optimizer step of every lane; the lanes' losses times their rows (F, S)."""
        losses = self._losses(self.parameters, self._own, self._shared, X, y, weights)
        # Summed, so that each lane's gradient is its own.
        self._optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # not autograd.grad: a fused optimizer needs gradients laid out like the parameters
        with torch.no_grad():
            for name, acting in self._acting.items():
                if acting.method == "gradient":
                    p = self.parameters[name]
                    if p.grad is not None:
                        p.grad += acting.lanewise(lambda penalty, w: penalty.grad(w), p)
            self._optimizer.step()
            self._prox()
            return losses.double() * weights.count_nonzero(1)[:, None]

    def _prox(self) -> None:
        geometry = geometry_of(self._optimizer) if any(a.method == "prox" for a in self._acting.values()) else None
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                acting = self._acting_on.get(p)
                if acting is None or geometry is None:
                    continue
                step = geometry.step_size(group, self._optimizer.state[p])
                if isinstance(step, Tensor) and step.ndim > 0:
                    p.copy_(acting.lanewise(lambda penalty, w, s: penalty.prox(w, s), p, step))
                else:
                    p.copy_(acting.lanewise(lambda penalty, w, s=step: penalty.prox(w, s), p))

    @property
    def _acting_on(self) -> dict[Tensor, _Acting]:
        return {self.parameters[name]: acting for name, acting in self._acting.items() if acting.method == "prox"}

    def _eager_losses(
        self,
        parameters: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        X: Tensor,
        y: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """The mean loss of each lane's batch (F, S)."""

        def lane(
            parameters: Any, own: Any, shared: Any, X: Tensor, y: Tensor, weights: Tensor
        ) -> Tensor:  # one model, X (B, …)
            output = functional_call(self._skeleton, (parameters, own, shared), (X,))
            return (row_losses(self.recipe.loss, output, y) * weights).sum() / weights.sum()

        strengths_of_a_fold = vmap(lane, in_dims=(0, 0, None, None, None, None), randomness="different")
        all_lanes = vmap(strengths_of_a_fold, in_dims=(0, 0, 0, 0, 0, 0), randomness="different")
        return all_lanes(parameters, own, shared, X, y, weights)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers (F, B) and weights (F, B) of each batch; a weight of 0 fills up a fold that has fewer rows."""
        recipe = self.recipe
        per_fold = [
            [fold.train.to(recipe.device)[rows] for rows in _fold_batches(recipe, number, fold, epoch)]
            for number, fold in self.folds.items()
        ]
        for parts in zip(*per_fold, strict=True):
            width = max(map(len, parts))
            rows = torch.stack([torch.cat([part, part[:1].expand(width - len(part))]) for part in parts])
            counts = torch.tensor([len(part) for part in parts], device=recipe.device)
            weights = (torch.arange(width, device=recipe.device) < counts[:, None]).to(_float_dtype(recipe))
            yield rows, weights

    # --- what came out ---

    @torch.no_grad()
    def outcomes(self, diverged: Tensor) -> Iterator[tuple[int, float, Outcome]]:
        """Fold number, strength and outcome of each lane, after `train`."""
        self._skeleton.eval()
        nonzero = torch.zeros(diverged.shape, dtype=torch.int64, device=diverged.device)
        for name in self._acting:
            nonzero += self.parameters[name].count_nonzero(tuple(range(2, self.parameters[name].ndim)))
        for f, (number, fold) in enumerate(self.folds.items()):
            on_train, _ = self._evaluate(f, fold.train)
            on_held_out, accuracy = self._evaluate(f, fold.validation)
            for s, strength in enumerate(self.strengths):
                lost = int(diverged[f, s])
                if not lost and not (on_train[s].isfinite().all() and on_held_out[s].isfinite().all()):
                    lost = self.recipe.epochs
                if lost:
                    nothing = torch.full((len(fold.validation),), torch.nan, dtype=torch.float64)
                    yield number, strength, Outcome(torch.nan, nothing, None, 0, diverged=lost)
                    continue
                yield (
                    number,
                    strength,
                    Outcome(
                        on_train[s].mean().item(),
                        on_held_out[s].clone(),
                        None if accuracy is None else accuracy[s].item(),
                        nonzero=int(nonzero[f, s]),
                    ),
                )

    def _evaluate(self, f: int, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Each row's loss (S, n), float64, on the CPU, and the accuracy (S,), of one fold's lanes."""
        parameters = {name: p[f] for name, p in self.parameters.items()}
        own = {name: b[f] for name, b in self._own.items()}
        shared = {name: b[f] for name, b in self._shared.items()}

        def lane(parameters: Any, own: Any, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            output = functional_call(self._skeleton, (parameters, own, shared), (X,))
            each = row_losses(self.recipe.loss, output, y)
            classes = not y.is_floating_point() and output.ndim == y.ndim + 1
            return each, (output.argmax(1) == y).double() if classes else each

        losses, hits = [], []
        classes = not self.recipe.y.is_floating_point()
        for part in torch.split(rows.to(self.recipe.device), max(1, ROWS_AT_ONCE // len(self.strengths))):
            each, hit = vmap(lane, in_dims=(0, 0, None, None))(
                parameters, own, self.recipe.X[part], self.recipe.y[part]
            )
            losses.append(each.double().cpu())
            hits.append(hit)
        accuracy = torch.cat(hits, dim=1).flatten(1).mean(1).cpu() if classes else None
        return torch.cat(losses, dim=1), accuracy


def batch_counts(recipe: Recipe, fold: Fold) -> int:
    """How many batches an epoch of this fold has. Folds that share it can share a stack."""
    return len(batches(len(fold.train), recipe.batch_size, seed=0, epoch=0))


def train_stacked(
    recipe: Recipe, folds: Sequence[Fold], families: Sequence[Family], units: Sequence[Unit], *, compiled: bool = False
) -> Iterator[tuple[Unit, Outcome]]:
    """Train units that form a full table, folds × strengths of one family, as one stack.

    Raises:
        CannotStackError: they cannot be stacked.
    """
    family = units[0].family
    numbers = sorted({unit.fold for unit in units})
    strengths = sorted({unit.strength for unit in units})
    if len(units) != len(numbers) * len(strengths):
        raise CannotStackError("the units are no full table of folds and strengths")
    stack = Stack(recipe, {n: folds[n] for n in numbers}, families[family], strengths, compiled=compiled)
    diverged = stack.train()
    for number, strength, outcome in stack.outcomes(diverged):
        yield Unit(family, strength, number), outcome


def _fold_batches(recipe: Recipe, number: int, fold: Fold, epoch: int) -> list[Tensor]:
    seed = recipe.part_seed(number)
    return batches(len(fold.train), recipe.batch_size, seed=seed, epoch=epoch, device=recipe.device)


def _initial(recipe: Recipe, number: int, fold: Fold) -> nn.Module:
    """A fold's model before its first step, as the plain engine makes it."""
    with seeded(recipe.part_seed(number)):
        model = recipe.fresh()
        rows = fold.train.to(recipe.device)
        fit_preprocessing(model, recipe.X[rows], recipe.y[rows])
    return model


def _stacked(tensors: Sequence[Tensor], lanes: int) -> Tensor:
    """(F, S, …): one copy per strength of each fold's tensor."""
    folds = torch.stack([t.detach() for t in tensors])
    return folds.unsqueeze(1).expand(len(folds), lanes, *folds.shape[1:]).clone()


def _float_dtype(recipe: Recipe) -> torch.dtype:
    return recipe.X.dtype if recipe.X.is_floating_point() else torch.get_default_dtype()


def _changing_buffers(model: nn.Module, recipe: Recipe, fold: Fold) -> set[str]:
    """The names of the buffers that a training step changes, such as batch normalisation's statistics."""
    trial = copy.deepcopy(model).train()
    before = {name: b.clone() for name, b in trial.named_buffers()}
    rows = fold.train[: max(2, min(len(fold.train), recipe.batch_size))].to(recipe.device)
    with torch.no_grad(), seeded(0):
        trial(recipe.X[rows])
    after = dict(trial.named_buffers())
    return {name for name, b in before.items() if not torch.equal(b, after[name])}


def _stacked_optimizer(recipe: Recipe, model: nn.Module, stacked: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """The optimizer that the recipe makes for one model, with the same groups and settings over the stacks."""
    single = recipe.make_optimizer(model.parameters())
    if type(single) not in ELEMENTWISE:
        raise CannotStackError(f"{type(single).__name__} does not treat each coordinate by itself")
    name_of = {id(p): name for name, p in model.named_parameters()}
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        | {"params": [stacked[name_of[id(p)]] for p in group["params"] if name_of[id(p)] in stacked]}
        for group in single.param_groups
    ]
    return type(single)(groups)  # type: ignore[call-arg]  # each of torch's own has defaults


def _acting(
    recipe: Recipe, model: nn.Module, family: Family, strengths: Sequence[float], optimizer: torch.optim.Optimizer
) -> dict[str, _Acting]:
    """What acts on each stacked parameter: one penalty whose strength is the lane's."""
    per_strength = [
        {c.name: c.penalty for c in select(model, family.make(s), recipe.on) if c.penalty is not None}
        for s in strengths
    ]
    names = list(per_strength[0])
    if any(list(found) != names for found in per_strength):
        raise CannotStackError("the rules penalise other parameters at other strengths")
    acting = {}
    for name in names:
        penalties = [found[name] for found in per_strength]
        reference = max(penalties, key=lambda penalty: float(penalty.strength))
        values = [float(penalty.strength) for penalty in penalties]
        if not all(_same(reference.with_strength(v), p) for v, p in zip(values, penalties, strict=True)):
            raise CannotStackError(f"{name}: the penalties of different strengths differ in more than strength")
        method = "gradient" if recipe.method == "loss" else resolve_method(reference, recipe.method)
        if method == "decoupled":
            raise CannotStackError("method 'decoupled' has no lanes")
        if method == "prox" and geometry_of(optimizer).remember is not None:
            raise CannotStackError(f"{type(optimizer).__name__} needs a look before each step")
        dtype = dict(model.named_parameters())[name].dtype
        acting[name] = _Acting(reference, torch.tensor(values, dtype=dtype, device=recipe.device), method)
    return acting


def _same(a: Penalty, b: Penalty) -> bool:
    """Equal but for rounding in the strengths."""
    if type(a) is not type(b):
        return False
    for key, x in vars(a).items():
        y = vars(b)[key]
        close = isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=1e-12, abs_tol=0.0)
        if not close and x != y:
            return False
    return True
