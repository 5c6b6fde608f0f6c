"""glmnet's conventions: coefficients of its own solver, and an independent solver that follows its manual."""

import numpy as np
from sklearn.linear_model import ElasticNet, LogisticRegression
from solving import breast_cancer, descend, diabetes, linear, logistic, strengths

from torchshrink.conversions.convert import convert

# Coefficients that its own compiled solver (4.1-8) returned for these data, at thresh = 1e-24.

GLMNET_GAUSSIAN = [  # diabetes, standardize = FALSE, alpha = 0.5, lambda = 2
    0.0, -9.161939885873323, 24.57124642697722, 14.00433564974142, -4.61248199400293,
    0.0, -10.55779550375496, 0.177818884675906, 23.96635981355184, 2.70919680386657,
]  # fmt: skip
GLMNET_BINOMIAL = [  # breast cancer, the first 10 columns, alpha = 0.5, lambda = 0.05
    -0.5197504964264699, -0.4593447589086246, -0.5255393329829915, -0.419362453843785, -0.1674843391268236,
    -0.0855602721791054, -0.4136861433066124, -0.7807599566884377, -0.0648993721602755, 0.0,
]  # fmt: skip


def test_glmnet_gaussian_divides_its_ridge_part_by_the_deviation_of_y():
    X, y = diabetes()
    conversion = convert("glmnet.gaussian", **{"lambda": 2.0, "alpha": 0.5}, y_sd=y.std())
    assert np.abs(linear(X, y, **strengths(conversion)) - GLMNET_GAUSSIAN).max() < 1e-6
    naive = convert("glmnet.gaussian", lambda_=2.0, alpha=0.5, y_sd=1.0)
    assert np.abs(linear(X, y, **strengths(naive)) - GLMNET_GAUSSIAN).max() > 1
    assert convert("glmnet.gaussian", lambda_=2.0).settings["l1"] == 4.0  # a lasso does not need y_sd


def test_glmnet_gaussian_as_its_manual_says_it_fits():
    """Scale y to variance 1, penalise by λ/sd(y), scale back: an independent solver in those steps."""
    X, y = diabetes()
    sd, strength, share = y.std(), 3.0, 0.25
    H, ones = X.T @ X / len(X), np.ones(X.shape[1])
    inner = descend(H, X.T @ (y - y.mean()) / sd / len(X), strength / sd * share * ones,
                    strength / sd * (1 - share) / 2 * ones, 0 * ones)  # fmt: skip
    conversion = convert("glmnet.gaussian", to="sklearn.ElasticNet", lambda_=strength, alpha=share, y_sd=sd)
    other = ElasticNet(**conversion.settings, tol=1e-14, max_iter=100_000).fit(X, y).coef_
    assert np.abs(sd * inner - other).max() < 1e-6


def test_glmnet_binomial():
    X, y = breast_cancer()
    conversion = convert("glmnet.binomial", lambda_=0.05, alpha=0.5)
    assert np.abs(logistic(X, y, **strengths(conversion))[0] - GLMNET_BINOMIAL).max() < 1e-6
    sklearn = convert("glmnet.binomial", to="sklearn.LogisticRegression", lambda_=0.05, alpha=0.5, rows=len(X))
    fitted = LogisticRegression(**sklearn.settings, solver="saga", tol=1e-12, max_iter=50_000).fit(X, y)
    assert np.abs(fitted.coef_[0] - GLMNET_BINOMIAL).max() < 1e-6
