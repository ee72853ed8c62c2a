"""Processes killed at random moments: nothing is lost, and what continues is equal to the bit.

A killed process ends at a random operation on a file (where a mistake would show) or at a random
time. Two processes may work on the same paths; either or both are killed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

JOBS = (
    "extraction",
    "saving",
    "generation",
    "fine_tuning",
    "judging",
    "scoring",
    "comparison",
    "extraction_with_cache",
)
# Job and number of processes; case i belongs to entry i % 16.
KINDS = [(job, 1 + (i + turn) % 2) for turn in (1, 0) for i, job in enumerate(JOBS)]
FEW = 4  # cases where --cases asks for fewer


@pytest.mark.slow
@pytest.mark.parametrize(("job", "n_processes"), KINDS)
def test_killed_jobs_continue(
    jobs: Any,
    cases: int,
    tmp_path: Path,
    job: str,
    n_processes: int,
) -> None:
    own = range(KINDS.index((job, n_processes)), max(FEW, cases // 100), len(KINDS))
    if not own:
        pytest.skip("one case in a hundred is a kill: none of so few is of this kind")
    result, n_operations, seconds = jobs.undisturbed(job)
    for case in own:
        rng = np.random.default_rng(case)
        folder = tmp_path / str(case)
        folder.mkdir()
        ends: list[Any] = [
            {"operation": int(rng.integers(1, n_operations + 1))}
            if case // len(KINDS) % 2 == 0
            else {"seconds": float(rng.uniform(0, seconds))}
            for _ in range(n_processes)
        ]
        if n_processes > 1 and rng.random() < 0.5:
            ends[int(rng.integers(n_processes))] = None
        jobs.run(job, folder, *ends)
        whole(job, folder, result)
        jobs.run(job, folder)
        assert jobs.left(folder) == result, (case, ends)


def whole(job: str, folder: Path, result: dict[str, Any]) -> None:
    """Check what a killed process has left under final names."""
    import cvxnn
    from cvxnn.features import read_features
    from cvxnn.files.json_files import read_json

    for path in folder.rglob("*.json"):
        if "/." not in str(path.relative_to(folder.parent)):
            read_json(path)
    for path in folder.rglob("*head.safetensors"):
        if "/." not in str(path.relative_to(folder.parent)):
            cvxnn.load(path)
    for path in folder.rglob("features.npy"):
        read_features(path)
    if job == "generation" and (folder / "replies.jsonl").exists():
        assert result["replies.jsonl"].startswith((folder / "replies.jsonl").read_bytes())
