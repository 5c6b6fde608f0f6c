"""``torchshrink train``: one model, one penalty, the tutorial's loop."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchshrink.cli import console, option_checks, options, train_board
from torchshrink.cli.folder import (
    are_there,
    digests,
    refuse_changed,
    refuse_taken,
    said_how_to_start_over,
    start_afresh,
)

if TYPE_CHECKING:
    from torchshrink.cli.train_epochs import Fit
    from torchshrink.data import Dataset

CHECKPOINT, RESULT = "checkpoint.safetensors", "train.json"
FILES = ("model.safetensors", "model.json", RESULT)
_TRAINING = "training"  # what the result is sealed as


def train(
    data: options.Data,
    target: options.Target = None,
    penalty: options.Penalty = None,
    strength: options.Strength = None,
    model: options.Model = "mlp",
    hidden: options.Hidden = None,
    validation: options.Validation = 0.2,
    epochs: options.Epochs = 50,
    out: options.Out = None,
    force: options.Force = False,
    resume: options.Resume = False,
    tensorboard: options.TensorBoard = False,
    json: options.Json = False,
    task: options.Task = "auto",
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    thousands: options.Thousands = None,
    na: options.Na = None,
    drop: options.Drop = None,
    radius: options.Radius = None,
    keep: options.Keep = None,
    low: options.Low = None,
    high: options.High = None,
    pattern: options.Pattern = None,
    rules: options.Rules = None,
    l1_ratio: options.L1Ratio = None,
    dim: options.Dim = None,
    groups: options.Groups = None,
    gamma: options.Gamma = None,
    epsilon: options.Epsilon = None,
    on: options.On = None,
    method: options.Method = "auto",
    optimizer: options.Optimizer = "adam",
    lr: options.LearningRate = None,
    momentum: options.Momentum = None,
    batch_size: options.BatchSize = 64,
    polish: options.Polish = False,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train one model with one penalty, as the tutorial does, and say how sparse and how optimal it is.

    Writes model.safetensors, model.json and train.json. What is interrupted goes on with --resume, to the same bytes.
    """
    folder = out or option_checks.default_folder("train", data)
    option_checks.one_of("--method", method, options.METHODS)
    option_checks.at_least("--epochs", epochs, 1)
    option_checks.at_least("--batch-size", batch_size, 1)
    option_checks.at_least("--threads", threads, 1)
    option_checks.between("--validation", validation, 0, 1, "such as 0.2; 0 holds nothing out")
    option_checks.seed_of("--seed", seed)
    option_checks.one_of("--optimizer", optimizer, options.OPTIMIZERS)
    option_checks.one_of("--task", task, options.TASKS)
    if tensorboard:
        train_board.check_installed()

    from torchshrink.cli import from_options  # from here on torch is needed: a second or two
    from torchshrink.cli.penalty_names import Shape

    where = from_options.device(device)
    from_options.use_threads(threads)
    text = from_options.format_of(sep, decimal, thousands, na=na, drop=drop)
    shape = Shape(
        l1_ratio, dim, gamma, epsilon, radius, option_checks.keep_of("--keep", keep), low, high, pattern, groups
    )
    penalising = from_options.penalising(penalty, strength, shape, rules=rules, on=on)
    make_optimizer = from_options.OptimizerSettings.of(optimizer, lr, momentum)
    dataset = from_options.load_data(data, target=target, task=task, format=text)
    model_settings = from_options.model_settings(dataset, model, hidden)
    if groups is not None:
        penalising = penalising.by_feature(dataset, model_settings)
    refuse_taken(folder, force=force, resume=resume)  # last: what else is wrong should not be hidden by it
    settings = {
        "data": {
            "spec": data,
            "target": dataset.target,
            "task": dataset.task,
            "sha256": from_options.fingerprint(dataset),
            **text.given(),
        },
        "model": {name: value for name, value in model_settings.items() if name in ("model", "hidden")},
        "penalty": penalising.settings | {"method": method},
        "optimizer": {"name": optimizer, "lr": make_optimizer.lr, "momentum": make_optimizer.momentum},
        "epochs": epochs,
        "batch_size": batch_size,
        "polish": polish,
        "validation": validation,
        "seed": seed,
        "device": device,
        "threads": threads,
        "versions": from_options.versions(),
    }
    run = _Run(folder, settings, quiet=quiet, tensorboard=tensorboard)
    finished = run.finished() if resume else None
    if finished is None:
        parts = from_options.split_rows(dataset, validation, seed)
        fit = from_options.prepare(
            dataset, parts, model_settings, penalising, make_optimizer,
            method=method, batch_size=batch_size, epochs=epochs, seed=seed, device=where,
        )  # fmt: skip
        run.claim(force=force, resume=resume)
        from_options.say_guesses(dataset)
        finished = run.finish(fit, dataset, model_settings, resume=resume)
    files = [str(folder / name) for name in FILES]
    if json:
        from torchshrink.support.storage import read_json

        console.emit_json(read_json(folder / RESULT) | {"files": files})
        return
    from torchshrink.cli.train_results import show_training

    show_training(finished, files)


