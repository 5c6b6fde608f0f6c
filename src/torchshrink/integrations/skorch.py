"""skorch: ``NeuralNetRegressor(…, callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping

from torchshrink.integrations.callbacks import Clipping, On, Penalties, attached, bound, held_by, taken_out
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):  # type: ignore[misc]
    """Lets a penalty act inside the net's optimizer, from the beginning of each ``fit`` or ``partial_fit`` to its end.

    ``fit`` makes module and optimizer anew, and it binds anew; ``partial_fit`` goes on with both, and so do a schedule
    and what L2SP is anchored at, in a pickled net too. After a fit nothing is attached, so that the net pickles;
    ``regularizer_`` stays, to certify with. ``history`` gets ``sparsity``, the share of penalised weights that are
    exactly 0.

    Args:
        penalty: one penalty, or rules pattern → penalty or None. In a grid search: ``callbacks__regularizer__penalty``.
        on: ``"weights"``, ``"all"``, or a pattern of parameter names, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Raises:
        AttachmentError: (in ``fit``) the optimizer holds no penalised parameter.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended.

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
        """A new net is bound anew."""
        self.regularizer_: Regularizer | None = None
        self._kept: dict[str, Any] = {}
        self._clipping: Clipping | None = None
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Bind, where the module is new, and attach."""
        known = self.regularizer_
        if known is not None and known.methods:  # an earlier fit has ended in an exception
            self._kept = taken_out(known)
        if known is not None and known.model is not net.module_:
            known, self._kept = None, {}
        if known is None:
            known = bound(net.module_, self.penalty, self.on, self.scale)
        self.regularizer_ = attached(known, [net.optimizer_], self.method)
        if self._kept:
            self.regularizer_.load_state_dict(self._kept)
        limit = next(
            (each.gradient_clip_value for _, each in net.callbacks_ if isinstance(each, GradientNormClipping)), None
        )
        self._clipping = Clipping(limit, "GradientNormClipping") if limit else None

    def on_grad_computed(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Look at the gradients, before they are clipped or after."""
        if self._clipping is not None:
            self._clipping.look(held_by(net.optimizer_))

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the share of exact zeros."""
        if self.regularizer_ is not None:
            net.history.record("sparsity", self.regularizer_.sparsity().fraction)

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        if self._clipping is not None:
            self._clipping.end()
            self._clipping = None
        if self.regularizer_ is not None:
            self._kept = taken_out(self.regularizer_)

    def __getstate__(self) -> dict[str, Any]:
        """Without the regularizer, whose model would be a second copy of the net's; with what it has to keep."""
        state = {**vars(self)}
        made = state.get("regularizer_")
        if made is not None:
            state |= {"regularizer_": None, "_kept": made.state_dict() if made.methods else self._kept}
        return state
