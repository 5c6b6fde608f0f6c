"""The same zeros given to torch-pruning and torch-simplify, where these are installed: error, parameters, latency.

Run: python benchmarks/shrink_peers.py. Errors are relative to the largest output, over random inputs of the example's
size and of another one, in float32 for all. Latencies are medians of pairs beside the model that was given, one thread.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from torch import nn

import torchshrink as ts
from shrink import feed_forward, mlp, ratio, resnet18, zero_rows
from zoo_of_packages import stand_in

Tool = Callable[[nn.Module, torch.Tensor], nn.Module]


def ours(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """torchshrink."""
    return ts.shrink(model, x).model


def torch_pruning(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Its groups, with the rows that are zero; those that it does not allow to go stay."""
    import torch_pruning as tp

    zeros = {
        name: (layer.weight.flatten(1) == 0).all(1).nonzero().flatten().tolist()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=x)
    for name, gone in zeros.items():
        layer = model.get_submodule(name)
        conv = isinstance(layer, nn.Conv2d)
        width = layer.out_channels if conv else layer.out_features
        if gone and width > max(gone):  # else its group has been there already
            prune = tp.prune_conv_out_channels if conv else tp.prune_linear_out_channels
            group = graph.get_pruning_group(layer, prune, idxs=gone)
            if graph.check_pruning_group(group):
                group.prune()
    return model


def torch_simplify(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """As its documentation says."""
    stand_in("torchvision")
    from simplify import simplify

    return simplify(model, torch.zeros_like(x[:1]))


class Plain(nn.Module):
    """Convolutions with biases and normalisation, zero padding, and a constant before it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classes."""
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| model | zero | tool | parameters | error | at another size | latency, batch 1 | larger batch |")
    print("|---|---|---|---|---|---|---|---|")
    tools: dict[str, Tool] = {
        "torchshrink": ours,
        "torch-pruning": torch_pruning,
        "torch-simplify": torch_simplify,
    }
    cases = (
        ("MLP 784-1024-1024-10", mlp, (784,), (784,), 256),
        ("FFN 768-3072-768", feed_forward, (768,), (768,), 256),
        ("conv, BatchNorm, ReLU × 3", Plain, (3, 32, 32), (3, 40, 40), 16),
        ("ResNet-18", resnet18, (3, 64, 64), (3, 96, 96), 16),
    )
    for name, build, size, other, rows in cases:
        for share in (0.5, 0.75):
            torch.manual_seed(0)
            model = build().eval()
            zero_rows(model, share, stages=build is resnet18)
            for tool, run in tools.items():
                cells = _row(run, model, size, other=other, rows=rows)
                print(f"| {name} | {share:.0%} | {tool} | {cells} |", flush=True)


def _row(run: Tool, model: nn.Module, size: tuple[int, ...], *, other: tuple[int, ...], rows: int) -> str:
    torch.manual_seed(1)
    try:
        small = run(copy.deepcopy(model), torch.randn(2, *size)).eval()
    except ImportError as error:
        return f"not installed ({error.name}) | | | |"
    except Exception as error:  # whatever a tool raises is its result
        print(f"{run.__name__}: {error}", file=sys.stderr)
        return f"{type(error).__name__} | | | |"
    before, after = (sum(p.numel() for p in one.parameters()) for one in (model, small))
    errors = []
    for shape in (size, other):
        x = torch.randn(3, *shape)
        with torch.no_grad():
            wanted = model(x)
            try:
                found = (small(x) - wanted).abs().max() / wanted.abs().max().clamp(min=1)
                errors.append(f"{found:.0e}")
            except Exception as error:
                print(f"{run.__name__}: {error}", file=sys.stderr)
                errors.append(type(error).__name__)
    one, many = (ratio(model, small, torch.randn(n, *size)) for n in (1, rows))
    return f"{after / before:.2f} | {errors[0]} | {errors[1]} | {one:.2f} | {many:.2f} ({rows})"


if __name__ == "__main__":
    main()
