"""Models of real shape with random zeros, shrunk: how many are wrong (none may be), and how much could go.

Run: python benchmarks/shrink_zoo.py [NAME …]. The models are those of tests/shrink_models, and, where the packages are
installed, small ones from the configurations of transformers and timm (timm imports torchvision, which is not needed).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torchshrink as ts

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from shrink_cases import MASKS, error, mask
from shrink_models import ZOO, example, image
from zoo_of_packages import from_packages

Case = tuple[Callable[[], nn.Module], tuple[tuple[Any, ...], ...]]


def cases() -> dict[str, Case]:
    """Builders and inputs of two sizes, by name."""
    found: dict[str, Case] = {}
    for name, (build, *sizes) in ZOO.items():
        found[name] = (build, tuple((example(size),) for size in sizes))
    return found | from_packages(image)


def main() -> None:
    """Print a row per model and what stayed, then the sum."""
    torch.set_num_threads(1)
    only = sys.argv[1:]
    print("| model | runs | wrong | refused | largest error | parameters left: median | least | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    total = Counter[str]()
    stayed: dict[str, Counter[str]] = {}
    for name, (build, inputs) in cases().items():
        if only and name not in only:
            continue
        shares, worst, spent, tally = [], 0.0, 0.0, Counter[str]()
        masks = [(kind, 0.5) for kind in MASKS] + [("mixed", 0.75), ("stages", 0.75)]
        for seed, (kind, share) in enumerate(masks if name in ZOO else masks[-4:]):
            torch.manual_seed(seed)
            model = mask(build(), kind, seed, share)
            start = time.perf_counter()
            tally["runs"] += 1
            try:
                shrunk = ts.shrink(model, inputs[0])
            except ts.errors.InputError as message:
                tally["refused"] += 1
                print(f"{name}, {kind}: {message}", file=sys.stderr)
                continue
            spent += time.perf_counter() - start
            found = error(model, shrunk, inputs)
            tally["wrong"] += not found <= 1e-12
            worst = max(worst, found)
            shares.append(shrunk.parameters[1] / shrunk.parameters[0])
            stayed.setdefault(name, Counter()).update(shrunk.pinned)
        total += tally
        median, least = (statistics.median(shares), min(shares)) if shares else (1.0, 1.0)
        print(
            f"| {name} | {tally['runs']} | {tally['wrong']} | {tally['refused']} | {worst:.0e} | {median:.2f} | "
            f"{least:.2f} | {spent / tally['runs']:.1f} |",
            flush=True,
        )
    print(f"\n{total['runs']} runs, {total['wrong']} wrong, {total['refused']} refused.\n")
    for name, reasons in stayed.items():
        for reason, count in reasons.most_common():
            if not reason.startswith(("an input of", "an output of", "a dimension of one")):
                print(f"{name}: {count} units stayed: {reason}")


if __name__ == "__main__":
    main()
