"""scikit-learn estimators: a penalised network or linear model, and its path of strengths, as Lasso and LassoCV are.

    from torchshrink.integrations.sklearn import PenalizedClassifierCV
    PenalizedClassifierCV(penalty="l1").fit(X, y).verdict_

F = mean loss + penalty is minimised over standardised features; the loss is cross entropy, or the mean squared error of
the standardised targets. So ``PenalizedRegressor("l1", strength=λ, hidden=())`` is scikit-learn's ``Lasso(alpha=λ/2)``
on standardised columns and a standardised target.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from torchshrink.errors import InputError
from torchshrink.integrations.sample_weights import WeightedLoss, WeightedStandardise
from torchshrink.models import mlp
from torchshrink.paths import Engine, PathResult, path
from torchshrink.paths.penalty_family import PenaltyFamily, family
from torchshrink.paths.refit import Source
from torchshrink.paths.settings import PathSettings
from torchshrink.paths.training_spec import make_training_spec
from torchshrink.penalties import BUILTIN, Penalty
from torchshrink.regularizer.selection import WEIGHTS
from torchshrink.support.text import suggestion

Module = Callable[[int, int], nn.Module]
_AT_ONCE = 4096  # rows of a prediction's batch
_FULL = 256  # up to so many rows a batch is all of them, if nothing else is asked for


@dataclass(frozen=True)
class _Build:
    """() -> a new model of so many inputs and outputs; a class, so that it can be pickled."""

    inputs: int
    outputs: int
    hidden: tuple[int, ...]
    module: Module | None
    weighted: bool
    dtype: torch.dtype

    def __call__(self) -> nn.Module:
        if self.module is not None:
            made = self.module(self.inputs, self.outputs)
            return nn.Sequential(OrderedDict(rows=_WithoutWeight(), module=made)) if self.weighted else made
        made = mlp(self.inputs, self.outputs, hidden=self.hidden)
        if self.weighted:
            made.preprocess = WeightedStandardise(self.inputs)
        return made.to(self.dtype)


class _WithoutWeight(nn.Module):
    """Rows (…, d + 1) without their weight, (…, d)."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows[..., :-1]


