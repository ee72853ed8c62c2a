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

from cvxnn._locks import fcntl, locked

HOLD = """
import sys, time
from cvxnn._locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen:
    """Start a process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
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
    with pytest.raises(FileNotFoundError, match=r"no/a: its folder does not exist; create"):
        locked(tmp_path / "no" / "a").__enter__()

    def without(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if fcntl is not None:  # as on some network file systems
        monkeypatch.setattr(fcntl, "flock", without)
        with pytest.warns(UserWarning, match="has no locks .* only one process"):
            locked(tmp_path / "a").__enter__()
