"""A model, and what is penalised in it, in words."""

from __future__ import annotations

from torch import nn

from torchshrink.regularizer.selection import Choice

MOST_AUDITED = 200  # parameters
_MOST_LAYERS = 8
_UNSAID = ("Preprocess", "Rescale", "Flatten", "Identity")


def in_words(model: nn.Module) -> str:
    """Its layers and how many parameters it has.

    >>> in_words(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    'Linear 4 → 8, ReLU, Linear 8 → 2; 58 parameters'
    """
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    named = [_layer(module) for module in leaves if type(module).__name__ not in _UNSAID]
    more = f", and {len(named) - _MOST_LAYERS + 1} more layers" if len(named) > _MOST_LAYERS else ""
    said = ", ".join(named[: _MOST_LAYERS - 1] if more else named) + more
    count = sum(parameter.numel() for parameter in model.parameters())
    own = "" if type(model) is nn.Sequential or not said else f"{type(model).__name__}: "
    return f"{own}{said or type(model).__name__}; {count:,} parameters"


def audit_row(choice: Choice) -> tuple[str, str, str, str]:
    """A parameter's names, its shape, the penalty at strength 1 and why it has none; one of the last two is empty."""
    shape = " × ".join(map(str, choice.parameter.shape)) or "one number"
    penalty = "" if choice.penalty is None else str(choice.penalty)
    return " = ".join((choice.name, *choice.aliases)), shape, penalty, choice.reason


def _layer(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} → {module.out_features}"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        kernel = " × ".join(map(str, module.kernel_size))
        return f"{name} {module.in_channels} → {module.out_channels} ({kernel})"
    return name
