"""PenalizedClassifierCV against a grid search over PenalizedClassifier, and against scikit-learn's own.

The same training rows, folds, strengths and epochs; 30 % of the rows are for the test, and nothing else looks at them.
Times are processor seconds on one thread, over those of PenalizedClassifierCV. Accuracy and log loss are means over the
test rows, differences paired means over them, in brackets the middle 95 % over bootstrap draws of the rows: of these
fitted models, not of trainings. Ours is better where the difference in accuracy is above 0, and in log loss below.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from timing import table
from torchshrink.integrations.sklearn import PenalizedClassifier, PenalizedClassifierCV

DATA = {"breast cancer": load_breast_cancer, "digits": load_digits}
STRENGTHS = [0.0, *np.geomspace(1e-4, 3e-2, 15).round(6).tolist()]
SCORE = "neg_log_loss"
DRAWS = 2000


def estimators(hidden: tuple[int, ...], epochs: int) -> dict[str, BaseEstimator]:
    """By name; the first is what the others are compared with."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    settings = {"hidden": hidden, "epochs": epochs, "batch_size": 64, "polish": False, "random_state": 0}
    made: dict[str, BaseEstimator] = {
        "PenalizedClassifierCV": PenalizedClassifierCV("l1", strengths=STRENGTHS, cv=folds, **settings),
        "GridSearchCV(PenalizedClassifier)": GridSearchCV(
            PenalizedClassifier("l1", **settings), {"strength": STRENGTHS}, cv=folds, scoring=SCORE
        ),
    }
    if hidden:
        network = MLPClassifier(hidden, batch_size=64, learning_rate_init=1e-2, max_iter=epochs, random_state=0)
        alphas = {"mlpclassifier__alpha": [0.0, *np.geomspace(1e-4, 10, 15).tolist()]}
        made["GridSearchCV(MLPClassifier)"] = GridSearchCV(
            make_pipeline(StandardScaler(), network), alphas, cv=folds, scoring=SCORE
        )
    else:
        logistic = LogisticRegressionCV(Cs=16, cv=folds, l1_ratios=(1.0,), solver="saga", scoring=SCORE, max_iter=2000)
        made["LogisticRegressionCV"] = make_pipeline(StandardScaler(), logistic)
    return made


def chosen(fitted: BaseEstimator) -> str:
    if isinstance(fitted, PenalizedClassifierCV):
        return f"{fitted.strength_:g}"
    if isinstance(fitted, GridSearchCV):
        return f"{next(iter(fitted.best_params_.values())):.3g}"
    return f"C={float(np.ravel(fitted[-1].C_)[0]):.3g}"


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the means of test rows drawn again, with replacement."""
    draws = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def told(values: np.ndarray, digits: str) -> str:
    low, high = interval(values)
    return f"{values.mean():{digits}} [{low:{digits}}, {high:{digits}}]"


def rows(name: str, hidden: tuple[int, ...], epochs: int) -> list[list[str]]:
    X, y = DATA[name](return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    found, seconds, losses, hits = [], {}, {}, {}
    for which, estimator in estimators(hidden, epochs).items():
        start = time.process_time()
        fitted = estimator.fit(X, y)
        seconds[which] = time.process_time() - start
        probability = np.clip(fitted.predict_proba(X_test), 1e-15, 1)
        losses[which] = -np.log(probability[np.arange(len(y_test)), y_test])
        hits[which] = (probability.argmax(1) == y_test).astype(float)
        first = next(iter(losses))
        against = which != first
        found.append(
            [
                name,
                "linear" if not hidden else f"hidden {hidden[0]}",
                which,
                chosen(fitted),
                told(hits[which], ".3f"),
                told(hits[first] - hits[which], "+.3f") if against else "",
                told(losses[which], ".4f"),
                told(losses[first] - losses[which], "+.4f") if against else "",
                f"{seconds[which]:.0f} s" if not against else f"{seconds[which] / seconds[first]:.1f} ×",
            ]
        )
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40, help="of the network; linear models take 5 times as many")
    parser.add_argument("--data", choices=DATA, nargs="*", default=list(DATA), help="by default all")
    parser.add_argument("--hidden", type=int, nargs="*", default=[0, 32], help="widths; 0: linear")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # MLPClassifier's, that epochs are over
    header = ["data", "model", "estimator", "chosen", "accuracy", "ours − theirs", "log loss", "ours − theirs", "time"]
    lines = [
        row
        for name in given.data
        for width in given.hidden
        for row in rows(name, (width,) if width else (), given.epochs if width else 5 * given.epochs)
    ]
    print(table("Estimators", header, lines))


if __name__ == "__main__":
    main()
