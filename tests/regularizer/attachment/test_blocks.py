"""Large tensors are taken in blocks: as if they were taken whole."""

import pytest
import torch
from torch import nn

import torchshrink as ts
from torchshrink.regularizer.attachment import blocks as module
from torchshrink.regularizer.attachment.blocks import batches, blocks, is_cut
from torchshrink.step_sizes import step_size_of

PENALTIES = {
    "L1": ts.L1(0.1),
    "L1, weights": ts.L1(0.1, weights=torch.arange(66.0).view(11, 6) / 30),
    "ElasticNet": ts.ElasticNet(0.1, 0.2),
    "L2": ts.L2(0.1),
    "MCP": ts.MCP(0.1),
    "L2SP": ts.L2SP(0.1),
    "NonNegative": ts.NonNegative(),
    "rows": ts.GroupLasso(0.1),
    "columns": ts.GroupLasso(0.1, dim=1),
    "heads": ts.GroupLasso(0.1, size=2, dim=1),
    "rows with factors": ts.GroupLasso(0.1, weights=torch.arange(11.0)),
    "sparse rows": ts.SparseGroupLasso(0.05, 0.05),
}
OPTIMIZERS = {
    "Adam": torch.optim.Adam,
    "AMSGrad": lambda p, lr: torch.optim.Adam(p, lr=lr, amsgrad=True),
    "AdamW": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "RMSprop": torch.optim.RMSprop,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "Adafactor": torch.optim.Adafactor,
    "SGD": torch.optim.SGD,
}
CUT_BY = {"heads": None, "rows with factors": None, "columns": 1}  # else the rows


def trained(monkeypatch, penalty, optimizer, size):
    """Weights after eight steps in which the prox takes blocks of ``size``."""
    monkeypatch.setattr(module, "BLOCK", size)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 3)).double()
    made = optimizer(model.parameters(), lr=0.05)
    ts.Regularizer(model, {"0.weight": penalty}).attach(made, method="prox")
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    for _ in range(8):
        made.zero_grad()
        (model(x) - y).square().mean().backward()
        made.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", PENALTIES)
def test_each_penalty_is_as_if_taken_whole(name, monkeypatch):
    whole, cut = (trained(monkeypatch, PENALTIES[name], torch.optim.Adam, size) for size in (10**9, 7))
    torch.testing.assert_close(cut, whole, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_as_if_taken_whole(name, monkeypatch):
    whole, cut = (trained(monkeypatch, ts.GroupLasso(0.1), OPTIMIZERS[name], size) for size in (10**9, 7))
    torch.testing.assert_close(cut, whole, rtol=1e-13, atol=1e-15)
    parameter = nn.Parameter(torch.ones(2))
    rule = step_size_of(OPTIMIZERS[name]([parameter], lr=0.1))
    # The others' step sizes rest on the whole tensor, or on what is kept from before the step.
    assert rule.elementwise == (rule.coordinatewise and name not in ("Adafactor", "Adadelta"))


@pytest.mark.parametrize("name", PENALTIES)
def test_blocks_cover_a_tensor_once_and_cut_no_group(name, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 12)
    w = torch.arange(66.0, dtype=torch.float64).view(11, 6)
    penalty, state = PENALTIES[name].bind(w), {"exp_avg_sq": w + 0.5, "step": torch.tensor(3.0)}
    if CUT_BY.get(name, 0) is None:
        assert not is_cut(penalty, w)
        with pytest.raises(ValueError, match="no dimension"):
            next(blocks(penalty, w, state))
        return
    assert is_cut(penalty, w)
    parts = list(blocks(penalty, w, state))
    assert len(parts) > 2
    dim = CUT_BY.get(name, 0)
    assert torch.equal(torch.cat([part for _, part, _ in parts], dim), w)
    for one, part, seen in parts:
        assert torch.equal(seen["exp_avg_sq"], part + 0.5)
        assert seen["step"] is state["step"]
        assert part.untyped_storage().data_ptr() == w.untyped_storage().data_ptr()
        assert part.numel() <= 12
        one.prox(part, torch.ones_like(part))  # what the penalty holds for each coordinate is cut alike


def test_small_tensors_come_in_batches_of_a_block(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 10)
    tensors = [torch.zeros(n) for n in (4, 4, 4, 12, 1, 9)]
    assert [[w.numel() for w in batch] for batch in batches(tensors)] == [[4, 4], [4], [12], [1, 9]]
    assert list(batches([])) == []
