"""Training on all the data at a chosen strength, and the proof of what that led to."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchshrink.certificate import Certificate
from torchshrink.errors import InputError, ObjectiveWarning, SelectionWarning
from torchshrink.path.family import Family
from torchshrink.path.recipe import WHOLE, Recipe
from torchshrink.regularizer import Regularizer
from torchshrink.training import ROWS_AT_ONCE


@dataclass(frozen=True, eq=False)
class Source:
    """What a path was made from."""

    recipe: Recipe
    family: Family

    def refit(self, strength: float) -> tuple[nn.Module, Certificate]:
        """Train on all rows at ``strength``; the model in evaluation mode, and its certificate."""
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength < math.inf:
            raise InputError(f"strength={strength!r}: a finite number ≥ 0 expected")
        rules = self.family.make(float(strength))
        model, _ = self.recipe.train(rules, self.recipe.X, self.recipe.y, part=WHOLE)
        model.eval()
        try:
            certificate = self._certify(copy.deepcopy(model).double(), self.recipe.in_float64(), strength)
        except RuntimeError:  # a model that insists on its own dtype
            certificate = self._certify(model, self.recipe, strength)
        return model, certificate

    def _certify(self, model: nn.Module, recipe: Recipe, strength: float) -> Certificate:
        rows = len(recipe.X)

        def mean_loss() -> Tensor:
            total = torch.zeros((), dtype=torch.float64, device=recipe.device)
            for X, y in zip(torch.split(recipe.X, ROWS_AT_ONCE), torch.split(recipe.y, ROWS_AT_ONCE), strict=True):
                part = recipe.loss(model(X), y) * (len(X) / rows)
                part.backward()
                total += part.detach()
            return total

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SelectionWarning)  # said once, by `prepare`
            warnings.simplefilter("ignore", ObjectiveWarning)
            regularizer = Regularizer(model, self.family.make(float(strength)), recipe.on)
            if recipe.method != "loss":
                # Attached as it was in training, so that what is known against its fixed point is said.
                regularizer.attach(recipe.make_optimizer(model.parameters()), recipe.method)
            certificate = regularizer.certify(mean_loss)
            regularizer.detach()
        model.zero_grad(set_to_none=True)
        return certificate
