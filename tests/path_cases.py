"""Small models and data, and what of a path's result is compared, for the tests of paths."""

import json

import torch
from torch import nn

import torchshrink as ts
from torchshrink.models import mlp
from torchshrink.paths import PathSettings
from torchshrink.paths.training_spec import make_training_spec


def iris():
    from sklearn.datasets import load_iris  # here, as a worker that builds a model need not wait for it

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


def flat(settings):
    """The keywords of `ts.path`, with those of its engine among them."""
    own = {key: settings[key] for key in ("lanes", "compile", "workers", "jobs") if key in settings}
    rest = {key: value for key, value in settings.items() if key not in own}
    return rest | {"engine": ts.Engine(settings.get("engine", "auto"), **own)} if own else rest


def spec_for(build, data, families, **settings):
    """How each model of a path with these settings is trained."""
    return make_training_spec(build, data, families, PathSettings(**flat(settings)))
