"""skorch: ``NeuralNetRegressor(…, callbacks=[RegularizerCallback(ts.L1(1e-3))])``."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping

from torchshrink.errors import InputError
from torchshrink.integrations.callbacks import Penalties, Settings, held_by, tell
from torchshrink.integrations.clipping import Clipping
from torchshrink.integrations.session import Session, place_of, regularizer_of
from torchshrink.penalties import Penalty
from torchshrink.regularizer import Regularizer
from torchshrink.regularizer.attachment import Method, let_copy
from torchshrink.regularizer.selection import On
from torchshrink.regularizer.terms import Scale


class RegularizerCallback(Callback):
    """Lets a penalty act inside the net's optimizer, from the beginning of each ``fit`` or ``partial_fit`` to its end.

    ``fit`` makes module and optimizer anew, and it binds anew; ``partial_fit`` goes on with both, and so do a schedule,
    what L2SP is anchored at, and latent weights: in a pickled net too, and from what ``save_params``, ``Checkpoint`` or
    ``TrainEndCheckpoint`` has saved with ``f_optimizer``, whose state carries them. After a fit nothing is attached, so
    that the net pickles; ``regularizer_`` stays, to certify with.

    ``history`` gets ``torchshrink/sparsity``, the share of penalised weights that are exactly 0, and
    ``torchshrink/penalty``; of a second callback of the same net ``torchshrink-2/…``.

    Args:
        penalty: one penalty, or rules pattern → penalty or None. In a grid search: ``callbacks__regularizer__penalty``,
            or, of one penalty, ``callbacks__regularizer__strength``.
        on: as `Regularizer` takes it: ``"weights"``, ``"all"``, or a pattern, or several.
        method: as `Regularizer.attach`.
        scale: as `Regularizer.scale`: a number, or a callable of the step.

    Raises:
        AttachmentError: (in ``fit``) the optimizer holds no penalised parameter.
        InputError: (likewise) what is loaded was saved under other rules.

    Warns:
        ObjectiveWarning: gradients are clipped; they still were when training ended; training goes on from where
            nothing of this callback was saved, and what it has to keep matters.
        SelectionWarning: weights have been unfrozen that the optimizer does not hold.

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

        self.session_: Session | None = None
        self.last_: Regularizer | None = None  # of the last training
        self.rules_: tuple[Any, ...] = ()  # that it is bound by
        self.kept_: dict[str, Any] = {}  # at its end
        self.clipping_: Clipping | None = None
        self.taken_up_ = False
        self.look_ = True  # whether something may have been loaded, or unfrozen

    def __repr__(self) -> str:
        return str(self._settings())

    def _settings(self) -> Settings:
        return Settings(self.penalty, self.on, self.method, self.scale)

    @property
    def regularizer_(self) -> Regularizer | None:
        """The one at work, or that of the last training; None before the first, and in a pickled net."""
        return regularizer_of(self.session_, self.last_)

    def set_params(self, **params: Any) -> None:
        """As skorch's; and ``strength``, of one penalty.

        Raises:
            InputError: there are rules for penalty.
        """
        strength = params.pop("strength", None)
        Callback.set_params(self, **params)
        if strength is not None:
            if not isinstance(self.penalty, Penalty):
                raise InputError(f"strength={strength!r}: of one penalty; set penalty, where there are rules")
            self.penalty = self.penalty.with_strength(strength)

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Bind, where the module or the rules are new, and attach."""
        self._end()  # an earlier fit may have ended in an exception
        settings, rules = self._settings(), (self.penalty, self.on)
        known, others = self.last_, self.rules_ and rules != self.rules_
        moved = known is not None and known.model is not net.module_  # a module of other settings
        if not net.history or moved or (others and self.kept_.get("key") != settings.key):
            known, self.kept_ = None, {}
        if known is None or others:
            known, self.rules_ = settings.bound(net.module_), rules
        self.session_ = session = Session(
            settings,
            known,
            [net.optimizer_],
            run=net.callbacks_,
            place=place_of(self, [each for _, each in net.callbacks_]),
            carried=True,
        )
        let_copy(net.optimizer_)
        self.taken_up_ = self._take_up(session.carried() or self.kept_.get("state"))
        self.look_ = True
        limit = next(
            (each.gradient_clip_value for _, each in net.callbacks_ if isinstance(each, GradientNormClipping)), None
        )
        self.clipping_ = Clipping(limit, "GradientNormClipping") if limit else None

    def _take_up(self, saved: dict[str, Any] | None) -> bool:
        if not saved or self.session_ is None:
            return False
        try:
            self.session_.take_up(saved)
        except BaseException:
            self._end()
            raise
        return True

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Other callbacks may load or unfreeze something now."""
        self.look_ = True

    def on_batch_begin(self, net: NeuralNet, batch: Any = None, training: bool | None = None, **kwargs: Any) -> None:
        """Take up what has been loaded since training began, and penalise what has been unfrozen."""
        if not (self.look_ and training) or self.session_ is None:
            return
        self.look_ = False
        if self._take_up(self.session_.carried()):
            self.taken_up_ = True
        if not self.taken_up_ and (len(net.history) > 1 or net.optimizer_.state):
            message = self.session_.forgotten(f"training goes on from epoch {len(net.history) - 1}")
            if message is not None:
                tell(f"{message}; save and load f_optimizer, which carries it, or begin anew with fit")
                self.session_.begin_here()
        self.taken_up_ = True
        self.session_.follow([net.optimizer_])

    def on_grad_computed(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Look at the gradients, before they are clipped or after."""
        if self.clipping_ is not None:
            self.clipping_.look(held_by(net.optimizer_))

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the penalty and the share of exact zeros."""
        if self.session_ is not None:
            for name, value in self.session_.figures().items():
                net.history.record(name, float(value))

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Leave the optimizer as it was, but that its state carries what has to be kept."""
        if self.clipping_ is not None:
            self.clipping_.end()
            self.clipping_ = None
        session = self.session_
        if session is not None:
            session.say_what_is_left()
            self._end()
            session.leave(self.kept_["state"])

    def _end(self) -> None:
        if self.session_ is not None:
            self.kept_ = {"key": self.session_.settings.key, "state": self.session_.end()}
            self.last_, self.session_ = self.session_.regularizer, None

    def __getstate__(self) -> dict[str, Any]:
        """Without the regularizer, whose model would be a second copy of the net's; with what it has to keep."""
        state = {**vars(self), "session_": None, "last_": None, "clipping_": None}
        if self.session_ is not None:
            state["kept_"] = {"key": self.session_.settings.key, "state": self.session_.state()}
        return state
