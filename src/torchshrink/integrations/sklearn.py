"""scikit-learn estimators: a penalised network or linear model, and its path of strengths, as Lasso and LassoCV are.

    from torchshrink.integrations.sklearn import PenalizedClassifierCV
    PenalizedClassifierCV(penalty="l1").fit(X, y).verdict_

F = mean loss + penalty is minimised over standardised features; the loss is cross entropy, of one logit for two
classes, or the mean squared error of the standardised targets. ``ts.convert`` says which strength another estimator's
is. On standardised columns and targets ``PenalizedRegressor("l1", strength=λ, hidden=())`` is ``Lasso(alpha=λ/2)``, and
``PenalizedClassifier("l2", strength=λ, hidden=())`` is ``LogisticRegression(C=1/(2nλ))``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import is_classifier
from torch import nn

from torchshrink.errors import CannotSolveError, InputError
from torchshrink.integrations.estimator_checks import family_at, jobs, plain, tuned, whole
from torchshrink.integrations.estimator_parts import Module, Task, make_folds
from torchshrink.integrations.estimators import Classifies, Penalized, Predicts, warn_of_repeats
from torchshrink.paths import Engine, PathResult
from torchshrink.paths.engines.optimum import why_not
from torchshrink.paths.refit import Source
from torchshrink.paths.run import PathJob, prepare
from torchshrink.paths.settings import PathSettings
from torchshrink.paths.training_spec import make_training_spec


class _Once(Penalized):
    """One training at a given strength."""

    strength: float | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (n, d), targets y (n,), and weights of the rows (n,), which count as repetitions do.

        Raises:
            ValueError: X or y is not usable (scikit-learn's words), or a setting is not (one line).
            DivergenceError: the loss became infinite or NaN.
        """
        made, strength = family_at(self.penalty, self.strength)
        polished = self._polishes
        task = self._task(X, y, sample_weight)
        with torch.inference_mode(False):
            spec = make_training_spec(
                task.build,
                (task.X, task.y),
                [made],
                task.settings,
                solvable=lambda spec: self._asks_for_the_optimum and not why_not(spec, [made]),
            )
        model, certificate = Source(spec, made).refit(strength, polished=polished)
        return self._keep(model, certificate, task.finish)


class PenalizedClassifier(Classifies, _Once):
    """A penalised network, or logistic regression, with scikit-learn's methods.

    Of two classes the model has one logit, of more an output for each; a ``module`` of your own always has those.

    Args:
        penalty: a name (``"l1"``, ``"group_lasso"``), a class of one strength, a penalty, rules, or a callable
            strength -> penalty or rules. By name, ``"elastic_net"`` is λ/2·Σ|w| + λ/2·Σw², and ``"group_lasso"``,
            ``"group_mcp"``, ``"group_scad"`` and ``"sparse_group_lasso"`` (half l1, half groups) have ``dim=1``: a
            group is what reads one input of a layer, so the first layer loses features, and each later one units of
            the layer before it. For units by what they read, give ``ts.GroupLasso(1.0, dim=0)``.
        strength: λ, in front of the penalty; None: the own one of a penalty or rules that are given, else 1e-3.
        hidden: widths of the hidden layers with ReLU between them; ``()`` for logistic regression.
        module: (inputs, outputs) -> nn.Module, in place of ``hidden``; it takes the rows as they are given, unscaled.
        epochs: passes over the rows. Linear models whose optimum can be computed (L1, L2, elastic nets, no weights)
            take none, unless ``optimizer``, ``method`` or ``polish=False`` asks for a training.
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
        feature_importances_: ‖W[:, j]‖ of the first layer, exactly 0 for a feature that is not used. Select with
            ``SelectFromModel(estimator, threshold=1e-10)``: its own default is the mean, unless ``penalty`` is the very
            word ``"l1"``.

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
        strength: float | None = None,
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
        self._take(locals())


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

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strength: float | None = None,
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
        self._take(locals())


class _Tuned(Penalized):
    """The whole path of strengths, and a training at the chosen one."""

    strengths: Any
    cv: Any
    repeats: int | None
    choose: str
    engine: Any
    n_jobs: int | None
    verbose: bool

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Cross-validate the strengths on rows X (n, d) and targets y (n,), and train on all rows at the chosen one.

        ``sample_weight`` (n,) counts as repetitions do, in the trainings and in the validation losses: rows of weight 0
        take no part, and the losses of a fold are means by weight. ``groups`` (n,) go to a splitter ``cv`` that wants
        them.
        """
        if self.choose not in ("best", "one_se"):
            raise InputError(f"choose={self.choose!r}: expected 'best' or 'one_se'")
        penalty, polished = tuned(self.penalty), self._polishes
        engine = self.engine if isinstance(self.engine, Engine) else Engine(self.engine)
        if self.n_jobs is not None:
            engine = replace(engine, jobs=jobs(self.n_jobs))
        repeats = None if self.repeats is None else whole("repeats", self.repeats)
        task = self._task(X, y, sample_weight, strengths=plain(self.strengths), engine=engine)
        folds = make_folds(self.cv, task.labels, groups, task.counted, classes=is_classifier(self))
        if repeats is None:
            repeats = 3 if isinstance(folds, int) else 1
        elif repeats > 1 and not isinstance(folds, int):
            warn_of_repeats(repeats)
        result = self._path(task, penalty, replace(task.settings, folds=folds, repeats=repeats))
        point = getattr(result, self.choose)
        model, certificate = result.refit(point, polish=polished)
        self.strengths_ = np.array([each.strength for each in result.points])
        self.strength_ = point.strength
        self.verdict_ = result.verdict
        self.path_: PathResult = replace(result, source=None)  # which holds the data
        return self._keep(model, certificate, task.finish)

    def _job(self, task: Task, penalty: Any, settings: PathSettings) -> PathJob:
        data, shown = (task.X, task.y), bool(self.verbose)
        if self._asks_for_the_optimum and settings.engine.name == "auto":
            solving = Engine("optimum", workers=settings.engine.workers, jobs=settings.engine.jobs)
            unasked = replace(settings, engine=solving, epochs=None, batch_size=None, optimizer=None)
            with contextlib.suppress(CannotSolveError):
                return prepare(task.build, data, penalty, unasked, progress=shown)
        return prepare(task.build, data, penalty, settings, progress=shown)

    def _path(self, task: Task, penalty: Any, settings: PathSettings) -> PathResult:
        shown = bool(self.verbose)
        try:
            with torch.inference_mode(False):
                job = self._job(task, penalty, settings)
        except InputError as error:
            if not str(error).startswith("folds"):
                raise
            raise InputError(self._in_these_words(str(error))) from error
        found = job.run(progress=shown)
        assert isinstance(found, PathResult)
        return found

    def _in_these_words(self, said: str) -> str:
        """What a path says of ``folds`` and codes, of ``cv`` and classes."""
        said = re.sub(r"\bfolds(?=[=\[:])", "cv", said)
        return re.sub(r"class (\d+)", lambda found: f"class {vars(self)['classes_'].tolist()[int(found[1])]!r}", said)


