"""The contract test of penalties, shipped for people who write their own.

    from torchshrink.testing import check_penalty
    check_penalty(MyPenalty(0.1))

Every clause ties two methods to each other or one to brute force, on random tensors in float64, and then asks the same
of float32, bfloat16, odd shapes and ``torch.func.vmap``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, get_args

import torch
from torch import Tensor

from torchshrink.errors import ContractError
from torchshrink.penalties import Penalty
from torchshrink.penalties.base import ProxSteps, Strength

SHAPES: tuple[tuple[int, ...], ...] = ((5, 3), (7,), (1, 1), (), (0, 3), (3, 0), (2, 3, 2, 2))
STEPS = (1e-3, 0.3, 1.0, 4.0, 50.0)


@dataclass(frozen=True)
class _Subject:
    """A penalty under test, and the tensors that it is tested on."""

    penalty: Penalty
    shapes: tuple[tuple[int, ...], ...]

    def fail(self, clause: str, found: object, expected: object) -> NoReturn:
        raise ContractError(f"{self.penalty!r}, {clause}: found {found}, expected {expected}")

    def near(self, clause: str, found: Tensor, expected: Tensor, tol: float) -> None:
        """Fail unless the two agree within ``tol``, relative to the larger of 1 and the magnitudes."""
        if found.shape != expected.shape:
            self.fail(f"{clause} (shape)", tuple(found.shape), tuple(expected.shape))
        found, expected = found.double(), expected.double()
        same = (found - expected).abs() <= tol * expected.abs().clamp(min=1)
        same |= found == expected  # infinities
        if not bool(same.all()):
            worst = int((~same).flatten().nonzero()[0])
            self.fail(clause, found.flatten()[worst].item(), expected.flatten()[worst].item())

    def members(self) -> Iterator[Tensor]:
        """The samples; for a constraint their projections, since outside its set Ω is infinite."""
        for w in self.samples():
            yield self.penalty.prox(w, 1.0) if self.penalty.constraint else w

    def at(self, strength: Strength) -> Penalty:
        """The penalty at another strength; a constraint, which has none, as it is."""
        return self.penalty if self.penalty.constraint else self.penalty.with_strength(strength)

    def samples(self) -> Iterator[Tensor]:
        """float64 tensors of every shape: dense, with zeros, with zero groups, and zero."""
        generator = torch.Generator().manual_seed(0)
        for shape in self.shapes:
            dense = torch.randn(shape, dtype=torch.float64, generator=generator)
            holes = dense * (torch.rand(shape, generator=generator) > 0.5)
            yield dense
            yield holes
            if len(shape) > 1 and shape[0]:
                zero_row, zero_column = dense.clone(), dense.clone()
                zero_row[0] = 0.0
                zero_column[:, :1] = 0.0
                yield zero_row
                yield zero_column
            yield torch.zeros(shape, dtype=torch.float64)
            yield 3 * dense


def check_penalty(penalty: Penalty, *, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> None:
    """Hold a penalty to the contract of `torchshrink.penalties.base.Penalty`.

    Args:
        penalty: an instance with a positive strength that is a number, about 0.05 to 2 so that all branches are met.
        shapes: of the tensors to test on; leave out what the penalty refuses, such as all but one where it has weights
            or labels. One of them is to have a coordinate.

    Raises:
        ContractError: names the clause that is broken.

    Example:
        >>> from torchshrink import L1
        >>> check_penalty(L1(0.3))
        >>> check_penalty(L1(0.3, weights=[2.0, 0.0, 0.5]), shapes=((4, 3),))
    """
    subject = _Subject(penalty, shapes)
    for clause in (
        _is_a_value,
        _value_is_a_scalar,
        _grad_is_the_derivative,
        _grad_is_zero_at_zero,
        _prox_is_the_minimiser,
        _prox_takes_steps_per_coordinate,
        _prox_satisfies_its_optimality_condition,
        _distance_is_the_limit_of_prox_steps,
        _critical_strength_is_critical,
        _convexity_is_true,
        _convex_part_leaves_a_smooth_rest,
        _kinks_are_where_it_says,
        _elastic_net_is_the_same,
        _groups_are_on_their_own,
        _what_is_exempt_is_left_alone,
        _binding_changes_nothing,
        _falls_into_shards,
        _strength_can_be_a_tensor,
        _works_under_vmap,
        _keeps_dtypes,
        _leaves_its_arguments_alone,
        _keeps_not_a_number,
    ):
        clause(subject)


def _is_a_value(subject: _Subject) -> None:
    penalty = subject.penalty
    again = penalty.with_strength(penalty.strength)
    if type(again) is not type(penalty):
        subject.fail("with_strength", type(again).__name__, type(penalty).__name__)
    if again != penalty and not _close(subject, again):
        subject.fail("with_strength(strength)", again, penalty)
    other = penalty.with_strength(penalty.strength * 2)
    if penalty.constraint and float(penalty.strength) != 0:
        subject.fail("strength of a constraint", penalty.strength, 0)
    if other == penalty and not penalty.constraint:
        subject.fail("equality of different strengths", "equal", "different")
    found = float(other.strength)
    if abs(found - 2 * float(penalty.strength)) > 1e-12 * found:
        subject.fail("with_strength(2·strength).strength", found, 2 * float(penalty.strength))
    try:
        penalty.__setattr__("strength", 1.0)
    except AttributeError:
        return
    subject.fail("assignment to an attribute", "accepted", "AttributeError: penalties are frozen")


def _close(subject: _Subject, again: Penalty) -> bool:
    """Equal but for rounding in strengths that were split and joined again."""
    values = [(again.value(w), subject.penalty.value(w)) for w in subject.samples()]
    return all(bool(torch.isclose(a, b, rtol=1e-12, atol=0)) for a, b in values)


def _value_is_a_scalar(subject: _Subject) -> None:
    for w in subject.samples():
        value = subject.penalty.value(w)
        if value.shape != () or not bool(value >= 0):
            subject.fail("value", value, "a scalar ≥ 0")
        # A smooth penalty may have its least value elsewhere: L2SP at its anchor, Orthogonal at a frame; a box as well.
        if not (subject.penalty.smooth or subject.penalty.constraint) and bool(
            subject.penalty.value(torch.zeros_like(w)) > value
        ):
            subject.fail("value(w)", value, "at least value(0)")


def _away_from_kinks(penalty: Penalty, w: Tensor) -> Tensor:
    """``w`` with a margin to 0, where finite differences see one side only."""
    return torch.where(w.abs() < 1e-3, torch.full_like(w, 0.5), w)


def _grad_is_the_derivative(subject: _Subject) -> None:
    penalty = subject.penalty
    for w in subject.samples():
        x = _away_from_kinks(penalty, w)
        if penalty.constraint:
            x = penalty.prox(x, 1.0)
        x.requires_grad_()
        value = penalty.value(x)
        (auto,) = torch.autograd.grad(value, x) if x.numel() else (torch.zeros_like(x),)
        grad = penalty.grad(x.detach())
        subject.near("grad against autograd of value", grad, auto, 1e-9)
        h = 1e-6
        flat = x.detach().flatten()
        for i in range(min(flat.numel(), 6)):
            up, down = flat.clone(), flat.clone()
            up[i] += h
            down[i] -= h
            slope = (penalty.value(up.view(w.shape)) - penalty.value(down.view(w.shape))) / (2 * h)
            if penalty.constraint and not bool(slope.isfinite()):
                continue  # one of the two is outside
            subject.near("grad against finite differences", grad.flatten()[i], slope, 1e-5)


def _grad_is_zero_at_zero(subject: _Subject) -> None:
    penalty = subject.penalty
    for w in subject.samples():
        grad = penalty.grad(w)
        x = w.clone().requires_grad_()
        (auto,) = torch.autograd.grad(penalty.value(x), x) if x.numel() else (torch.zeros_like(x),)
        for name, found in (("grad", grad), ("autograd of value", auto)):
            if not bool(found.isfinite().all()):
                subject.fail(f"{name} at a tensor with zeros", "not finite", "finite")
            # Where a kink is: at a coordinate, or at the whole of a group of many (a smooth grad is the derivative).
            kink = w == 0
            groups = penalty.groups(w.shape) if penalty.group_dims == () else None
            if groups is not None and w.numel():
                kink = (groups.spread(groups.largest(w.abs())) == 0).expand(w.shape)
            if not penalty.smooth:
                subject.near(f"{name} where w = 0", found[kink], torch.zeros_like(found[kink]), 0.0)


def _objective(penalty: Penalty, z: Tensor, w: Tensor, step: float | Tensor) -> Tensor:
    return penalty.value(z) + ((z - w).square() / (2 * step)).sum()


def _objectives(penalty: Penalty, candidates: Sequence[Tensor], w: Tensor, step: float | Tensor) -> Tensor:
    """`_objective` of each candidate, (n,)."""
    stacked = torch.stack(list(candidates))
    try:
        values = torch.func.vmap(penalty.value)(stacked)
    except Exception:  # which `_works_under_vmap` tells of
        values = torch.stack([penalty.value(z) for z in candidates])
    return values + ((stacked - w).square() / (2 * step)).reshape(len(candidates), w.numel()).sum(1)


def _prox_is_the_minimiser(subject: _Subject) -> None:
    """No candidate beats prox: on lines to 0 and to w, nearby, with one or all coordinates moved, or two exchanged."""
    penalty = subject.penalty
    if penalty.prox_steps == "none":
        return
    generator = torch.Generator().manual_seed(1)
    for w, step in itertools.product(subject.samples(), STEPS):
        u = penalty.prox(w, step)
        if u.shape != w.shape:
            subject.fail("prox (shape)", tuple(u.shape), tuple(w.shape))
        best = _objective(penalty, u, w, step)
        others = _objectives(penalty, list(_candidates(w, u, generator)), w, step)
        if bool((others < best - 1e-10 * (1 + abs(best))).any()):
            subject.fail(f"prox with step {step}", f"objective {best:.12g}", "no larger than any candidate's")


def _candidates(w: Tensor, u: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    yield torch.zeros_like(w)
    for t in (0.05, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0, 1.01):
        yield t * w
        yield t * u
    for scale in (1e-4, 1e-2, 0.3):
        for _ in range(3):
            yield u + scale * torch.randn(w.shape, dtype=w.dtype, generator=generator)
    flat = u.flatten()
    for i in range(min(flat.numel(), 5)):
        for value in (0.0, float(w.flatten()[i]), float(flat[i]) * 1.001, float(flat[i]) + 1e-3, float(flat[i]) - 1e-3):
            moved = flat.clone()
            moved[i] = value
            yield moved.view(w.shape)
    for i, j in itertools.permutations(range(min(flat.numel(), 3)), 2):  # one gives way to another
        moved = flat.clone()
        moved[i], moved[j] = 0.0, w.flatten()[j]
        yield moved.view(w.shape)


def _steps_like(w: Tensor, generator: torch.Generator) -> Tensor:
    """Steps per coordinate over six orders of magnitude."""
    return 10 ** (6 * torch.rand(w.shape, dtype=w.dtype, generator=generator) - 4)


def _prox_takes_steps_per_coordinate(subject: _Subject) -> None:
    penalty = subject.penalty
    if penalty.prox_steps != "coordinate":
        return
    generator = torch.Generator().manual_seed(2)
    for w in subject.samples():
        for step in STEPS:
            same = penalty.prox(w, torch.full_like(w, step))
            subject.near("prox with equal steps per coordinate", same, penalty.prox(w, step), 1e-9)
        steps = _steps_like(w, generator)
        u = penalty.prox(w, steps)
        best = _objective(penalty, u, w, steps)
        others = _objectives(penalty, list(_candidates(w, u, generator)), w, steps)
        if bool((others < best - 1e-9 * (1 + abs(best))).any()):
            subject.fail("prox with steps per coordinate", f"objective {best:.12g}", "no larger than any candidate's")


def _prox_satisfies_its_optimality_condition(subject: _Subject) -> None:
    penalty = subject.penalty
    if penalty.prox_steps == "none":
        return
    generator = torch.Generator().manual_seed(3)
    for w in subject.samples():
        choices: list[float | Tensor] = list(STEPS)
        if penalty.prox_steps == "coordinate":
            choices.append(_steps_like(w, generator))
        for step in choices:
            u = penalty.prox(w, step)
            residual = penalty.distance(u, (u - w) / step)
            scale = 1 + ((u - w) / step).abs().amax() if w.numel() else torch.ones(())
            subject.near("distance(u, (u − w)/step) at u = prox(w, step)", residual / scale, 0 * residual, 1e-8)


def _distance_is_the_limit_of_prox_steps(subject: _Subject) -> None:
    """‖w − prox_s(w − s·g)‖/s tends to the distance of −g to the subdifferential as s → 0."""
    penalty = subject.penalty
    generator = torch.Generator().manual_seed(4)
    for w in subject.members():
        g = torch.randn(w.shape, dtype=w.dtype, generator=generator)
        distances = penalty.distance(w, g)
        if not bool((distances >= 0).all()):
            subject.fail("distance", "negative or not a number", "≥ 0")
        subject.near("distance(w, −grad(w))", penalty.distance(w, -penalty.grad(w)), 0 * distances, 1e-9)
        if penalty.prox_steps == "none" or w.numel() == 0:
            continue
        s = 1e-6
        moved = torch.linalg.vector_norm(w - penalty.prox(w - s * g, s)) / s
        subject.near("distance against a small prox step", torch.linalg.vector_norm(distances), moved, 1e-3)


def _critical_strength_is_critical(subject: _Subject) -> None:
    penalty = subject.penalty
    for g in subject.samples():
        critical = penalty.critical_strength(g)
        if critical.shape != () or not bool(critical >= 0):
            subject.fail("critical_strength", critical, "a scalar ≥ 0")
        zero = torch.zeros_like(g)
        exempt = penalty.exempt(g)
        if exempt is not None:  # what is exempt does not count, whatever the loss makes of it
            g = torch.where(exempt, 0.0, g)
            subject.near("critical_strength without what is exempt", penalty.critical_strength(g), critical, 1e-12)
        if bool(critical.isinf()):
            above = subject.at(1e6).distance(zero, g)
            if not bool((above > 0).any()):
                subject.fail("critical_strength", "infinite", "finite: w = 0 is stationary at strength 1e6")
            continue
        if float(critical) == 0:
            subject.near("critical_strength 0", penalty.distance(zero, g), 0 * penalty.distance(zero, g), 1e-12)
            continue
        above = penalty.with_strength(float(critical) * (1 + 1e-9)).distance(zero, g)
        below = penalty.with_strength(float(critical) * (1 - 1e-6)).distance(zero, g)
        if bool((above > 1e-12 * (1 + critical)).any()):
            subject.fail("distance(0, g) at the critical strength", above.max().item(), 0.0)
        if not bool((below > 0).any()):
            subject.fail("distance(0, g) below the critical strength", 0.0, "> 0 somewhere")


def _convexity_is_true(subject: _Subject) -> None:
    """Ω is at most the mean of its values at two ends, half way between them: near 0 and far from it."""
    penalty = subject.penalty
    if not penalty.convex:
        return
    generator = torch.Generator().manual_seed(6)
    for w in subject.members():
        for size in (0.1, 1.0, 10.0):
            for part in (1.0, 0.2):  # of the coordinates that differ
                changed = (torch.rand(w.shape, generator=generator) < part).to(w.dtype)
                there = w + size * changed * torch.randn(w.shape, dtype=w.dtype, generator=generator)
                there = penalty.prox(there, 1.0) if penalty.constraint else there
                for a, b in ((w, there), (torch.zeros_like(w), there), (there, 2 * there)):
                    ends = (penalty.value(a) + penalty.value(b)) / 2
                    middle = penalty.value((a + b) / 2)
                    if bool(middle > ends + 1e-10 * (1 + ends.abs())):
                        subject.fail(
                            "convex", f"{middle:.12g} between two points", f"at most {ends:.12g}, or convex = False"
                        )


def _convex_part_leaves_a_smooth_rest(subject: _Subject) -> None:
    """C is convex, for the same steps; Ω − C has no kink, and C's strength follows Ω's. Check C's prox by itself."""
    penalty = subject.penalty
    part = penalty.convex_part
    if part is None:
        return
    if penalty.convex and part is not penalty and part != penalty:
        subject.fail("convex_part of a convex penalty", part, "the penalty itself")
    if not part.convex:
        subject.fail("convex_part.convex", part.convex, True)
    fewer = get_args(ProxSteps)  # from none to all
    if fewer.index(part.prox_steps) < fewer.index(penalty.prox_steps):
        subject.fail("convex_part.prox_steps", part.prox_steps, f"{penalty.prox_steps}, or more")
    if part is penalty or penalty.constraint:
        return
    _convexity_is_true(_Subject(part, subject.shapes))
    doubled = penalty.with_strength(2 * float(penalty.strength))
    twice = doubled.convex_part
    if twice is None or type(twice) is not type(part):
        subject.fail("convex_part at another strength", twice, f"a {type(part).__name__}")
    for w in subject.samples():
        for near in (w, 1e-7 * w, torch.zeros_like(w)):
            for penalty_now, part_now in ((penalty, part), (doubled, twice)):
                _is_smooth_there(subject, penalty_now, part_now, near)


