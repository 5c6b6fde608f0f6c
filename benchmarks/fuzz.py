"""Thousands of bad inputs: options, data, rules, tampered folders, model folders, signals. None may end with status 1.

    python benchmarks/fuzz.py --cases 2400 --seeds 0 1 2

Each case is a command line in a folder of its own, run in this process (those with signals in one of their own). A case
fails if it ends with status 1, with a traceback, with an exception, or, where a file that a run wrote was changed, with
status 0 and other files than the untouched run. Every case has a number that is drawn from the seed, so that
``--only NUMBER``, with the same seeds and count, runs it again. Prints how often each
status came, and every failure; ends with status 1 then.

Cases for data files are taken from ``benchmarks/fuzz_data.py`` too: ``cases(seed) -> Iterator[(name, argv, files)]``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROWS = "".join(f"{i % 7 - 3 + i / 50:.2f},{i * 5 % 11 - 5},{'ab'[i % 3 == 0]},{'yn'[i % 7 > 3]}\n" for i in range(30))
CSV = ("a,b,c,kind\n" + ROWS).encode()
BASE = {
    "path": [
        "path",
        "d.csv",
        "--target",
        "kind",
        "--hidden",
        "2",
        "--epochs",
        "1",
        "--folds",
        "2",
        "--strengths",
        "0.1",
    ],
    "train": ["train", "d.csv", "--target", "kind", "--hidden", "2", "--epochs", "1"],
    "audit": ["audit", "d.csv", "--target", "kind", "--hidden", "2"],
    "convert": ["convert", "--from", "sklearn.Ridge", "--alpha", "1", "--rows", "50"],
}
NUMBERS = [
    "0", "-1", "-0", "1", "2", "3", "0.5", "1e-300", "1e308", "-1e308", "1e400", "nan", "inf", "-inf", "1e-9", "1_0",
    "9" * 25, "-" + "9" * 25, "18446744073709551616", "0x10", "1,2", "1,,2", ",", "", " ", "a", "λ", "٣", "1e", "None",
    "--", "\x00"[:0], "\udcff", "1 2", "true", "7" * 5000, "1/0", "[1]", "{}", "'", '"', "\n", "\t1",
]  # fmt: skip
WORDS = [
    "l1", "l2", "elastic_net", "group_lasso", "sparse_group_lasso", "mcp", "scad", "max_norm", "non_negative", "none",
    "l1,l2", "l1,l1", "adam", "sgd", "lbfgs", "rmsprop", "prox", "gradient", "decoupled", "loss", "latent", "auto",
    "classification",
    "regression", "weights", "all", "warm", "cold", "lanes", "sequential", "logistic", "linear", "mlp", "cpu",
    "cuda", "meta", "os:abort", "os:getcwd", "sys:exit", "no:such", "a:b:c", ":", "kind", "a", "zz", "..", "/",
    "sklearn.Lasso", "torch.Adam", "keras", "one_se", "best",
]  # fmt: skip
FLAGS = {
    "path": "--target --task --model --hidden --penalty --strengths --l1-ratio --dim --gamma --on --method --folds "
    "--optimizer --lr --momentum --epochs --batch-size --choose --seed --device --threads --engine --lanes --order "
    "--out",
    "train": "--target --task --model --hidden --penalty --strength --l1-ratio --dim --gamma --radius --rules --on "
    "--method --optimizer --lr --momentum --epochs --batch-size --validation --seed --device --threads --out",
    "audit": "--target --task --model --hidden --penalty --strength --l1-ratio --dim --gamma --radius --rules --on "
    "--method --seed",
    "convert": "--from --to --C --alpha --l1-ratio --lambda --l1 --l2 --group --weight-decay --rows --outputs "
    "--batch-size --y-sd --solver --loss --momentum --dampening --to-set",
}
SWITCHES = [
    "--polish",
    "--json",
    "--quiet",
    "--force",
    "--resume",
    "--compile",
    "--help",
    "--version",
    "--list",
    "--nope",
]
LONG = {"--epochs", "--batch-size", "--hidden", "--strengths", "--folds", "--threads", "--lanes"}  # may only take time
TOO_LONG = {"9" * 25, "18446744073709551616", "7" * 5000, "1e308", "1e400"}
RULES = "on: weights\nrules:\n  '*.weight': {l1: 1e-4}\n  'type:Linear': none\n"
YAML = [
    "[" * 3000, "{a: " * 3000, "[" * 3000 + "]" * 3000,
    "rules: " + "{a: " * 3000 + "1" + "}" * 3000, "&a [*a]", "rules: &r {x: *r}", "rules: {'*': {l1: [1]}}",
    "rules: {'*': {l1: .nan}}",
    "rules: {? [a] : b}", "rules: !!python/object/apply:os.abort []", "<<: {rules: {}}", "rules: {'*': {l1: 1e999}}",
    "rules: {'*': {group_lasso: {strength: 1, dim: 99999999999999999999}}}", "\x00", "\ufeff" + RULES, "--- a\n--- b",
    "rules: {'[': {l1: 1}}", "rules: {'*': {l1: 1, l2: 1, mcp: 1}}", "on: none\n" + RULES, "%YAML 9.9\n---\n" + RULES,
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, the files beside it, and what its folder may end as."""

    name: str
    argv: Sequence[str]
    files: dict[str, bytes] = field(default_factory=lambda: {"d.csv": CSV})
    start: Path | None = None  # a folder to begin with, as ``out``
    change: Callable[[Path], None] | None = None
    expected: str = ""  # the digest of ``out`` where the status is 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2400, help="how many in all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", type=int, help="run the case of this number alone, and show what it prints")
    parser.add_argument("--no-signals", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[object] = Counter()
    failures = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for number, case in enumerate(drawn(given.seeds, given.cases, Path(place))):
            if given.only not in (None, number):
                continue
            status, problem, said = outcome(case)
            if status in (129, 130, 143):  # this process itself is told to end
                break
            counts[status] += 1
            if problem or given.only is not None:
                failures += [number] if problem else []
                print(
                    f"{number} {case.name}: {problem or status}: {list(case.argv)!r:.300}\n    {said.strip()[-600:]}",
                    flush=True,
                )
        if not given.no_signals and given.only is None:
            for status, problem in signals(Path(place)):
                counts[status] += 1
                failures += [problem] if problem else []
                print(problem or "", end="\n" if problem else "")
        os.chdir("/")
    print(f"{sum(counts.values())} cases in {time.monotonic() - began:.0f} s; by status: {dict(counts)}")
    print(f"failures: {failures}")
    return bool(failures)


def outcome(case: Case) -> tuple[object, str, str]:
    """The status, what is wrong with it, and what was printed."""
    from torchshrink.cli import main as torchshrink

    place = Path("case")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in case.files.items():
        (place / name).write_bytes(content)
    if case.start is not None:
        shutil.copytree(case.start, place / "out")
    out, err = io.StringIO(), io.StringIO()
    here = Path.cwd()
    try:
        if case.change is not None:
            case.change(place / "out")
        os.chdir(place)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: object = torchshrink([word.replace("\x00", "") for word in case.argv])
    except BaseException as error:
        status = f"{type(error).__name__} escaped: {error}"
    finally:
        os.chdir(here)
    said = err.getvalue()
    problem = ""
    if status not in (0, 2):
        problem = f"status {status}"
    elif "Traceback" in said + out.getvalue():
        problem = "a traceback"
    elif status == 2 and not case.expected and len([x for x in said.splitlines() if x.startswith("error:")]) != 1:
        problem = "not one line of error"
    elif status == 0 and case.expected and digest(place / "out") != case.expected:
        problem = "other files than the untouched run's"
    return status, problem, said


def digest(folder: Path) -> str:
    """What is in a folder; of JSON its values, as blanks between them may be others."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = repr(json.loads(content)).encode()
        hashed.update(str(path.relative_to(folder)).encode() + content)
    return hashed.hexdigest()


def drawn(seeds: Sequence[int], count: int, place: Path) -> Iterator[Case]:
    """So many cases in all, as many of each seed."""
    for number, seed in enumerate(seeds):
        (place / str(seed)).mkdir()
        share = count // len(seeds) + (number < count % len(seeds))
        yield from itertools.islice(cases(seed, place / str(seed)), share)


def cases(seed: int, place: Path) -> Iterator[Case]:
    """Cases without end, every kind in its turn."""
    kinds = [options(seed), options(seed + 1000), rules(seed), tampered(seed, place), data(seed), models(seed)]
    with contextlib.suppress(ImportError):
        sys.path.insert(0, str(Path(__file__).parent))
        theirs = importlib.import_module("fuzz_data").cases
        kinds.append(Case(name, argv, {k: v if isinstance(v, bytes) else v.encode() for k, v in files.items()})
                     for name, argv, files in theirs(seed))  # fmt: skip
    while kinds:
        for kind in list(kinds):
            case = next(kind, None)
            if case is None:
                kinds.remove(kind)
            else:
                yield case


def options(seed: int) -> Iterator[Case]:
    """Options with values that they do not expect."""
    draw = random.Random(f"options {seed}")
    while True:
        verb = draw.choice(["path", "train", "train", "audit", "audit", "convert", "convert"])
        argv = list(BASE[verb])
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            flag = draw.choice(FLAGS[verb].split())
            value = draw.choice(NUMBERS + WORDS)
            if flag in LONG and value in TOO_LONG:
                value = "-3"
            argv += [flag, value] if draw.random() < 0.9 else [f"{flag}={value}"]
        if draw.random() < 0.2:
            argv.append(draw.choice(SWITCHES))
        if draw.random() < 0.05:
            argv[draw.randrange(len(argv))] = draw.choice(NUMBERS + WORDS)
        yield Case("options", argv)


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(changed) + 1)
        kind = draw.randrange(4)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            del changed[at : at + draw.randrange(1, 9)]
        else:
            changed[at:at] = draw.choice(
                [b"\x00", b"\xff", b",", b"\n", b'"', b"1e999", b"{", b"[", b": ", b"nan", b"-5"]
            )
    return bytes(changed)


def rules(seed: int) -> Iterator[Case]:
    draw = random.Random(f"rules {seed}")
    while True:
        text = draw.choice([RULES, RULES, draw.choice(YAML)]).encode()
        content = text if draw.random() < 0.3 else mutated(text, draw)
        verb = draw.choice(["audit", "audit", "train"])
        yield Case("rules", [*BASE[verb], "--rules", "r.yaml"], {"d.csv": CSV, "r.yaml": content})


def data(seed: int) -> Iterator[Case]:
    draw = random.Random(f"data {seed}")
    while True:
        yield Case("data", BASE["audit"], {"d.csv": mutated(CSV, draw)})


def tampered(seed: int, place: Path) -> Iterator[Case]:
    """Files of runs, finished and interrupted, changed in one place; the folders of the models that they leave too."""
    from torchshrink.errors import InputError

    draw = random.Random(f"tampered {seed}")
    made = [(name, argv, folder, whole) for name, argv, folder, whole in runs(place)]
    while True:
        name, argv, folder, whole = draw.choice(made)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        victim, other, way = draw.choice(files), draw.choice(files), draw.randrange(6)
        state = draw.getrandbits(64)

        def change(out: Path, victim=victim, other=other, way=way, state=state) -> None:
            local, path = random.Random(state), out / victim
            if way == 0:
                path.write_bytes((out / other).read_bytes())
            elif way == 1:
                path.write_bytes(
                    json.dumps(local.choice([{}, [], None, 1e9, {"format": 1, "model": "os:abort"}])).encode()
                )
            elif way == 2:
                path.unlink()
            else:
                path.write_bytes(mutated(path.read_bytes(), local))
            for read in reading():
                with contextlib.suppress(InputError):
                    read(out)

        yield Case(f"tampered {name} {victim} {way}", [*argv, "--resume"], {"d.csv": CSV}, folder, change, whole)


def models(seed: int) -> Iterator[Case]:
    """Folders of models whose settings are sealed as they should be, and ask for what they should not."""
    draw = random.Random(f"models {seed}")
    sizes = [10**9, 10**18, 2**63, 10**400, -1, 0, 1, 2, True, None, "3", 1.5, 1e300, [2], {}]
    names = ["mlp", "linear", "logistic", "os:abort", "os:system", ":", "a:b", "", None, 5, ["mlp"], {}]

    def lists() -> object:
        many = [draw.choice(sizes) for _ in range(draw.choice([0, 1, 1, 2, 40]))]
        return many if draw.random() < 0.9 else draw.choice(sizes)

    while True:
        settings = {"format": 1, "model": "mlp", "inputs": [0, 0], "outputs": 2, "hidden": [2], "regression": False}
        for name in draw.sample(sorted(settings), draw.choice([1, 1, 2, 6])):
            settings[name] = {"inputs": lists(), "hidden": lists(), "model": draw.choice(names)}.get(
                name, draw.choice(sizes)
            )
        if draw.random() < 0.2:
            settings.pop(draw.choice(sorted(settings)))

        def change(out: Path, settings=settings) -> None:
            import torch

            from torchshrink.errors import InputError
            from torchshrink.models import load_model, save_model

            out.mkdir(exist_ok=True)
            save_model(out, torch.nn.Linear(2, 2), settings)
            with contextlib.suppress(InputError):
                load_model(out)
                raise ValueError("a linear layer was loaded as something else")

        yield Case("model folder", [*BASE["convert"]], {}, change=change)


def reading() -> list[Callable[[Path], object]]:
    from torchshrink.models import load_model
    from torchshrink.paths import load_path

    return [load_model, load_path]


def runs(place: Path) -> Iterator[tuple[str, list[str], Path, str]]:
    """(name, arguments, folder, the digest of the finished folder) of runs that are whole, and interrupted."""
    from torchshrink.cli import train_epochs
    from torchshrink.paths.journal import Journal

    trainings = {
        "cold": ([*BASE["path"], "--engine", "sequential", "--quiet", "--out", "out"], Journal, "write", 3),
        "warm": ([*BASE["path"], "--order", "warm", "--quiet", "--out", "out"], Journal, "write", 3),
        "train": ([*BASE["train"], "--epochs", "3", "--quiet", "--out", "out"], train_epochs.Fit, "save", 2),
    }
    for name, (argv, owner, method, after) in trainings.items():
        real, calls = getattr(owner, method), []

        def stopping(*given, real=real, calls=calls, after=after, **named):
            found = real(*given, **named)
            calls.append(1)
            if len(calls) == after:
                raise KeyboardInterrupt
            return found

        for state in ("whole", "stopped"):
            if state == "stopped":
                setattr(owner, method, stopping)
            status, _, said = outcome(Case(name, argv))
            setattr(owner, method, real)
            assert status == (0 if state == "whole" else 130), (name, state, status, said)
            shutil.copytree("case/out", place / f"{name}-{state}")
        whole = digest(place / f"{name}-whole")
        for state in ("whole", "stopped"):
            yield f"{name} {state}", argv, place / f"{name}-{state}", whole


def signals(place: Path) -> Iterator[tuple[object, str]]:
    """Real processes that are told to end at a random moment."""
    draw = random.Random(0)
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        shutil.rmtree(place / "case", ignore_errors=True)
        (place / "case").mkdir()
        number = getattr(signal, name)
        argv = [sys.executable, "-m", "torchshrink", "train", "iris", "--epochs", "100000", "--out", "out"]
        with subprocess.Popen(
            argv, cwd=place / "case", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
        ) as process:  # fmt: skip
            while not (place / "case/out/checkpoint.safetensors").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.random())
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        sound = process.returncode == 128 + number and "Traceback" not in err and "to go on" in err
        yield process.returncode, "" if sound else f"{name}: status {process.returncode}: {err[-300:]}"


if __name__ == "__main__":
    sys.exit(main())
