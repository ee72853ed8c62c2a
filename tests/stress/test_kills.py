"""Processes killed at random moments: nothing is lost, and what continues is equal to the bit.

A killed process ends at a random operation on a file (where a mistake would show) or at a random
time. Two processes may work on the same paths; either or both are killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

pytest.importorskip("torch")
pytest.importorskip("peft")
if not hasattr(os, "fork"):
    pytest.skip("processes are forked", allow_module_level=True)

ROOT = Path(__file__).parents[2]
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
# Measured anew in each run, or different where a part was already done.
VARYING = {"seconds", "costs", "flops", "peak_memory", "tokens_evaluated", "digest", "output"}
# Job and number of processes; case i belongs to entry i % 16.
KINDS = [(job, 1 + (i + turn) % 2) for turn in (1, 0) for i, job in enumerate(JOBS)]
FEW = 4  # cases where --cases asks for fewer

Run = Callable[..., tuple[list[list[int]], float]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a job in processes of their own; give their exit codes and counts, and the seconds."""
    work = tmp_path_factory.mktemp("work")
    log = work / "stderr"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(work / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(Path(__file__).with_name("jobs.py")), str(work)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", log.read_text()

        def call(job: str, folder: Path, *ends: Any, code: int | None = None) -> Any:
            server.stdin.write(json.dumps([job, str(folder), ends or [None]]) + "\n")
            server.stdin.flush()
            found, seconds = json.loads(server.stdout.readline())
            for end, (status, _) in zip(ends or [None], found, strict=True):
                allowed = (0,) if end is None else (0, -9)
                assert status in allowed, (job, end, status, log.read_text()[-3000:])
            return found, seconds

        call("prepare", work)
        yield call
        server.stdin.close()


def plain(value: Any) -> Any:
    """Leave out what differs between equal runs."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if key not in VARYING}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    """Read all that a job has left, by the name of the file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith(".") or "/." in name:  # what a killed process began
            continue
        if path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text("utf-8")))
        elif path.name == "checkpoint.safetensors":
            with safe_open(path, framework="numpy") as file:
                tensors = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
                state = json.loads(file.metadata()["state"])
            found[name] = [tensors, plain(state)]
        elif path.suffix != ".sqlite":
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def expected(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Give what a job leaves that nobody disturbs, its number of operations, and its seconds."""
    known: dict[str, Any] = {}

    def get(job: str) -> Any:
        if job not in known:
            folder = tmp_path_factory.mktemp(job)
            [[_, n]], seconds = run(job, folder)
            assert not [path for path in folder.rglob(".*") if "embeddings" not in path.name]
            known[job] = contents(folder), n, seconds
        return known[job]

    return get


@pytest.mark.slow
@pytest.mark.parametrize(("job", "n_processes"), KINDS)
def test_killed_jobs_continue(
    run: Run,
    expected: Callable[[str], Any],
    cases: int,
    tmp_path: Path,
    job: str,
    n_processes: int,
) -> None:
    own = range(KINDS.index((job, n_processes)), max(FEW, cases // 100), len(KINDS))
    if not own:
        pytest.skip("one case in a hundred is a kill: none of so few is of this kind")
    result, n_operations, seconds = expected(job)
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
        run(job, folder, *ends)
        whole(job, folder, result)
        run(job, folder)
        assert contents(folder) == result, (case, ends)


def whole(job: str, folder: Path, result: dict[str, Any]) -> None:
    """Check what a killed process has left under final names."""
    import cvxnn
    from cvxnn._files import read_json
    from cvxnn.features import read_features

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
