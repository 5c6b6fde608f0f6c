"""What the four scikit-learn estimators share: checking, standardising, predicting, reading."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from torchshrink.integrations.estimator_parts import Build, Task, Unstandardise, WithoutWeight
from torchshrink.integrations.sample_weights import WeightedLoss, WeightedStandardise
from torchshrink.paths.settings import PathSettings
from torchshrink.regularizer.selection import WEIGHTS

_AT_ONCE = 4096  # rows of a prediction's batch
_FULL = 256  # up to so many rows a batch is all of them, if nothing else is asked for
Array = np.ndarray[Any, Any]
_DTYPES = (np.float64, np.float32)


class Penalized(BaseEstimator):
    """What the four estimators share: checking, standardising, training, predicting."""

    # --- what a subclass says ---

    def _targets(self, y: Any, weights: Array) -> tuple[Array, int, Callable[[nn.Module], nn.Module]]:
        """Targets as numbers (n, k), or codes (n,); how many outputs; and the model's way back to the targets."""
        raise NotImplementedError

    def _loss(self, mean_weight: float) -> nn.Module:
        raise NotImplementedError

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        raise NotImplementedError

    # --- fitting ---

    def _task(self, X: Any, y: Any, sample_weight: Any, **more: Any) -> Task:
        X, y, weights = self._checked(X, y, sample_weight)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if weights is not None:
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
        build = Build(X.shape[1], outputs, self._widths(), self.module, weights is not None, rows.dtype)
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
        return Task(rows, wanted, y, build, loss, settings, finish)

    def _widths(self) -> tuple[int, ...]:
        hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        return hidden

    @property
    def _linear(self) -> bool:
        return self.module is None and not self._widths()

    def _batch_size(self, rows: int) -> int:
        if self.batch_size == "auto":
            return rows if rows <= _FULL else 64
        given: int = self.batch_size
        return given

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
        return next(m for m in self.module_.modules() if isinstance(m, nn.Linear)).weight.detach()

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
        output = next(m for m in self.module_.modules() if isinstance(m, nn.Linear))
        preprocess = self.module_.get_submodule(self._core + "preprocess")
        slopes = weight / preprocess.get_buffer("scale")
        intercepts = output.bias.detach().double() - slopes @ preprocess.get_buffer("mean")
        return slopes.cpu().numpy(), intercepts.cpu().numpy()

    _core = ""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class Classifies(ClassifierMixin, Penalized):
    """The part of classifiers."""

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

    def _targets(self, y: Any, weights: Array) -> tuple[Array, int, Callable[[nn.Module], nn.Module]]:
        if len(np.unique(y[weights > 0])) < 2:
            raise ValueError("Of the rows whose weight is not 0, all are of one class: at least two classes expected")
        return y, len(self.classes_), lambda model: model

    def _loss(self, mean_weight: float) -> nn.Module:
        return WeightedLoss(True, mean_weight)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each of ``classes_`` for rows X (n, d): (n, classes)."""
        return torch.softmax(torch.from_numpy(self._outputs(X)), 1).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`, from the model's own outputs."""
        return torch.log_softmax(torch.from_numpy(self._outputs(X)), 1).numpy()

    def predict(self, X: Any) -> Array:
        """The most probable class of each row X (n, d)."""
        outputs = self._outputs(X)
        best: Array = self.classes_[outputs.argmax(1)]
        return best

    @property
    def coef_(self) -> Array:
        """Slopes of a linear model's outputs (classes, d), in raw features; (1, d) of their difference for two."""
        slopes, _ = self._linear_map
        return slopes[1:] - slopes[:1] if len(slopes) == 2 else slopes

    @property
    def intercept_(self) -> Array:
        """Intercepts that belong to ``coef_``."""
        _, intercepts = self._linear_map
        return intercepts[1:] - intercepts[:1] if len(intercepts) == 2 else intercepts


class Predicts(RegressorMixin, Penalized):
    """The part of regressors."""

    _core = "network."

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array, Array | None]:
        X, y = validate_data(self, X, y, dtype=_DTYPES, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        return X, y, weights

    def _targets(self, y: Any, weights: Array) -> tuple[Array, int, Callable[[nn.Module], nn.Module]]:
        wide = y.reshape(len(y), -1).astype(np.float64)
        mean = np.average(wide, axis=0, weights=weights)
        scale = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=weights))
        counted = wide[weights > 0]
        constant = (counted == counted[:1]).all(0)
        mean, scale = np.where(constant, counted[0], mean), np.where(constant | (scale == 0), 1.0, scale)

        def finish(model: nn.Module) -> nn.Module:
            like = next(model.parameters())
            middle, unit = (torch.from_numpy(np.array(each)).to(like) for each in (mean, scale))
            return nn.Sequential(OrderedDict(network=model, targets=Unstandardise(middle, unit, flat=y.ndim == 1)))

        return (wide - mean) / scale, wide.shape[1], finish

    def _loss(self, mean_weight: float) -> nn.Module:
        return WeightedLoss(False, mean_weight)

    def predict(self, X: Any) -> Array:
        """The targets of rows X (n, d): (n,), or (n, k) where y had k columns."""
        return self._outputs(X)

    @property
    def coef_(self) -> Array:
        """Slopes of a linear model in raw units: (d,), or (k, d) for k columns of y."""
        slopes: Array = self._linear_map[0] * self._way_back.scale.cpu().numpy()[:, None]
        return slopes[0] if self._way_back.flat else slopes

    @property
    def _way_back(self) -> Unstandardise:
        check_is_fitted(self)
        return next(each for each in self.module_.modules() if isinstance(each, Unstandardise))

    @property
    def intercept_(self) -> Array | float:
        """Intercepts that belong to ``coef_``."""
        targets = self._way_back
        both: Array = self._linear_map[1] * targets.scale.cpu().numpy() + targets.mean.cpu().numpy()
        return float(both[0]) if targets.flat else both

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
