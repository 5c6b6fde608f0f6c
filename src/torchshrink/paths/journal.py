"""The finished trainings of a path, one file each, so that a run that was killed goes on where it was.

Each file is sealed (`torchshrink.support.storage`) as the result of its own training, with these settings and data.
What is not what it should be, for whatever reason, counts as missing: that training is done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from torchshrink.errors import InputError, JournalWarning
from torchshrink.paths.model_weights import Weights
from torchshrink.paths.training_result import TrainingKey, TrainingResult
from torchshrink.paths.weight_summary import summary_from_tensors
from torchshrink.support.storage import PathLike, brief, folder_path, read_json, read_tensors, write_json, write_tensors

FOLDER = "journal"
_SETTINGS = "settings.json"
_T = TypeVar("_T")
_JOURNAL = "journal"  # what its settings are sealed as


class Journal:
    """Training results under ``folder/journal``; only of trainings with the same settings and data.

    Args:
        folder: a working folder; made where it is missing.
        fingerprint: what the results depend on, as JSON takes it.

    Raises:
        InputError: the folder holds a journal of another fingerprint, or cannot be written.

    Warns:
        JournalWarning: a file is not what was written there; what it was to keep is trained again.
    """

    def __init__(self, folder: PathLike, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder_path(folder) / FOLDER
        text = json.dumps(fingerprint)
        self._whose = hashlib.sha256(text.encode()).hexdigest()
        wanted = json.loads(text)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error.strerror}") from error
        settings = self.folder / _SETTINGS
        before = self._sound(settings, lambda: read_json(settings, what=_JOURNAL))
        if before is None:
            write_json(settings, wanted, what=_JOURNAL)
        else:
            _refuse_other(before, wanted, self.folder)

    def read(self, key: TrainingKey, stack: str = "") -> TrainingResult | None:
        """What came out of this training, or None if it has not been finished.

        Args:
            key: which training.
            stack: the name of the stack that trained it, as the last bits depend on that; "": it was trained alone.
        """
        path = self._path(key, stack)

        def result() -> TrainingResult:
            tensors, metadata = read_tensors(path, what=self._sealed_as(key, stack))
            pattern = tensors.get("pattern")
            return TrainingResult(
                row_losses=tensors["row_losses"],
                pattern=None if pattern is None else pattern.numpy().tobytes(),
                weights=summary_from_tensors(tensors),
                **json.loads(metadata["result"]),
            )

        return self._sound(path, result)

    def write(self, key: TrainingKey, result: TrainingResult, stack: str = "") -> None:
        """Write what came out of this training."""
        numbers = {
            "train_loss": result.train_loss,  # by repr, so bit for bit; a diverged training's NaN too
            "accuracy": result.accuracy,
            "nonzero": result.nonzero,
            "diverged": result.diverged,
            "above": result.above,
            "stationary": result.stationary,
        }
        tensors = {"row_losses": result.row_losses}
        if result.weights is not None:
            tensors |= result.weights.tensors()
        if result.pattern is not None:
            tensors["pattern"] = torch.frombuffer(bytearray(result.pattern), dtype=torch.uint8)
        write_tensors(
            self._path(key, stack),
            tensors,
            {"result": json.dumps(numbers)},
            what=self._sealed_as(key, stack),
        )

    def read_weights(self, stack: str) -> dict[int, dict[str, Tensor]] | None:
        """The weights that this stack of a warm path ended with, by fold, or None if they are not kept."""
        path = self._weights(stack)
        flat = self._sound(path, lambda: read_tensors(path, what=self._ends(stack))[0])
        if flat is None:
            return None
        found: dict[int, dict[str, Tensor]] = {}
        for key, tensor in flat.items():
            fold, name = key.split(":", 1)
            found.setdefault(int(fold), {})[name] = tensor
        return found

    def write_weights(self, stack: str, weights: Mapping[int, Weights]) -> None:
        """Keep the weights that a stack ended with, by fold."""
        flat = {f"{fold}:{name}": tensor for fold, each in weights.items() for name, tensor in each.items()}
        write_tensors(self._weights(stack), flat, what=self._ends(stack))

    def drop_weights(self, stack: str) -> None:
        """Forget them."""
        self._weights(stack).unlink(missing_ok=True)

    def _sound(self, path: Path, read: Callable[[], _T]) -> _T | None:
        """What is read, or None where nothing is there, or nothing that was written there by such trainings."""
        if not path.exists():
            return None
        try:
            return read()
        except (InputError, KeyError, TypeError, ValueError) as error:
            why = str(error) if isinstance(error, InputError) else f"{path} is of another version ({brief(error)})"
            warnings.warn(f"{why}: this is done now", JournalWarning, stacklevel=4)
            return None

    def _sealed_as(self, key: TrainingKey, stack: str) -> str:
        """What a result is sealed as."""
        return f"result {key!r} {stack} {self._whose}"

    def _ends(self, stack: str) -> str:
        """What weights are sealed as."""
        return f"weights {stack} {self._whose}"

    def _weights(self, stack: str) -> Path:
        return self.folder / f"{stack}.weights"

    def _path(self, key: TrainingKey, stack: str) -> Path:
        mark = f"-{stack}" if stack else ""
        return self.folder / f"{key.family}-{key.fold}-{key.strength!r}{mark}.safetensors"


def clear_journal(folder: PathLike) -> None:
    """Delete the journal under a working folder, once what it led to has been saved."""
    shutil.rmtree(folder_path(folder) / FOLDER, ignore_errors=True)


def _refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if keys:
        what = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys[:3])
        raise InputError(f"{folder} is of other trainings ({what}): give the same settings, or delete it")