class _Unstandardise(nn.Module):
    """Outputs (…, k) in the targets' own units: mean + scale · f; (…) where there was one column of none."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, flat: bool) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.flat = flat

    def forward(self, output: Tensor) -> Tensor:
        wide = self.mean + self.scale * output
        return wide.squeeze(-1) if self.flat else wide


@dataclass(frozen=True)
class _Task:
    """What is trained on: rows and targets as a path takes them, and how to undo what was done to them."""

    X: Tensor
    y: Tensor
    codes: np.ndarray
    build: _Build
    loss: nn.Module | None
    settings: PathSettings
    finish: Callable[[nn.Module], nn.Module]


class _Penalized(BaseEstimator):
    """What the four estimators share: checking, standardising, training, predicting."""

    # --- what a subclass says ---

    def _targets(self, y: Any, weights: np.ndarray) -> tuple[np.ndarray, int, Callable[[nn.Module], nn.Module]]:
        """Targets as numbers (n, k), or codes (n,); how many outputs; and the model's way back to the targets."""
        raise NotImplementedError

    def _loss(self, mean_weight: float) -> nn.Module:
        raise NotImplementedError

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        raise NotImplementedError

    # --- fitting ---

    def _task(self, X: Any, y: Any, sample_weight: Any, **more: Any) -> _Task:
        X, y, weights = self._checked(X, y, sample_weight)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        weighted = weights is not None
        if weighted:
            if not weights.sum() > 0 or (weights < 0).any():
                raise ValueError("sample_weight: negative or all 0 given, weights ≥ 0 with a sum above 0 expected")
            if (weights > 0).sum() < 2:
                raise ValueError("Found array with 1 sample whose weight is not 0, at least 2 expected")
        targets, outputs, finish = self._targets(y, np.ones(len(y)) if weights is None else weights)
        rows, wanted = torch.from_numpy(np.array(X)), torch.from_numpy(targets)
        if wanted.is_floating_point():
            wanted = wanted.to(rows.dtype)
        if weights is not None:
            column = torch.from_numpy(weights).to(rows.dtype).unsqueeze(1)
            rows = torch.cat([rows, column], 1)
            wanted = torch.cat([wanted.reshape(len(wanted), -1).to(rows.dtype), column], 1)
        build = _Build(X.shape[1], outputs, self._widths(), self.module, weighted, rows.dtype)
        loss = self._loss(float(weights.mean())) if weights is not None else None
        optimizer = self.optimizer or functools.partial(torch.optim.Adam, lr=self.lr, fused=True)
        settings = PathSettings(
            epochs=self.epochs,
            batch_size=self._batch_size(len(rows)),
            loss=loss,
            optimizer=optimizer,
            seed=seed,
            device=self.device,
            on=WEIGHTS if self.on is None else self.on,
            method=self.method,
            **more,
        )
        return _Task(rows, wanted, y, build, loss, settings, finish)

    def _widths(self) -> tuple[int, ...]:
        hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        return hidden

    @property
    def _linear(self) -> bool:
        return self.module is None and not self._widths()

    def _batch_size(self, rows: int) -> int:
        if self.batch_size == "auto":
            return rows if rows <= _FULL else 64
        return self.batch_size

    def _keep(self, model: nn.Module, certificate: Any, finish: Callable[[nn.Module], nn.Module]) -> Self:
        if isinstance(model, nn.Sequential) and isinstance(model[0], WeightedStandardise):
            model.preprocess = model.preprocess.plain()
        elif isinstance(model, nn.Sequential) and isinstance(model[0], _WithoutWeight):
            model = model.module
        self.module_ = finish(model).eval()
        self.certificate_ = certificate
        return self

    # --- predicting ---

    @torch.no_grad()
    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        first = next(self.module_.parameters())
        rows = torch.from_numpy(np.array(X))
        if self.module is not None:
            rows = rows.to(first.dtype)
        parts = [self.module_(part.to(first.device)).cpu() for part in rows.split(_AT_ONCE)]
        return torch.cat(parts).numpy()

    # --- reading ---

    @property
    def _first_weight(self) -> Tensor:
        """The weights (out, d) that read the standardised features."""
        check_is_fitted(self)
        if self.module is not None:
            raise AttributeError("of a module of your own it is not known how it reads the features: see module_")
        return next(m for m in self.module_.modules() if isinstance(m, nn.Linear)).weight.detach()

    @property
    def feature_importances_(self) -> np.ndarray:
        """‖W[:, j]‖₂ of the first layer's weights of each standardised feature (d,); 0: it is not used."""
        return self._first_weight.norm(dim=0).cpu().numpy()

    @property
    def _linear_map(self) -> tuple[np.ndarray, np.ndarray]:
        """The slopes (k, d) and intercepts (k,) of a linear model, in the raw features."""
        if not self._linear:
            raise AttributeError(f"coef_ and intercept_ are of linear models (hidden=()); hidden={self.hidden!r} here")
        weight = self._first_weight.double()
        output = next(m for m in self.module_.modules() if isinstance(m, nn.Linear))
        preprocess = self.module_.get_submodule(self._core + "preprocess")
        slopes = weight / preprocess.scale
        intercepts = output.bias.detach().double() - slopes @ preprocess.mean
        return slopes.cpu().numpy(), intercepts.cpu().numpy()

    _core = ""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


_DTYPES = (np.float64, np.float32)


