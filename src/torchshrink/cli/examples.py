"""Commands that each verb's help shows; a test runs them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable

EXAMPLES: dict[str, tuple[str, ...]] = {
    "path": (
        "path digits --penalty l1",
        "path wine --penalty l1,group_lasso --test 0.25",
        "path sales.csv --target price --model linear --choose one_se",
    ),
    "train": (
        "train digits --penalty l1 --strength 1e-3",
        "train sales.csv --target price --penalty none --epochs 20",
    ),
    "shrink": ("shrink runs/path-wine", "shrink runs/path-wine --inputs --format pt2 --force"),
    "report": ("report runs/path-wine",),
    "audit": ("audit digits --penalty group_lasso", "audit sales.csv --target price --rules rules.yaml"),
    "convert": (
        "convert --from sklearn.Ridge --alpha 1.0 --rows 442",
        "convert --from torch.SGD --weight-decay 0.01 --to keras.L2",
        "convert --list",
    ),
}


def help_of(name: str, verb: Callable[..., None]) -> str:
    """What the verb's docstring says, and its examples.

    Each paragraph is one line, which the help wraps to the terminal.
    """
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(verb.__doc__ or "").split("\n\n")]
    shown = [f"$ torchshrink {words}" for words in EXAMPLES.get(name, ())]
    return "\n\n".join([*paragraphs, *(["\n".join(shown)] if shown else [])])
