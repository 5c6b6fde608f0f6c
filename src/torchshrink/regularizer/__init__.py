"""`Regularizer`: penalties bound to a model's parameters."""

from torchshrink.regularizer.regularizer import Regularizer

__all__ = ["Regularizer"]
