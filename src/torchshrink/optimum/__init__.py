"""Linear and logistic regression under L1, L2 and elastic nets, to the optimum and along a path of strengths."""

from torchshrink.optimum.solve import AT_ONCE, Optimum, Strengths, outputs_of, solve

__all__ = ["AT_ONCE", "Optimum", "Strengths", "outputs_of", "solve"]
