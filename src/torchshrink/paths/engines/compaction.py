"""Lanes that leave a stack: its tensors (F, S, …), and what its optimizer keeps of them, with fewer strengths."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
