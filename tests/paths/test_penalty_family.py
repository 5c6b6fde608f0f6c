import pytest
from torch import nn

import torchshrink as ts
from torchshrink.errors import InputError
from torchshrink.paths.penalty_family import families, family


def l1_on_the_head(strength):
    return {"head.*": ts.L1(strength), nn.Embedding: None}


def test_a_class_makes_its_penalty():
    made = family(ts.GroupLasso)
    assert made.name == "group_lasso"
    assert made.make(0.5) == ts.GroupLasso(0.5)


def test_a_template_keeps_its_other_settings():
    made = family(ts.GroupLasso(7.0, dim=1))
    assert made.make(0.5) == ts.GroupLasso(0.5, dim=1)
    proportion = family(ts.ElasticNet(3.0, 1.0)).make(2.0)
    assert proportion == ts.ElasticNet(1.5, 0.5)


def test_a_callable_makes_rules():
    made = family(l1_on_the_head)
    assert made.name == "l1_on_the_head"
    assert made.make(0.5)["head.*"] == ts.L1(0.5)
    assert made.describe(0.5) == {"head.*": str(ts.L1(0.5)), "type:Embedding": None}
    assert family(lambda s: ts.L1(s)).name == "penalty"


def test_several_by_name_or_in_a_row():
    assert [each.name for each in families([ts.L1, ts.L2])] == ["l1", "l2"]
    assert [each.name for each in families({"a": ts.L1, "b": lambda s: ts.L2(s)})] == ["a", "b"]
    assert [each.name for each in families(ts.L1)] == ["l1"]


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (ts.ElasticNet, r"ElasticNet\(1, 1\)"),
        (ts.SparseGroupLasso, "a template"),
        (0.1, "a penalty class"),
        ("l1", "a penalty class"),
        (nn.Linear, "a penalty class"),
        ([], "none given"),
        ({}, "none given"),
        ([ts.L1, ts.L1(0.5)], "two are called 'l1'"),
        ({"head.*": ts.L1}, "give a callable"),
        ({nn.Embedding: ts.L1}, "give a callable"),
        ({"l1": None}, "give a callable"),
    ],
)
def test_what_is_no_family_is_refused_in_one_line(penalty, message):
    with pytest.raises(InputError, match=message) as raised:
        families(penalty)
    assert "\n" not in str(raised.value)


def test_a_callable_that_returns_no_penalty_is_refused():
    with pytest.raises(InputError, match=r"for strength 0\.1 the callable returned float"):
        family(lambda s: s).make(0.1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("group_lasso", "expected: ts.GroupLasso"), ("ridge", "expected: ts.L2"), ("l5", "such as ts.L1")],
)
def test_a_name_is_no_penalty(name, hint):
    with pytest.raises(InputError, match=hint):
        families(name)


@pytest.mark.parametrize("penalty", [ts.L1Ball, ts.MaxNorm, ts.L1Ball(1.0), ts.MaxNorm(2.0)])
def test_constraints_have_no_strength_to_tune(penalty):
    with pytest.raises(InputError, match="a constraint, whose radius is no strength"):
        family(penalty)
