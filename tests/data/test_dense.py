"""Tensors that are no plain arrays of values are refused in one line, whoever is given them."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError

X, y = torch.eye(6, 4), torch.arange(6) % 2
ODD = {
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: t.to_sparse_csr() if t.ndim == 2 else t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "nested": lambda t: torch.nested.nested_tensor([t, t]),
    "quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore:.*prototype", "ignore:Sparse", "ignore:.*nested", "ignore:.*quantize")
@pytest.mark.parametrize("which", ["X", "y"])
@pytest.mark.parametrize("kind", ODD)
def test_they_are_named(kind, which):
    data = (ODD[kind](X), y) if which == "X" else (X, ODD[kind](y))
    model = nn.Linear(4, 2)
    regularizer = ts.Regularizer(model, ts.L1(0.1))
    for call in (
        lambda: ts.path(lambda: nn.Linear(4, 2), data, ts.L1, progress=False),
        lambda: ts.polish(model, data, regularizer),
        lambda: ts.certify(model, data, regularizer),
    ):
        with pytest.raises(InputError, match=f"^{which} is a .*{kind.split()[0]}.* tensor, a dense one"):
            call()
