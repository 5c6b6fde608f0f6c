"""scikit-learn estimators: a penalised network or linear model, and its path of strengths, as Lasso and LassoCV are.

    from torchshrink.integrations.sklearn import PenalizedClassifierCV
    PenalizedClassifierCV(penalty="l1").fit(X, y).verdict_

F = mean loss + penalty is minimised over standardised features; the loss is cross entropy, or the mean squared error of
the standardised targets. So ``PenalizedRegressor("l1", strength=λ, hidden=())`` is scikit-learn's ``Lasso(alpha=λ/2)``
on standardised columns and a standardised target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.model_selection import StratifiedKFold, check_cv
from torch import nn

from torchshrink.errors import InputError
from torchshrink.integrations.estimator_parts import Module, Task
from torchshrink.integrations.estimators import Classifies, Penalized, Predicts
from torchshrink.paths import Engine, PathResult, path
from torchshrink.paths.penalty_family import PenaltyFamily, family
from torchshrink.paths.refit import Source
from torchshrink.paths.training_spec import make_training_spec
from torchshrink.penalties import BUILTIN, ElasticNet, Penalty, SparseGroupLasso
from torchshrink.support.text import suggestion


def _template(penalty: object) -> Any:
    """A class of one strength, a template, or a callable, from what the user gave."""
    if not isinstance(penalty, str):
        return penalty
    name = penalty.lower()
    two = {"elastic_net": ElasticNet(0.5, 0.5), "sparse_group_lasso": SparseGroupLasso(0.5, 0.5, dim=1)}
    if name in two:
        return two[name]
    if name not in BUILTIN:
        raise InputError(
            f"penalty={penalty!r}: expected one of {', '.join(BUILTIN)}, or a penalty{suggestion(penalty, BUILTIN)}"
        )
    return BUILTIN[name]


class _Once(Penalized):
    """One training at a given strength."""

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strength: float | None = 1e-3,
        hidden: int | Sequence[int] = (64, 64),
        module: Module | None = None,
        epochs: int = 200,
        batch_size: int | str = "auto",
        lr: float = 1e-2,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        on: Any = None,
        method: str = "auto",
        polish: bool | str = "auto",
        device: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.strength = strength
        self.hidden = hidden
        self.module = module
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.on = on
        self.method = method
        self.polish = polish
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (n, d), targets y (n,), and weights of the rows (n,), which count as repetitions do.

        Raises:
            ValueError: X or y is not usable (scikit-learn's words), or a setting is not (one line).
            DivergenceError: the loss became infinite or NaN.
        """
        task = self._task(X, y, sample_weight)
        made, strength = self._family()
        with torch.inference_mode(False):
            spec = make_training_spec(task.build, (task.X, task.y), [made], task.settings)
        polished = self._linear if self.polish == "auto" else bool(self.polish)
        model, certificate = Source(spec, made).refit(strength, polished=polished)
        return self._keep(model, certificate, task.finish)

    def _family(self) -> tuple[PenaltyFamily, float]:
        template = _template(self.penalty)
        if isinstance(template, Penalty) and (template.constraint or self.strength is None):
            return PenaltyFamily(type(template).__name__, lambda strength: template), 1.0
        if self.strength is None:
            raise InputError(
                f"strength=None with penalty={self.penalty!r}: a number ≥ 0 expected, or a penalty that has one"
            )
        return family(template), self.strength