def _is_smooth_there(subject: _Subject, penalty: Penalty, part: Penalty, w: Tensor) -> None:
    """Across each coordinate's 0, and around w, the slope of Ω − C changes by no more than a small move's worth."""

    def slope(at: Tensor) -> Tensor:
        return penalty.grad(at) - part.grad(at)

    h = 1e-7
    for direction in (torch.ones_like(w), -torch.ones_like(w), w.sign()):
        for start in (w, torch.where(w.abs() < 1e-3, torch.zeros_like(w), w)):
            subject.near("slope of Ω − convex_part", slope(start + h * direction), slope(start - h * direction), 1e-4)
            subject.near("slope of Ω − convex_part", slope(start), slope(start + h * direction), 1e-4)


def _kinks_are_where_it_says(subject: _Subject) -> None:
    """Along coordinates (of groups) that are not 0 the slopes from both sides are the same, zeros elsewhere or not."""
    penalty = subject.penalty
    if penalty.smooth or penalty.kinks == "unknown":
        return
    if penalty.kinks == "groups" and any(penalty.groups(w.shape) is None for w in subject.samples()):
        subject.fail("kinks = 'groups'", "no groups", "the dimensions that number the groups, or groups()")
    h = 1e-6
    for w in subject.members():
        for x in (w,) if penalty.constraint else (w, torch.ones_like(w)):  # the latter as a matrix is of rank one
            value = penalty.value(x)
            free = x != 0
            groups = penalty.groups(x.shape)
            if penalty.kinks == "groups" and groups is not None and x.numel():
                free = (groups.spread(groups.largest(free.to(x.dtype))) > 0).expand(x.shape)
            flat = x.flatten()
            for i in [int(i) for i in free.flatten().nonzero().flatten()[:6]]:
                up, down = flat.clone(), flat.clone()
                up[i] += h
                down[i] -= h
                ahead = (penalty.value(up.view(x.shape)) - value) / h
                behind = (value - penalty.value(down.view(x.shape))) / h
                subject.near(f"slopes from both sides, kinks = {penalty.kinks!r}", ahead, behind, 1e-3)


