"""Claim: under Muon and AdamW a small GPT loses whole attention heads and feed-forward units, and nears an optimum.

Characters of Python's own help texts; two layers, four heads of 16, feed-forward width 256. The penalty is a group
lasso on what reads a head (16 columns of the attention's output projection) and on what reads a unit (a column of the
second feed-forward layer), by latent weights. Printed: validation loss, heads and units that are zero, and the
certificate on the way, without a penalty and with it. The certificate is of all training rows, as a mean loss over
other rows is another objective.

``python benchmarks/gpt.py --steps 1500``
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import torchshrink as ts
from timing import table

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, ROWS = 2, 4, 64, 64, 32, 2048
HEAD = WIDTH // HEADS


class Block(nn.Module):
    """Attention and a feed-forward part, each after a normalisation and beside the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """Characters in, the next character's logits out."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(kinds, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, kinds)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.token(x) + self.place.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def text() -> tuple[Tensor, Tensor, int]:
    """Training and validation characters as numbers, and how many kinds there are."""
    whole = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    kinds = sorted(set(whole))
    number = {kind: i for i, kind in enumerate(kinds)}
    codes = torch.tensor([number[character] for character in whole])
    cut = int(0.9 * len(codes))
    return codes[:cut], codes[cut:], len(kinds)


def windows(codes: Tensor, draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    at = torch.randint(len(codes) - CONTEXT - 1, (count,), generator=draw)[:, None] + torch.arange(CONTEXT + 1)
    rows = codes[at]
    return rows[:, :-1], rows[:, 1:]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def train(strength: float, steps: int, codes: tuple[Tensor, Tensor, int]) -> list[list[str]]:
    """One training; a row of the table at a quarter, a half, three quarters and the end."""
    training, validation, kinds = codes
    torch.manual_seed(0)
    model = GPT(kinds)
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks") and p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is q for q in matrices)]
    made = [torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0), torch.optim.AdamW(others, lr=3e-3, weight_decay=0.0)]
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(each, steps) for each in made]
    rules = {
        "blocks.*.out.weight": ts.GroupLasso(strength, dim=1, size=HEAD),
        "blocks.*.down.weight": ts.GroupLasso(strength, dim=1),
        "*": None,
    }
    reg = ts.Regularizer(model, rules)
    if strength:
        reg.attach(made[0])
    draw = torch.Generator().manual_seed(1)
    inputs, targets = windows(training, torch.Generator().manual_seed(2), ROWS)
    held_out = windows(validation, torch.Generator().manual_seed(3), 512)
    rows = []
    for step in range(1, steps + 1):
        for each in made:
            each.zero_grad()
        at = torch.randint(ROWS, (BATCH,), generator=draw)
        loss_of(model, (inputs[at], targets[at])).backward()
        for each, scheduler in zip(made, schedulers, strict=True):
            each.step()
            scheduler.step()
        if step % (steps // 4) == 0:

            def closure() -> Tensor:
                model.zero_grad()
                total = torch.zeros(())
                for part in zip(inputs.split(256), targets.split(256), strict=True):
                    loss = loss_of(model, part) * len(part[0]) / ROWS
                    loss.backward()
                    total += loss.detach()
                return total

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                certificate = reg.certify(closure)
            heads = sum(int((b.out.weight.view(WIDTH, HEADS, HEAD) == 0).all(2).all(0).sum()) for b in model.blocks)
            units = sum(int((b.down.weight == 0).all(0).sum()) for b in model.blocks)
            penalised = [share for share in certificate.parameters if share.strength]
            distance = max((share.relative for share in penalised), default=float("nan"))
            with torch.no_grad():
                other = float(loss_of(model, held_out))
            row = [f"{strength:g}", str(step), f"{other:.3f}", f"{heads} of {LAYERS * HEADS}"]
            rows.append([*row, f"{units} of {LAYERS * 4 * WIDTH}", f"{distance:.2g}", f"{certificate.objective:.3f}"])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 2e-4, 5e-4])
    arguments = parser.parse_args()
    codes = text()
    rows = [row for strength in arguments.strengths for row in train(strength, arguments.steps, codes)]
    header = ["strength", "step", "validation loss", "zero heads", "zero units", "certificate of these", "F"]
    print(table("A small GPT under Muon and AdamW", header, rows))


if __name__ == "__main__":
    main()
