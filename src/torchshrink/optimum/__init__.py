"""Linear and logistic regression under L1, L2 and elastic nets, to the optimum and along a path of strengths."""

from torchshrink.optimum.solve import Optimum, Strengths, solve

__all__ = ["Optimum", "Strengths", "solve"]
