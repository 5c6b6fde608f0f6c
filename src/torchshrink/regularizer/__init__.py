"""`Regularizer`: penalties bound to a model's parameters."""

from torchshrink.regularizer.regularizer import Regularizer
from torchshrink.regularizer.selection import ALL, WEIGHTS

__all__ = ["ALL", "WEIGHTS", "Regularizer"]
