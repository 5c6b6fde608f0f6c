"""Every penalty keeps the contract, and the contract is sharp: it fails on each of these seeded mutants."""

import io
import re
from dataclasses import dataclass

import pytest
import torch

from torchshrink.errors import ContractError
from torchshrink.penalties import (
    BUILTIN,
    L1,
    L2,
    L2SP,
    MCP,
    NM,
    SCAD,
    Box,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    GroupSCAD,
    L0Ball,
    L1Ball,
    LogSum,
    MaxNorm,
    NonNegative,
    NuclearNorm,
    Orthogonal,
    Penalty,
    SparseGroupLasso,
    UnitNorm,
)
from torchshrink.testing import SHAPES, check_penalty

EXAMPLES = {
    "l1": [L1(0.3)],
    "l2": [L2(0.2)],
    "elastic_net": [ElasticNet(0.3, 0.1), ElasticNet(0.2, 0.0)],
    "group_lasso": [GroupLasso(0.3), GroupLasso(0.3, dim=-1), GroupLasso(0.2, dim=())],
    "sparse_group_lasso": [SparseGroupLasso(0.2, 0.3), SparseGroupLasso(0.0, 0.3), SparseGroupLasso(0.3, 0.0, dim=-1)],
    "mcp": [MCP(0.3), MCP(0.5, gamma=1.2)],
    "scad": [SCAD(0.3), SCAD(0.5, gamma=2.2)],
    "log_sum": [LogSum(0.3, 0.5), LogSum(0.1, 0.05)],
    "group_mcp": [GroupMCP(0.5, gamma=1.2, dim=-1)],
    "group_scad": [GroupSCAD(0.3)],
    "l2sp": [L2SP(0.3, anchor=0.0), L2SP(0.3, anchor=0.5)],
    "nuclear_norm": [NuclearNorm(0.3)],
    "orthogonal": [Orthogonal(0.3)],
    "max_norm": [MaxNorm(0.8), MaxNorm(1.5, dim=-1)],
    "unit_norm": [UnitNorm(), UnitNorm(dim=())],
    "l1_ball": [L1Ball(1.2)],
    "non_negative": [NonNegative()],
    "box": [Box(-0.4, 0.7), Box(0.2, torch.inf)],
    "l0_ball": [L0Ball(3), L0Ball(0.4)],
    "nm": [NM(2, 4), NM(1, 2)],
}


@pytest.mark.parametrize("penalty", [p for ps in EXAMPLES.values() for p in ps], ids=str)
def test_the_contract_holds(penalty):
    check_penalty(penalty)


WITH_TENSORS = [
    L1(0.3, weights=torch.arange(12.0).reshape(3, 4)),
    GroupLasso(0.3, labels=torch.tensor([0, 0, 1])),
    GroupLasso(0.2, size=3),
]


