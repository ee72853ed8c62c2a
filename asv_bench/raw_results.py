"""Raw results: JSON lines beside the script that made them, each with what it takes to repeat it.

Scripts import this file as ``asv_bench.raw_results``: the root of the project has to be on Python's
path, as it is after ``pip install -e .``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Hashable
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "scipy", "scikit-learn", "jax", "torch", "transformers", "cvxpy", "cvxnn")


def append(path: Path, record: Record) -> None:
    """Write a record as a line, with the provenance that it does not state itself."""
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        line = json.dumps({**record, **provenance(), **record})
        file.write(("\n" if cut else "") + line + "\n")


def read(path: Path, key: Callable[[Record], Hashable] = id) -> list[Record]:
    """Records of earlier runs without lines that were cut off; of those of one key, the last."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            found[key(record)] = record
        except (ValueError, KeyError):
            print(f"{path}: a line is not a record and is ignored", file=sys.stderr)
    return list(found.values())


@cache
def provenance() -> Record:
    """Fields of every record: the command, the commit, the day, the machine and the versions."""
    return {
        "command": command(),
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {"python": platform.python_version(), **_versions()},
    }


def command() -> str:
    """The command line from the root of the project; of a folder elsewhere, only its name."""
    words = []
    for word in sys.argv:
        path = Path(word).resolve()
        if path.is_relative_to(ROOT) and os.path.exists(path):  # False of a long list
            word = path.relative_to(ROOT).as_posix()
        elif Path(word).is_absolute():
            word = path.name
        words.append(f"'{word}'" if " " in word else word)
    return " ".join(["python", *words])


def commit() -> str | None:
    """The last commit that changed the package, "-dirty" if its files differ.

    ``COMMIT`` in the environment names it where the files are a copy without their history.
    """
    if stated := os.environ.get("COMMIT"):
        return stated
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        last = subprocess.run(
            [*git, "log", "-1", "--format=%h", "--", "cvxnn"], capture_output=True, text=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "cvxnn"], capture_output=True, text=True
        )
    except OSError:
        return None
    return last.stdout.strip() + ("-dirty" if changed.stdout.strip() else "") or None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
