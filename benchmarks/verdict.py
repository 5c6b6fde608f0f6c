"""How often the verdict claims a benefit: where there is none (false alarms), and where there is one (power).

    python benchmarks/verdict.py                    # 40 seeds a setting, a few minutes
    python benchmarks/verdict.py --seeds 500        # docs/measured_verdict.md: an hour and a half on one core
    python benchmarks/verdict.py --only genes --seeds 100
    python benchmarks/verdict.py --paths --seeds 30 # real trainings with ts.path: twenty minutes

The worlds are in `verdict_worlds.py`, the rule that was before in `verdict_old.py`; the new rule is the package's own.
The true change is that of the procedure: the mean over many data sets of the log ratio of the expected losses of the
models chosen, as a share. Coverage is how often the interval has it within.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import RepeatedKFold, ShuffleSplit

from torchshrink.paths.statistics.gains import HeldOut, by_parts, choices, gains, held_out_ratio
from torchshrink.paths.statistics.verdict import Verdict, judge, judge_rows
from verdict_old import old_interval
from verdict_paths import paths
from verdict_worlds import NOTHING, Failing, Logistic, Split, Squares, Table, tabulate

WORDS = ("it helps", "nothing is shown", "it harms")
REPEATS = 3


def normal(size: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, inputs: rng.normal(size=inputs) * size


def genes(rng: np.random.Generator, inputs: int) -> np.ndarray:
    return np.concatenate([[3, -2, 1.5, 1, 0.8], np.zeros(inputs - 5)])


def wide(rng: np.random.Generator, inputs: int) -> np.ndarray:
    """Weights of very different sizes, so that a ridge that knows them is far better."""
    return rng.standard_t(2, size=inputs) * 0.2


def calm(rows: int, luck: float, **settings: object) -> Squares:
    """A null: five weights, and penalties that change nothing."""
    return Squares(rows, 5, normal(1.0), luck=luck, grid=NOTHING, **settings)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Setting:
    """What is simulated: a world, who is compared with whom, and how rows are held out."""

    name: str
    world: Squares | Logistic | Failing
    null: bool = False
    folds: int = 5
    ours: Callable[[int], list[int]] = lambda count: list(range(count))
    theirs: Callable[[int], list[int]] = lambda count: [0]
    split: str = "folds"  # or "repeated", "shuffled", "once"
    against: int = 0  # so many penalties, which share the candidates, against each other


def half(count: int) -> list[int]:
    return list(range(count // 2))


def other(count: int) -> list[int]:
    return list(range(count // 2, count))


POWER = [
    Setting("lasso, genes 150 × 100", Squares(150, 100, genes, kind="lasso")),
    Setting("ridge, p ≈ n (60 × 45)", Squares(60, 45, normal(0.15))),
    Setting("log loss, 250 × 30", Logistic(250, 30, 0.25)),
    Setting("n = 60, p = 20", Squares(60, 20, normal(0.2))),
    Setting("n = 4000, p = 200", Squares(4000, 200, normal(0.03))),
    Setting("heavy tails (t 2.5), 200 × 60", Squares(200, 60, normal(0.15), tail=2.5)),
    Setting("n = 300, p = 20", Squares(300, 20, normal(0.1))),
    Setting("K = 2, ridge p ≈ n (100 × 45)", Squares(100, 45, normal(0.15)), folds=2),
    Setting("K = 10, ridge p ≈ n", Squares(60, 45, normal(0.15)), folds=10),
    Setting("K = 10, log loss, 60 × 8", Logistic(60, 8, 0.5), folds=10),
    Setting("K = 60 (each row by itself)", Squares(60, 20, normal(0.2)), folds=60),
    Setting("K = 60, log loss, 60 × 8", Logistic(60, 8, 0.5), folds=60),
    Setting("warm, ridge p ≈ n", Squares(60, 45, normal(0.15), kind="warm"), ours=half, theirs=other),
    Setting("against: better ridge", Squares(120, 40, wide, kind="two"), against=2),
    Setting("two penalties × strengths", Squares(120, 40, wide, kind="two")),
    Setting("likelihood below 0, 100 × 40", Squares(100, 40, normal(0.1), kind="likelihood")),
    Setting("RepeatedKFold(5, 3)", Squares(60, 45, normal(0.15)), split="repeated"),
    Setting("ShuffleSplit(10)", Squares(60, 45, normal(0.15)), split="shuffled"),
    Setting("one split (rows alone)", Squares(120, 45, normal(0.15)), split="once"),
]
NULLS = [
    *(Setting(f"n = {n}, luck {luck:g}", calm(n, luck), null=True) for n in (60, 600, 4000) for luck in (0.02, 0.2)),
    Setting("n = 600, luck 0.1, shared", calm(600, 0.1, shared=0.9), null=True),
    Setting("log loss, n = 200, luck 0.1", Logistic(200, 5, 0.5, luck=0.1, grid=NOTHING), null=True),
    Setting("heavy tails (t 2.5), luck 0.1", calm(200, 0.1, tail=2.5), null=True),
    *(Setting(f"K = {k}, n = 200, luck 0.2", calm(200, 0.2), null=True, folds=k) for k in (2, 3, 10)),
    Setting("K = 60, n = 60, luck 0.2", calm(60, 0.2), null=True, folds=60),
    *(
        Setting(f"one candidate, K = {k}", calm(200, 0.2), null=True, folds=k, ours=lambda count: [1])
        for k in (2, 5, 10)
    ),
    Setting("warm", calm(200, 0.1, kind="warm"), null=True, ours=half, theirs=other),
    Setting("warm, short trainings", Squares(200, 30, normal(0.3), luck=0.02, kind="warm", grid=NOTHING), null=True,
            ours=half, theirs=other),
    Setting("against the other penalty", calm(200, 0.2, copies=2), null=True, against=2),
    Setting("against the worst of four penalties", calm(200, 0.2, copies=4), null=True, against=4),
    Setting("four penalties × strengths", calm(200, 0.2, copies=4), null=True),
    Setting("likelihood below 0", calm(200, 0.2, kind="likelihood"), null=True),
    Setting("RepeatedKFold(5, 3), luck 0.2", calm(200, 0.2), null=True, split="repeated"),
    Setting("ShuffleSplit(10), luck 0.2", calm(200, 0.2), null=True, split="shuffled"),
    Setting("one split, no luck", calm(200, 0.0, copies=1), null=True, split="once"),
    *(
        Setting(f"a fifth fails, {how}, K = {k}", Failing(600, how == "together"), null=True, folds=k)
        for how in ("each", "together") for k in (2, 5, 10)
    ),
    Setting("a fifth fails, graded, together", Failing(600, True, graded=True), null=True),
]  # fmt: skip


def draw(setting: Setting, seed: int) -> Table:
    rng = np.random.default_rng([seed, sum(map(ord, setting.name))])
    fit = setting.world.draw(rng)
    return tabulate(rng, fit, splits(setting, rng))


def splits(setting: Setting, rng: np.random.Generator) -> list[list[Split]]:
    n, state = setting.world.rows, int(rng.integers(2**31))
    if setting.split == "repeated":
        return [list(RepeatedKFold(n_splits=5, n_repeats=3, random_state=state).split(np.empty(n)))]
    if setting.split == "shuffled":
        return [list(ShuffleSplit(10, test_size=0.2, random_state=state).split(np.empty(n)))]
    if setting.split == "once":
        return [list(ShuffleSplit(1, test_size=0.3, random_state=state).split(np.empty(n)))]
    made = []
    for _ in range(REPEATS):
        fold = rng.permutation(np.arange(n) % setting.folds)
        made.append([(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(setting.folds)])
    return made


def sides(setting: Setting, table: Table) -> tuple[list[int], list[int]]:
    count = table.losses[0][0].shape[1]
    if not setting.against:
        return setting.ours(count), setting.theirs(count)
    # As a comparison has it: the choice among all penalties, against the one that seems the worst.
    means = np.concatenate(table.losses[0]).mean(0)
    worst = max(np.array_split(np.arange(count), setting.against), key=lambda columns: means[columns].min())
    return list(range(count)), worst.tolist()


def new_rule(setting: Setting, table: Table, ours: list[int], theirs: list[int], repeats: int) -> tuple[Verdict, float]:
    """The verdict, and the log ratio of the expected losses of the models that it compares."""
    folds = [
        [HeldOut(rows, losses, table.trained) for rows, losses in zip(rows_of, losses_of, strict=True)]
        for rows_of, losses_of in zip(table.rows[:repeats], table.losses[:repeats], strict=True)
    ]
    if setting.split == "once":
        found = by_parts(folds[0], (ours, theirs), seed=0)
        means = folds[0][0].losses.mean(0)
        a, b = ours[means[ours].argmin()], theirs[means[theirs].argmin()]
        expected = table.expected[0][0]
        return judge_rows(found[:, 0], found[:, 1], words=WORDS, chosen=True), float(np.log(expected[a] / expected[b]))
    chosen = choices(folds[0], table.rows[:repeats], (ours, theirs))
    assert chosen is not None
    below_0 = any((losses < 0).any() for losses in table.losses[0])
    verdict = judge(gains(folds, chosen), ratio=held_out_ratio(folds[0]), words=WORDS, differences=below_0)
    true = []
    for pairs, expected in zip(chosen, table.expected, strict=False):
        for (a, b), each in zip(pairs, expected, strict=True):
            true.append(np.log(each[a] / each[b]) if not below_0 else each[a] - each[b])
    return verdict, float(np.mean(true))


def simulate(settings: Sequence[Setting], seeds: int) -> None:
    print("| setting | true change % | old rule | R = 1 | R = 3 | coverage R = 1 | R = 3 | harms | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for setting in settings:
        start, found, truths, old = time.perf_counter(), {1: [], REPEATS: []}, {1: [], REPEATS: []}, []
        for seed in range(seeds):
            table = draw(setting, seed)
            ours, theirs = sides(setting, table)
            for repeats in found if len(table.rows) > 1 else [1]:
                verdict, true = new_rule(setting, table, ours, theirs, repeats)
                found[repeats].append(verdict)
                truths[repeats].append(true)
            if setting.split in ("folds", "once"):
                old.append(_old(table, ours, theirs, seed) if setting.split == "folds" else None)
        print(_row(setting, found, truths, old, time.perf_counter() - start), flush=True)


def _old(table: Table, ours: list[int], theirs: list[int], seed: int) -> bool:
    losses = np.concatenate(table.losses[0])
    fold = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(table.rows[0])])
    return bool(old_interval(losses, fold, ours=ours, theirs=theirs, seed=seed)[1] < 0)


def _row(setting: Setting, found: dict, truths: dict, old: list, seconds: float) -> str:
    cells, covers, harms = [], [], 0.0
    last = REPEATS if found[REPEATS] else 1
    true = float(np.mean(truths[last]))
    for repeats in (1, REPEATS):
        verdicts = found[repeats]
        if not verdicts:
            cells.append("")
            covers.append("")
            continue
        cells.append(f"{100 * np.mean([each.helps for each in verdicts]):.1f}")
        harms = 100 * float(np.mean([each.harms for each in verdicts]))
        each_true = truths[repeats] if setting.split == "once" else [true] * len(verdicts)
        covers.append(f"{100 * np.mean([_within(v, t) for v, t in zip(verdicts, each_true, strict=True)]):.0f}")
    share = np.expm1(true) if found[last][0].relative else true
    unit = "" if found[last][0].relative else " (difference)"
    before = "" if None in old or not old else f"{100 * np.mean(old):.1f}"
    return (
        f"| {setting.name} | {100 * share if not unit else share:.2g}{unit} | {before} | {cells[0]} | {cells[1]} "
        f"| {covers[0]} | {covers[1]} | {harms:.1f} | {seconds:.0f} |"
    )


def _within(verdict: Verdict, true: float) -> bool:
    """Whether the interval has the true change, a log ratio or a difference, within."""
    if verdict.interval is None:
        return False
    change = np.expm1(true) if verdict.relative else true
    return bool(verdict.interval[0] - 1e-12 <= change <= verdict.interval[1] + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--only", default="", help="settings whose names have this in them")
    parser.add_argument("--paths", action="store_true", help="real trainings")
    parser.add_argument(
        "--kept",
        type=Path,
        help="with --paths: a file that keeps what is done, to go on from; not beyond a change of code",
    )
    asked = parser.parse_args()
    if asked.paths:
        return paths(asked.seeds, asked.only, asked.kept)
    for title, settings in (("power", POWER), ("false alarms", NULLS)):
        print(f"\n{title}, {asked.seeds} seeds: claims that it helps, in %\n")
        simulate([each for each in settings if asked.only in each.name], asked.seeds)


if __name__ == "__main__":
    main()