class PenalizedClassifier(Classifies, _Once):
    """A penalised network, or logistic regression, with scikit-learn's methods.

    Args:
        penalty: a name (``"l1"``, ``"group_lasso"``), a class of one strength, a penalty as a template whose strength
            is replaced, or a callable strength -> penalty or rules.
        strength: λ, in front of the penalty; None: the template's own.
        hidden: widths of the hidden layers with ReLU between them; ``()`` for logistic regression.
        module: (inputs, outputs) -> nn.Module, in place of ``hidden``; it takes the rows as they are given, unscaled.
        epochs: passes over the rows.
        batch_size: rows per step; ``"auto"``: all where they are 256 or fewer, else 64.
        lr: the learning rate of Adam.
        optimizer: parameters -> optimizer, in place of Adam.
        on: which parameters: ``ts.WEIGHTS`` (None) or ``ts.ALL``.
        method: how the penalty acts, as in `Regularizer.attach`.
        polish: whether to end with `torchshrink.polish`, at a stationary point; ``"auto"``: of linear models.
        device: where to train, such as ``"cuda"``.
        class_weight: a mapping class → weight, or ``"balanced"``.
        random_state: decides initial weights and batches.

    Attributes:
        module_: the trained network, in evaluation mode; takes raw rows.
        certificate_: how far from stationarity of F = mean loss + penalty it is.
        classes_, n_features_in_, feature_names_in_: as scikit-learn's.
        coef_, intercept_: of a linear model, in raw features.
        feature_importances_: ‖W[:, j]‖ of the first layer, 0 for a feature that is not used.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = PenalizedClassifier("l1", strength=0.05, hidden=(), epochs=50, random_state=0).fit(X, y)
        >>> model.score(X, y) > 0.9, int((model.feature_importances_ > 0).sum())
        (True, 3)
    """

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strength: float | None = 1e-3,
        hidden: int | Sequence[int] = (64, 64),
        module: Module | None = None,
        epochs: int = 200,
        batch_size: int | str = "auto",
        lr: float = 1e-2,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        on: Any = None,
        method: str = "auto",
        polish: bool | str = "auto",
        device: str | None = None,
        class_weight: Any = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            penalty,
            strength=strength,
            hidden=hidden,
            module=module,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            on=on,
            method=method,
            polish=polish,
            device=device,
            random_state=random_state,
        )
        self.class_weight = class_weight


class PenalizedRegressor(Predicts, _Once):
    """A penalised network, or linear regression, with scikit-learn's methods: as `PenalizedClassifier`, for numbers.

    The targets are standardised, and F = mean((f − z)²) + penalty in their standard deviation; predictions are in the
    targets' own units. ``PenalizedRegressor("l1", strength=λ, hidden=())`` is ``Lasso(alpha=λ/2)`` on standardised
    data. y may have several columns (n, k).

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> lasso = PenalizedRegressor("l1", strength=0.2, hidden=(), epochs=50, random_state=0).fit(X, y)
        >>> int((lasso.coef_ != 0).sum()), lasso.certificate_.gap < 1e-6
        (4, True)
    """


