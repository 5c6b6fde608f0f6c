"""What the documentation says is so: every example runs, every command parses, every link leads somewhere.

The site is built strictly and has every public name. The docstrings of every module and the Python blocks of every page
are run by one mechanism. The blocks of a page share their names and run in order; one with ``>>>`` must print what
stands there, one without must run.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import torchshrink as ts
from torchshrink.cli.app import app
from torchshrink.penalties import BUILTIN
from torchshrink.regularizer.attachment import Method

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ts.__path__, "torchshrink.")
    if module.name != "torchshrink.__main__"
)

FRAMEWORKS = ("accelerate", "ignite", "lightning", "skorch", "transformers")  # which not everybody has
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BETWEEN = r"<!-- {0} -->\n(.*?)<!-- /{0} -->"


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks in a language, each with the number of lines before it."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in FENCED.finditer(text) if match[1] == language]


def lacking(code: str) -> list[str]:
    """The frameworks that a block imports and that are not here."""
    named = set(re.findall(r"^(?:>>> )?(?:from|import) (\w+)", code, flags=re.MULTILINE)) & set(FRAMEWORKS)
    return sorted(name for name in named if importlib.util.find_spec(name) is None)


def run_examples(test: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)


def public_names() -> set[str]:
    """Every name that a user may import: ``ts.*``, the public rooms', and the doors'."""
    names = {f"torchshrink.{name}" for name in ts.__all__}  # the rooms among them
    for room in ("models", "step_sizes"):
        names |= {f"torchshrink.{room}.{name}" for name in getattr(ts, room).__all__}
    for room in ("errors", "integrations.sklearn"):
        module = importlib.import_module(f"torchshrink.{room}")
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        names |= {f"torchshrink.{room}.{name}" for name in own if not name.startswith("_")}
    doors = [f"torchshrink.integrations.{door}.RegularizerCallback" for door in ("lightning", "skorch", "transformers")]
    return names | {"torchshrink.testing.check_penalty", *doors}


def test_the_site_is_built_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run([*command, str(ROOT / "docs"), str(tmp_path / "site")], capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    listed = (tmp_path / "site" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    names = {line.split(" py:")[0] for line in zlib.decompress(listed).decode().splitlines() if " py:" in line}
    assert public_names() - names == set()
    pages = list((tmp_path / "site").rglob("*.html"))
    fetched = r"""<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//"""
    assert [page.name for page in pages if re.search(fetched, page.read_text(encoding="utf-8"))] == []


