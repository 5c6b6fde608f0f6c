"""Columns of text that are meant as numbers: a generator of them, and those that are not."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from torchshrink.data import Format, from_frame, load
from torchshrink.data.numerals import MISSING
from torchshrink.errors import InputError

NAN = math.nan


def grouped(value: float, digits: int, thousands: str, decimal: str) -> str:
    text = f"{value:,.{digits}f}"
    return text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)


# How a value with some digits is written: each must be read as that value.
WRITTEN = {
    "plain": lambda v, d: f"{v:.{d}f}",
    "signed": lambda v, d: f"{v:+.{d}f}",
    "exponent": lambda v, d: f"{v:.15e}",
    "blanks": lambda v, d: f"  {v:.{d}f}\t",
    "separator before": lambda v, d: f"\x1d{v:.{d}f}",
    "unicode minus": lambda v, d: f"{v:.{d}f}".replace("-", "−"),
    "commas": lambda v, d: grouped(v, d, ",", "."),
    "apostrophes": lambda v, d: grouped(v, d, "'", "."),
    "narrow blanks": lambda v, d: grouped(v, d, "\u202f", "."),
    "decimal comma": lambda v, d: f"{v:.{d}f}".replace(".", ","),
    "points and comma": lambda v, d: grouped(v, d, ".", ","),
    "dollars": lambda v, d: ("-" if v < 0 else "") + "$" + grouped(abs(v), d, ",", "."),
    "euros": lambda v, d: grouped(v, d, ".", ",") + " €",
    "percent": lambda v, d: f"{v:.{d}f} %",
    "accounting": lambda v, d: f"({-v:,.{d}f})" if v < 0 else f"{v:,.{d}f}",
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(WRITTEN)),
    st.sampled_from([1, 2, 4]),  # not 3: as many as a group of digits has, see below
    st.lists(st.integers(-(10**8), 10**8), min_size=3, max_size=30, unique=True),
    st.lists(st.sampled_from(sorted(MISSING | {"", "N/A", "NaN", "#DIV/0!"})), max_size=40),
    st.randoms(use_true_random=False),
)
def test_columns_that_look_like_numbers_are_numbers_of_the_right_value(tmp_path, how, digits, wholes, marks, random):
    values = [whole / 10**digits for whole in wholes]
    cells = [(value, WRITTEN[how](value, digits)) for value in values] + [(NAN, mark) for mark in marks]
    random.shuffle(cells)
    path = tmp_path / "a.csv"
    table = pd.DataFrame(
        {"x": [text for _, text in cells], "t": ["u", "v"] * (len(cells) // 2) + ["u"] * (len(cells) % 2)}
    )
    for sep in ",;":
        table.to_csv(path, index=False, sep=sep)
        dataset = load(str(path), target="t")
        assert dataset.sizes == (0,)
        assert dataset.X[:, 0].tolist() == pytest.approx([value for value, _ in cells], rel=1e-14, nan_ok=True)
        said = " ".join(dataset.notes)
        assert all(repr(mark) in said for mark in set(marks) - {""}) or "more" in said


def column(tmp_path: Path, values: list[str], sep: str = ",", **format: object) -> object:
    table = pd.DataFrame(
        {"x": values, "z": range(len(values)), "t": ["u", "v"] * (len(values) // 2) + ["u"] * (len(values) % 2)}
    )
    table.to_csv(tmp_path / "a.csv", index=False, sep=sep)
    return load(str(tmp_path / "a.csv"), target="t", format=Format(**format))


READ = {
    "a question mark": (["1.5", "?", "2.5"], {}, [1.5, NAN, 2.5]),
    "grouped digits alone": (["1,234", "2,345", "7"], {}, [1234, 2345, 7]),
    "the same, told otherwise": (["1,234", "2,345", "7"], {"decimal": ","}, [1.234, 2.345, 7]),
    "points that group": (["1.234", "2.345", "7"], {"thousands": "."}, [1234, 2345, 7]),
    "points that group, by another value": (["1.234", "2.345", "7,5"], {}, [1234, 2345, 7.5]),
    "a text that is said to be missing": (["1", "2", "lost", "4"], {"na": ("lost",)}, [1, 2, NAN, 4]),
    "a number that is said to be missing": (["1", "-999", "-999.0"], {"na": ("-999", "-999.0")}, [1, NAN, NAN]),
    "booleans": (["True", "false", "NA"], {}, [1, 0, NAN]),
    "Indian groups": (["1,23,456", "12,34,567.5", "5"], {}, [123456, 1234567.5, 5]),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_column_is_read_as(tmp_path, name):
    values, format, expected = READ[name]
    dataset = column(tmp_path, values, **format)
    assert dataset.X[:, 0].tolist() == pytest.approx(expected, nan_ok=True)


CATEGORIES = {
    "codes with letters": ["SW1A", "90210", "1A", "2B"] * 10,
    "zip codes": [f"{7 * i % 19:05}" for i in range(40)],
    "yes and no": ["yes", "no"] * 20,
    "countries, Namibia among them": ["NA", "DE", "FR", "ZA"] * 10,
    "None as an answer": ["None", "some", "many"] * 13,
    "grades": ["1", "2", "2B", "3A", "3B"] * 8,
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_stay_what_they_are(tmp_path, name):
    values = CATEGORIES[name]
    dataset = column(tmp_path, values)
    assert set(dataset.columns[0].categories) == set(values)
    assert not dataset.X.isnan().any()
    assert not [note for note in dataset.notes if "missing" in note]
    assert f"'x' {len(set(values))}" in dataset.kinds


REFUSED = {
    "a stray text": ([f"{i / 7:.3f}" for i in range(40)] + ["see note"], ",", "'see note'"),
    "stray texts among whole numbers": ([str(i) for i in range(60)] + ["abc", "abc"], ",", "'abc' in 2 of 62"),
    "two readings": (["1,234", "2,345", "3,456"], ";", "1234 or 1.234: say --decimal"),
    "points and commas": (["1.5", "2,5", "3.5", "4,5"], ",", "decimal comma"),
    "dates": (["2020-01-05", "2020-02-06", ""], ",", "dates"),
    "other dates": (["5.1.2020", "17.2.2020"], ",", "dates"),
    "times": (["12:30", "7:05"], ",", "dates or times"),
    "identifiers beyond float64": ([str(10**18 + i) for i in range(30)], ",", "more digits"),
    "percentages and shares": (["12 %", "0.5", "7 %"], ",", "percentages"),
    "two currencies": (["$5", "€6", "$7"], ",", "currency"),
    "units": ([f"{i} kg" for i in range(30)], ",", "'kg' after each"),
    "names": ([f"Ann {i}" for i in range(30)], ",", "names the rows"),
    "401 digits": (["9" * 401, "1", "2"], ",", "too large for float32, in 1 of 3"),
    "infinities": (["inf", "1", "2"], ",", "'x' is infinite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_neither_is_refused_by_the_columns_name(tmp_path, name):
    values, sep, says = REFUSED[name]
    with pytest.raises(InputError) as caught:
        column(tmp_path, values, sep)
    assert "'x'" in str(caught.value)
    assert says in str(caught.value)
    assert column(tmp_path, values, sep, drop=("x",)).X.shape[1] == 1


def test_other_columns_show_how_a_file_writes_numbers(tmp_path):
    table = "a;b;t\n1,234;3,14;u\n2,345;2,71;v\n"
    (tmp_path / "a.csv").write_text(table)
    assert load(str(tmp_path / "a.csv"), target="t").X.tolist() == [[1.234, 3.14], [2.345, 2.71]]
    (tmp_path / "a.csv").write_text(table.replace("3,14", "3.14").replace("2,71", "2.71"))
    assert load(str(tmp_path / "a.csv"), target="t").X.tolist() == [[1234, 3.14], [2345, 2.71]]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_separator_is_found_and_can_be_said(tmp_path, sep):
    path = tmp_path / "a.csv"
    path.write_text(sep.join("abt") + "\n" + sep.join("12u") + "\n" + sep.join("34v") + "\n")
    for format in (Format(), Format(sep=sep)):
        assert load(str(path), target="t", format=format).X.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match="one column"):
        load(str(path), target="t", format=Format(sep="/"))


def test_labels_are_kept_and_only_empty_ones_are_missing(tmp_path):
    path = tmp_path / "a.csv"
    for labels in (["NA", "DE"], ["None", "few"], ["?", "!"], ["nan", "x"]):
        path.write_text("a,t\n" + "".join(f"{i},{labels[i % 2]}\n" for i in range(8)))
        assert set(load(str(path), target="t").classes) == set(labels)
    path.write_text("a,t\n1,NA\n2,\n3,DE\n")
    with pytest.raises(InputError, match="missing in 1 of 3"):
        load(str(path), target="t")
    with pytest.raises(InputError, match="--task classification"):
        from_frame("t", pd.DataFrame({"a": range(4), "t": ["1.5", "2.5", "?", "7"]}), "t")


def test_large_numbers_that_differ_little_stay_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("northing,t\n" + "".join(f"{5_000_000 + i / 1000:.3f},{'uv'[i % 2]}\n" for i in range(284)))
    assert len(load(str(path), target="t").X.unique()) == 284
