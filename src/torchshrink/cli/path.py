"""``torchshrink path``: strengths × folds, the table, the choice, the verdict, the refitted model."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchshrink.cli import command_line, console, option_checks, options
from torchshrink.cli.folder import (
    are_there,
    digests,
    refuse_changed,
    refuse_taken,
    said_how_to_start_over,
    start_afresh,
)
from torchshrink.cli.report import MODEL, PATH, REFIT, REFITTED, REPORT, RUN, SETTINGS, SHRUNK
from torchshrink.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from torchshrink.paths import PathComparison, PathResult

JOURNAL = "journal"
FILES = (PATH, "losses.safetensors", "model.safetensors", MODEL, REFIT, "path.png", REPORT)
_PATH = FILES[:2]  # what was cross-validated; the others are of the model that is refitted
_END = ("polish", "relaxed", "choose")  # settings of that model alone
_WHEN = ("date", "command")  # no settings: when it was begun, and what makes it again


def path(
    data: options.Data,
    target: options.Target = None,
    penalty: options.Penalties = None,
    strengths: options.Strengths = "32",
    model: options.Model = "mlp",
    hidden: options.Hidden = None,
    folds: options.Folds = 5,
    test: options.Test = None,
    epochs: options.PathEpochs = None,
    choose: options.Choose = "best",
    shrink: options.Shrink = False,
    out: options.Out = None,
    force: options.Force = False,
    resume: options.Resume = False,
    json: options.Json = False,
    task: options.Task = "auto",
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    thousands: options.Thousands = None,
    na: options.Na = None,
    drop: options.Drop = None,
    l1_ratio: options.L1Ratio = None,
    dim: options.Dim = None,
    groups: options.Groups = None,
    gamma: options.Gamma = None,
    epsilon: options.Epsilon = None,
    on: options.On = None,
    method: options.Method = "auto",
    optimizer: options.PathOptimizer = None,
    lr: options.LearningRate = None,
    momentum: options.Momentum = None,
    batch_size: options.PathBatchSize = None,
    repeats: options.Repeats = 3,
    rows: options.Rows = None,
    polish: options.Polish = False,
    relaxed: options.Relaxed = False,
    order: options.Order = "cold",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    jobs: options.Jobs = 1,
    engine: options.Engine = "auto",
    lanes: options.Lanes = None,
    compile: options.Compile = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Cross-validate a range of strengths, say which to take and whether penalising helps, and refit there.

    Strengths and penalties share folds, initial weights and batches. Strength 0 is always among the points. What is
    interrupted goes on with --resume, to the same bytes.
    """
    folder = out or option_checks.default_folder("path", data)
    option_checks.one_of("--task", task, options.TASKS)
    option_checks.one_of("--on", on or "weights", options.SELECTIONS)
    option_checks.one_of("--method", method, options.METHODS)
    option_checks.one_of("--optimizer", optimizer or "adam", options.OPTIMIZERS)
    option_checks.one_of("--choose", choose, options.CHOICES)
    option_checks.one_of("--engine", engine, options.ENGINES)
    option_checks.one_of("--order", order, options.ORDERS)
    option_checks.at_least("--lanes", lanes if lanes is not None else 1, 1)
    if engine in ("sequential", "optimum") and (lanes is not None or compile):
        given = "--compile" if lanes is None else f"--lanes {lanes}"
        raise InputError(f"{given}: --engine {engine} has no lanes; leave it out, or take --engine lanes")
    option_checks.at_least("--folds", folds, 2)
    option_checks.at_least("--repeats", repeats, 1)
    if test is not None and rows is not None:
        raise InputError(f"--test {test:g} with --rows {rows}: both say how many rows are test rows; give one of them")
    if test is not None and not 0 < test < 1:
        raise InputError(f"--test {test:g}: expected a share between 0 and 1, such as 0.25")
    option_checks.at_least("--rows", rows if rows is not None else 2, 2)
    option_checks.at_least("--epochs", 1 if epochs is None else epochs, 1)
    option_checks.at_least("--batch-size", 1 if batch_size is None else batch_size, 1)
    option_checks.at_least("--threads", threads, 1)
    jobs = _processes(jobs, threads)
    option_checks.seed_of("--seed", seed)
    grid = option_checks.strengths("--strengths", strengths)

    import torchshrink.report.picture  # noqa: F401 – before any training: it may be missing
    from torchshrink.cli import from_options  # from here on torch is needed: a second or two
    from torchshrink.cli.features import features_of, first_layer
    from torchshrink.cli.path_tuning import Tuning, by_feature, penalties
    from torchshrink.cli.penalty_names import Shape
    from torchshrink.paths import Engine, PathSettings

    from_options.device(device)
    from_options.use_threads(threads)
    text = from_options.format_of(sep, decimal, thousands, na=na, drop=drop)
    tuned = penalties(penalty or ["l1"], Shape(l1_ratio, dim, gamma, epsilon, groups=groups))
    dataset = from_options.load_data(data, target=target, task=task, format=text)
    model_settings = from_options.model_settings(dataset, model, hidden)
    specs = by_feature(tuned, dataset, model_settings, on=on) if groups is not None else tuned
    refuse_taken(folder, force=force, resume=resume)  # last: what else is wrong should not be hidden by it
    trained = any(each is not None for each in (optimizer, lr, momentum))  # rather than solved, where it can be
    make_optimizer = from_options.OptimizerSettings.of(optimizer or "adam", lr, momentum)
    path_settings = PathSettings(
        strengths=grid,
        folds=folds,
        repeats=repeats,
        test=test if rows is None else from_options.test_rows(dataset, rows, seed),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=make_optimizer if trained else None,
        seed=seed,
        device=device,
        on=from_options.SELECTION[on or "weights"],
        method=method,  # type: ignore[arg-type]  # these three were checked above
        order=order,  # type: ignore[arg-type]
        engine=Engine(engine, lanes=lanes, compile=compile, jobs=jobs),  # type: ignore[arg-type]
    )
    settings = path_settings.to_dict() | {
        "data": {
            "spec": data,
            "target": dataset.target,
            "task": dataset.task,
            "sha256": from_options.fingerprint(dataset),
            **text.given(),
        },
        "model": {name: value for name, value in model_settings.items() if name in ("model", "hidden")},
        "penalty": {name: repr(each) for name, each in tuned.items()},  # at strength 1
        **({} if groups is None else {"groups": groups}),
        "optimizer": {"name": make_optimizer.name, "lr": make_optimizer.lr, "momentum": make_optimizer.momentum}
        if trained
        else None,  # the default, or none at all
        "polish": polish,
        "relaxed": relaxed,
        "choose": choose,
        **({"shrink": True} if shrink else {}),
        "tuned on": rows,
        "threads": threads,
        "versions": from_options.versions(),
    }
    if lanes is not None or engine == "sequential":
        del settings["engine"]["jobs"]  # elsewhere stacks are cut by it, which decides the last bits
    run = _Run(folder, settings)
    if not (resume and run.finished()):
        tuning = Tuning.prepare(dataset, model_settings, specs, path_settings)
        known = run.known() if resume else None
        if known is None:
            run.claim(force=force, resume=resume)
        from_options.say_guesses(dataset)
        try:
            result = tuning.job.run(folder, progress=not quiet) if known is None else tuning.job.taken_over(known)
            model_and_words = tuning.refit(result, choose, polished=polish, relaxed=relaxed)
            if dataset.kinds:
                model_and_words[1]["words"]["columns"] = dataset.kinds
            if groups is not None:
                model_and_words[1]["features"] = features_of(model_and_words[0], dataset, first_layer(model_settings))
            run.finish(result, *model_and_words, model_settings | {"data": dataset.describe()})
        except KeyboardInterrupt:
            what = f"{run.trainings()} trainings are" if known is None else "the path is"
            raise console.Interrupted(f"{what} saved in {folder}") from None
    try:
        _show(folder, shrink=shrink, json=json)
    except KeyboardInterrupt:
        raise console.Interrupted(f"the result is saved in {folder}") from None


