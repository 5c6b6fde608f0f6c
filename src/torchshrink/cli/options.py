"""The options that several verbs share, and the checks that need neither torch nor the data.

A check takes the option's name and what was given, and returns the value or raises InputError: what was given, what
was expected, what to do.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from torchshrink.errors import InputError
from torchshrink.support.text import suggestion

PENALTIES = (  # in the help only; a test holds it to BUILTIN
    "l1, l2, elastic_net, group_lasso, sparse_group_lasso, mcp, scad, l2sp, nuclear_norm, orthogonal, max_norm, l1_ball"
)
TASKS = ("auto", "classification", "regression")
METHODS = ("auto", "loss", "gradient", "prox", "decoupled")
SELECTIONS = ("weights", "all")
OPTIMIZERS = ("sgd", "adam", "adamw")
CHOICES = ("best", "one_se")
ENGINES = ("auto", "lanes", "sequential")
ORDERS = ("cold", "warm")
SEEDS = 2**32  # as many as numpy has
COUNT = 2**31 - 1
# What no machine has or no path needs; beyond, libraries below fail in ways of their own.
MOST = {"--threads": 1024, "--jobs": 1024, "--strengths": 10_000, "--hidden": 2**20, "--folds": 2**20}
MOST_GAMMA = 1e6  # where mcp and scad are l1 already
LARGEST = 1e30  # of a number: its square is still a float32's

_DATA, _MODEL, _PENALTY, _FIT, _OUT = "Data", "Model", "Penalty", "Training", "Output"

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="digits, breast_cancer, wine, iris, diabetes; a .csv, .parquet or .npz file; "
        "openml:NAME; or module:function.",
    ),
]
OptionalData = Annotated[
    str | None,
    typer.Argument(metavar="[DATA]", show_default=False, help="As for train; not needed with --model module:function."),
]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="COLUMN", rich_help_panel=_DATA, help="The column to predict (tables)."),
]
Task = Annotated[
    str,
    typer.Option("--task", metavar="NAME", rich_help_panel=_DATA, help="auto, classification, regression."),
]
Sep = Annotated[
    str | None,
    typer.Option(
        "--sep",
        metavar="CHARACTER",
        rich_help_panel=_DATA,
        show_default=False,
        help="Between the values of a .csv file: ',', ';', tab … Default: found in the file.",
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        "--decimal",
        metavar="CHARACTER",
        rich_help_panel=_DATA,
        show_default=False,
        help="The decimal point of numbers in text: . or ,. Default: found column by column.",
    ),
]
Thousands = Annotated[
    str | None,
    typer.Option(
        "--thousands",
        metavar="CHARACTER",
        rich_help_panel=_DATA,
        show_default=False,
        help="What groups the digits of numbers in text. Default: found column by column.",
    ),
]
Na = Annotated[
    list[str] | None,
    typer.Option(
        "--na",
        metavar="TEXT",
        rich_help_panel=_DATA,
        show_default=False,
        help="A further text that means a missing value, such as -999. Several: repeated or with commas.",
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="COLUMN",
        rich_help_panel=_DATA,
        show_default=False,
        help="A column to leave out. Several: repeated or with commas.",
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", metavar="NAME", rich_help_panel=_MODEL, help="mlp, logistic, linear, or module:function."),
]
Hidden = Annotated[
    str | None,
    typer.Option(
        "--hidden",
        metavar="WIDTHS",
        rich_help_panel=_MODEL,
        help="The mlp's hidden widths, such as 64,64 (default).",
        show_default=False,
    ),
]
Penalty = Annotated[
    str | None,
    typer.Option(
        "--penalty",
        metavar="NAME",
        rich_help_panel=_PENALTY,
        show_default=False,
        help=f"{PENALTIES}, or none. Default: l2.",
    ),
]
Penalties = Annotated[
    list[str] | None,
    typer.Option(
        "--penalty",
        metavar="NAME",
        rich_help_panel=_PENALTY,
        show_default=False,
        help=f"{PENALTIES}. Several, repeated or with commas, share folds, initial weights and batches. Default: l1.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="NUMBER",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="λ in mean loss + λ·Ω(weights). Default: 1e-4.",
    ),
]
Strengths = Annotated[
    str,
    typer.Option(
        "--strengths",
        metavar="LIST",
        rich_help_panel=_PENALTY,
        help="How many on an automatic grid, or the strengths themselves: 1e-4,1e-3,0.01. 0 is always added.",
    ),
]
L1Ratio = Annotated[
    float | None,
    typer.Option(
        "--l1-ratio",
        metavar="SHARE",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Of a penalty with two strengths, the first one's share of the strength. Default: 0.5.",
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(
        "--dim",
        metavar="DIM",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="The dimension that numbers the groups; 0, the default, makes a group of each unit's incoming weights.",
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        "--gamma",
        metavar="NUMBER",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Where mcp (default 3) and scad (default 3.7) level off.",
    ),
]
Radius = Annotated[
    float | None,
    typer.Option(
        "--radius",
        metavar="NUMBER",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Of the constraints max_norm and l1_ball, which have no strength.",
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE.yaml",
        rich_help_panel=_PENALTY,
        help="Pattern → penalty, instead of --penalty.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHICH",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Penalise the weights (default), or all: biases too.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        rich_help_panel=_PENALTY,
        help="How the penalty acts: auto, loss, gradient, prox, decoupled.",
    ),
]
Optimizer = Annotated[
    str,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        rich_help_panel=_FIT,
        help="sgd, adam or adamw, without weight decay of its own: the penalty is the only one.",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="NUMBER",
        rich_help_panel=_FIT,
        show_default=False,
        help="Learning rate. Default: 0.1 for sgd, 0.001 for adam and adamw.",
    ),
]
Momentum = Annotated[
    float | None,
    typer.Option("--momentum", metavar="NUMBER", rich_help_panel=_FIT, show_default=False, help="Of sgd. Default: 0."),
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="COUNT", rich_help_panel=_FIT, help="Passes over the rows.")]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="ROWS", rich_help_panel=_FIT, help="Rows in a step.")]
Validation = Annotated[
    float,
    typer.Option("--validation", metavar="SHARE", rich_help_panel=_FIT, help="Rows held out, as a share."),
]
Polish = Annotated[
    bool,
    typer.Option(
        "--polish",
        metavar="",
        rich_help_panel=_FIT,
        help="End with full-batch steps that settle which weights are zero; the certificate says how exactly.",
    ),
]
Folds = Annotated[int, typer.Option("--folds", metavar="COUNT", rich_help_panel=_FIT, help="Cross-validation folds.")]
Repeats = Annotated[
    int,
    typer.Option(
        "--repeats",
        metavar="COUNT",
        rich_help_panel=_FIT,
        help="How often folds and initial weights are drawn: first for the path, then for the verdict alone.",
    ),
]
Test = Annotated[
    float | None,
    typer.Option(
        "--test",
        metavar="SHARE",
        rich_help_panel=_FIT,
        help="Rows that take no part in any choice, on which the tuned and the unpenalised model are compared.",
    ),
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", metavar="COUNT", rich_help_panel=_FIT, help="Tune on so many rows; the rest are test rows."),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="NUMBER", rich_help_panel=_FIT, help="Of splits, initial weights and batches."),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", rich_help_panel=_FIT, help="cpu or cuda.")]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="COUNT",
        rich_help_panel=_FIT,
        help="CPU cores to compute on: 1 is fastest for small models. Decides the last bits.",
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="COUNT",
        rich_help_panel=_FIT,
        help="Processes that train, on one core each; -1: as many as there are cores. With --lanes or --engine "
        "sequential it does not change a bit of the result; else stacks are cut by it, and --resume needs the same.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        rich_help_panel=_FIT,
        help="lanes: many strengths and folds as one stacked program; sequential: one after another; auto: "
        "lanes where they pay.",
    ),
]
Lanes = Annotated[
    int | None,
    typer.Option(
        "--lanes",
        metavar="COUNT",
        rich_help_panel=_FIT,
        show_default=False,
        help="Trainings at once, at most. Default: as many as pay and fit in memory.",
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        rich_help_panel=_FIT,
        show_default=False,
        help="Put stacked programs through torch.compile, which takes 5 to 16 s at first. Default: where it pays.",
    ),
]
Order = Annotated[
    str,
    typer.Option(
        "--order",
        metavar="NAME",
        rich_help_panel=_FIT,
        help="cold: every strength from the initial weights; warm: ascending from 0, each from where the one before it "
        "ended.",
    ),
]
Choose = Annotated[
    str,
    typer.Option("--choose", metavar="NAME", rich_help_panel=_FIT, help="Refit at best or one_se."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        rich_help_panel=_OUT,
        show_default=False,
        help="Where everything is written. Default: runs/VERB-DATA.",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", metavar="", rich_help_panel=_OUT, help="Overwrite what an earlier run left in the folder."),
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", rich_help_panel=_OUT, help="Go on where an interrupted run stopped.")
]
Json = Annotated[bool, typer.Option("--json", metavar="", rich_help_panel=_OUT, help="The result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", metavar="", rich_help_panel=_OUT, help="No progress on stderr.")]
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", rich_help_panel=_OUT, help="With an error, its whole traceback.")
]


def one_of(option: str, given: str, allowed: Sequence[str]) -> str:
    """``given``, if it is one of ``allowed``."""
    if given in allowed:
        return given
    raise InputError(f"{option} {given}: expected one of {', '.join(allowed)}{suggestion(given, allowed)}")


def at_least(option: str, given: int, least: int) -> int:
    """``given``, if it is a whole number ≥ ``least`` that can be counted to."""
    if given < least:
        raise InputError(f"{option} {given}: expected a whole number of {least} or more")
    most = MOST.get(option, COUNT)
    if given > most:
        raise InputError(f"{option} {_short(given)}: expected a whole number of at most {most}")
    return given


def _short(given: object) -> str:
    text = str(given)
    return text if len(text) <= 40 else f"{text[:39]}…"


def seed_of(option: str, given: int) -> int:
    """``given``, if it is a whole number that every generator takes as a seed."""
    if 0 <= given < SEEDS:
        return given
    raise InputError(f"{option} {given}: expected a whole number from 0 to {SEEDS - 1}")


def not_negative(option: str, given: float) -> float:
    """``given``, if it is a finite number ≥ 0."""
    if 0 <= given <= LARGEST:
        return given
    expected = "finite number of 0 or more" if not 0 <= given < math.inf else f"number from 0 to {LARGEST:g}"
    raise InputError(f"{option} {given:g}: expected a {expected}")


def positive(option: str, given: float) -> float:
    """``given``, if it is a finite number above 0."""
    if 0 < given <= LARGEST:
        return given
    expected = "finite number above 0" if not 0 < given < math.inf else f"number above 0, up to {LARGEST:g}"
    raise InputError(f"{option} {given:g}: expected a {expected}")


def between(option: str, given: float, low: float, high: float, advice: str) -> float:
    """``given``, if low ≤ given < high."""
    if low <= given < high:
        return given
    raise InputError(f"{option} {given:g}: expected a number from {low:g} to below {high:g}, {advice}")


def strengths(option: str, given: str) -> int | tuple[float, ...]:
    """A count of strengths, or the strengths themselves, ascending.

    >>> strengths("--strengths", "32")
    32
    >>> strengths("--strengths", "0.1,1e-3")
    (0.001, 0.1)
    """
    if re.fullmatch(r"[+-]?\d+", given.strip()):
        if len(given) > 100:
            raise InputError(f"{option} {_short(given)}: expected a whole number of at most {MOST['--strengths']}")
        return at_least(option, int(given), 1)
    values = []
    for word in filter(None, (part.strip() for part in given.split(","))):
        try:
            values.append(not_negative(option, float(word)))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{option} {given}: {word!r} is not a number; expected a count (32) or strengths (1e-4,1e-3,0.01)"
            ) from None
    if not values:
        raise InputError(f"{option} {given!r}: expected a count (32) or strengths (1e-4,1e-3,0.01)")
    if len(set(values)) < len(values):
        raise InputError(f"{option} {given}: a strength is given twice; give each once")
    return tuple(sorted(values))


def widths(option: str, given: str) -> tuple[int, ...]:
    """Hidden widths, such as ``64,64``.

    >>> widths("--hidden", "64,32")
    (64, 32)
    """
    try:
        values = tuple(int(word) for word in given.split(","))
    except ValueError:
        raise InputError(
            f"{option} {_short(given)}: expected whole numbers with commas between, such as 64,64"
        ) from None
    made = tuple(at_least(option, value, 1) for value in values)
    weights = sum(a * b for a, b in itertools.pairwise(made))
    if len(made) > 100 or weights > COUNT:
        raise InputError(
            f"{option} {_short(given)}: {len(made)} layers with {weights} weights between them; "
            f"expected at most 100 and {COUNT}"
        )
    return made


def default_folder(verb: str, data: str) -> Path:
    """Where a run writes unless told otherwise: ``runs/VERB-DATA``.

    >>> default_folder("train", "tables/sales.csv").as_posix()
    'runs/train-sales'
    """
    name = Path(data).stem if data.endswith((".csv", ".parquet", ".npz")) else data
    return Path("runs") / f"{verb}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-') or 'data'}"
