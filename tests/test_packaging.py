"""The wheel, built as users get it and installed away from the sources: it is whole, and it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")


def call(*command: str | Path, cwd: Path) -> str:
    """What the command prints; a test fails with its stderr where it fails. It sees none of our paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Built from a copy, so that nothing is left in the repository, and without a download."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(place, copy / name)
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, copy, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Into a new environment; the dependencies are those of this one, by a path file. Returns its scripts' folder."""
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    call(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return scripts


def test_the_wheel_is_whole_and_works(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    expected = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "torchshrink").rglob("*.py")} | {
        "torchshrink/py.typed"
    }
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
