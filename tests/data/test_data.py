import datetime
import decimal
import math
import urllib.error

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from hypothesis import given, settings
from sklearn.utils import Bunch

from torchshrink.data import BUNDLED, Column, Dataset, from_frame, from_parts, load, require_rows_per_class, split
from torchshrink.errors import InputError

NAN = math.nan


def refused(call, *says):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message


def frame(n=30, **columns):
    """A table that is fine: a number, a category with a missing value, and a target; and what else is given."""
    base = {
        "size": np.arange(n) / 7,
        "colour": [["red", "blue", None][i % 3] for i in range(n)],
        "kind": [["b", "a"][i % 2] for i in range(n)],
    }
    return pd.DataFrame({**base, **columns})


# --- bundled ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_raw_and_named(name):
    dataset = load(name)
    assert dataset.name == name
    assert dataset.rows == len(dataset.y) > 100
    assert dataset.task == ("regression" if name == "diabetes" else "classification")
    assert len(dataset.columns) == dataset.X.shape[1] == len(dataset.sizes)
    assert not any(dataset.sizes)
    if dataset.classes:
        assert dataset.y.unique().tolist() == list(range(dataset.outputs))
    else:
        assert dataset.outputs == 1
        assert dataset.X.abs().max() > 100  # not the centred, scaled columns that the package delivers by default
        assert load(name, task="regression").task == "regression"


def test_bundled_classes_keep_their_names_and_codes():
    dataset = load("breast_cancer")
    bunch = sklearn.datasets.load_breast_cancer()
    assert dataset.classes == ("malignant", "benign")
    assert dataset.y.tolist() == bunch.target.tolist()
    assert dataset.columns[0] == Column("mean radius")


def test_unknown_names_list_what_there_is():
    refused(lambda: load("digit"), "no data set 'digit'; did you mean 'digits'?", "breast_cancer", "openml:NAME")
    refused(lambda: load("zzz"), "no data set 'zzz'. There are digits")
    refused(lambda: load(""), "no data set ''")
    refused(lambda: load("digits", target="y"), "its own target")
    refused(lambda: load("openml:"), "form module:function")


def test_paths_that_are_not_there_or_not_read_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.xlsx").write_text("")
    (tmp_path / "folder.csv").mkdir()
    refused(lambda: load("missing.csv", target="y"), "missing.csv: no such file")
    refused(lambda: load("some/where"), "some/where: no such file")
    refused(lambda: load("missing.tsv"), "missing.tsv: no such file")
    refused(lambda: load("a.xlsx"), "ends in .csv, .parquet, .npz")
    refused(lambda: load("folder.csv"), "a folder, a file expected")


# --- CSV and Parquet --------------------------------------------------------------------------------------------------


def save(tmp_path, kind, table):
    path = tmp_path / f"my table.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_have_numbers_categories_booleans_and_missing_values(tmp_path, kind):
    table = frame(flag=[True, False, True] * 10, count=[1, None, 3] * 10, maybe=[True, None, False] * 10)
    dataset = load(save(tmp_path, kind, table), target="kind")
    assert dataset.name == "my-table"
    assert dataset.columns == (
        Column("size"),
        Column("colour", ("blue", "red")),
        Column("flag"),
        Column("count"),
        Column("maybe"),
    )
    assert dataset.sizes == (0, 2, 0, 0, 0)
    expected = torch.tensor([[0, 1, 1, 1, 1], [1 / 7, 0, 0, NAN, NAN], [2 / 7, NAN, 1, 3, 0]], dtype=torch.float64)
    torch.testing.assert_close(dataset.X[:3], expected, equal_nan=True)
    assert (dataset.target, dataset.classes, dataset.y[:4].tolist()) == ("kind", ("a", "b"), [1, 0, 1, 0])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_which_column_is_the_target(tmp_path, kind):
    path = save(tmp_path, kind, frame())
    refused(lambda: load(path), "--target COLUMN", "'size', 'colour', 'kind'")
    refused(lambda: load(path, target="Kind"), "no column 'Kind'; did you mean 'kind'?")
    refused(lambda: load(path, target="zzzzz"), "no column 'zzzzz': it has 'size'")
    assert load(path, target="size").task == "regression"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_without_rows_or_features(tmp_path, kind):
    refused(lambda: load(save(tmp_path, kind, frame().head(0)), target="kind"), "there are no rows")
    refused(lambda: load(save(tmp_path, kind, frame()[["kind"]]), target="kind"), "no features to learn from")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("size,kind\n1,a\n2,b\n", encoding="utf-8-sig")
    assert load(str(path), target="kind").columns[0].name == "size"


