"""Generated data files and options, run through the command line: no input may end in an internal error (status 1).

    python benchmarks/fuzz_data.py --cases 1000 --seed 0

Each case is one call of ``torchshrink`` on a small file, most of them broken in some way, in one process. Printed are
the counts of exit statuses, and every call that ended with 1, with its words; the status is 1 if there was one.
"""

# ruff: noqa: E501  (lists of odd values, which are no easier to read one below the other)

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Files = dict[str, bytes]
Case = tuple[str, list[str], Files]

CELLS = [
    "1", "2.5", "-3", "1,234", "1.234,5", "$1,200.00", "12 %", "3,14", "1 234", "1'234", "−7", "(5)", "1e5", "1e400", "NaN",
    "inf", "", " ", "?", "NA", "None", "#DIV/0!", "-", "abc", "true", "False", "2020-01-05", "12:30", "9" * 401, "\x1d5",
    "\x00", "\ufeff1", '"', '""', "'", "a\nb", "é", "🙂", "0x10", "1_000", "١٢", "007", "5 kg", "x" * 5000, "-0", ".", ",",
]  # fmt: skip
NUMBERS = [
    "0", "1", "-1", "0.5", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf", "18446744073709551616", "9" * 5000, "1e999",
    "", " ", "abc", "1,2", "٣", "0x10", "--", "1e30", "2147483648", "3",
]  # fmt: skip
OPTIONS = [
    "--hidden", "--strength", "--l1-ratio", "--dim", "--gamma", "--radius", "--lr", "--momentum", "--batch-size",
    "--validation", "--seed", "--threads", "--device", "--task", "--model", "--penalty", "--on", "--method", "--optimizer",
    "--sep", "--decimal", "--thousands", "--na", "--drop", "--target", "--rules", "--out",
]  # fmt: skip
WORDS = [
    "auto",
    "classes",
    "numbers",
    "linear",
    "logistic",
    "l1",
    "mcp",
    "scad",
    "group_lasso",
    "max_norm",
    "prox",
    "sgd",
]
FUNCTIONS = b"""
import numpy, torch, pandas, scipy.sparse
X, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
def sparse(): return X.to_sparse(), y
def csr(): return X.to_sparse_csr(), y
def meta(): return X.to("meta"), y
def meta_y(): return X, y.to("meta")
def quantized(): return torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), y
def complex_(): return X.to(torch.complex64), y
def complex_y(): return X, y.to(torch.complex64)
def nested(): return torch.nested.nested_tensor([X[0], X[1, :2]]), y[:2]
def sparse_y(): return X, y.to_sparse()
def float8(): return X.to(torch.float8_e4m3fn), y
def half(): return X.half(), y
def objects(): return numpy.array([[{}, []]] * 20, dtype=object), y
def object_y(): return X, numpy.array([{}, []] * 10, dtype=object)
def dates(): return numpy.zeros((20, 2), "datetime64[s]"), y
def records(): return numpy.zeros((20,), "f4,i4"), y
def masked(): return numpy.ma.masked_greater(X.numpy(), 1), y
def scipy_sparse(): return scipy.sparse.csr_matrix(X.numpy()), y
def frame_of_lists(): return pandas.DataFrame({"a": [[1], [2]] * 10}), y
def empty(): return X[:0], y[:0]
def scalar(): return torch.tensor(1.0), torch.tensor(1)
def texts(): return [["a"], ["b"]], ["u", "v"]
def nothing(): return None
def huge(): return X.double() * 1e300, y
def big_ints(): return [[10**400], [1]], [0, 1]
def strings_y(): return X, ["NA", "None"] * 10
def bytes_y(): return X, numpy.array([b"a", b"b"] * 10)
def negative(): return X, y - 100
def constant(): return X, y * 0 + 0.5
def one(): return X, y * 0
"""


def cases(seed: int) -> Iterator[Case]:
    """Cases without an end: a name, the command line, and the files that it needs, by name."""
    draw = random.Random(seed)
    makers = (_table, _table, _table, _bytes, _options, _options, _npz, _parquet, _function, _rules)
    while True:
        yield draw.choice(makers)(draw)