class _Classifies(ClassifierMixin, _Penalized):
    """The part of classifiers."""

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        X, y = validate_data(self, X, y, dtype=_DTYPES, ensure_min_samples=2)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if self.class_weight is not None:
            weights = (1.0 if weights is None else weights) * compute_sample_weight(self.class_weight, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class")
        return X, codes.astype(np.int64), weights

    def _targets(self, y: Any, weights: np.ndarray) -> tuple[np.ndarray, int, Callable[[nn.Module], nn.Module]]:
        if len(np.unique(y[weights > 0])) < 2:
            raise ValueError("Of the rows whose weight is not 0, all are of one class: at least two classes expected")
        return y, len(self.classes_), lambda model: model

    def _loss(self, mean_weight: float) -> nn.Module:
        return WeightedLoss(True, mean_weight)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each of ``classes_`` for rows X (n, d): (n, classes)."""
        return torch.softmax(torch.from_numpy(self._outputs(X)), 1).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`, from the model's own outputs."""
        return torch.log_softmax(torch.from_numpy(self._outputs(X)), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row X (n, d)."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(1)]

    @property
    def coef_(self) -> np.ndarray:
        """Slopes of a linear model's outputs (classes, d), in raw features; (1, d) of their difference for two."""
        slopes, _ = self._linear_map
        return slopes[1:] - slopes[:1] if len(slopes) == 2 else slopes

    @property
    def intercept_(self) -> np.ndarray:
        """Intercepts that belong to ``coef_``."""
        _, intercepts = self._linear_map
        return intercepts[1:] - intercepts[:1] if len(intercepts) == 2 else intercepts


class _Predicts(RegressorMixin, _Penalized):
    """The part of regressors."""

    _core = "network."

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        X, y = validate_data(self, X, y, dtype=_DTYPES, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        return X, y, weights

    def _targets(self, y: Any, weights: np.ndarray) -> tuple[np.ndarray, int, Callable[[nn.Module], nn.Module]]:
        wide = y.reshape(len(y), -1).astype(np.float64)
        mean = np.average(wide, axis=0, weights=weights)
        scale = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=weights))
        counted = wide[weights > 0]
        constant = (counted == counted[:1]).all(0)
        mean, scale = np.where(constant, counted[0], mean), np.where(constant | (scale == 0), 1.0, scale)

        def finish(model: nn.Module) -> nn.Module:
            like = next(model.parameters())
            ends = [torch.from_numpy(np.array(each)).to(like) for each in (mean, scale)]
            return nn.Sequential(OrderedDict(network=model, targets=_Unstandardise(*ends, flat=y.ndim == 1)))

        return (wide - mean) / scale, wide.shape[1], finish

    def _loss(self, mean_weight: float) -> nn.Module:
        return WeightedLoss(False, mean_weight)

    def predict(self, X: Any) -> np.ndarray:
        """The targets of rows X (n, d): (n,), or (n, k) where y had k columns."""
        return self._outputs(X)

    @property
    def coef_(self) -> np.ndarray:
        """Slopes of a linear model in raw units: (d,), or (k, d) for k columns of y."""
        slopes = self._linear_map[0] * self.module_.targets.scale.cpu().numpy()[:, None]
        return slopes[0] if self.module_.targets.flat else slopes

    @property
    def intercept_(self) -> np.ndarray | float:
        """Intercepts that belong to ``coef_``."""
        targets = self.module_.targets
        both = self._linear_map[1] * targets.scale.cpu().numpy() + targets.mean.cpu().numpy()
        return float(both[0]) if targets.flat else both

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _template(penalty: object) -> Any:
    """A class of one strength, a template, or a callable, from what the user gave."""
    if not isinstance(penalty, str):
        return penalty
    name = penalty.lower()
    if name == "elastic_net":
        return BUILTIN[name](0.5, 0.5)
    if name == "sparse_group_lasso":
        return BUILTIN[name](0.5, 0.5, dim=1)
    if name not in BUILTIN:
        raise InputError(
            f"penalty={penalty!r}: expected one of {', '.join(BUILTIN)}, or a penalty{suggestion(penalty, BUILTIN)}"
        )
    return BUILTIN[name]


class _Once(_Penalized):
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


class PenalizedClassifier(_Classifies, _Once):
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


class PenalizedRegressor(_Predicts, _Once):
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


class _Tuned(_Penalized):
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
        engine: str = "auto",
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

    def _folds(self, task: _Task, groups: Any) -> Any:
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


class PenalizedClassifierCV(_Classifies, _Tuned):
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
        engine: str = "auto",
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


class PenalizedRegressorCV(_Predicts, _Tuned):
    """A penalised network, or linear regression, whose strength is chosen by cross-validation.

    As `PenalizedClassifierCV`, for numbers: what LassoCV is to Lasso.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = PenalizedRegressorCV("l1", strengths=4, repeats=1, hidden=(), epochs=20, random_state=0).fit(X, y)
        >>> len(model.strengths_), model.coef_.shape
        (5, (10,))
    """
