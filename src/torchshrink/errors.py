"""Exceptions and warnings. Each message says what was given, what was expected and what to do."""


class TorchshrinkError(Exception):
    """Base of every exception that torchshrink raises on purpose."""


class InputError(TorchshrinkError, ValueError):
    """An argument, a file or a data set is not usable as it is. The command line exits with status 2."""


class SelectionError(InputError):
    """The rules do not say which parameters to penalise: a pattern matches nothing, or what it matches cannot be."""


class AttachmentError(TorchshrinkError, RuntimeError):
    """A regularizer and an optimizer do not fit together, or not in this order."""


class GeometryError(AttachmentError, NotImplementedError):
    """No exact step size per coordinate is known for this optimizer, so `prox` would solve for another strength."""


class ReadError(TorchshrinkError, OSError):
    """A row of a data set could be read before, and now cannot be; or a worker that was to read it is gone."""


class DataWarning(UserWarning):
    """The data are not what they seem: another row when it is read again, or values that rounding makes the same."""


class ObjectiveWarning(UserWarning):
    """What will be minimised is not mean loss + penalty with the strengths as given."""


class SelectionWarning(UserWarning):
    """A parameter that one might expect to be penalised is not."""