def _base(draw: random.Random, data: str, *more: str) -> list[str]:
    verb = draw.choice(["train", "train", "path", "audit"])
    end = {
        "train": ["--epochs", "1", "--hidden", "2", "--quiet"],
        "path": ["--epochs", "1", "--hidden", "2", "--strengths", "2", "--folds", "2", "--quiet", "--penalty", "l1"],
        "audit": ["--hidden", "2"],
    }[verb]
    return [verb, data, *more, *end]


def _table(draw: random.Random) -> Case:
    rows, columns = draw.choice([0, 1, 2, 12, 40, 40]), draw.choice([1, 2, 3, 5])
    sep = draw.choice([",", ",", ";", "\t", "|"])
    names = [
        draw.choice("abc") + str(k) if draw.random() < 0.98 else draw.choice(["", "a0", "é", '"'])
        for k in range(columns)
    ]
    lines = [sep.join([*names, "t"])]
    odd = draw.choice([0.0, 0.0, 0.0, 0.02, 0.3, 1.0])
    target = draw.choice([["u", "v"], ["u", "v"], ["1", "2"], ["1.5", "2.5", "3,5"], ["NA", "None"], CELLS])
    for _ in range(rows):
        cells = [draw.choice(CELLS) if draw.random() < odd else f"{draw.gauss(0, 1):.3f}" for _ in range(columns)]
        cells = [f'"{c}"' if sep in c and draw.random() < 0.9 else c for c in cells]
        lines.append(sep.join([*cells, draw.choice(target)][: columns + (draw.random() > 0.002)]))
    told = [["--decimal", draw.choice([".", ",", "x"])], ["--na", "?,abc"], ["--drop", names[0]], ["--sep", sep], []]
    return (
        "table",
        _base(draw, "d.csv", "--target", "t", *draw.choice(told), *draw.choice(told)),
        {"d.csv": "\n".join(lines).encode(draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]), "surrogatepass")},
    )


