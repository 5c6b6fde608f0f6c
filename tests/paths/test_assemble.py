"""What a result is made of."""

import pytest
import torch

from torchshrink.paths.assemble import control_of
from torchshrink.paths.engines.warm_path import WarmTables
from torchshrink.paths.folds import Fold
from torchshrink.paths.training_result import TrainingResult


@pytest.mark.parametrize(
    ("losses", "trainings"),
    [([0.5], 1), ([0.5, 0.4], 2), ([0.5, 0.5, 0.5], 1), ([0.5, 0.3, 0.3, 0.4], 2), ([0.3, 0.5], 1)],
)
def test_of_equally_good_lengths_the_control_takes_the_shortest(losses, trainings):
    """Strength 0, trained on and on: what is judged against is what a user would stop at."""
    folds = [Fold(torch.tensor([2, 3]), torch.tensor([0, 1])), Fold(torch.tensor([0, 1]), torch.tensor([2, 3]))]
    rows = [[TrainingResult(0.1, torch.full((2,), loss).double(), None, 3) for _ in folds] for loss in losses]
    assert control_of(WarmTables(rows[:1], rows), folds) == trainings