def test_quotes_and_line_ends_inside_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'size,"col,our",kind\r\n1,"a\nb",x\r\n2,"c,d",y\r\n\r\n')
    assert load(str(path), target="kind").columns[1] == Column("col,our", ("a\nb", "c,d"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"size,kind\n", "there are no rows"),
        (b"size\n1;a\n", "what stands between its values"),
        (b"size,size,kind\n1,2,a\n", "more than one column is called 'size'"),
        (b",kind\n1,a\n", "column 1 has no name"),
        (b"size,kind\n1,a\n2\n", "line 3: 1 values given, 2 expected"),
        (b"size,kind\n1,a\n2,b,c\n", "line 3: 3 values given, 2 expected"),
        (b"size,kind\n1,a,x\n2,b,y\n", "line 2: 3 values given, 2 expected"),
        (b"size,kind\n1,\xe9\n", "not UTF-8"),
        (b"\x80\x02}q\x00.", "not UTF-8"),
        (b'size,kind\n1,"a\n2,b\n', "cannot be read as CSV"),
    ],
)
def test_csv_files_that_are_not_usable(tmp_path, content, says):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    refused(lambda: load(str(path), target=None if b";" in content else "kind"), str(path.stem), says)


def test_foreign_and_truncated_parquet_files(tmp_path):
    path = save(tmp_path, "parquet", frame())
    with open(path, "rb+") as file:
        file.truncate(200)
    refused(lambda: load(path, target="kind"), "cannot be read as Parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    refused(lambda: load(str(tmp_path / "empty.parquet"), target="kind"), "cannot be read as Parquet")


# --- columns ----------------------------------------------------------------------------------------------------------


def test_codes_are_sorted_levels_over_the_whole_table():
    table = frame(
        grade=["10", "9", "2"] * 10, city=pd.Categorical(["b", "c", "a"] * 10, categories=["z", "c", "b", "a"])
    )
    dataset = from_frame("t", table, "kind")
    assert dataset.columns[2] == Column("grade", ("2", "9", "10"))  # text of numbers: still a category, in their order
    assert dataset.columns[3] == Column("city", ("a", "b", "c"))  # levels that no row has are no levels
    assert dataset.X[:3, 3].tolist() == [1, 2, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["x", "y", "z", "", None]), min_size=4, max_size=20))
def test_every_value_is_found_again_under_its_code(values):
    table = pd.DataFrame({"size": range(len(values)), "level": pd.Series(values, dtype=object)})
    table["kind"] = ["a", "b"] * (len(values) // 2) + ["a"] * (len(values) % 2)
    dataset = from_frame("t", table, "kind")
    levels = dataset.columns[1].categories
    if any(value is not None for value in values):
        assert list(levels) == sorted({value for value in values if value is not None})
        found = [None if math.isnan(code) else levels[int(code)] for code in dataset.X[:, 1].tolist()]
        assert found == values


def test_mixed_objects_are_numbers_or_text():
    table = frame(
        mixed=[1, "one", 2.5] * 10,
        decimals=[decimal.Decimal("1.5"), None, decimal.Decimal(2)] * 10,
        nullable=pd.array([1, None, 3] * 10, dtype="Int64"),
        truth=pd.array([True, None, False] * 10, dtype="boolean"),
        empty=[None] * 30,
    )
    dataset = from_frame("t", table, "kind")
    assert dataset.columns[2].categories == ("1", "2.5", "one")
    assert dataset.sizes[3:] == (0, 0, 0, 0)
    expected = torch.tensor([[1.5, 1, 1, NAN], [NAN, NAN, NAN, NAN], [2, 3, 0, NAN]], dtype=torch.float64)
    torch.testing.assert_close(dataset.X[:3, 3:], expected, equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2020", periods=30),
        pd.date_range("2020", periods=30, tz="UTC"),
        pd.to_timedelta(range(30), unit="s"),
        pd.period_range("2020", periods=30, freq="D"),
        [datetime.date(2020, 1, 1)] * 30,
        [[1, 2]] * 30,
        [{"a": 1}] * 30,
        [b"bytes"] * 30,
        [1j] * 30,
    ],
    ids=["dates", "zoned dates", "durations", "periods", "date objects", "lists", "dicts", "bytes", "complex"],
)
def test_types_that_are_neither_numbers_nor_text_name_their_column(values):
    refused(lambda: from_frame("t", frame(odd=values), "kind"), "column 'odd'", "remove it")


