"""Shrinking: zeros become size and speed, and the outputs stay equal.

``trace`` (which operators), ``channels`` and ``rules`` (which indices go together, and which are constant), ``plan``
(what goes: a decision, nothing else), ``surgery`` (a smaller copy), ``proof`` (that it computes the same).
"""

from torchshrink.shrinking.plan import Fold, Merge, Plan
from torchshrink.shrinking.rules import shrink_rule
from torchshrink.shrinking.saved import load_shrunk
from torchshrink.shrinking.shrinking import shrink
from torchshrink.shrinking.shrunk import Shrunk

__all__ = ["Fold", "Merge", "Plan", "Shrunk", "load_shrunk", "shrink", "shrink_rule"]
