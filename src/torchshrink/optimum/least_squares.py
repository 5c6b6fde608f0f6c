"""Squares under one strength for all weights by scikit-learn's coordinate descent, and squares without penalty.

Both need of the rows no more than their products, AᵀA and Aᵀt, once these are taken. Coordinate descent on them is
compiled, and on a thousand features several times faster than what stands beside it here; it is a part of what
``ts.path`` needs anyway.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchshrink.certifying.conjugates import Squares
from torchshrink.optimum.newton import squared
from torchshrink.support.optional import needed

TOLERANCE = 5e-8  # of the duality gap, as a share of the target's squares
MOST_SWEEPS = 2000
SOUND = 1e-10  # the least pivot, as a share of the largest, with which the products are all that is needed


def rank_tolerance(digits: torch.dtype) -> float:
    """Features that depend on each other but for this share of the largest singular value are taken as dependent.

    What is less, as between the levels of a category in float32, is rounding: weights that fit it are so large that
    the model's dtype cannot hold them, and differ with every choice of rows.
    """
    return max(64 * torch.finfo(digits).eps, 1e-11)


@dataclass(frozen=True, eq=False)
class CentredSquares:
    """a·mean of Σ(A·w + b − t)² over rows, with A and t less their means where there is an intercept.

    Attributes:
        A: centred features (n, d).
        T: centred targets (n, k).
        at: the features' means (d,), or zeros.
        level: the targets' means (k,), or zeros.
        a: the factor.
        intercept: whether there is one.
        digits: as of a `LinearModel`.
    """

    A: Tensor
    T: Tensor
    at: Tensor
    level: Tensor
    a: float
    intercept: bool
    digits: torch.dtype = torch.float64

    @classmethod
    def of(
        cls, features: Tensor, loss: Squares, *, intercept: bool, digits: torch.dtype = torch.float64
    ) -> CentredSquares:
        """Of features (n, d) and a loss of k outputs."""
        at, level = features.new_zeros(features.shape[1]), features.new_zeros(loss.target.shape[1])
        if intercept:
            at, level = features.mean(0), loss.target.mean(0)
        return cls(features - at, loss.target - level, at, level, loss.a, intercept, digits)

    @functools.cached_property
    def products(self) -> tuple[Tensor, Tensor] | None:
        """(AᵀA, AᵀT), (d, d) and (d, k), where these are fewer numbers than A."""
        if len(self.A) <= self.A.shape[1]:
            return None
        return squared(self.A.mT), self.A.mT @ self.T

    @property
    def free(self) -> Tensor:
        """The weights (k, d) of the least squares, of several the least ones; intercepts as last column.

        Of several, up to `rank_tolerance`.
        """
        if self.products is not None:
            gram, cross = self.products
            factor, failed = torch.linalg.cholesky_ex(gram)
            pivots = factor.diagonal().square()
            if not failed and bool(pivots.min() > SOUND * pivots.max()):
                W = torch.cholesky_solve(cross, factor)
                # Once more with what is left, which is not taken from the products: so W is right to rounding.
                W = W + torch.cholesky_solve(self.A.mT @ (self.T - self.A @ W), factor)
                return self._whole(W.mT)
        return self._whole((torch.linalg.pinv(self.A, rtol=rank_tolerance(self.digits)) @ self.T).mT)

    def descended(self, strengths: Sequence[tuple[float, float]]) -> Tensor:
        """The weights (S, k, d), intercepts as last column, at each (l1, l2), l1 > 0.

        Each begins where the one before it ended. Whoever asks measures how near they are: scikit-learn's tolerance
        knows the targets' squares only.
        """
        with needed("ts.path"):
            from sklearn.linear_model import enet_path
        X, Y, gram = self.A.numpy(), self.T.numpy(), None if self.products is None else self.products[0].numpy()
        if gram is None:
            X = np.asfortranarray(X)
        # scikit-learn's objective is ½·mean of squares + α·ρ·|w| + ½·α·(1 − ρ)·w², 1/(2a) of this one.
        wanted = [((l1 + 2 * l2) / (2 * self.a), l1 / (l1 + 2 * l2)) for l1, l2 in strengths]
        outputs = []
        for y in np.ascontiguousarray(Y.T):
            found: list[np.ndarray] = []
            for ratio, some in itertools.groupby(wanted, key=lambda pair: round(pair[1], 14)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of no convergence
                    _, coefficients, _ = enet_path(
                        X,
                        y,
                        l1_ratio=ratio,
                        alphas=[alpha for alpha, _ in some],
                        precompute=False if gram is None else gram,
                        Xy=None if gram is None else X.T @ y,
                        coef_init=found[-1][-1].copy() if found else None,
                        tol=TOLERANCE,
                        max_iter=MOST_SWEEPS,
                        copy_X=False,
                        check_input=False,  # arrays of float64, in the order that is wanted
                    )
                found.append(coefficients.T)
            outputs.append(torch.from_numpy(np.concatenate(found)))
        return self._whole(torch.stack(outputs, 1))

    def _whole(self, W: Tensor) -> Tensor:
        """The weights (…, k, d), and the best intercept of each as last column."""
        return torch.cat([W, (self.level - W @ self.at).unsqueeze(-1)], -1) if self.intercept else W
