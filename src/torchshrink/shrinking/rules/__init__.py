"""What each operator does with units; importing this registers the rules of torch's own operators."""

from torchshrink.shrinking.rules import contractions, elementwise, layout, norms, reductions
from torchshrink.shrinking.rules.registry import (
    NotUnderstoodError,
    Operation,
    Reading,
    all_known,
    argument_dict,
    name_of,
    rule_of,
    shrink_rule,
)

__all__ = [
    "NotUnderstoodError",
    "Operation",
    "Reading",
    "all_known",
    "argument_dict",
    "contractions",
    "elementwise",
    "layout",
    "name_of",
    "norms",
    "reductions",
    "rule_of",
    "shrink_rule",
]
