"""Models of many structures, with zeros, for the tests of shrinking."""

import torch
from torch import nn

import torchshrink as ts
from torchshrink.shrinking.trace import copy_model


def zero(tensor, places, dim=0):
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(list(places), dtype=torch.long), 0.0)


def random_mask(model, seed, share=0.5):
    """Zero rows, or zero columns, of every weight, and normalisation shifts that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name or isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm):
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
                elif parameter.ndim > 1 and not isinstance(module, nn.Embedding | nn.MultiheadAttention):
                    count = int(parameter.shape[0] * share)
                    zero(parameter, torch.randperm(parameter.shape[0], generator=generator)[:count].tolist())
                    if parameter.shape[1] > 3 and seed % 2:
                        chosen = torch.randperm(parameter.shape[1], generator=generator)[: parameter.shape[1] // 4]
                        zero(parameter, chosen.tolist(), dim=1)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean += torch.randn(module.running_mean.shape, generator=generator)
                module.running_var += torch.rand(module.running_var.shape, generator=generator)
    return model.double().eval()


def check(model, example, *others, tolerance=1e-12):
    """Shrink; the outputs on the example and the others are equal, and the given model is untouched."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shrunk = ts.shrink(model, example)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert shrunk.difference <= tolerance
    for x in (example, *others):
        with torch.no_grad():
            wanted, found = copy_model(model).eval()(x), shrunk.model.eval()(x)
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))
    return shrunk


class Residual(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.down = nn.Conv2d(width, 8, 1, stride=2)
        self.second = nn.Conv2d(width, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.first(x))
        x = torch.relu(self.down(x) + self.second(x))
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.c = nn.Conv2d(14, 10, 3)
        self.up = nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.d = nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        x = torch.cat([torch.relu(self.a(x)), torch.sigmoid(self.b(x))], 1)
        return self.d(torch.relu(self.up(self.c(x))))


class Attention(nn.Module):
    def __init__(self, width=16, size=4):
        super().__init__()
        self.size = size
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.o = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.f, self.g = nn.Linear(width, 32), nn.Linear(32, width)

    def forward(self, x):
        rows, length, _ = x.shape
        q, k, v = (part(x).view(rows, length, -1, self.size).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, length, -1)
        x = self.norm(x + self.o(y))
        return x + self.g(nn.functional.gelu(self.f(x)))


class Separable(nn.Module):
    """Inverted residual with squeeze and excite, as MobileNetV3 has it."""

    def __init__(self):
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depth, self.bn2 = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 12, 1)
        self.project = nn.Conv2d(12, 3, 1)

    def forward(self, x):
        y = nn.functional.hardswish(self.bn1(self.expand(x)))
        y = nn.functional.hardswish(self.bn2(self.depth(y)))
        scale = self.excite(torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(y, 1))))
        return x + self.project(y * nn.functional.hardsigmoid(scale))


class Chunked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 16), nn.Linear(8, 12), nn.Linear(6, 3)

    def forward(self, x):
        left, right = self.a(x).chunk(2, -1)
        y = self.b(torch.tanh(left) * torch.sigmoid(right))
        return self.c(nn.functional.glu(y, -1))


def mlp():
    return nn.Sequential(nn.Linear(6, 20), nn.Sigmoid(), nn.Linear(20, 16, bias=False), nn.GELU(), nn.Linear(16, 4))


def flattened():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, padding=1),
        nn.PReLU(6), nn.Flatten(), nn.Linear(54, 9), nn.Tanh(), nn.Linear(9, 3),
    )  # fmt: skip


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1, groups=2),
        nn.ReLU(), nn.AvgPool2d(3, 1, padding=1), nn.InstanceNorm2d(12, affine=True),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(12, 6, 3, padding="same", padding_mode="circular"), nn.Conv2d(6, 2, 1),
    )  # fmt: skip


FAMILIES = {
    "mlp": (mlp, (4, 6), (7, 6)),
    "flattened": (flattened, (2, 3, 8, 8), (3, 3, 8, 8)),
    "residual": (Residual, (2, 3, 8, 8), (3, 3, 12, 10)),
    "concat": (Concat, (2, 3, 8, 8), (1, 3, 11, 9)),
    "attention": (Attention, (2, 5, 16), (3, 7, 16)),
    "separable": (Separable, (2, 3, 6, 6), (3, 3, 9, 7)),
    "chunked": (Chunked, (3, 5), (8, 5)),
    "grouped": (grouped, (2, 3, 8, 8), (3, 3, 9, 9)),
}


MASKS = ("constants", "dead", "unread", "mixed", "stages", "blocks")


def mask(model, kind, seed, share=0.5):
    """Zero units of every layer.

    Args:
        model: any; its biases and normalisation shifts become random numbers first.
        kind: "constants": rows of weights, so that biases and shifts are left; "dead": biases and shifts too;
            "unread": columns; "mixed": rows and columns; "stages": the same rows in every layer, so that a residual
            stream loses them; "blocks": four rows beside each other, as the heads of attention are.
        seed: of which ones.
        share: how many of them.
    """
    generator = torch.Generator().manual_seed(seed)

    def some(size):
        if kind == "stages":
            return range(int(size * share))
        if kind == "blocks" and size % 4 == 0:
            blocks = torch.randperm(size // 4, generator=generator)[: int(size // 4 * share)]
            return [4 * block + place for block in blocks.tolist() for place in range(4)]
        return torch.randperm(size, generator=generator)[: int(size * share)].tolist()

    for module in model.modules():
        norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
        own = dict(module.named_parameters(recurse=False))
        gone = {}
        for name, parameter in own.items():
            with torch.no_grad():
                if parameter.ndim == 1:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
                elif not isinstance(module, nn.Embedding | nn.EmbeddingBag | nn.RNNBase):
                    dim = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
                    if kind != "unread":
                        gone[name] = some(parameter.shape[dim])
                        zero(parameter, gone[name], dim=dim)
                    if kind in ("unread", "mixed") and parameter.shape[1 - dim] > 3:
                        zero(parameter, some(parameter.shape[1 - dim]), dim=1 - dim)
        bias = own.get("bias")
        if kind == "dead" and bias is not None and "weight" in gone and len(bias) == len(own["weight"]):
            zero(bias, gone["weight"])
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean += torch.randn(module.running_mean.shape, generator=generator)
            module.running_var += torch.rand(module.running_var.shape, generator=generator)
            if kind == "dead":  # a filter of zeros stays zero behind it
                module.running_mean.zero_()
        if norm and kind == "dead" and bias is not None:
            zero(bias, range(len(bias)))
    return model.double().eval()


def error(model, shrunk, inputs):
    """The largest difference of the outputs over these inputs, relative to the largest output."""
    worst = 0.0
    for x in inputs:
        with torch.no_grad():
            wanted, found = leaves(copy_model(model).eval()(*x)), leaves(shrunk.model.eval()(*x))
        for a, b in zip(wanted, found, strict=True):
            assert a.shape == b.shape
            assert a.isfinite().all()
            assert b.isfinite().all()  # or the difference is no number, which max() would pass over
            worst = max(worst, float((a - b).abs().max() / max(1.0, float(a.abs().max()))))
    return worst


def leaves(value):
    """The tensors of an output."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [leaf for part in parts for leaf in leaves(part)]