def _elastic_net_is_the_same(subject: _Subject) -> None:
    penalty = subject.penalty
    parts = penalty.as_elastic_net
    if parts is None:
        return
    l1, l2 = parts
    for w in subject.samples():
        expected = (l1 * w.abs() + l2 * w.square()).sum()
        subject.near("as_elastic_net: l1·Σ|w| + l2·Σw²", expected, penalty.value(w), 1e-9)


def _groups_are_on_their_own(subject: _Subject) -> None:
    """`distance` has one entry for each of the groups that `groups` tells, or for each coordinate where it has none.

    And where a group is not 0 nothing changes in it if all others become 0, unless it is the whole tensor.
    """
    penalty = subject.penalty
    for w in subject.members():
        groups = penalty.groups(w.shape)
        shape = tuple(w.shape) if groups is None else groups.count
        found = penalty.distance(w, torch.ones_like(w))
        if tuple(found.shape) != shape:
            subject.fail("distance (shape)", tuple(found.shape), f"{shape}, one entry per group or coordinate")
        if groups is None or w.numel() == 0:
            continue
        number = torch.arange(found.numel(), dtype=w.dtype).reshape(found.shape)  # one group after the other, alone
        where = groups.spread(groups.kept(number)) if found.ndim else torch.zeros_like(w)
        for each in range(min(found.numel(), 3)):
            mine = where == each
            alone = torch.where(mine, w, 0.0)
            for name, method in _methods(penalty).items():
                if name in ("grad", "prox", "prox with steps per coordinate"):
                    a, b = method(penalty, w, torch.ones_like(w)), method(penalty, alone, torch.ones_like(w))
                    subject.near(f"{name} of a group alone", torch.where(mine, b, 0.0), torch.where(mine, a, 0.0), 1e-9)