def _bytes(draw: random.Random) -> Case:
    good = b"a,b,t\n" + b"".join(b"%d,%d,%c\n" % (k, k % 7, b"uv"[k % 2]) for k in range(20))
    kind = draw.choice(["csv", "npz", "parquet", "txt"])
    if kind == "npz":
        good = _saved(X=np.eye(20), y=np.arange(20) % 2)
    broken = bytearray(draw.choice([good, b"", good[:5], b"\xef\xbb\xbf" + good, b"a,b,t\n", good[: len(good) // 2]]))
    for _ in range(draw.choice([0, 1, 5])):
        if broken:
            broken[draw.randrange(len(broken))] = draw.randrange(256)
    return (
        "bytes",
        _base(draw, f"d.{kind}", *(["--target", "t"] if kind != "npz" else [])),
        {f"d.{kind}": bytes(broken)},
    )


def _options(draw: random.Random) -> Case:
    table = "a,b,t\n" + "".join(f"{k / 7},{k % 5},{'uv'[k % 2]}\n" for k in range(20))
    argv = _base(draw, "d.csv", "--target", "t")
    for _ in range(draw.choice([1, 1, 2])):
        argv += [draw.choice(OPTIONS), draw.choice([*NUMBERS, *WORDS])]
    return "options", argv, {"d.csv": table.encode()}


def _saved(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _npz(draw: random.Random) -> Case:
    X = draw.choice(
        [np.eye(12), np.eye(12) * 1j, np.zeros((12, 0)), np.full((12, 2), np.nan), np.array([[{}]] * 12), np.zeros((12, 2), "U3"),
         np.zeros((12, 2), "M8[s]"), np.eye(12, dtype=np.float16), np.eye(12) * 1e200, np.zeros(12, "f4,i4"), np.eye(12) > 0]
    )  # fmt: skip
    y = draw.choice(
        [np.arange(12) % 2, np.arange(12) / 7, np.array(["NA", "None"] * 6), np.array([None, "a"] * 6), np.zeros(12),
         np.full(12, np.inf), np.arange(12) % 2 * 1j, np.array(["", "a"] * 6), np.arange(11), np.arange(12) % 2 - 100]
    )  # fmt: skip
    return "npz", _base(draw, "d.npz"), {"d.npz": _saved(X=X, y=y)}


def _parquet(draw: random.Random) -> Case:
    import datetime
    import decimal

    import pandas as pd

    columns = {
        "lists": [[1], [2]] * 6, "maps": [{"a": 1}] * 12, "bytes": [b"a", b"b"] * 6, "texts": ["1,5", "?"] * 6,
        "dates": [datetime.date(2020, 1, 1)] * 12, "times": pd.date_range("2020", periods=12), "gaps": [None, 1.5] * 6,
        "decimals": [decimal.Decimal("1.5"), None] * 6, "large": [2**63 - 1, 1] * 6, "levels": pd.Categorical(["a", "b"] * 6),
        "flags": [True, None] * 6,
    }  # fmt: skip
    chosen = draw.sample(sorted(columns), draw.choice([1, 2, 3]))
    frame = pd.DataFrame(
        {name: columns[name] for name in chosen} | {"t": draw.choice([["NA", "None"] * 6, [0.5, 1.5] * 6])}
    )
    file = io.BytesIO()
    frame.to_parquet(file)
    return (
        "parquet",
        _base(draw, "d.parquet", "--target", draw.choice(["t", chosen[0]])),
        {"d.parquet": file.getvalue()},
    )


def _function(draw: random.Random) -> Case:
    names = [
        line.split("(")[0].removeprefix("def ") for line in FUNCTIONS.decode().splitlines() if line.startswith("def ")
    ]
    return "function", _base(draw, f"fuzzed_functions:{draw.choice(names)}"), {"fuzzed_functions.py": FUNCTIONS}


def _rules(draw: random.Random) -> Case:
    depth = draw.choice([1, 100, 3000])
    text = draw.choice(
        ["rules: " + "[" * depth + "]" * depth, "rules: " + "{a: " * depth + "1" + "}" * depth, "&a [*a]", "rules: {'*': {l1: 1e-3}}",
         "rules: {'*': {mcp: {strength: 1, gamma: 1e308}}}", "on: x", "\x00", "rules: {'*': {l1: " + "9" * 5000 + "}}",
         "rules: {'*': {group_lasso: {strength: 1, dim: " + "9" * 30 + "}}}", "!!python/object:os.system x"]
    )  # fmt: skip
    table = "a,b,t\n" + "".join(f"{k / 7},{k % 5},{'uv'[k % 2]}\n" for k in range(20))
    argv = ["train", "d.csv", "--target", "t", "--epochs", "1", "--hidden", "2", "--quiet", "--rules", "r.yaml"]
    return "rules", argv, {"d.csv": table.encode(), "r.yaml": text.encode()}


def run(argv: list[str], files: Files) -> tuple[int, str]:
    """The exit status of one call in a fresh folder, and what it said."""
    from torchshrink.cli import main

    said, before = io.StringIO(), Path.cwd()
    folder = Path(tempfile.mkdtemp())
    try:
        os.chdir(folder)
        for name, content in files.items():
            Path(name).write_bytes(content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = main(argv)
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
        sys.modules.pop("fuzzed_functions", None)
    return status, said.getvalue()


def main() -> int:
    """Run as many cases as asked for; 1 if any ended with status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    statuses: collections.Counter[tuple[str, int]] = collections.Counter()
    failed = 0
    for _, (name, argv, files) in zip(range(given.cases), cases(given.seed), strict=False):
        status, said = run(argv, files)
        statuses[name, status] += 1
        if status not in (0, 2) or (status == 2 and len([line for line in said.splitlines() if "error" in line]) != 1):
            failed += 1
            print(f"{status}: {[word[:60] for word in argv]}\n    {said.strip()[-400:]}", flush=True)
    for (name, status), count in sorted(statuses.items()):
        print(f"{name:10} status {status}: {count}")
    print(f"{given.cases} cases, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