def test_infinities_name_their_column_and_rows():
    refused(lambda: from_frame("t", frame(wide=[math.inf, -math.inf, 1] * 10), "kind"), "'wide'", "20 of 30 rows")
    refused(lambda: from_frame("t", frame(wide=[1e300, 0, 1] * 10), "kind"), "'wide'", "too large for float32")
    refused(lambda: from_parts("t", np.array([[1, math.inf], [2, 1]]), [0, 1]), "'x1'", "1 of 2 rows")


def test_text_that_names_rows_or_is_free_is_refused():
    names = [f"Name {i}" for i in range(30)]
    refused(
        lambda: from_frame("t", frame(name=names), "kind"), "'name'", "30 different values in 30 rows", "names the rows"
    )
    free = [f"word {i % 1500}" for i in range(3000)]
    refused(lambda: from_frame("t", frame(3000, free=free), "kind"), "'free'", "1500", "at most 1000")
    marked = [str(i) for i in range(2998)] + ["?", "unknown"]
    assert from_frame("t", frame(3000, income=marked), "kind").sizes[2] == 0  # a number, with marks for missing values
    zips = [f"{i:05}" for i in range(3000)]
    refused(lambda: from_frame("t", frame(3000, zip=zips), "kind"), "'zip'", "all numbers")
    assert from_frame("t", frame(3000, code=[f"c{i % 900}" for i in range(3000)]), "kind").sizes[2] == 900
    assert from_frame("t", frame(10, name=names[:10]), "kind").sizes[2] == 10  # a small table may


def test_constant_and_missing_columns_are_fine_unless_all_are():
    dataset = from_frame("t", frame(one=1.0, none=NAN), "kind")
    assert dataset.X.shape == (30, 4)
    useless = pd.DataFrame({"one": [1.0] * 4, "none": [NAN] * 4, "level": ["x"] * 4, "kind": ["a", "b"] * 2})
    refused(lambda: from_frame("t", useless, "kind"), "every feature is constant or missing")


def test_columns_of_one_name_are_refused():
    table = pd.DataFrame([[1, 2, "a"], [3, 4, "b"]], columns=["size", "size", "kind"])
    refused(lambda: from_frame("t", table, "kind"), "more than one column is called 'size'")


# --- target -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a"] * 15, ("a", "b")),
        ([True, False] * 15, ("False", "True")),
        ([7, -1] * 15, ("-1", "7")),
        ([10.0, 9.0] * 15, ("9", "10")),
        (pd.Categorical(["10", "9"] * 15), ("9", "10")),
        (list(range(20)) + [0] * 10, tuple(str(i) for i in range(20))),
        ([*range(21), *range(9)], ()),
        ([0.5, 1.0] * 15, ()),
        (np.linspace(0, 1, 30), ()),
    ],
    ids=["text", "booleans", "integers", "whole floats", "categories", "20 integers", "21 integers", "halves", "reals"],
)
def test_what_a_target_is(values, classes):
    dataset = from_frame("t", frame(goal=values), "goal")
    assert dataset.classes == classes
    assert dataset.y.dtype == (torch.int64 if classes else torch.float64)
    if not classes:
        torch.testing.assert_close(dataset.y, torch.tensor(np.array(values, dtype=np.float64)))