def _what_is_exempt_is_left_alone(subject: _Subject) -> None:
    penalty = subject.penalty
    generator = torch.Generator().manual_seed(7)
    for w in subject.members():
        exempt = penalty.exempt(w)
        if exempt is None:
            continue
        if exempt.shape != w.shape or exempt.dtype != torch.bool:
            subject.fail("exempt", f"{exempt.dtype} {tuple(exempt.shape)}", f"truth values of shape {tuple(w.shape)}")
        other = torch.where(exempt, torch.randn(w.shape, dtype=w.dtype, generator=generator), w)
        subject.near("value where only what is exempt differs", penalty.value(other), penalty.value(w), 1e-12)
        grad = penalty.grad(other)[exempt]
        subject.near("grad of what is exempt", grad, torch.zeros_like(grad), 0.0)
        if penalty.prox_steps != "none":
            subject.near("prox of what is exempt", penalty.prox(other, 0.7)[exempt], other[exempt], 0.0)
        if penalty.prox_steps == "coordinate":
            steps = _steps_like(w, generator)
            subject.near("prox of what is exempt", penalty.prox(other, steps)[exempt], other[exempt], 0.0)


def _binding_changes_nothing(subject: _Subject) -> None:
    """What `bind` makes of a penalty that remembers nothing of the weights gives the same numbers."""
    penalty = subject.penalty
    for w in subject.samples():
        bound = penalty.bind(w)
        if bound is penalty or bound.state():
            continue
        for name, method in _methods(penalty).items():
            other = torch.ones_like(w)
            subject.near(f"{name} after bind", method(bound, w, other), method(penalty, w, other), 1e-12)


