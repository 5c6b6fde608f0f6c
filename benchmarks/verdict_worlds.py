"""Worlds in which it is known what penalising is worth: held-out losses of models in closed form.

Each world draws data from a seed, fits all candidates on all folds of all repeats, and gives each held-out row's loss
and each model's expected loss on fresh rows. Luck, where there is some, is drawn for each training by itself: fold,
repeat and candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.linear_model import lasso_path

GRID = np.concatenate([[0.0], np.logspace(-3, 1.5, 16)])
NOTHING = np.concatenate([[0.0], 1e-6 * 10 ** (np.arange(1, 12) / 4)])  # penalties that change nothing

Split = tuple[np.ndarray, np.ndarray]  # row numbers: trained on, held out


@dataclass
class Table:
    """Per repeat and fold: the rows held out, each candidate's losses on them (m, C), its expected loss (C,)."""

    rows: list[list[np.ndarray]] = field(default_factory=list)
    losses: list[list[np.ndarray]] = field(default_factory=list)
    expected: list[list[np.ndarray]] = field(default_factory=list)
    trained: int = 0


Fit = Callable[[np.random.Generator, int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(draws, repeat, rows trained on, rows held out) -> losses (m, C), expected losses (C,)."""


def tabulate(rng: np.random.Generator, fit: Fit, repeats: Sequence[Sequence[Split]]) -> Table:
    table = Table(trained=len(repeats[0][0][0]))
    for number, folds in enumerate(repeats):
        found = [fit(rng, number, train, held_out) for train, held_out in folds]
        table.rows.append([held_out for _, held_out in folds])
        table.losses.append([losses for losses, _ in found])
        table.expected.append([expected for _, expected in found])
    return table


@dataclass(frozen=True)
class Squares:
    """Least squares with Gaussian features, ridge or lasso; y = x·w + noise.

    Args:
        rows, inputs: how many.
        weights: (draws, inputs) -> w.
        tail: degrees of freedom of the noise's t distribution; None: Gaussian.
        luck: standard deviation by which a training's weights miss their optimum.
        shared: the share of its variance that a fold's candidates have in common.
        kind: ``ridge``, ``lasso``, ``warm`` (gradient descent from strength to strength, and as long a control at 0),
            ``two`` (ridge, and ridge that knows the weights' sizes), ``likelihood`` (ridge; a Gaussian's negative log
            likelihood with the training rows' variance, which can be below 0).
        copies: how many families of ridge there are, with luck of their own.
    """

    rows: int
    inputs: int
    weights: Callable[[np.random.Generator, int], np.ndarray]
    tail: float | None = None
    luck: float = 0.0
    shared: float = 0.0
    kind: str = "ridge"
    grid: np.ndarray = field(default_factory=lambda: GRID)
    copies: int = 1

    def draw(self, rng: np.random.Generator) -> Fit:
        """Data, and what is fitted to them."""
        n, p = self.rows, self.inputs
        X, w = rng.normal(size=(n, p)), self.weights(rng, p)
        noise = rng.normal(size=n) if self.tail is None else rng.standard_t(self.tail, size=n)
        variance = 1.0 if self.tail is None else self.tail / (self.tail - 2)
        y = X @ w + noise

        def fit(rng: np.random.Generator, repeat: int, train: np.ndarray, held_out: np.ndarray) -> tuple:
            W = self._fit(X[train], y[train], w)  # (p, C)
            common = rng.normal(size=(p, 1)) * self.shared**0.5
            W = W + self.luck * (common + rng.normal(size=W.shape) * (1 - self.shared) ** 0.5)
            squares = (y[held_out, None] - X[held_out] @ W) ** 2
            expected = ((W - w[:, None]) ** 2).sum(0) + variance
            if self.kind != "likelihood":
                return squares, expected
            spread = ((y[train, None] - X[train] @ W) ** 2).mean(0)
            return 0.5 * (np.log(spread) + squares / spread), 0.5 * (np.log(spread) + expected / spread)

        return fit

    def _fit(self, X: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        if self.kind == "lasso":
            top = np.abs(X.T @ y).max() / len(X)
            path = lasso_path(X, y, alphas=top * np.logspace(0, -3, 16), tol=1e-3)[1][:, ::-1]
            return np.column_stack([np.linalg.lstsq(X, y, rcond=None)[0], path])
        values, vectors = np.linalg.eigh(X.T @ X / len(X))
        values, moment = np.maximum(values, 1e-10), vectors.T @ (X.T @ y / len(X))
        if self.kind == "warm":
            return vectors @ np.column_stack([_warm(values, moment, self.grid), _warm(values, moment, 0 * self.grid)])
        W = np.tile(vectors @ (moment[:, None] / (values[:, None] + self.grid)), self.copies)
        if self.kind == "two":
            scale = np.abs(w) + 0.02
            W = np.column_stack([W, scale[:, None] * self._fit_scaled(X * scale, y)])
        return W

    def _fit_scaled(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(X.T @ X / len(X))
        return vectors @ ((vectors.T @ (X.T @ y / len(X)))[:, None] / (np.maximum(values, 1e-10)[:, None] + self.grid))


def _warm(values: np.ndarray, moment: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Gradient descent of 20 steps at each strength, from where the one before it ended; in the eigenbasis (p, S)."""
    rate, w, found = 1 / (values.max() + grid.max()), np.zeros_like(values), []
    for strength in grid:
        end = moment / (values + strength)
        w = end + (1 - rate * (values + strength)) ** 20 * (w - end)
        found.append(w)
    return np.stack(found, axis=1)


@dataclass(frozen=True)
class Logistic:
    """Two classes by logistic regression with L2, log loss; ``luck`` and ``grid`` as above."""

    rows: int
    inputs: int
    spread: float
    luck: float = 0.0
    grid: np.ndarray = field(default_factory=lambda: np.concatenate([[0.0], np.logspace(-4, 0, 8)]))

    def draw(self, rng: np.random.Generator) -> Fit:
        """Data, and what is fitted to them."""
        X, w = rng.normal(size=(self.rows, self.inputs)), rng.normal(size=self.inputs) * self.spread
        y = (rng.random(self.rows) < 1 / (1 + np.exp(-X @ w))) * 1.0
        fresh = rng.normal(size=(2000, self.inputs))
        p = 1 / (1 + np.exp(-fresh @ w))[:, None]

        def fit(rng: np.random.Generator, repeat: int, train: np.ndarray, held_out: np.ndarray) -> tuple:
            W = _newton(X[train], y[train], self.grid + 1e-5)
            W = W + self.luck * rng.normal(size=W.shape)
            z, far = X[held_out] @ W, fresh @ W
            losses = np.logaddexp(0, np.where(y[held_out, None] > 0, -z, z))
            return losses, (p * np.logaddexp(0, -far) + (1 - p) * np.logaddexp(0, far)).mean(0)

        return fit


def _newton(X: np.ndarray, y: np.ndarray, grid: np.ndarray) -> np.ndarray:
    W = np.zeros((len(grid), X.shape[1]))
    eye = np.eye(X.shape[1])
    for _ in range(10):
        q = 1 / (1 + np.exp(-np.clip(W @ X.T, -30, 30)))  # (C, n)
        gradient = (q - y) @ X / len(X) + grid[:, None] * W
        curvature = (X.T[None] * (q * (1 - q) / len(X))[:, None, :]) @ X + grid[:, None, None] * eye
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        W -= step * np.minimum(1, 5 / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12))
    return W.T


@dataclass(frozen=True)
class Failing:
    """No penalty changes anything, but a training ends at twice the loss with chance 1/5.

    ``together``: all folds of a candidate in a repeat at once, which no library with initial weights of their own for
    each fold does; else each training by itself.
    """

    rows: int
    together: bool
    graded: bool = False

    def draw(self, rng: np.random.Generator) -> Fit:
        """Data, and what is fitted to them."""
        loss = rng.chisquare(1, size=self.rows)
        in_common = rng.random((100, 12)) < 0.2

        def fit(rng: np.random.Generator, repeat: int, train: np.ndarray, held_out: np.ndarray) -> tuple:
            bad = in_common[repeat] if self.together else rng.random(12) < 0.2
            size = rng.exponential(size=12) if self.graded else 1.0
            factor = (1 + bad * size) * np.exp(rng.normal(size=12) * 0.02)
            # With fresh luck all candidates are alike, however this one's trainings have ended.
            return loss[held_out, None] * factor, np.ones(12)

        return fit
