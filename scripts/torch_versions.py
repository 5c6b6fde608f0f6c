"""Run the core of the test suite on other releases of torch, and print a table: ``python scripts/torch_versions.py``.

    python scripts/torch_versions.py 2.6.0 2.9.1 2.13.0

Each release gets an environment of its own under a temporary folder, one at a time, and each is deleted before the next
one is made: about 3 GB of disk, and one download of 0.1 to 0.9 GB per release. Everything but torch (pytest, numpy, …)
is borrowed from the environment that runs this script.

No graphics card is needed, and none of the gigabytes of CUDA libraries, although most releases come from the package
index as CUDA builds only. Such a build runs on a CPU as soon as the loader finds every library that it was linked to:

- torch itself is installed without its dependencies; then those that are plain Python, and CUDA's small runtime,
  which must be real, since torch asks it whether there is a device;
- every other library that ``ldd`` misses (cuBLAS, cuDNN, NCCL, …) is replaced by an empty one with the same name, made
  by ``gcc``. It exports the symbols that nobody else defines, as functions that fail with "no device"; none is called.

So it needs Linux, ``gcc`` and its binutils (``nm``, ``objdump``).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CORE = (
    *("penalties", "step_sizes", "regularizer", "certifying", "polishing", "training", "conversions", "support"),
    *("data", "models", "paths", "report", "test_distributed.py", "test_ground_truths.py", "test_gradients_off.py"),
)
NOT_NEEDED = re.compile(r"^(nvidia-|cuda-|triton|pytorch-triton)")  # on a CPU
CUDA_RUNTIME = re.compile(r"^nvidia-cuda-runtime")
DRIVER = "libcuda.so.1"  # torch looks for it only when it compiles a kernel
NO_DEVICE = 100  # cudaErrorNoDevice, CUDA_ERROR_NO_DEVICE


def main() -> int:
    """Test each release that is asked for, and print the table; 1 if a test failed somewhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="releases of torch, such as 2.6.0")
    parser.add_argument("--tests", nargs="+", default=CORE, metavar="PATH", help="below tests/ (default: the core)")
    parser.add_argument("--jobs", type=int, default=1, metavar="COUNT", help="processes that run tests (pytest-xdist)")
    parser.add_argument("--wheels", metavar="FOLDER", help="where to look for wheels of torch before downloading")
    parser.add_argument("--in", dest="parent", metavar="FOLDER", help="where to make the environments")
    arguments = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for version in arguments.versions:
        with tempfile.TemporaryDirectory(prefix=f"torch-{version}-", dir=arguments.parent) as folder:
            try:
                python = make_environment(Path(folder), version, arguments.wheels)
            except (subprocess.CalledProcessError, RuntimeError) as error:  # the others are tested all the same
                rows.append((version, "0", "0", f"all: {error}", "0"))
            else:
                rows.append((version, *run_tests(python, Path(folder), arguments.tests, jobs=arguments.jobs)))
        print(_table(rows), flush=True)  # after each release: the next one takes long, and may be interrupted
    return int(any(row[3] != "0" for row in rows))


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    header = ("torch", "passed", "skipped", "failed", "seconds")
    return "\n".join(["", *(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])])


def make_environment(folder: Path, version: str, wheels: str | None) -> str:
    """An environment in which ``import torch`` gives this release, on the CPU; the path of its interpreter."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    links = ["--find-links", wheels] if wheels else []
    # Compiled to bytecode once: hundreds of processes of the tests import it.
    subprocess.run([*pip, "--no-deps", *links, f"torch=={version}"], check=True)
    plain, runtime = _requirements(own)
    subprocess.run([*pip, *plain], check=True)
    if runtime:
        subprocess.run([*pip, *runtime], check=True)
    _make_stubs(own)
    # Last on its path, so that it borrows all but torch and what torch wants from the environment that runs this.
    borrowed = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (own / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    found = subprocess.run(
        [python, "-c", "import torch; print(torch.__version__)"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if found.partition("+")[0] != version:
        raise RuntimeError(f"The environment made for torch {version} imports torch {found}")
    return python


def _requirements(own: Path) -> tuple[list[str], list[str]]:
    """What the torch that is installed there wants and a CPU uses: plain packages, and CUDA's runtime library."""
    torch: Distribution = next(d for d in distributions(path=[str(own)]) if d.metadata["Name"] == "torch")
    wanted = [Requirement(text) for text in torch.requires or ()]
    wanted = [requirement for requirement in wanted if not requirement.marker or requirement.marker.evaluate()]
    for requirement in wanted:
        requirement.marker = None
    runtime = [str(r) for r in wanted if CUDA_RUNTIME.match(r.name)]
    for requirement in wanted:
        if requirement.name == "cuda-toolkit":  # from 2.11 on: one package whose extras name the libraries
            runtime.append(f"cuda-toolkit[cudart]{requirement.specifier}")
    return [str(r) for r in wanted if not NOT_NEEDED.match(r.name)], runtime


