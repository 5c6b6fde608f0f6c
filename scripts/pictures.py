"""Draw docs/images/penalties/*.svg: what each penalty costs, what its prox makes of a weight, what is left of a matrix.

Everything is computed by the penalties themselves. Strokes are of middle grey, blue and orange, which are seen on white
and on black.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import torchshrink as ts

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "penalties"
PENALTIES: dict[str, ts.Penalty] = {
    "l1": ts.L1(0.6),
    "l2": ts.L2(0.4),
    "elastic_net": ts.ElasticNet(0.4, 0.25),
    "group_lasso": ts.GroupLasso(0.5),
    "group_lasso_columns": ts.GroupLasso(0.7, dim=1),
    "sparse_group_lasso": ts.SparseGroupLasso(0.35, 0.25),
    "mcp": ts.MCP(0.6, gamma=2.0),
    "scad": ts.SCAD(0.6, gamma=2.5),
    "log_sum": ts.LogSum(0.3, epsilon=0.3),
    "group_mcp": ts.GroupMCP(0.5, gamma=2.0),
    "group_scad": ts.GroupSCAD(0.5, gamma=2.5),
    "l2sp": ts.L2SP(0.4, anchor=1.0),
    "nuclear_norm": ts.NuclearNorm(1.5),
    "orthogonal": ts.Orthogonal(0.2),
    "max_norm": ts.MaxNorm(1.5),
    "unit_norm": ts.UnitNorm(),
    "l1_ball": ts.L1Ball(9.0),
    "non_negative": ts.NonNegative(),
    "box": ts.Box(-0.5, 1.0),
    "l0_ball": ts.L0Ball(0.25),
    "nm": ts.NM(2, 4),
}
SIZE = 46  # of a panel; they are 52 apart
INK, COST, LEFT = "#808080", "#3b7dd8", "#d9822b"


def matrix() -> Tensor:
    """6 × 8 weights of either sign, in which some rows and columns are larger than others."""
    place = torch.arange(48.0, dtype=torch.float64).reshape(6, 8)
    wave = torch.sin(2.3 * place + 0.7 * torch.arange(6.0)[:, None]) + 0.4 * torch.cos(5.1 * place)
    rows = torch.tensor([1.4, 0.25, 1.0, 0.3, 0.2, 1.2], dtype=torch.float64)
    return wave * rows[:, None]


def curve(values: Tensor, at: float, colour: str) -> str:
    """A curve over w in [−2.5, 2.5] in the panel that begins at a place; values between −2.5 and 2.5."""
    w = torch.linspace(-2.5, 2.5, len(values))
    scale = SIZE / 5
    points = " ".join(
        f"{at + SIZE / 2 + scale * x:.1f},{SIZE / 2 + 3 - scale * y:.1f}"
        for x, y in zip(w.tolist(), values.tolist(), strict=True)
        if abs(y) <= 2.5
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def axes(at: float) -> str:
    """Two thin lines that cross in the middle of a panel."""
    middle, end = SIZE / 2 + 3, SIZE + 3
    lines = f"M{at:g} {middle:g}h{SIZE}M{at + SIZE / 2:g} 3V{end:g}"
    return f'<path d="{lines}" stroke="{INK}" stroke-width=".6" fill="none"/>'


def cells(w: Tensor, at: float) -> str:
    """A matrix as squares: full where a weight is, hollow where it is 0."""
    side = SIZE / 8
    top = 3 + (SIZE - 6 * side) / 2
    drawn = []
    for row, column in ((row, column) for row in range(6) for column in range(8)):
        size = abs(w[row, column].item())
        look = f'fill="{LEFT}" fill-opacity="{min(1, 0.3 + 0.6 * size):.1f}"' if size else 'fill="none"'
        x, y = at + side * column + 0.6, top + side * row + 0.6
        drawn.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{side - 1.2:.1f}" height="{side - 1.2:.1f}" {look} '
            f'stroke="{INK}" stroke-width=".4"/>'
        )
    return "".join(drawn)


def picture(name: str) -> str:
    """One penalty's picture, as SVG."""
    penalty = PENALTIES[name]
    parts = [axes(2)]
    w = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    alone = ts.L0Ball(1) if name == "l0_ball" else penalty
    if not penalty.constraint:
        costs = torch.stack([penalty.value(each.reshape(1, 1)) for each in w])
        parts.append(curve(costs, 2, COST))
    else:
        inside = [
            x for x, each in zip(w.tolist(), w, strict=True) if torch.allclose(alone.prox(each.reshape(1, 1), 1), each)
        ]
        dots = "".join(f"M{2 + SIZE / 2 + SIZE / 5 * x - 0.3:.1f} {SIZE / 2 + 3:g}h.6" for x in inside)
        parts.append(f'<path d="{dots}" stroke="{COST}" stroke-width="2.4" fill="none"/>')
    if name != "orthogonal":
        moved = torch.stack([alone.prox(each.reshape(1, 1), 1.0).reshape(()) for each in w])
        parts += [axes(54), curve(moved, 54, LEFT)]
        whole = ts.L2SP(0.4, anchor=matrix().flip(0)) if name == "l2sp" else penalty
        parts.append(cells(whole.prox(matrix(), 1.0), 106))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 154 52" width="154" height="52" role="img">'
        f"<title>{name}</title>{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PENALTIES:
        (FOLDER / f"{name}.svg").write_text(picture(name), encoding="utf-8")
