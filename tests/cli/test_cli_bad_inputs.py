"""What a user can get wrong: exit status 2, one line that says what, no traceback, and nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FUNCTIONS = """
import torch
from torch import nn

number = 3

def missing_argument(path): ...

def raises():
    raise ValueError("of its own\\nin two lines")

def leaves():
    raise SystemExit(0)

def nothing():
    return None

def ragged():
    return torch.zeros(5, 2), torch.zeros(4)

def flat():
    return torch.zeros(5), torch.zeros(5)

def text():
    return [["a", "b"]], ["c"]

def other_columns():
    return nn.Linear(7, 2)

def other_outputs():
    return nn.Linear(2, 5)

def no_parameters():
    return nn.Flatten()

def frozen():
    return nn.Linear(2, 2).requires_grad_(False)

def small():
    return nn.Linear(2, 2)
"""

TRAIN = ("train", "small.csv", "--target", "kind", "--epochs", "1")


def csv(text: str) -> Callable[[Path], None]:
    return lambda here: (here / "bad.csv").write_text(text) and None


def npz(**arrays: object) -> Callable[[Path], None]:
    return lambda here: np.savez(here / "bad.npz", **arrays)


def rules(text: str) -> Callable[[Path], None]:
    return lambda here: (here / "rules.yaml").write_text(text) and None


def bad_file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda here: (here / name).write_bytes(content) and None


def nothing(here: Path) -> None:
    """Nothing to prepare."""


X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
BAD_CSV = ("train", "bad.csv", "--target", "t", "--epochs", "1")
BAD_NPZ = ("train", "bad.npz", "--epochs", "1")
RULES = (*TRAIN, "--rules", "rules.yaml")
ROWS = "\n".join(f"{i},{i % 2}" for i in range(10))

CASES: dict[str, tuple[tuple[str, ...], str, Callable[[Path], None]]] = {
    # --- the data ---
    "no such bundled data": (("train", "digit"), "did you mean 'digits'?", nothing),
    "missing file": (("train", "none.csv"), "none.csv: no such file", nothing),
    "a folder": (("train", "folder.csv"), "folder.csv: a folder", lambda here: (here / "folder.csv").mkdir()),
    "an unknown kind of file": (("train", "bad.txt"), "bad.txt", bad_file("bad.txt", b"1")),
    "empty file": (BAD_CSV, "bad.csv", csv("")),
    "only a header": (BAD_CSV, "no rows", csv("a,t\n")),
    "not text": (BAD_CSV, "bad.csv", bad_file("bad.csv", b"\xff\xfe\x00\x00\x80")),
    "no --target": (("train", "small.csv"), "--target", nothing),
    "no such target": ((*TRAIN[:3], "knd"), "did you mean 'kind'?", nothing),
    "a target where the data has its own": (("train", "digits", "--target", "t"), "leave --target out", nothing),
    "non-numeric target": (
        (*BAD_CSV, "--task", "regression"), "'t'", csv("a,t\n1,low\n2,high\n3,low\n4,high\n")
    ),
    "one class": (BAD_CSV, "'t'", csv("a,t\n1,x\n2,x\n3,x\n")),
    "a class with one row": (BAD_CSV, "class 'y' has 1 row", csv("a,t\n1,x\n2,x\n3,x\n4,y\n")),
    "a class with fewer rows than folds": (
        ("path", "bad.csv", "--target", "t", "--epochs", "1", "--folds", "5"),
        "folds",
        csv(f"a,t\n{ROWS}\n99,2\n98,2\n"),
    ),
    "constant column alone": (BAD_CSV, "constant", csv("a,t\n1,x\n1,y\n1,x\n1,y\n")),
    "all missing": (BAD_CSV, "missing", csv("a,t\n,x\n,y\n,x\n,y\n")),
    "target all missing": (BAD_CSV, "'t'", csv("a,t\n1,\n2,\n3,\n")),
    "only the target": (BAD_CSV, "no features", csv("t\nx\ny\nx\n")),
    "two columns of a name": (BAD_CSV, "a", csv("a,a,t\n1,2,x\n3,4,y\n")),
    "ragged rows": (BAD_CSV, "bad.csv", csv("a,t\n1,x\n1,2,3,4,y\n")),
    "inf in npz": (BAD_NPZ, "infinite", npz(X=np.where(X > 1, np.inf, X), y=y)),
    "NaN in npz's target": (BAD_NPZ, "target 'y' is missing", npz(X=X, y=np.where(y > 0, np.nan, 0.5))),
    "npz without y": (BAD_NPZ, "bad.npz", npz(X=X)),
    "wrong shapes in npz": (BAD_NPZ, "rows", npz(X=X, y=y[:-1])),
    "three dimensions in npz": (BAD_NPZ, "(1, 20, 2)", npz(X=X[None], y=y)),
    "objects in npz": (BAD_NPZ, "bad.npz", npz(X=np.array([[{}, {}]] * 20), y=y)),
    "truncated npz": (BAD_NPZ, "bad.npz", bad_file("bad.npz", b"PK\x03\x04 and no more")),
    "truncated parquet": (("train", "b.parquet", "--target", "t"), "b.parquet", bad_file("b.parquet", b"PAR1xx")),
    # --- how a table is to be read ---
    "a separator of bundled data": (("train", "iris", "--sep", ";"), "--sep", nothing),
    "columns of bundled data to drop": (("path", "iris", "--drop", "a"), "no column 'a' to drop", nothing),
    "a separator of arrays": ((*BAD_NPZ, "--sep", ";"), "--sep", npz(X=X, y=y)),
    "a separator of two characters": ((*TRAIN, "--sep", ";;"), "--sep ';;'", nothing),
    "no separator": ((*TRAIN, "--sep", ""), "--sep ''", nothing),
    "a decimal point that is none": ((*TRAIN, "--decimal", "x"), "--decimal 'x'", nothing),
    "one character for both": (
        (*TRAIN, "--decimal", ",", "--thousands", ","), "decimal and thousands are both ','", nothing
    ),
    "thousands of two characters": ((*TRAIN, "--thousands", ",."), "--thousands ',.'", nothing),
    "dropping the target": ((*TRAIN, "--drop", "a,kind"), "'kind'", nothing),
    "dropping what is not there": ((*TRAIN, "--drop", "colr"), "colour", nothing),
    "dropping all features": ((*TRAIN, "--drop", "a,b,colour"), "no features", nothing),
    "a target that is all missing so": ((*TRAIN, "--na", "yes,no"), "'kind'", nothing),
    "the wrong separator": ((*TRAIN, "--sep", ";"), "'a,b,colour,kind', where it is split at ';'", nothing),
    "commas of a file with semicolons": (
        (*BAD_CSV, "--sep", ","), "leave --sep out", csv("a;t\n" + ROWS.replace(",", ";") + "\n")
    ),
    # --- the user's functions ---
    "no function's name": (("train", "functions:"), "functions:", nothing),
    "no such module": (("train", "nowhere_to_be_found:f"), "nowhere_to_be_found", nothing),
    "no such function": (("train", "functions:rase"), "functions:rase", nothing),
    "not a function": (("train", "functions:number"), "functions:number", nothing),
    "a function with arguments": (("train", "functions:missing_argument"), "path", nothing),
    "a function that raises": (("train", "functions:raises"), "of its own in two lines", nothing),
    "a function that leaves": (("train", "functions:leaves"), "functions:leaves", nothing),
    "a function that returns nothing": (("train", "functions:nothing"), "functions:nothing", nothing),
    "a function of unequal lengths": (("train", "functions:ragged"), "5 rows", nothing),
    "a function of flat rows": (("train", "functions:flat"), "shape (5,)", nothing),
    "a module that fails": (("train", "broken:f"), "broken", bad_file("broken.py", b"1/0")),
    "a module that is no Python": (("train", "broken:f"), "broken", bad_file("broken.py", b"def (")),
    # --- the model ---
    "unknown model": ((*TRAIN, "--model", "mpl"), "did you mean 'mlp'?", nothing),
    "a model's function that returns no model": ((*TRAIN, "--model", "functions:nothing"), "nn.Module", nothing),
    "a model of other columns": ((*BAD_NPZ, "--model", "functions:other_columns"), "the model", npz(X=X, y=y)),
    "a model of too few outputs": (
        (*BAD_NPZ, "--model", "functions:small"), "the model returns", npz(X=X, y=np.arange(20) % 3)
    ),
    "a model without parameters": ((*BAD_NPZ, "--model", "functions:no_parameters"), "parameters", npz(X=X, y=y)),
    "a frozen model": ((*BAD_NPZ, "--model", "functions:frozen"), "frozen", npz(X=X, y=y)),
    "logistic for numbers": (("train", "diabetes", "--model", "logistic"), "linear", nothing),
    "hidden widths of a linear model": ((*TRAIN, "--model", "linear", "--hidden", "8"), "--hidden 8", nothing),
    "hidden widths that are none": ((*TRAIN, "--hidden", "8,a"), "--hidden 8,a", nothing),
    "a hidden width of zero": ((*TRAIN, "--hidden", "8,0"), "--hidden 0", nothing),
    # --- the penalty ---
    "another library's penalty": ((*TRAIN, "--penalty", "lasso"), "did you mean 'l1'?", nothing),
    "another library's rule": (RULES, "did you mean 'l2'", rules("rules: {'*.weight': {ridge: 1}}")),
    "unknown penalty": ((*TRAIN, "--penalty", "elasticnet"), "did you mean 'elastic_net'?", nothing),
    "negative strength": ((*TRAIN, "--strength", "-1"), "--strength -1", nothing),
    "NaN strength": ((*TRAIN, "--strength", "nan"), "--strength nan", nothing),
    "infinite strength": ((*TRAIN, "--strength", "inf"), "--strength inf", nothing),
    "a strength that is no number": ((*TRAIN, "--strength", "much"), "'--strength'", nothing),
    "a strength of no penalty": ((*TRAIN, "--penalty", "none", "--strength", "1"), "--strength 1", nothing),
    "a share of one strength": ((*TRAIN, "--penalty", "l1", "--l1-ratio", "0.5"), "elastic_net", nothing),
    "a share above one": ((*TRAIN, "--penalty", "elastic_net", "--l1-ratio", "1.5"), "--l1-ratio 1.5", nothing),
    "NaN share": ((*TRAIN, "--penalty", "elastic_net", "--l1-ratio", "nan"), "--l1-ratio nan", nothing),
    "groups of a penalty without": ((*TRAIN, "--penalty", "l1", "--dim", "0"), "group_lasso", nothing),
    "a constraint without its radius": ((*TRAIN, "--penalty", "max_norm"), "--radius 3", nothing),
    "a constraint without its count": ((*TRAIN, "--penalty", "l0_ball"), "--keep 0.1", nothing),
    "a box without bounds": ((*TRAIN, "--penalty", "box"), "--low -1", nothing),
    "a box inside out": ((*TRAIN, "--penalty", "box", "--low", "1", "--high", "0"), "low=1, high=0", nothing),
    "a pattern that is missing": ((*TRAIN, "--penalty", "nm"), "--pattern 2:4", nothing),
    "a pattern that is none": ((*TRAIN, "--penalty", "nm", "--pattern", "2of4"), "--pattern 2of4", nothing),
    "a pattern inside out": ((*TRAIN, "--penalty", "nm", "--pattern", "4:2"), "n=4, m=2", nothing),
    "a count of none": ((*TRAIN, "--penalty", "l0_ball", "--keep", "0"), "--keep 0", nothing),
    "a share above all": ((*TRAIN, "--penalty", "l0_ball", "--keep", "1.5"), "--keep 1.5", nothing),
    "a count of a penalty": ((*TRAIN, "--penalty", "l1", "--keep", "5"), "l0_ball would", nothing),
    "a strength of a constraint": ((*TRAIN, "--penalty", "non_negative", "--strength", "1"), "--strength 1", nothing),
    "a dimension that is not there": ((*TRAIN, "--penalty", "group_lasso", "--dim", "5"), "5", nothing),
    "unknown method": ((*TRAIN, "--method", "proximal"), "did you mean 'prox'?", nothing),
    "a method of no penalty": ((*TRAIN, "--penalty", "none", "--method", "prox"), "--method prox", nothing),
    "unknown selection": ((*TRAIN, "--on", "everything"), "--on everything", nothing),
    "rules and a penalty": ((*RULES, "--penalty", "l1"), "--penalty", rules("rules: {'*': {l1: 1}}")),
    "missing rules": (RULES, "rules.yaml: no such file", nothing),
    "empty rules": (RULES, "rules.yaml: empty", rules("")),
    "rules that are no YAML": (RULES, "rules.yaml, line 2", rules("rules:\n\t- x")),
    "a pattern with a typing error": (RULES, "hidden1.weight", rules("rules: {hiden1.weight: {l1: 1}}")),
    "a rule with a typing error": (RULES, "did you mean 'l1'", rules("rules: {'*.weight': {l11: 1}}")),
    "--on against the rules": ((*RULES, "--on", "all"), "--on all", rules("on: weights\nrules: {'*': {l1: 1}}")),
    # --- the training ---
    "unknown optimizer": ((*TRAIN, "--optimizer", "adamm"), "did you mean 'adam'?", nothing),
    "momentum of adam": ((*TRAIN, "--momentum", "0.9"), "only sgd takes it", nothing),
    "momentum of one": ((*TRAIN, "--optimizer", "sgd", "--momentum", "1"), "--momentum 1", nothing),
    "no learning rate": ((*TRAIN, "--lr", "0"), "--lr 0", nothing),
    "NaN learning rate": ((*TRAIN, "--lr", "nan"), "--lr nan", nothing),
    "zero epochs": ((*TRAIN[:-1], "0"), "--epochs 0", nothing),
    "epochs that are no whole number": ((*TRAIN[:-1], "1.5"), "'--epochs'", nothing),
    "empty batches": ((*TRAIN, "--batch-size", "0"), "--batch-size 0", nothing),
    "all rows held out": ((*TRAIN, "--validation", "1"), "--validation 1", nothing),
    "negative validation": ((*TRAIN, "--validation", "-0.1"), "--validation -0.1", nothing),
    "too few rows held out": ((*TRAIN, "--validation", "0.001"), "validation", nothing),
    "negative seed": ((*TRAIN, "--seed", "-1"), "--seed -1", nothing),
    "a seed too large": ((*TRAIN, "--seed", str(2**40)), "--seed", nothing),
    "unknown device": ((*TRAIN, "--device", "gpu"), "--device gpu", nothing),
    "a device that is not there": ((*TRAIN, "--device", "cuda:99"), "--device cuda:99", nothing),
    "unknown task": ((*TRAIN, "--task", "class"), "did you mean 'classification'?", nothing),
    "force and resume": ((*TRAIN, "--force", "--resume"), "give one of them", nothing),
    # --- the output ---
    "a file for a folder": ((*TRAIN, "--out", "small.csv"), "small.csv is a file", nothing),
    "a folder in a file": ((*TRAIN, "--out", "small.csv/x"), "small.csv is a file", nothing),
    "a folder that cannot be made": ((*TRAIN, "--out", "/proc/x"), "/proc", nothing),
    "a folder that is taken": ((*TRAIN, "--out", "taken"), "--force", lambda here: taken(here, "notes.txt", "mine")),
    "resuming what is no run": (
        (*TRAIN, "--out", "taken", "--resume"), "taken", lambda here: taken(here, "notes.txt", "mine")
    ),
    "a truncated checkpoint": (
        (*TRAIN, "--out", "taken", "--resume"),
        "checkpoint.safetensors",
        lambda here: taken(here, "checkpoint.safetensors", "half"),
    ),
    "a truncated result": (
        (*TRAIN, "--out", "taken", "--resume"), "train.json", lambda here: taken(here, "train.json", '{"settings": {')
    ),
    # --- audit ---
    "an audit of nothing": (("audit",), "give DATA", nothing),
    "an audit of widths": (("audit", "--model", "functions:small", "--hidden", "8"), "--hidden 8", nothing),
    "an audit of missing rules": (("audit", "digits", "--rules", "rules.yaml"), "no such file", nothing),
    # --- words ---
    "unknown option": ((*TRAIN, "--epoch", "3"), "--epochs", nothing),
    "too many words": (("train", "digits", "wine"), "wine", nothing),
}  # fmt: skip


def taken(here: Path, name: str, text: str) -> None:
    (here / "taken").mkdir()
    (here / "taken" / name).write_text(text)


def everything(here: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(here)): path.read_bytes() if path.is_file() else None
        for path in here.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_written(name, run, here, small_csv):
    arguments, expected, prepare = CASES[name]
    (here / "functions.py").write_text(FUNCTIONS)
    prepare(here)
    before = everything(here)
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, ""), ran.err
    assert len(ran.lines) == 1
    assert ran.err.startswith("error: ")
    assert expected in ran.err
    assert everything(here) == before


def test_the_same_as_a_process_of_its_own(here, small_csv):
    arguments, expected, prepare = CASES["a function that raises"]
    (here / "functions.py").write_text(FUNCTIONS)
    prepare(here)
    command = Path(sys.executable).with_name("torchshrink")
    ran = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert expected in ran.stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize("told", [(), ("--sep", ";"), ("--sep", ";", "--decimal", ",", "--drop", "c", "--na", "-9,?")])
def test_a_file_with_semicolons_is_read(told, run, here):
    lines = [f"{i % 4},5;{'?' if i == 3 else i % 3};{i};{'ab'[i % 2]}" for i in range(20)]
    (here / "semicolons.csv").write_text("\n".join(["a;b;c;t", *lines]) + "\n")
    ran = run("train", "semicolons.csv", "--target", "t", "--epochs", "1", "--hidden", "2", "--json", *told)
    assert ran.status == 0, ran.err