def _methods(penalty: Penalty) -> dict[str, Callable[[Penalty, Tensor, Tensor], Tensor]]:
    """Each method as a function of a penalty, a tensor and another of its shape (a gradient, or steps)."""
    methods: dict[str, Callable[[Penalty, Tensor, Tensor], Tensor]] = {
        "value": lambda p, w, other: p.value(w),
        "grad": lambda p, w, other: p.grad(w),
        "distance": lambda p, w, other: p.distance(w, other),
        "critical_strength": lambda p, w, other: p.critical_strength(w),
    }
    if penalty.prox_steps != "none":
        methods["prox"] = lambda p, w, other: p.prox(w, 0.7)
    if penalty.prox_steps == "coordinate":
        methods["prox with steps per coordinate"] = lambda p, w, other: p.prox(w, other.abs() + 0.01)
    return methods


def _falls_into_shards(subject: _Subject) -> None:
    """What ``elementwise`` and ``group_dims`` promise: where a cut divides no group, each piece is on its own."""
    penalty = subject.penalty
    for w in subject.members():
        numbering = range(w.ndim) if penalty.elementwise else penalty.group_dims or ()
        for dim in numbering if w.ndim else ():
            size = (w.shape[dim] + 1) // 2 or 1

            bound = penalty.bind(w)  # weights and the like have its shape then

            def held(
                index: int, bound: Penalty = bound, dim: int = dim, size: int = size, shape: torch.Size = w.shape
            ) -> Penalty:
                return bound.with_state(lambda kept: kept.split(size, dim)[index] if kept.shape == shape else kept)

            parts = [(held(i), piece) for i, piece in enumerate(w.split(size, dim))]
            found = sum((part.value(piece) for part, piece in parts), start=w.new_zeros(()))
            subject.near(f"sum of the values of shards along {dim}", found, penalty.value(w), 1e-9)
            found = torch.cat([part.grad(piece) for part, piece in parts], dim)
            subject.near(f"grad of shards along {dim}", found, penalty.grad(w), 1e-9)
            if penalty.prox_steps != "none":
                found = torch.cat([part.prox(piece, 0.3) for part, piece in parts], dim)
                subject.near(f"prox of shards along {dim}", found, penalty.prox(w, 0.3), 1e-9)