def test_the_task_can_be_said():
    assert from_frame("t", frame(goal=[1, 2, 3] * 10), "goal", task="regression").y[:3].tolist() == [1, 2, 3]
    assert from_frame("t", frame(goal=[True, False] * 15), "goal", task="regression").y[:2].tolist() == [1, 0]
    assert from_frame("t", frame(goal=["1.5", "2"] * 15), "goal", task="regression").y[:2].tolist() == [1.5, 2]
    assert from_frame("t", frame(goal=[1.5, 2] * 15), "goal", task="classification").classes == ("1.5", "2")
    refused(lambda: from_frame("t", frame(), "kind", task="regression"), "'kind' is not numeric ('a', 'b')")
    refused(lambda: from_frame("t", frame(), "kind", task="number"), "task='number'")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["a"] * 30, "'a' in all 30 rows, at least two classes"),
        ([3] * 30, "'3' in all 30 rows, at least two classes"),
        ([0.5] * 30, "0.5 in all 30 rows: nothing to learn"),
        ([NAN, NAN] + [1.5, 2.5] * 14, "missing in 2 of 30 rows: drop these rows"),
        ([None] + ["a", "b", "b"] * 9 + ["a", "b"], "missing in 1 of 30 rows"),
        ([math.inf] + [1.5] * 29, "infinite in 1 of 30 rows"),
        ([1e300, 0.5] * 15, "beyond float32"),
        ([f"n{i}" for i in range(30)], "30 classes in 30 rows: give --task regression"),
        (pd.date_range("2020", periods=30), "target 'goal' is of type datetime64"),
    ],
)
def test_targets_that_cannot_be_learnt(values, says):
    refused(lambda: from_frame("t", frame(goal=values), "goal"), "'goal'", says)


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_npz_files(tmp_path):
    path = tmp_path / "a.npz"
    X, y = np.array([[1, 2], [3, np.nan], [5, 6]]), np.array(["u", "v", "u"])
    np.savez(path, X=X, y=y, other=np.array([0.5, 1.5, 2.5]))
    dataset = load(str(path))
    torch.testing.assert_close(dataset.X, torch.tensor(X, dtype=torch.float64), equal_nan=True)
    assert (dataset.name, dataset.columns, dataset.target) == ("a", (Column("x0"), Column("x1")), "y")
    assert (dataset.classes, dataset.y.tolist()) == (("u", "v"), [0, 1, 0])
    other = load(str(path), target="other")
    assert (other.target, other.task, other.y.tolist()) == ("other", "regression", [0.5, 1.5, 2.5])
    np.savez_compressed(path, X=X > 2, y=y[:, None])
    assert load(str(path)).X.tolist() == [[0, 0], [1, 0], [1, 1]]


TWO = np.array([0, 1])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"X": np.zeros(2), "y": TWO}, "X has shape (2,)"),
        ({"X": np.zeros((2, 3, 3)), "y": TWO}, "X has shape (2, 3, 3)"),
        ({"X": np.zeros((2, 0)), "y": TWO}, "no features"),
        ({"X": np.zeros((0, 2)), "y": TWO[:0]}, "there are no rows"),
        ({"X": np.eye(3), "y": TWO}, "X has 3 rows and 'y' has 2"),
        ({"X": np.eye(2), "y": np.eye(2)}, "'y' has shape (2, 2)"),
        ({"X": np.eye(2), "y": np.array(1)}, "'y' has shape ()"),
        ({"X": np.eye(2) * 1j, "y": TWO}, "X has dtype complex128"),
        ({"X": np.array([["a"], ["b"]]), "y": TWO}, "X has dtype <U1"),
        ({"X": np.array([[1], [None]], dtype=object), "y": TWO}, "cannot be read as npz: ValueError: Object arrays"),
        ({"X": np.eye(2), "y": np.array(["a", None], dtype=object)}, "cannot be read as npz"),
        ({"X": np.array([[np.inf], [1]]), "y": TWO}, "column 'x0' is infinite"),
        ({"X": np.eye(2), "y": np.array([0, np.nan])}, "missing in 1 of 2 rows"),
        ({"X": np.ones((2, 2)), "y": TWO}, "every feature is constant"),
        ({"x": np.eye(2), "y": TWO}, "no array 'X'; did you mean 'x'?"),
        ({"features": np.eye(2), "y": TWO}, "no array 'X': save the features as X (it has 'features', 'y')"),
        ({"X": np.eye(2), "labels": TWO}, "no array 'y': give --target NAME (it has 'X', 'labels')"),
        ({}, "(it has none)"),
    ],
)
def test_npz_files_that_are_not_usable(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(lambda: load(str(tmp_path / "a.npz")), "a", says)


def test_a_target_that_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(2), labels=TWO)
    refused(lambda: load(str(tmp_path / "a.npz"), target="label"), "no array 'label'; did you mean 'labels'?")


