"""ts.shrink: smaller models whose outputs are equal."""

import pytest
import torch

from shrink_cases import FAMILIES, check, random_mask

SMALLER = ("mlp", "flattened", "residual", "concat", "separable", "chunked", "attention")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_random_masks_change_no_output(family, seed):
    build, size, other = FAMILIES[family]
    torch.manual_seed(seed)
    model = random_mask(build(), seed)
    shrunk = check(model, torch.randn(size).double(), torch.randn(other).double())
    if family in SMALLER:
        assert shrunk.parameters[1] < 0.9 * shrunk.parameters[0]
