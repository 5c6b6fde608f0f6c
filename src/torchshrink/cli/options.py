"""The options that several verbs share.

Those without a panel are what most people need, and stand first in the help. The names that an option takes are
all in its help, or are its metavar where they are short; `option_checks` refuses others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

TUNABLE = (  # in the help only, as torch is slow to import; a test holds both to BUILTIN
    *("l1", "l2", "elastic_net", "group_lasso", "sparse_group_lasso", "mcp", "scad", "log_sum", "group_mcp"),
    *("group_scad", "l2sp", "nuclear_norm", "orthogonal"),
)
CONSTRAINTS = ("max_norm", "unit_norm", "l1_ball", "non_negative", "box", "l0_ball", "nm")
TASKS = ("auto", "classification", "regression")
METHODS = ("auto", "loss", "gradient", "prox", "latent", "decoupled")
SELECTIONS = ("weights", "all")
OPTIMIZERS = ("sgd", "adam", "adamw")
CHOICES = ("best", "one_se")
GROUPS = ("features",)
ENGINES = ("auto", "lanes", "sequential", "optimum")
ORDERS = ("cold", "warm")
FORMATS = ("pt2", "onnx")

READING, PENALTY, TRAINING = "How a table is read", "More about the penalty", "More about the training"
SPEED, MESSAGES = "Where and how fast", "Messages"


def option(flag: str, metavar: str, help: str, panel: str | None = None, *, default: bool = False) -> Any:
    """An option for ``Annotated``.

    Args:
        flag: with its dashes.
        metavar: what stands behind it; empty for a switch.
        help: a line or a few.
        panel: in which it stands; None: among those that most people need.
        default: whether the help shows the function's default.
    """
    return typer.Option(flag, metavar=metavar, rich_help_panel=panel, show_default=default, help=help)


def _one_of(names: Sequence[str]) -> str:
    return "|".join(names)


_DATA = "digits, breast_cancer, wine, iris, diabetes; a .csv, .parquet or .npz file; openml:NAME; or module:function."
_AGAIN = "What torchshrink path or torchshrink train wrote."
Data = Annotated[str, typer.Argument(metavar="DATA", show_default=False, help=_DATA)]
OptionalData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", show_default=False, help=f"{_DATA} Not needed with --model module:function."
    ),
]  # fmt: skip
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help=_AGAIN)]

# What most people need.
Target = Annotated[str | None, option("--target", "COLUMN", "The column of a table to predict.")]
Model = Annotated[str, option("--model", "NAME", "mlp, logistic, linear or module:function.", default=True)]
Hidden = Annotated[str | None, option("--hidden", "WIDTHS", "The mlp's hidden layers. Default: 64,64.")]
Penalty = Annotated[
    str | None,
    option("--penalty", "NAME", f"{', '.join(TUNABLE)}; a constraint: {', '.join(CONSTRAINTS)}; or none. Default: l2."),
]
Penalties = Annotated[
    list[str] | None,
    option("--penalty", "NAME", f"{', '.join(TUNABLE)}. Several, with commas, are compared. Default: l1."),
]
Strength = Annotated[
    float | None, option("--strength", "NUMBER", "λ in mean loss + λ·Ω(weights). Default: 1e-4.")
]  # fmt: skip
Strengths = Annotated[
    str,
    option("--strengths", "LIST", "How many, or which: 1e-4,1e-3,0.01. 0 is always added.", default=True),
]
Epochs = Annotated[int, option("--epochs", "COUNT", "Passes over the rows.", default=True)]
PathEpochs = Annotated[int | None, option("--epochs", "COUNT", "Passes over the rows. Default: 50.")]
Validation = Annotated[float, option("--validation", "SHARE", "Rows held out, as a share.", default=True)]
Folds = Annotated[int, option("--folds", "COUNT", "Cross-validation folds.", default=True)]
Test = Annotated[
    float | None,
    option("--test", "SHARE", "Rows kept for a comparison at the end."),
]
Choose = Annotated[str, option("--choose", "NAME", f"Refit at {' or '.join(CHOICES)}.", default=True)]
Shrink = Annotated[bool, option("--shrink", "", "Also write a smaller model of equal outputs.")]
Inputs = Annotated[
    bool, option("--inputs", "", "The smaller model takes only the columns that it reads; otherwise all.")
]  # fmt: skip
Format = Annotated[
    list[str] | None,
    option("--format", _one_of(FORMATS), "Also as a file that needs no torchshrink. Several: with commas."),
]
ModelAgain = Annotated[
    str | None, option("--model", "NAME", "The module:function that made the model: its code is run again.")
]
Out = Annotated[Path | None, option("--out", "FOLDER", "Where all is written. Default: runs/VERB-DATA.")]
Force = Annotated[bool, option("--force", "", "Overwrite what an earlier run left there.")]
Resume = Annotated[bool, option("--resume", "", "Go on where an interrupted run stopped.")]
TensorBoard = Annotated[bool, option("--tensorboard", "", "Also write curves for it, to OUT/tensorboard.")]
Json = Annotated[bool, option("--json", "", "The result as one JSON object.")]

# How a table is read.
Task = Annotated[str, option("--task", "NAME", f"What the target is: {', '.join(TASKS)}.", READING, default=True)]
Sep = Annotated[
    str | None,
    option("--sep", "CHARACTER", "Between the values of a .csv file, such as ';' or tab. Default: found.", READING),
]
Decimal = Annotated[
    str | None,
    option("--decimal", ".|,", "The decimal point of numbers in text. Default: found column by column.", READING),
]
Thousands = Annotated[
    str | None,
    option("--thousands", "CHARACTER", "What groups the digits of numbers in text. Default: found.", READING),
]
Na = Annotated[
    list[str] | None,
    option("--na", "TEXT", "Also means a missing value, such as -999. Several: repeated or with commas.", READING),
]
Drop = Annotated[
    list[str] | None,
    option("--drop", "COLUMN", "A column to leave out. Several: repeated or with commas.", READING),
]

# More about the penalty.
Rules = Annotated[
    Path | None,
    option(
        "--rules",
        "FILE.yaml",
        "Pattern → penalty, instead of --penalty: rules: {encoder.*: {l2: 1e-4}, '*': none}",
        PENALTY,
    ),
]
On = Annotated[
    str | None,
    option("--on", _one_of(SELECTIONS), "What is penalised: weights (default), or all: biases too.", PENALTY),
]
Method = Annotated[
    str, option("--method", "NAME", f"How the penalty acts: {', '.join(METHODS)}.", PENALTY, default=True)
]
L1Ratio = Annotated[
    float | None,
    option(
        "--l1-ratio",
        "SHARE",
        "Of a penalty with two strengths, the first one's share of the strength. Default: 0.5.",
        PENALTY,
    ),
]
Dim = Annotated[
    int | None,
    option(
        "--dim",
        "DIM",
        "The dimension that numbers the groups; 0, the default, makes a group of each unit's incoming weights.",
        PENALTY,
    ),
]
Groups = Annotated[
    str | None,
    option(
        "--groups",
        _one_of(GROUPS),
        "In the first layer all columns of one feature, such as a category's, are one group; --dim 1.",
        PENALTY,
    ),
]
Gamma = Annotated[
    float | None,
    option(
        "--gamma",
        "NUMBER",
        "Where mcp and group_mcp (default 3), scad and group_scad (default 3.7) level off.",
        PENALTY,
    ),
]
Epsilon = Annotated[
    float | None,
    option("--epsilon", "NUMBER", "Of log_sum: the size of weight from which on it lets go. Default: 0.1.", PENALTY),
]
Radius = Annotated[
    float | None,
    option("--radius", "NUMBER", "Of the constraints max_norm and l1_ball, which have no strength.", PENALTY),
]
Keep = Annotated[
    str | None,
    option(
        "--keep",
        "COUNT",
        "Of l0_ball: how many weights of each tensor may be nonzero, such as 100, or which share, such as 0.1.",
        PENALTY,
    ),
]
Low = Annotated[float | None, option("--low", "NUMBER", "Of box: the least weight.", PENALTY)]
High = Annotated[float | None, option("--high", "NUMBER", "Of box: the largest weight.", PENALTY)]
Pattern = Annotated[
    str | None,
    option(
        "--pattern",
        "N:M",
        "Of nm: how many of how many consecutive inputs may have a nonzero weight, such as 2:4.",
        PENALTY,
    ),
]

# More about the training.
Optimizer = Annotated[
    str,
    option(
        "--optimizer",
        _one_of(OPTIMIZERS),
        "Without weight decay of its own: the penalty is the only one.",
        TRAINING,
        default=True,
    ),
]
PathOptimizer = Annotated[
    str | None,
    option(
        "--optimizer",
        _one_of(OPTIMIZERS),
        "Without weight decay. Default: adam; but where neither it nor --epochs nor --batch-size is given, linear "
        "models are solved and not trained.",
        TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    option("--lr", "NUMBER", "Learning rate. Default: 0.1 for sgd, 0.001 for adam and adamw.", TRAINING),
]
Momentum = Annotated[float | None, option("--momentum", "NUMBER", "Of sgd. Default: 0.", TRAINING)]
BatchSize = Annotated[int, option("--batch-size", "ROWS", "Rows in a step.", TRAINING, default=True)]
PathBatchSize = Annotated[int | None, option("--batch-size", "ROWS", "Rows in a step. Default: 64.", TRAINING)]
Repeats = Annotated[
    int,
    option(
        "--repeats",
        "COUNT",
        "How often folds and initial weights are drawn: first for the path, then for the verdict alone.",
        TRAINING,
        default=True,
    ),
]
Rows = Annotated[
    int | None, option("--rows", "COUNT", "Instead of --test: tune on so many rows; the rest are test rows.", TRAINING)
]
Polish = Annotated[
    bool,
    option(
        "--polish",
        "",
        "End with full-batch steps that settle which weights are zero; the certificate says how exactly.",
        TRAINING,
    ),
]
Relaxed = Annotated[
    bool,
    option(
        "--relaxed",
        "",
        "Refit without the penalty on the weights that it left nonzero: the others stay zero.",
        TRAINING,
    ),
]
Order = Annotated[
    str,
    option(
        "--order",
        _one_of(ORDERS),
        "cold: every strength from the initial weights; warm: ascending from 0, each from where the one before it "
        "ended.",
        TRAINING,
        default=True,
    ),
]
Seed = Annotated[int, option("--seed", "NUMBER", "Of splits, initial weights and batches.", TRAINING, default=True)]

# Where and how fast.
Device = Annotated[str, option("--device", "NAME", "cpu, cuda or cuda:NUMBER.", SPEED, default=True)]
Threads = Annotated[
    int,
    option(
        "--threads",
        "COUNT",
        "CPU cores to compute on: 1 is fastest for small models. Decides the last bits.",
        SPEED,
        default=True,
    ),
]
Jobs = Annotated[
    int,
    option(
        "--jobs",
        "COUNT",
        "Processes that train, on one core each; -1: as many as there are cores. With --lanes or --engine "
        "sequential it does not change a bit of the result; else stacks are cut by it, and --resume needs the same.",
        SPEED,
        default=True,
    ),
]
Engine = Annotated[
    str,
    option(
        "--engine",
        "NAME",
        "lanes: many strengths and folds as one stacked program; sequential: one after another; optimum: linear "
        "models solved and not trained; auto: solved where that can be and no training is asked for, else lanes where "
        "they pay.",
        SPEED,
        default=True,
    ),
]
Lanes = Annotated[
    int | None,
    option("--lanes", "COUNT", "Trainings at once, at most. Default: as many as pay and fit in memory.", SPEED),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        rich_help_panel=SPEED,
        show_default=False,
        help="Put stacked programs through torch.compile, which takes 5 to 16 s at first. Default: where it pays.",
    ),
]

# Messages.
Quiet = Annotated[bool, option("--quiet", "", "No progress on stderr.", MESSAGES)]
Debug = Annotated[bool, option("--debug", "", "With an error, its whole traceback.", MESSAGES)]
