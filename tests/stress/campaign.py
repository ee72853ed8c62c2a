"""Run many cases of a campaign, again from where it stopped, and keep what came of them.

``python tests/stress/campaign.py {bounds,fits} FIRST LAST`` runs the cases FIRST to LAST - 1 in
blocks, shows those that break a promise, and keeps a line for each block in ``bounds.jsonl`` or
``fits.jsonl``, in the place of that of an older commit. Blocks that are there already, from the
last commit that changed the cases or what they run on, are left out.
"""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from asv_bench.raw_results import ROOT  # noqa: E402
from cvxnn.files.locks import locked  # noqa: E402
from cvxnn.files.writing import write_text  # noqa: E402

BLOCK = 40  # as many as share what is compiled in test_bounds.py
# What cases run on, beside the file of the cases.
CORE = (
    "convex",
    "estimators",
    "explanation",
    "numerics",
    "preference",
    "training",
    "network.py",
    "persistence.py",
)


def commit(name: str) -> str:
    """Return the last commit that changed what the cases depend on, "-dirty" if files differ."""
    places = [*(f"cvxnn/{part}" for part in CORE), f"tests/stress/test_{name}.py"]

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words, "--", *places]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    return git("log", "-1", "--format=%h") + ("-dirty" if git("status", "--porcelain") else "")


def keep(path: Path, record: dict[str, Any]) -> None:
    """Write a record in the place of the one of the same block, in the order of the blocks."""
    with locked(path):  # another process may run other blocks
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        blocks = [line for line in [*lines, record] if "outcomes" in line]
        found = {(line["first"], line["last"]): line for line in blocks}
        write_text(path, "".join(json.dumps(found[key]) + "\n" for key in sorted(found)))


def main(name: str, first: int, last: int) -> None:
    """Run the blocks that are missing."""
    jax.config.update("jax_disable_most_optimizations", True)
    # Shapes are few: what is compiled outlasts the blocks, in a folder of this process.
    compiled = tempfile.TemporaryDirectory()
    jax.config.update("jax_compilation_cache_dir", compiled.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    campaign = importlib.import_module(f"test_{name}")
    path = HERE / f"{name}.jsonl"
    here = commit(name)
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        place = {"commit": here, "first": start, "last": stop}
        if any(place.items() <= record.items() for record in records):
            continue
        began, found = time.process_time(), Counter[str]()
        broken = []
        for number in range(start, stop):
            outcome = campaign.run(number)
            result = "broken promise" if outcome.broken else outcome.error or "right"
            found[f"{outcome.name}: {result}"] += 1
            if outcome.broken:
                print(*outcome, flush=True)
                broken.append(number)
        seconds = round(time.process_time() - began, 1)
        outcomes = dict(sorted(found.items()))
        record = {**place, "cpu_seconds": seconds, "outcomes": outcomes, "broken": broken}
        keep(path, record)
        if start // BLOCK % 5 == 4:  # compiled programs fill the memory
            jax.clear_caches()
            gc.collect()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
