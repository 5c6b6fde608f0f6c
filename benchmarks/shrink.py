"""What shrinking gives: parameters, latency and error of models whose units are half or three quarters zero.

Run: python benchmarks/shrink.py. Latencies are ratios, small over large, medians of pairs, on one thread.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

import torchshrink as ts


class Block(nn.Module):
    """A basic block of ResNet-18."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride > 1 or inputs != width
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two convolutions beside the shortcut."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.down(x))


def resnet18() -> nn.Module:
    """ResNet-18."""
    stages = [
        Block(a, b, s)
        for a, b, s in zip(
            (64, 64, 64, 128, 128, 256, 256, 512),
            (64, 64, 128, 128, 256, 256, 512, 512),
            (1, 1, 2, 1) + (2, 1) * 2,
            strict=True,
        )
    ]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def mlp() -> nn.Module:
    """784-1024-1024-10."""
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def feed_forward() -> nn.Module:
    """768-3072-768, as BERT has it."""
    return nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768))


def zero_rows(model: nn.Module, share: float, stages: bool) -> None:
    """Zero this share of the rows of every weight but the last; biases and shifts stay, so that constants are left."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][:-1]
    for layer in layers:
        rows = layer.weight.shape[0]
        with torch.no_grad():
            # the same rows in all layers of a stage, so that a residual stream loses them too
            gone = torch.arange(int(rows * share)) if stages else torch.randperm(rows)[: int(rows * share)]
            layer.weight[gone] = 0
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            with torch.no_grad():
                norm.running_mean.normal_()
                norm.bias.normal_()


def ratio(large: nn.Module, small: nn.Module, x: torch.Tensor, rounds: int = 15) -> float:
    """Small over large, the median of pairs."""
    found = []
    with torch.no_grad():
        for _ in range(rounds):
            spans = []
            for model in (large, small):
                start = time.perf_counter()
                model(x)
                spans.append(time.perf_counter() - start)
            found.append(spans[1] / spans[0])
    return statistics.median(found)


def language_models() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """BERT-base and GPT-2 from their configurations, where transformers is installed, and tokens."""
    try:
        import transformers
    except ImportError:
        return {}
    transformers.logging.set_verbosity_error()
    bert = transformers.BertModel(transformers.BertConfig())
    gpt2 = transformers.GPT2Model(transformers.GPT2Config(use_cache=False))
    return {
        "BERT-base, 64 tokens": (bert, torch.randint(0, 30000, (2, 64))),
        "GPT-2, 64 tokens": (gpt2, torch.randint(0, 50000, (2, 64))),
    }


def zero_heads_and_units(model: nn.Module, share: float) -> None:
    """Heads that the output layer does not read, and feed-forward units whose rows are zero."""
    with torch.no_grad():
        for name, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if name.endswith(("attention.output.dense", "attn.c_proj")):
                heads = torch.randperm(12)[: int(12 * share)]
                columns = (64 * heads[:, None] + torch.arange(64)).flatten()
                (weight if "c_proj" in name else weight.t())[columns] = 0
            elif name.endswith(("intermediate.dense", "c_fc")):
                units = torch.randperm(3072)[: int(3072 * share)]
                (weight.t() if "c_fc" in name else weight)[units] = 0


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| model | zero | parameters | error (float64) | latency, batch 1 | larger batch | seconds to shrink |")
    print("|---|---|---|---|---|---|---|")
    cases = (
        ("MLP 784-1024-1024-10", mlp, (784,), 256),
        ("FFN 768-3072-768", feed_forward, (768,), 256),
        ("ResNet-18, 64 px", resnet18, (3, 64, 64), 16),
    )
    for name, build, size, rows in cases:
        for share in (0.5, 0.75):
            torch.manual_seed(0)
            model = build().eval()
            zero_rows(model, share, stages=build is resnet18)
            start = time.perf_counter()
            shrunk = ts.shrink(model, torch.randn(2, *size))
            spent = time.perf_counter() - start
            small = shrunk.model
            one, many = (ratio(model, small, torch.randn(n, *size)) for n in (1, rows))
            before, after = shrunk.parameters
            print(
                f"| {name} | {share:.0%} | {after / before:.2f} | {shrunk.difference:.0e} | {one:.2f} | "
                f"{many:.2f} ({rows}) | {spent:.1f} |",
                flush=True,
            )
    for share in (0.5, 0.75):
        torch.manual_seed(0)
        for name, (model, tokens) in language_models().items():
            zero_heads_and_units(model.eval(), share)
            start = time.perf_counter()
            shrunk = ts.shrink(model, tokens)
            spent = time.perf_counter() - start
            one, many = (ratio(model, shrunk.model, tokens[:1].expand(n, -1), rounds=7) for n in (1, 8))
            before, after = shrunk.parameters
            print(
                f"| {name} | {share:.0%} | {after / before:.2f} | {shrunk.difference:.0e} | {one:.2f} | "
                f"{many:.2f} (8) | {spent:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
