"""The application's endings: help, version, statuses, one line for whatever goes wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torchshrink.cli import app as application
from torchshrink.cli import main


def python(*arguments: str, **settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **settings)


def test_help_and_version_do_not_wait_for_torch():
    code = (
        "import sys\nfrom torchshrink.cli import main\n"
        "statuses = [main(words.split()) for words in ('--help', 'train --help', 'path --help', '--version')]\n"
        "print(statuses, 'torch' in sys.modules, 'sklearn' in sys.modules, 'pandas' in sys.modules, file=sys.stderr)"
    )
    ran = python("-c", code)
    assert ran.stderr.strip() == "[0, 0, 0, 0] False False False"
    assert "--strength" in ran.stdout
    assert "torchshrink 0." in ran.stdout


def test_without_arguments_the_help_is_printed(run):
    ran = run()
    assert ran.status == 0
    assert ran.out == run("--help").out
    assert "Usage: torchshrink" in ran.out
    for verb in ("path", "train", "audit"):
        assert verb in ran.out


def test_the_module_is_the_command():
    ran = python("-m", "torchshrink", "trian", "digits")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: No such command 'trian'. Did you mean 'train'? See torchshrink --help\n"


def test_a_fault_of_the_program_is_one_line_and_its_traceback_is_for_debug(run, monkeypatch):
    def broken(**options):
        raise ZeroDivisionError("of its own\nfault")

    monkeypatch.setattr("torchshrink.cli.from_options.load_data", lambda *a, **k: broken())
    ran = run("audit", "digits")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "internal error: ZeroDivisionError: of its own fault; run again with --debug\n"
    for arguments in (("audit", "digits", "--debug"), ("--debug", "audit", "digits")):
        ran = run(*arguments)
        assert ran.status == 1
        assert "Traceback" in ran.err
        assert ran.lines[-1].startswith("internal error: ZeroDivisionError")


def test_debug_shows_where_a_bad_input_was_found(run):
    ran = run("audit", "digit", "--debug")
    assert ran.status == 2
    assert "Traceback" in ran.err
    assert ran.lines[-1].startswith("error: ")


def test_what_the_system_says_is_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("torchshrink.cli.from_options.load_data", full)
    ran = run("audit", "digits")
    assert (ran.status, ran.err) == (2, "error: runs/x: No space left on device\n")


def test_ctrl_c_before_anything_has_been_started(run, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchshrink.cli.from_options.load_data", interrupted)
    ran = run("train", "digits")
    assert (ran.status, ran.out) == (130, "")
    assert ran.err == "interrupted: nothing had been started, so nothing was saved\n"


def test_a_warning_is_one_line_without_its_place_in_the_code(run):
    import warnings

    from torchshrink.errors import ObjectiveWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", ObjectiveWarning)
        ran = run("train", "iris", "--method", "decoupled", "--epochs", "1", "--quiet")
    assert ran.status == 0
    (line,) = ran.lines
    assert line.startswith("warning: ")
    assert "decoupled" in line
    assert "decoupled" in ran.out.split("certificate")[1]  # and the certificate repeats it


def test_a_reader_that_goes_away_is_not_an_error():
    command = f"{sys.executable} -m torchshrink train --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    assert ran.stdout.split()[-1] in ("0", "141")  # 0 where the pipe held all of it


def test_a_reader_that_has_gone_away_is_not_an_error():
    # Not `head`: it may read fast enough for nothing to be noticed. This reader closes before anything is written.
    command = f"{{ sleep 0.4; {sys.executable} -m torchshrink --version; echo $? >&2; }} | true"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ran.stderr.split() == ["141"]


def test_every_verb_takes_debug():
    for verb in application.VERBS:
        assert main([verb, "--help"]) == 0


@pytest.mark.parametrize("arguments", [["train"], ["path"], ["train", "--epochs"], ["--nonsense"], ["train", "x", "y"]])
def test_usage_errors_are_one_line(run, arguments):
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.lines) == 1
    assert ran.err.startswith("error: ")
    assert "See torchshrink" in ran.err
