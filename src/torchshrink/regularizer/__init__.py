"""`Regularizer`: penalties bound to a model's parameters; `Activations`: to what its modules compute."""

from torchshrink.regularizer.activations import Activations
from torchshrink.regularizer.regularizer import Regularizer
from torchshrink.regularizer.selection import ALL, WEIGHTS

__all__ = ["ALL", "WEIGHTS", "Activations", "Regularizer"]
