"""Run a notebook from its first cell to its last, and keep what a reader wants to see.

    python notebooks/execute.py            # run the tutorial again and write its outputs
    python notebooks/execute.py --check    # only say whether it runs

Progress on stderr and times are left out, so that the file changes only where a result does.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIAL = Path(__file__).with_name("tutorial.ipynb")
INSTALL = "install"  # the tag of a cell that installs the library: here it is installed already


def execute(notebook: nbformat.NotebookNode, *, timeout: int = 120) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run; raises nbclient's CellExecutionError where a cell fails."""
    ran = copy.deepcopy(notebook)
    for cell in ran.cells:
        if INSTALL in cell.metadata.get("tags", []):
            cell.source = ""
    NotebookClient(ran, timeout=timeout, kernel_name="python3", record_timing=False).execute()
    for before, after in zip(notebook.cells, ran.cells, strict=True):
        after.source = before.source
        if after.cell_type == "code":
            after.outputs = _joined(output for output in after.outputs if output.get("name") != "stderr")
            after.execution_count = None
            for output in after.outputs:
                if "execution_count" in output:
                    output["execution_count"] = None
    ran.metadata = notebook.metadata
    return ran


def _joined(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Pieces of printed text that follow each other as one: where they are cut is a matter of time."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def text_of(notebook: nbformat.NotebookNode) -> str:
    """All that the notebook has printed."""
    return "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )


def main() -> None:
    """Run the tutorial, and write it unless only asked to check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="leave the file as it is")
    check = parser.parse_args().check
    ran = execute(nbformat.read(TUTORIAL, as_version=4))
    if not check:
        nbformat.write(ran, TUTORIAL)


if __name__ == "__main__":
    main()