class _Tuned(Penalized):
    """The whole path of strengths, and a training at the chosen one."""

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strengths: Any = 32,
        cv: Any = 5,
        repeats: int = 3,
        choose: str = "best",
        hidden: int | Sequence[int] = (64, 64),
        module: Module | None = None,
        epochs: int = 200,
        batch_size: int | str = "auto",
        lr: float = 1e-2,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        on: Any = None,
        method: str = "auto",
        polish: bool | str = "auto",
        engine: Any = "auto",
        n_jobs: int | None = None,
        device: str | None = None,
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.strengths = strengths
        self.cv = cv
        self.repeats = repeats
        self.choose = choose
        self.hidden = hidden
        self.module = module
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.on = on
        self.method = method
        self.polish = polish
        self.engine = engine
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Cross-validate the strengths on rows X (n, d) and targets y (n,), and train on all rows at the chosen one.

        ``sample_weight`` (n,) counts as repetitions do, in the trainings and in the validation losses; ``groups`` (n,)
        go to a splitter ``cv`` that wants them.
        """
        if self.choose not in ("best", "one_se"):
            raise InputError(f"choose={self.choose!r}: expected 'best' or 'one_se'")
        engine = replace(self.engine if isinstance(self.engine, Engine) else Engine(self.engine), jobs=self.n_jobs)
        task = self._task(X, y, sample_weight, strengths=self.strengths, repeats=self.repeats, engine=engine)
        folds = self._folds(task, groups)
        settings = {each: getattr(task.settings, each) for each in _SETTINGS}
        template = _template(self.penalty)
        result = path(task.build, (task.X, task.y), template, folds=folds, progress=bool(self.verbose), **settings)
        point = getattr(result, self.choose)
        polished = self._linear if self.polish == "auto" else bool(self.polish)
        model, certificate = result.refit(point, polish=polished)
        self.strengths_ = np.array([each.strength for each in result.points])
        self.strength_ = point.strength
        self.verdict_ = result.verdict
        self.path_: PathResult = replace(result, source=None)  # which holds the data
        return self._keep(model, certificate, task.finish)

    def _folds(self, task: Task, groups: Any) -> Any:
        if isinstance(self.cv, int) and not task.build.weighted and task.y.ndim == 1:
            return self.cv  # drawn anew in each repeat
        classes = isinstance(self, ClassifierMixin)
        cv: Any = self.cv
        if isinstance(cv, int) and classes:
            cv = StratifiedKFold(cv, shuffle=True, random_state=task.settings.seed)
        return list(check_cv(cv, task.codes, classifier=classes).split(np.empty(len(task.codes)), task.codes, groups))


_SETTINGS = (
    *("strengths", "repeats", "epochs", "batch_size", "loss", "optimizer", "seed", "device", "on", "method"),
    "engine",
)


class PenalizedClassifierCV(Classifies, _Tuned):
    """A penalised network, or logistic regression, whose strength is chosen by cross-validation.

    As `PenalizedClassifier`, with `torchshrink.path` inside: every strength in every fold from the same initial
    weights, many of them trained as one stacked program, and a verdict on whether penalising helps at all.

    Args:
        penalty: as `PenalizedClassifier`; constraints have no strength to tune.
        strengths: how many, found by rule, or the strengths themselves.
        cv: how many folds, or what scikit-learn takes for ``cv``. Numbers are drawn anew in each repeat.
        repeats: how often the folds are drawn, for the verdict; with a given ``cv``, or weights, once.
        choose: ``"best"``: the least validation loss; ``"one_se"``: the strongest within one standard error of it.
        engine: as in `torchshrink.path`.
        n_jobs: processes that train.
        verbose: whether to show a progress bar on stderr.
        hidden, module, epochs, batch_size, lr, optimizer, on, method, polish, device, class_weight, random_state: as
            `PenalizedClassifier`.

    Attributes:
        strength_: the chosen λ.
        strengths_: all of them, ascending, 0 first.
        path_: the `PathResult`: losses, nonzero counts, the verdict's numbers, pictures and report.
        verdict_: whether penalising helps, by how much, how sure.
        module_, certificate_, classes_, coef_, …: of the training on all rows at ``strength_``.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = PenalizedClassifierCV("l1", strengths=4, repeats=1, hidden=(), epochs=20, random_state=0).fit(X, y)
        >>> len(model.strengths_), model.strength_ in model.strengths_
        (5, True)
    """

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strengths: Any = 32,
        cv: Any = 5,
        repeats: int = 3,
        choose: str = "best",
        hidden: int | Sequence[int] = (64, 64),
        module: Module | None = None,
        epochs: int = 200,
        batch_size: int | str = "auto",
        lr: float = 1e-2,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        on: Any = None,
        method: str = "auto",
        polish: bool | str = "auto",
        engine: Any = "auto",
        n_jobs: int | None = None,
        device: str | None = None,
        verbose: bool = False,
        class_weight: Any = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            penalty,
            strengths=strengths,
            cv=cv,
            repeats=repeats,
            choose=choose,
            hidden=hidden,
            module=module,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            on=on,
            method=method,
            polish=polish,
            engine=engine,
            n_jobs=n_jobs,
            device=device,
            verbose=verbose,
            random_state=random_state,
        )
        self.class_weight = class_weight


class PenalizedRegressorCV(Predicts, _Tuned):
    """A penalised network, or linear regression, whose strength is chosen by cross-validation.

    As `PenalizedClassifierCV`, for numbers: what LassoCV is to Lasso.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = PenalizedRegressorCV("l1", strengths=4, repeats=1, hidden=(), epochs=20, random_state=0).fit(X, y)
        >>> len(model.strengths_), model.coef_.shape
        (5, (10,))
    """
