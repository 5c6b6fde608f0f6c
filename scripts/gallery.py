"""Run the gallery's scripts and keep their pictures: `python scripts/gallery.py [NAME ...]`, all by default."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parents[1] / "docs" / "gallery"
LOOK = {  # seen on white and on black; the same file from the same numbers
    "axes.edgecolor": "#808080",
    "axes.labelcolor": "#808080",
    "axes.prop_cycle": matplotlib.cycler(color=["#3b7dd8", "#d9822b", "#3a9d5d"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "legend.framealpha": 0,
    "legend.labelcolor": "#808080",
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "torchshrink",
    "text.color": "#808080",
    "xtick.color": "#808080",
    "ytick.color": "#808080",
}


def run(name: str) -> dict[str, Any]:
    """Run one script in the current folder, where it leaves its picture; its names come back."""
    matplotlib.use("agg")
    with matplotlib.rc_context(LOOK):
        names = runpy.run_path(str(FOLDER / f"{name}.py"))
    plt.close("all")
    picture = Path(f"{name}.svg")
    picture.write_text(re.sub(r"<metadata>.*?</metadata>\n?", "", picture.read_text("utf-8"), flags=re.DOTALL), "utf-8")
    return names


if __name__ == "__main__":
    os.chdir(FOLDER)
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.py")):
        run(name)
