"""PenalizedClassifierCV against a grid search over PenalizedClassifier, and against scikit-learn's own.

The same training rows, folds, strengths and epochs; 30 % of the rows are for the test, and nothing else looks at them.
Times are of one process on one thread, over that of PenalizedClassifierCV. A difference in log loss is a paired mean
over test rows, with 1.96 standard errors; below 0: PenalizedClassifierCV is better.
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


def rows(name: str, hidden: tuple[int, ...], epochs: int) -> list[list[str]]:
    X, y = DATA[name](return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    found, seconds, losses = [], {}, {}
    for which, estimator in estimators(hidden, epochs).items():
        start = time.process_time()
        fitted = estimator.fit(X, y)
        seconds[which] = time.process_time() - start
        probability = np.clip(fitted.predict_proba(X_test), 1e-15, 1)
        losses[which] = -np.log(probability[np.arange(len(y_test)), y_test])
        first = next(iter(losses))
        difference = losses[first] - losses[which]
        interval = f"{difference.mean():+.4f} ± {1.96 * difference.std(ddof=1) / len(difference) ** 0.5:.4f}"
        found.append(
            [
                name,
                "linear" if not hidden else f"hidden {hidden[0]}",
                which,
                chosen(fitted),
                f"{(probability.argmax(1) == y_test).mean():.3f}",
                f"{losses[which].mean():.4f}",
                "" if which == first else interval,
                f"{seconds[which] / seconds[first]:.1f}",
            ]
        )
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40, help="of the network; linear models take 5 times as many")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # MLPClassifier's, that epochs are over
    header = ["data", "model", "estimator", "chosen", "accuracy", "log loss", "ours − theirs", "time"]
    lines = [
        row for name in DATA for hidden in ((), (32,)) for row in rows(name, hidden, epochs if hidden else 5 * epochs)
    ]
    print(table("Estimators", header, lines))


if __name__ == "__main__":
    main()