class PenalizedClassifierCV(Classifies, _Tuned):
    """A penalised network, or logistic regression, whose strength is chosen by cross-validation.

    As `PenalizedClassifier`, with `torchshrink.path` inside: every strength in every fold from the same initial
    weights, many of them trained as one stacked program, and a verdict on whether penalising helps at all.
    By default that is 33 strengths in 5 folds, 10 more trainings in each of two repeats, and a last one on all rows:
    186 trainings of 200 epochs, and up to a dozen that find the range. Fewer ``strengths`` and ``epochs`` save most;
    ``n_jobs=-1`` takes all processors.

    Args:
        penalty: as `PenalizedClassifier`; rules and constraints have no strength to tune.
        strengths: how many, found by rule, or the strengths themselves.
        cv: how many folds, spread over the classes, drawn at random and anew in each repeat; or what else scikit-learn
            takes for ``cv``: a splitter or pairs of row numbers, taken once.
        repeats: how often folds are drawn, for the verdict; None: 3 times where ``cv`` is a number, else once.
        choose: ``"best"``: the least validation loss; ``"one_se"``: the strongest within one standard error of it.
        engine: as in `torchshrink.path`.
        n_jobs: processes that train; −1: one for each processor; None: what ``joblib.parallel_config`` says.
        verbose: whether to show a progress bar on stderr.
        hidden, module, epochs, batch_size, lr, optimizer, on, method, polish, device, class_weight, random_state: as
            `PenalizedClassifier`.

    Attributes:
        strength_: the chosen λ.
        strengths_: all of them, ascending, 0 first.
        path_: the `PathResult`: losses, nonzero counts, the verdict's numbers, pictures and report. Of rows that have a
            weight.
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
        repeats: int | None = None,
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
        self._take(locals())


class PenalizedRegressorCV(Predicts, _Tuned):
    """A penalised network, or linear regression, whose strength is chosen by cross-validation.

    As `PenalizedClassifierCV`, for numbers: what LassoCV is to Lasso. Features are standardised by each fold's training
    rows; λ's unit in every fold is the targets' standard deviation over all rows, and the losses of ``path_`` are in
    their variance, so that 1 is about that of the mean.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = PenalizedRegressorCV("l1", strengths=4, repeats=1, hidden=(), epochs=20, random_state=0).fit(X, y)
        >>> len(model.strengths_), model.coef_.shape
        (5, (10,))
    """

    def __init__(
        self,
        penalty: Any = "l1",
        *,
        strengths: Any = 32,
        cv: Any = 5,
        repeats: int | None = None,
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
        self._take(locals())
