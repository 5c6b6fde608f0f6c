"""Rules files: what they may say, and one line with the place for what they may not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from torchshrink import (
    L1,
    L2,
    NM,
    Box,
    ElasticNet,
    GroupLasso,
    L0Ball,
    LogSum,
    NonNegative,
    SparseGroupLasso,
    UnitNorm,
)
from torchshrink.cli.rules_file import parse_rules, read_rules
from torchshrink.errors import InputError


def test_every_form_of_a_rule():
    file = parse_rules(
        """
        on: all                       # a truth value to YAML, a key to us
        rules:
          "encoder.*": {l1: 1e-4}     # a text to YAML, a number to us
          "a.weight": null
          "b.weight": none
          "c.weight":
          "type:Embedding": ~
          d.weight: {elastic_net: {l1: 1e-3, l2: .0001}}
          e.weight: {group_lasso: {strength: 2, dim: 1}}
          f.weight: {group_lasso: {strength: 2, dim: [0, 1]}}
          g.weight: {sparse_group_lasso: {l1: 1, group: 2}}
          h.weight: {l1: 1, l2: 2}    # a sum
          o.weight: {log_sum: {strength: 1, epsilon: 0.01}}
          i.weight: non_negative      # what has no strength
          j.weight: {unit_norm: {dim: 1}}
          k.weight: {box: {low: -1, high: inf}}
          l.weight: {l0_ball: 100}
          m.weight: {l0_ball: 1.0}
          n.weight: {nm: {n: 2, m: 4}}
          p.weight: {l1: {strength: 1, weights: [1, 0, 2.5]}}
          q.weight: {group_lasso: {strength: 1, dim: 1, labels: [0, 0, 1], weights: 2}}
          r.weight: {sparse_group_lasso: {l1: 1, group: 2, dim: [0, 1], size: [2, 4]}}
        """,
        "rules.yaml",
    )
    assert file.on == "all"
    assert file.rules == {
        "encoder.*": L1(1e-4),
        "a.weight": None,
        "b.weight": None,
        "c.weight": None,
        "type:Embedding": None,
        "d.weight": ElasticNet(1e-3, 1e-4),
        "e.weight": GroupLasso(2.0, dim=1),
        "f.weight": GroupLasso(2.0, dim=(0, 1)),
        "g.weight": SparseGroupLasso(1.0, 2.0),
        "h.weight": L1(1.0) + L2(2.0),
        "o.weight": LogSum(1.0, 0.01),
        "i.weight": NonNegative(),
        "j.weight": UnitNorm(dim=1),
        "k.weight": Box(-1.0, math.inf),
        "l.weight": L0Ball(100),
        "m.weight": L0Ball(1.0),
        "n.weight": NM(2, 4),
        "p.weight": L1(1.0, weights=(1, 0, 2.5)),
        "q.weight": GroupLasso(1.0, dim=1, labels=(0, 0, 1), weights=2),
        "r.weight": SparseGroupLasso(1.0, 2.0, dim=(0, 1), size=(2, 4)),
    }
    assert next(iter(file.rules)) == "encoder.*"  # the order decides


def test_on_may_be_left_out():
    assert parse_rules("rules: {x: {l2: 1}}", "rules.yaml").on is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "rules.yaml: empty; expected `rules:`"),
        ("# only a comment", "rules.yaml: empty"),
        ("rules:", "rules.yaml, line 1: '': expected pattern"),
        ("rules: {}", "rules.yaml: no rules"),
        ("on: weights", "rules.yaml: no rules"),
        ("- a\n- b", "rules.yaml, line 1: a list: expected `on:` and `rules:`"),
        ("just words", "rules.yaml, line 1: 'just words': expected"),
        ("rules:\n  x: {l1: 1\n  y: {l2: 1}", "rules.yaml, line 3: not YAML"),
        ("rules:\n\tx: 1", "rules.yaml, line 2: not YAML"),
        ("\0", "rules.yaml: not YAML"),
        ("rule: {x: {l1: 1}}", "line 1: unknown key 'rule': expected `on:` or `rules:`; did you mean 'rules'?"),
        ("'*.weight': {l1: 1}", "a pattern goes under `rules:`"),
        ("on: weight\nrules: {x: {l1: 1}}", "line 1: on: weight: expected weights or all; did you mean 'weights'?"),
        ("on: [all]\nrules: {x: {l1: 1}}", "line 1: expected weights or all, not a list"),
        ("rules:\n  x: {l3: 1}", "line 2: unknown penalty 'l3': expected one of l1, l2"),
        ("rules:\n  x: {elasticnet: 1}", "did you mean 'elastic_net'?"),
        ("rules:\n  x: l1", "line 2: 'l1': expected {penalty: strength}, or none to exempt; a strength is missing"),
        ("rules:\n  x: 1e-4", "line 2: '1e-4': expected {penalty: strength}"),
        ("rules:\n  x: {}", "line 2: {}: expected"),
        ("rules:\n  x: [l1]", "line 2: a list: expected"),
        ("rules:\n  x: {l1: {strength: 1, weights: [1, -1]}}", "weights: -1: expected a finite number of 0 or more"),
        ("rules:\n  x: {group_lasso: {strength: 1, size: 1.5}}", "size: '1.5': expected a whole number such as 1"),
        ("rules:\n  x: {group_lasso: {strength: 1, size: 0}}", "size=0: expected a whole number ≥ 1, for dim=0"),
        ("rules:\n  x: {group_lasso: {strength: 1, labels: 3}}", "labels: torch.int64 of shape () given"),
        ("rules:\n  x: {group_lasso: {strength: 1, labels: [99999999999999999999]}}", "labels=(99999999999999999999,)"),
        ("rules:\n  x: {l1: much}", "line 2: l1: 'much' is not a number; expected a strength such as 1e-4"),
        ("rules:\n  x: {l1: -1}", "line 2: l1: -1: expected a finite number of 0 or more"),
        ("rules:\n  x: {l1: .nan}", "l1: '.nan' is not a number"),
        ("rules:\n  x: {l1: nan}", "l1: nan: expected a finite number of 0 or more"),
        ("rules:\n  x: {l1: inf}", "l1: inf: expected a finite number of 0 or more"),
        ("rules:\n  x: {l1: }", "l1: '' is not a number"),
        ("rules:\n  x: {l1: [1]}", "line 2: a list: expected a strength"),
        ("rules:\n  x: {elastic_net: 1}", "elastic_net: 1: expected its strengths by name, {l1: 1e-4, l2: 1e-4}"),
        ("rules:\n  x: {elastic_net: {l1: 1}}", "elastic_net: l2 missing; expected {l1: 1e-4, l2: 1e-4}"),
        ("rules:\n  x: {elastic_net: {l1: 1, l3: 1}}", "elastic_net has no 'l3': expected l1, l2"),
        ("rules:\n  x: {group_lasso: {strenght: 1}}", "labels, size; did you mean 'strength'"),
        ("rules:\n  x: {group_lasso: {strength: 1, dim: a}}", "group_lasso: dim: 'a': expected a dimension such as 0"),
        ("rules:\n  x: {group_lasso: {strength: 1, dim: {a: 1}}}", "expected a dimension for group_lasso: dim, not"),
        ("rules:\n  x: {non_negative: 1}", "line 2: non_negative: 1: it has no strength; write non_negative alone"),
        ("rules:\n  x: {l0_ball: many}", "l0_ball: 'many' is not a number; expected one such as 0.1"),
        ("rules:\n  x: {l0_ball: 1.5}", "line 2: keep=1.5: expected how many weights stay"),
        ("rules:\n  x: {box: 1}", "box: 1: expected its strengths by name, {low: -1, high: 1}"),
        ("rules:\n  x: {box: {low: 1}}", "box: high missing; expected {low: -1, high: 1}"),
        ("rules:\n  x: {box: {low: 1, high: 0}}", "line 2: low=1, high=0: expected a lower bound below"),
        ("rules:\n  x: {nm: {n: 2.0, m: 4}}", "line 2: n=2.0, m=4: expected whole numbers"),
        ("rules:\n  x: {l1: 1}\n  x: {l2: 1}", "line 3: 'x' stands twice; give each key once"),
        ("rules:\n  x: {l1: 1, l1: 2}", "line 2: 'l1' stands twice"),
        ("rules:\n  [a, b]: {l1: 1}", "a key that is no text"),
        ("rules:\n  '': {l1: 1}", "line 2: an empty pattern"),
        ("rules:\n  x: {l1: 1, group_lasso: 1, elastic_net: {l1: 1, l2: 1}}", "line 2:"),
        ("a: 1\n---\nb: 2", "rules.yaml, line 2: not YAML"),
        ("rules: !!python/object/apply:os.system ['true']", "line 1: a list: expected pattern"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text, expected):
    with pytest.raises(InputError) as caught:
        parse_rules(text, "rules.yaml")
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert message.startswith("rules.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_rules(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_rules(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not UTF-8"):
        read_rules(tmp_path / "binary.yaml")


def test_the_example_of_the_documentation_is_read():
    page = (Path(__file__).parents[2] / "docs" / "penalties.md").read_text(encoding="utf-8")
    example = page[page.index("```yaml\n") + 8 :]
    found = parse_rules(example[: example.index("```")], where="docs")
    assert (found.on, len(found.rules)) == ("weights", 4)
