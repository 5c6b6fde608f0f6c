"""Newer classifiers of images, and from images to images."""

import torch
from torch import nn
from torch.nn import functional as F

from shrink_models.images import classifier, conv_bn


class LayerNorm2d(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.norm = nn.LayerNorm(a)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.depth, self.norm = nn.Conv2d(a, a, 5, padding=2, groups=a), nn.LayerNorm(a)
        self.up, self.down = nn.Linear(a, 4 * a), nn.Linear(4 * a, a)
        self.scale = nn.Parameter(torch.full((a,), 0.1))

    def forward(self, x):
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext():
    return nn.Sequential(
        nn.Conv2d(3, 8, 2, 2), LayerNorm2d(8), ConvNeXtBlock(8), LayerNorm2d(8), nn.Conv2d(8, 12, 2, 2),
        ConvNeXtBlock(12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 5),
    )  # fmt: skip


class ConvMixerBlock(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.depth = nn.Sequential(nn.Conv2d(a, a, 3, groups=a, padding="same"), nn.GELU(), nn.BatchNorm2d(a))
        self.point = nn.Sequential(nn.Conv2d(a, a, 1), nn.GELU(), nn.BatchNorm2d(a))

    def forward(self, x):
        return self.point(x + self.depth(x))


def convmixer():
    return classifier(nn.Conv2d(3, 10, 2, 2), nn.GELU(), nn.BatchNorm2d(10), ConvMixerBlock(10), width=10)


class RepVGGBlock(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.three, self.one, self.same = conv_bn(a, a, act=None), conv_bn(a, a, 1, act=None), nn.BatchNorm2d(a)

    def forward(self, x):
        return torch.relu(self.three(x) + self.one(x) + self.same(x))


def repvgg():
    return classifier(conv_bn(3, 8, 3, 2), RepVGGBlock(8), conv_bn(8, 12, 3, 2), RepVGGBlock(12), width=12)


class CSPBlock(nn.Module):
    """As YOLO has it: half goes through, half through a bottleneck, then both."""

    def __init__(self, a):
        super().__init__()
        self.first = conv_bn(a, a, 1, act=nn.SiLU)
        self.body = nn.Sequential(conv_bn(a // 2, a // 2, act=nn.SiLU), conv_bn(a // 2, a // 2, act=nn.SiLU))
        self.last = conv_bn(a // 2 * 3, a, 1, act=nn.SiLU)

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        parts.append(parts[-1] + self.body(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """A pyramid with three heads, and pooling at three scales."""

    def __init__(self):
        super().__init__()
        self.stem, self.c3 = conv_bn(3, 8, 3, 2, act=nn.SiLU), CSPBlock(8)
        self.down, self.c4 = conv_bn(8, 12, 3, 2, act=nn.SiLU), CSPBlock(12)
        self.lateral, self.spp = nn.Conv2d(8, 12, 1), conv_bn(36, 12, 1)
        self.box, self.score = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 2, 3, padding=1)

    def forward(self, x):
        a = self.c3(self.stem(x))
        b = self.c4(self.down(a))
        pooled = [b, F.max_pool2d(b, 3, 1, 1), F.max_pool2d(b, 5, 1, 2)]
        b = self.spp(torch.cat(pooled, 1))
        a = self.lateral(a) + F.interpolate(b, scale_factor=2.0, mode="nearest")
        return self.box(a), self.score(a), self.score(b)


class UNet(nn.Module):
    def __init__(self, up="transposed", norm=nn.BatchNorm2d):
        super().__init__()

        def double(a, b):
            first, second = nn.Conv2d(a, b, 3, padding=1, bias=False), nn.Conv2d(b, b, 3, padding=1, bias=False)
            return nn.Sequential(first, norm(b), nn.ReLU(inplace=True), second, norm(b), nn.ReLU(inplace=True))

        self.a, self.b, self.c = double(3, 6), double(6, 8), double(8, 12)
        self.d, self.e = (
            double(8 + (8 if up == "transposed" else 12), 8),
            double(6 + (6 if up == "transposed" else 8), 6),
        )
        self.up = up
        if up == "transposed":
            self.up1, self.up2 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        else:
            self.up1 = self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.up1(self.c(F.max_pool2d(b, 2)))
        d = self.up2(self.d(torch.cat([b, c], 1)))
        return self.out(self.e(torch.cat([a, d], 1)))


class AttentionGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 3, 2, 1)
        self.x, self.g, self.psi = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 1, 1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
        gate = torch.relu(self.x(a) + F.interpolate(self.g(b), size=a.shape[2:], mode="bilinear"))
        return self.out(a * torch.sigmoid(self.psi(gate)))


class Pyramid(nn.Module):
    """Dilated convolutions and a pooled branch, as DeepLab has them."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(6), nn.ReLU())
            for d in (1, 2)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 6, 1), nn.ReLU())
        self.project, self.out = conv_bn(18, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        size = x.shape[2:]
        x = self.stem(x)
        parts = [branch(x) for branch in self.branches]
        parts.append(self.pool(x).expand(-1, -1, *x.shape[2:]))
        return F.interpolate(
            self.out(self.project(torch.cat(parts, 1))), size=size, mode="bilinear", align_corners=False
        )


def super_resolution():
    return nn.Sequential(
        nn.Conv2d(3, 10, 5, padding=2), nn.Tanh(), nn.Conv2d(10, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 12, 3,
        padding=1),
        nn.PixelShuffle(2), nn.Conv2d(3, 3, 3, padding=1),
    )  # fmt: skip


def convolutional_autoencoder():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(12, 8, 3, 2, 1,
        1),
        nn.LeakyReLU(0.1), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip


def generator():
    """DCGAN: noise becomes an image."""
    return nn.Sequential(
        nn.Unflatten(1, (10, 1, 1)), nn.ConvTranspose2d(10, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16),
        nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4,
        2, 1), nn.Tanh(),
    )  # fmt: skip


def discriminator():
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(8, 12, 4, 2, 1), nn.InstanceNorm2d(12,
        affine=True),
        nn.LeakyReLU(0.2, True), nn.Conv2d(12, 1, 3),
    )  # fmt: skip


def style_transfer():
    return nn.Sequential(
        nn.ReflectionPad2d(2), nn.Conv2d(3, 8, 5), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 12, 3,
        2, 1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1),
    )  # fmt: skip
