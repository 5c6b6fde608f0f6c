"""The options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PENALTIES = (  # in the help only; a test holds it to BUILTIN
    "l1, l2, elastic_net, group_lasso, sparse_group_lasso, mcp, scad, log_sum, group_mcp, group_scad, l2sp, "
    "nuclear_norm, orthogonal, max_norm, unit_norm, l1_ball, non_negative, box, l0_ball, nm"
)
TASKS = ("auto", "classification", "regression")
METHODS = ("auto", "loss", "gradient", "prox", "latent", "decoupled")
SELECTIONS = ("weights", "all")
OPTIMIZERS = ("sgd", "adam", "adamw")
CHOICES = ("best", "one_se")
GROUPS = ("features",)
ENGINES = ("auto", "lanes", "sequential", "optimum")
ORDERS = ("cold", "warm")
FORMATS = ("pt2", "onnx")

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
Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", show_default=False, help="What torchshrink path or torchshrink train wrote."),
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
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="WHAT",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="features: in the first layer all columns of one feature, such as a category's, are one group; --dim 1.",
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        "--gamma",
        metavar="NUMBER",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Where mcp and group_mcp (default 3), scad and group_scad (default 3.7) level off.",
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        "--epsilon",
        metavar="NUMBER",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Of log_sum: the size of weight from which on it lets go. Default: 0.1.",
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
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="COUNT",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Of l0_ball: how many weights of each tensor may be nonzero, such as 100, or which share, such as 0.1.",
    ),
]
Low = Annotated[
    float | None,
    typer.Option(
        "--low", metavar="NUMBER", rich_help_panel=_PENALTY, show_default=False, help="Of box: the least weight."
    ),
]
High = Annotated[
    float | None,
    typer.Option(
        "--high", metavar="NUMBER", rich_help_panel=_PENALTY, show_default=False, help="Of box: the largest weight."
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="N:M",
        rich_help_panel=_PENALTY,
        show_default=False,
        help="Of nm: how many of how many consecutive inputs may have a nonzero weight, such as 2:4.",
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE.yaml",
        rich_help_panel=_PENALTY,
        help="Pattern → penalty, instead of --penalty: rules: {encoder.*: {l2: 1e-4}, '*': none}",
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
        help="How the penalty acts: auto, loss, gradient, prox, latent, decoupled.",
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
PathOptimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        rich_help_panel=_FIT,
        show_default="adam",
        help="sgd, adam or adamw, without weight decay; where it is not given, linear models are solved.",
    ),
]
_TRAINED = "; where it is not given, linear models are solved"
PathEpochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="COUNT", rich_help_panel=_FIT, show_default="50", help=f"As in train{_TRAINED}."),
]
PathBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", metavar="ROWS", rich_help_panel=_FIT, show_default="64", help=f"As in train{_TRAINED}."
    ),
]
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
Relaxed = Annotated[
    bool,
    typer.Option(
        "--relaxed",
        metavar="",
        rich_help_panel=_FIT,
        help="Refit without the penalty on the weights that it left nonzero: the others stay zero.",
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
        help="lanes: many strengths and folds as one stacked program; sequential: one after another; optimum: linear "
        "models solved and not trained; auto: solved where that can be and no training is asked for, else lanes where "
        "they pay.",
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
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink",
        metavar="",
        rich_help_panel=_OUT,
        help="Write a smaller model with the same outputs beside it, to shrunk/, as torchshrink shrink does.",
    ),
]
Inputs = Annotated[
    bool,
    typer.Option(
        "--inputs",
        metavar="",
        rich_help_panel=_MODEL,
        help="The smaller model takes only the columns that it reads; otherwise it takes all, and looks at those.",
    ),
]
ModelAgain = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        rich_help_panel=_MODEL,
        show_default=False,
        help="The module:function that made the model, where one did: its code is run again.",
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        rich_help_panel=_OUT,
        show_default=False,
        help="Also as one file that needs no torchshrink: pt2 (torch.export), onnx. Several: repeated or with commas.",
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