def _show(folder: Path, *, shrink: bool, json: bool) -> None:
    from torchshrink.cli.path_tables import show_path
    from torchshrink.cli.shrink_results import show_shrunk, shrunk_result
    from torchshrink.paths import load_path
    from torchshrink.support.storage import read_json

    # What is shown is what is on the disk, whether it was made just now or before.
    files = [str(folder / name) for name in FILES]
    shown, refit = load_path(folder), read_json(folder / REFIT, what=REFITTED)
    smaller = shrunk_result(folder / SHRUNK) if shrink else None
    if json:
        more = {} if smaller is None else {"shrink": smaller}
        console.emit_json(read_json(folder / PATH) | {"refit": read_json(folder / REFIT)} | more | {"files": files})
        return
    show_path(shown, refit, files)
    if smaller is not None:
        console.emit("")
        show_shrunk(smaller)


def _processes(jobs: int, threads: int) -> int:
    """How many processes are to train."""
    if jobs != -1 and jobs < 1:
        raise InputError(f"--jobs {jobs}: expected a whole number ≥ 1, or -1 for as many as there are cores")
    count = jobs
    if jobs == -1:
        import joblib  # which knows of a container's limits

        count = joblib.cpu_count()
    option_checks.at_least("--jobs", count, 1)
    if count > 1 and threads > 1:
        raise InputError(
            f"--threads {threads} with --jobs {jobs}: each job computes on one core; leave one of them out"
        )
    return count


