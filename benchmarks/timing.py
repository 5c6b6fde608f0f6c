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
    """Each variant's time over the baseline's before and after it: the median over ``rounds``.

    Each is measured right after the other one, so that both begin with a cache full of what is not theirs.

    Args:
        variants: what to run, by name.
        baseline: the name of the one to divide by.
        rounds: measurements per variant; one more, the first, is a warm-up and is dropped.
        repeats: calls per measurement.
    """

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return time.perf_counter() - start

    base = variants[baseline]
    found = dict.fromkeys(variants, 1.0)
    for name in [name for name in variants if name != baseline]:
        values, before = [], seconds(base)
        for _ in range(rounds + 1):
            mine, after = seconds(variants[name]), seconds(base)
            values.append(2 * mine / (before + after))
            before = after
        found[name] = statistics.median(values[1:])
    return found


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, ready for the README."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
