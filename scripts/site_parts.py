"""What docs/conf.py hands to Sphinx: gallery scripts and the tutorial as pages, docstrings whose bars are bars."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "tutorial.ipynb"
CELL = re.compile(r"^# %%\n((?:#.*\n)*)", flags=re.MULTILINE)


def page(script: str, name: str) -> str:
    """A gallery script as Markdown: its docstring, its picture, then ``# %%`` comments and code in turns."""
    first = ast.parse(script).body[0]
    title, _, text = (ast.get_docstring(ast.parse(script)) or "").partition("\n")
    lines = script.splitlines(keepends=True)
    code, *cells = CELL.split("".join(lines[first.end_lineno :]))
    parts = [f"# {title.rstrip('.')}", text.strip(), f"![{title}]({name}.svg)", _fenced(code)]
    for comment, code in zip(cells[::2], cells[1::2], strict=True):
        parts += [re.sub(r"^# ?", "", comment, flags=re.MULTILINE).strip(), _fenced(code)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fenced(code: str) -> str:
    return f"```python\n{code.strip()}\n```" if code.strip() else ""


class GalleryParser(MystParser):
    """Reads a script of docs/gallery/ as the page that `page` makes of it."""

    supported = ("gallery",)

    def parse(self, inputstring: str, document: Any) -> None:
        """Parse the page that is made of a script."""
        name = document.settings.env.docname.rpartition("/")[2]
        super().parse(page(inputstring, name), document)


def notebook(text: str) -> str:
    """A notebook as Markdown: its text, its code, and the outputs that are kept in it."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"]).replace("](../docs/", "](")
        parts.append(source if cell["cell_type"] == "markdown" else _fenced(source))
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(
                    f"![What the code above draws](data:image/png;base64,{''.join(data['image/png'].split())})"
                )
            elif printed := "".join(data.get("text/plain", "")).strip("\n"):
                parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def tutorial(_app: Any, name: str, source: list[str]) -> None:
    """On the site the page that points at the notebook is the notebook."""
    if name == "tutorial":
        source[0] = notebook(NOTEBOOK.read_text(encoding="utf-8"))


def literal_bars(_app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Escape the bars of |w|, which reStructuredText takes for substitutions; not in literals, nor in examples."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = re.split(r"(``.*?``)", line)
            lines[number] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def whole_sentences(_app: Any, what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Give a property its sentence back, of which napoleon takes what stands before a colon for the type."""
    types = [line for line in lines if line.startswith(":type: ")]
    if types and what in ("property", "attribute", "data"):
        lines.remove(types[0])
        lines[0] = f"{types[0].removeprefix(':type: ')}: {lines[0]}"


def foreign(_app: Any, _what: str, _name: str, member: Any, skip: bool, _options: Any) -> bool:
    """Leave out members that another library has written, such as scikit-learn's ``set_fit_request``."""
    return skip or not getattr(member, "__module__", "torchshrink").startswith("torchshrink")
