"""Linear and logistic regression under L1, L2 and elastic nets, to the optimum and along a path of strengths."""

from torchshrink.optimum.solve import AT_ONCE, Optima, outputs_of, solve
from torchshrink.optimum.strengths import Strengths

__all__ = ["AT_ONCE", "Optima", "Strengths", "outputs_of", "solve"]
