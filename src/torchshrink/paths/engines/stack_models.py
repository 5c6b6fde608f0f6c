"""How the models of a stack become one, and how lanes leave it: what is stacked has the shape (F, S, …)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from torchshrink.data.lazy import subset
from torchshrink.errors import CannotStackError, SelectionWarning
from torchshrink.models import fit_preprocessing
from torchshrink.paths.engines.side_effects import Watch
from torchshrink.paths.folds import Fold
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.support.private_torch import has_gradient_hooks
from torchshrink.support.randomness import seeded


def initial_model(spec: TrainingSpec, number: int, fold: Fold) -> nn.Module:
    """A fold's model before its first step, as the plain engine makes it."""
    with seeded(spec.part_seed(number)), warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)
        model = spec.fresh()
        rows = fold.train.to(spec.device)
        fit_preprocessing(model, subset(spec.X, rows), spec.y[rows])
    return model


def check_stackable(model: nn.Module) -> None:
    """Refuse what a stacked program would not see, or would do otherwise.

    Raises:
        CannotStackError: the message says why.
    """
    for name, p in model.named_parameters():
        if has_gradient_hooks(p):
            raise CannotStackError(f"{name} has a hook on its gradient, which a stack has not")
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None:
            raise CannotStackError(f"{name}: vmap's embedding trains the row of padding_idx in some lanes")


def repeated(tensors: Sequence[Tensor], lanes: int) -> Tensor:
    """(F, S, …): one copy per strength of each fold's tensor."""
    folds = torch.stack([t.detach() for t in tensors])
    return folds.unsqueeze(1).expand(len(folds), lanes, *folds.shape[1:]).clone()


def changing_buffers(model: nn.Module, spec: TrainingSpec, fold: Fold) -> set[str]:
    """The names of the buffers that a training step changes, such as batch normalisation's statistics.

    Raises:
        CannotStackError: a pass leaves other tensors in the model, or changes a buffer in evaluation mode, in which the
            order of the rows then matters.
    """
    trial = copy.deepcopy(model).train()
    watch = Watch(trial, spec.loss)
    before = {name: b.clone() for name, b in trial.named_buffers()}
    some = spec.X[fold.train[: max(2, min(len(fold.train), spec.batch_size))].to(spec.device)]

    def changed() -> set[str]:
        with watch.over_a_pass(), torch.no_grad(), seeded(0):
            trial(some)
        return {name for name, b in trial.named_buffers() if not torch.equal(before[name], b)}

    changing = changed()
    before = {name: b.clone() for name, b in trial.named_buffers()}
    trial.eval()
    if unsteady := changed():
        raise CannotStackError(f"{min(unsteady)} changes in evaluation mode too")
    return changing


def narrow(stacked: Tensor, places: Tensor) -> Tensor:
    """A copy (F, len(places), …) of these strengths' lanes."""
    return stacked.index_select(1, places)


def narrow_optimizer(
    optimizer: torch.optim.Optimizer, replaced: Mapping[nn.Parameter, nn.Parameter], places: Tensor
) -> None:
    """Let the optimizer go on with narrower parameters, from the state in which their lanes are.

    What it keeps per coordinate is shaped like the parameter; what it counts once for all lanes, such as the steps
    done, is not, and stays. So do groups and their settings.
    """
    for group in optimizer.param_groups:
        group["params"] = [replaced[p] for p in group["params"]]
    for old, new in replaced.items():
        if old in optimizer.state:
            optimizer.state[new] = {
                key: narrow(value, places) if isinstance(value, Tensor) and value.shape == old.shape else value
                for key, value in optimizer.state.pop(old).items()
            }
