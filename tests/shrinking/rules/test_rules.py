"""Rules: structures of real models, with random masks, at sizes other than the example's."""

import pytest
import torch
from torch import nn

from shrink_cases import FAMILIES, check, random_mask

RUNS = [(family, 1) for family in FAMILIES] + [(family, 0) for family in ("mlp", "chunked", "attention")]


@pytest.mark.parametrize(("family", "seed"), RUNS)
def test_random_masks_change_no_output(family, seed):
    build, size, other = FAMILIES[family]
    torch.manual_seed(seed)
    model = random_mask(build(), seed)
    shrunk = check(model, torch.randn(size).double(), torch.randn(other).double())
    if family != "grouped":  # whole groups only
        assert shrunk.parameters[1] < 0.9 * shrunk.parameters[0]


class Dense(nn.Module):
    """Every layer reads all before it; the pieces are put together and in-place activations undo nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(8 + 4 * i), nn.ReLU(inplace=True), nn.Conv1d(8 + 4 * i, 4, 3, padding=1))
            for i in range(3)
        )
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return self.head(torch.cat(found, 1).mean(2))


class Outer(nn.Module):
    """A product of two dimensions, flattened: one of them carries the units."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 7), nn.Linear(42, 9)

    def forward(self, x):
        y = self.a(x).relu().unsqueeze(2) * self.b(x).sigmoid().unsqueeze(1)
        return self.c(y.flatten(1))


class Recurrent(nn.Module):
    """An LSTM has no rule; what is before and behind it still shrinks."""

    def __init__(self):
        super().__init__()
        self.a, self.lstm, self.b, self.c = (
            nn.Linear(4, 8),
            nn.LSTM(8, 8, batch_first=True),
            nn.Linear(8, 6),
            nn.Linear(6, 2),
        )

    def forward(self, x):
        return self.c(torch.relu(self.b(self.lstm(torch.relu(self.a(x)))[0][:, -1])))


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    return nn.Sequential(
        nn.Linear(6, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(16, 3)
    )


MORE = {
    "dense": (Dense, (2, 3, 8), (3, 3, 11), 0.8),
    "outer": (Outer, (2, 5), (4, 5), 0.8),
    "recurrent": (Recurrent, (2, 5, 4), (3, 7, 4), 0.99),
    "encoder": (encoder, (2, 5, 6), (3, 4, 6), 0.9),
}


@pytest.mark.parametrize("family", MORE)
def test_structures_of_other_models(family):
    build, size, other, most = MORE[family]
    model = random_mask(build(), 1)
    shrunk = check(model, torch.randn(size).double(), torch.randn(other).double())
    assert shrunk.parameters[1] < most * shrunk.parameters[0]


def test_heads_go_as_a_whole():
    """Head 1 of four is read by nothing; of head 2 only a part."""
    build, size, other = FAMILIES["attention"]
    model = build().double().eval()
    with torch.no_grad():
        model.o.weight[:, 4:10] = 0
    shrunk = check(model, torch.randn(size).double(), torch.randn(other).double())
    assert shrunk.model.q.weight.shape == (12, 16)
    assert shrunk.model.o.weight.shape == (16, 12)


def test_a_flattened_image_whose_size_a_layer_fixes_carries_its_channels():
    """torch.export leaves that size open; it is traced again with the size of the example, which is reported."""
    build, size, _ = FAMILIES["flattened"]
    shrunk = check(random_mask(build(), 9, share=0.8), torch.randn(size).double())
    assert shrunk.parameters[1] < 0.2 * shrunk.parameters[0]
    assert shrunk.ranges == ("input.shape[2] = 8", "input.shape[3] = 8")
