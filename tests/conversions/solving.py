"""Real data, and solvers of torchshrink's objective that know nothing of any tool.

Coordinate descent, Newton steps and L-BFGS in float64 on F = mean loss + l1·Σ|w| + l2·Σw² + group·Σ√p_g·‖w_g‖, written
from that line and nothing else.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_linnerud
from torch import Tensor, nn

from torchshrink.conversions.convert import Conversion

Array = NDArray[np.float64]


def standardised(X: Array) -> Array:
    return (X - X.mean(axis=0)) / X.std(axis=0)


def diabetes() -> tuple[Array, Array]:
    X, y = load_diabetes(return_X_y=True)
    return standardised(X), y


def linnerud() -> tuple[Array, Array]:
    X, Y = load_linnerud(return_X_y=True)
    return standardised(X), Y  # (20, 3) and (20, 3): three targets


def breast_cancer() -> tuple[Array, Array]:
    X, y = load_breast_cancer(return_X_y=True)
    return standardised(X)[:, :10], y.astype(float)


def descend(H: Array, g: Array, l1: Array, l2: Array, w: Array) -> Array:
    """argmin ½wᵀHw − gᵀw + Σ l1·|w| + Σ l2·w², coordinate by coordinate."""
    w = w.copy()
    for _ in range(20_000):
        before = w.copy()
        for j in range(len(w)):
            z = g[j] - H[j] @ w + H[j, j] * w[j]
            w[j] = np.sign(z) * max(abs(z) - l1[j], 0.0) / (H[j, j] + 2 * l2[j])
        if np.abs(w - before).max() <= 1e-13 * max(1.0, np.abs(w).max()):
            break
    return w


def linear(X: Array, Y: Array, *, l1: float = 0.0, l2: float = 0.0) -> Array:
    """The minimiser over W of nn.MSELoss + l1·Σ|W| + l2·ΣW², biases free. (k, d), or (d,) for one target."""
    columns = Y.reshape(len(Y), -1)  # (n, k)
    H = 2 * X.T @ X / columns.size
    G = 2 * X.T @ (columns - columns.mean(axis=0)) / columns.size  # (d, k)
    ones = np.ones(X.shape[1])
    W = np.stack([descend(H, g, l1 * ones, l2 * ones, 0 * ones) for g in G.T])
    return W[0] if Y.ndim == 1 else W


def grouped(X: Array, Y: Array, *, group: float) -> Array:
    """The minimiser over W (k, d) of nn.MSELoss + group·Σ_j √k·‖W[:, j]‖, biases free."""
    n, k = Y.shape
    R, W = Y - Y.mean(axis=0), np.zeros((k, X.shape[1]))
    for _ in range(5_000):
        before = W.copy()
        for j, x in enumerate(X.T):
            c = x @ (R + np.outer(x, W[:, j]))  # (k,): the loss along this column is ((x·x)‖w‖² − 2c·w)/(nk)
            new = c / (x @ x) * max(0.0, 1 - group * math.sqrt(k) * n * k / (2 * np.linalg.norm(c)))
            R -= np.outer(x, new - W[:, j])
            W[:, j] = new
        if np.abs(W - before).max() <= 1e-14:
            break
    return W


def logistic(X: Array, y: Array, *, l1: float = 0.0, l2: float = 0.0, bias_too: bool = False) -> tuple[Array, float]:
    """The minimiser of mean log loss of one logit + l1·Σ|w| + l2·Σw², the bias free or penalised as well."""
    A = np.column_stack([X, np.ones(len(X))])
    which = np.append(np.ones(X.shape[1]), float(bias_too))
    w = np.zeros(A.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-A @ w))
        H = A.T @ (A * (p * (1 - p))[:, None]) / len(A)
        new = descend(H, H @ w - A.T @ (p - y) / len(A), l1 * which, l2 * which, w)
        if np.abs(new - w).max() < 1e-12:
            break
        w = new
    return w[:-1], float(w[-1])


def softmax(X: Array, y: Array, *, classes: int, l1: float = 0.0, l2: float = 0.0) -> Array:
    """The minimiser over W (classes, d) of nn.CrossEntropyLoss + l2·ΣW², biases free."""
    assert l1 == 0.0
    A, targets = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))
    W = torch.zeros(classes, X.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [W, b], max_iter=2_000, tolerance_grad=1e-11, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(A @ W.T + b, targets) + l2 * W.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return W.detach().numpy()


def strengths(conversion: Conversion) -> dict[str, float]:
    """What torchshrink has to be given, less what is 0."""
    return {name: value for name, value in conversion.settings.items() if value}
