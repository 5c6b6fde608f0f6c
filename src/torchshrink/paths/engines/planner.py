"""Which engine trains a family's strengths and folds, how many lanes at once, and why.

The choice follows from counted work and never from a clock, so the same call makes the same choice and ends with the
same bits: the arithmetic of one training step (counted by running one), the number of trainings, and the memory of a
lane. The thresholds were read once from measurements on two cores with AVX-512, one thread, 64 lanes, batches of 64,
Adam and L1; how many times faster than one training after another, by millions of operations in a lane's step:

    chain of linear layers           1: 21   10: 4.5   30: 2.4   115: 1.7
    linear layers with a shortcut    1: 8    30: 1.4
    convolution, batch norm          5: 3.6  63: 0.7
    lstm                             4: 4.3  53: 1.2
    transformer layer                8: 3.7  107: 1.7

A chain is differentiated by hand, and ``torch.compile`` makes one pass of its prox, which saves about a nanosecond per
coordinate and step and costs some 8 seconds: it is on where it saves far more. Other models gain next to nothing from
it: there it is off unless asked for.

A warm path has its folds side by side and no more, so few lanes; what those gained (one thread, CPU time, batches of
64, Adam and L1), by millions of operations in a lane's step:

                                   2 lanes   3     5     10
    chain of linear layers     1     1.6       2.9   3.7   5.4
                               9     1.6       1.9   2.7   3.1
                               30    1.2       1.5   1.9   2.5
                               111   1.2             1.2
    with a shortcut            1     0.7       1.0   1.5   2.2
                               30    0.7       0.8   1.0   1.4
    convolution, batch norm    2     0.9       1.2   2.0
                               17    0.8       1.0   1.2
    lstm                       4     0.4       0.7   1.1
    transformer layer          2     0.7       0.9   1.2

So chains go side by side from 2 folds on, others from 5 that are of one size.

The prox does not enter the thresholds. In both engines it goes in blocks that stay in the cache, so what it adds is
nearly the same: beyond the thresholds, with L1 and the group lasso after Adam, lanes were 0.8 to 1.5 times as fast.

Processes start only if the caller asks for them, by joblib's config or ``--jobs``: a script may be one of many on its
machine. If lanes would use one core only, the plan says how to use the rest.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from torchshrink.errors import InputError
from torchshrink.paths.engines.stack import CANNOT_STACK
from torchshrink.paths.engines.stack_models import initial_model
from torchshrink.paths.engines.stack_trial import check_unspoilt, convolves, costs_of, try_stack
from torchshrink.paths.folds import Fold
from torchshrink.paths.penalty_family import PenaltyFamily
from torchshrink.paths.shared_state import SharedState
from torchshrink.paths.training_result import TrainingKey
from torchshrink.paths.training_spec import TrainingSpec
from torchshrink.support.compiling import cannot_compile
from torchshrink.support.storage import brief
from torchshrink.training import batches

LEAST_STEPS = 3000  # of all lanes together: below, a stack is hardly set up before the plain engine is done
LEAST_LANES = 8  # of a cold path
LEAST_FOLDS = {"chain": 2, "general": 5, "convolution": 5}  # of a warm path, in a stack, on average
MOST_LANES = 256  # at once: more gain little, and a killed run loses no more than this many trainings
MOST_WORK = {"chain": 150e6, "general": 30e6, "convolution": 15e6}  # multiplications and additions of a lane's step
COMPILING_PAYS = 2e10  # coordinates × steps of all lanes
MEMORY_SHARE = 0.25  # of the machine's memory, or of the device's
MORE_CORES = "joblib.parallel_config('loky', n_jobs=-1), or --jobs -1, would use all cores"
ASSUMED_MEMORY = 8 * 2**30
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroups 2 and 1


@dataclass(frozen=True)
class Plan:
    """How one family's trainings are done.

    Args:
        engine: ``lanes``, ``sequential`` or ``optimum``.
        lanes: how many at once, at most.
        compiled: whether a stack's forward and backward passes go through ``torch.compile``.
        chain: whether the model is a chain of linear layers, whose folds may differ in size within a stack.
        reason: why, as a clause.
        refused: whether lanes were asked for and cannot be had.
        jobs: in how many processes.
        hint: what would make it faster.
        idle: why ``compile=True`` does nothing, where it was asked for and does nothing.
    """

    engine: Literal["lanes", "sequential", "optimum"]
    lanes: int
    compiled: bool
    chain: bool
    reason: str
    refused: bool = False
    jobs: int = 1
    hint: str = ""
    idle: str = ""

    def __str__(self) -> str:
        how = {
            "lanes": f"up to {self.lanes} lanes at once",
            "sequential": "one training after another",
            "optimum": "nothing is trained",
        }[self.engine]
        where = f" in each of {self.jobs} processes" if self.jobs > 1 else ""
        hint = f"; {self.hint}" if self.hint else ""
        idle = f"; compile=True does nothing, since {self.idle}" if self.idle else ""
        return f"{how}{where}{', compiled' if self.compiled else ''}: {self.reason}{hint}{idle}"


@dataclass(frozen=True)
class StackTask:
    """Trainings that one stack does: a full table of folds and strengths of one family."""

    family: int
    strengths: tuple[float, ...]
    folds: tuple[int, ...]
    compiled: bool

    @property
    def keys(self) -> tuple[TrainingKey, ...]:
        """The trainings."""
        return tuple(TrainingKey(self.family, strength, fold) for strength in self.strengths for fold in self.folds)

    @property
    def name(self) -> str:
        """A digest of what it is: the last bits of a training depend on what it was stacked with."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def make_plan(
    spec: TrainingSpec,
    folds: Sequence[Fold],
    family: PenaltyFamily,
    strengths: int,
    *,
    jobs: int = 1,
) -> Plan:
    """Choose for one family.

    Args:
        spec: how each training is done.
        folds: all of them.
        family: of penalties.
        strengths: how many, 0 included.
        jobs: in how many processes the trainings are done. Where the caller gives no ``lanes``, each gets a share.

    Raises:
        InputError: compiling is asked for, and does not work here.
    """
    plan = _plan(spec, folds, family, strengths, jobs=jobs)
    if not spec.settings.engine.compile or plan.compiled or plan.engine == "optimum":
        return plan
    stacked = "a step of linear layers is written out already, and no prox acts that could be compiled"
    return replace(plan, idle=stacked if plan.engine == "lanes" else "only stacks of lanes are compiled")


