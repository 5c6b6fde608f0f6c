"""skorch: ``NeuralNetRegressor(…, callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from torchshrink.integrations.callbacks import On, Penalties, attached, bound
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):  # type: ignore[misc]
    """Lets a penalty act inside the net's optimizer, from the beginning of each ``fit`` or ``partial_fit`` to its end.

    ``fit`` makes module and optimizer anew, and it binds anew; ``partial_fit`` goes on with both, and so do a schedule
    and what L2SP is anchored at. After a fit nothing is attached, so that the net pickles; `regularizer_` stays, to
    certify with. ``history`` gets ``sparsity``, the share of penalised weights that are exactly 0.

    Args:
        penalty: one penalty, or rules pattern → penalty or None. In a grid search: ``callbacks__regularizer__penalty``.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Example:
        >>> import torchshrink as ts
        >>> callbacks = [("regularizer", RegularizerCallback(ts.L1(1e-3)))]
    """

    def __init__(
        self, penalty: Penalties, *, on: On = "weights", method: Method = "auto", scale: Scale | None = None
    ) -> None:
        self.penalty = penalty
        self.on = on
        self.method = method
        self.scale = scale

    def initialize(self) -> RegularizerCallback:
        """A new module is bound anew."""
        self.regularizer_: Regularizer | None = None
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Bind, where the module is new, and attach."""
        if self.regularizer_ is None or self.regularizer_.model is not net.module_:
            self.regularizer_ = bound(net.module_, self.penalty, self.on, self.scale)
        self.regularizer_.detach()
        attached(self.regularizer_, [net.optimizer_], self.method)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the share of exact zeros."""
        if self.regularizer_ is not None:
            net.history.record("sparsity", self.regularizer_.sparsity().share)

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        if self.regularizer_ is not None:
            self.regularizer_.detach()
