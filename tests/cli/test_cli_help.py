"""The help: what most people need comes first and fits a screen; its examples run; what it lists is what is taken."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
import typer

from torchshrink.cli import options
from torchshrink.cli.app import VERBS, app
from torchshrink.cli.examples import EXAMPLES
from torchshrink.penalties import BUILTIN

GROUP = typer.main.get_command(app)
WIDTHS = (80, 120)


@pytest.fixture(scope="module")
def shown():
    """The help of each verb at each width, without trailing blanks."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for width in WIDTHS:
            patch.setattr("typer.rich_utils.MAX_WIDTH", width)
            for name, verb in GROUP.commands.items():
                context = typer.Context(verb, info_name=name, parent=typer.Context(GROUP, info_name="torchshrink"))
                found[name, width] = [line.rstrip() for line in _captured(lambda v=verb, c=context: v.get_help(c))]
    return found


def _captured(print_help) -> list[str]:
    import contextlib
    import io

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        returned = print_help()
    return (stream.getvalue() or returned or "").splitlines()


def panel(lines: list[str], title: str) -> list[str]:
    start = next(k for k, line in enumerate(lines) if line.startswith(f"╭─ {title} "))
    end = next(k for k in range(start, len(lines)) if lines[k].startswith("╰"))
    return [line.strip("│ ") for line in lines[start + 1 : end]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("verb", VERBS)
def test_what_most_people_need_stands_first_and_fits_a_screen(shown, verb, width):
    lines = shown[verb, width]
    titles = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭")]
    assert next(title for title in titles if title != "Arguments") == "Options"
    end = max(k for k, line in enumerate(lines) if line.startswith("╰") and k < _start(lines, titles, "Options"))
    assert end <= 45
    common = " ".join(panel(lines, "Options"))
    assert ("--json" in common) == any("--json" in each.opts for each in GROUP.commands[verb].params)
    assert "--debug" not in common


def _start(lines: list[str], titles: list[str], title: str) -> int:
    """Where the panel after this one begins, or the end."""
    after = titles[titles.index(title) + 1 :]
    return next((k for k, line in enumerate(lines) if after and line.startswith(f"╭─ {after[0]} ")), len(lines))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("verb", VERBS)
def test_it_wraps_and_nothing_is_cut_off(shown, verb, width):
    lines = shown[verb, width]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    written = set(re.findall(r"--[a-z0-9][a-zA-Z0-9-]*", text)) | {"--C"}
    for parameter in GROUP.commands[verb].params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            assert not flag.startswith("--") or flag in written
    # A paragraph is filled: no line of it ends early where the first word of the next one would have fitted.
    prose = lines[: next(k for k, line in enumerate(lines) if line.startswith("╭"))]
    for line, after in itertools.pairwise(prose):
        if line.strip() and after.strip() and "$ torchshrink" not in line + after:
            assert len(line) + 1 + len(after.split()[0]) > width - 2


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_shows_examples(shown, verb):
    for width in WIDTHS:
        for words in EXAMPLES[verb]:
            assert f" $ torchshrink {words}" in shown[verb, width]
            assert len(words) + len(" $ torchshrink ") <= 80


def test_the_examples_run(run, here):
    rows = [f"{a},{'red' if a % 3 else 'blue'},{2 * a + a % 3}" for a in range(40)]
    (here / "sales.csv").write_text("\n".join(["size,colour,price", *rows]) + "\n")
    (here / "rules.yaml").write_text("rules: {'hidden*': {l2: 1e-4}, '*': none}\n")
    quick = {
        "path": {"--strengths": "2", "--repeats": "1", "--folds": "2", "--epochs": "1", "--hidden": "4"},
        "train": {"--epochs": "1", "--hidden": "4"},
    }
    for verb in VERBS:
        for words in EXAMPLES[verb]:
            given = shlex.split(words)
            shorter = {flag: value for flag, value in quick.get(verb, {}).items() if flag not in given}
            if "linear" in given:
                del shorter["--hidden"]
            ran = run(*given, *(word for pair in shorter.items() for word in pair))
            assert ran.status == 0, (words, ran.err)
            assert ran.out


@pytest.mark.parametrize("verb", ["path", "train", "audit"])
def test_the_penalties_listed_are_those_that_the_verb_takes(shown, run, verb):
    listed = set(re.findall(r"\w+", " ".join(panel(shown[verb, 120], "Options")).partition("--penalty")[2]))
    own = [name for name, each in BUILTIN.items() if verb != "path" or not each.constraint]
    assert set(BUILTIN) & listed == set(own)
    assert ("none" in listed) == (verb != "path")
    extra = {
        "max_norm": "--radius=1",
        "l1_ball": "--radius=1",
        "box": "--low=0",
        "l0_ball": "--keep=3",
        "nm": "--pattern=2:4",
    }
    for name in BUILTIN if verb == "audit" else ():
        assert run("audit", "iris", "--hidden", "8", "--penalty", name, *filter(None, [extra.get(name)])).status == 0
    if verb == "path":
        for name in ("box", "nothing"):
            ran = run("path", "iris", "--penalty", name)
            assert (ran.status, len(ran.lines)) == (2, 1)
        assert "max_norm" not in ran.err  # nor does the error offer what is refused


def test_the_names_in_the_help_are_those_of_the_library():
    assert tuple(BUILTIN) == options.TUNABLE + options.CONSTRAINTS
    assert tuple(name for name, each in BUILTIN.items() if each.constraint) == options.CONSTRAINTS


CHOICES = {
    "--task": options.TASKS, "--method": options.METHODS, "--on": options.SELECTIONS, "--optimizer": options.OPTIMIZERS,
    "--choose": options.CHOICES, "--groups": options.GROUPS, "--engine": options.ENGINES, "--order": options.ORDERS,
    "--format": options.FORMATS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "flag"),
    [
        (name, flag)
        for name, verb in GROUP.commands.items()
        for parameter in verb.params
        for flag in parameter.opts
        if flag in CHOICES
    ],
)
def test_the_choices_are_all_in_the_help_and_others_are_refused_in_a_line(shown, run, verb, flag):
    (parameter,) = (each for each in GROUP.commands[verb].params if flag in each.opts)
    told = f"{parameter.metavar} {parameter.help}"
    assert all(re.search(rf"\b{name}\b", told) for name in CHOICES[flag])
    where = "x" if verb == "shrink" else "iris"
    ran = run(verb, where, flag, "nothing", *(["--penalty", "group_lasso"] if flag == "--groups" else []))
    assert (ran.status, ran.out, len(ran.lines)) == (2, "", 1)
    assert all(name in ran.err for name in CHOICES[flag])
