"""The first five minutes: two questions to real data, asked with the commands that anybody would type."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = "progression"
EPOCHS = 40


def write_patients(file: Path) -> None:
    """scikit-learn's diabetes as a CSV: 10 measurements, their squares and products, and the target."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(as_frame=True, scaled=False)
    table = found.data.copy()
    for one, other in itertools.combinations_with_replacement(found.data.columns, 2):
        if (one, other) != ("sex", "sex"):  # of two values: its square says nothing more
            table[f"{one}*{other}"] = (table[one] * table[other]).round(6)
    table[TARGET] = found.target
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False)


def few_rows(folder: Path) -> list[str]:
    """The command for many columns and few rows."""
    given = f"--target {TARGET} --model linear --penalty l1 --strengths 16 --rows 150 --shrink --force"
    return ["path", str(folder / "patients.csv"), *given.split(), "--out", str(folder / "patients")]


def many_rows(folder: Path, epochs: int) -> list[str]:
    """The command for a network that has rows enough."""
    given = "--penalty group_lasso --hidden 256,256 --strengths 2e-4,4e-4 --lr 0.003 --folds 3 --repeats 1"
    given += f" --epochs {epochs} --choose one_se --shrink --force"
    return ["path", "digits", *given.split(), "--out", str(folder / "digits")]


def run(arguments: Sequence[str]) -> None:
    """Say the command, and do it; its output is the user's."""
    print(f"\n$ {shlex.join(['torchshrink', *arguments])}\n", flush=True)
    done = subprocess.run([sys.executable, "-m", "torchshrink", *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def told(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a path and its shrinking have written."""
    path, shrink = folder / "path.json", folder / "shrunk" / "shrink.json"
    return json.loads(path.read_text(encoding="utf-8")), json.loads(shrink.read_text(encoding="utf-8"))


def loss_line(path: dict[str, Any]) -> str:
    """Whether penalising lowers the loss, in cross-validation and on rows that chose nothing."""
    verdict, test = path["verdict"], path["test"]
    head = "Penalising helps" if verdict["helps"] else "Penalising harms" if verdict["harms"] else "No benefit is shown"
    tested = f"; on {test['rows']} rows that chose nothing it {_change(test['verdict'])}" if test else ""
    return f"{head}: the loss on unseen rows {_change(verdict)} in cross-validation{tested}."


def _change(verdict: dict[str, Any]) -> str:
    if verdict["interval"] is None:
        return "does not change"
    low, high = (100 * end for end in verdict["interval"])
    if low <= 0 <= high:
        return f"changes by between {low:+.0f} and {high:+.0f} % (95 % interval)"
    ends = sorted((abs(low), abs(high)))
    word = "falls" if high < 0 else "rises"
    return f"{word} by {abs(100 * verdict['change']):.0f} % (95 % interval {ends[0]:.0f} to {ends[1]:.0f} %)"


def columns_line(folder: Path, shrink: dict[str, Any]) -> str:
    """What is left of a linear model, by name."""
    columns = json.loads((folder / "model.json").read_text(encoding="utf-8"))["data"]["columns"]
    gone, (before, after) = set(shrink["not read"]), shrink["parameters"]
    left = [column["name"] for column in columns if column["name"] not in gone]
    measured = {part for name in left for part in name.split("*")}
    spared = [column["name"] for column in columns if "*" not in column["name"] and column["name"] not in measured]
    return (
        f"{len(left)} of {len(columns)} columns are left: {', '.join(left)}; {after} of {before} parameters. "
        f"Measurements that need not be taken: {', '.join(spared) or 'none'}."
    )


def size_line(folder: Path, path: dict[str, Any], shrink: dict[str, Any]) -> str:
    """What shrinking a network gave, beside the accuracies."""
    chosen = json.loads((folder / "refit.json").read_text(encoding="utf-8"))["strength"]
    accuracy = {point["strength"]: f"{100 * (point['accuracy'] or 0):.1f} %" for point in path["points"]}
    (before, after), (large, small) = shrink["parameters"], shrink["bytes"]
    return (
        f"What it buys is size: {after:,} of {before:,} parameters, {small:,} of {large:,} bytes, at an accuracy of "
        f"{accuracy[chosen]} instead of {accuracy[0.0]} in the cross-validation that chose the strength."
    )


def main() -> None:
    """Both questions, with two lines about each answer, and where to look at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything that is written")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the network; with fewer it shrinks less")
    given = parser.parse_args()
    folder: Path = given.out

    print(
        "1. Few rows, many columns: 442 patients with diabetes (scikit-learn's; nothing is made up), 10 measurements,\n"
        "   and their 54 squares and products. 150 patients choose the strength; the other 292 are looked at last."
    )
    write_patients(folder / "patients.csv")
    run(few_rows(folder))
    path, shrink = told(folder / "patients")
    print(f"\n{loss_line(path)}\n{columns_line(folder / 'patients', shrink)}")

    print("\n\n2. Rows enough: 1,797 clean images of digits (scikit-learn's), and a network of 85,002 parameters.")
    run(many_rows(folder, given.epochs))
    path, shrink = told(folder / "digits")
    print(f"\n{loss_line(path)}\n{size_line(folder / 'digits', path, shrink)}")

    print("\n\nLook at both in a browser:")
    for name in ("patients", "digits"):
        print(f"  python -m webbrowser {(folder / name / 'report.html').resolve().as_uri()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the command has said what it saved
        sys.exit(130)
