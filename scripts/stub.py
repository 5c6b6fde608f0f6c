"""Write src/torchshrink/__init__.pyi: what `torchshrink/__init__.py` lists, as type checkers read it."""

from __future__ import annotations

from pathlib import Path

import torchshrink

PLACE = Path(__file__).parents[1] / "src" / "torchshrink" / "__init__.pyi"


def stub() -> str:
    """The text of the stub."""
    lines = [f"from torchshrink import {room} as {room}" for room in torchshrink._ROOMS]
    for module, names in sorted(torchshrink._NAMES.items()):
        lines += [f"from {module} import {name} as {name}" for name in sorted(names)]
    return "\n".join(["# Made by scripts/stub.py from __init__.py.", *lines, "", "__version__: str", ""])


if __name__ == "__main__":
    PLACE.write_text(stub(), encoding="utf-8")