def test_foreign_truncated_and_corrupted_npz_files(tmp_path):
    path = tmp_path / "a.npz"
    X = np.random.default_rng(0).normal(size=(50, 20))
    np.savez_compressed(path, X=X, y=np.arange(50) % 2)
    whole = path.read_bytes()
    corrupted = bytearray(whole)
    corrupted[1000:1100] = b"\0" * 100
    for content in (b"", b"X,y\n", whole[: len(whole) // 2], whole[:-1], bytes(corrupted), b"\x80\x02}q\x00."):
        path.write_bytes(content)
        refused(lambda: load(str(path)), "cannot be read as npz")
    with path.open("wb") as file:
        np.save(file, X)
    refused(lambda: load(str(path)), "holds one array")


def test_tensors_frames_and_lists_are_arrays_too():
    X, y = [[1.0, 0.0], [2.0, 3.0]], ["u", "v"]
    expected = from_parts("t", np.array(X), np.array(y))
    half = from_parts("t", torch.tensor(X, dtype=torch.bfloat16, requires_grad=True), torch.tensor([0, 1]))
    table = from_parts("t", pd.DataFrame(X), pd.Series(y, index=[5, 6]))
    for dataset in (from_parts("t", X, y), half, table):
        assert torch.equal(dataset.X, expected.X)
        assert torch.equal(dataset.y, expected.y)
    assert not half.X.requires_grad
    refused(lambda: from_parts("t", [[1], [2, 3]], y), "rows have different lengths")


def test_what_is_read_is_a_copy():
    X, y = np.eye(2, dtype=np.float32), np.array([0.5, 1.5], dtype=np.float32)
    dataset = from_parts("t", X, y)
    dataset.X.zero_()
    dataset.y.zero_()
    assert X.sum() == 2
    assert y.sum() == 2


# --- OpenML -----------------------------------------------------------------------------------------------------------


def openml(monkeypatch, **fields):
    """Stand in for the network: what is asked is kept, what is given comes back as scikit-learn gives it."""
    asked = []

    def fetch(name, **arguments):
        asked.append((name, arguments))
        return Bunch(**fields)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    return asked


def test_openml_sets_come_as_tables(monkeypatch):
    table = frame(goal=pd.Categorical(["yes", "no"] * 15))
    features = table.drop(columns="goal")
    asked = openml(
        monkeypatch, data=features, target=table["goal"], frame=table, target_names=["goal"], details={"id": "1"}
    )
    dataset = load("openml:credit-g")
    assert asked == [("credit-g", {"as_frame": True, "parser": "auto", "target_column": "default-target"})]
    assert (dataset.name, dataset.target, dataset.classes) == ("credit-g", "goal", ("no", "yes"))
    assert dataset.sizes == (0, 2, 2)
    load("openml:credit-g", target="goal")
    assert asked[1][1]["target_column"] == "goal"


@pytest.mark.parametrize("names", [[], None, ["size", "kind"]])
def test_openml_sets_without_one_target_ask_for_it(monkeypatch, names):
    openml(monkeypatch, data=frame(), target=None, frame=frame(), target_names=names)
    refused(lambda: load("openml:two words"), "targets: give --target COLUMN, one of 'size', 'colour', 'kind'")


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        urllib.error.HTTPError("there", 412, "PRECONDITION FAILED", None, None),
        ConnectionResetError("Connection reset by peer"),
        TimeoutError(),
        ValueError("Dataset x with status active\nnot found."),
        KeyError("Could not find target_column='x'"),
    ],
)
def test_openml_failures_are_one_line(monkeypatch, error):
    def fetch(*_, **__):
        raise error

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    refused(lambda: load("openml:x"), "openml:x cannot be fetched", type(error).__name__, "network")


