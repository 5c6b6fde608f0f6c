"""skorch: ``NeuralNetRegressor(…, callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping

from torchshrink.integrations.callbacks import Clipping, On, Penalties, attached, bound, held_by, taken_out
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):
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

        self.regularizer_: Regularizer | None = None
        self.rules_: tuple[Any, ...] = ()  # that it is bound by
        self.kept_: dict[str, Any] = {}
        self.clipping_: Clipping | None = None

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Bind, where the module or the rules are new, and attach."""
        known, rules = self.regularizer_, (self.penalty, self.on)
        if known is not None and known.methods:  # an earlier fit has ended in an exception
            self.kept_ = taken_out(known)
        moved = known is not None and known.model is not net.module_  # a module of other settings
        if not net.history or moved or (self.rules_ and rules != self.rules_):
            known, self.kept_ = None, {}
        if known is None:
            known, self.rules_ = bound(net.module_, self.penalty, self.on, self.scale), rules
        self.regularizer_ = attached(known, [net.optimizer_], self.method)
        if self.kept_:
            self.regularizer_.load_state_dict(self.kept_)
            self.regularizer_.scale = 1.0 if self.scale is None else self.scale  # which may have been set since
        limit = next(
            (each.gradient_clip_value for _, each in net.callbacks_ if isinstance(each, GradientNormClipping)), None
        )
        self.clipping_ = Clipping(limit, "GradientNormClipping") if limit else None

    def on_grad_computed(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Look at the gradients, before they are clipped or after."""
        if self.clipping_ is not None:
            self.clipping_.look(held_by(net.optimizer_))

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the share of exact zeros."""
        if self.regularizer_ is not None:
            net.history.record("sparsity", self.regularizer_.sparsity().fraction)

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        if self.clipping_ is not None:
            self.clipping_.end()
            self.clipping_ = None
        if self.regularizer_ is not None:
            self.kept_ = taken_out(self.regularizer_)

    def __getstate__(self) -> dict[str, Any]:
        """Without the regularizer, whose model would be a second copy of the net's; with what it has to keep."""
        state = {**vars(self)}
        made = state.get("regularizer_")
        if made is not None:
            state |= {"regularizer_": None, "kept_": made.state_dict() if made.methods else self.kept_}
        return state
