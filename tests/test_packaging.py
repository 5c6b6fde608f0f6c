"""What is given away: a source distribution that is whole, and a wheel, built from that, which works elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

CURE = "which is not installed: install torchshrink with its extra 'full', from a clone by pip install '.[full]'"


def call(*command: str | Path, cwd: Path) -> str:
    """What the command prints; a test fails with its stderr where it fails. It sees none of our paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution, the wheel that is built from that, and a copy of the ``source``.

    Of the copy, so that nothing is left in the repository; without a download.
    """
    folder = tmp_path_factory.mktemp("built")
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".git", *ignored))
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    return folder


@pytest.fixture
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def install(wheel: Path, folder: Path, *, dependencies: bool = True) -> Path:
    """Into a new environment; the dependencies are those of this one, by a path file. Returns its scripts' folder."""
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    call(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    if not dependencies:
        return scripts
    (packages,) = folder.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return scripts


CORE = """
import sys
import torch
from torch import nn
import torchshrink as ts
from torchshrink import models

torch.manual_seed(0)
X = torch.randn(60, 5)
y = 2 * X[:, :1] + 0.1 * torch.randn(60, 1)
model = nn.Linear(5, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
reg = ts.Regularizer(model, ts.L1(0.1)).attach(optimizer)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(X), y).backward()
    optimizer.step()
assert reg.sparsity().zeros == 4, reg.summary()
assert float(reg.value().detach()) > 0
reg.detach()
polished = ts.polish(model, (X, y), reg, loss=nn.MSELoss())
assert polished.certificate.ok(1e-6)
assert ts.certify(model, (X, y), reg, loss=nn.MSELoss()).gap < 1e-6
assert ts.convert("torchshrink", to="torch.optim.SGD", l2=1e-3)
settings = models.model_settings("mlp", inputs=(0,) * 5, outputs=1, hidden=(4,), regression=True)
small = models.build(settings)
models.save_model(".", small, settings)
assert torch.equal(ts.load_model(".")(X), small.eval()(X))
with torch.no_grad():
    small.hidden1.weight[2:] = 0
shrunk = ts.shrink(small, X)
models.save_model(".", shrunk.model, models.settings_of(shrunk.model, settings))
assert ts.load_model(".").hidden1.out_features == 2
assert torch.allclose(ts.load_model(".")(X), small(X), atol=1e-6)
shrunk.export("model.pt2")
try:
    shrunk.export("model.onnx")
except ImportError as error:
    assert "its extra 'onnx'" in str(error)
more = ("sklearn", "scipy", "joblib", "pandas", "matplotlib", "typer")
assert not [module for module in more if module in sys.modules]
try:
    ts.path
except ImportError as error:
    print(error)
"""


def requirements(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """The distribution of that name and what it requires, without extras, into ``found``."""
    name = canonicalize_name(name)
    if name in found:
        return
    found[name] = importlib.metadata.distribution(name)
    for text in found[name].requires or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and not requirement.name.startswith(("nvidia", "triton", "cuda")):  # of torch's CUDA builds
            requirements(requirement.name, found)


def test_the_core_needs_no_more_than_it_says(wheel: Path, tmp_path: Path) -> None:
    """In an environment with torch and three further packages, and nothing else."""
    scripts = install(wheel, tmp_path / "venv", dependencies=False)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(n).decode() for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    needs = [
        Requirement(line.removeprefix("Requires-Dist: "))
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    assert {need.name for need in needs} == {"torch", "numpy", "safetensors", "tqdm"}
    found: dict[str, importlib.metadata.Distribution] = {}
    for need in needs:
        requirements(need.name, found)
    for distribution in found.values():
        for name in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(distribution.locate_file(name))))
    away = tmp_path / "away"
    away.mkdir()
    said = call(scripts / "python", "-W", "error", "-c", CORE, cwd=away)
    assert said.strip() == "ts.path needs cloudpickle, " + CURE
    refused = subprocess.run([scripts / "torchshrink", "--help"], cwd=away, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr == ("error: the command line needs typer, " + CURE + "\n")


def test_the_source_distribution_has_every_file(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {Path(*Path(member.name).parts[1:]).as_posix() for member in tar.getmembers() if member.isfile()}
    source = built / "source"
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    files = {path.as_posix() for path in files if "torchshrink.egg-info" not in path.parts}
    assert {"tests/paths/engines/test_stack.py", "benchmarks/run.py", "scripts/stub.py", "docs/index.md"} <= files
    made = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("src/torchshrink.egg-info/")}
    assert names - made == files


def test_the_wheel_is_whole_and_works(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "torchshrink").rglob("*.*")
        if path.suffix in (".py", ".pyi", ".js", ".css")
    } | {"torchshrink/py.typed"}
    assert expected <= names
    assert {name.split("/")[0] for name in names - expected} == {wheel.name.split("-py3")[0] + ".dist-info"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in metadata

    scripts = install(wheel, tmp_path / "venv")
    away = tmp_path / "away"
    away.mkdir()
    where = call(
        scripts / "python", "-c", "import torchshrink; print(torchshrink.L1(1e-4), torchshrink.__file__)", cwd=away
    )
    assert where.startswith("L1(0.0001) ")
    assert Path(where.split(maxsplit=1)[1].strip()).is_relative_to(tmp_path / "venv")
    assert "path" in call(scripts / "torchshrink", "--help", cwd=away)
    trained = call(scripts / "torchshrink", "train", "digits", "--epochs", "1", cwd=away)
    assert "accuracy" in trained
    assert (away / "runs" / "train-digits" / "model.safetensors").is_file()
