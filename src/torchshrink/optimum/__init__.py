"""Linear and logistic regression to the optimum, along a path of strengths; where F is not convex, to stationarity."""

from torchshrink.optimum.composite import acts_here
from torchshrink.optimum.solve import AT_ONCE, Optima, outputs_of, solve
from torchshrink.optimum.stationary import solve_composite
from torchshrink.optimum.strengths import Strengths

__all__ = ["AT_ONCE", "Optima", "Strengths", "acts_here", "outputs_of", "solve", "solve_composite"]