@pytest.mark.parametrize("penalty", [*(p for ps in EXAMPLES.values() for p in ps), *WITH_TENSORS], ids=str)
def test_a_checkpoint_that_holds_penalties_loads_without_running_code(penalty):
    file = io.BytesIO()
    torch.save({"hyper_parameters": {"penalty": penalty}}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["hyper_parameters"]["penalty"]
    assert loaded == penalty
    w = torch.randn(3, 4)
    assert torch.equal(loaded.value(w), penalty.value(w))


SAYS = {  # smooth, convex, constraint, elementwise, kinks, prox_steps: where False and "unknown" would do, only slower
    "l1": (False, True, False, True, "coordinates", "coordinate"),
    "l2": (True, True, False, True, "unknown", "coordinate"),
    "elastic_net": (False, True, False, True, "coordinates", "coordinate"),
    "group_lasso": (False, True, False, False, "groups", "coordinate"),
    "sparse_group_lasso": (False, True, False, False, "coordinates", "coordinate"),
    "mcp": (False, False, False, True, "coordinates", "coordinate"),
    "scad": (False, False, False, True, "coordinates", "coordinate"),
    "log_sum": (False, False, False, True, "coordinates", "coordinate"),
    "group_mcp": (False, False, False, False, "groups", "scalar"),
    "group_scad": (False, False, False, False, "groups", "scalar"),
    "l2sp": (True, True, False, True, "unknown", "coordinate"),
    "nuclear_norm": (False, True, False, False, "unknown", "scalar"),
    "orthogonal": (True, False, False, False, "unknown", "none"),
    "max_norm": (False, True, True, False, "unknown", "coordinate"),
    "unit_norm": (False, False, True, False, "unknown", "coordinate"),
    "l1_ball": (False, True, True, False, "unknown", "coordinate"),
    "non_negative": (False, True, True, True, "coordinates", "coordinate"),
    "box": (False, True, True, True, "unknown", "coordinate"),
    "l0_ball": (False, False, True, False, "coordinates", "coordinate"),
    "nm": (False, False, True, False, "coordinates", "coordinate"),
}


@pytest.mark.parametrize("name", BUILTIN)
def test_each_says_of_itself_all_that_is_true(name):
    found = BUILTIN[name]
    facts = (found.smooth, found.convex, found.constraint, found.elementwise, found.kinks, found.prox_steps)
    assert facts == SAYS[name]


def test_two_dimensions_may_number_the_groups():
    check_penalty(GroupLasso(0.3, dim=(0, 1)), shapes=((5, 3), (1, 1), (2, 3, 2, 2)))


def test_every_builtin_has_an_example():
    assert set(EXAMPLES) == set(BUILTIN)
    assert all(type(penalty) is BUILTIN[name] for name, penalties in EXAMPLES.items() for penalty in penalties)


@dataclass(frozen=True)
class Wrapped(Penalty):
    """A penalty that passes everything on to the one inside: what mutants change one method of."""

    inside: Penalty
    smooth = False
    prox_steps = "coordinate"

    @property
    def strength(self):
        return self.inside.strength

    @property
    def group_dims(self):
        return self.inside.group_dims

    def value(self, w):
        return self.inside.value(w)

    def grad(self, w):
        return self.inside.grad(w)

    def prox(self, w, step):
        return self.inside.prox(w, step)

    def distance(self, w, grad):
        return self.inside.distance(w, grad)

    def critical_strength(self, grad):
        return self.inside.critical_strength(grad)

    def with_strength(self, strength):
        return type(self)(self.inside.with_strength(strength))


GROUPS = GroupLasso(0.3)


def mutant(inside, **methods):
    name = "_".join(methods)
    made = type(name, (Wrapped,), methods)
    return made(inside)


MUTANTS = {
    "a lost ½: the prox of λw²/2": mutant(L2(0.2), prox=lambda self, w, s: w / (1 + s * self.strength)),
    "a lost ½: the grad of λw²/2": mutant(L2(0.2), grad=lambda self, w: self.strength * w),
    "the step left out of the threshold": mutant(L1(0.3), prox=lambda self, w, s: self.inside.prox(w, 1.0)),
    "a detached value": mutant(L1(0.3), value=lambda self, w: self.inside.value(w.detach()) + 0 * w.sum()),
    "NaN at a zero group": mutant(
        GROUPS, grad=lambda self, w: self.strength * w.shape[-1] ** 0.5 * w / w.norm(dim=-1, keepdim=True)
    ),
    "autograd NaN at a zero group": mutant(
        GROUPS,
        value=lambda self, w: (
            self.inside.value(w)
            if w.ndim != 2
            else (self.strength * w.shape[1] ** 0.5 * w.square().sum(1).sqrt().sum())
        ),
    ),
    "a missing norm: √p_g left out": mutant(
        GROUPS, value=lambda self, w: self.inside.value(w) / max(w[0].numel() if w.ndim and len(w) else 1, 1) ** 0.5
    ),
    "the wrong axis": mutant(GROUPS, prox=lambda self, w, s: GroupLasso(0.3, dim=-1).prox(w, s)),
    "a mean step in place of one per coordinate": mutant(
        GROUPS, prox=lambda self, w, s: self.inside.prox(w, s.mean() if isinstance(s, torch.Tensor) and s.ndim else s)
    ),
    "distance without the interval at 0": mutant(L1(0.3), distance=lambda self, w, g: (g + self.grad(w)).abs()),
    "distance blind to the sign": mutant(L1(0.3), distance=lambda self, w, g: (g.abs() - self.strength).abs()),
    "critical strength without √p_g": mutant(
        GROUPS, critical_strength=lambda self, g: g.norm(dim=-1).amax() if g.numel() and g.ndim else g.abs().sum()
    ),
    "group and l1 thresholds in the wrong order": mutant(
        SparseGroupLasso(0.2, 0.3), prox=lambda self, w, s: L1(0.2).prox(GroupLasso(0.3).prox(w, s), s)
    ),
    "l2 shrinkage before the threshold": mutant(
        ElasticNet(0.3, 0.2), prox=lambda self, w, s: L1(0.3).prox(L2(0.2).prox(w, s), s)
    ),
    "zeros for NaN": mutant(L1(0.3), prox=lambda self, w, s: self.inside.prox(w, s).nan_to_num(0.0)),
    "half precision returned as float32": mutant(L1(0.3), grad=lambda self, w: self.strength * w.sign().float()),
    "its argument changed in place": mutant(L2(0.2), prox=lambda self, w, s: w.div_(1 + 2 * s * self.strength)),
    "a strength that is not kept": mutant(L1(0.3), with_strength=lambda self, strength: self),
    "groups that claim to be single coordinates": mutant(GROUPS, elementwise=True),
    "convex, where it is not": mutant(MCP(0.3), convex=True),
    "convex far from 0 only": mutant(SCAD(0.3), convex=True),
    "convex, where matrices make it bend": mutant(Orthogonal(0.3), convex=True, smooth=True, prox_steps="none"),
    "a convex part that is not convex": mutant(MCP(0.3), convex_part=property(lambda self: SCAD(self.strength))),
    "a convex part whose rest has a kink": mutant(MCP(0.3), convex_part=property(lambda self: L1(self.strength / 2))),
    "a convex part that stays behind": mutant(MCP(0.3), convex_part=property(lambda self: L1(0.3))),
    "a convex part for fewer steps": mutant(MCP(0.3), convex_part=property(lambda self: NuclearNorm(self.strength))),
    "a convex penalty with another for its part": mutant(
        L1(0.3), convex=True, convex_part=property(lambda self: ElasticNet(self.strength, 0.1))
    ),
    "kinks at coordinates called kinks at groups": mutant(SparseGroupLasso(0.2, 0.3), kinks="groups"),
    "kinks at groups without groups": mutant(L1(0.3), kinks="groups"),
    "kinks of singular values called kinks at coordinates": mutant(
        NuclearNorm(0.3), kinks="coordinates", prox_steps="scalar"
    ),
    "an elastic net that it is not": mutant(MCP(0.3), as_elastic_net=property(lambda self: (self.strength, 0.0))),
    "an elastic net with a lost ½": mutant(L2(0.2), as_elastic_net=property(lambda self: (0.0, self.strength / 2))),
    "the smallest weights stay": mutant(L0Ball(3), constraint=True, prox=lambda self, w, s: w - L0Ball(3).prox(w, s)),
    "the largest stay, whatever the steps": mutant(
        L0Ball(3), constraint=True, prox=lambda self, w, s: self.inside.prox(w, 1.0)
    ),
    "blocks of another length": mutant(NM(1, 2), constraint=True, prox=lambda self, w, s: NM(1, 4).prox(w, s)),
    "places left are forgotten": mutant(
        L0Ball(3), constraint=True, distance=lambda self, w, g: torch.where(w != 0, self.inside.distance(w, g), 0.0)
    ),
    "a support called convex": mutant(L0Ball(3), constraint=True, convex=True),
    "a sphere called convex": mutant(UnitNorm(), constraint=True, convex=True),
    "the direction, whatever the steps": mutant(
        UnitNorm(), constraint=True, prox=lambda self, w, s: self.inside.prox(w, 1.0)
    ),
    "a normal cone that is a line": mutant(
        NonNegative(), constraint=True, distance=lambda self, w, g: torch.where(w > 0, g.abs(), 0.0)
    ),
    "a box that is a sphere's": mutant(Box(-0.4, 0.7), constraint=True, prox=lambda self, w, s: w.clamp(-0.4, 0.4)),
    "control flow on data": mutant(L1(0.3), value=lambda self, w: self.inside.value(w) if (w != 0).any() else w.sum()),
}


NAMED = {
    "convex, where it is not": "convex",
    "convex far from 0 only": "convex",
    "a support called convex": "convex",
    "a sphere called convex": "convex",
    "convex, where matrices make it bend": "convex",
    "a convex part that is not convex": "convex_part.convex",
    "a convex part whose rest has a kink": "slope of Ω − convex_part",
    "a convex part that stays behind": "slope of Ω − convex_part",
    "a convex part for fewer steps": "convex_part.prox_steps",
    "a convex penalty with another for its part": "convex_part of a convex penalty",
    "kinks at coordinates called kinks at groups": "slopes from both sides, kinks = 'groups'",
    "kinks at groups without groups": "kinks = 'groups'",
    "kinks of singular values called kinks at coordinates": "slopes from both sides, kinks = 'coordinates'",
    "an elastic net that it is not": "as_elastic_net",
    "an elastic net with a lost ½": "as_elastic_net",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_fails_on_a_mutant(name):
    with pytest.raises(ContractError, match=f", {re.escape(NAMED[name])}.*: found" if name in NAMED else ": found"):
        check_penalty(MUTANTS[name])


@pytest.mark.parametrize("inside", [L1(0.3), L2(0.2), GROUPS, MCP(0.3), SCAD(0.3), SparseGroupLasso(0.2, 0.3)], ids=str)
def test_the_mutants_fail_for_what_they_change_and_not_for_being_wrapped(inside):
    check_penalty(Wrapped(inside))


@pytest.mark.parametrize("inside", [NuclearNorm(0.3), Orthogonal(0.3)], ids=str)
def test_nor_do_those_with_fewer_proxes_or_none(inside):
    check_penalty(mutant(inside, smooth=inside.smooth, prox_steps=inside.prox_steps))


FACTS = ("convex", "kinks", "convex_part", "as_elastic_net")


@pytest.mark.parametrize("penalty", [ps[0] for ps in EXAMPLES.values()], ids=str)
def test_a_wrapper_that_passes_the_facts_on_keeps_the_contract(penalty):
    """So none of them is true of a class and not of what it computes."""
    own = {name: getattr(penalty, name) for name in FACTS if name != "convex_part"}
    own |= {name: getattr(penalty, name) for name in ("smooth", "prox_steps", "constraint", "elementwise")}
    part = property(lambda self: self if self.convex else self.inside.convex_part)
    check_penalty(mutant(penalty, **own, convex_part=part), shapes=((5, 3), ()))


def test_what_is_not_said_is_taken_for_unknown():
    wrapped = Wrapped(MCP(0.3))
    assert (wrapped.convex, wrapped.kinks, wrapped.convex_part, wrapped.as_elastic_net) == (
        False,
        "unknown",
        None,
        None,
    )


def test_a_failure_names_the_penalty_and_the_clause():
    with pytest.raises(ContractError, match=r"prox.*inside=L2\(strength=0.2\).*|.*inside=L2.*prox"):
        check_penalty(MUTANTS["a lost ½: the prox of λw²/2"])


def test_shapes_include_the_awkward_ones():
    assert () in SHAPES
    assert (1, 1) in SHAPES
    assert any(0 in shape for shape in SHAPES)