def _make_stubs(own: Path) -> None:
    """An empty library, beside torch's own, for each that the loader misses."""
    folder = own / "torch" / "lib"
    libraries = sorted(folder.glob("*.so*"))
    missing: set[str] = set()
    present = set(map(str, libraries))
    for library in libraries:
        listing = subprocess.run(["ldd", str(library)], check=True, capture_output=True, text=True).stdout
        missing |= set(re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE))
        present |= set(re.findall(r"=> (/\S+)", listing))
    missing.discard(DRIVER)
    if not missing:
        return
    defined = {name for library in present for name, _ in _symbols("--defined-only", library)}
    wanted = {symbol for library in libraries for symbol in _symbols("--undefined-only", str(library))}
    versions = _versions(libraries)
    unversioned = {name for name, version in wanted if not version and name not in defined}
    for number, library in enumerate(sorted(missing)):
        # The loader looks for a symbol without a version in every library: one has them all.
        names = set() if number else unversioned
        script = ""
        for version in versions.get(library, ()):
            with_version = {name for name, theirs in wanted if theirs == version}
            names |= with_version
            script += f"{version} {{ global: {' '.join(f'{name};' for name in sorted(with_version))} }};\n"
        _make_stub(folder / library, names, script)


def _make_stub(path: Path, symbols: set[str], version_script: str) -> None:
    """A shared library of functions that say that there is no device."""
    source, script = path.with_suffix(".c"), path.with_suffix(".map")
    source.write_text("".join(f"int {symbol}(void) {{ return {NO_DEVICE}; }}\n" for symbol in sorted(symbols)))
    script.write_text(version_script)
    link = [f"-Wl,-soname,{path.name}", *([f"-Wl,--version-script={script}"] if version_script else [])]
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", *link, "-o", str(path), str(source)], check=True)


def _symbols(which: str, library: str) -> set[tuple[str, str]]:
    """The names, with their versions or "", of a library's symbols, but for those that may stay undefined."""
    lines = subprocess.run(["nm", "-D", which, library], check=True, capture_output=True, text=True).stdout.splitlines()
    split = [fields for line in lines if (fields := line.split())[-2] not in ("w", "v")]
    return {(name, version.lstrip("@")) for *_, full in split for name, _, version in [full.partition("@")]}


def _versions(libraries: list[Path]) -> dict[str, set[str]]:
    """For each library that these need: the versions of its symbols."""
    found: dict[str, set[str]] = {}
    for library in libraries:
        listing = subprocess.run(["objdump", "-p", str(library)], check=True, capture_output=True, text=True).stdout
        for section in listing.partition("Version References:")[2].split("required from ")[1:]:
            needed, _, lines = section.partition(":\n")
            found.setdefault(needed, set()).update(re.findall(r"^\s+0x\S+ 0x\S+ \d+ (\S+)", lines, re.MULTILINE))
    return found


def run_tests(python: str, folder: Path, tests: Sequence[str], *, jobs: int) -> tuple[str, str, str, str]:
    """How many tests passed, were skipped and failed, and how long they took."""
    report = folder / "report.xml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        + (["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else [])
        + [str(ROOT / "tests" / test) for test in tests],
        env=environment,
        cwd=ROOT,
        check=False,
    )
    seconds = time.monotonic() - start
    if not report.exists():
        return "0", "0", "all (pytest did not start)", f"{seconds:.0f}"
    suite = next(ET.parse(report).getroot().iter("testsuite"))
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return str(total - skipped - failed), str(skipped), str(failed), f"{seconds:.0f}"


if __name__ == "__main__":
    sys.exit(main())
