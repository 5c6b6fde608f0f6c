"""Classifiers of images."""

import torch
from torch import nn
from torch.nn import functional as F


def conv_bn(a, b, kernel=3, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act()] if act else []))


class BasicBlock(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.conv1, self.conv2 = conv_bn(a, b, 3, stride), conv_bn(b, b, act=None)
        self.down = conv_bn(a, b, 1, stride, act=None) if stride > 1 or a != b else nn.Identity()

    def forward(self, x):
        out = self.conv2(self.conv1(x))
        out += self.down(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    def __init__(self, a, b, stride, groups=1):
        super().__init__()
        width = b // 2
        self.body = nn.Sequential(
            conv_bn(a, width, 1), conv_bn(width, width, 3, stride, groups), conv_bn(width, b, 1, act=None)
        )
        self.down = conv_bn(a, b, 1, stride, act=None) if stride > 1 or a != b else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.down(x))


def classifier(*layers, width, classes=5):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def resnet18(w=8):
    stages = [
        BasicBlock(a, b, s)
        for a, b, s in (
            (w, w, 1), (w, w, 1), (w, 2 * w, 2), (2 * w, 2 * w, 1),
            (2 * w, 3 * w, 2), (3 * w, 3 * w, 1), (3 * w, 4 * w, 2), (4 * w, 4 * w, 1),
        )
    ]  # fmt: skip
    return classifier(conv_bn(3, w, 7, 2), nn.MaxPool2d(3, 2, 1), *stages, width=4 * w)


def resnet50():
    blocks = [Bottleneck(8, 16, 1), Bottleneck(16, 16, 1), Bottleneck(16, 24, 2), Bottleneck(24, 24, 1)]
    return classifier(conv_bn(3, 8, 3, 2), *blocks, width=24)


def resnext():
    return classifier(conv_bn(3, 8), Bottleneck(8, 16, 2, 4), Bottleneck(16, 16, 1, 4), width=16)


class PreActivation(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(a), nn.ReLU(inplace=True), nn.Conv2d(a, a, 3, padding=1, bias=False),
            nn.BatchNorm2d(a), nn.ReLU(inplace=True), nn.Conv2d(a, a, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


def wide_resnet():
    return classifier(nn.Conv2d(3, 10, 3, padding=1), PreActivation(10), PreActivation(10), nn.ReLU(), width=10)


class SqueezeExcite(nn.Module):
    def __init__(self, a, b, gate):
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(a, b, 1), nn.Conv2d(b, a, 1), gate

    def forward(self, x):
        return x * self.gate(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    def __init__(self, a, wide, b, stride=1, act=nn.ReLU6, gate=None):
        super().__init__()
        layers = [conv_bn(a, wide, 1, act=act), conv_bn(wide, wide, 3, stride, wide, act=act)]
        if gate is not None:
            layers.append(SqueezeExcite(wide, max(wide // 4, 2), gate))
        self.body = nn.Sequential(*layers, conv_bn(wide, b, 1, act=None))
        self.skip = stride == 1 and a == b

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


def mobilenet_v1():
    layers = [conv_bn(3, 8, 3, 2)]
    for a, b, stride in ((8, 12, 1), (12, 16, 2), (16, 16, 1)):
        layers += [conv_bn(a, a, 3, stride, a), conv_bn(a, b, 1)]
    return classifier(*layers, width=16)


def mobilenet_v2():
    blocks = [Inverted(8, 8, 6), Inverted(6, 24, 8, 2), Inverted(8, 24, 8), Inverted(8, 24, 12, 2)]
    return classifier(conv_bn(3, 8, 3, 2, act=nn.ReLU6), *blocks, conv_bn(12, 24, 1, act=nn.ReLU6), width=24)


def mobilenet_v3():
    blocks = [
        Inverted(8, 16, 8, 1, nn.ReLU, nn.Hardsigmoid()),
        Inverted(8, 24, 10, 2, nn.Hardswish, nn.Hardsigmoid()),
        Inverted(10, 24, 10, 1, nn.Hardswish, nn.Hardsigmoid()),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 20), nn.Hardswish(), nn.Dropout(), nn.Linear(20, 5)]
    return nn.Sequential(conv_bn(3, 8, 3, 2, act=nn.Hardswish), *blocks, conv_bn(10, 24, 1, act=nn.Hardswish), *head)


def efficientnet():
    blocks = [Inverted(8, 8, 8, 1, nn.SiLU, nn.Sigmoid()), Inverted(8, 24, 10, 2, nn.SiLU, nn.Sigmoid())]
    return classifier(conv_bn(3, 8, 3, 2, act=nn.SiLU), *blocks, conv_bn(10, 20, 1, act=nn.SiLU), width=20)


class DenseLayer(nn.Module):
    def __init__(self, a, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(a), nn.Conv2d(a, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y), inplace=True))], 1)


def densenet():
    return classifier(
        nn.Conv2d(3, 8, 3, padding=1), DenseLayer(8, 4), DenseLayer(12, 4), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 8, 1), nn.AvgPool2d(2), DenseLayer(8, 4), DenseLayer(12, 4), nn.BatchNorm2d(16), nn.ReLU(),
        width=16,
    )  # fmt: skip


def vgg():
    layers, a = [], 3
    for b in (8, "pool", 12, 12, "pool"):
        layers += [nn.MaxPool2d(2)] if b == "pool" else [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True)]
        a = a if b == "pool" else b
    head = [
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Linear(48, 24),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(24, 5),
    ]
    return nn.Sequential(*layers, *head)


def alexnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(True), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 2), nn.Conv2d(8, 12, 3,
        padding=1),
        nn.ReLU(True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(48, 16), nn.ReLU(True),
        nn.Linear(16, 5),
    )  # fmt: skip


def lenet():
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5),
    )  # fmt: skip


def network_in_network():
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 10, 1), nn.ReLU(), nn.MaxPool2d(3, 2,
        ceil_mode=True),
        nn.Conv2d(10, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Fire(nn.Module):
    def __init__(self, a, squeeze, b):
        super().__init__()
        self.squeeze = nn.Conv2d(a, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, b, 1), nn.Conv2d(squeeze, b, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


def squeezenet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 6), Fire(12, 4, 6),
        nn.Dropout(), nn.Conv2d(12, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Inception(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.one = conv_bn(a, 6, 1)
        self.three = nn.Sequential(conv_bn(a, 4, 1), conv_bn(4, 8))
        self.wide = nn.Sequential(
            conv_bn(a, 4, 1), nn.Conv2d(4, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 6, (5, 1), padding=(2, 0))
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(a, 4, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.wide(x), self.pool(x)], 1)


def googlenet():
    return classifier(conv_bn(3, 8, 3, 2), Inception(8), Inception(24), width=24)


class ShuffleUnit(nn.Module):
    def __init__(self, a):
        super().__init__()
        half = a // 2
        self.body = nn.Sequential(conv_bn(half, half, 1), conv_bn(half, half, 3, 1, half, None), conv_bn(half, half, 1))

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.body(right)], 1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)


def shufflenet():
    return classifier(conv_bn(3, 12, 3, 2), ShuffleUnit(12), ShuffleUnit(12), conv_bn(12, 16, 1), width=16)