@pytest.mark.filterwarnings("ignore:.*(num_workers|log_every_n_steps|LeafSpec|torch.jit)")  # of frameworks
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for line, block in blocks(page, "python"):
        if lacking(block):
            continue
        if ">>> " in block:
            # Named by block: what looks up the source of an earlier one, as torch.export does, finds none and goes on.
            name = f"{page.name}, line {line}"
            test = doctest.DocTestParser().get_doctest(block, names, name, str(page), line)
            run_examples(test)
            names = test.globs  # which a DocTest copies
        else:
            exec(compile("\n" * line + block, str(page), "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    if name.startswith("torchshrink.integrations."):
        framework = name.rpartition(".")[2]
        if framework in FRAMEWORKS:
            pytest.importorskip(framework)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name):
        if test.examples:
            run_examples(test)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_parse(page: Path) -> None:
    group = typer.main.get_command(app)
    for _, block in blocks(page, "console") + blocks(page, "sh"):
        for line in re.findall(r"^\$ torchshrink (.+)$", block, flags=re.MULTILINE):
            verb, *arguments = shlex.split(line, comments=True)
            group.commands[verb].make_context(verb, arguments)


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page: its headings, as the site and repositories make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    here = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    missing = [link for link in here if not (page.parent / link).exists()]
    assert not missing
    anchored = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [
        (link, anchor) for link, anchor in anchored if anchor not in anchors(page.parent / link if link else page)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    words = re.findall(r"`(?:python )?([\w/]+\.(?:py|md|ipynb))\b", page.read_text(encoding="utf-8"))
    ours = [word for word in words if (ROOT / word.split("/")[0]).is_dir()]
    assert [word for word in ours if not (ROOT / word).exists()] == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    names = [str(page.relative_to(ROOT / "docs")) for page in DOCS if page.name != "index.md"]
    assert [name for name in names if f"({name})" not in index] == []


@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_an_example_of_the_gallery_keeps_what_it_claims(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = script.read_text(encoding="utf-8")
    for name in re.findall(r"^import (peft)", code, flags=re.MULTILINE):
        pytest.importorskip(name)
    assert code.count("\nassert ") >= 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    runpy.run_path(str(ROOT / "scripts" / "gallery.py"))["run"](script.stem)
    for picture in (tmp_path / f"{script.stem}.svg", script.with_suffix(".svg")):
        assert picture.stat().st_size < 40_000
    assert f"(gallery/{script.name})" in (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_the_pictures_of_penalties_are_what_the_penalties_do() -> None:
    drawn = runpy.run_path(str(ROOT / "scripts" / "pictures.py"))
    assert set(drawn["PENALTIES"]) == {*BUILTIN, "group_lasso_columns"}
    page = (ROOT / "docs" / "which_penalty.md").read_text(encoding="utf-8")
    for name, penalty in drawn["PENALTIES"].items():
        assert f"ts.{type(penalty).__name__}(" in page
        kept = (drawn["FOLDER"] / f"{name}.svg").read_text(encoding="utf-8")
        now = drawn["picture"](name)
        number = r"-?\d+\.?\d*"
        assert re.sub(number, "", kept) == re.sub(number, "", now)
        pairs = zip(re.findall(number, kept), re.findall(number, now), strict=True)
        assert max(abs(float(a) - float(b)) for a, b in pairs) < 0.2  # of a pixel


def test_the_glossary_has_every_word() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = {row.split("|")[1].strip(" `").lower() for row in page.splitlines() if row.startswith("|")}
    single = {part for word in words for part in re.split(r", | \(|\)", word)}
    design = (
        "penalty, strength, term, rule, method, latent weights, step size, reach, path, lane, certificate, gap, plan"
    )
    concepts = (
        "objective, prox, group, constraint, sparsity, schedule, anchor, activation, verdict, fold, repeat, engine"
    )
    results = "point, refit, relaxed, polish, duality gap, conversion, shrink, export, audit, attach, grid, test rows"
    acts = set(get_args(Method)) - {"auto", "prox", "latent"}
    penalties = "l1, l2, elastic net, group lasso, sparse group lasso, mcp, scad, log-sum, l2sp, nuclear norm, n:m"
    wanted = {word for words in (design, concepts, results, penalties) for word in words.split(", ")}
    assert wanted - single == set()
    assert {f"{act} (a method)" for act in acts} - words == set()


def test_what_type_checkers_are_told_is_what_there_is() -> None:
    stub = runpy.run_path(str(ROOT / "scripts" / "stub.py"))
    assert stub["PLACE"].read_text(encoding="utf-8") == stub["stub"]()
    assert len(ts.__all__) <= 42


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_public_room_is_there_in_a_fresh_process() -> None:
    code = (
        "import os, torch\n"  # once for all of them
        "for room in ('errors', 'models', 'step_sizes', 'testing'):\n"
        "    if not (child := os.fork()):\n"
        "        import torchshrink as ts\n"
        "        found = getattr(ts, room, None)\n"
        "        os._exit(0 if found and found.__doc__ and room in dir(ts) else 1)\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        raise SystemExit(f'ts.{room} is not there')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ts.__all__)
def test_a_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(ts, name))


def test_every_built_in_penalty_is_a_public_name() -> None:
    assert all(getattr(ts, penalty.__name__, None) is penalty for penalty in BUILTIN.values())


def test_the_readme_names_what_is_public() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\bts\.([A-Za-z_]\w*)", text))
    assert used <= set(ts.__all__)


def test_the_table_of_strengths_in_the_readme_is_what_its_script_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    truth = runpy.run_path(str(ROOT / "benchmarks" / "truth.py"))
    (quoted,) = re.findall(BETWEEN.format("truth"), (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in quoted.splitlines() if line.startswith("|")]
    shown = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    measured = [row.cells() for row in truth["rows"]()]
    assert shown[0] == truth["HEADER"]
    for found, expected in zip(shown[2:], measured, strict=True):
        assert found[:-1] == expected[:-1]
        assert found[-1] == expected[-1] or 0.5 < float(found[-1]) / float(expected[-1]) < 2


def test_the_table_of_costs_in_the_readme_has_the_rows_of_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    steps = runpy.run_path(str(ROOT / "benchmarks" / "steps.py"))
    (quoted,) = re.findall(BETWEEN.format("steps"), (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in quoted.strip().splitlines()]
    assert [row[0] for row in rows[2:]] == [name for name in steps["WAYS"] if name != "no penalty"]
    assert all(float(cell) > 0.5 for row in rows[2:] for cell in row[1:5])


def test_the_numbers_of_the_readme_stand_where_their_scripts_are_named() -> None:
    """Beside the tables and the code: each number of three digits or more is one of a page that names its script."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for table in ("truth", "steps"):
        text = re.sub(BETWEEN.format(table), "", text, flags=re.DOTALL)
    text = re.sub(r"\([^()]*\)|`[^`\n]*`", "", FENCED.sub("", text))  # code, and where links lead
    numbers = set(re.findall(r"\b\d[\d,]*\d{2}\b", text))
    pages = [page.read_text(encoding="utf-8") for page in [*DOCS, *GALLERY]]
    measured = "".join(
        page for page in pages if re.search(r"benchmarks/\w+\.py|^assert |^>>> ", page, flags=re.MULTILINE)
    )
    assert len(numbers) >= 3
    assert [number for number in numbers if not re.search(rf"(?<![\d,]){number}(?![\d,])", measured)] == []
    words = {7: "seven", 20: "Twenty"}
    assert f"[{words[len(BUILTIN)]} penalties and constraints]" in text
    assert f"one of {words[len(GALLERY)]} in" in text


@pytest.mark.parametrize("table", ["truth", "steps"])
def test_the_readme_quotes_each_benchmark(table: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(BETWEEN.format(table), text, flags=re.DOTALL)
    assert len(quoted.strip().splitlines()) > 3