@dataclass(frozen=True)
class _Run:
    """A training's place on the disk."""

    folder: Path
    settings: dict[str, Any]
    quiet: bool
    tensorboard: bool = False

    def finished(self) -> dict[str, Any] | None:
        """What a run with these settings has already written in full, or None; of other settings, an error."""
        from torchshrink.support.storage import read_json
        from torchshrink.training.checkpoint import read_progress

        checkpoint, result = self.folder / CHECKPOINT, self.folder / RESULT
        if checkpoint.exists():  # also where an older result stands beside it: this run is the later one
            with said_how_to_start_over():
                saved = read_progress(checkpoint)
            refuse_changed(self.settings, saved.get("settings", {}), self.folder)
            return None
        if result.exists():
            with said_how_to_start_over():
                saved = read_json(result, what=_TRAINING)
            refuse_changed(self.settings, saved.get("settings", {}), self.folder)
            if are_there(self.folder, saved.get("digests"), FILES[:-1]):
                console.say(f"{self.folder} is finished; this is its result")
                return saved
            console.say(f"{self.folder} was finished, but files are missing: training again")
            return None
        start_afresh(self.folder, CHECKPOINT, "training")
        return None

    def claim(self, *, force: bool, resume: bool) -> None:
        """Make the folder ours; whatever an older run left to resume from is gone from here on."""
        from torchshrink.support.storage import claim_folder

        claim_folder(self.folder, force=force, resume=resume)
        if force:
            for name in (CHECKPOINT, *FILES):
                (self.folder / name).unlink(missing_ok=True)
            train_board.clear(self.folder)

    def finish(self, fit: Fit, dataset: Dataset, model_settings: dict[str, Any], *, resume: bool) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one, and write the files."""
        from torchshrink.models import save_model
        from torchshrink.support.storage import write_json

        checkpoint = self.folder / CHECKPOINT
        history: list[dict[str, Any]] = []
        board: train_board.Board = train_board.NoBoard()
        saved = 0

        def save() -> None:
            nonlocal saved
            if history:
                board.write(fit, history[-1])  # first: what is lost of the epoch then, is taken back from it
            fit.save(checkpoint, self.settings, history)
            saved = len(history)

        try:
            if resume and checkpoint.exists():
                history += fit.restore(checkpoint)
                saved = len(history)
                console.say(f"resuming after epoch {saved} of {fit.epochs}")
            else:
                save()
            if self.tensorboard:
                board = train_board.TensorBoard(self.folder, history)
            fit.run(history, save, quiet=self.quiet)
            result = {"settings": self.settings, **self._end(fit, dataset, history)}
            fit.unit.restore(fit.model)
            save_model(self.folder, fit.model, model_settings | {"data": dataset.describe()})
            written = digests(self.folder, FILES[:-1])
            write_json(self.folder / RESULT, result | {"digests": written}, what=_TRAINING)
            checkpoint.unlink()
        except KeyboardInterrupt:
            raise console.Interrupted(f"{saved} of {fit.epochs} epochs are saved in {self.folder}") from None
        finally:
            board.close()
        return result

    def _end(self, fit: Fit, dataset: Dataset, history: list[dict[str, Any]]) -> dict[str, Any]:
        from torchshrink.cli.train_results import training_result

        return training_result(
            fit, dataset, history, polished=self.settings["polish"], progress=not self.quiet and sys.stderr.isatty()
        )