@dataclass(frozen=True)
class _Run:
    """A path's place on the disk."""

    folder: Path
    settings: dict[str, Any]

    def finished(self) -> bool:
        """Whether a run with these settings has written everything; an error where the folder is of another run."""
        from torchshrink.paths import clear_journal
        from torchshrink.support.storage import read_json

        known = self.folder / SETTINGS
        if not known.exists():
            start_afresh(self.folder, SETTINGS, "path")
            return False
        with said_how_to_start_over():
            saved = read_json(known, what=RUN)
        files = saved.pop("digests", None)
        saved = {name: value for name, value in saved.items() if name not in _WHEN}
        same_end = all(saved.get(name) == self.settings[name] for name in _END)
        refuse_changed(self.settings, saved | {name: self.settings[name] for name in _END}, self.folder)
        done = are_there(self.folder, files, self.files)
        if done:
            clear_journal(self.folder)  # which an interrupted run may have left
        if done and not same_end:
            console.say(f"the path in {self.folder} is finished; the model alone is trained anew")
        else:
            console.say(f"{self.folder} is finished; this is its result" if done else f"resuming in {self.folder}")
        return done and same_end

    def known(self) -> PathResult | PathComparison | None:
        """The path that a finished run has left here, of which only the model at the end is asked for otherwise."""
        from torchshrink.paths import load_path
        from torchshrink.support.storage import read_json

        known = self.folder / SETTINGS
        if not known.exists() or not are_there(self.folder, read_json(known, what=RUN).get("digests"), _PATH):
            return None
        return load_path(self.folder)

    @property
    def files(self) -> tuple[str, ...]:
        """What a finished run has written."""
        from torchshrink.cli.shrink_results import files_of

        if not self.settings.get("shrink"):
            return FILES
        return (*FILES, *(f"{SHRUNK}/{name}" for name in files_of(self.settings["model"]["model"])))

    def claim(self, *, force: bool, resume: bool) -> None:
        """Make the folder ours; with ``force``, whatever an older path left in it is gone from here on."""
        from torchshrink.cli.shrink_results import clear
        from torchshrink.paths import clear_journal
        from torchshrink.support.storage import claim_folder, write_json

        claim_folder(self.folder, force=force, resume=resume)
        if force:
            clear_journal(self.folder)
            clear(self.folder / SHRUNK)
            for name in (SETTINGS, *FILES):
                (self.folder / name).unlink(missing_ok=True)
        when = self._when() if resume else {}
        write_json(self.folder / SETTINGS, self.settings | _now() | when, what=RUN)

    def _when(self) -> dict[str, Any]:
        """When the run was begun."""
        from torchshrink.support.storage import read_json

        known = self.folder / SETTINGS
        saved = read_json(known, what=RUN) if known.exists() else {}
        return {name: saved[name] for name in _WHEN[:1] if name in saved}

    def trainings(self) -> int:
        """How many finished trainings are kept."""
        return len(list((self.folder / JOURNAL).glob("*.safetensors")))

    def finish(
        self, result: PathResult | PathComparison, model: nn.Module, refit: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        """Write every file; then that they are all there, and what each is; the journal goes last."""
        from torchshrink.cli.report import about_of
        from torchshrink.cli.shrink_results import shrink_folder
        from torchshrink.models import save_model
        from torchshrink.paths import clear_journal
        from torchshrink.report.page import write_report
        from torchshrink.support.storage import write_json

        maker = settings["model"] if ":" in settings["model"] else None  # whose code has been run for this path
        result.save(self.folder)
        save_model(self.folder, model, settings)
        write_json(self.folder / REFIT, refit, what=REFITTED)
        if self.settings.get("shrink"):
            shrink_folder(self.folder, self.folder / SHRUNK, inputs=False, model=maker, force=True)
        own = self.settings | _now() | self._when()
        write_json(self.folder / SETTINGS, own, what=RUN)
        write_report(result.view(about_of(self.folder)), self.folder / "path.png", self.folder / REPORT)
        write_json(self.folder / SETTINGS, own | {"digests": digests(self.folder, self.files)}, what=RUN)
        clear_journal(self.folder)


def _now() -> dict[str, Any]:
    """When it is, and what is being run."""
    return {"date": datetime.date.today().isoformat(), "command": command_line.again()}
