"""What comes with an extra of torchshrink alone, and the one line that is said where it is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torchshrink.errors import MissingDependencyError

FULL = {  # module -> the package that has it
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "joblib": "joblib",
    "cloudpickle": "cloudpickle",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "matplotlib": "matplotlib",
    "typer": "typer",
    "rich": "rich",
    "yaml": "pyyaml",
}
ONNX = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}


@contextlib.contextmanager
def needed(what: str) -> Iterator[None]:
    """Around imports that ``what`` needs and the core does without.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in FULL | ONNX:
            raise
        extra = "full" if module in FULL else "onnx"
        raise MissingDependencyError(
            f"{what} needs {(FULL | ONNX)[module]}, which is not installed: install torchshrink with its extra "
            f"'{extra}', from a clone by pip install '.[{extra}]'",
            name=error.name,
        ) from error
