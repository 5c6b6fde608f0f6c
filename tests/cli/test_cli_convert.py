"""``torchshrink convert``: what it prints, what it refuses, and that its options are the table's parameters."""

import inspect
import json
import subprocess
import sys

import pytest

from torchshrink.cli import convert as verb
from torchshrink.cli import main
from torchshrink.conversions.convert import REFUSED, TOOLS, convert


def run(capsys, *arguments):
    status = main(["convert", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_logistic_regression_as_a_penalty(capsys):
    status, out, err = run(
        capsys, "--from", "sklearn.LogisticRegression", "--C", "1.0", "--rows", "569", "--to", "torchshrink"
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[0].endswith(f"= ts.L2({1 / 1138!r})")
    assert "exact        both minimise the same function\n" in out
    assert "outputs=2" in out


def test_json_is_one_object_and_the_librarys_own(capsys):
    status, out, err = run(
        capsys, "--from", "glmnet.gaussian", "--lambda", "2", "--alpha", "0.5", "--y-sd", "77", "--to",
        "sklearn.ElasticNet", "--json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    expected = convert("glmnet.gaussian", to="sklearn.ElasticNet", lambda_=2.0, alpha=0.5, y_sd=77.0)
    assert json.loads(out) == expected.to_dict()


def test_what_is_not_exact_says_so(capsys):
    status, out, _ = run(capsys, "--from", "sklearn.MLPClassifier", "--alpha", "1", "--rows", "442")
    assert status == 0
    assert " ≈ ts.L2(0.0025)" in out
    assert "exact        no: see the notes\n" in out
    assert out.index("note         442 rows leave 42") == out.index("note ")


def test_what_is_the_destinations_alone(capsys):
    arguments = ["--from", "sklearn.Ridge", "--alpha", "3", "--rows", "50", "--to", "sklearn.MLPRegressor", "--json"]
    _, adam, _ = run(capsys, *arguments, "--batch-size", "10")
    _, lbfgs, _ = run(capsys, *arguments, "--to-set", "solver=lbfgs")
    _, other, _ = run(capsys, *arguments, "--to-set", "batch-size=5")
    assert [json.loads(out)["settings"]["alpha"] for out in (adam, lbfgs, other)] == pytest.approx([0.6, 3.0, 0.3])
    status, _, err = run(
        capsys, "--from", "keras.L2", "--l2", "1", "--to", "torch.Adam", "--to-set", "decoupled_weight_decay=true"
    )
    assert status == 2
    assert "‖w‖∞ ≤ 1/λ" in err


def test_the_list_has_every_tool(capsys):
    _, table, _ = run(capsys, "--list")
    status, out, err = run(capsys, "--list", "--json")
    assert (status, err) == (0, "")
    assert list(json.loads(out)["tools"]) == list(TOOLS)
    assert json.loads(out)["no_equivalent"] == REFUSED
    for name in (*TOOLS, *REFUSED):
        assert name in table


WRONG = [
    ([], ["no --from given", "--list"]),
    (["--from", "sklearn.Rigde"], ["sklearn.Rigde", "did you mean 'sklearn.Ridge'?"]),
    (["--from", "sklearn.Ridge", "--alpha", "1"], ["needs rows"]),
    (["--from", "sklearn.Lasso", "--alpha", "-1"], ["alpha=-1.0", "≥ 0"]),
    (["--from", "sklearn.Lasso", "--alpha", "nan"], ["alpha=nan"]),
    (["--from", "sklearn.Lasso", "--alpha", "one"], ["--alpha", "torchshrink convert --help"]),
    (["--from", "sklearn.Lasso", "--alpha", "1", "--C", "1"], ["C is no parameter of sklearn.Lasso"]),
    (["--from", "sklearn.Lasso", "--alpha", "1", "--rows", "1.5"], ["--rows"]),
    (["--from", "sklearn.Lasso", "--aplha", "1"], ["--aplha", "--alpha"]),
    (["--from", "sklearn.Lasso", "--alpha", "1", "--to-set", "solver"], ["--to-set solver", "NAME=VALUE"]),
    (["--from", "sklearn.Lasso", "--alpha", "1", "--to-set", "loss=mean", "--to-set", "loss=mean"], ["given twice"]),
    (["--from", "torch.AdamW", "--weight-decay", "0.01"], ["torch.AdamW has no equivalent", "‖w‖∞ ≤ 1/λ"]),
    (["--from", "torch.Adam", "--weight-decay", "1", "--decoupled-weight-decay"], ["‖w‖∞ ≤ 1/λ"]),
]


@pytest.mark.parametrize(("arguments", "parts"), WRONG)
def test_bad_usage_is_one_line_and_status_2(capsys, arguments, parts):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_every_parameter_of_the_table_is_an_option():
    options = {name.rstrip("_") for name in inspect.signature(verb.convert).parameters}
    parameters = {p.name for tool in TOOLS.values() for p in (*tool.settings, *tool.needs)}
    assert parameters <= options
    assert options - parameters == {name.rstrip("_") for name in verb._NOT_PARAMETERS}


def test_it_does_not_wait_for_torch():
    code = (
        "import sys; from torchshrink.cli import main; "
        "status = main(['convert', '--from', 'keras.L2', '--l2', '1']); sys.exit(status or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
