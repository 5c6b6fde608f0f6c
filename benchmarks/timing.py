"""How every benchmark here measures: side by side in one process, interleaved, the median of pairs.

Only ratios are printed. An absolute time says more about a machine than about a library.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def ratios(
    variants: Mapping[str, Callable[[], object]], *, baseline: str, rounds: int, repeats: int
) -> dict[str, float]:
    """Each variant's time over the baseline's: the median over ``rounds`` of pairs taken back to back.

    Args:
        variants: what to run, by name.
        baseline: the name of the one to divide by.
        rounds: pairs per variant; the first is a warm-up and is dropped.
        repeats: calls per measurement.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(rounds + 1):
        for name, run in variants.items():
            # Baseline and variant alternate in who goes first, so that a drift of the clock cancels.
            pair = [(baseline, variants[baseline]), (name, run)]
            if round_number % 2:
                pair.reverse()
            seconds = {}
            for position, (_, call) in enumerate(pair):
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                seconds[position] = time.perf_counter() - start
            mine = 0 if round_number % 2 else 1
            if round_number:
                found[name].append(seconds[mine] / seconds[1 - mine])
    return {name: statistics.median(values) for name, values in found.items()}


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, ready for the README."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
