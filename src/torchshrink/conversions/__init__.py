"""Strengths between torchshrink, scikit-learn, glmnet, Keras and PyTorch's optimizers."""

from torchshrink.conversions.convert import Conversion, convert
from torchshrink.errors import NoEquivalentError

__all__ = ["Conversion", "NoEquivalentError", "convert"]
