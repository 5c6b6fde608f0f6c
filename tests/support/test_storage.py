import json
import os
import subprocess
import sys

import pytest
import torch

from torchshrink.errors import InputError
from torchshrink.support.storage import (
    brief,
    claim_folder,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)


class Crash(BaseException):
    """What a killed or interrupted write looks like from inside."""


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [Crash(), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "result.json"
    write_json(path, {"run": 1})

    def fail(*_):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        write_json(path, {"run": 2})
    assert read_json(path) == {"run": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_full_disk_is_one_line_and_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as caught:
        write_text(path, "new")
    assert one_line(caught) == f"{path} cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_reader_sees_the_old_content_until_the_new_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "old")
    seen = []
    fsync = os.fsync

    def look(descriptor):
        seen.append(path.read_text())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_text(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_a_process_killed_inside_a_write_leaves_the_old_content_and_claiming_sweeps_up(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"run": 1})
    script = f"""
import os, signal
from torchshrink.support.storage import write_json
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_json({str(path)!r}, {{"run": 2}})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    assert read_json(path) == {"run": 1}
    assert len(os.listdir(tmp_path)) == 2  # the temporary is still there …
    claim_folder(tmp_path, resume=True)
    assert os.listdir(tmp_path) == ["result.json"]  # … until a run claims the folder


def test_files_have_the_permissions_that_others_have(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_where_a_file_is_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "sub", tmp_path / "missing" / "sub"):
        with pytest.raises(InputError) as caught:
            write_bytes(path, b"x")
        assert str(path) in one_line(caught)
        assert "partial" not in str(caught.value)


def test_writing_over_a_folder_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_json_keeps_its_order_and_text_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    value = {"b": 1, "a": [1.5, None, "λ"]}
    write_json(path, value)
    assert list(read_json(path)) == ["b", "a"]
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Out of range"):
            write_json(path, {"loss": bad})
    assert read_json(path) == value


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b"[1, 2]", b"null", b"\xff\xfe{}", b"PK\x03\x04", b"[" * 100_000],
    ids=["empty", "truncated", "list", "null", "not text", "a zip", "deep"],
)
def test_a_foreign_or_truncated_json_file_is_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(path) in one_line(caught)


def test_missing_files_and_folders_are_one_line(tmp_path):
    for read in (read_json, read_tensors):
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "missing")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3),
    "mask": torch.tensor([True, False]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
}


def test_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"epoch": "3", "a": "b"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"epoch": "3", "a": "b"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
        tensors[name].zero_()  # and can be written to
    write_tensors(path, {})
    assert read_tensors(path) == ({}, {})


def test_tied_tensors_are_written_in_full(tmp_path):
    shared = torch.randn(4)
    write_tensors(tmp_path / "a", {"one": shared, "two": shared, "part": shared[:2]})
    tensors, _ = read_tensors(tmp_path / "a")
    assert torch.equal(tensors["two"], shared)
    assert torch.equal(tensors["part"], shared[:2])


def test_equal_tensors_give_equal_bytes_in_every_process(tmp_path):
    # Hash seeds differ between processes, as between this one and that one: what is written must not follow them.
    write = 'write_tensors(path, {n: torch.ones(3) for n in "abcdefgh"}, {n: n for n in "hgfedcba"})'
    script = f"import sys, torch\nfrom torchshrink.support.storage import write_tensors\npath = sys.argv[1]\n{write}\n"
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    exec(write, {"write_tensors": write_tensors, "torch": torch, "path": tmp_path / "here"})
    command = [sys.executable, "-c", script, str(tmp_path / "there")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_a_safetensors_file_cut_anywhere_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"a": "b"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            read_tensors(path)
        assert str(path) in one_line(caught)


@pytest.mark.parametrize("content", [b"{}", b"\x80\x02}q\x00.", b"\xff" * 100, json.dumps({"a": 1}).encode() * 9])
def test_a_foreign_tensor_file_is_one_line(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file"):
        read_tensors(path)


def test_a_folder_is_made_with_its_parents_and_an_empty_one_taken(tmp_path):
    folder = tmp_path / "a" / "b"
    assert claim_folder(folder) == folder
    assert folder.is_dir()
    assert claim_folder(folder) == folder
    assert os.listdir(folder) == []
    assert claim_folder(tmp_path / "new", resume=True).is_dir()  # killed before its first file: begin


def test_a_folder_with_files_needs_force_or_resume_and_keeps_them(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        claim_folder(tmp_path)
    message = one_line(caught)
    assert all(option in message for option in ("--force", "--resume", "--out"))
    claim_folder(tmp_path, force=True)
    claim_folder(tmp_path, resume=True)
    assert os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(InputError, match="one of them"):
        claim_folder(tmp_path, force=True, resume=True)


def test_a_file_in_the_way_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        for force in (False, True):
            with pytest.raises(InputError) as caught:
                claim_folder(folder, force=force)
            assert str(folder) in one_line(caught)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_exception_as_one_line_is_short():
    assert brief(ValueError()) == "ValueError"
    assert brief(KeyError("a")) == "KeyError: 'a'"
    assert len(brief(ValueError("word " * 1000))) < 330
