"""What each operator does with units; importing this registers the rules of torch's own operators."""

from torchshrink.shrinking.rules import blocks, contractions, einsum, elementwise, layout, norms, reductions
from torchshrink.shrinking.rules.registry import (
    NotUnderstoodError,
    Operation,
    Reading,
    argument_dict,
    name_of,
    plain_enough,
    rule_of,
    shrink_rule,
)

__all__ = [
    "NotUnderstoodError",
    "Operation",
    "Reading",
    "argument_dict",
    "blocks",
    "contractions",
    "einsum",
    "elementwise",
    "layout",
    "name_of",
    "norms",
    "plain_enough",
    "reductions",
    "rule_of",
    "shrink_rule",
]