def test_without_a_network_there_is_one_line_and_no_warning(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets._openml.urlopen", unreachable)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between scikit-learn's retries
    refused(lambda: load("openml:credit-g"), "openml:credit-g cannot be fetched: URLError", "Name or service not known")


# --- the user's function ----------------------------------------------------------------------------------------------

MODULE = """
import pandas, torch
from torchshrink.data import Column, Dataset
X, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
def pair(): return X, y
def table(): return pandas.DataFrame({"a": [1.0, 2, 3, 4], "b": ["u", "v"] * 2})
def dataset(): return Dataset("mine", X, y, tuple(map(Column, "abcd")), "z", ("u", "v"))
def triple(): return X, y, X
def nothing(): pass
def fails(): raise OSError("no disk")
def lengths(): return X, y[:2]
"""


def test_the_users_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_data.py").write_text(MODULE)
    pair = load("user_data:pair")
    assert (pair.name, pair.task, pair.X.shape) == ("user_data-pair", "classification", (4, 4))
    assert load("user_data:table", target="b").classes == ("u", "v")
    assert load("user_data:dataset").target == "z"
    assert load("user_data:pair", task="regression").y.tolist() == [0, 1, 0, 1]
    refused(lambda: load("user_data:table"), "--target COLUMN")
    refused(lambda: load("user_data:pair", target="y"), "leave --target out")
    refused(lambda: load("user_data:dataset", target="y"), "leave --target out")
    refused(lambda: load("user_data:dataset", task="regression"), "a Dataset for classification, regression asked for")
    refused(lambda: load("user_data:triple"), "returned an object of type tuple: (X, y), a DataFrame or a Dataset")
    refused(lambda: load("user_data:nothing"), "of type NoneType")
    refused(lambda: load("user_data:fails"), "raised OSError: no disk")
    refused(lambda: load("user_data:lengths"), "X has 4 rows and 'y' has 2")
    refused(lambda: load("user_data:pairs"), "did you mean 'pair'?")
    refused(lambda: load("user_dta:pair"), "no module 'user_dta'")


# --- Dataset and split ------------------------------------------------------------------------------------------------

EYE, COLUMNS = torch.eye(2), (Column("a"), Column("b"))


@pytest.mark.parametrize(
    ("X", "y", "classes"),
    [
        (EYE.long(), torch.tensor([0, 1]), ("u", "v")),
        (EYE[0], torch.tensor([0, 1]), ("u", "v")),
        (torch.zeros(2, 3), torch.tensor([0, 1]), ("u", "v")),
        (EYE / 0, torch.tensor([0, 1]), ("u", "v")),
        (EYE, torch.tensor([0, 2]), ("u", "v")),
        (EYE, torch.tensor([-1, 0]), ("u", "v")),
        (EYE, torch.tensor([0, 1]), ()),
        (EYE, torch.tensor([0.0, 1.0]), ("u", "v")),
        (EYE, torch.tensor([0.0, NAN]), ()),
        (EYE, torch.tensor([0.0]), ()),
    ],
)
def test_a_dataset_that_contradicts_itself_is_refused(X, y, classes):
    refused(lambda: Dataset("mine", X, y, COLUMNS, "y", classes), "mine")


def test_a_subset_keeps_what_is_known_of_the_columns():
    dataset = from_frame("t", frame(), "kind")
    part = dataset.subset(torch.tensor([4, 0]))
    assert (part.rows, part.columns, part.classes) == (2, dataset.columns, dataset.classes)
    assert torch.equal(part.X, dataset.X[[4, 0]])
    assert torch.equal(part.y, dataset.y[[4, 0]])
    assert dataset.describe()["columns"][1] == {"name": "colour", "categories": ["blue", "red"]}


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 60), st.floats(0.2, 0.7), st.integers(0, 2**32 - 1))
def test_a_split_takes_each_row_once_and_each_class_its_share(n, fraction, seed):
    y = torch.arange(2 * n) % 2
    dataset = Dataset("t", torch.randn(2 * n, 1), y, (Column("a"),), "y", ("u", "v"))
    train, validation = split(dataset, fraction=fraction, seed=seed)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(2 * n))
    assert train.tolist() == sorted(train.tolist())
    assert len(validation) == math.ceil(fraction * 2 * n)
    for side in (train, validation):
        assert abs(int((y[side] == 0).sum()) - int((y[side] == 1).sum())) <= 1
    again = split(dataset, fraction=fraction, seed=seed)
    assert torch.equal(again[0], train)


def test_another_seed_draws_other_rows():
    dataset = load("diabetes")
    assert not torch.equal(split(dataset, fraction=0.2, seed=0)[1], split(dataset, fraction=0.2, seed=1)[1])


@pytest.mark.parametrize(
    ("labels", "arguments", "says"),
    [
        ("aabb", {"fraction": 0.0}, "between 0 and 1"),
        ("aabb", {"fraction": 1.0}, "between 0 and 1"),
        ("aabb", {"fraction": NAN}, "between 0 and 1"),
        ("aabb", {"seed": -1}, "seed -1"),
        ("aaaaaab", {}, "class 'b' has 1 row, at least 2 expected"),
        ("aaaabbbbccccdddd", {"fraction": 0.1}, "14 to train and 2 to validate, at least 4 each needed"),
        ("aabbccdd", {"fraction": 0.9}, "0 to train and 8 to validate"),
    ],
)
def test_splits_that_cannot_be(labels, arguments, says):
    table = pd.DataFrame({"size": range(len(labels)), "kind": list(labels)})
    dataset = from_frame("t", table, "kind")
    refused(lambda: split(dataset, **{"fraction": 0.5, "seed": 0, **arguments}), says)


def test_the_rarest_class_is_named():
    y = torch.tensor([0, 0, 0, 2, 2])
    require_rows_per_class(y, 2, purpose="here")
    refused(
        lambda: require_rows_per_class(y, 3, purpose="for 3 folds"),
        "class '2' has 2 rows, at least 3 expected for 3 folds",
    )
