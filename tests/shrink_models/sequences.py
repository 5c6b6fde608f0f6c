"""Text, series and points."""

import torch
from torch import nn
from torch.nn import functional as F


class TextCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 10)
        self.convs = nn.ModuleList(nn.Conv1d(10, 8, k) for k in (2, 3, 4))
        self.drop, self.out = nn.Dropout(), nn.Linear(24, 3)

    def forward(self, x):
        x = self.table(x).transpose(1, 2)
        return self.out(self.drop(torch.cat([torch.relu(conv(x)).amax(2) for conv in self.convs], 1)))


class FastText(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.a, self.b = nn.EmbeddingBag(40, 12, mode="mean"), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(self.table(x))))


class TCNBlock(nn.Module):
    def __init__(self, a, b, dilation):
        super().__init__()
        self.pad = 2 * dilation
        self.one, self.two = nn.Conv1d(a, b, 3, dilation=dilation), nn.Conv1d(b, b, 3, dilation=dilation)
        self.skip = nn.Conv1d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.one(F.pad(x, (self.pad, 0))))
        return torch.relu(self.skip(x) + torch.relu(self.two(F.pad(y, (self.pad, 0)))))


class TCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.out = nn.Sequential(TCNBlock(3, 8, 1), TCNBlock(8, 8, 2)), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.body(x)[:, :, -1])


class WaveNet(nn.Module):
    """Gated convolutions with skip connections."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 8, 1)
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=d, padding=d) for d in (1, 2))
        self.keep = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(2))
        self.skip = nn.ModuleList(nn.Conv1d(8, 10, 1) for _ in range(2))
        self.last = nn.Conv1d(10, 4, 1)

    def forward(self, x):
        x, total = self.first(x), 0
        for gate, keep, skip in zip(self.gates, self.keep, self.skip, strict=True):
            a, b = gate(x)[:, :, : x.shape[2]].chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = x + keep(y)
        return self.last(torch.relu(total))


def conv1d_net():
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 12, 3, padding=1),
        nn.ELU(),
        nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(36, 10), nn.SELU(), nn.Linear(10, 3),
    )  # fmt: skip


def conv3d_net():
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


class LSTMTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.lstm = nn.Embedding(30, 8), nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(torch.relu(self.a(self.lstm(self.table(x))[0])))


class UnrolledRNN(nn.Module):
    """A cell of Linear layers, called step by step: the state's units go through the loop."""

    def __init__(self):
        super().__init__()
        self.read, self.keep, self.out = nn.Linear(4, 10), nn.Linear(10, 10), nn.Linear(10, 2)

    def forward(self, x):
        state = torch.zeros(len(x), 10, dtype=x.dtype, device=x.device)
        for step in range(x.shape[1]):
            state = torch.tanh(self.read(x[:, step]) + self.keep(state))
        return self.out(state)


class Graph(nn.Module):
    """Graph convolutions with the adjacency as a second factor: mean over neighbours, then linear."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 12), nn.Linear(12, 10), nn.Linear(10, 2)

    def forward(self, x):
        near = (x @ x.transpose(1, 2)).softmax(-1)
        x = torch.relu(self.a(near @ x))
        x = torch.relu(self.b(near @ x))
        return self.c(x.mean(1))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv1d(8, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.c = nn.Sequential(nn.Conv1d(24, 12, 1), nn.ReLU(), nn.Conv1d(12, 4, 1))

    def forward(self, x):
        a = self.a(x)
        whole = self.b(a).max(2, keepdim=True).values.expand(-1, -1, x.shape[2])
        return self.c(torch.cat([a, whole], 1))


class NeRF(nn.Module):
    """Sines of the positions, and a skip into the middle."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU()), nn.Linear(32, 16)
        self.density, self.colour = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.cat([f(x * 2**k) for k in range(2) for f in (torch.sin, torch.cos)], -1)
        y = torch.relu(self.b(torch.cat([x, self.a(x)], -1)))
        return F.softplus(self.density(y)), torch.sigmoid(self.colour(y))
