"""Locks between processes: one waits for another, and none is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from cvxnn.files.locks import fcntl, locked
from cvxnn.files.writing import write_text

HOLD = """
import sys, time
from cvxnn.files.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen:
    """Start a process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_process_waits_for_another_until_that_ends(tmp_path: Path, end: str) -> None:
    path = tmp_path / "file"
    with hold(path) as process:
        timer = threading.Timer(0.2, process.send_signal, [getattr(signal, end)])
        timer.start()
        began = time.monotonic()
        lock = locked(path)
        with pytest.warns(UserWarning, match=f"waiting for another process, .* writing {path}"):
            lock.__enter__()
        assert time.monotonic() - began > 0.1
        lock.__exit__(None, None, None)
        timer.join()
    assert list(tmp_path.iterdir()) == []


def test_threads_take_turns(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "file", [], []

    def work() -> None:
        with locked(path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.002)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 8
    assert list(tmp_path.iterdir()) == []


def test_other_paths_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with locked("a"), locked(tmp_path / "b"), locked("folder"), locked("folder/a"), locked("."):
        assert (tmp_path / ".a.lock").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_places_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path / "new" / "a"):
        assert (tmp_path / "new" / ".a.lock").exists()
    assert list((tmp_path / "new").iterdir()) == []

    def without(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if fcntl is not None:  # as on some network file systems
        monkeypatch.setattr(fcntl, "flock", without)
        with pytest.warns(UserWarning, match="has no locks .* only one process"):
            locked(tmp_path / "a").__enter__()


WRITE = """
import sys, time
from pathlib import Path
from cvxnn.files.writing import replacing, replacing_folder
with replacing(sys.argv[1]) as file, replacing_folder(sys.argv[1] + ".d") as folder:
    Path(file).write_text("new")
    (folder / "part").write_text("new")
    print("begun", flush=True)
    sys.stdin.readline()
"""


def write(path: Path) -> subprocess.Popen:
    """Start a process that has begun to write a file and a folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdin=pipe, stdout=pipe, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.skipif(fcntl is None, reason="this system has no locks")
def test_what_a_killed_process_leaves_is_deleted_and_no_living_ones(tmp_path: Path) -> None:
    others = [tmp_path / ".cvxnn-notes", tmp_path / ".other.0123456789abcdef"]
    for other in others:
        other.mkdir()
    with write(tmp_path / "one") as first, write(tmp_path / "two") as second:
        first.kill()
        first.wait()
        begun = set(tmp_path.iterdir()) - set(others)
        assert len(begun) == 4  # two of each process
        write_text(tmp_path / "three", "new")
        left = set(tmp_path.iterdir()) - set(others) - {tmp_path / "three"}
        assert left < begun
        assert len(left) == 2
        second.communicate(b"\n")
        assert second.returncode == 0
    names = {path.name for path in tmp_path.iterdir()} - {path.name for path in others}
    assert names == {"two", "two.d", "three"}
    assert (tmp_path / "two").read_text() == (tmp_path / "two.d" / "part").read_text() == "new"


def test_many_threads_and_processes_take_no_workspace_of_others(tmp_path: Path) -> None:
    failed = []

    def work(number: int) -> None:
        try:
            for turn in range(30):
                write_text(tmp_path / f"{number}", str(turn))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        str(number): "29" for number in range(8)
    }


@pytest.mark.skipif(fcntl is None, reason="this system has no locks")
def test_without_locks_nothing_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = tmp_path / ".cvxnn-0123456789abcdef"
    other.mkdir()
    write_text(tmp_path / "a", "new")
    assert set(tmp_path.iterdir()) == {other, tmp_path / "a"}
    monkeypatch.undo()
    write_text(tmp_path / "a", "newer")
    assert set(tmp_path.iterdir()) == {tmp_path / "a"}
