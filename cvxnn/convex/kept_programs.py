"""Compiled programs on the disk: the next process reads what this one compiled.

JAX keeps compiled programs in a folder that is set for a whole process, and writes them in place,
so that a reader may find a part. Here the folder is set only while code of this package runs, and
only if the user has set none. It is a temporary folder of the process, filled from a store that
all processes share; what is new goes into the store in one step, under a name with its digest, and
what does not have its digest is deleted.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from cvxnn._messages import warn
from cvxnn.files.digests import digest
from cvxnn.files.locks import workspace
from cvxnn.files.writing import replacing

SETTING = "CVXNN_PROGRAMS"
"""Environment variable: the folder of the store, or ``off``."""

_LIMIT = 64 * 2**20  # bytes of a store; the programs of one default fit by CRONOS take 0.1 MB
_MARK = ".program-"  # between the name that JAX gives a program and its digest

# Settings of JAX within the scope: keep each program, however little time it took to compile,
# and keep nothing else in the folder.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_enable_xla_caches": "",
}
_FOLDER = "jax_compilation_cache_dir"


class _Programs:
    """The temporary folder of a process, and the store that it came from."""

    def __init__(self, store: Path) -> None:
        self.process = os.getpid()
        self.store = store
        self._scope = contextlib.ExitStack()
        self.folder = self._scope.enter_context(workspace(store))
        atexit.register(self._close)
        for kept in _kept(store):
            contents = kept.read_bytes()
            if kept.name.endswith(_MARK + digest(contents)):
                (self.folder / _name(kept)).write_bytes(contents)
            else:
                kept.unlink(missing_ok=True)
        self._known = {file.name for file in self.folder.iterdir()}

    def publish(self) -> None:
        """Put what was compiled since into the store."""
        new = [file for file in self.folder.iterdir() if file.name not in self._known]
        there = {_name(kept) for kept in _kept(self.store)} if new else set()
        for file in new:
            self._known.add(file.name)
            if file.name in there:  # another process compiled it meanwhile
                continue
            contents = file.read_bytes()
            with replacing(self.store / f"{file.name}{_MARK}{digest(contents)}") as place:
                place.write_bytes(contents)
        if new:
            _keep_newest(self.store)

    def _close(self) -> None:
        if os.getpid() == self.process:  # a forked process leaves its parent's folder alone
            self._scope.close()


_lock = threading.RLock()
_depth = 0
_programs: _Programs | None = None
_before: dict[str, object] = {}


@contextmanager
def kept_programs() -> Iterator[None]:
    """Read compiled programs from the disk, and keep new ones there, within a scope.

    The store is a folder for this version of JAX and this kind of processor in the user's folder of
    caches, of at most 64 MB; the environment variable ``CVXNN_PROGRAMS`` names another folder, or
    is ``off``. Where JAX has been given a folder of its own (``JAX_COMPILATION_CACHE_DIR``), the
    programs are kept there. Where nothing can be written, they are compiled in each process.
    Compiled programs are code: others must not be able to write to the folder.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _depth, _programs
    with _lock:
        _depth += 1
        if _depth > 1 or getattr(jax.config, _FOLDER) is not None:
            return
        if _programs is None or _programs.process != os.getpid():
            _programs = _open()
        if _programs is not None:
            settings = {_FOLDER: str(_programs.folder)} | _SETTINGS
            for name, value in settings.items():
                _before[name] = getattr(jax.config, name)
                jax.config.update(name, value)


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0 and _before:
            for name, value in _before.items():
                jax.config.update(name, value)
            _before.clear()
            compilation_cache.reset_cache()  # JAX keeps the folder that it has used first
            if _programs is not None:
                with contextlib.suppress(OSError):  # a full disk, say
                    _programs.publish()


def _open() -> _Programs | None:
    """Return the programs of this process; None where they are switched off or cannot be kept."""
    with contextlib.suppress(OSError):
        store = _store()
        if store is None:
            return None
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and not _is_private(store):
            warn(
                f"{store} is not used for compiled programs, since other users could write there; "
                f"correct its owner and its mode (chmod 700), or name another folder by {SETTING}",
            )
            return None
        return _Programs(store)
    return None


def _store() -> Path | None:
    setting = os.environ.get(SETTING, "")
    if setting == "off":
        return None
    parent = Path(setting) if setting else _caches() / "cvxnn" / "programs"
    return parent / digest(version("jax"), version("jaxlib"), _processor())


def _caches() -> Path:
    """Return the user's folder of caches, by the conventions of the system."""
    try:
        home = Path.home()
    except RuntimeError as error:  # a user without one, as in some containers
        raise OSError("there is no home folder") from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def _processor() -> list[str]:
    """Return what tells kinds of processor apart: a home folder may be shared among machines."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [platform.system(), platform.machine(), platform.processor(), flags]


def _is_private(folder: Path) -> bool:
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _kept(store: Path) -> list[Path]:
    return [
        file for file in store.iterdir() if _MARK in file.name and not file.name.startswith(".")
    ]


def _name(kept: Path) -> str:
    """Return the name that JAX gave a program of the store."""
    return kept.name.rpartition(_MARK)[0]


def _keep_newest(store: Path) -> None:
    """Delete the oldest programs where the store is above its limit."""
    room = _LIMIT
    status = [(file.stat(), file) for file in _kept(store)]
    for each, file in sorted(status, key=lambda pair: -pair[0].st_mtime_ns):
        room -= each.st_size
        if room < 0:
            file.unlink(missing_ok=True)