def _plan(spec: TrainingSpec, folds: Sequence[Fold], family: PenaltyFamily, strengths: int, *, jobs: int) -> Plan:
    if spec.solved:
        reason = "each optimum is computed, and proved; give epochs or an optimizer to train instead"
        return Plan("optimum", 1, False, chain=False, reason=reason, jobs=jobs)
    engine, order = spec.settings.engine.name, spec.settings.order  # of a warm path only folds are side by side
    lanes, compiled = spec.settings.engine.lanes, spec.settings.engine.compile
    if engine == "sequential":
        return _sequential("as asked", jobs=jobs)
    all_lanes = len(folds) if order == "warm" else strengths * len(folds)
    steps = strengths * spec.epochs * sum(_batch_count(spec, fold) for fold in folds)
    if engine == "auto" and (steps < LEAST_STEPS or (order == "cold" and all_lanes < LEAST_LANES)):
        return _sequential("too little work for a stack to pay", jobs=jobs)
    shared: SharedState | None = None
    try:
        model = initial_model(spec, 0, folds[0])
        shared = SharedState(model, spec.loss)
        trial = try_stack(spec, folds, family)
        work, memory = costs_of(spec, model, folds[0])
    except CANNOT_STACK as error:
        if shared is not None:
            shared.put_back()
            check_unspoilt(spec, folds[0])
            shared.put_back()
        return _sequential(f"no lanes, since {brief(error)}", jobs=jobs, refused=True)
    kind = "chain" if trial.chain else "convolution" if convolves(model) else "general"
    if engine == "auto" and work > MOST_WORK[kind]:
        return _sequential(
            f"a step's {work / 1e6:.0f} million operations fill the machine by themselves (lanes pay up to "
            f"{MOST_WORK[kind] / 1e6:.0f})",
            jobs=jobs,
            hint="" if jobs > 1 or spec.device.type != "cpu" else MORE_CORES,
        )
    fitting = max(1, int(memory_limit(spec.device) / memory))
    if lanes is None:  # as many stacks as jobs at least, and all of them in memory; given lanes are the same everywhere
        fitting, all_lanes = max(1, fitting // jobs), max(1, all_lanes // jobs)
    at_once = min(lanes or MOST_LANES, all_lanes, fitting)
    reason = "as asked" if engine == "lanes" else f"a step has {work / 1e6:.2g} million operations only"
    if fitting == at_once < (lanes or MOST_LANES):
        reason += f"; more would take over {MEMORY_SHARE:.0%} of the memory"
    if compiled is None:
        coordinates = sum(p.numel() for p in model.parameters() if p.requires_grad)
        fits = trial.chain and trial.proximal and spec.device.type == "cpu"
        pays = fits and coordinates * steps > COMPILING_PAYS
        compiled = pays and cannot_compile() is None
    elif compiled and (problem := cannot_compile()):
        raise InputError(f"compile=True: torch.compile does not work here ({problem}); leave it out")
    else:
        compiled = compiled and (trial.proximal or not trial.chain)
    hint = ""
    if at_once * jobs > fitting and lanes is not None and jobs > 1:
        share = at_once * jobs / fitting * MEMORY_SHARE
        hint = f"{jobs} stacks at once, if on one machine, may take {share:.0%} of its memory"
    plan = Plan("lanes", at_once, compiled, trial.chain, reason, jobs=jobs, hint=hint)
    if engine == "auto" and order == "warm":
        side_by_side = len(folds) / len(stack_tasks(plan, spec, dict(enumerate(folds)), 0, (0.0,)))
        if side_by_side < LEAST_FOLDS[kind]:
            return _sequential(
                f"of a warm path only folds of one size are side by side, here {side_by_side:.2g} (lanes pay from "
                f"{LEAST_FOLDS[kind]})",
                jobs=jobs,
            )
    return plan


def stack_tasks(
    plan: Plan,
    spec: TrainingSpec,
    folds: Mapping[int, Fold],
    family: int,
    strengths: Sequence[float],
) -> list[StackTask]:
    """The table of folds × strengths, cut into stacks of at most ``plan.lanes``; a function of its arguments alone.

    The folds are given by their numbers.
    """
    groups: dict[int, list[int]] = {}
    for number, fold in folds.items():
        size = _batch_count(spec, fold) if plan.chain else len(fold.train)
        groups.setdefault(size, []).append(number)
    made = []
    for numbers in groups.values():
        for some in _parts(numbers, math.ceil(len(numbers) / plan.lanes)):
            for values in _parts(strengths, math.ceil(len(strengths) / max(1, plan.lanes // len(some)))):
                made.append(StackTask(family, tuple(values), tuple(some), plan.compiled))
    return made


def memory_limit(device: torch.device) -> float:
    """Bytes that a stack may take: a share of all the memory there is, used or not, so that it is always the same.

    A container's limit counts where the machine says it; where a machine does not say its memory, 8 GiB are assumed.
    """
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    return MEMORY_SHARE * min([_machine_memory(), *_container_limits()])


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return ASSUMED_MEMORY


def _container_limits() -> Iterator[int]:
    for path in CONTAINER_LIMITS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():  # "max" where there is none
            yield int(text)


def _sequential(reason: str, *, jobs: int, refused: bool = False, hint: str = "") -> Plan:
    return Plan("sequential", 1, False, chain=False, reason=reason, refused=refused, jobs=jobs, hint=hint)


def _parts(values: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """As even as can be, in their order."""
    ends = [len(values) * k // count for k in range(count + 1)]
    return [values[a:b] for a, b in itertools.pairwise(ends)]


def _batch_count(spec: TrainingSpec, fold: Fold) -> int:
    return len(batches(len(fold.train), spec.batch_size, seed=0, epoch=0))
