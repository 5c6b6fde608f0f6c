"""What the four scikit-learn estimators share: checking, standardising, predicting, reading."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from torchshrink.integrations.estimator_checks import check_module, polishes, real, whole, widths
from torchshrink.integrations.estimator_parts import (
    Array,
    Build,
    Module,
    Standardised,
    Targets,
    Task,
    Unstandardise,
    WithoutWeight,
    make_tensors,
)
from torchshrink.integrations.sample_weights import WeightedStandardise
from torchshrink.models import Preprocess
from torchshrink.paths.settings import PathSettings
from torchshrink.regularizer.selection import WEIGHTS

_AT_ONCE = 4096  # rows of a prediction's batch
_FULL = 256  # up to so many rows a batch is all of them, if nothing else is asked for
_DTYPES = (np.float64, np.float32)
M = TypeVar("M", bound=nn.Module)


class Penalized(BaseEstimator, ABC):
    """What the four estimators share: checking, standardising, training, predicting."""

    # What `__init__` keeps as it is given: scikit-learn sets these at any time, so they are checked in `fit`.
    penalty: Any
    hidden: int | Sequence[int]
    module: Module | None
    epochs: int
    batch_size: int | str
    lr: float
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None
    on: Any
    method: str
    polish: bool | str
    device: str | None
    random_state: Any

    def _take(self, given: dict[str, Any]) -> None:
        """Keep what `__init__` was given."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    # --- what a subclass says ---

    @abstractmethod
    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        """X (n, d), y as numbers or codes, and the rows' weights (n,) where they have some."""

    @abstractmethod
    def _targets(self, y: Array, weights: Array) -> Targets:
        """What is trained on, of the rows that count."""

    # --- fitting ---

    def _task(self, X: Any, y: Any, sample_weight: Any, **more: Any) -> Task:
        check_module(self.module)
        hidden = () if self.module is not None else widths(self.hidden)
        rate = real("lr", self.lr, positive=True)
        X, y, weights = self._checked(X, y, sample_weight)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        labels, counted = y, np.ones(len(y), bool)
        if weights is not None:
            if not weights.sum() > 0 or (weights < 0).any():
                raise ValueError("sample_weight: negative or all 0 given, weights ≥ 0 with a sum above 0 expected")
            counted = weights > 0
            if counted.sum() < 2:
                raise ValueError("Found array with 1 sample whose weight is not 0, at least 2 expected")
            X, y, weights = X[counted], y[counted], weights[counted]
        targets = self._targets(y, np.ones(len(y)) if weights is None else weights)
        if weights is None and targets.constant:
            weights = np.ones(len(y))  # a path of unweighted rows takes constant targets for a mistake
        rows, wanted, loss = make_tensors(X, targets, weights)
        settings = PathSettings(
            epochs=whole("epochs", self.epochs),
            batch_size=self._batch_size(len(rows)),
            loss=loss,
            optimizer=self.optimizer or functools.partial(torch.optim.Adam, lr=rate, fused=True),
            seed=seed,
            device=self.device,
            on=WEIGHTS if self.on is None else self.on,
            method=self.method,  # type: ignore[arg-type]  # it is checked there
            **more,
        )
        build = Build(X.shape[1], targets.outputs, hidden, self.module, weights is not None, rows.dtype)
        return Task(rows, wanted, labels, counted, build, settings, targets.finish)

    @property
    def _linear(self) -> bool:
        return self.module is None and not widths(self.hidden)

    @property
    def _asks_for_the_optimum(self) -> bool:
        """Whether of a model that can be solved no training is wanted, but where it leads to."""
        return self._linear and self._polishes and self.optimizer is None and self.method == "auto"

    @property
    def _polishes(self) -> bool:
        return polishes(self.polish, linear=self._linear)

    def _batch_size(self, rows: int) -> int:
        if isinstance(self.batch_size, str) and self.batch_size == "auto":
            return rows if rows <= _FULL else 64
        return whole("batch_size", self.batch_size)

    def _keep(self, model: nn.Module, certificate: Any, finish: Callable[[nn.Module], nn.Module]) -> Self:
        if isinstance(model, nn.Sequential) and isinstance(model[0], WeightedStandardise):
            model.preprocess = model[0].plain()
        elif isinstance(model, nn.Sequential) and isinstance(model[0], WithoutWeight):
            model = model[1]
        self.module_ = finish(model).eval()
        self.certificate_ = certificate
        return self

    # --- predicting ---

    @torch.no_grad()
    def _outputs(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        first = next(self.module_.parameters())
        rows = torch.from_numpy(np.array(X))
        if self.module is not None:
            rows = rows.to(first.dtype)
        parts = [self.module_(part.to(first.device)).cpu() for part in rows.split(_AT_ONCE)]
        together: Array = torch.cat(parts).numpy()
        return together

    # --- reading ---

    @property
    def _first_weight(self) -> Tensor:
        """The weights (out, d) that read the standardised features."""
        check_is_fitted(self)
        if self.module is not None:
            raise AttributeError("of a module of your own it is not known how it reads the features: see module_")
        return _first(self.module_, nn.Linear).weight.detach()

    @property
    def feature_importances_(self) -> Array:
        """‖W[:, j]‖₂ of the first layer's weights of each standardised feature (d,); 0: it is not used."""
        norms: Array = self._first_weight.norm(dim=0).cpu().numpy()
        return norms

    @property
    def _linear_map(self) -> tuple[Array, Array]:
        """The slopes (k, d) and intercepts (k,) of a linear model, in the raw features."""
        if not self._linear:
            raise AttributeError(f"coef_ and intercept_ are of linear models (hidden=()); hidden={self.hidden!r} here")
        weight = self._first_weight.double()
        preprocess = _first(self.module_, Preprocess)
        slopes = weight / preprocess.scale
        intercepts = _first(self.module_, nn.Linear).bias.detach().double() - slopes @ preprocess.mean.double()
        return slopes.cpu().numpy(), intercepts.cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class Classifies(ClassifierMixin, Penalized):
    """The part of classifiers. Of two classes our own models have one logit, that of the second."""

    class_weight: Any

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        X, y = validate_data(self, X, y, dtype=_DTYPES, ensure_min_samples=2)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if self.class_weight is not None:
            weights = (1.0 if weights is None else weights) * compute_sample_weight(self.class_weight, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class")
        return X, codes.astype(np.int64), weights

    def _targets(self, y: Array, weights: Array) -> Targets:
        if len(np.unique(y)) < 2:
            raise ValueError("Of the rows whose weight is not 0, all are of one class: at least two classes expected")
        count = len(self.classes_)
        if count == 2 and self.module is None:
            return Targets(y[:, None].astype(np.float64), 1, nn.BCEWithLogitsLoss(), lambda model: model)
        return Targets(y, count, nn.CrossEntropyLoss(), lambda model: model)

    def _logits(self, X: Any) -> Tensor:
        """(n, classes)."""
        outputs = torch.from_numpy(self._outputs(X))
        return outputs if outputs.shape[1] > 1 else torch.cat([torch.zeros_like(outputs), outputs], 1)

    def decision_function(self, X: Any) -> Array:
        """The model's outputs for rows X (n, d): (n, classes), or (n,) of two: the log odds of the second."""
        logits = self._logits(X)
        found: Array = (logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits).numpy()
        return found

    def predict_proba(self, X: Any) -> Array:
        """The probability of each of ``classes_`` for rows X (n, d): (n, classes)."""
        return torch.softmax(self._logits(X), 1).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`, from the model's own outputs."""
        return torch.log_softmax(self._logits(X), 1).numpy()

    def predict(self, X: Any) -> Array:
        """The most probable class of each row X (n, d)."""
        best = self._logits(X).argmax(1).numpy()
        found: Array = self.classes_[best]
        return found

    @property
    def coef_(self) -> Array:
        """Slopes of a linear model's outputs (classes, d), in raw features; (1, d) of two: of the second's log odds."""
        return self._linear_map[0]

    @property
    def intercept_(self) -> Array:
        """Intercepts that belong to ``coef_``."""
        return self._linear_map[1]


class Predicts(RegressorMixin, Penalized):
    """The part of regressors."""

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        X, y = validate_data(self, X, y, dtype=_DTYPES, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        return X, y, weights

    def _targets(self, y: Array, weights: Array) -> Targets:
        made = Standardised.of(y, weights)
        return Targets(made.z, made.z.shape[1], nn.MSELoss(), made.restore)

    def predict(self, X: Any) -> Array:
        """The targets of rows X (n, d): (n,), or (n, k) where y had k columns."""
        return self._outputs(X)

    @property
    def coef_(self) -> Array:
        """Slopes of a linear model in raw units: (d,), or (k, d) for k columns of y."""
        slopes: Array = self._linear_map[0] * self._unit.scale.cpu().numpy()[:, None]
        return slopes[0] if self._unit.flat else slopes

    @property
    def intercept_(self) -> Array | float:
        """Intercepts that belong to ``coef_``."""
        both: Array = self._linear_map[1] * self._unit.scale.cpu().numpy() + self._unit.mean.cpu().numpy()
        return float(both[0]) if self._unit.flat else both

    @property
    def _unit(self) -> Unstandardise:
        """The way back to the targets' unit."""
        check_is_fitted(self)
        return _first(self.module_, Unstandardise)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def warn_of_repeats(repeats: int) -> None:
    """Say that folds which are given cannot be drawn again."""
    warnings.warn(
        f"repeats={repeats}: folds that a splitter or a list gives are taken once, so there are no repeats; give cv as "
        "a number, of which new ones are drawn each time",
        UserWarning,
        stacklevel=3,
    )


def _first(model: nn.Module, kind: type[M]) -> M:
    return next(each for each in model.modules() if isinstance(each, kind))