def _strength_can_be_a_tensor(subject: _Subject) -> None:
    penalty = subject.penalty
    twin = subject.at(torch.tensor(float(penalty.strength), dtype=torch.float64))
    for w in subject.samples():
        other = w.flip(0) if w.ndim else -w
        for name, method in _methods(penalty).items():
            subject.near(f"{name} with a tensor as strength", method(twin, w, other), method(penalty, w, other), 1e-9)


def _works_under_vmap(subject: _Subject) -> None:
    penalty = subject.penalty
    generator = torch.Generator().manual_seed(5)
    strengths = float(penalty.strength) * torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    for shape in subject.shapes:
        w = torch.randn((3, *shape), dtype=torch.float64, generator=generator)
        w = w * (torch.rand(w.shape, generator=generator) > 0.3)
        other = torch.randn(w.shape, dtype=torch.float64, generator=generator)
        for name, method in _methods(penalty).items():

            def lane(strength: Tensor, w: Tensor, other: Tensor, method: Callable[..., Tensor] = method) -> Tensor:
                return method(subject.at(strength), w, other)

            try:
                batched = torch.func.vmap(lane)(strengths, w, other)
            except RuntimeError as error:
                subject.fail(f"{name} under vmap", str(error).splitlines()[0], "no control flow that depends on data")
            each = zip(strengths.tolist(), w, other, strict=True)
            single = torch.stack([method(subject.at(s), *tensors) for s, *tensors in each])
            subject.near(f"{name} under vmap", batched, single, 1e-9)


