"""Small models and data, and what of a path's result is compared, for the tests of paths."""

import json

import torch
from sklearn.datasets import load_iris
from torch import nn

from torchshrink.models import mlp


def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype("f4"), y


def small():
    return mlp(4, 3, hidden=(8,))


class Normalised(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


class Conv(nn.Module):
    """Of rows of 16 numbers, taken as images of 4 × 4."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3 * 4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x.view(-1, 1, 4, 4)))).flatten(1))


def plain(result):
    return json.dumps(result.to_dict(), allow_nan=False), result.losses.numpy().tobytes()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
