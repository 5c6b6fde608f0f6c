"""The fast engine: folds × strengths as one stacked program, a lane for each model.

The models of a stack differ in their weights and strengths only, so their parameters are stacked, (F, S, …) for F
folds and S strengths, and one forward and backward pass trains them all. The strengths of a fold share its batches,
so they stay comparable in pairs and the first layer is one large product. Rows that a fold holds out never reach its
lanes. The lanes' losses are summed, never averaged, so that each lane's gradient is its own; torch's elementwise
optimizers and the penalties' proximal operators act lane by lane on the stacks as they are.

The plain engine (`sequential`) is the specification: both end with the same weights but for rounding, dropout's draws
apart. A lane whose loss becomes infinite or NaN stays in its place, where it touches no other, and is reported. A
strength that is lost in every fold leaves the stack, and the steps to come cost less.

Where rounding shows: a bias right before batch normalisation has the gradient 0, and what is computed is rounding,
which Adam scales up to whole steps. In float32 the engines then end with other biases, and with held-out losses that
differ by 1e-4 to 3e-3 in relation, as two machines' would. In float64, without that bias, or with SGD they agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from torchshrink.data.lazy import batches_of
from torchshrink.errors import CannotStackError
from torchshrink.paths.engines.linear_chain import dense_fits
from torchshrink.paths.engines.linear_chain_program import DenseProgram, Named
from torchshrink.paths.engines.side_effects import Watch, made_anew
from torchshrink.paths.engines.stack_latent import LatentLanes
from torchshrink.paths.engines.stack_models import (
    changing_buffers,
    check_stackable,
    initial_model,
    narrow,
    narrow_optimizer,
    repeated,
)
from torchshrink.paths.engines.stack_penalties import LanePenalty, lane_penalties, prox_of_lanes, stacked_optimizer
from torchshrink.paths.engines.vmap_support import batchable, evaluate_lanes
from torchshrink.paths.folds import Fold
from torchshrink.paths.model_weights import Weights
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.training_result import TrainingResult
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.paths.weight_summary import WeightSummary, summaries
from torchshrink.paths.zero_pattern import zero_pattern
from torchshrink.step_sizes import step_size_of
from torchshrink.support.randomness import mix_seed, seeded
from torchshrink.training import Loss, WeightedLoss, batches, counted_of, row_weights

Program = Callable[[Named, Named, Named, Tensor, Tensor | None, Tensor | None], Tensor]
"""(trained, changing and shared tensors, row numbers (F, B), rows (F, B, …), weights (F, B)) -> mean losses (F, S)."""


CANNOT_STACK = (CannotStackError, RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError)
"""What comes of stacking what cannot be: our own refusals, and whatever a model's code makes of vmap's tensors."""


@final
class Stack:
    """F folds × S strengths of one family, whose training programs are one.

    Args:
        spec: how each is trained.
        folds: the folds, by their numbers, with equally many batches an epoch; unless the model is `dense`, with
            equally many rows, so that no batch has to be filled up.
        family: of penalties.
        strengths: one per lane of a fold.
        compiled: whether forward and backward passes go through ``torch.compile``, anew when lanes have left.
        same_draws: whether all lanes have the same random numbers, those that a model has that is trained alone.

    Raises:
        CannotStackError: the optimizer, the method, the family or the folds cannot be stacked.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        folds: Mapping[int, Fold],
        family: PenaltyFamily,
        strengths: Sequence[float],
        *,
        compiled: bool = False,
        same_draws: bool = False,
    ) -> None:
        self.spec, self.folds, self.strengths = spec, folds, tuple(strengths)
        self.columns = list(range(len(self.strengths)))  # the numbers of the strengths in the stack
        models = [initial_model(spec, number, fold) for number, fold in folds.items()]
        check_stackable(models[0])
        self._randomness = "same" if same_draws else "different"
        self._initial = models[0]
        self._skeleton = copy.deepcopy(models[0])
        self._watch = Watch(self._skeleton, spec.loss)
        first = next(iter(folds.values()))
        changing = changing_buffers(models[0], spec, first)
        self.chain = not changing and dense_fits(spec, models[0], len(folds))
        if not self.chain and len({len(fold.train) for fold in folds.values()}) > 1:
            raise CannotStackError("the folds differ in size")
        lanes = len(self.strengths)
        tensors = [dict(model.named_buffers()) | dict(model.named_parameters()) for model in models]
        trained = [name for name, p in models[0].named_parameters() if p.requires_grad]
        self.parameters = {name: nn.Parameter(repeated([t[name] for t in tensors], lanes)) for name in trained}
        self.own = {name: repeated([t[name] for t in tensors], lanes) for name in changing}
        # What no training step changes is one per fold, so that all its strengths see the same first-layer input.
        rest = [name for name in tensors[0] if name not in self.parameters and name not in self.own]
        self._shared = {name: torch.stack([t[name].detach() for t in tensors]) for name in rest}
        self.curves = torch.zeros((len(folds), lanes, 0), dtype=torch.float64)  # (F, S, epochs): the training losses
        self._family = family
        self._begin(self.strengths)
        # A batch may have none of the targets that count, and torch's mean of no rows is NaN.
        self._mean_loss = _mean_loss if counted_of(spec.y, spec.loss) is None else _mean_of_counted
        # Where rows count by weights of their own, a batch by its share of the fold's (see `WeightedLoss.among`).
        weights = row_weights(spec.loss, spec.y) if isinstance(spec.loss, WeightedLoss) else None
        self._counted = row_weights(spec.loss, spec.y) if counted_of(spec.y, spec.loss) is not None else None
        self._share_of: Tensor | None = None
        if weights is not None:
            means = [weights[fold.train.to(spec.device)].mean() for fold in folds.values()]
            self._share_of = weights / torch.stack(means)[:, None]  # (F, n)
        self._dense = DenseProgram(spec, models, self._skeleton) if self.chain else None
        self._losses: Program = self._dense or self._lane_by_lane
        # A chain is differentiated by hand, which is faster than what a compiler makes of it.
        self._fast = torch.compile(self._losses, dynamic=False) if compiled and not self._dense else self._losses
        self._compiled_prox = torch.compile(prox_of_lanes, dynamic=True) if compiled else None
        self._full = len(batches(len(first.train), spec.batch_size, seed=0, epoch=0)[0])

    def restart(self, strengths: Sequence[float], weights: Mapping[int, Weights]) -> None:
        """Make ready to train at other strengths (S as before) from these weights, by fold, with a fresh optimizer."""
        self.strengths = tuple(strengths)
        if not self.chain:  # its code may count its passes
            self._skeleton = copy.deepcopy(self._initial)
            self._watch = Watch(self._skeleton, self.spec.loss)
        self._begin(self.strengths)
        with torch.no_grad():
            for f, number in enumerate(self.folds):
                for name, tensor in (self.parameters | self.own).items():
                    tensor[f].copy_(weights[number][name])

    def weights(self, lane: int = 0) -> dict[int, Weights]:
        """Copies of what trained, and of the buffers that training changed, in one lane of each fold."""
        both = self.parameters | self.own
        return {n: {name: t[f, lane].detach().clone() for name, t in both.items()} for f, n in enumerate(self.folds)}

    def tensors(self, f: int, s: int) -> dict[str, Tensor]:
        """All tensors of one lane."""
        return {n: t[f, s].detach() for n, t in (self.parameters | self.own).items()} | {
            n: t[f] for n, t in self._shared.items()
        }

    @property
    def proximal(self) -> bool:
        """Whether any penalty acts by its prox."""
        return bool(self._prox_of)

    def _begin(self, strengths: tuple[float, ...]) -> None:
        """A fresh optimizer, and the penalties of these strengths."""
        self._optimizer = stacked_optimizer(self.spec, self._skeleton, self.parameters)
        # Beside another one, a single strength is told from a penalty that is the same at all strengths.
        beside = strengths if len(strengths) > 1 else (*strengths, 0.0 if 1.0 in strengths else 1.0)
        found = lane_penalties(self.spec, self._skeleton, self._family, beside, self._optimizer, folds=len(self.folds))
        self._penalties = {name: each.first(len(strengths)) for name, each in found.items()}
        self._prox_of = self._by_prox()
        self._latent = LatentLanes(self._by_latent(), self._optimizer)

    @property
    def shape(self) -> tuple[int, int]:
        """(F, S): folds, and strengths that are in the stack now."""
        return len(self.folds), len(self.columns)

    def train(self, after_epoch: Callable[[int, int], None] = lambda epochs, alive: None) -> Tensor:
        """Train all lanes to the end, or until they leave.

        Args:
            after_epoch: called with the number of epochs done and of lanes that have not diverged.

        Returns:
            (F, S), on the CPU: in which epoch, from 1, a lane's loss became infinite or NaN; 0 where all is well. S
            counts all strengths, those that left too.
        """
        spec = self.spec
        diverged = torch.zeros(self.shape, dtype=torch.int64)
        self.curves = torch.full((*self.shape, spec.epochs), torch.nan, dtype=torch.float64)
        with seeded(self._seed()):
            for epoch in range(spec.epochs):
                total = torch.zeros(self.shape, dtype=torch.float64, device=spec.device)
                seen: Tensor | float = 0.0
                made = list(self._batches(epoch))
                batches_of_rows = self._read([rows for rows, _ in made])
                for (rows, batch), (_, weights) in zip(batches_of_rows, made, strict=True):
                    share = self._share_of_epoch(rows, weights)
                    total += self.step(rows, weights, batch).double() * share
                    seen = seen + share
                self.curves[:, self.columns, epoch] = (total / seen).cpu()
                now = diverged[:, self.columns]
                diverged[:, self.columns] = now.masked_fill((now == 0) & ~total.isfinite().cpu(), epoch + 1)
                stay = [k for k in self.columns if not diverged[:, k].all()]
                after_epoch(epoch + 1, int((diverged[:, stay] == 0).sum()))
                if not stay:
                    break
                self.keep(stay)
        return diverged

    def _share_of_epoch(self, rows: Tensor, weights: Tensor | None) -> Tensor | float:
        """How many targets of a batch count, a number or of each fold (F, 1)."""
        if self._counted is None:
            return float(rows.shape[1]) if weights is None else weights.sum(1, keepdim=True).double()
        counted = self._counted[rows].double()
        return (counted if weights is None else counted * weights).sum(1, keepdim=True)

    def _seed(self) -> int:
        """Of dropout: the first lane's fold and strength, so that lanes draw apart, in one stack or in two."""
        first_strength = int(np.float64(self.strengths[0]).view(np.uint64))
        return mix_seed(self.spec.part_seed(next(iter(self.folds))), first_strength)

    def keep(self, numbers: Sequence[int]) -> None:
        """Shrink to these strengths, by their numbers: the lanes of the others are gone, and no lane left notices."""
        if list(numbers) == self.columns:
            return
        places = torch.tensor([self.columns.index(k) for k in numbers], device=self.spec.device)
        self.columns = list(numbers)
        old = self.parameters
        self.parameters = {name: nn.Parameter(narrow(p.detach(), places)) for name, p in old.items()}
        self.own = {name: narrow(t, places) for name, t in self.own.items()}
        narrow_optimizer(self._optimizer, {p: self.parameters[name] for name, p in old.items()}, places)
        self._penalties = {name: each.keep(places) for name, each in self._penalties.items()}
        self._prox_of = self._by_prox()
        now = {p: self.parameters[name] for name, p in old.items()}
        self._latent = self._latent.narrowed(now, self._by_latent(), places)
        if self._dense:
            self._dense.forget()

    def _by_prox(self) -> dict[Tensor, LanePenalty]:
        return {self.parameters[name]: each for name, each in self._penalties.items() if each.by_prox}

    def _by_latent(self) -> dict[nn.Parameter, LanePenalty]:
        return {self.parameters[name]: each for name, each in self._penalties.items() if each.latent}

    def _read(self, requests: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Row numbers (F, B) and their rows (F, B, …), which a program that has them encoded does without."""
        if self._dense and self._dense.has_rows:
            return ((rows, None) for rows in requests)
        return batches_of(self.spec.X, requests)

    def step(self, rows: Tensor, weights: Tensor | None, batch: Tensor | None) -> Tensor:
        """One optimizer step of every lane; the lanes' losses before it (F, S).

        Args:
            rows: the numbers (F, B) of the folds' rows.
            weights: (F, B): 0 for what fills up a fold that has fewer rows; None where none has.
            batch: the rows (F, B, …), as `_read` gives them.
        """
        self._skeleton.train()
        # An epoch's last batch may have another size, for which another compilation would not pay.
        program = self._fast if rows.shape[1] == self._full else self._losses
        if self._dense is program:
            losses = self._dense.differentiate(self.parameters, self._shared, rows, batch, weights)
        else:
            losses = self._on_batch(program, rows, batch, weights)
            self._optimizer.zero_grad(set_to_none=True)
            # Summed, so that each lane's gradient is its own.
            losses.sum().backward()
        with torch.no_grad():
            for name, each in self._penalties.items():
                each.add_gradient(self.parameters[name])
            if self._latent:
                self._latent.show()
            self._optimizer.step()
            if self._latent:
                self._latent.hide()
            if self._prox_of:
                self._prox()
            return losses.detach()

    def _prox(self) -> None:
        for group in self._optimizer.param_groups:
            rule = step_size_of(self._optimizer, group)
            settings = {key: value for key, value in group.items() if key != "params"}
            for p in group["params"]:
                if p in self._prox_of and p.grad is not None:
                    state = self._optimizer.state[p]
                    self._prox_of[p].prox_(p, rule, settings, state, compiled=self._compiled_prox)

    def _on_batch(self, program: Program, rows: Tensor, batch: Tensor | None, weights: Tensor | None) -> Tensor:
        with self._watch.over_a_pass(), batchable(self._skeleton):
            return program(self.parameters, self.own, self._shared, rows, batch, weights)

    def _lane_by_lane(
        self, parameters: Named, own: Named, shared: Named, rows: Tensor, batch: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        """The mean loss of each lane's batch (F, S), for any model that vmap takes."""
        loss, mean_loss = self.spec.loss, self._mean_loss

        def lane(parameters: Any, own: Any, shared: Any, X: Tensor, y: Tensor) -> Tensor:  # one model, X (B, …)
            given = {**parameters, **own, **shared}
            after = dict(given)  # in which `functional_call` leaves what the pass has put in their places
            output = functional_call(self._skeleton, after, (X,))
            for name, tensor in given.items():
                if after[name] is not tensor:
                    raise made_anew(name)
            return mean_loss(loss, output, y)

        strengths_of_a_fold = vmap(lane, in_dims=(0, 0, None, None, 0), randomness=self._randomness)
        all_lanes = vmap(strengths_of_a_fold, randomness=self._randomness)
        # Every lane has the targets as its own: the rules of some losses are wrong where they are shared.
        y = self.spec.y[rows].unsqueeze(1)
        y = y.expand(-1, len(self.columns), *y.shape[2:])
        assert batch is not None
        losses: Tensor = all_lanes(parameters, own, shared, batch, y)
        if self._share_of is None:
            return losses
        shares = self._share_of.gather(1, rows).mean(1, keepdim=True)
        return losses * shares.to(losses.dtype)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Row numbers (F, B) of each batch, and weights (F, B): 0 for what fills up a fold that has fewer rows."""
        spec = self.spec
        dtype = next(iter(self.parameters.values())).dtype
        per_fold = [
            [fold.train.to(spec.device)[rows] for rows in _fold_batches(spec, number, fold, epoch)]
            for number, fold in self.folds.items()
        ]
        for parts in zip(*per_fold, strict=True):
            width = max(map(len, parts))
            if min(map(len, parts)) == width:
                yield torch.stack(parts), None
                continue
            rows = torch.stack([torch.cat([part, part[:1].expand(width - len(part))]) for part in parts])
            counts = torch.tensor([len(part) for part in parts], device=spec.device)
            yield rows, (torch.arange(width, device=spec.device) < counts[:, None]).to(dtype)

    # --- what came out ---

    @torch.no_grad()
    def results(self, diverged: Tensor) -> Iterator[tuple[int, float, TrainingResult]]:
        """Fold number, strength and result of each lane, after `train`."""
        self._skeleton.eval()
        nonzero = torch.zeros(self.shape, dtype=torch.int64, device=self.spec.device)
        place = {k: s for s, k in enumerate(self.columns)}
        for name in self._penalties:
            nonzero += self.parameters[name].flatten(2).count_nonzero(2)
        for f, (number, fold) in enumerate(self.folds.items()):
            on_train, _ = self._evaluate(f, fold.train)
            on_held_out, accuracy = self._evaluate(f, fold.validation)
            kept = self._summaries(f)
            for k, strength in enumerate(self.strengths):
                s, lost = place.get(k), int(diverged[f, k])
                if s is not None and not (on_train[s].isfinite().all() and on_held_out[s].isfinite().all()):
                    lost = lost or self.spec.epochs
                if s is None or lost:
                    nothing = torch.full((len(fold.validation),), torch.nan, dtype=torch.float64)
                    yield number, strength, TrainingResult(torch.nan, nothing, None, 0, diverged=lost)
                    continue
                share = None if accuracy is None else accuracy[s].item()
                key = self.spec.target_scale.of_loss
                result = TrainingResult(
                    key * on_train[s].mean().item(),
                    key * on_held_out[s],
                    share,
                    int(nonzero[f, s]),
                    pattern=zero_pattern(self.tensors(f, s)) if self._family.name in self.spec.grouped else None,
                    weights=kept[s],
                )
                yield number, strength, result

    def _summaries(self, f: int) -> list[WeightSummary]:
        """What is kept of the weights of one fold's lanes."""
        own = {name: tensor[f] for name, tensor in (self.parameters | self.own).items()}
        shared = {name: t[f].expand(len(self.columns), *t[f].shape) for name, t in self._shared.items()}
        curves = self.spec.target_scale.of_loss * self.curves[f, self.columns]
        return summaries(self.spec.looked, shared | own, curves.tolist())

    def _evaluate(self, f: int, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        fold = [
            {name: t[f] for name, t in all_folds.items()} for all_folds in (self.parameters, self.own, self._shared)
        ]
        with self._watch.over_a_pass():
            return evaluate_lanes(self._skeleton, fold[0], fold[1], fold[2], spec=self.spec, rows=rows)


def _mean_loss(loss: Loss, output: Tensor, y: Tensor) -> Tensor:
    if type(loss) is nn.CrossEntropyLoss and output.ndim == 2 and y.ndim == 1:
        # The same mean with the rows last: torch's softmax over a short last dimension is some twenty times slower.
        return loss(output.t().contiguous().unsqueeze(0), y.unsqueeze(0))  # type: ignore[no-any-return]
    return loss(output, y).reshape(())


def _mean_of_counted(loss: Loss, output: Tensor, y: Tensor) -> Tensor:
    """The mean over the targets that count, 0 where there are none."""
    each = copy.copy(loss)
    each.reduction = "sum"  # type: ignore[attr-defined]  # a module, since it knows targets that do not count
    count = row_weights(loss, y).sum().to(output.dtype)
    return each(output, y).reshape(()) / count.clamp(min=torch.finfo(output.dtype).tiny)


def _fold_batches(spec: TrainingSpec, number: int, fold: Fold, epoch: int) -> list[Tensor]:
    seed = spec.part_seed(number)
    return batches(len(fold.train), spec.batch_size, seed=seed, epoch=epoch, device=spec.device)