def _keeps_dtypes(subject: _Subject) -> None:
    penalty = subject.penalty
    for w in subject.samples():
        other = w.flip(0) if w.ndim else -w
        for dtype, tol in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
            a, b = w.to(dtype), other.to(dtype)
            for name, method in _methods(penalty).items():
                found = method(penalty, a, b)
                if name == "critical_strength" and not bool(found.isfinite()):
                    continue
                kept = torch.float32 if name in ("value", "critical_strength") else dtype
                if found.dtype != kept:
                    subject.fail(f"dtype of {name} for {dtype}", found.dtype, kept)
                subject.near(f"{name} in {dtype}", found, method(penalty, a.double(), b.double()), tol)
        if w.ndim == 2:
            for name, method in _methods(penalty).items():
                strided = torch.stack([w, w], dim=-1)[..., 0]
                subject.near(
                    f"{name} of a strided tensor", method(penalty, strided, other), method(penalty, w, other), 1e-12
                )


def _leaves_its_arguments_alone(subject: _Subject) -> None:
    penalty = subject.penalty
    for w in subject.samples():
        other = torch.ones_like(w)
        before_w, before_other = w.clone(), other.clone()
        for name, method in _methods(penalty).items():
            method(penalty, w, other)
            if not (torch.equal(w, before_w) and torch.equal(other, before_other)):
                subject.fail(f"arguments of {name}", "changed", "unchanged")


def _keeps_not_a_number(subject: _Subject) -> None:
    """A diverged weight must not come out of the prox as an exact zero."""
    penalty = subject.penalty
    if penalty.prox_steps == "none":
        return
    w = torch.full(max(subject.shapes, key=math.prod), 0.5, dtype=torch.float64)
    w.view(-1)[w.numel() // 2] = torch.nan
    if not bool(penalty.prox(w, 0.5).isnan().any()):
        subject.fail("prox of a tensor with NaN", "no NaN", "NaN where it was")
