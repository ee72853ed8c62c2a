"""Files that were cut or changed at any byte, full disks, folders that are read-only.

What is wrong is noticed, the message names the place, and once there is room, the same call leaves
what it would have left at once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KINDS = ("estimator", "features", "comparison", "key", "log", "cache", "checkpoint", "adapter")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damage_is_noticed(kept: Any, cases: int, tmp_path: Path, kind: str, damage: str) -> None:
    folder, read = kept(kind)
    expected = read(folder)
    noticed = 0
    n = max(1, cases // (200 if kind == "adapter" else 20))
    for case in range(n):
        rng = np.random.default_rng([case, KINDS.index(kind)])
        copy = tmp_path / str(case)
        shutil.copytree(folder, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        place = int(rng.integers(len(content)))
        if damage == "cut":
            del content[place:]
        elif kind == "log":  # the lines have no checksums
            continue
        else:
            content[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about entries of a cache that are left out
            try:
                found, refusal = read(copy), None
            except (ValueError, OSError) as error:
                refusal = str(error)
        where = case, str(file), place, refusal
        if refusal is not None:
            assert str(copy) in refusal, where
        elif kind in ("cache", "log"):  # what is left out is computed again
            assert found.items() <= expected.items(), where
        else:
            assert found == expected, where
        noticed += refusal is not None
        shutil.rmtree(copy)
    assert noticed or kind in ("cache", "log") or n < 20


JOBS = (
    "judging",
    "extraction",
    "extraction_with_cache",
    "saving",
    "fine_tuning",
    "generation",
    "scoring",
    "comparison",
)
FULL = (
    r"No space left|File too large|larger than the system allows|disk is full|disk I/O error|"
    r"os error 27|os error 28"
)


def own_cases(job: str, cases: int) -> range:
    own = range(JOBS.index(job), max(2, cases // 100), len(JOBS))
    if not own:
        pytest.skip("one case in a hundred is such a job: none of so few is of this kind")
    return own


def check_full(code: int, error: str, folder: Path) -> None:
    if code:
        assert str(folder) in error, error
        assert re.search(FULL, error), error


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_files_that_cannot_grow(jobs: Any, cases: int, tmp_path: Path, job: str) -> None:
    for case in own_cases(job, cases):
        result, _, _ = jobs.undisturbed(job)
        folder = tmp_path / str(case)
        folder.mkdir()
        rng = np.random.default_rng(case)
        limit = int(rng.integers(1, 4096 * 2 ** rng.integers(4)))
        [[code, _, error]] = jobs.run(job, folder, {"bytes": limit})
        check_full(code, error, folder)
        jobs.run(job, folder)
        assert jobs.left(folder) == result


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_full_disks(jobs: Any, cases: int, tmp_path: Path, job: str) -> None:
    """A disk in memory of a few pages, where the system lets tests mount one."""
    for case in own_cases(job, cases):
        result, _, _ = jobs.undisturbed(job)
        folder = tmp_path / str(case)
        folder.mkdir()
        pages = 1 + int(np.random.default_rng(case).integers(24))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={4096 * pages}", "tmpfs", str(folder)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this system lets nobody mount a disk in memory")
        try:
            [[code, _, error]] = jobs.run(job, folder, {"disk": 0})
            check_full(code, error, folder)
            larger = ["mount", "-o", "remount,size=64m", str(folder)]
            subprocess.run(larger, check=True, capture_output=True)
            jobs.run(job, folder)
            assert jobs.left(folder) == result
        finally:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_folders_that_are_read_only(jobs: Any, cases: int, tmp_path: Path, job: str) -> None:
    for _ in own_cases(job, cases)[:1]:
        folder = tmp_path / job
        folder.mkdir(mode=0o555)
        try:
            [[code, _, error]] = jobs.run(job, folder, {"rights": 0})
        finally:
            folder.chmod(0o755)
        assert code == 1
        assert str(folder) in error, error
        assert "permission denied" in error.lower() or "cannot be used" in error, error
        assert list(folder.iterdir()) == []
