"""Columns of text that are meant as numbers: a generator of them, and those that are not."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from torchshrink.data import Format, from_frame, load
from torchshrink.data.numerals import MISSING, Custom
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
    "text in a spreadsheet": lambda v, d: f"'{v:.{d}f}",
    "a formula": lambda v, d: f'="{v:.{d}f}"' if v < 0 else f"={v:.{d}f}",
    "no cents": lambda v, d: f"{v:.0f}.-" if v.is_integer() else f"{v:.{d}f}",
    "no cents after a comma": lambda v, d: grouped(v, d, ".", ",") + (",– kr" if v.is_integer() and not d else " kr"),
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
    "the same number, written otherwise": (["1.5", "-999.0", "−999", "2"], {"na": ("-999",)}, [1.5, NAN, NAN, 2]),
    "the same with a comma": (["1,5", "-999,0", "-999,000", "2"], {"na": ("-999",)}, [1.5, NAN, NAN, 2]),
    "the same, said with a comma": (["1,5", "-999", "2"], {"na": ("-999,0",)}, [1.5, NAN, 2]),
    "another number with the same digits": (["1,5", "1,234", "2"], {"na": ("1234",)}, [1.5, 1.234, 2]),
    "a number with other groups": (["1,5", "9.999", "2"], {"na": ("9999",)}, [1.5, NAN, 2]),
    "booleans": (["True", "false", "NA"], {}, [1, 0, NAN]),
    "no cents": (["12.-", "77.-", "75.50", "CHF 1'200.-", "CHF 3.--"], {}, [12, 77, 75.5, 1200, 3]),
    "no cents after a comma": (["12,-", "-7,–", "1.500,—", "75,50"], {}, [12, -7, 1500, 75.5]),
    "no kroner": (["500,- kr", "kr 20", "1.200,50 kr."], {}, [500, 20, 1200.5]),
    "no euro cents": (["12,- €", "12,– €", "3,50 €"], {}, [12, 12, 3.5]),
    "no paise": (["Rs 500", "Rs. 1,200/-", "Rs 7.50"], {}, [500, 1200, 7.5]),
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
    "zip codes that a spreadsheet was told to keep": [f"'{7 * i % 19:05}" for i in range(40)],
    "yes and no": ["yes", "no"] * 20,
    "countries, Namibia among them": ["NA", "DE", "FR", "ZA"] * 10,
    "None as an answer": ["None", "some", "many"] * 13,
    "counts without an end": ["0", "1", "2", "3+"] * 10,
    "letters with a sign": ["A-", "A", "B+", "B"] * 10,
    "grades": ["1", "2", "2B", "3A", "3B"] * 8,
}


# What is written beside a number: a column of such is neither numbers nor categories.
BESIDE = {
    "degrees": ["{} °C", "{}°", "{}ºF", "{} C"],
    "shares": ["{} ‰", "{} % vol", "{}%RH"],
    "units": ["{} kg", "{} g", "{}kg", "{} KG", "{}mg"],
    "compound units": ["{} km/h", "{} W/m2", "{} m²", "{} sq ft", "{} mg/L", "{} €/kg"],
    "rooms": ["{} Zimmer"],
    "inches": ["{}''", '{}"', "{}'"],
    "comparisons": [">{}", "<{}", "<= {}", "≥{}", "~{}", "ca. {}", "less than {}", "{}+"],
    "limits beside numbers": ["{}", "<{}"],
    "numbering": ["#{}"],
    "errors": ["{} ± 1", "{} +/- 0.5", "{}±0.1 kg", "{} (1.2)"],
    "powers": ["{}x10^3", "{}×10³", "{} * 10^-2", "{}*10**4"],
    "multiples": ["{}k", "{}M", "${}k", "€{} bn", "{}"],
    "fractions": ["1/{}", "{}/2", "1 1/{}", "{}½"],
    "blood pressures": ["120/{}", "{}/80 mmHg"],
    "durations": ["{} min", "{}h", "1h{}", "{} days", "{} min 5 s"],
    "heights": ["5'{}\"", "6 ft {} in"],
    "latitudes": ["{}°N", "{} °S", "{}N"],
    "footnotes": ["{}*", "{}**", "{}"],
}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(BESIDE)),
    st.lists(st.integers(1, 999), min_size=25, max_size=40, unique=True),
    st.sampled_from(["{}", "{}.5", "{},25"]),
    st.integers(1, 3),
    st.lists(st.sampled_from(sorted(MISSING)), max_size=20),
)
def test_numbers_with_something_beside_them_are_refused(name, wholes, written, times, marks):
    ways = BESIDE[name]
    cells = [ways[i % len(ways)].format(written.format(whole)) for i, whole in enumerate(wholes)] * times + marks
    frame = pd.DataFrame({"x": cells, "z": range(len(cells)), "t": range(len(cells))})
    with pytest.raises(InputError, match=r"column 'x' is numbers (with|but for)|column 'x' is dates") as caught:
        from_frame("t", frame, "t", task="regression")
    assert "\n" not in str(caught.value)
    assert "--drop" in str(caught.value)


# Names that have a number in them: there is no number to write instead.
NAMES = {
    "letters before": ["A{}"],
    "letters before, of several kinds": ["A{}", "B-{}", "X-{}", "C{}"],
    "words before": ["Room {}", "Bus {}", "No {}"],
    "versions": ["v{}.2", "{}.0.1"],
    "postcodes": ["{:05}"],
    "British postcodes": ["SW{} 1AA", "N{}A 2BB", "EC{}M 3CC"],
    "Dutch postcodes": ["1{:03} AB", "2{:03} CD", "3{:03} XZ", "4{:03} QR"],
    "ordinals": ["{}th", "{}st", "{}nd", "{}rd"],
    "ordinals of one kind": ["{}th"],
    "French ordinals": ["{}e", "{}er"],
    "streets": ["{}th Avenue", "{} Main Street", "{} High Street", "{} Elm Road"],
    "houses and classes": ["{}a", "{}b", "{}c", "{}"],
    "ranges": ["{}-1000", "{}–2000"],
    "intervals": ["(0, {}]", "[{}, 1000)"],
    "sizes": ["{}x20", "10x{}"],
    "paragraphs": ["§{}", "§ {}"],
    "addresses": ["10.0.0.{}", "192.168.{}.1"],
    "ports": ["{}/tcp", "{}/udp"],
}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(NAMES)), st.lists(st.integers(1, 999), min_size=25, max_size=40, unique=True))
def test_names_with_numbers_in_them_stay_categories(name, wholes):
    ways = NAMES[name]
    cells = [ways[i % len(ways)].format(whole) for i, whole in enumerate(wholes)] * 2
    frame = pd.DataFrame({"x": cells, "z": range(len(cells)), "t": range(len(cells))})
    assert set(from_frame("t", frame, "t", task="regression").columns[0].categories) == set(cells)


def test_few_values_with_units_are_categories():
    cells = ["5 kg", "10 kg", "<5", "1/2", '30"'] * 10
    frame = pd.DataFrame({"x": cells, "t": range(50)})
    assert len(from_frame("t", frame, "t", task="regression").columns[0].categories) == 5


def test_a_target_of_grades_is_classes_if_that_is_said():
    frame = pd.DataFrame({"a": range(9), "t": ["2-", "1", "3+"] * 3})
    with pytest.raises(InputError, match=r"'t' has a dash after numbers.*--task classification"):
        from_frame("t", frame, "t")
    assert from_frame("t", frame, "t", task="classification").classes == ("1", "2-", "3+")


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
    "two readings of points": (["1.234", "-2.345", "3.456"], ";", "1.234 or 1234: say --decimal"),
    "the same among whole numbers": (["1.234", "2.345", "7"], ";", "1.234 or 1234: say --decimal"),
    "the same after tabs": (["1.234", "2.345", "7"], "\t", "1.234 or 1234: say --decimal"),
    "points and commas": (["1.5", "2,5", "3.5", "4,5"], ",", "decimal comma"),
    "dates": (["2020-01-05", "2020-02-06", ""], ",", "dates"),
    "other dates": (["5.1.2020", "17.2.2020"], ",", "dates"),
    "times": (["12:30", "7:05"], ",", "dates or times"),
    "identifiers beyond float64": ([str(10**18 + i) for i in range(30)], ",", "more digits"),
    "percentages and shares": (["12 %", "0.5", "7 %"], ",", "percentages"),
    "percentages beside per mille": (["12 %", "5 ‰", "7 %"], ",", "'‰' after some"),
    "two units": ([f"{i} {'kg' if i < 9 else 'g'}" for i in range(30)], ",", "something beside each ('0 kg'"),
    "two currencies": (["$5", "€6", "$7"], ",", "currency"),
    "a minus after numbers": (["12-", "7", "3.50-", "8"], ",", "a dash after numbers ('12-', '3.50-')"),
    "the same, of a currency": (["12,50- €", "7,00 €", "3,20 €"], ";", "a dash after numbers ('12,50- €')"),
    "school grades": (["1", "2-", "2+", "3-", "4"] * 5, ",", "a dash after numbers ('2-', '3-')"),
    "school grades of one kind": (["2-", "3–"] * 5, ",", "a dash after numbers"),
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


@pytest.mark.parametrize("written", ["1,234", "1.234"])
@pytest.mark.parametrize("shown", ["3,14", "3.14"])
@pytest.mark.parametrize("where", ["x", "y"])
def test_other_columns_show_how_a_file_writes_numbers(tmp_path, written, shown, where):
    path = tmp_path / "a.csv"
    other = written.replace("1", "5")
    rows = f"{written};{shown};1\n{other};{shown}5;2\n7;{shown}9;4\n"
    path.write_text(f"a;{where};{'y' if where == 'x' else 'x'}\n" + rows)
    decimal = written[1] == shown[1]
    dataset = load(str(path), target="y", task="regression")
    assert dataset.X[:, 0].tolist() == ([1.234, 5.234, 7] if decimal else [1234, 5234, 7])
    # And the target is read by what the columns show.
    assert load(str(path), target="a", task="regression").y[:2].tolist() == (
        [1.234, 5.234] if decimal else [1234, 5234]
    )


def test_a_value_can_show_that_its_point_is_the_decimal_one(tmp_path):
    for third in ("0.125", "1234.567", "2.5", "1.234e3"):
        assert column(tmp_path, ["1.234", "2.345", third], ";").X[:2, 0].tolist() == [1.234, 2.345]
    assert column(tmp_path, ["1.234", "2.345"], ";", decimal=",").X[:, 0].tolist() == [1234, 2345]
    assert column(tmp_path, ["1.234", "2.345"], ";", decimal=".").X[:, 0].tolist() == [1.234, 2.345]


def test_what_is_said_to_be_missing_is_so_in_every_kind_of_column(tmp_path):
    cells = {"text": ["1", "-999.0", "x", "-999", "x", "1"], "codes": ["01", "02", "-999.0", "99", "02", "01"]}
    numbers = {"typed": [1.0, -999.0, 3, 4, 5, 6], "t": [1.5, 2.5, 3.5, 4, 5, 6]}
    frame = pd.DataFrame(cells | numbers)
    before = frame.copy()
    for said in ("-999", "-999.0", "-999,0"):
        dataset = from_frame("f", frame, "t", custom=Custom(Format(na=(said,))))
        assert dataset.X.isnan().sum(0).tolist() == [2, 1, 1]
        assert dataset.columns[0].categories == ("1", "x")
        assert dataset.columns[1].categories == ("01", "02", "99")
        assert not [note for note in dataset.notes if "in no column" in note]
        for target in ([1.5, 2.5, 3.5, 4, 5, -999], ["1.5", "2.5", "3.5", "4", "5", "-999.00"]):
            with pytest.raises(InputError, match="'t' is missing in 1 of 6 rows"):
                from_frame("f", frame.assign(t=target), "t", custom=Custom(Format(na=(said,))))
    pd.testing.assert_frame_equal(frame, before)
    zeros = from_frame("f", frame, "t", custom=Custom(Format(na=("-999", "2"))))
    assert zeros.columns[1].categories == ("01", "02", "99")  # the code 02 is another text than 2


def test_what_is_missing_shows_no_decimal_point(tmp_path):
    with pytest.raises(InputError, match=r"1.234 or 1234: say --decimal"):
        column(tmp_path, ["1.234", "2.345", "-999.0"], ";", na=("-999",))


def test_what_is_said_to_be_missing_and_is_nowhere_is_told_once(tmp_path):
    dataset = column(tmp_path, ["1.5", "-9.0", "2", "lost"], na=("-9", "lost", "-99", "Lost", "1234"))
    told = [note for note in dataset.notes if "in no column" in note]
    assert told == ["--na '-99', 'Lost', '1234': in no column, so nothing was taken as missing for it"]
    assert not [note for note in column(tmp_path, ["1", "2"]).notes if "in no column" in note]


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
