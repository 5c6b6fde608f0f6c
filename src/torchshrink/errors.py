"""Exceptions and warnings. Each message says what was given, what was expected and what to do."""


class TorchshrinkError(Exception):
    """Base of every exception that torchshrink raises on purpose."""


class InputError(TorchshrinkError, ValueError):
    """An argument, a file or a data set is not usable as it is. The command line exits with status 2."""


class SelectionError(InputError):
    """The rules do not say which parameters to penalise: a pattern matches nothing, or what it matches cannot be."""


class AttachmentError(TorchshrinkError, RuntimeError):
    """A regularizer and an optimizer do not fit together, or not in this order."""


class StepSizeError(AttachmentError, NotImplementedError):
    """No exact step size per coordinate is known for this optimizer, so `prox` would solve for another strength."""


class MissingDependencyError(TorchshrinkError, ImportError):
    """Something that comes with ``torchshrink[full]`` is needed, and is not installed."""


class ReadError(TorchshrinkError, OSError):
    """A row of a data set could be read before, and now cannot be; or a worker that was to read it is gone."""


class NoEquivalentError(InputError):
    """No setting of the other tool has the same solution; the message says why."""


class DivergenceError(TorchshrinkError, ArithmeticError):
    """A training's loss became infinite or NaN. ``epoch`` says in which epoch, counted from 0."""

    def __init__(self, loss: float, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(
            f"the loss became {loss} in epoch {epoch + 1}: lower the learning rate, "
            "or look for huge or non-finite values in the data"
        )


class CannotStackError(TorchshrinkError):
    """These trainings cannot be one stacked program; the message says why. The plain engine takes them."""


class CannotSolveError(InputError):
    """``engine="optimum"``: the optima of these models cannot be computed; the message says why."""


class WorkerLostError(TorchshrinkError):
    """A process that trained was killed, and joblib's backend does not start its tasks again."""


class NoDualError(InputError):
    """The model, loss or penalty has no dual here; the message says which, and why."""


class UnsettledDualError(NoDualError):
    """There is a dual, but rounding kept its best intercept from being found, or the rows are not in memory."""


class ContractError(AssertionError):
    """A penalty breaks its contract; the message names the clause, what was found and what was expected."""


class DataWarning(UserWarning):
    """The data are not what they seem: another row when it is read again, or values that rounding makes the same.

    Or a file takes less of them than the model that it was made from.
    """


class JournalWarning(UserWarning):
    """A file of an interrupted run is not what was written there; what it was to keep is done again."""


class ObjectiveWarning(UserWarning):
    """What will be minimised is not mean loss + penalty with the strengths as given."""


class SelectionWarning(UserWarning):
    """A parameter that one might expect to be penalised is not."""


class DivergenceWarning(UserWarning):
    """Some trainings of a path diverged, and were left out of its choice."""


class CompileWarning(UserWarning):
    """What ``compile=True`` was to make one program takes the plain path; the message says what, and why."""


class LanesWarning(UserWarning):
    """Trainings that were to be stacked or compiled are done another way; the message says how, and why."""


class TasksWarning(UserWarning):
    """Trainings that joblib was to send elsewhere are done in this process; the message says why."""
