"""Vectors and tables."""

import torch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.mean, self.log = nn.Linear(12, 20), nn.Linear(20, 6), nn.Linear(20, 6)
        self.b, self.c = nn.Linear(6, 20), nn.Linear(20, 12)

    def forward(self, x):
        h = F.elu(self.a(x))
        mean, log = self.mean(h), self.log(h)
        return torch.sigmoid(self.c(F.elu(self.b(mean + 0.1 * torch.exp(0.5 * log))))), mean, log


class WideAndDeep(nn.Module):
    """Tables: embeddings of categories beside numbers, a wide part beside a deep one."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 6) for n in (5, 9))
        self.deep = nn.Sequential(
            nn.Linear(16, 24), nn.ReLU(), nn.BatchNorm1d(24), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 2)
        )
        self.wide = nn.Linear(4, 2)

    def forward(self, x):
        codes = (x[:, 4:].abs() * 2).long().clamp(0, 4)
        parts = [table(codes[:, place]) for place, table in enumerate(self.tables)]
        return self.wide(x[:, :4]) + self.deep(torch.cat([x[:, :4], *parts], 1))


class TabularResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 12), nn.Sequential(nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 12))
            for _ in range(2)
        )

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class FactorizationMachine(nn.Module):
    """DeepFM: second-order products of field embeddings, stacked."""

    def __init__(self):
        super().__init__()
        self.fields = nn.ModuleList(nn.Linear(1, 8) for _ in range(5))
        self.deep = nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        e = torch.stack([field(x[:, i : i + 1]) for i, field in enumerate(self.fields)], 1)
        second = 0.5 * (e.sum(1) ** 2 - (e**2).sum(1)).sum(1, keepdim=True)
        return second + self.deep(e.flatten(1))


class MixtureOfExperts(nn.Module):
    """All experts work; a gate weighs them."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)) for _ in range(3))

    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        return (torch.stack([expert(x) for expert in self.experts], 1) * weights.unsqueeze(-1)).sum(1)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(30, 8), nn.Softplus(), nn.Linear(8, 1))

    def forward(self, x):
        a, b = self.body(x[:, :4]), self.body(x[:, 4:])
        return self.head(torch.cat([a, b, (a - b).abs()], 1))


class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 3)
        self.change, self.gate = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        x = torch.relu(self.first(x))
        gate = torch.sigmoid(self.gate(x))
        return self.last(gate * torch.relu(self.change(x)) + (1 - gate) * x)


def siren():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(30 * x)

    return nn.Sequential(nn.Linear(2, 16), Sine(), nn.Linear(16, 16), Sine(), nn.Linear(16, 1))


def mlp():
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.SiLU(), nn.Linear(16, 4))


class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.c(torch.maximum(self.a(x), self.b(x)))
