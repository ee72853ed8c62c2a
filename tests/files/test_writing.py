"""Files are written whole, and results of other settings are refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cvxnn.files import writing as files
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.folders import make_folder
from cvxnn.files.json_files import (
    DamagedResultError,
    OtherSettingsError,
    as_json,
    check_settings,
    earlier_result,
    made_once,
    read_json,
    write_json,
)
from cvxnn.files.writing import append, read_text, replacing, replacing_folder, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old é")
    assert path.read_text("utf-8") == "old é"

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text("utf-8") == "old é"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_error_of_the_system_names_the_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"

    def fail(name: object, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(name), None, "b")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(path, "new")
    assert str(caught.value) == f"[Errno {errno.ENOSPC}] No space left on device: {str(path)!r}"


def test_json_of_numpy_and_of_what_is_not_finite():
    value = {
        "array": np.array([1.5, np.nan]),
        "number": np.float32(0.5),
        "flag": np.bool_(True),
        "deep": ({"x": float("inf")}, "é"),
        3: None,
    }
    assert json.loads(as_json(value)) == {
        "array": [1.5, None],
        "number": 0.5,
        "flag": True,
        "deep": [{"x": None}, "é"],
        "3": None,
    }


def test_settings_that_differ_are_named(tmp_path):
    path = tmp_path / "result.json"
    settings = {"a": 1, "deep": {"b": "x", "c": (1, 2)}}
    assert earlier_result(path, settings, overwrite=False) is None
    write_json(path, {"settings": settings, "value": 7})
    found = earlier_result(path, settings, overwrite=False)
    assert found is not None
    assert found["value"] == 7
    other = {"a": 1, "deep": {"b": "y", "c": (1, 2)}, "d": None}
    with pytest.raises(OtherSettingsError, match=r'deep\.b: "x" in the file, "y" requested\)'):
        earlier_result(path, other, overwrite=False)
    assert earlier_result(path, other, overwrite=True) is None
    with pytest.raises(
        OtherSettingsError, match="a: 1 in the file, null requested; b: null in the file, 2"
    ):
        check_settings(path, {"a": 1}, {"b": 2})


def test_a_damaged_result_may_be_replaced(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("{", "utf-8")
    with pytest.raises(DamagedResultError, match="not valid JSON"):
        earlier_result(path, {}, overwrite=False)
    assert earlier_result(path, {}, overwrite=True) is None


def test_a_result_is_made_once_for_its_settings(tmp_path):
    output, note = tmp_path / "out.txt", tmp_path / "out.json"
    made = []

    def make():
        assert read_json(note) == {"status": "begun"}
        output.write_text("x", "utf-8")
        made.append(1)
        return {"value": (1, 2)}

    def once(settings, *, overwrite=False):
        return made_once(output, settings, make, note=note, overwrite=overwrite)

    first = once({"a": 1})
    assert (first["status"], first["value"], first["output"]) == ("done", [1, 2], str(output))
    assert once({"a": 1}) == {**first, "status": "nothing to do"}
    with pytest.raises(OtherSettingsError):
        once({"a": 2})
    assert len(made) == 1
    assert once({"a": 2}, overwrite=True)["settings"] == {"a": 2}
    output.unlink()  # a note without its file is no result
    assert once({"a": 2})["status"] == "done"
    assert len(made) == 3


def test_a_file_without_a_note_is_left_alone(tmp_path):
    output, note = tmp_path / "out.txt", tmp_path / "out.json"
    output.write_text("mine", "utf-8")
    failing = [True]

    def make():
        if failing.pop():
            raise KeyboardInterrupt
        output.write_text("made", "utf-8")
        return {}

    with pytest.raises(OtherSettingsError, match=r"no out\.json beside it says that cvxnn made it"):
        made_once(output, {}, make, note=note, overwrite=False)
    assert output.read_text("utf-8") == "mine"
    assert not note.exists()
    # Whoever allows it once may go on after an interruption.
    with pytest.raises(KeyboardInterrupt):
        made_once(output, {}, make, note=note, overwrite=True)
    failing.append(False)
    assert made_once(output, {}, make, note=note, overwrite=False)["status"] == "done"
    assert output.read_text("utf-8") == "made"


def test_an_interruption_leaves_no_note_of_nothing(tmp_path):
    def make():
        raise KeyboardInterrupt

    output, note = tmp_path / "out.txt", tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        made_once(output, {}, make, note=note, overwrite=False)
    assert not note.exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_what_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"file\.json"):
        read_json(path)


def test_digest_of_a_file_is_of_its_contents(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc")
    two.write_bytes(b"abc")
    assert digest_of_file(one) == digest_of_file(two) == "ba7816bf8f01cfea"
    assert digest_of_file(one, 64) == hashlib.sha256(b"abc").hexdigest()
    two.write_bytes(b"abd")
    assert digest_of_file(one) != digest_of_file(two)


def test_digest_tells_parts_apart():
    numbers = np.arange(6.0)
    values = [
        (),
        (b"",),
        ("",),
        ("ab",),
        ("a", "b"),
        (b"ab",),
        (["a", "b"],),
        (1,),
        ("1",),
        (None,),
        (numbers,),
        (numbers.tolist(),),
        (numbers.reshape(2, 3),),
        (numbers.reshape(2, 3).T,),
        (numbers.astype(np.float32),),
        (numbers.tobytes(),),
        (numbers[:0],),
        (numbers[:0] > 1,),
    ]
    assert len({digest(*value) for value in values}) == len(values)


def test_digest_does_not_depend_on_how_a_value_is_stored():
    matrix = np.arange(12.0).reshape(3, 4)
    expected = digest(matrix)
    assert digest(np.asfortranarray(matrix)) == expected
    assert digest(matrix.astype(">f8")) == expected
    assert digest(np.hstack([matrix, matrix])[:, :4]) == expected
    assert digest({"a": 1, "b": ("é", 2)}) == digest({"b": ["é", 2], "a": 1})
    assert digest("a", digits=64).startswith(digest("a"))
    assert len(digest("a", digits=64)) == 64


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), {1}, object()])
def test_digest_refuses_what_has_no_fixed_contents(value):
    with pytest.raises(TypeError):
        digest(value)


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    with replacing(tmp_path / "new") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))
    assert (tmp_path / "new").stat().st_mode == usual


def test_folders_above_a_file_are_created(tmp_path):
    assert make_folder(tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert make_folder(tmp_path / "a") == []
    with replacing(tmp_path / "new" / "folder" / "file") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "new" / "folder" / "file").read_text() == "x"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no such place on this system")
@pytest.mark.parametrize("place", ["/proc/new/file", "/dev/null/file", "/dev/null", "{}", "{}/x/y"])
def test_places_for_no_file_are_named_without_numbers_of_errors(tmp_path, place):
    file = tmp_path / "file"
    file.touch()
    path = place.format(tmp_path if place == "{}" else file)
    with pytest.raises(OSError, match=f"^cannot write (in )?{path[:9]}") as caught:
        write_text(path, "x")
    assert caught.value.errno is None
    assert caught.value.args[0].count("; ") == 1  # the reason, and what to do
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_writer_leaves_the_old_contents(tmp_path, error):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "a").write_text("old")

    def write(place: Path) -> None:
        place.write_text("half")
        raise error

    with pytest.raises(type(error)), replacing(file) as temporary:
        write(temporary)
    with pytest.raises(type(error)), replacing_folder(folder) as temporary:
        write(temporary / "a")
    assert file.read_text() == (folder / "a").read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_folder_is_replaced_or_kept(tmp_path, keep):
    folder = tmp_path / "above" / "folder"
    for text in ("first", "second"):
        with replacing_folder(folder, keep_existing=keep) as temporary:
            (temporary / text).write_text(text)
            assert temporary.parent.parent == folder.parent
    assert [entry.name for entry in folder.iterdir()] == ["first" if keep else "second"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    replace = os.replace

    def fail_once(source: Path, target: Path) -> None:
        if target == folder and (Path(source) / "new").exists():
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    # As on systems that cannot exchange two names.
    monkeypatch.setattr("cvxnn.files.writing._exchange", lambda one, other: False)
    with (
        pytest.raises(OSError, match="no space left"),
        replacing_folder(folder) as temporary,
    ):
        (temporary / "new").touch()
    assert [str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*")] == [
        "folder",
        os.path.join("folder", "old"),
    ]


def test_changes_of_a_json_file_are_noticed(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": np.array([1.5, np.nan]), "b": {"c": "\u2028é"}})
    assert read_json(path) == {"a": [1.5, None], "b": {"c": "\u2028é"}}
    path.write_bytes(path.read_bytes().replace(b"1.5", b"1.6"))
    with pytest.raises(ValueError, match=r"a\.json: the contents were changed after cvxnn wrote"):
        read_json(path)
    path.write_text('{"a": 1}')  # of another program
    assert read_json(path) == {"a": 1}


def test_text_is_read_in_utf_8_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\x0cc\n")
    assert read_text(path) == "a\r\nb\x0cc\n"
    path.write_bytes("a\nb\ncaf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt:3: the byte 0xe9 is not text in UTF-8"):
        read_text(path)


def test_what_is_appended_is_whole_or_absent(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "log"
    append(path, b"first\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
        with pytest.raises(OSError, match=f"too large: '{path}'"):
            append(path, b"second\n")
        with pytest.raises(OSError, match=f"too large: '{tmp_path / 'new'}'"):
            write_text(tmp_path / "new", "much text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"first\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_never_lacks_its_name(tmp_path, monkeypatch):
    """Folders are swapped in one step, where the system can."""
    if not files._exchange(tmp_path, tmp_path):
        pytest.skip("this system cannot swap two names")
    folder = tmp_path / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "old").touch()

    def refuse(*_):
        raise AssertionError("a moment without the folder")

    monkeypatch.setattr(os, "replace", refuse)
    with replacing_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [entry.name for entry in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]
