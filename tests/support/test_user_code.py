import sys

import pytest

from torchshrink.errors import InputError
from torchshrink.support.text import suggestion
from torchshrink.support.user_code import call_function, import_function

MODULE = """
import sys
VALUE = 3
def build():
    return 42
def lazy():
    import user_helper
    return user_helper.ANSWER
def fails():
    raise RuntimeError("two\\nlines")
def exits():
    sys.exit(3)
def needs(argument):
    return argument
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_module.py").write_text(MODULE)
    (tmp_path / "user_helper.py").write_text("ANSWER = 7\n")
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path  # restored after every success and failure
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_functions_of_the_working_directory_are_found(here):
    assert import_function("user_module:build")() == 42
    assert call_function("user_module:build") == 42


def test_a_function_may_import_its_neighbours_when_it_is_called(here):
    assert call_function("user_module:lazy") == 7


def test_modules_in_packages_are_found(here):
    (here / "user_package").mkdir()
    (here / "user_package" / "inner.py").write_text("def build(): return 1\n")
    assert call_function("user_package.inner:build") == 1


def test_a_path_entry_that_was_there_stays(here, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    call_function("user_module:build")
    assert sys.path[-1] == str(here)
    monkeypatch.undo()
    monkeypatch.chdir(here)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("user_module", "form module:function"),
        ("user_module:", "form module:function"),
        (":build", "form module:function"),
        ("user_module:build:again", "form module:function"),
        ("user_module:build()", "form module:function"),
        ("user module:build", "form module:function"),
        ("./user_module.py:build", "form module:function"),
        ("", "form module:function"),
        ("nowhere_to_be_found:build", "no module 'nowhere_to_be_found'"),
        ("user_module.inner:build", "no module 'user_module.inner'"),
        ("torch.nowhere:build", "no module 'torch.nowhere'"),
        ("user_broken:build", "importing user_broken raised ZeroDivisionError"),
        ("user_syntax:build", "importing user_syntax raised SyntaxError"),
        ("user_exits:build", "importing user_exits raised SystemExit"),
        ("user_needs:build", "importing user_needs raised ModuleNotFoundError: No module named 'absent_dependency'"),
        ("user_module:biuld", "no 'biuld'; did you mean 'build'?"),
        ("user_module:zzz", "has no 'zzz'"),
        ("user_module:VALUE", "is of type int"),
        ("user_module:fails", "raised RuntimeError: two lines"),
        ("user_module:exits", "raised SystemExit: 3"),
        ("user_module:needs", "raised TypeError"),
    ],
)
def test_every_failure_is_one_line(here, spec, says):
    (here / "user_broken.py").write_text("1 / 0\n")
    (here / "user_syntax.py").write_text("def build(:\n")
    (here / "user_exits.py").write_text("raise SystemExit(1)\n")
    (here / "user_needs.py").write_text("import absent_dependency\n")
    with pytest.raises(InputError) as caught:
        call_function(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interrupt_is_not_an_input_error(here):
    (here / "user_slow.py").write_text("def build():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        call_function("user_slow:build")


def test_near_misses():
    assert suggestion("Digit", ["wine", "digits"]) == "; did you mean 'digits'?"
    assert suggestion("AGE", ["Age", "Sex"]) == "; did you mean 'Age'?"
    assert suggestion("x", []) == ""
