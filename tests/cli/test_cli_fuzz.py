"""A few of the cases of ``benchmarks/fuzz.py``, so that the script keeps working."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore")  # they are shown on the command line, and some inputs deserve several
def test_a_sample_of_the_fuzz(here, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("fuzz", BENCHMARKS / "fuzz.py")
    fuzz = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz", fuzz)
    spec.loader.exec_module(fuzz)
    found = [(case, *fuzz.outcome(case)) for case in fuzz.drawn([0], 35, here)]
    assert not [(case.name, case.argv, problem, said) for case, _, problem, said in found if problem]
    assert {status for _, status, _, _ in found} == {0, 2}
    assert len({case.name.split()[0] for case, *_ in found}) >= 6  # every kind
